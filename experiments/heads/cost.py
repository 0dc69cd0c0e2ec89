"""What each head costs: milliseconds a crop on every runtime and precision, GFLOP, and training images a second.

    python experiments/heads/cost.py            # cost.json; some 10 minutes
    python experiments/heads/cost.py --paper    # cost_paper.json: four heads on ResNet-18 at 256 px; some 8 minutes
    python experiments/heads/cost.py --quick    # one round, keeps nothing

The networks of ``heads.py``, with random weights: they are timed, not believed. 68 points, one crop, one
thread; uint8 crop in, points and scores out, decoding included, by the runtimes that :class:`FaceLandmarker` uses. All
take turns in one process; figures are medians over rounds, with quartiles. A training step is of 16 crops: forward,
loss, backward, optimiser; data are there already.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from torch.utils.flop_counter import FlopCounterMode

from experiments.heads.heads import BATCH, HEADS, Run
from experiments.record import command_line, write
from pipnet.benchmark.cases import sample_images
from pipnet.benchmark.machine import describe, load_average
from pipnet.benchmark.timing import Timed, of_rounds, ratio, time_interleaved
from pipnet.config import config_dir, plain
from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.inference.runtimes import open_runtime
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.network import LandmarkNet
from pipnet.model.networks import DEFAULT, network_class
from pipnet.model.onnx_graph import export_onnx
from pipnet.training.optimization import build_optimizer, freeze_backbone, train_mode
from pipnet.training.setup import called

HERE = Path(__file__).resolve().parent
ROUNDS, QUICK_ROUNDS = 30, 1
SIZE, PAPER_SIZE = 128, 256
PAPER_HEADS = ("pip", "alone", "l1", "baseline")
PAPER = ("model.backbone=resnet18", f"model.input_size={PAPER_SIZE}", "fit.frozen_blocks=0")
BASE = "l1"  # of the ratios
RUNTIMES = {  # title of a column: runtime, and which file
    "torch": ("torch", "pt"),
    "onnxruntime": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "onnx"),
    "onnxruntime_int8": ("onnxruntime", "int8.onnx"),
    "openvino_int8": ("openvino", "int8.onnx"),
}


def settings_of(head: str, more: Sequence[str]) -> dict[str, Any]:
    """The config of a head's training, with more arguments."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return plain(compose("train", [*Run(head).arguments(0.001), *more, "model.pretrained=false"]))


def network(settings: dict[str, Any], crops: np.ndarray) -> LandmarkNet:
    """With random weights; its batch norm has seen the crops, so that numbers stay of the size that they train with."""
    torch.manual_seed(0)
    arguments = dict(settings["model"])
    kind = network_class(arguments.pop("network", DEFAULT))
    net = kind(checkpoint.load(SHIPPED_WEIGHTS).net.arguments["mean_face"], **arguments)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        net.train()(net.normalize(torch.from_numpy(crops).permute(0, 3, 1, 2)))
    return net.eval()


def gflop(net: LandmarkNet) -> float:
    """Of one crop as it is trained; two for each multiply-accumulate."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        net.predict(torch.zeros(1, 3, net.input_size, net.input_size, dtype=torch.uint8))
    return round(counter.get_total_flops() / 1e9, 3)


def prediction(file: Path, runtime: str, crops: np.ndarray) -> Callable[[], object]:
    """A call with one crop on one thread."""
    opened = open_runtime(file, runtime, threads=1)
    return lambda: opened(crops[:1])


def training_step(net: LandmarkNet, settings: dict[str, Any]) -> Callable[[], object]:
    """A step of a training, on crops of noise."""
    crops = torch.randint(0, 256, (BATCH, 3, net.input_size, net.input_size), dtype=torch.uint8)
    targets = net.targets(torch.rand(BATCH, net.num_points, 2) * 0.8 + 0.1)
    freeze_backbone(net, settings["fit"]["frozen_blocks"])
    optimizer = called(build_optimizer, "optim", settings["optim"], net=net)
    loss = called(net.loss_class(), "loss", settings.get("loss") or {})

    def step() -> None:
        train_mode(net)
        optimizer.zero_grad()
        sum(loss(net(net.normalize(crops)), targets).values()).backward()
        optimizer.step()

    return step


def measure(heads: Sequence[str], size: int, more: Sequence[str], rounds: int) -> dict[str, Any]:
    """Heads on all runtimes."""
    busy, crops = load_average(), sample_images(8, size)
    torch.set_num_threads(1)
    work, calls = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for head in heads:
            settings = settings_of(head, more)
            net = network(settings, crops)
            work[head] = gflop(net)
            loaded = checkpoint.LoadedModel(net, get_layout("300w_68"), 1.25, {})
            files = {kind: Path(folder) / f"{head}.{kind}" for kind in ("pt", "onnx", "int8.onnx")}
            checkpoint.save(files["pt"], net, layout=loaded.layout, crop_scale=1.25, training={})
            export_onnx(loaded, files["onnx"])
            export_onnx(loaded, files["int8.onnx"], calibration=crops)
            for title, (runtime, kind) in RUNTIMES.items():
                calls[title, head] = prediction(files[kind], runtime, crops)
            calls["training", head] = training_step(network(settings, crops), settings)
            print(head, work[head], flush=True)
        timed = [Timed((title, head), calls[title, head]) for title in (*RUNTIMES, "training") for head in heads]
        seconds = time_interleaved(timed, rounds=rounds, block_seconds=0.05, min_calls=1)
    columns: dict[str, Any] = {}
    for title in (*RUNTIMES, "training"):
        times = {head: seconds[title, head] for head in heads}
        columns[title] = {
            head: {
                "ms": vars(of_rounds(values).scaled(1000)),
                "times_l1": vars(ratio(values, times[BASE])),
            }
            for head, values in times.items()
        }
    return {
        "size": size,
        "more_arguments": list(more),
        "threads": 1,
        "rounds": rounds,
        "batch_of_training": BATCH,
        "machine": describe(),
        "load_average": busy,
        "gflop": work,
        "columns": columns,
    }


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--paper", action="store_true", help="four heads on ResNet-18 at 256 px, as in the paper")
    parser.add_argument("--quick", action="store_true", help="one round, nothing is kept")
    options = parser.parse_args()
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if options.paper:
        metrics = measure(PAPER_HEADS, PAPER_SIZE, PAPER, rounds)
    else:
        metrics = measure(tuple(HEADS), SIZE, (), rounds)
    if options.quick:
        for title, of in metrics["columns"].items():
            print(title, {head: round(figures["ms"]["median"], 2) for head, figures in of.items()})
    else:
        write(HERE / ("cost_paper.json" if options.paper else "cost.json"), metrics)


if __name__ == "__main__":
    main()
