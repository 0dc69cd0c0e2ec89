"""A face cut out of its photo with its surroundings, as the store keeps it."""

from __future__ import annotations

import math

import cv2
import numpy as np

# Room for every crop a training takes: 1.25 to 1.3 box sides, turned, moved and enlarged by augmentation.
CROP_SCALE = 1.9


def cut_face(image: np.ndarray, box: np.ndarray, face_size: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """Cut a square around a face: 1.9 times the longer side of the box, clipped at the photo's border.

    Whole pixels are cut and averaged down where the face is larger than ``face_size``; a small face is never enlarged.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        box: ``x0, y0, x1, y1``, source pixels.
        face_size: Most that the longer side of the box may have in the crop, pixels.

    Returns:
        The crop, RGB uint8, and the box in its pixels.

    Example:
        >>> crop, box = cut_face(np.zeros((100, 100, 3), np.uint8), np.array([39.5, 39.5, 59.5, 59.5]), face_size=10)
        >>> crop.shape, box
        ((19, 19, 3), (4.0, 4.0, 14.0, 14.0))
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    longer = max(x1 - x0, y1 - y0)
    half = CROP_SCALE * longer / 2
    left, right = _span((x0 + x1) / 2, half, width)
    top, bottom = _span((y0 + y1) / 2, half, height)
    crop = image[top:bottom, left:right]
    factor = face_size / longer
    if factor < 1:
        size = (max(round(crop.shape[1] * factor), 1), max(round(crop.shape[0] * factor), 1))
        crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    # Rounded sizes make the two factors differ a little; pixel centres lie half a pixel inside the edges.
    across, down = crop.shape[1] / (right - left), crop.shape[0] / (bottom - top)
    corners = ((x0, left, across), (y0, top, down), (x1, left, across), (y1, top, down))
    return crop, tuple((side - first + 0.5) * scale - 0.5 for side, first, scale in corners)


def _span(centre: float, half: float, length: int) -> tuple[int, int]:
    """First and behind the last pixel under an interval, at least one, inside the photo."""
    first = min(max(math.floor(centre - half + 0.5), 0), length - 1)
    return first, max(min(math.ceil(centre + half + 0.5), length), first + 1)
