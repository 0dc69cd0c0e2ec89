"""How the weights of 8-bit graphs are rounded and what they are calibrated on, and what it does to the points.

    python experiments/int8/rounding.py DATA_ROOT      # rounding.json; 10 minutes
    git show 8d03673:pipnet/weights/300w_mobilenet_v2_int8.onnx > before.onnx      # of 0.4.0
    python experiments/int8/rounding.py DATA_ROOT --before before.onnx       # only its time beside today's

The network that ships, made 8-bit in several ways with 100 training faces each, against its 32-bit graph on the 202
validation faces of DATA_ROOT/300W, in the boxes of the labels and in boxes that are off by up to a fifth: what was
chosen was chosen here. Run it on a CPU without VNNI; only there sums can overflow.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from experiments.record import command_line, processor, write

FILE = Path(__file__).with_suffix(".json")
CALIBRATION_FACES, LOOSE, OFF = 100, 0.3, 0.2
ROUNDS = 200
WAYS = ("nearest", "limited", "bias", "made_up", "shipped")
RUNTIMES = ("onnxruntime", "openvino")


@contextmanager
def made_otherwise(way: str) -> Iterator[None]:
    """Exports inside round their weights another way than pipnet's own."""
    from pipnet.model import quantization, rounding

    rounded = rounding.round_rows
    with ExitStack() as patches:
        if way == "nearest":
            patches.enter_context(mock.patch.object(quantization, "round_weights"))
        if way == "limited":
            patches.enter_context(mock.patch.object(rounding, "_statistics", return_value={}))
        if way in ("limited", "bias"):
            nearest = mock.patch.object(rounding, "round_rows", lambda rows, step, _: rounded(rows, step, None))
            patches.enter_context(nearest)
        yield


def measure(data_root: Path) -> dict[str, Any]:
    """Every way on both runtimes."""
    from pipnet.data.datasets import read_dataset
    from pipnet.data.images import read_image
    from pipnet.export.faces import calibration_crops, loosened
    from pipnet.geometry import crop_of_square, crop_squares
    from pipnet.inference.landmarker import SHIPPED_WEIGHTS
    from pipnet.inference.runtimes import OnnxRuntime, OpenVinoRuntime
    from pipnet.layouts import get_layout
    from pipnet.metrics import nme, norm_distances
    from pipnet.model import checkpoint
    from pipnet.model.onnx_graph import onnx_graph

    loaded = checkpoint.load(SHIPPED_WEIGHTS)
    size = loaded.net.input_size
    train, validation = (
        read_dataset("300w", root=data_root / "300W", layout=get_layout("300w_68"), part="train", validation=part)[0]
        for part in ("exclude", "only")
    )
    cut = {"crop_scale": loaded.crop_scale, "size": size, "count": CALIBRATION_FACES}
    faces = {loose: calibration_crops(train, loose=loose, **cut) for loose in (0.0, LOOSE)}
    rng = np.random.default_rng(0)
    squares = np.stack(
        [
            crop_squares(loosened(sample.box, off, rng), loaded.crop_scale)[0]
            for off in (0.0, OFF)
            for sample in validation
        ]
    )
    images = [read_image(sample.image) for sample in validation] * 2
    crops = [crop_of_square(square, size).warp(image) for square, image in zip(squares, images, strict=True)]
    true = np.concatenate([np.stack([sample.points for sample in validation])] * 2)
    eyes = norm_distances(true, loaded.layout)["outer_eye"]

    def errors(points_unit: np.ndarray) -> np.ndarray:
        found = squares[:, None, :2] + (points_unit - 0.5) * squares[:, None, 2:]
        return 100 * np.stack(np.split(nme(found, true, eyes), 2)).mean(axis=1)

    exact = _points(OnnxRuntime("32 bits", threads=1, content=onnx_graph(loaded)), crops)
    metrics: dict[str, Any] = {"faces": len(validation), "calibration_faces": CALIBRATION_FACES}
    metrics |= {"processor": processor(), "nme_fp32": errors(exact).tolist()}
    for way in WAYS:
        with made_otherwise(way):
            content = onnx_graph(loaded, calibration=faces[LOOSE if way == "shipped" else 0.0])
        metrics[way] = {}
        for kind in (OnnxRuntime, OpenVinoRuntime):
            points = _points(kind(way, threads=1, content=content), crops)
            moved = np.linalg.norm(points - exact, axis=-1).mean(axis=1) * size
            moved_px = np.stack(np.split(moved, 2)).mean(axis=1)
            metrics[way][kind.name] = {"nme": errors(points).tolist(), "moved_px": moved_px.tolist()}
        print(way, metrics[way], flush=True)
    return metrics


def time_both(data_root: Path, before: Path) -> dict[str, Any]:
    """Seconds of an earlier graph over those of the one that ships, in turn on the same crops, by runtime."""
    from pipnet.benchmark.timing import Timed, ratio, time_interleaved
    from pipnet.data.datasets import read_dataset
    from pipnet.export.faces import calibration_crops
    from pipnet.inference.landmarker import SHIPPED_GRAPH
    from pipnet.inference.runtimes import open_runtime
    from pipnet.layouts import get_layout

    samples, _ = read_dataset(
        "300w", root=data_root / "300W", layout=get_layout("300w_68"), part="train", validation="only"
    )
    times: dict[str, Any] = {"rounds": ROUNDS, "processor": processor()}
    for name in RUNTIMES:
        before_it, now = open_runtime(before, name, threads=1), open_runtime(SHIPPED_GRAPH, name, threads=1)
        crops = calibration_crops(samples, crop_scale=now.metadata["crop_scale"], size=now.input_size, count=50)
        turns = [itertools.cycle(crops[:, None]) for _ in range(2)]
        both = [
            Timed(of, lambda run=run, turn=turn: run(next(turn)))
            for of, run, turn in zip(("before", "now"), (before_it, now), turns, strict=True)
        ]
        seconds = time_interleaved(both, rounds=ROUNDS)
        times[name] = vars(ratio(seconds["before"], seconds["now"]))
    return times


def _points(runtime: Any, crops: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([runtime(crop[None])[0] for crop in crops])


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--before", type=Path, metavar="FILE", help="only time this graph against the one that ships")
    arguments = parser.parse_args()
    metrics = json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}
    if arguments.before is None:
        metrics |= measure(arguments.data_root)
    else:
        times = time_both(arguments.data_root, arguments.before)
        metrics.setdefault("times", {})[times["processor"]] = times
    write(FILE, metrics)


if __name__ == "__main__":
    main()
