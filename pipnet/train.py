"""Train a network.

python -m pipnet.train experiment=quickstart              # synthetic faces, no download, under 3 minutes
python -m pipnet.train experiment=300w_mobilenet_v2       # the weights that ship
python -m pipnet.train dataset=own_csv data_root=DIR      # your own faces, see data/README.md
torchrun --nproc-per-node 4 -m pipnet.train experiment=paper_wflw   # several processes train as one

The same command again resumes where a killed run stopped.
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
    from pipnet.training.distributed import Processes, join_processes
    from pipnet.training.optimization import build_optimizer, lr_schedule
    from pipnet.training.setup import TrainingData, calibrate_checkpoint, set_up, training_record
    from pipnet.training.trainer import FitResult, fit


@command("train")
def main(cfg: DictConfig) -> None:
    """Train as the config says."""
    settings = plain(cfg)
    with join_processes(settings["device"]) as processes:
        train(settings, processes)


def train(settings: dict[str, Any], processes: Processes) -> FitResult:
    """Train from a plain config (the content of ``conf/train.yaml``)."""
    training_data = build_training_data(settings)
    net = build_network(settings, training_data, seed=settings["seed"])
    if processes.is_main:
        announce(settings, training_data)
    result = train_network(
        settings,
        net,
        training_data.faces,
        training_data=training_data,
        folder=Path(settings["folder"]),
        seed=settings["seed"],
        record=training_record(settings, training_data),
        processes=processes,
    )
    if processes.is_main:
        best = min(record["val_nme"] for record in result.history if "val_nme" in record)
        print(f"best validation NME {best:.3f} %: {result.best}")
        calibrate_checkpoint(result.best, training_data)
    return result


def build_training_data(settings: dict[str, Any]) -> TrainingData:
    """Read and cut the labelled faces of a config.

    Raises:
        OSError, ValueError: The dataset can't be read, or the config does not fit it.
    """
    layout = dataset_layout(settings["dataset"])
    samples, bad = read_split(settings["dataset"], settings["splits"]["train"])
    held_out, bad_held_out = read_split(settings["dataset"], settings["splits"]["val"])
    return set_up(
        samples[: settings["max_faces"]],
        held_out[: settings["max_faces"]],
        layout,
        input_size=settings["model"]["input_size"],
        crop_scale=settings["crop_scale"],
        augment=called(Augment, "transform", settings["transform"]),
        label_shift=settings["dataset"].get("label_shift", 0.0),
        seed=settings["seed"],
        skipped=list(dict.fromkeys([*bad.reasons, *bad_held_out.reasons])),  # both parts may name the same line
    )


def build_network(settings: dict[str, Any], training_data: TrainingData, *, seed: int) -> PIPNet:
    """The network that a training starts from: its backbone has the weights that the config names, its head is random.

    A layout of few points has fewer neighbours than ``model.num_neighbors``: then each point predicts all others.
    """
    torch.manual_seed(seed)  # the same in every process
    arguments = {**settings["model"], "num_neighbors": _neighbors(settings, training_data)}
    net = called(PIPNet, "model", arguments, mean_face=training_data.mean_face)
    if settings["init_from"]:
        start = checkpoint.load(settings["init_from"])
        checkpoint.load_weights(net, start.net.state_dict(), source=str(settings["init_from"]))
    return net


def _neighbors(settings: dict[str, Any], training_data: TrainingData) -> int:
    return min(settings["model"]["num_neighbors"], training_data.layout.num_points - 1)


def announce(settings: dict[str, Any], training_data: TrainingData) -> None:
    """Say what is about to be trained."""
    train, val = len(training_data.faces), len(training_data.held_out)
    print(f"{settings['name']}: {train} faces to train, {val} to validate, into {settings['folder']}")
    neighbors, points = _neighbors(settings, training_data), training_data.layout.num_points
    if neighbors < settings["model"]["num_neighbors"]:
        print(f"model.num_neighbors: {neighbors}, all others that a layout of {points} points has")
    for reason in training_data.skipped:
        print(f"skipped: {reason}")
    print(
        f"the mean face alone: validation NME {training_data.validation.mean_face_nme(training_data.mean_face):.2f} %"
    )


def train_network(
    settings: dict[str, Any],
    net: PIPNet,
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
    """Call :func:`pipnet.training.trainer.fit` as a config says.

    Args:
        settings: The content of ``conf/train.yaml``, or more.
        net: Starting weights.
        faces: To train on.
        training_data: What to validate on.
        folder: Of the checkpoints.
        seed: Of the order of the faces.
        record: Of the training.
        processes: The processes that train together.
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
        validation=training_data.validation,
        layout=training_data.layout,
        crop_scale=settings["crop_scale"],
        folder=folder,
        build_optimizer=lambda net: called(build_optimizer, "optim", settings["optim"], net=net),
        schedule=schedule if span is None else lambda epoch, _: schedule(span[0] + epoch, span[1]),
        processes=processes,
        loss=called(PIPLoss, "loss", settings["loss"]),
        seed=seed,
        record=record,
    )


if __name__ == "__main__":
    main()
