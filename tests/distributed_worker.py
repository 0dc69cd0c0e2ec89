"""What one of several processes does: a training whose labels, weights and tasks are spread unevenly, and failures."""

from pathlib import Path

import numpy as np
import torch

from pipnet.data.dataset import FaceCrops, MixedFaces
from pipnet.data.sample import Sample
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.data.transforms import Augment
from pipnet.layouts import get_layout
from pipnet.model.checkpoint import CheckpointError
from pipnet.model.codec import mean_shape
from pipnet.model.loss import PIPLoss
from pipnet.model.pipnet import PIPNet
from pipnet.training.distributed import join_processes
from pipnet.training.optimization import Schedule, build_optimizer
from pipnet.training.state import TrainingError
from pipnet.training.trainer import FitSettings, fit
from pipnet.training.validation import Validation

LAYOUT = get_layout("300w_68")
CROP = {"input_size": 64, "crop_scale": 1.25}


def sparse(sample, index):
    """The face with most points unlabelled if it is an even one, and of weights from 0 to 1 if it is a third one."""
    points = sample.points.copy()
    if index % 2 == 0:
        points[5:60] = np.nan
    weight = np.linspace(0, 1, 68) ** index if index % 3 == 0 else None
    return Sample(sample.image, points, sample.name, box=sample.box, weight=weight)


def train(folder, processes, precision="float32"):
    torch.set_num_threads(1)
    samples = [sparse(sample, index) for index, sample in enumerate(draw_faces(24, seed=0, size=96))]
    more = {"augment": Augment(mirror_p=0.5, box_shift=0.05), "seed": 0, **CROP}
    labelled, coarse = FaceCrops(samples[:14], LAYOUT, **more), FaceCrops(samples[14:], LAYOUT, pool_factor=2, **more)
    faces = MixedFaces(labelled, coarse, labelled_share=0.7, length=24)
    torch.manual_seed(processes.rank)  # processes need not start from the same weights: the first one's count
    net = PIPNet(mean_shape(labelled.plain_points()), "mobilenet_v3_small", num_neighbors=3, input_size=64)
    net = processes.place(net)
    return fit(
        net,
        faces,
        FitSettings(epochs=2, batch_size=8, ema_decay=0.9, clip_norm=1.0, precision=precision, progress_bar=False),
        # Plain gradient descent: Adam would turn rounding in a gradient near zero into a whole step.
        optimizer=build_optimizer(net, name="sgd", lr=0.01, momentum=0.9),
        schedule=Schedule(2, name="cosine"),
        loss=PIPLoss(total_count=processes.mean_count),
        validation=Validation(FaceCrops(draw_faces(6, seed=1, size=96), LAYOUT, **CROP), LAYOUT),
        processes=processes,
        folder=folder,
    )


def train_twice(folder, hybrid_folder):
    with join_processes("cpu") as together:
        train(Path(folder), together)
        train(Path(hybrid_folder), together, "hybrid")


class TwoWordsError(ValueError):
    def __init__(self, one, two):  # can't be unpickled
        super().__init__(f"{one} {two}")


def fail(folder):
    """Let the main process fail in all ways, and write down what this one hears of it."""

    def failing(error):
        raise error

    with join_processes("cpu") as processes:
        lines = []

        def said(make):
            try:
                processes.from_main(make)
            except Exception as error:
                lines.append(f"{type(error).__name__} {error}")

        said(lambda: failing(ValueError("a value")))
        said(lambda: failing(OSError(2, "no file", "a.txt")))
        said(lambda: failing(TrainingError("a training")))
        said(lambda: failing(KeyError("a bug")))
        said(lambda: failing(TwoWordsError("two", "words")))
        said(lambda: lambda: 0)
        lines.append(f"in step {processes.from_main(lambda: 10 + processes.rank)}")
        (Path(folder) / str(processes.rank)).write_text("\n".join(lines))
        processes.from_main(lambda: failing(CheckpointError("the end")))
