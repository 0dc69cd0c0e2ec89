"""What a face detector gives, and how its boxes become the tight boxes of the points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces that a detector found in one photo, best first.

    Attributes:
        boxes: ``(F, 4)`` float32, ``x0, y0, x1, y1`` in source pixels (0-based pixel centres). They may reach over the
            photo's border, as faces do.
        scores: ``(F,)`` float32 in [0, 1], not increasing.

    Raises:
        ValueError: If shapes disagree.

    Example:
        >>> found = Detections([[0, 0, 2, 2], [5, 5, 9, 9]], [0.7, 0.9])
        >>> len(found), found.boxes[0].tolist()
        (2, [5.0, 5.0, 9.0, 9.0])
    """

    boxes: np.ndarray
    scores: np.ndarray

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float32)
        scores = np.asarray(self.scores, dtype=np.float32)
        if scores.ndim != 1 or boxes.shape != (len(scores), 4):
            raise ValueError(f"boxes must be (F, 4) with scores (F,), got {boxes.shape} and {scores.shape}")
        order = np.argsort(-scores, kind="stable")
        object.__setattr__(self, "boxes", boxes[order])
        object.__setattr__(self, "scores", scores[order])

    def __len__(self) -> int:
        return len(self.scores)


class Detector(Protocol):
    """What :class:`~pipnet.inference.landmarker.FaceLandmarker` needs of a detector: any callable of this form."""

    def __call__(self, image: np.ndarray) -> Detections:
        """Faces of an RGB uint8 ``(H, W, 3)`` photo, boxes calibrated to the tight box of the points."""
        ...


@dataclass(frozen=True)
class Calibration:
    """Shift and scale that turn a detector's boxes into tight boxes of the points.

    Attributes:
        shift: How far the centre moves, in widths (x) and heights (y) of the detector's box.
        scale: Width and height of the tight box over those of the detector's.

    Example:
        >>> Calibration(shift=(0.0, 0.25), scale=(1.0, 0.5)).apply(np.array([[0.0, 0.0, 10.0, 20.0]])).tolist()
        [[0.0, 10.0, 10.0, 20.0]]
    """

    shift: tuple[float, float]
    scale: tuple[float, float]

    def apply(self, boxes: np.ndarray) -> np.ndarray:
        """Detector boxes ``(F, 4)`` to tight boxes ``(F, 4)``, any frame whose axes are the photo's."""
        size = boxes[:, 2:] - boxes[:, :2]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + size * self.shift
        half = size * self.scale / 2
        return np.concatenate([centre - half, centre + half], axis=1)


UNCALIBRATED = Calibration(shift=(0.0, 0.0), scale=(1.0, 1.0))
