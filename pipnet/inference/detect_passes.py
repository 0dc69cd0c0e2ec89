"""One search for small faces and further ones for large: what a detector with a largest face needs.

A network that was trained on faces up to some size misplaces those near it and loses those beyond. So a photo is
searched at ``max_side``, and again at a fraction of that, until a face can't be too large. And it was trained on faces
that are more or less upright, and misses a few of those that are not. So a photo in which it is sure of nobody is
searched in quarter turns as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from pipnet.geometry import angle_between, tight_box, turned
from pipnet.inference.detections import CalibratedDetections, Calibration, Detections, five_point_rolls

# A photo is searched in quarter turns as well unless a face has this score: upright ones of 300W have 0.99 and more.
_SURE = 0.9

# The photo as the network gets it, to boxes (K, 4) in its pixels, counted from its edge, scores (K,), and five points
# of each face (K, 5, 2) in the same pixels.
Search = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Passes:
    """Which faces each pass may report; sizes are the longer sides of the detector's own boxes, pixels of its input.

    Attributes:
        largest: That a pass may report, unless it is the last.
        smallest: That a later pass may report: below ``largest / reduction``, so that no face falls between the two.
        reduction: How much smaller the photo is in the next pass.
    """

    largest: float
    smallest: float
    reduction: int = 4


def check_settings(score_threshold: float, nms_threshold: float, max_side: int) -> None:
    """Refuse what no detector can work with.

    Raises:
        ValueError: A threshold or ``max_side`` is out of range.
    """
    if not 0 < score_threshold < 1 or not 0 < nms_threshold < 1:
        raise ValueError(f"thresholds must lie between 0 and 1, got {score_threshold} and {nms_threshold}")
    if max_side < 32:
        raise ValueError(f"max_side must be at least 32 pixels, got {max_side}")


def search_in_passes(
    image: np.ndarray,
    search: Search,
    passes: Passes,
    *,
    max_side: int,
    nms_threshold: float,
    calibration: Calibration,
) -> Detections:
    """All passes over a photo, each face once.

    Args:
        image: RGB uint8 ``(H, W, 3)``, any size from 1 x 1.
        search: One pass.
        passes: Which faces each reports.
        max_side: Longer side that the photo is reduced to for the first pass; a smaller photo stays as it is.
        nms_threshold: Overlap (intersection over union) from which two boxes are one face.
        calibration: Turns the boxes into tight boxes of the points.

    Returns:
        Boxes in source pixels, turned by the five points as far as these are to be believed.

    Raises:
        ValueError: The array is no such photo.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"the detector takes RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
    found = []
    for quarters in (0, 1, 3, 2):  # a head to the right, to the left, and upside down
        found.append(_turned_passes(image, search, passes, max_side, quarters))
        if found[-1][1].max(initial=0.0) >= _SURE:
            break
    boxes, scores, rolls = map(np.concatenate, zip(*found, strict=True))
    chosen = _suppress(boxes, scores, nms_threshold)
    return CalibratedDetections.of(boxes[chosen], scores[chosen], calibration, rolls[chosen])


def _turned_passes(
    image: np.ndarray, search: Search, passes: Passes, max_side: int, quarters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All passes over the photo turned to the left so many times; boxes and angles are those of the photo itself."""
    if not quarters:
        return _all_passes(image, search, passes, max_side)
    seen = np.ascontiguousarray(np.rot90(image, quarters))
    boxes, scores, rolls = _all_passes(seen, search, passes, max_side)
    middle, middle_seen = (np.array([photo.shape[1] - 1, photo.shape[0] - 1]) / 2 for photo in (image, seen))
    corners = turned(boxes.reshape(-1, 2, 2) - middle_seen, 90.0 * quarters) + middle
    boxes = tight_box(corners) if len(boxes) else boxes
    return boxes, scores, angle_between(np.nan_to_num(rolls) + 90.0 * quarters, 0.0)


def _all_passes(
    image: np.ndarray, search: Search, passes: Passes, max_side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates of all passes: boxes ``(K, 4)`` in pixels of the image, scores and angles ``(K,)``."""
    height, width = image.shape[:2]
    factor = min(1.0, max_side / max(height, width))
    found, smallest = [], 0.0
    while True:
        boxes, scores, rolls = _one_pass(image, search, factor)
        longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) * factor
        last = max(height, width) * factor <= passes.largest  # no face is too large for this pass
        kept = (longer >= smallest) & (longer <= (np.inf if last else passes.largest))
        found.append((boxes[kept], scores[kept], rolls[kept]))
        if last:
            break
        factor, smallest = factor / passes.reduction, passes.smallest
    boxes, scores, rolls = map(np.concatenate, zip(*found, strict=True))
    return boxes, scores, rolls


def _one_pass(image: np.ndarray, search: Search, factor: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Candidates in the photo reduced by ``factor``: boxes ``(K, 4)`` in source pixels, scores and angles ``(K,)``."""
    height, width = image.shape[:2]
    if factor < 1:
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    boxes, scores, five = search(image)
    # The networks count from the photo's edge; pixel centres lie half a pixel further in.
    to_source = np.array([width / image.shape[1], height / image.shape[0]] * 2)
    return boxes * to_source - 0.5, scores, five_point_rolls(five * to_source[:2])


def _suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the boxes that stay when each face keeps its best box only."""
    if not len(boxes):
        return np.zeros(0, dtype=int)
    as_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return np.asarray(cv2.dnn.NMSBoxes(as_xywh.tolist(), scores.tolist(), 0.0, threshold), dtype=int).reshape(-1)
