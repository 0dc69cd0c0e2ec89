"""Train a network.

python -m pipnet.train experiment=quickstart              # synthetic faces, no download, under 3 minutes
python -m pipnet.train experiment=300w_mobilenet_v2       # the weights that ship
python -m pipnet.train experiment=gpu_check               # three minutes: what a GPU computes, and how fast
python -m pipnet.train dataset=own_csv data_root=DIR      # your own faces, see data/README.md
torchrun --nproc-per-node 4 -m pipnet.train experiment=paper_wflw   # several processes train as one

The same command again resumes where a killed run stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipnet.console import needs

with needs("train", __name__):
    import numpy as np
    from omegaconf import DictConfig

    from pipnet.config import command, dataset_layout, plain, read_split
    from pipnet.data.dataset import FaceCrops
    from pipnet.data.sample import tilts, with_tilts
    from pipnet.data.transforms import Augment
    from pipnet.geometry import turned
    from pipnet.model.codec import mean_shape
    from pipnet.model.network import LandmarkNet
    from pipnet.model.pipnet import PIPNet
    from pipnet.training.distributed import Processes, join_processes
    from pipnet.training.gpu_check import check_gpu
    from pipnet.training.setup import (
        TrainingData,
        build_network,
        calibrate_checkpoint,
        called,
        check_settings,
        mean_face_of,
        train_network,
        training_record,
    )
    from pipnet.training.trainer import FitResult
    from pipnet.training.validation import Validation


@command("train")
def main(cfg: DictConfig) -> None:
    """Train as the config says."""
    settings = plain(cfg)
    with join_processes(settings["device"]) as processes:
        if settings.get("gpu_check"):  # of experiment=gpu_check
            check_gpu(settings, build_training_data(settings), processes)
        else:
            train(settings, processes)


def train(settings: dict[str, Any], processes: Processes) -> FitResult:
    """Train from a plain config (the content of ``conf/train.yaml``)."""
    training_data = build_training_data(settings)
    say = print if processes.is_main else str
    net = build_network(settings, training_data, seed=settings["seed"], say=say)
    if processes.is_main:
        announce(settings, training_data, net)
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
    check_settings(settings, layout)
    samples, bad = read_split(settings["dataset"], settings["splits"]["train"])
    held_out, bad_held_out = read_split(settings["dataset"], settings["splits"]["val"])
    samples, held_out = samples[: settings["max_faces"]], held_out[: settings["max_faces"]]
    crop = {"input_size": settings["model"]["input_size"], "crop_scale": settings["crop_scale"]}
    augment = called(Augment, "transform", settings["transform"])
    label_shift = settings["dataset"].get("label_shift", 0.0)
    known = mean_face_of(settings["init_from"], layout)
    upright = known
    if upright is None:  # faces that lie tilt the mean, so it is taken again with them upright; most say what that is
        upright = mean_shape(FaceCrops(samples, layout, **crop).plain_points())
        upright = turned(upright, np.median(tilts(samples, upright)))
        upright = mean_shape(FaceCrops(with_tilts(samples, upright), layout, **crop).plain_points())
    samples, held_out = with_tilts(samples, upright), with_tilts(held_out, upright)
    faces = FaceCrops(samples, layout, augment=augment, label_shift=label_shift, seed=settings["seed"], **crop)
    validation = Validation(FaceCrops(held_out, layout, **crop), layout)
    skipped = list(dict.fromkeys([*bad.reasons, *bad_held_out.reasons]))  # both parts may name the same line
    mean_face = mean_shape(faces.plain_points()) if known is None else known
    return TrainingData(layout, faces, held_out, validation, mean_face, skipped)


def announce(settings: dict[str, Any], training_data: TrainingData, net: LandmarkNet) -> None:
    """Say what is about to be trained."""
    train, val = len(training_data.faces), len(training_data.held_out)
    print(f"{settings['name']}: {train} faces to train, {val} to validate, into {settings['folder']}")
    if isinstance(net, PIPNet) and net.num_neighbors < settings["model"]["num_neighbors"]:
        points = f"a layout of {net.num_points} points"
        print(f"model.num_neighbors: {net.num_neighbors}, all others that {points} has")
    for reason in training_data.skipped:
        print(f"skipped: {reason}")
    print(
        f"the mean face alone: validation NME {training_data.validation.mean_face_nme(training_data.mean_face):.2f} %"
    )


if __name__ == "__main__":
    main()
