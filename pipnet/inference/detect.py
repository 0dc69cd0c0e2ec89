"""Face detectors behind one call: photo in, boxes out, every box turned into the tight box of the landmarks.

A detector frames a face in its own way: RetinaFace takes in the forehead, the landmark network wants the tight box of
the points. So each adapter carries a :class:`Calibration`, fitted on training faces by
``experiments/detector_boxes/fit.py``, and what comes out can be fed to the crop as it is.

By name: ``"retinaface"``, which comes with pipnet, and ``"yunet:FILE"``. Boxes that stand in a file are no detector,
because pixels don't say which photo they are: see :class:`pipnet.inference.file_boxes.FileBoxes`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pipnet.inference.detect_retinaface import RETINAFACE_CALIBRATION, RetinaFace
from pipnet.inference.detect_yunet import YUNET_CALIBRATION, YuNet
from pipnet.inference.detections import UNCALIBRATED, CalibratedDetections, Calibration, Detections, Detector

__all__ = [
    "DETECTORS",
    "DETECTORS_WITH_FILE",
    "RETINAFACE_CALIBRATION",
    "UNCALIBRATED",
    "YUNET_CALIBRATION",
    "CalibratedDetections",
    "Calibration",
    "Detections",
    "Detector",
    "RetinaFace",
    "YuNet",
    "detector_factory",
]

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
