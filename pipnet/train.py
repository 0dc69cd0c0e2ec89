"""Train a network.

python -m pipnet.train experiment=quickstart              # drawn faces, no download, under 3 minutes
python -m pipnet.train experiment=300w_mobilenet_v2       # the weights that ship
python -m pipnet.train dataset=own_csv data_root=DIR      # your own faces, see data/README.md
torchrun --nproc-per-node 4 -m pipnet.train experiment=paper_wflw_resnet18   # several processes train as one

The same command again goes on where a killed run stopped.
"""

from __future__ import annotations

import platform
import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig

from pipnet.config import called, config_dir, dataset_layout, one_sentence, plain, read_split
from pipnet.data.dataset import FaceCrops
from pipnet.data.sample import Sample
from pipnet.data.transforms import Augment
from pipnet.model import checkpoint
from pipnet.model.codec import mean_shape
from pipnet.model.loss import PIPLoss
from pipnet.model.pipnet import PIPNet
from pipnet.training.calibration import calibrate
from pipnet.training.engine import FitResult, fit
from pipnet.training.optimization import build_optimizer, lr_schedule
from pipnet.training.processes import Processes, processes
from pipnet.training.validation import Validation


@hydra.main(version_base="1.3", config_path=config_dir(), config_name="train")
def main(cfg: DictConfig) -> None:
    """Train as the config says; what the user can mend is one sentence and exit code 1."""
    with one_sentence():
        settings = plain(cfg)
        with processes(settings["device"]) as team:
            train(settings, team)


def train(settings: dict[str, Any], team: Processes) -> FitResult:
    """Train from a plain config (the content of ``conf/train.yaml``)."""
    layout = dataset_layout(settings["dataset"])
    samples, bad = read_split(settings["dataset"], settings["splits"]["train"])
    held_out, bad_held_out = read_split(settings["dataset"], settings["splits"]["val"])
    samples, held_out = samples[: settings["max_faces"]], held_out[: settings["max_faces"]]
    model = dict(settings["model"])
    crop = {"input_size": model["input_size"], "box_scale": settings["box_scale"]}
    augment = called(Augment, "transform", settings["transform"])
    label_shift = settings["dataset"].get("label_shift", 0.0)
    faces = FaceCrops(samples, layout, augment=augment, label_shift=label_shift, seed=settings["seed"], **crop)
    validation = Validation(FaceCrops(held_out, layout, **crop), layout)
    mean_face = mean_shape(faces.plain_points())
    torch.manual_seed(settings["seed"])  # the head starts at random, and at the same in every process
    net = called(PIPNet, "model", model, mean_face=mean_face)
    if settings["init_from"]:
        start = checkpoint.load(settings["init_from"])
        checkpoint.load_weights(net, start.net.state_dict(), source=str(settings["init_from"]))
    if team.is_main:
        _announce(settings, len(samples), len(held_out), [*bad.reasons, *bad_held_out.reasons])
        print(f"the mean face alone: validation NME {validation.mean_face_nme(mean_face):.2f} %")
    result = called(
        fit,
        "fit",
        settings["fit"],
        net=net,
        faces=faces,
        validation=validation,
        layout=layout,
        box_scale=settings["box_scale"],
        folder=settings["folder"],
        build_optimizer=lambda net: called(build_optimizer, "optim", settings["optim"], net=net),
        schedule=called(lr_schedule, "schedule", settings["schedule"]),
        team=team,
        loss=called(PIPLoss, "loss", settings["loss"]),
        seed=settings["seed"],
        record=_record(settings, samples, held_out),
    )
    if team.is_main:
        best = min(record["val_nme"] for record in result.history if "val_nme" in record)
        print(f"best validation NME {best:.3f} %: {result.best}")
        _calibrate(result.best, held_out, augment)
    return result


def _calibrate(path: Path, held_out: list[Sample], augment: Augment) -> None:
    """Give the best checkpoint scores that are probabilities."""
    best = checkpoint.load(path)
    if best.net.confidence.calibrated:  # a finished training that was asked for again
        return
    try:
        scores = calibrate(best.net, held_out, best.layout, box_scale=best.box_scale, augment=augment)
    except ValueError as error:  # a few faces of a first try
        print(f"the scores of {path} only rank points, they are not calibrated: {error}")
        return
    best.net.calibrate(scores)
    checkpoint.save(path, best.net, layout=best.layout, box_scale=best.box_scale, training=best.training)


def _announce(settings: dict[str, Any], train: int, val: int, left_out: list[str]) -> None:
    print(f"{settings['name']}: {train} faces to train, {val} to validate, into {settings['folder']}")
    for reason in left_out:
        print(f"left out: {reason}")


def _record(settings: dict[str, Any], samples: list[Any], held_out: list[Any]) -> dict[str, Any]:
    """What a checkpoint says about its training, in plain types."""
    return {
        "config": settings,
        "faces": {"train": len(samples), "val": len(held_out)},
        "subsets": dict(Counter(name for sample in samples for name in sample.subsets)),
        "licence": settings["dataset"].get("licence", "not stated"),
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


if __name__ == "__main__":
    main()
