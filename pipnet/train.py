"""Train a network.

python -m pipnet.train experiment=quickstart              # synthetic faces, no download, under 3 minutes
python -m pipnet.train experiment=300w_mobilenet_v2       # the weights that ship
python -m pipnet.train dataset=own_csv data_root=DIR      # your own faces, see data/README.md
torchrun --nproc-per-node 4 -m pipnet.train experiment=paper_wflw   # several processes train as one

The same command again goes on where a killed run stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipnet.console import needs

with needs("train", __name__):
    import torch
    from omegaconf import DictConfig

    from pipnet.config import called, command, dataset_layout, plain, read_split
    from pipnet.data.dataset import FaceCrops, MixedFaces
    from pipnet.data.transforms import Augment
    from pipnet.model import checkpoint
    from pipnet.model.loss import PIPLoss
    from pipnet.model.pipnet import PIPNet
    from pipnet.training.distributed import Processes, processes
    from pipnet.training.optimization import build_optimizer, lr_schedule
    from pipnet.training.setup import Material, calibrate_checkpoint, prepare, training_record
    from pipnet.training.trainer import FitResult, fit


@command("train")
def main(cfg: DictConfig) -> None:
    """Train as the config says."""
    settings = plain(cfg)
    with processes(settings["device"]) as team:
        train(settings, team)


def train(settings: dict[str, Any], team: Processes) -> FitResult:
    """Train from a plain config (the content of ``conf/train.yaml``)."""
    material = build_material(settings)
    net = build_network(settings, material, seed=settings["seed"])
    if team.is_main:
        announce(settings, material)
    result = train_network(
        settings,
        net,
        material.faces,
        material=material,
        folder=Path(settings["folder"]),
        seed=settings["seed"],
        record=training_record(settings, material),
        team=team,
    )
    if team.is_main:
        best = min(record["val_nme"] for record in result.history if "val_nme" in record)
        print(f"best validation NME {best:.3f} %: {result.best}")
        calibrate_checkpoint(result.best, material)
    return result


def build_material(settings: dict[str, Any]) -> Material:
    """Read and cut the labelled faces of a config.

    Raises:
        OSError, ValueError: The dataset can't be read, or the config does not fit it.
    """
    layout = dataset_layout(settings["dataset"])
    samples, bad = read_split(settings["dataset"], settings["splits"]["train"])
    held_out, bad_held_out = read_split(settings["dataset"], settings["splits"]["val"])
    return prepare(
        samples[: settings["max_faces"]],
        held_out[: settings["max_faces"]],
        layout,
        input_size=settings["model"]["input_size"],
        box_scale=settings["box_scale"],
        augment=called(Augment, "transform", settings["transform"]),
        label_shift=settings["dataset"].get("label_shift", 0.0),
        seed=settings["seed"],
        left_out=list(dict.fromkeys([*bad.reasons, *bad_held_out.reasons])),  # both parts may name the same line
    )


def build_network(settings: dict[str, Any], material: Material, *, seed: int) -> PIPNet:
    """The network that a training starts from: its backbone has the weights that the config names, its head is random.

    A layout of few points has fewer neighbours than ``model.num_neighbors``: then each point predicts all others.
    """
    torch.manual_seed(seed)  # the same in every process
    arguments = {**settings["model"], "num_neighbors": _neighbors(settings, material)}
    net = called(PIPNet, "model", arguments, mean_face=material.mean_face)
    if settings["init_from"]:
        start = checkpoint.load(settings["init_from"])
        checkpoint.load_weights(net, start.net.state_dict(), source=str(settings["init_from"]))
    return net


def _neighbors(settings: dict[str, Any], material: Material) -> int:
    return min(settings["model"]["num_neighbors"], material.layout.num_points - 1)


def announce(settings: dict[str, Any], material: Material) -> None:
    """Say what is about to be trained."""
    train, val = len(material.faces), len(material.held_out)
    print(f"{settings['name']}: {train} faces to train, {val} to validate, into {settings['folder']}")
    neighbors, points = _neighbors(settings, material), material.layout.num_points
    if neighbors < settings["model"]["num_neighbors"]:
        print(f"model.num_neighbors: {neighbors}, all others that a layout of {points} points has")
    for reason in material.left_out:
        print(f"left out: {reason}")
    print(f"the mean face alone: validation NME {material.validation.mean_face_nme(material.mean_face):.2f} %")


def train_network(
    settings: dict[str, Any],
    net: PIPNet,
    faces: FaceCrops | MixedFaces,
    *,
    material: Material,
    folder: Path,
    seed: int,
    record: dict[str, Any],
    team: Processes,
    epochs: int | None = None,
    span: tuple[int, int] | None = None,
) -> FitResult:
    """Call :func:`pipnet.training.trainer.fit` as a config says.

    Args:
        settings: The content of ``conf/train.yaml``, or more.
        net: Starting weights.
        faces: To train on.
        material: What to validate on.
        folder: Of the checkpoints.
        seed: Of the order of the faces.
        record: Of the training.
        team: The processes that train together.
        epochs: Other than ``fit.epochs``.
        span: Where in a longer schedule this training stands: epochs before it, and in all.
    """
    schedule = called(lr_schedule, "schedule", settings["schedule"])
    arguments = settings["fit"] if epochs is None else {**settings["fit"], "epochs": epochs}
    return called(
        fit,
        "fit",
        arguments,
        net=net,
        faces=faces,
        validation=material.validation,
        layout=material.layout,
        box_scale=settings["box_scale"],
        folder=folder,
        build_optimizer=lambda net: called(build_optimizer, "optim", settings["optim"], net=net),
        schedule=schedule if span is None else lambda epoch, _: schedule(span[0] + epoch, span[1]),
        team=team,
        loss=called(PIPLoss, "loss", settings["loss"]),
        seed=seed,
        record=record,
    )


if __name__ == "__main__":
    main()
