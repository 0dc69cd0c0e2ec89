"""How far a prediction can be trusted: from the votes and the score map to probabilities.

Every point of PIPNet is predicted several times, once by itself and once by each point that has it for a neighbour.
Where these votes disagree, the point is a guess: the spread of the votes is an uncertainty that costs nothing. The peak
of the score map alone does not tell an occluded point from a visible one (authors' issue #35).

Two logistic regressions turn both into probabilities, fitted on validation faces by
:mod:`pipnet.training.calibration`:

* point: ``sigmoid(point_bias[n] + log_spread * log(spread + 0.01) + peak * peak)`` is the probability that the point
  lies within :data:`TOLERANCE` of the truth, as a fraction of the size of the face's box;
* face: ``sigmoid(face_bias + face_weight * m)``, where ``m`` is the mean of the points' logits, is the probability that
  the crop shows a face whose mean error is below :data:`TOLERANCE`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor, nn

TOLERANCE = 0.05  # of the box size, sqrt(width * height); about 8 % of the outer-eye distance on 68 points

_LEAST_SPREAD = 0.01  # cells; keeps the logarithm finite where a point has one vote
_SLOPE_PENALTY, _BIAS_PENALTY = 1e-5, 5e-5  # rare points lean on the others


class Confidence(nn.Module):
    """Scores of points and faces.

    Args:
        num_points: N.
        parameters: What :func:`fit_confidence` returns, or None: scores then only *rank* points, as
            ``peak * exp(-spread)``, and a face has their mean.

    Raises:
        ValueError: Parameters that do not fit N points.
    """

    point_bias: Tensor
    log_spread: Tensor
    peak: Tensor
    face_bias: Tensor
    face_weight: Tensor

    def __init__(self, num_points: int, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.calibrated = parameters is not None
        if parameters is None:
            return
        numbers = [*parameters["point_bias"], *(parameters[name] for name in _NUMBERS)]
        if len(parameters["point_bias"]) != num_points or not np.isfinite(numbers).all():
            raise ValueError(
                f"confidence has {len(parameters['point_bias'])} biases for {num_points} points, or one that is not"
                " finite; calibrate the network again"
            )
        # Not stored with the weights: they follow from the arguments of the network.
        self.register_buffer("point_bias", torch.tensor(parameters["point_bias"]), persistent=False)
        for name in _NUMBERS:
            self.register_buffer(name, torch.tensor(float(parameters[name])), persistent=False)

    def forward(self, spread: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``(B, N)`` of points and ``(B,)`` of faces, in [0, 1].

        ``spread (B, N)`` is the root mean square distance of a point's votes from their mean, in cells; ``peak (B, N)``
        the largest value of its score map.
        """
        if not self.calibrated:
            scores = peak.clamp(0, 1) * torch.exp(-spread)
            return scores, scores.mean(dim=1)
        features = self.log_spread * torch.log(spread + _LEAST_SPREAD) + self.peak * peak.clamp(0, 1)
        logits = self.point_bias + features
        return logits.sigmoid(), (self.face_bias + self.face_weight * logits.mean(dim=1)).sigmoid()


_NUMBERS = ("log_spread", "peak", "face_bias", "face_weight")


def fit_confidence(spread: np.ndarray, peak: np.ndarray, error: np.ndarray) -> dict[str, Any]:
    """Fit the two regressions to faces whose errors are known.

    Args:
        spread: ``(B, N)``, cells.
        peak: ``(B, N)``.
        error: ``(B, N)``, distance of each point from the truth as a fraction of the box size. NaN for a point that is
            not labelled; inf for every point of a crop without a face.

    Returns:
        Plain numbers for :class:`Confidence`.

    Raises:
        ValueError: All points are right, or all are wrong: there is nothing to tell apart.
    """
    labelled = ~np.isnan(error)
    good = error <= TOLERANCE
    if not (good & labelled).any() or good[labelled].all():
        raise ValueError("every point is right, or every one is wrong, on these faces; calibrate on others")
    count, n = error.shape
    shared = np.stack([np.log(spread + _LEAST_SPREAD), np.clip(peak, 0, 1)], axis=-1)  # (B, N, 2)
    point = np.broadcast_to(np.arange(n), (count, n))
    weights = _logistic(shared[labelled], point[labelled], n, good[labelled])
    logits = shared @ weights[:2] + weights[2:]
    with np.errstate(invalid="ignore"):
        face_error = np.nanmean(error, axis=1)
    face = _logistic(logits.mean(axis=1)[:, None], np.zeros(count, dtype=int), 1, face_error <= TOLERANCE)
    return {
        "point_bias": weights[2:].tolist(),
        "log_spread": float(weights[0]),
        "peak": float(weights[1]),
        "face_bias": float(face[1]),
        "face_weight": float(face[0]),
    }


def _logistic(features: np.ndarray, group: np.ndarray, groups: int, good: np.ndarray) -> np.ndarray:
    """Logistic regression of ``features (M, K)`` with shared slopes and a bias for each group: ``(K + G,)``."""
    slopes = features.shape[1]
    penalty = np.r_[np.full(slopes, _SLOPE_PENALTY), np.full(groups, _BIAS_PENALTY)]

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = features @ weights[:slopes] + weights[slopes:][group]
        residual = (expit(logits) - good) / len(good)
        gradient = np.r_[features.T @ residual, np.bincount(group, residual, groups)]
        value = (np.logaddexp(0, logits) - good * logits).mean() + (penalty * weights**2).sum() / 2
        return float(value), gradient + penalty * weights

    return minimize(loss, np.zeros(slopes + groups), jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as plain types for a checkpoint; ValueError names a missing one."""
    missing = [name for name in ("point_bias", *_NUMBERS) if name not in parameters]
    if missing:
        raise ValueError(f"confidence lacks {missing[0]!r}; calibrate the network again")
    bias: Sequence[float] = parameters["point_bias"]
    return {"point_bias": [float(b) for b in bias], **{name: float(parameters[name]) for name in _NUMBERS}}
