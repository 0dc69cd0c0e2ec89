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
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipnet.config import dataset_config, dataset_layout, read_split
from pipnet.data.sample import Sample
from pipnet.evaluation.evaluate import BoxSource, Evaluation, evaluate
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
_NOSE_EYES = tuple(range(27, 48))  # of 68; where two sets' conventions differ least


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

    @property
    def photos(self) -> np.ndarray:
        """``(F,)`` ids of the photos: faces of one photo have much in common."""
        return photos_of(self.samples)

    def subsets(self) -> dict[str, np.ndarray]:
        """``(F,)`` bool of ``all`` and of each part of the set that is not all of it, in order of appearance."""
        names = dict.fromkeys(name for sample in self.samples for name in sample.subsets)
        parts = {name: np.array([name in sample.subsets for sample in self.samples]) for name in names}
        everyone = np.ones(len(self.samples), dtype=bool)
        return {"all": everyone} | {name: chosen for name, chosen in parts.items() if not chosen.all()}


def photo_of(name: str) -> str:
    """The photo that a face of 300W was cut from: faces of one differ in the number at the end, but for LFPW's."""
    return name if name.startswith("lfpw") else re.sub(r"_\d+$", "", name)


def photos_of(samples: Sequence[Sample]) -> np.ndarray:
    """``(F,)`` ids of the photos of faces of 300W, cut apart, or of sets with several faces a file."""
    files = [str(sample.image) for sample in samples]
    apart = len(set(files)) == len(files)
    return np.unique(
        [photo_of(s.name) if apart else file for s, file in zip(samples, files, strict=True)], False, True
    )[1]


def without_offsets(result: Evaluation) -> Evaluation:
    """The same with each point moved by what it is off on average on the faces of other photos.

    What is left is what a network gets wrong face by face; a constant gap between the conventions of two sets is gone.
    """
    size = result.norms["box"][:, None, None]
    off = (result.pred - result.true) / size  # (F, N, 2)
    photos = photos_of(result.samples)
    there = ~np.isnan(off)
    total, count = np.zeros((photos.max() + 1, *off.shape[1:])), np.zeros((photos.max() + 1, *off.shape[1:]))
    np.add.at(total, photos, np.where(there, off, 0))
    np.add.at(count, photos, there)
    others, many = total.sum(axis=0) - total, count.sum(axis=0) - count
    mean = np.divide(others, many, out=np.zeros_like(others), where=many > 0)
    return replace(result, pred=result.pred - mean[photos] * size)


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

    Of 68 points ``nose_eyes`` and ``without_offsets`` too: of these points alone, and see that function; by the box.

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
        if result.layout.name == "300w_68":
            errors[key]["nose_eyes"] = result.errors("box", _NOSE_EYES)
            errors[key]["without_offsets"] = without_offsets(result).errors("box")
    return errors


def pair_named(name: str) -> Pair:
    """A pair by name.

    Raises:
        ValueError: No such pair; the message lists those there are.
    """
    if name not in PAIRS:
        raise ValueError(f"no pair {name!r}; there are: {', '.join(PAIRS)}")
    return PAIRS[name]
