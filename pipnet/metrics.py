"""How wrong predicted points are: NME, failure rate, AUC, the error curve, and how sure one can be of each.

Errors are fractions of a normalising distance (multiply by 100 for "%"), one number a face, and two values are special:
``inf`` is a missed face (nothing was predicted) and ``NaN`` a face that can't be measured (a norm or all points
unlabelled). A missed face counts as a failure in the failure rate and the AUC and is left out of mean and median, whose
report therefore needs the number of missed faces beside it. NaN is rejected by every statistic: leave such faces out
and count them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipnet.geometry import box_size, tight_box
from pipnet.layouts import PointLayout

Statistic = Callable[[np.ndarray], np.ndarray]
"""``(..., F)`` errors to ``(...)``, so that all bootstrap resamples are computed at once."""


def point_distances(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Distance of each predicted point from the true one, ``(F, N)`` in pixels.

    Both are ``(F, N, 2)``, source pixels. NaN where the point is not labelled (NaN in ``true``), inf on the labelled
    points of a missed face (all NaN in ``pred``).

    Raises:
        ValueError: If shapes differ, or a predicted face is partly NaN or infinite; the message names face and point.
    """
    pred, true = np.asarray(pred, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if pred.shape != true.shape or true.ndim != 3 or true.shape[-1] != 2:
        raise ValueError(f"pred and true must both be (F, N, 2), got {pred.shape} and {true.shape}")
    missed = np.asarray(np.isnan(pred).all(axis=(1, 2)))  # (F,)
    bad = np.argwhere(~np.isfinite(pred).all(axis=-1) & ~missed[:, None])
    if bad.size:
        raise ValueError(f"face {bad[0, 0]}: predicted point {bad[0, 1]} is not finite, yet others of the face are")
    distances = np.linalg.norm(pred - true, axis=-1)  # (F, N)
    distances[missed] = np.inf
    distances[np.isnan(true).any(axis=-1)] = np.nan
    return distances


def labelled_mean(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without its NaN entries; NaN where nothing is left. ``(..., N)`` to ``(...)``."""
    labelled = ~np.isnan(values)
    count = labelled.sum(axis=-1)
    total = np.where(labelled, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def nme(pred: np.ndarray, true: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Normalised mean error of each face, as a fraction.

    Args:
        pred: Predicted points ``(F, N, 2)``, source pixels; all NaN for a missed face.
        true: True points, same shape, unit and order; NaN points (not labelled) do not count in the mean.
        norm: Normalising distance of each face ``(F,)``, same pixels: a value of :func:`norm_distances`. NaN where the
            face has none.

    Returns:
        ``(F,)``: inf for a missed face, NaN for a face without norm or without labelled points. The figure that papers
        report is the mean over faces of this, never the mean over all points pooled.

    Raises:
        ValueError: If shapes disagree or a norm is zero, negative or infinite; the message names the face.

    Example:
        >>> true = np.array([[[0.0, 0.0], [100.0, 0.0]]])
        >>> nme(true + [3.0, 4.0], true, norm=np.array([100.0])).tolist()
        [0.05]
    """
    norm = np.asarray(norm, dtype=np.float64)
    distances = point_distances(pred, true)
    if norm.shape != distances.shape[:1]:
        raise ValueError(f"norm must be one number a face, ({len(distances)},), got {norm.shape}")
    bad = np.flatnonzero((norm <= 0) | np.isinf(norm))
    if bad.size:
        raise ValueError(f"face {bad[0]}: norm must be > 0 and finite, got {norm[bad[0]]}")
    return labelled_mean(distances) / norm


def norm_distances(true: np.ndarray, layout: PointLayout) -> dict[str, np.ndarray]:
    """The distances that errors are divided by.

    Args:
        true: True points ``(F, N, 2)``; NaN points are not labelled.
        layout: What the N points mean.

    Returns:
        Each ``(F,)`` in the unit of ``true``, NaN where a point it needs is not labelled or it is zero:
        ``"outer_eye"``, distance of the outer eye corners (only if the layout names them);
        ``"pupil"``, distance of the pupils, each the mean of its points (only if the layout names them);
        ``"box"``, ``sqrt(width * height)`` of the tight box of the labelled points. On a profile the eye distances
        collapse and inflate the error, the box does not.
    """
    true = np.asarray(true, dtype=np.float64)
    norms: dict[str, np.ndarray] = {}
    if layout.norm_pair is not None:
        left, right = layout.norm_pair
        norms["outer_eye"] = np.linalg.norm(true[:, left] - true[:, right], axis=-1)
    if layout.pupils is not None:
        left_pupil, right_pupil = (true[:, list(side)].mean(axis=1) for side in layout.pupils)
        norms["pupil"] = np.linalg.norm(left_pupil - right_pupil, axis=-1)
    norms["box"] = box_size(labelled_box(true))
    return {name: np.where(norm > 0, norm, np.nan) for name, norm in norms.items()}


def labelled_box(true: np.ndarray) -> np.ndarray:
    """Tight box of the labelled points of each face, ``(F, N, 2)`` to ``(F, 4)``; NaN where no point is labelled."""
    boxes = np.full((len(true), 4), np.nan)
    some = ~np.isnan(true).any(axis=-1).all(axis=-1)  # numpy warns about the minimum of nothing but NaN
    if some.any():
        boxes[some] = tight_box(true[some])
    return boxes


def _checked(errors: np.ndarray) -> np.ndarray:
    errors = np.asarray(errors, dtype=np.float64)
    if errors.ndim == 0 or errors.shape[-1] == 0:
        raise ValueError("no face to measure")
    if not (errors >= 0).all():
        face = np.argwhere(~(errors >= 0))[0, -1]
        raise ValueError(f"face {face}: an error must be a number >= 0, or inf for a missed face; leave out NaN")
    return errors


def mean_error(errors: np.ndarray) -> np.ndarray:
    """Mean over the faces that were found, ``(..., F)`` to ``(...)``; NaN if none was."""
    errors = _checked(errors)
    return labelled_mean(np.where(np.isinf(errors), np.nan, errors))


def median_error(errors: np.ndarray) -> np.ndarray:
    """Median over the faces that were found, ``(..., F)`` to ``(...)``; NaN if none was."""
    errors = np.sort(_checked(errors), axis=-1)  # missed faces go to the end
    found = np.isfinite(errors).sum(axis=-1, keepdims=True)
    low = np.take_along_axis(errors, np.maximum((found - 1) // 2, 0), axis=-1)
    high = np.take_along_axis(errors, found // 2, axis=-1)
    return np.where(found > 0, (low + high) / 2, np.nan)[..., 0]


def failure_rate(errors: np.ndarray, threshold: float) -> np.ndarray:
    """Share of faces whose error exceeds the threshold; missed faces fail. ``(..., F)`` to ``(...)``."""
    return (_checked(errors) > threshold).mean(axis=-1)


def auc(errors: np.ndarray, threshold: float) -> np.ndarray:
    """Area under the cumulative error curve up to the threshold, divided by the threshold. ``(..., F)`` to ``(...)``.

    The curve is a staircase that rises by 1/F at each face's error, so its integral is exactly the mean of
    ``max(0, 1 - error / threshold)``; a missed face never enters the curve and adds 0.

    Reference:
        The authors (``lib/functions.py``, ``compute_fr_and_auc``) integrate the same staircase by Simpson's rule over a
        grid of 1e-4. A jump inside a grid step is then misplaced by about two thirds of the step: 0.0007 at most for
        one face at threshold 0.1, some 0.00001 for a few hundred.

    Example:
        >>> float(auc(np.array([0.0, 0.05, 0.3, np.inf]), 0.10))
        0.375
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be > 0, got {threshold}")
    return np.clip(1 - _checked(errors) / threshold, 0, None).mean(axis=-1)


def ced(errors: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative error distribution of errors ``(F,)``: the share of faces with at most a given error.

    Returns ``(K,)`` errors, rising from 0 to ``limit``, and ``(K,)`` shares in [0, 1]: the corners of the exact
    staircase, to be drawn with ``drawstyle="steps-post"``.
    """
    errors = np.sort(_checked(errors))
    x = np.unique(np.concatenate([[0.0], errors[errors <= limit], [limit]]))
    return x, np.searchsorted(errors, x, side="right") / len(errors)


def error_statistics(thresholds: tuple[float, ...] = (0.08, 0.10)) -> dict[str, Statistic]:
    """The statistics of a report by name: ``mean``, ``median``, and ``fr_8``, ``auc_8`` … for each threshold."""
    statistics: dict[str, Statistic] = {"mean": mean_error, "median": median_error}
    for threshold in thresholds:
        statistics[f"fr_{100 * threshold:g}"] = lambda errors, t=threshold: failure_rate(errors, t)
    for threshold in thresholds:
        statistics[f"auc_{100 * threshold:g}"] = lambda errors, t=threshold: auc(errors, t)
    return statistics


@dataclass(frozen=True)
class Interval:
    """A figure with its bootstrap interval; all three NaN where there was nothing to measure."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """All three times a positive factor."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)


def bootstrap(
    errors: np.ndarray,
    statistics: Mapping[str, Statistic],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of several statistics from the same resamples of the faces.

    ``errors`` are ``(F,)``, or ``(F, K)`` for statistics of several numbers a face (each resample is then
    ``(R, F, K)``). The same seed gives the same interval. ValueError if there is no face or an error is NaN.
    """
    errors = np.asarray(errors, dtype=np.float64)
    if len(errors) == 0:
        raise ValueError("no face to measure")
    rng = np.random.default_rng(seed)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    # A block of resamples at a time: all of a large set at once would take gigabytes.
    block = max(1, 2_000_000 // errors.size)
    for start in range(0, resamples, block):
        faces = rng.integers(0, len(errors), (min(block, resamples - start), len(errors)))
        for name, statistic in statistics.items():
            drawn[name].append(statistic(errors[faces]))
    tail = 50 * (1 - level)
    intervals = {}
    for name, statistic in statistics.items():
        values = np.concatenate(drawn[name])
        values = values[~np.isnan(values)]  # a resample of missed faces only has no mean
        low, high = np.percentile(values, [tail, 100 - tail]) if values.size else (np.nan, np.nan)
        intervals[name] = Interval(float(statistic(errors)), float(low), float(high))
    return intervals


def paired_bootstrap(
    errors_a: np.ndarray,
    errors_b: np.ndarray,
    statistic: Statistic = mean_error,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of ``statistic(a) - statistic(b)`` for two methods measured on the same faces.

    Every resample takes the same faces from both, so what makes a face hard cancels: far sharper than comparing two
    separate intervals. An interval without 0 is a difference at that level.

    :func:`mean_error` and :func:`median_error` are over found faces, so for these only faces that both methods found
    are compared: dropping hard faces must not look like a gain.

    Raises:
        ValueError: If the vectors differ in length, hold NaN, or no face is left.
    """
    if np.shape(errors_a) != np.shape(errors_b):
        raise ValueError(f"paired errors must be of the same faces, got {len(errors_a)} and {len(errors_b)}")
    errors = np.stack([np.asarray(errors_a, np.float64), np.asarray(errors_b, np.float64)], axis=-1)  # (F, 2)
    if statistic in (mean_error, median_error):
        errors = errors[~np.isinf(errors).any(axis=-1)]

    def difference(resampled: np.ndarray) -> np.ndarray:
        return statistic(resampled[..., 0]) - statistic(resampled[..., 1])

    settings = {"resamples": resamples, "level": level, "seed": seed}
    return bootstrap(errors, {"difference": difference}, **settings)["difference"]
