"""Trainings of seconds: synthetic faces, the smallest network, 2 epochs of 6 steps; in this process or its own."""

from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from pipnet.config import config_dir, plain
from pipnet.data.dataset import FaceCrops
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.pipnet import PIPNet
from pipnet.train import train
from pipnet.training.distributed import join_processes

ARGUMENTS = (
    "dataset=drawn",
    "dataset.splits.train.count=26",  # two are left over: the last, incomplete batch is dropped
    "dataset.splits.train.size=64",
    "dataset.splits.val.count=5",
    "dataset.splits.val.size=64",
    "model.backbone=mobilenet_v3_small",
    "model.input_size=64",
    "model.num_neighbors=3",
    "model.pretrained=false",
    "optim.lr=0.001",
    "fit.batch_size=4",
    "fit.epochs=2",
    "fit.save_minutes=1000",  # after every epoch only
    "fit.progress_bar=false",
    "device=cpu",
)
STEPS_AN_EPOCH, EPOCHS = 6, 2
LAYOUT = get_layout("300w_68")
CPU = torch.device("cpu")


def config(folder, *more, primary="train", arguments=ARGUMENTS):
    """What the command makes of its arguments."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return plain(compose(primary, [*arguments, f"folder={folder}", *more]))


def run_here(work, settings):
    """A command without the command line, on one thread: sums depend on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with join_processes(settings["device"]) as processes:
            return work(settings, processes)
    finally:
        torch.set_num_threads(threads)


def train_here(folder, *more):
    return run_here(train, config(folder, *more))


def place(folder):
    """Epochs done and batches done in the next, as last.pt has it."""
    resume = checkpoint.read(Path(folder) / "last.pt")["resume"]
    return resume["epoch"], resume["batch"]


def outcome(folder):
    """All numbers of a training, without those that a clock gave."""
    last, best = (checkpoint.read(Path(folder) / name) for name in ("last.pt", "best.pt"))
    resume = last["resume"]
    for figures in [*resume["history"], best["training"]["metrics"]]:
        figures.pop("faces_per_second")
    return {
        "weights": last["weights"],
        "net": resume["net"],
        "optimizer": resume["optimizer"],
        "random": resume["torch_rng"],
        "history": resume["history"],
        "best_nme": resume["best_nme"],
        "best": best["weights"],
        "best_metrics": best["training"]["metrics"],
    }


def assert_same(a, b, where="outcome"):
    """Equal to the last bit, tensors included."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), f"{where}: {(a != b).sum()} of {a.numel()} differ"
    else:
        assert a == b, f"{where}: {a} and {b}"


def small_net(num_neighbors=3, backbone="mobilenet_v3_small"):
    torch.manual_seed(0)
    mean_face = np.random.default_rng(0).random((68, 2))
    return PIPNet(mean_face, backbone, num_neighbors=num_neighbors, input_size=64)


def drawn(count, seed=0, **more):
    return FaceCrops(draw_faces(count, seed=seed, size=96), LAYOUT, input_size=64, crop_scale=1.25, **more)


def batch_of(faces, count):
    crops = [faces[0, index] for index in range(count)]
    return torch.stack([c["image"] for c in crops]).permute(0, 3, 1, 2), torch.stack([c["points"] for c in crops])
