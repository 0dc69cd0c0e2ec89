"""What every training is prepared with and leaves behind: faces to learn from and to be measured on, and its record."""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.data.dataset import FaceCrops
from pipnet.data.sample import Sample
from pipnet.data.transforms import Augment
from pipnet.layouts import PointLayout
from pipnet.model import checkpoint
from pipnet.model.codec import mean_shape
from pipnet.training.calibration import calibrate
from pipnet.training.validation import Validation


@dataclass(frozen=True)
class TrainingData:
    """Labelled faces, as a training needs them.

    Attributes:
        layout: What their points mean.
        faces: Those to train on, augmented.
        held_out: Those that choose weights and calibrate scores.
        validation: The same, measured.
        mean_face: ``(N, 2)``, fractions of the crop; of the faces to train on.
        skipped: Reasons of the items that could not be read.
    """

    layout: PointLayout
    faces: FaceCrops
    held_out: Sequence[Sample]
    validation: Validation
    mean_face: np.ndarray
    skipped: list[str]


def set_up(
    samples: Sequence[Sample],
    held_out: Sequence[Sample],
    layout: PointLayout,
    *,
    input_size: int,
    crop_scale: float,
    augment: Augment,
    label_shift: float = 0.0,
    seed: int = 0,
    skipped: Sequence[str] = (),
) -> TrainingData:
    """Cut labelled faces for a training.

    Args:
        samples: To train on.
        held_out: To validate on.
        layout: What their points mean.
        input_size: Side of the crop in pixels.
        crop_scale: Side of the crop over the longer side of the face box.
        augment: Of the faces to train on.
        label_shift: See :class:`pipnet.data.dataset.FaceCrops`.
        seed: Of the augmentation.
        skipped: Reasons of the items that could not be read.

    Raises:
        ValueError: There is no face to validate on, or a face does not fit the layout.
    """
    crop = {"input_size": input_size, "crop_scale": crop_scale}
    faces = FaceCrops(samples, layout, augment=augment, label_shift=label_shift, seed=seed, **crop)
    validation = Validation(FaceCrops(held_out, layout, **crop), layout)
    return TrainingData(layout, faces, held_out, validation, mean_shape(faces.plain_points()), list(skipped))


def calibrate_checkpoint(path: Path, training_data: TrainingData) -> None:
    """Give the best checkpoint scores that are probabilities; one that has them stays as it is."""
    best = checkpoint.load(path)
    if best.net.confidence.calibrated:  # a finished training that was asked for again
        return
    augment = training_data.faces.augment
    assert augment is not None
    try:
        scores = calibrate(best.net, training_data.held_out, best.layout, crop_scale=best.crop_scale, augment=augment)
    except ValueError as error:  # a few faces of a first try
        print(f"the scores of {path} only rank points, they are not calibrated: {error}")
        return
    best.net.calibrate(scores)
    checkpoint.save(path, best.net, layout=best.layout, crop_scale=best.crop_scale, training=best.training)


def training_record(config: Mapping[str, Any], training_data: TrainingData) -> dict[str, Any]:
    """What a checkpoint says about its training, in plain types.

    Args:
        config: Of the command.
        training_data: Its labelled faces.
    """
    samples = training_data.faces.samples
    return {
        "config": dict(config),
        "faces": {"train": len(samples), "val": len(training_data.held_out)},
        "subsets": dict(Counter(name for sample in samples for name in sample.subsets)),
        "licence": config["dataset"].get("licence", "not stated"),
        "versions": {name: _version(name) for name in ("pipnet", "torch", "torchvision", "numpy", "opencv-python")},
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout on PYTHONPATH; OpenCV under another of its names
        return "not installed"


def _commit() -> str:
    """Git commit of the checkout that trains, or "" for an installed package."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
