"""How a config becomes a training: labelled faces, network, optimiser and schedule, and the record it leaves."""

from __future__ import annotations

import inspect
import platform
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from pipnet.data.dataset import FaceCrops, MixedFaces
from pipnet.data.sample import Sample
from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.layouts import PointLayout
from pipnet.model import checkpoint
from pipnet.model.network import LandmarkNet
from pipnet.model.networks import DEFAULT, network_class
from pipnet.training.calibration import calibrate
from pipnet.training.distributed import Processes
from pipnet.training.optimization import Schedule, build_optimizer, freeze_backbone
from pipnet.training.trainer import FitResult, FitSettings, fit
from pipnet.training.validation import Validation

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingData:
    """Labelled faces, as a training needs them."""

    layout: PointLayout
    faces: FaceCrops  # to train on, augmented
    held_out: Sequence[Sample]  # that choose weights and calibrate scores
    validation: Validation  # of the same
    mean_face: np.ndarray  # (N, 2), fractions of the crop; of the faces to train on
    skipped: list[str]  # reasons of the items that could not be read


def build_network(settings: Mapping[str, Any], training_data: TrainingData, *, seed: int) -> LandmarkNet:
    """The network that a training starts from: its backbone has the weights that the config names, its head is random.

    A layout of few points has fewer neighbours than ``model.num_neighbors``: then each point predicts all others.
    """
    torch.manual_seed(seed)  # the same in every process
    arguments = dict(settings["model"])
    kind = network_class(arguments.pop("network", DEFAULT))
    if "num_neighbors" in arguments:
        arguments["num_neighbors"] = min(arguments["num_neighbors"], training_data.layout.num_points - 1)
    if arguments.get("flips") is True:
        arguments["flips"] = list(training_data.layout.mirror)
    net = called(kind, "model", arguments, mean_face=training_data.mean_face)
    if settings["init_from"]:
        start = checkpoint.load(weights_file(settings["init_from"]))
        checkpoint.load_weights(net, start.net.state_dict(), source=str(settings["init_from"]))
    return net


def weights_file(named: str) -> Path:
    """Where the weights lie that ``init_from`` or ``teacher`` names."""
    return SHIPPED_WEIGHTS if named == "shipped" else Path(named)


def train_network(
    settings: Mapping[str, Any],
    net: LandmarkNet,
    faces: FaceCrops | MixedFaces,
    *,
    training_data: TrainingData,
    folder: Path,
    seed: int,
    record: dict[str, Any],
    processes: Processes,
    epochs: int | None = None,
    span: tuple[int, int] | None = None,
) -> FitResult:
    """Train a network as a config says, see :func:`pipnet.training.trainer.fit`.

    ``epochs`` replaces ``fit.epochs``; ``span`` says where in a longer schedule this training stands: epochs before it,
    and in all.
    """
    fitting = called(FitSettings, "fit", settings["fit"] | ({} if epochs is None else {"epochs": epochs}))
    begin, whole = span or (0, fitting.epochs)
    loss = settings.get("loss", {})  # loss=null where a network's own needs no numbers
    net = processes.place(net)
    freeze_backbone(net, fitting.frozen_blocks)
    return fit(
        net,
        faces,
        fitting,
        optimizer=called(build_optimizer, "optim", settings["optim"], net=net),
        schedule=called(Schedule, "schedule", settings["schedule"], epochs=whole, begin=begin),
        loss=called(net.loss_class(), "loss", loss, total_count=processes.mean_count),
        validation=training_data.validation,
        processes=processes,
        folder=folder,
        seed=seed,
        record=record,
    )


def called(what: Callable[..., T], group: str, arguments: Mapping[str, Any], **more: Any) -> T:
    """Call something with the plain values of a config group; a ValueError names the group and a wrong key."""
    try:
        inspect.signature(what).bind(**arguments, **more)
    except TypeError as error:
        raise ValueError(f"config group {group!r}: {error}") from error
    return what(**arguments, **more)  # outside the try: a TypeError in here is a bug and keeps its traceback


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
    """What a checkpoint says about its training, in plain types."""
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
