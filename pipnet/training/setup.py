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
from pipnet.data.transforms import Augment
from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.layouts import PointLayout, same_points
from pipnet.model import checkpoint
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.loss import Shrink
from pipnet.model.network import LandmarkNet, take
from pipnet.model.networks import DEFAULT, network_class
from pipnet.model.pipnet import PIPNet
from pipnet.training.calibration import calibrate
from pipnet.training.distributed import Processes
from pipnet.training.optimization import Schedule, build_optimizer, freeze_backbone
from pipnet.training.trainer import FitResult, FitSettings, Relabel, fit
from pipnet.training.validation import Validation

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingData:
    """Labelled faces, as a training needs them."""

    layout: PointLayout
    faces: FaceCrops  # to train on, augmented
    held_out: Sequence[Sample]  # that choose weights and calibrate scores
    validation: Validation  # of the same
    mean_face: np.ndarray  # (N, 2), fractions of the crop; of the faces to train on, or of what init_from names
    skipped: list[str]  # reasons of the items that could not be read


def check_settings(settings: Mapping[str, Any], layout: PointLayout) -> None:
    """Build what a config says from nothing: what is wrong shows before a face is read or a weight is downloaded.

    Raises:
        ValueError: A config group has a key that means nothing, or a value that does not fit; or ``init_from`` is of
            another backbone.
        FileNotFoundError, CheckpointError: There is no usable ``init_from``.
    """
    anywhere = np.arange(2 * layout.num_points).reshape(-1, 2) / (2 * layout.num_points)
    net = _network(settings, layout, anywhere, pretrained=False)
    if settings["init_from"]:
        start_from(net, layout, settings["init_from"])
    called(Augment, "transform", settings["transform"])
    called(build_optimizer, "optim", settings["optim"], net=net)
    called(Schedule, "schedule", settings["schedule"], epochs=called(FitSettings, "fit", settings["fit"]).epochs)
    called(net.loss_class(), "loss", settings.get("loss", {}))


def build_network(
    settings: Mapping[str, Any],
    training_data: TrainingData,
    *,
    seed: int,
    blank: bool = False,
    say: Callable[[str], object] = lambda said: None,
) -> LandmarkNet:
    """The network that a training starts from: what ``init_from`` has of it, or a pretrained backbone; else random.

    A layout of few points has fewer neighbours than ``model.num_neighbors``: then each point predicts all others.
    ``blank`` leaves all of it random, for a network whose weights are about to be replaced. ``say`` gets the sentence
    of :func:`start_from`.
    """
    torch.manual_seed(seed)  # the same in every process
    start = None if blank else settings["init_from"]
    pretrained = not blank and not start and bool(settings["model"].get("pretrained", False))
    net = _network(settings, training_data.layout, training_data.mean_face, pretrained=pretrained)
    if start:
        say(start_from(net, training_data.layout, start))
    return net


def _network(
    settings: Mapping[str, Any], layout: PointLayout, mean_face: np.ndarray, *, pretrained: bool
) -> LandmarkNet:
    arguments = {**settings["model"], "pretrained": pretrained}
    kind = network_class(arguments.pop("network", DEFAULT))
    if "num_neighbors" in arguments:
        arguments["num_neighbors"] = min(arguments["num_neighbors"], layout.num_points - 1)
    if arguments.get("flips") is True:
        arguments["flips"] = list(layout.mirror)
    return called(kind, "model", arguments, mean_face=mean_face)


def weights_file(named: str) -> Path:
    """Where the weights lie that ``init_from`` or ``teacher`` names."""
    return SHIPPED_WEIGHTS if named == "shipped" else Path(named)


def mean_face_of(named: str | None, layout: PointLayout) -> np.ndarray | None:
    """Mean face, ``(N, 2)``, of what ``init_from`` names, if it has the layout's points; None if it has others.

    Its weights know the neighbours on that face; on the mean of a few new labels some would be others, and start anew.
    """
    if not named:
        return None
    start = checkpoint.load(weights_file(named))
    same = same_points(start.layout, layout)
    alike = start.layout.num_points == layout.num_points and same == {point: point for point in range(len(same))}
    return np.array(start.net.arguments["mean_face"]) if alike and len(same) == layout.num_points else None


def start_from(net: LandmarkNet, layout: PointLayout, named: str) -> str:
    """Give a network what fits of another's weights, whatever points that one has; the rest stays as it is.

    The backbone's blocks are taken where names and shapes agree, the layers behind it where it gives the same features:
    see :meth:`pipnet.model.network.LandmarkNet.take_layers`.

    Args:
        net: To be changed.
        layout: Of its points.
        named: A checkpoint, or ``"shipped"``.

    Returns:
        A sentence that says what was taken, and what is new.

    Raises:
        ValueError: The other network has another backbone, or nothing of it fits.
        FileNotFoundError, CheckpointError: It can't be read.
    """
    start = checkpoint.load(weights_file(named))
    wanted, there = (str(model.arguments["backbone"]) for model in (net, start.net))
    if wanted.removesuffix("_stride16") != there.removesuffix("_stride16"):  # which ends early
        raise ValueError(
            f"init_from {named} has the backbone {there}, the config {wanted}; set model.backbone={there}, or leave out"
            " init_from to start from ImageNet weights"
        )
    theirs = dict(start.net.backbone.named_children())
    blocks = {name: block for name, block in net.backbone.named_children() if block.state_dict()}
    fit = [name for name, block in blocks.items() if name in theirs and take(block, theirs[name])]
    if not fit:
        raise ValueError(
            f"init_from {named} has the backbone {there} in another size than the config; give both the same arguments"
            " of model, or leave out init_from"
        )
    missing = len(blocks) - len(fit)
    whole = not missing and wanted == there
    points = same_points(start.layout, layout) if whole else None
    known, new = net.take_layers(start.net, points)
    backbone = f"{len(fit)} of {len(blocks)} blocks of the backbone" if missing else "backbone"
    unknown = [f"{missing} of {len(blocks)} blocks of the backbone"] * bool(missing) + new
    return f"init_from {named}: {backbone}{known}; new: {', '.join(unknown) or 'nothing'}"


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
    shrink: Shrink | None = None,
    relabel: Relabel | None = None,
) -> FitResult:
    """Train a network as a config says, see :func:`pipnet.training.trainer.fit`.

    ``epochs`` replaces ``fit.epochs``; ``span`` says where in a longer schedule this training stands: epochs before it,
    and in all. With ``shrink`` a :class:`pipnet.model.pipnet.PIPNet` gets a second head, which learns by it.
    """
    fitting = called(FitSettings, "fit", settings["fit"] | ({} if epochs is None else {"epochs": epochs}))
    begin, whole = span or (0, fitting.epochs)
    loss = settings.get("loss", {})  # loss=null where a network's own needs no numbers
    more: dict[str, Any] = {}
    if shrink is not None:
        assert isinstance(net, PIPNet)
        net.add_second_head()
        more["shrink"] = shrink
    net = processes.place(net)
    freeze_backbone(net, fitting.frozen_blocks)
    return fit(
        net,
        faces,
        fitting,
        optimizer=called(build_optimizer, "optim", settings["optim"], net=net),
        schedule=called(Schedule, "schedule", settings["schedule"], epochs=whole, begin=begin),
        loss=called(net.loss_class(), "loss", loss, total_count=processes.mean_count, **more),
        validation=training_data.validation,
        processes=processes,
        folder=folder,
        seed=seed,
        record=record,
        relabel=relabel,
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
    best.net.calibrate(scores_of(best, training_data, source=path))
    if best.net.confidence.calibrated:
        checkpoint.save(path, best.net, layout=best.layout, crop_scale=best.crop_scale, training=best.training)


def scores_of(model: LoadedModel, training_data: TrainingData, *, source: Path) -> dict[str, Any] | None:
    """The calibration of a network's scores on the validation faces; None, and a sentence, if they don't allow it."""
    augment = training_data.faces.augment
    assert augment is not None
    try:
        return calibrate(model.net, training_data.held_out, model.layout, crop_scale=model.crop_scale, augment=augment)
    except ValueError as error:  # a few faces of a first try
        print(f"the scores of {source} only rank points, they are not calibrated: {error}")
        return None


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
