"""YuNet, a smaller detector on OpenCV's own engine; its model file is the user's to bring."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipnet.inference.detect_passes import Passes, check_settings, search_in_passes
from pipnet.inference.detect_retinaface import RETINAFACE_CALIBRATION
from pipnet.inference.detections import Calibration, Detections
from pipnet.inference.sessions import Session

# Not measured: no YuNet file was at hand. Both networks learned their boxes from WIDER FACE's labels, so RetinaFace's
# calibration is the best guess; `experiments/detector_boxes/fit.py DATA_ROOT --yunet FILE` fits YuNet's own.
YUNET_CALIBRATION = RETINAFACE_CALIBRATION

_WHERE = "get face_detection_yunet_2023mar.onnx (or 2026may) from OpenCV's model zoo, github.com/opencv/opencv_zoo"

# The zoo's card: the network was trained for faces of about 10 to 300 pixels.
_PASSES = Passes(largest=300.0, smallest=50.0)
_STRIDES = (8, 16, 32)
_OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # name to values a cell, at each stride
_PROBE = (96, 64)  # width and height on which a new file is tried
_CANDIDATES = 5000  # boxes that enter the suppression

_quiet_lock = threading.Lock()


class YuNet:
    """YuNet through ``cv2.FaceDetectorYN``, which comes with OpenCV (4.9 to 5.x); the model file does not.

    The photo is reduced to ``max_side`` and searched again at a quarter of that for large faces, as with RetinaFace.
    The file is tried once on a black picture: OpenCV itself would read past the end of a foreign network's outputs.

    An object may be called from several threads, which then wait for each other: ``FaceDetectorYN`` keeps the input
    size from call to call.

    Args:
        model: The ONNX file, ``face_detection_yunet_2023mar.onnx`` or later of OpenCV's model zoo (earlier ones, of
            2022, have another form).
        score_threshold: Faces below are dropped.
        max_side: Longer side in pixels that the photo is reduced to before the search; smaller photos stay as they are.
        nms_threshold: Overlap (intersection over union) from which two boxes are one face.
        calibration: Turns its boxes into tight boxes of the points. The default is RetinaFace's, not measured.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no YuNet, or cut off; or a threshold or ``max_side`` is out of range.

    Example:
        >>> YuNet("/nowhere.onnx")
        Traceback (most recent call last):
        ...
        FileNotFoundError: /nowhere.onnx: no such YuNet file; get face_detection_yunet_2023mar.onnx (or 2026may) from
        OpenCV's model zoo, github.com/opencv/opencv_zoo

    Reference:
        Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        score_threshold: float = 0.6,
        max_side: int = 640,
        nms_threshold: float = 0.4,
        calibration: Calibration = YUNET_CALIBRATION,
    ) -> None:
        check_settings(score_threshold, nms_threshold, max_side)
        self.score_threshold = score_threshold
        self.max_side = max_side
        self.nms_threshold = nms_threshold
        self.calibration = calibration
        self._net = Session(partial(_load, Path(model).absolute(), score_threshold, nms_threshold))
        self._net.get()

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
        bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
        net, lock = self._net.get()
        with lock:
            net.setInputSize((image.shape[1], image.shape[0]))
            found = net.detect(bgr)[1]  # (K, 15): x, y, width, height, five points, score
        found = np.zeros((0, 15)) if found is None else found.astype(np.float64)
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
        return boxes, found[:, 14], found[:, 4:14].reshape(-1, 5, 2)


def _load(path: Path, score_threshold: float, nms_threshold: float) -> tuple[Any, threading.Lock]:
    """A ``cv2.FaceDetectorYN`` of a file that was seen to have YuNet's outputs, and the lock of its calls."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such YuNet file; {_WHERE}") from None
    except OSError as error:
        raise ValueError(f"{path}: the YuNet file can't be read ({error.strerror}); {_WHERE}") from error
    with _quiet_opencv():
        try:
            _check_outputs(data)
            # From memory, so that neither the file's suffix nor letters beyond ASCII in its path matter.
            net = cv2.FaceDetectorYN.create(
                "onnx", data, np.zeros(0, np.uint8), _PROBE, score_threshold, nms_threshold, _CANDIDATES
            )
        except (cv2.error, ValueError):
            raise ValueError(f"{path}: not a YuNet of 2023 or later, or a damaged file; {_WHERE}") from None
    return net, threading.Lock()


def _check_outputs(data: np.ndarray) -> None:
    """Run the network once and compare the shapes of its outputs with those that OpenCV will read."""
    net = cv2.dnn.readNetFromONNX(data)
    net.setInput(cv2.dnn.blobFromImage(np.zeros((_PROBE[1], _PROBE[0], 3), np.uint8)))
    names = [f"{name}_{stride}" for name in _OUTPUTS for stride in _STRIDES]
    expected = [
        (1, (_PROBE[0] // stride) * (_PROBE[1] // stride), values)
        for values in _OUTPUTS.values()
        for stride in _STRIDES
    ]
    shapes = [output.shape for output in net.forward(names)]
    if shapes != expected:
        raise ValueError(f"outputs of shapes {shapes}, expected {expected}")


@contextmanager
def _quiet_opencv() -> Iterator[None]:
    """OpenCV writes every failed attempt to the terminal, and a warning about a working one; our sentence is enough."""
    log = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # OpenCV 5, OpenCV 4
    with _quiet_lock:
        before = log.getLogLevel()
        log.setLogLevel(0)
        try:
            yield
        finally:
            log.setLogLevel(before)
