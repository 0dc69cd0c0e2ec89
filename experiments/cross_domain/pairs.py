"""The pairs of the benchmark as data, and the errors of one checkpoint on a pair's two test sets.

Only ``300w_wflw`` was run on real faces; the others run in the tests, on small files in the published forms. Unlabelled
photos are those of WFLW's scenes (with the full set ``photos.py wflw`` and
``'unlabelled=[${data_root}/unlabelled/wflw.txt]'``), 300W's training folders, or what ``photos.py`` takes from COFW and
AFLW.

AFLW labels 19 points. Twelve of them 300W labels too: ends of the brows, corners of the eyes, tip of the nose, corners
of the mouth, chin. Only these count, normalised by the published box and by the size of the 19 points' tight box. The
other seven exist in 68 points as something near (the middle of an eye's rim for the pupil, the wing's foot for the side
of the nose) and would measure the difference of two conventions; even of the twelve, a constant gap between the two
sets' labels stays in the figures and cancels in differences between rows. AFLW's faces are cut by the face detector's
boxes; a face it misses is missed in every row, counted, and left out of mean and median.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipnet.config import dataset_config, dataset_layout, read_split
from pipnet.data.sample import Sample
from pipnet.evaluation.evaluate import BoxSource, evaluate
from pipnet.inference.detections import Detections, Detector
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import AFLW_19_IN_300W_68, PointLayout


@dataclass(frozen=True)
class Faces:
    """A labelled test set: a file of ``conf/dataset`` and one of its splits.

    Attributes:
        boxes: What faces are cut by. A set that labels other points than the network gives has no tight box of the
            network's points: there the face detector's box serves, which is calibrated to be that.
        points: Of the layout in which the set is compared, those that count; None counts all.
    """

    dataset: str
    split: str
    title: str
    boxes: BoxSource = "labels"
    points: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Pair:
    """Trained on labels of one kind, measured on its test faces and on those of another."""

    labelled: str  # for people
    source: Faces
    target: Faces


_COMMON, _WFLW = Faces("300w", "common", "Common"), Faces("wflw", "test", "WFLW")
PAIRS: dict[str, Pair] = {
    "300w_wflw": Pair("300W train, 68 points", _COMMON, _WFLW),
    "wflw_300w": Pair("WFLW train, 98 points", _WFLW, Faces("300w", "test", "300W")),
    "300w_cofw68": Pair("300W train, 68 points", _COMMON, Faces("cofw68", "test", "COFW-68")),
    "300w_aflw": Pair(
        "300W train, 68 points",
        _COMMON,
        Faces("aflw", "test", "AFLW", boxes="detector", points=tuple(sorted(AFLW_19_IN_300W_68))),
    ),
}
PAIRS["300w_wflw_twice"] = PAIRS["300w_wflw"]  # trained on twice the images
_NORMS = ("outer_eye", "label_box", "box")


@dataclass(frozen=True)
class LoadedFaces:
    """A test set, read once for all checkpoints."""

    about: Faces
    samples: list[Sample]
    layout: PointLayout

    @property
    def title(self) -> str:
        """With the number of faces, as in ``WFLW-108``."""
        return f"{self.about.title}-{len(self.samples)}"

    def subsets(self) -> dict[str, np.ndarray]:
        """``(F,)`` bool of ``all`` and of each part of the set that is not all of it, in order of appearance."""
        names = dict.fromkeys(name for sample in self.samples for name in sample.subsets)
        parts = {name: np.array([name in sample.subsets for sample in self.samples]) for name in names}
        everyone = np.ones(len(self.samples), dtype=bool)
        return {"all": everyone} | {name: chosen for name, chosen in parts.items() if not chosen.all()}


def read_faces(about: Faces, data_root: Path) -> LoadedFaces:
    """Read a test set.

    Raises:
        FileNotFoundError: It is not under ``data_root``; the message says how to get it.
    """
    dataset = dataset_config(about.dataset, data_root)
    samples, _ = read_split(dataset, about.split)
    return LoadedFaces(about, samples, dataset_layout(dataset))


def remembered(build: Callable[[], Detector]) -> Detector:
    """A detector that is built when it is first asked and looks at each photo once, however many networks ask."""
    detector: Detector | None = None
    seen: dict[str, Detections] = {}

    def detect(image: np.ndarray) -> Detections:
        nonlocal detector
        detector = detector or build()
        key = hashlib.sha1(image.tobytes()).hexdigest()
        if key not in seen:
            seen[key] = detector(image)
        return seen[key]

    return detect


def errors_of(checkpoint: Path, sets: dict[str, LoadedFaces], detector: Detector) -> dict[str, dict[str, np.ndarray]]:
    """Errors of a checkpoint: set, then norm, to ``(F,)`` fractions (inf missed, NaN not measurable).

    Args:
        checkpoint: A ``best.pt``.
        sets: By key, of :func:`read_faces`.
        detector: Of the sets that are cut by a detector's boxes.

    Raises:
        FileNotFoundError: No such checkpoint.
        ValueError: Its points can't be compared with a set's.
    """
    landmarker = FaceLandmarker.load(checkpoint, runtime="torch", detector=detector)
    errors = {}
    for key, faces in sets.items():
        result = evaluate(landmarker, faces.samples, layout=faces.layout, boxes=faces.about.boxes)
        own = faces.about.points if result.layout.name == faces.layout.name else None
        errors[key] = {norm: result.errors(norm, own) for norm in _NORMS if norm in result.norms}
    return errors


def pair_named(name: str) -> Pair:
    """A pair by name.

    Raises:
        ValueError: No such pair; the message lists those there are.
    """
    if name not in PAIRS:
        raise ValueError(f"no pair {name!r}; there are: {', '.join(PAIRS)}")
    return PAIRS[name]
