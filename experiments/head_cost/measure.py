"""What the head costs on the backbone: coordinates, PIP, heatmaps, decoding included.

    python experiments/head_cost/measure.py            # metrics.json; 2 to 3 minutes
    python experiments/head_cost/measure.py --quick    # tries it out, keeps nothing

One ResNet-18 backbone of pipnet, 256 px, one crop, one thread, 98 points. Uint8 crop in, points out, in every head:

* ``coordinate``: mean over the cells, one linear layer to 2 N numbers;
* ``pip``: as pipnet ships it (:class:`pipnet.model.predictor.Predictor`), with offsets only where the score map peaks;
* ``pip_dense``: as in the paper, all maps at every cell, then decoding and merging;
* ``heatmap``: three deconvolutions of 256 channels to 64 x 64, N maps, the peak and a quarter pixel towards its higher
  neighbour (Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018).

Weights are random: stand-ins of the right shape (``networks.py``), to be timed and not to be believed. The head's
share is what is asked, so all have the same backbone, with the scaling of pixels folded into its first convolution.
Runtimes: PyTorch as it is, ONNX Runtime and OpenVINO in 32 bits, and both in int8 (static quantisation, the same
settings for each head, the decoding in 32 bits; ONNX Runtime has no deconvolution in int8 and computes it in 32, so
its heatmaps gain little). Heads take turns, for many rounds; figures are medians over rounds, with quartiles.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.record import command_line, write
from pipnet.benchmark.machine import describe, load_average
from pipnet.benchmark.timing import Timed, of_rounds, ratio, time_interleaved
from pipnet.inference.sessions import onnx_session

HERE = Path(__file__).resolve().parent
SIZE, POINTS, NEIGHBORS = 256, 98, 10
ROUNDS, QUICK_ROUNDS = 40, 2
BARS = {"pip_over_coordinate": 1.08, "heatmap_over_pip": 1.5}
HEADS = ("coordinate", "pip", "pip_dense", "heatmap")
RUNTIMES = ("torch", "onnxruntime", "openvino", "onnxruntime_int8", "openvino_int8")


def gflop(head: nn.Module, crops: Tensor) -> float:
    """Of one crop; two for each multiply-accumulate."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        head(crops)
    return counter.get_total_flops() / 1e9


def on_torch(head: nn.Module, crops: Tensor) -> Callable[[], object]:
    """A call of PyTorch as it is."""

    def call() -> object:
        with torch.inference_mode():
            return head(crops)

    return call


def on_onnxruntime(graph: Path, crops: np.ndarray) -> Callable[[], object]:
    """A call of ONNX Runtime."""
    session = onnx_session(graph, 1)
    return lambda: session.run(None, {"crops": crops})


def on_openvino(graph: Path, crops: np.ndarray) -> Callable[[], object]:
    """A call of OpenVINO; its own choice of precision would be 16 bits where the processor has them."""
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(str(graph), "CPU", settings).create_infer_request()
    return lambda: request.infer([crops], share_inputs=True, share_outputs=True)


def measure(rounds: int) -> dict[str, Any]:
    """All heads on all runtimes."""
    from experiments.head_cost.networks import build_heads, write_8_bits, write_graph

    busy = load_average()
    torch.set_num_threads(1)
    crops = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    one, tensor = crops[:1], torch.from_numpy(crops[:1])
    work: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[tuple[str, str], Callable[[], object]] = {}
        for name, head in build_heads(points=POINTS, neighbors=NEIGHBORS, size=SIZE).items():
            work[name] = gflop(head, tensor)
            graph, small = Path(folder) / f"{name}.onnx", Path(folder) / f"{name}_int8.onnx"
            write_graph(head, tensor, graph)
            write_8_bits(graph, crops, small)
            calls["torch", name] = on_torch(head, tensor)
            calls["onnxruntime", name] = on_onnxruntime(graph, one)
            calls["openvino", name] = on_openvino(graph, one)
            calls["onnxruntime_int8", name] = on_onnxruntime(small, one)
            calls["openvino_int8", name] = on_openvino(small, one)
        timed = [Timed((runtime, name), calls[runtime, name]) for runtime in RUNTIMES for name in HEADS]
        seconds = time_interleaved(timed, rounds=rounds, block_seconds=0.0)
    runtimes = {}
    for runtime in RUNTIMES:
        times = {name: seconds[runtime, name] for name in HEADS}
        runtimes[runtime] = {
            "ms": {name: vars(of_rounds(times[name]).scaled(1000)) for name in HEADS},
            "over_coordinate": {name: vars(ratio(times[name], times["coordinate"])) for name in HEADS},
            "heatmap_over_pip": vars(ratio(times["heatmap"], times["pip"])),
        }
    return {
        "backbone": "resnet18",
        "input_size": SIZE,
        "points": POINTS,
        "neighbors": NEIGHBORS,
        "batch": 1,
        "threads": 1,
        "rounds": rounds,
        "bars": BARS,
        "machine": describe(),
        "load_average": busy,
        "gflop": work,
        "runtimes": runtimes,
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds, nothing is kept")
    quick = parser.parse_args().quick
    metrics = measure(QUICK_ROUNDS if quick else ROUNDS)
    if not quick:
        write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main()
