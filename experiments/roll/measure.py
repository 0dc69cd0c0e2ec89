"""Points on heads that are tilted: faces turned by hand from 0 to 180 degrees, and infants, who lie as they like.

    python experiments/roll/measure.py DATA_ROOT [--set validation]

DATA_ROOT holds ``300W/`` and ``infants/``. Writes ``metrics.json`` and ``roll.png`` beside this file. Takes
about half an hour on one core. ``--set validation`` turns the 202
validation faces instead of Common-554, writes ``validation.json`` and reads no test face: there the settings were
chosen.

A photo is turned about its middle, with cubic interpolation, onto a canvas that holds all of it; the corners are black.
The network is the checkpoint that ships, in 32 bits, on ONNX Runtime.
"""

from __future__ import annotations

import csv
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.detector_boxes.fit import turned_photo
from experiments.record import command_line, write
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.data.readers_text import read_pts
from pipnet.data.sample import Sample
from pipnet.evaluation.evaluate import Evaluation, evaluate
from pipnet.files import replacing
from pipnet.inference.landmarker import SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.layouts import get_layout
from pipnet.metrics import bootstrap, error_statistics

HERE = Path(__file__).resolve().parent
LAYOUT = get_layout("300w_68")
INNER = range(17, 68)
ANGLES = range(0, 181, 15)
SETS = {"common": {"part": "common"}, "validation": {"part": "train", "validation": "only"}}
ATTRIBUTES = ("turned", "occluded", "expressive", "tilted")


class UprightOnly:
    """A landmarker that looks once and takes every face for upright, as pipnet did before 0.5."""

    def __init__(self, landmarker: FaceLandmarker) -> None:
        self.layout, self._landmarker = landmarker.layout, landmarker

    def predict_batch(self, images: Any, boxes: Any, batch_size: int = 32) -> Any:
        return self._landmarker.predict_batch(images, boxes, batch_size, angles=0.0)


def turned_sample(sample: Sample, degrees: float) -> Sample:
    """A photo turned clockwise about its middle, with its points."""
    image, points = turned_photo(read_image(sample.image), sample.points, degrees)
    return Sample(image, points, sample.name, sample.subsets)


def infants(root: Path) -> list[Sample]:
    """The test part; subsets are what the attributes say."""
    with (root / "attributes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Sample(
            root / f"{row['stem']}.jpg",
            read_pts(root / f"{row['stem']}.pts", LAYOUT.num_points) - 1.0,
            row["stem"],
            tuple(name if row[name] == "1" else f"not {name}" for name in ATTRIBUTES),
        )
        for row in rows
    ]


def figures(result: Evaluation, chosen: np.ndarray | None = None) -> dict[str, Any]:
    """Percent: NME by outer eyes and by box (of the faces found), and FR@10 with the missed ones in it."""
    chosen = np.ones(len(result), dtype=bool) if chosen is None else chosen
    found = chosen & ~result.missed
    eyes = result.errors()
    if not found.any():
        return {"faces": int(chosen.sum()), "missed": int(chosen.sum())}
    statistics = bootstrap(eyes[found], {"mean": error_statistics()["mean"]})
    interval = statistics["mean"].scaled(100)
    return {
        "faces": int(chosen.sum()),
        "missed": int((chosen & result.missed).sum()),
        "nme": round(interval.value, 3),
        "interval": [round(interval.low, 3), round(interval.high, 3)],
        "median": round(100 * float(np.median(eyes[found])), 3),
        "fr_10": round(100 * float((eyes[chosen] > 0.10).mean()), 2),
        "inner": round(100 * float(result.errors(points=INNER)[found].mean()), 3),
        "inner_fr_10": round(100 * float((result.errors(points=INNER)[chosen] > 0.10).mean()), 2),
        "by_box": round(100 * float(result.errors("box")[found].mean()), 3),
        "face_score": round(float(np.median(result.scores[found])), 3),
    }


def measure_turned(landmarker: FaceLandmarker, samples: list[Sample]) -> dict[str, dict[str, Any]]:
    """Angle to way of looking to figures."""
    by_angle = {}
    for degrees in ANGLES:
        seen = [turned_sample(sample, degrees) for sample in samples]
        by_angle[str(degrees)] = {
            "labels": figures(evaluate(landmarker, seen, layout=LAYOUT)),
            "detector": figures(evaluate(landmarker, seen, layout=LAYOUT, boxes="detector")),
            "upright_only": figures(evaluate(UprightOnly(landmarker), seen, layout=LAYOUT)),
        }
        print(degrees, {kind: (f.get("nme"), f.get("fr_10")) for kind, f in by_angle[str(degrees)].items()}, flush=True)
    return by_angle


def measure_infants(landmarker: FaceLandmarker, root: Path) -> dict[str, Any]:
    """Way of looking to part to figures."""
    samples = infants(root)
    ways = {
        "labels": evaluate(landmarker, samples, layout=LAYOUT),
        "detector": evaluate(landmarker, samples, layout=LAYOUT, boxes="detector"),
        "upright_only": evaluate(UprightOnly(landmarker), samples, layout=LAYOUT),
    }
    parts = ["all", *(f"{no}{name}" for name in ATTRIBUTES for no in ("", "not "))]
    return {
        way: {part: figures(result, None if part == "all" else result.in_subset(part)) for part in parts}
        for way, result in ways.items()
    }


def draw(metrics: dict[str, Any], path: Path) -> None:
    """NME of 51 points over the angle; a figure above 12 % leaves the picture."""
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.subplots()
    angles = [int(angle) for angle in metrics["turned"]]
    for way, label, style in (
        ("labels", "pipnet, label boxes", "o-"),
        ("detector", "pipnet, its detector's boxes", "s-"),
        ("upright_only", "one upright look (pipnet 0.4)", "^--"),
    ):
        axes.plot(angles, [metrics["turned"][str(a)][way]["inner"] for a in angles], style, label=label, markersize=4)
    given = json.loads((HERE / "given.json").read_text(encoding="utf-8"))["nme_and_fr_10"]
    for name, steps in given.items():
        axes.plot([*map(int, steps)], [nme for nme, _ in steps.values()], "x:", label=f"{name} (given, 62 faces)")
    axes.set(xlabel="head turned in the picture, degrees", ylabel="NME of 51 points, % of the outer eyes")
    axes.set(ylim=(0, 12), xlim=(-3, 183), xticks=list(ANGLES)[::2])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--set", choices=SETS, default="common")
    options = parser.parse_args()
    landmarker = FaceLandmarker.load(SHIPPED_WEIGHTS, runtime="onnxruntime", threads=1)
    samples, _ = read_dataset("300w", root=options.data_root / "300W", layout=LAYOUT, **SETS[options.set])
    metrics = {"set": options.set, "machine": platform.machine(), "turned": measure_turned(landmarker, samples)}
    if options.set == "common":
        metrics["infants"] = measure_infants(landmarker, options.data_root / "infants" / "test")
        draw(metrics, HERE / "roll.png")
    write(HERE / ("metrics.json" if options.set == "common" else "validation.json"), metrics)


if __name__ == "__main__":
    main()
