"""Which detections are worth training on: rules with a number each, and what the numbers mean."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import cv2
import numpy as np

_SHARPNESS_SIDE = 64  # px of the longer side of the box: what it takes to see the eyelids, and no more

REASONS = ("unsure", "small", "cut off", "blurred")


@dataclass(frozen=True)
class FaceRules:
    """What a detection must have to be used without a label. The defaults were chosen by looking at the faces of 400
    photos of WFLW and 4,000 chips of UTKFace (``experiments/gathering``).

    Attributes:
        min_score: Of the detector. RetinaFace reports from 0.6; up to 0.85 more than half of what it reports are hands,
            backs of heads, animals and two faces in one box.
        min_size: Longer side of the box in pixels of the photo. Below 32 a face is a smear: the spacing of the
            features is not to be seen, and the network, which sees 64 to 256 pixels, learns what it itself made up.
        min_sharpness: See :func:`sharpness`, grey levels. Below 3 nobody can say where the features are: out of
            focus, or lost in the dark. A soft portrait has 8, a usual face 15 to 30.
        min_inside: Share of the box inside the photo. Tight chips touch the border and are good faces: theirs begin at
            0.73. Below 0.7 an eye or the mouth is missing.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> FaceRules().verdict(score=0.99, size=80.0, inside=0.95, sharpness=1.5)
        'blurred'
    """

    min_score: float = 0.85
    min_size: float = 32.0
    min_sharpness: float = 3.0
    min_inside: float = 0.7

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = 1.0 if name in ("min_score", "min_inside") else math.inf
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise ValueError(f"rules.{name} must be {'in [0, 1]' if most == 1 else 'at least 0'}, got {value!r}")

    def verdict(self, *, score: float, size: float, inside: float, sharpness: float) -> str:
        """The first rule that a detection breaks, one of :data:`REASONS`; empty if it keeps them all."""
        failed = (
            score < self.min_score,
            size < self.min_size,
            inside < self.min_inside,
            sharpness < self.min_sharpness,
        )
        return next((reason for reason, broken in zip(REASONS, failed, strict=True) if broken), "")


def sharpness(image: np.ndarray, box: np.ndarray) -> float:
    """How much fine detail a face has: the standard deviation of the Laplacian, in grey levels.

    Taken inside the box after the face is brought to 64 pixels, so that it compares between a face in a crowd and a
    portrait: what counts is detail for the size of the face, and an enlarged face has none. Contrast counts as well:
    a face in the dark has little detail for whoever looks, be the lens as sharp as it may.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        box: ``x0, y0, x1, y1``, source pixels; only what lies inside the image is looked at.

    Returns:
        0 where the box lies outside, or is only a pixel.

    Reference:
        The variance of the Laplacian as a measure of focus: Pech-Pacheco et al., "Diatom autofocusing in brightfield
        microscopy", ICPR 2000.

    Example:
        >>> sharpness(np.full((80, 80, 3), 90, np.uint8), np.array([8.0, 8, 70, 70]))
        0.0
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    left, top = max(math.floor(x0 + 0.5), 0), max(math.floor(y0 + 0.5), 0)
    right, bottom = min(math.ceil(x1 + 0.5), width), min(math.ceil(y1 + 0.5), height)
    if right <= left or bottom <= top:
        return 0.0
    factor = _SHARPNESS_SIDE / max(x1 - x0, y1 - y0)
    size = tuple(min(max(round(side * factor), 1), _SHARPNESS_SIDE) for side in (right - left, bottom - top))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    face = cv2.resize(image[top:bottom, left:right], size, interpolation=way)  # before grey: the region may be large
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std())


def share_inside(box: np.ndarray, width: int, height: int) -> float:
    """Share of a box's area inside a photo of that size.

    Example:
        >>> share_inside(np.array([-5.5, 4.5, 4.5, 14.5]), 100, 100)
        0.5
    """
    x0, y0, x1, y1 = (float(side) for side in box)
    across = max(min(x1, width - 0.5) - max(x0, -0.5), 0.0)
    down = max(min(y1, height - 0.5) - max(y0, -0.5), 0.0)
    area = (x1 - x0) * (y1 - y0)
    return min(across * down / area, 1.0) if area > 0 else 0.0
