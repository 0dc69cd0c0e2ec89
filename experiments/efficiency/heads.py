"""What the head costs on the backbone: coordinates, PIP, heatmaps, decoding included.

    python experiments/efficiency/heads.py            # heads.json and its tables; 2 to 3 minutes
    python experiments/efficiency/heads.py --quick    # tries it out, keeps nothing
    python experiments/efficiency/heads.py --table    # the tables of the heads.json that is there

One ResNet-18 backbone of pipnet, 256 px, one crop, one thread, 98 points. Uint8 crop in, points out, in every head:

* ``coordinate``: mean over the cells, one linear layer to 2 N numbers;
* ``pip``: as pipnet ships it (:class:`pipnet.model.predictor.Predictor`), with offsets only where the score map peaks;
* ``pip_dense``: as in the paper, all maps at every cell, then decoding and merging;
* ``heatmap``: three deconvolutions of 256 channels to 64 x 64, N maps, the peak and a quarter pixel towards its higher
  neighbour (Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018).

Weights are random: stand-ins of the right shape (``heads_networks.py``), to be timed and not to be believed. The head's
share is what is asked, so all have the same backbone, with the scaling of pixels folded into its first convolution.
Runtimes: PyTorch as it is, ONNX Runtime and OpenVINO in 32 bits, and both in int8 (static quantisation, the same
settings for each head, the decoding in 32 bits; ONNX Runtime has no deconvolution in int8 and computes it in 32, so
its heatmaps gain little). Heads take turns, for many rounds; figures are medians over rounds, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipnet.benchmark.machine import describe, load_average
from pipnet.benchmark.timing import Timed, of_rounds, ratio, time_interleaved
from pipnet.files import replacing
from pipnet.inference.sessions import onnx_session

HERE = Path(__file__).resolve().parent
SIZE, POINTS, NEIGHBORS = 256, 98, 10
ROUNDS, QUICK_ROUNDS = 40, 2
BARS = {"pip_over_coordinate": 1.08, "heatmap_over_pip": 1.5}
HEADS = {
    "coordinate": "coordinates",
    "pip": "PIP, as pipnet ships it",
    "pip_dense": "PIP, all maps at every cell",
    "heatmap": "heatmap, 3 deconvolutions",
}
RUNTIMES = {
    "torch": "PyTorch eager",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "onnxruntime_int8": "ONNX Runtime, 8 bits",
    "openvino_int8": "OpenVINO, 8 bits",
}


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
    from heads_networks import build_heads, write_8_bits, write_graph

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


def heads_table(metrics: dict[str, Any]) -> str:
    """Times relative to coordinate regression on the same runtime, with quartiles of the rounds."""
    rows = ["| head | GFLOP | " + " | ".join(RUNTIMES.values()) + " |", "|---" * (2 + len(RUNTIMES)) + "|"]
    for name, title in HEADS.items():
        cells = [_spread(metrics["runtimes"][runtime]["over_coordinate"][name]) for runtime in RUNTIMES]
        if name == "coordinate":
            cells = ["1" for _ in RUNTIMES]
        rows.append(f"| {title} | {metrics['gflop'][name]:.2f} | " + " | ".join(cells) + " |")
    cells = [_spread(metrics["runtimes"][runtime]["heatmap_over_pip"]) for runtime in RUNTIMES]
    rows.append("| heatmap over PIP as shipped | | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def heads_milliseconds_table(metrics: dict[str, Any]) -> str:
    """Median milliseconds."""
    rows = ["| head, milliseconds | " + " | ".join(RUNTIMES.values()) + " |", "|---" * (1 + len(RUNTIMES)) + "|"]
    for name, title in HEADS.items():
        cells = [f"{metrics['runtimes'][runtime]['ms'][name]['median']:.1f}" for runtime in RUNTIMES]
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _spread(figures: dict[str, float]) -> str:
    return f"{figures['median']:.2f} ({figures['low']:.2f} … {figures['high']:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds, nothing is kept")
    parser.add_argument("--table", action="store_true", help="print the tables of the heads.json that is there")
    arguments = parser.parse_args()
    file = HERE / "heads.json"
    if arguments.table:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    else:
        metrics = measure(QUICK_ROUNDS if arguments.quick else ROUNDS)
        if not arguments.quick:
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(heads_table(metrics), heads_milliseconds_table(metrics), sep="\n\n")


if __name__ == "__main__":
    main()
