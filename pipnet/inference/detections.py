"""Where faces are: what a detector or a user gives, and how it becomes the tight boxes of the points.

One search for small faces and further ones for large: what a detector with a largest face needs.

A network that was trained on faces up to some size misplaces those near it and loses those beyond. So a photo is
searched at ``max_side``, and again at a fraction of that, until a face can't be too large. And it was trained on faces
that are more or less upright, and misses a few of those that are not. So a photo in which it is sure of nobody is
searched in quarter turns as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike

from pipnet.geometry import angle_between, boxes_seen_turned, roll_angles, tight_box, turned

# Eyes, nose and corners of the mouth of an upright face: from the mean of 300W's training labels, in sides of the crop.
_FIVE_UPRIGHT = np.array([[0.332, 0.271], [0.666, 0.265], [0.504, 0.457], [0.358, 0.628], [0.651, 0.622]])
# Beyond this the five points come as if the head were upright, or anyhow (experiments/detector_boxes).
_FARTHEST_ROLL = 75.0
_FARTHEST_PX, _SMALLEST_PX = 1e12, 1e-3  # of boxes: beyond, the numbers of a crop overflow


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces that a detector found in one photo, best first.

    Attributes:
        boxes: ``(F, 4)`` float64, ``x0, y0, x1, y1`` in source pixels (0-based pixel centres): the tight boxes of the
            points. They may reach over the photo's border, as faces do.
        scores: ``(F,)`` float32 in [0, 1], not increasing.
        angles: ``(F,)`` float64, degrees: how far each face is tilted clockwise, and its box turned with it about its
            own centre. NaN, or None for all, where the detector does not say: there the box is upright.

    Raises:
        ValueError: If shapes disagree, or an angle is infinite.

    Example:
        >>> found = Detections([[0, 0, 2, 2], [5, 5, 9, 9]], [0.7, 0.9])
        >>> len(found), found.boxes[0].tolist()
        (2, [5.0, 5.0, 9.0, 9.0])
    """

    boxes: np.ndarray
    scores: np.ndarray
    angles: np.ndarray = None  # type: ignore[assignment]  # always an array once built

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float64)
        scores = np.asarray(self.scores, dtype=np.float32)
        angles = np.full(scores.shape, np.nan) if self.angles is None else np.asarray(self.angles, dtype=np.float64)
        if scores.ndim != 1 or boxes.shape != (len(scores), 4) or angles.shape != scores.shape:
            raise ValueError(
                f"boxes must be (F, 4) with scores and angles (F,), got {boxes.shape}, {scores.shape}, {angles.shape}"
            )
        if np.isinf(angles).any():
            raise ValueError(f"angles must be degrees, or NaN where they are not known, got {angles.tolist()}")
        order = np.argsort(-scores, kind="stable")
        for name, value in (("boxes", boxes), ("scores", scores), ("angles", angles)):
            object.__setattr__(self, name, value[order])

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: slice | np.ndarray) -> Detections:
        """Chosen faces, best first."""
        return Detections(self.boxes[rows], self.scores[rows], self.angles[rows])

    @property
    def framed(self) -> np.ndarray:
        """The boxes ``(F, 4)`` as they were drawn: what says which face is meant, however it is tilted."""
        return self.boxes

    def boxes_at(self, angles: np.ndarray) -> np.ndarray:
        """The boxes ``(F, 4)`` where somebody else says how the faces are tilted, ``(F,)`` with NaN where nobody does.

        A user's box is turned as it is; one that a detector drew upright is calibrated anew.
        """
        return self.boxes

    def seen_turned(self, row: int, by: float) -> np.ndarray:
        """The box of a face if it is tilted by ``by`` degrees more than ``angles`` says, ``(4,)`` float64."""
        return boxes_seen_turned(self.boxes[row], by)


@dataclass(frozen=True, eq=False)
class CalibratedDetections(Detections):
    """Faces of a detector whose upright boxes are calibrated: the tight box depends on how the face is tilted.

    Attributes:
        found: ``(F, 4)``, the detector's own boxes, in the order of ``boxes``.
        calibration: Turns them into tight boxes.
    """

    found: np.ndarray = None  # type: ignore[assignment]
    calibration: Calibration = None  # type: ignore[assignment]

    @classmethod
    def of(
        cls, found: np.ndarray, scores: np.ndarray, calibration: Calibration, angles: np.ndarray | None = None
    ) -> CalibratedDetections:
        """From a detector's own boxes.

        Args:
            found: ``(F, 4)``, source pixels, upright.
            scores: ``(F,)``.
            calibration: Of this detector.
            angles: ``(F,)``, degrees, NaN where they are not known; None for all.
        """
        found, scores = np.asarray(found, dtype=np.float64).reshape(-1, 4), np.asarray(scores)
        angles = np.full(len(scores), np.nan) if angles is None else np.asarray(angles, dtype=np.float64)
        boxes = calibration.apply(found, np.nan_to_num(angles))
        order = np.argsort(-scores, kind="stable")
        return cls(boxes[order], scores[order], angles[order], found[order], calibration)

    def __getitem__(self, rows: slice | np.ndarray) -> CalibratedDetections:
        """Chosen faces, best first."""
        return CalibratedDetections.of(self.found[rows], self.scores[rows], self.calibration, self.angles[rows])

    @property
    def framed(self) -> np.ndarray:
        """See :attr:`Detections.framed`: before calibration, which may have gone the wrong way."""
        return self.found

    def boxes_at(self, angles: np.ndarray) -> np.ndarray:
        """See :meth:`Detections.boxes_at`."""
        unknown = np.isnan(angles)
        if unknown.all():
            return self.boxes
        return self.calibration.apply(self.found, np.where(unknown, np.nan_to_num(self.angles), angles))

    def seen_turned(self, row: int, by: float) -> np.ndarray:
        """See :meth:`Detections.seen_turned`."""
        angle = np.nan_to_num(self.angles[row : row + 1]) + by
        return self.calibration.apply(self.found[row : row + 1], angle)[0]


class Detector(Protocol):
    """What :class:`~pipnet.inference.landmarker.FaceLandmarker` needs of a detector: any callable of this form."""

    def __call__(self, image: np.ndarray) -> Detections:
        """Faces of an RGB uint8 ``(H, W, 3)`` photo, boxes calibrated to the tight box of the points."""
        ...


@dataclass(frozen=True)
class Calibration:
    """Shift and scale that turn a detector's boxes into tight boxes of the points.

    Detectors frame the face from its chin to its forehead, so the shift goes along the face, whichever way it is
    tilted.

    Attributes:
        shift: How far the centre moves, in widths (x) and heights (y) of the detector's box.
        scale: Width and height of the tight box over those of the detector's.
        aspect: Width over height of the detector's box around an upright face, as it mostly is. The box of a face that
            is tilted by 45 degrees does not say which is which.

    Example:
        >>> calibration = Calibration(shift=(0.0, 0.25), scale=(1.0, 0.5))
        >>> calibration.apply(np.array([[0.0, 0.0, 10.0, 20.0]])).tolist()
        [[0.0, 10.0, 10.0, 20.0]]
        >>> calibration.apply(np.array([[0.0, 0.0, 20.0, 10.0]]), np.array([90.0])).round(6).tolist()  # on its side
        [[0.0, 0.0, 10.0, 10.0]]
    """

    shift: tuple[float, float]
    scale: tuple[float, float]
    aspect: float = 1.0

    def apply(self, boxes: np.ndarray, angles: np.ndarray | None = None) -> np.ndarray:
        """Detector boxes ``(F, 4)`` to tight boxes ``(F, 4)``, any frame whose axes are the photo's.

        Args:
            boxes: Upright, as detectors give them.
            angles: ``(F,)``, degrees: how far the faces are tilted, and their tight boxes turned; None: upright.
        """
        if angles is not None:
            boxes = boxes_seen_turned(boxes, angles, self.aspect)
        size = boxes[:, 2:] - boxes[:, :2]
        shift = size * self.shift
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + (shift if angles is None else turned(shift, angles))
        half = size * self.scale / 2
        return np.concatenate([centre - half, centre + half], axis=1)


UNCALIBRATED = Calibration(shift=(0.0, 0.0), scale=(1.0, 1.0))


def five_point_rolls(points: np.ndarray) -> np.ndarray:
    """How far faces are tilted, by the five points that face detectors give.

    Args:
        points: ``(F, 5, 2)``: eyes (first the one on the left of an upright picture), nose, corners of the mouth.

    Returns:
        ``(F,)``, degrees clockwise; NaN beyond 75, where such points are not to be believed.

    Example:
        >>> five_point_rolls(np.array([[[0.0, 0], [0, 10], [-5, 5], [-10, 0], [-10, 10]]])).round().tolist()
        [nan]
    """
    rolls = roll_angles(np.asarray(points, dtype=np.float64).reshape(-1, 5, 2), _FIVE_UPRIGHT)
    return np.where(np.abs(rolls) <= _FARTHEST_ROLL, rolls, np.nan)


def as_detections(boxes: ArrayLike | Detections) -> Detections:
    """A user's boxes, whose tilt nobody knows, or what a detector gave: of the user's own it may be any object with
    ``boxes``, and ``angles`` if it has them, as :class:`~pipnet.landmarks.FaceLandmarks` does."""
    if isinstance(boxes, Detections):
        return boxes
    angles = getattr(boxes, "angles", None)
    boxes = as_boxes(getattr(boxes, "boxes", boxes))
    return Detections(boxes, np.ones(len(boxes)), None if angles is None else as_angles(angles, len(boxes)))


def as_angles(angles: ArrayLike | None, faces: int) -> np.ndarray:
    """A user's angles as float64 ``(F,)``, NaN where they are not known.

    Raises:
        ValueError: They are no numbers, infinite, or not one a face.

    Example:
        >>> as_angles(None, 2).tolist(), as_angles(30, 2).tolist()
        ([nan, nan], [30.0, 30.0])
    """
    try:
        given = np.asarray(np.nan if angles is None else angles, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"angles must be numbers, one a box: {error}") from None
    if (given.ndim and given.shape != (faces,)) or np.isinf(given).any():
        raise ValueError(
            f"angles must be one number of degrees a box, NaN where it is not known, got {given.shape} for {faces}"
            " boxes" + (" and an infinite one" if np.isinf(given).any() else "")
        )
    return np.broadcast_to(given, (faces,))


def as_boxes(boxes: ArrayLike, *, flat: bool = False) -> np.ndarray:
    """A user's boxes as float64 ``(F, 4)``.

    Args:
        boxes: ``(F, 4)`` or ``(4,)``.
        flat: Whether one without width or without height is taken too: labelled points may lie on a line.

    Raises:
        ValueError: Another shape, a value that is not finite (or beyond 1e12, or a size below 0.001 pixels), or a
            corner order other than ``x0, y0, x1, y1``; the message names the box.

    Example:
        >>> as_boxes([10, 20, 30, 60]).tolist()
        [[10.0, 20.0, 30.0, 60.0]]
        >>> as_boxes([[10, 20, 30, 60], [30, 20, 10, 60]])
        Traceback (most recent call last):
        ...
        ValueError: box 1 [30.0, 20.0, 10.0, 60.0] is no box; boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1, in
        pixels of the photo
    """
    try:
        boxes = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes must be numbers of shape (F, 4) or (4,): {error}") from None
    if boxes.shape == (4,):
        boxes = boxes[None]
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (F, 4) or (4,), got {boxes.shape}")
    for index, box in enumerate(boxes.tolist()):  # not by NumPy, whose many calls take longer for a few boxes
        if not (is_box(*box) and (flat or (box[0] < box[2] and box[1] < box[3]))):
            raise ValueError(
                f"box {index} {box} is no box; boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1, in pixels of the"
                " photo"
            )
    return boxes


def is_box(x0: float, y0: float, x1: float, y1: float) -> bool:
    """Whether numbers are a box that can be cut out; NaN is none."""
    ordered = -_FARTHEST_PX <= x0 <= x1 <= _FARTHEST_PX and -_FARTHEST_PX <= y0 <= y1 <= _FARTHEST_PX
    return ordered and max(x1 - x0, y1 - y0) >= _SMALLEST_PX


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
