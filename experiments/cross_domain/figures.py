"""Figures of several trainings of one kind with their intervals, and paired differences of two kinds.

Faces are drawn with replacement and bring the errors of all seeds along; a figure is the mean over seeds of each
seed's own. For mean, failure rate and AUC that is the same as averaging over seeds face by face first. For the median
it is not: the median of averaged errors is the figure of an ensemble that nobody runs, so no error is averaged before a
statistic is taken. Intervals are over faces, of these trainings; how far seeds lie apart is seen in their single
figures.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipnet.metrics import Interval, Statistic, bootstrap, error_statistics

THRESHOLD = 0.10
RESAMPLES = 2000
STATISTICS: dict[str, Statistic] = error_statistics((THRESHOLD,))  # mean, median, fr_10, auc_10
INTERVAL = (
    f"95 % percentile bootstrap over faces, {RESAMPLES} resamples, all seeds of a face together; "
    "a figure is the mean over seeds of each seed's own"
)


def over_seeds(statistic: Statistic) -> Statistic:
    """A statistic of ``(..., F)`` as the mean over seeds of it, of ``(..., F, S)``.

    Example:
        >>> float(over_seeds(STATISTICS["median"])(np.array([[1.0, 5.0], [2.0, 6.0], [9.0, 1.0]])))
        3.5
    """
    return lambda errors: statistic(np.moveaxis(errors, -1, -2)).mean(axis=-1)


def figures(errors: np.ndarray, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Every statistic of the seeds of a row.

    Args:
        errors: ``(S, F)`` fractions, inf for a missed face.
        resamples: Of the bootstrap.

    Returns:
        Percent: statistic to ``value``, ``low``, ``high`` and ``seeds``, the single figures.
    """
    intervals = bootstrap(
        errors.T, {name: over_seeds(statistic) for name, statistic in STATISTICS.items()}, resamples=resamples
    )
    return {
        name: plain(interval.scaled(100))
        | {"seeds": [_rounded(100 * float(value)) for value in STATISTICS[name](errors)]}
        for name, interval in intervals.items()
    }


def difference(errors: np.ndarray, base: np.ndarray, *, resamples: int = RESAMPLES) -> dict[str, Any]:
    """How much a row differs from another one on the same faces: every resample takes the same faces from both.

    Args:
        errors: ``(S, F)`` fractions of the one; below zero is in its favour, but for the AUC.
        base: ``(T, F)`` of the other, the same faces in the same order.
        resamples: Of the bootstrap.

    Returns:
        Statistic to ``value``, ``low``, ``high`` in points, and ``relative``: the change in percent of the other's
        figure, None where that is zero; its interval is None where it is zero in a resample (a failure rate of few).

    Raises:
        ValueError: If the faces differ in number, or in which of them were missed: leaving out hard faces must not
            look like a gain.
    """
    if errors.shape[1] != base.shape[1]:
        raise ValueError(f"paired errors must be of the same faces, got {errors.shape[1]} and {base.shape[1]}")
    missed = np.isinf(np.concatenate([errors, base]))  # (S + T, F)
    if (missed.any(axis=0) != missed.all(axis=0)).any():
        raise ValueError("the networks missed different faces, so their means can't be compared; give them label boxes")
    stacked, seeds = np.concatenate([errors, base]).T, len(errors)
    return {name: _compared(stacked, seeds, statistic, resamples) for name, statistic in STATISTICS.items()}


def over_photos(errors: np.ndarray, base: np.ndarray, photos: np.ndarray) -> dict[str, Any]:
    """Difference of two rows' means as :func:`difference` has it, but drawn by photo: all faces of one come together.

    Args:
        errors: ``(S, F)`` fractions of the one; faces missed by both are left out.
        base: ``(T, F)`` of the other.
        photos: ``(F,)`` ids.
    """
    found = ~np.isinf(errors[0])
    errors, base, photos = errors[:, found], base[:, found], photos[found]
    ids = np.unique(photos, return_inverse=True)[1]
    sums = np.zeros((ids.max() + 1, 3))
    np.add.at(sums, ids, np.stack([errors.mean(axis=0), base.mean(axis=0), np.ones(len(ids))], axis=1))

    def points(drawn: np.ndarray) -> np.ndarray:
        mine, theirs, faces = np.moveaxis(drawn.sum(axis=-2), -1, 0)
        return (mine - theirs) / faces

    def relative(drawn: np.ndarray) -> np.ndarray:
        mine, theirs, _ = np.moveaxis(drawn.sum(axis=-2), -1, 0)
        return mine / theirs - 1

    result = bootstrap(sums, {"points": points, "relative": relative}, resamples=RESAMPLES)
    return plain(result["points"].scaled(100)) | {"relative": plain(result["relative"].scaled(100))}


def _compared(stacked: np.ndarray, seeds: int, statistic: Statistic, resamples: int) -> dict[str, Any]:
    """One statistic of ``(F, S + T)``, the first ``seeds`` against the others."""
    averaged = over_seeds(statistic)
    base_vanishes = False

    def points(errors: np.ndarray) -> np.ndarray:
        return averaged(errors[..., :seeds]) - averaged(errors[..., seeds:])

    def relative(errors: np.ndarray) -> np.ndarray:
        nonlocal base_vanishes
        base = averaged(errors[..., seeds:])
        base_vanishes |= bool((base <= 0).any())
        return np.where(base > 0, averaged(errors[..., :seeds]) / np.where(base > 0, base, 1.0) - 1, np.nan)

    result = bootstrap(stacked, {"points": points, "relative": relative}, resamples=resamples)
    change = result["relative"]
    if base_vanishes:
        change = Interval(change.value, np.nan, np.nan)
    return plain(result["points"].scaled(100)) | {"relative": plain(change.scaled(100))}


def plain(interval: Interval) -> dict[str, float | None]:
    """As written to a record: four decimals, None for what can't be measured."""
    return {name: _rounded(getattr(interval, name)) for name in ("value", "low", "high")}


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
