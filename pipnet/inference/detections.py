"""Where faces are in a photo: what a detector or a user gives, and how it becomes the tight boxes of the points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from pipnet.geometry import box_around, boxes_seen_turned, centre_and_size, roll_angles, scale_boxes, tight_box, turned
from pipnet.landmarks import FaceLandmarks

_FARTHEST_PX, _SMALLEST_PX = 1e12, 1e-3  # of boxes: beyond, the numbers of a crop overflow
# How far a training's boxes may be from the tight boxes of the points and still be these: the mean of many faces is a
# little smaller than each.
_TIGHT = 0.1


@dataclass(frozen=True, eq=False, init=False)
class Detections:
    """Faces that a detector found in one photo, best first.

    Attributes:
        boxes: ``(F, 4)`` float64, ``x0, y0, x1, y1`` in source pixels (0-based pixel centres): the tight boxes of the
            points. They may reach over the photo's border, as faces do.
        scores: ``(F,)`` float32 in [0, 1], not increasing.
        angles: ``(F,)`` float64, degrees: how far each face is tilted clockwise, and its box turned with it about its
            own centre. NaN, or None for all, where the detector does not say: there the box is upright.
        framed: ``(F, 4)`` float64: the boxes as the detector drew them, upright, before calibration. They say which
            face is meant, however it is tilted. None: as ``boxes``.
        calibration: Turned ``framed`` into ``boxes``; None where they are the same.

    Raises:
        ValueError: If shapes disagree, or an angle is infinite.

    Example:
        >>> found = Detections([[0, 0, 2, 2], [5, 5, 9, 9]], [0.7, 0.9])
        >>> len(found), found.boxes[0].tolist()
        (2, [5.0, 5.0, 9.0, 9.0])
    """

    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float32]
    angles: npt.NDArray[np.float64]
    framed: npt.NDArray[np.float64]
    calibration: Calibration | None

    def __init__(
        self,
        boxes: ArrayLike,
        scores: ArrayLike,
        angles: ArrayLike | None = None,
        framed: ArrayLike | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        scores = np.asarray(scores, dtype=np.float32)
        arrays = {
            "boxes": np.asarray(boxes, dtype=np.float64),
            "scores": scores,
            "angles": np.asarray(np.full(scores.shape, np.nan) if angles is None else angles, dtype=np.float64),
            "framed": np.asarray(boxes if framed is None else framed, dtype=np.float64),
        }
        shapes = {name: array.shape for name, array in arrays.items()}
        count = (scores.size,)
        if shapes != {"boxes": (*count, 4), "scores": count, "angles": count, "framed": (*count, 4)}:
            given = ", ".join(str(shapes[name]) for name in ("boxes", "scores", "angles"))
            raise ValueError(f"boxes must be (F, 4) with scores and angles (F,), got {given}")
        if np.isinf(arrays["angles"]).any():
            raise ValueError(
                f"angles must be degrees, or NaN where they are not known, got {arrays['angles'].tolist()}"
            )
        order = np.argsort(-scores, kind="stable")
        for name, array in arrays.items():
            object.__setattr__(self, name, array[order])
        object.__setattr__(self, "calibration", calibration)

    @classmethod
    def calibrated(
        cls, framed: ArrayLike, scores: ArrayLike, calibration: Calibration, angles: ArrayLike | None = None
    ) -> Detections:
        """From a detector's own upright boxes ``(F, 4)``; scores and angles as in :class:`Detections`."""
        framed, scores = np.asarray(framed, dtype=np.float64).reshape(-1, 4), np.asarray(scores)
        known = np.full(len(scores), np.nan) if angles is None else np.asarray(angles, dtype=np.float64)
        return cls(calibration.apply(framed, np.nan_to_num(known)), scores, known, framed, calibration)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: slice | np.ndarray) -> Detections:
        """Chosen faces, best first."""
        of_faces = self.boxes[rows], self.scores[rows], self.angles[rows], self.framed[rows]
        return Detections(*of_faces, self.calibration)

    def boxes_at(self, angles: np.ndarray) -> np.ndarray:
        """The boxes ``(F, 4)`` where somebody else says how the faces are tilted, ``(F,)`` with NaN where nobody does.

        A user's box is turned as it is; one that a detector drew upright is calibrated anew.
        """
        unknown = np.isnan(angles)
        if self.calibration is None or unknown.all():
            return self.boxes
        return self.calibration.apply(self.framed, np.where(unknown, np.nan_to_num(self.angles), angles))

    def seen_turned(self, row: int, by: float) -> np.ndarray:
        """The box of a face if it is tilted by ``by`` degrees more than ``angles`` says, ``(4,)`` float64."""
        if self.calibration is None:
            return boxes_seen_turned(self.boxes[row], by)
        angle = np.nan_to_num(self.angles[row : row + 1]) + by
        return self.calibration.apply(self.framed[row : row + 1], angle)[0]


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
        """Upright detector boxes ``(F, 4)`` to tight boxes ``(F, 4)``, turned by ``angles`` ``(F,)`` in degrees."""
        if angles is not None:
            boxes = boxes_seen_turned(boxes, angles, self.aspect)
        centre, size = centre_and_size(boxes)
        shift = size * self.shift
        return box_around(centre + (shift if angles is None else turned(shift, angles)), size * self.scale)


UNCALIBRATED = Calibration(shift=(0.0, 0.0), scale=(1.0, 1.0))


Boxes: TypeAlias = ArrayLike | Detections | FaceLandmarks
"""Boxes of one photo: a user's own, or what a detector or an earlier call gave."""


def as_detections(boxes: Boxes, *, checked: bool = True) -> Detections:
    """A user's boxes, or what a detector gave.

    A detector of the user's own may give any object with ``boxes``, and ``angles`` if it has them, as
    :class:`~pipnet.landmarks.FaceLandmarks` does. If ``checked``, boxes that can't be cut out raise a ValueError.
    """
    if isinstance(boxes, Detections):
        return boxes
    given: Any = getattr(boxes, "boxes", boxes)
    angles = getattr(boxes, "angles", None)
    numbers = as_boxes(given) if checked else np.asarray(given, dtype=np.float64).reshape(-1, 4)
    return Detections(numbers, np.ones(len(numbers)), as_angles(angles, len(numbers)))


def as_angles(angles: ArrayLike | None, faces: int) -> npt.NDArray[np.float64]:
    """A user's angles as float64 ``(F,)``, NaN where they are not known; one number is for all.

    Raises:
        ValueError: They are no numbers, infinite, or not one a face.
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


def as_boxes(boxes: ArrayLike, *, flat: bool = False) -> npt.NDArray[np.float64]:
    """A user's boxes, ``(F, 4)`` or ``(4,)``, as float64 ``(F, 4)``.

    If ``flat``, one without width or without height is taken too: labelled points may lie on a line.

    Raises:
        ValueError: Another shape, a value that is not finite (or beyond 1e12, or a size below 0.001 pixels), or a
            corner order other than ``x0, y0, x1, y1``; the message names the box.
    """
    try:
        numbers = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes must be numbers of shape (F, 4) or (4,): {error}") from None
    if numbers.shape == (4,):
        numbers = numbers[None]
    if numbers.size == 0:
        return numbers.reshape(0, 4)
    if numbers.ndim != 2 or numbers.shape[1] != 4:
        raise ValueError(f"boxes must have shape (F, 4) or (4,), got {numbers.shape}")
    for index, box in enumerate(numbers.tolist()):  # not by NumPy, whose many calls take longer for a few boxes
        if not (_is_box(*box) and (flat or (box[0] < box[2] and box[1] < box[3]))):
            raise ValueError(
                f"box {index} {box} is no box; boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1, in pixels of the"
                " photo"
            )
    return numbers


def can_cut(boxes: np.ndarray) -> npt.NDArray[np.bool_]:
    """Which of the boxes ``(F, 4)`` can be cut out."""
    return np.array([_is_box(*box) for box in boxes.tolist()], dtype=np.bool_)


def _is_box(x0: float, y0: float, x1: float, y1: float) -> bool:
    ordered = -_FARTHEST_PX <= x0 <= x1 <= _FARTHEST_PX and -_FARTHEST_PX <= y0 <= y1 <= _FARTHEST_PX
    return ordered and max(x1 - x0, y1 - y0) >= _SMALLEST_PX


def boxes_by_points(points: np.ndarray, mean_face: np.ndarray, crop_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The boxes and angles by which a training would have cut faces that have these points.

    These are the tight boxes; of a network whose mean face says that it was trained on other boxes (AFLW's, for one),
    boxes that lie about the points as those lay about the mean face.

    Args:
        points: ``(F, N, 2)`` float64, source pixels.
        mean_face: ``(N, 2)``, fractions of the crop.
        crop_scale: Side of the crop over the longer side of the box.

    Example:
        >>> square = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
        >>> boxes, angles = boxes_by_points(10 * square[None], 0.25 + 0.5 * square, crop_scale=1.0)
        >>> boxes.tolist(), angles.tolist()  # of a training whose boxes were twice as large
        ([[-5.0, -5.0, 15.0, 15.0]], [0.0])
    """
    rolls = roll_angles(points, mean_face)
    boxes = tight_box(points, rolls)
    mean = tight_box((mean_face - 0.5) * crop_scale)  # about the middle of a box whose longer side is 1
    middle, longer = (mean[:2] + mean[2:]) / 2, float((mean[2:] - mean[:2]).max())
    if not longer or (abs(longer - 1) <= _TIGHT and np.abs(middle).max() <= _TIGHT):
        return boxes, rolls
    boxes = scale_boxes(boxes, 1 / longer)
    shift = turned(-middle * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True), rolls)
    return boxes + np.tile(shift, 2), rolls
