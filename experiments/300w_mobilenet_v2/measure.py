"""Measure the weights that ship: write metrics.json and ced.png, print the tables of README.md.

python experiments/300w_mobilenet_v2/measure.py DATA_ROOT [CHECKPOINT]
python experiments/300w_mobilenet_v2/measure.py --table
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from pipnet.data.datasets import read_dataset
from pipnet.evaluation.evaluate import box_noise_curve, evaluate
from pipnet.evaluation.report import write_report
from pipnet.files import replacing
from pipnet.inference.landmarker import SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.layouts import get_layout

HERE = Path(__file__).resolve().parent
# key: (reader, folder, layout, options of the reader, boxes, heading)
SETS: dict[str, tuple[str, str, str, dict[str, str], str, str]] = {
    "validation": ("300w", "300W", "300w_68", {"part": "train", "validation": "only"}, "labels", "validation-202"),
    "common": ("300w", "300W", "300w_68", {"part": "common"}, "labels", "Common-554"),
    "common_detector": ("300w", "300W", "300w_68", {"part": "common"}, "detector", "Common-554, detector boxes"),
    "wflw": ("wflw", "WFLW", "wflw_98", {"part": "test"}, "labels", "WFLW-108"),
    "wflw_detector": ("wflw", "WFLW", "wflw_98", {"part": "test"}, "detector", "WFLW-108, detector boxes"),
}
NOISE_LEVELS = (0.0, 0.05, 0.1, 0.15, 0.2)


def measure(data_root: Path, weights: Path | None) -> dict[str, Any]:
    """Metrics of every set; the CED curve of Common-554 is kept, pictures of faces are not."""
    landmarker = FaceLandmarker.load(weights or SHIPPED_WEIGHTS, device="cpu")
    metrics = {}
    for key, (reader, folder, layout_name, options, boxes, _) in SETS.items():
        layout = get_layout(layout_name)
        samples, _ = read_dataset(reader, root=data_root / folder, layout=layout, **options)
        result = evaluate(landmarker, samples, layout=layout, boxes=boxes, crop_space=key == "common")
        noise = box_noise_curve(landmarker, samples, layout=layout, levels=NOISE_LEVELS) if key == "common" else ()
        with tempfile.TemporaryDirectory() as report:
            metrics[key] = write_report(result, report, noise=noise)
            if key == "common":
                for picture in ("ced.png", "box_noise.png"):
                    shutil.copy(Path(report) / picture, HERE / picture)
        print(key, metrics[key]["all"]["outer_eye"]["mean"], flush=True)
    return metrics


def main_table(metrics: dict[str, Any]) -> str:
    """NME by the outer eyes, percent, with the interval of the mean."""
    heads = ("mean", "median", "FR@8", "FR@10", "AUC@8", "AUC@10", "mean, 51 inner points", "missed")
    lines = ["| faces | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for key, (*_, title) in SETS.items():
        eyes, inner = metrics[key]["all"]["outer_eye"], metrics[key]["all"]["inner"]
        cells = [_cell(eyes["mean"])]
        cells += [f"{eyes[name]['value']:.2f}" for name in ("median", "fr_8", "fr_10", "auc_8", "auc_10")]
        lines.append(f"| {title} | " + " | ".join([*cells, _cell(inner["mean"]), str(metrics[key]["missed"])]) + " |")
    return "\n".join(lines)


def box_table(metrics: dict[str, Any]) -> str:
    """The same normalised by box size, which a profile face does not inflate."""
    heads = ("mean", "median", "FR@7", "FR@10", "AUC@7", "AUC@10")
    lines = ["| faces, by box size | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for key, (*_, title) in SETS.items():
        box = metrics[key]["all"]["box"]
        cells = [_cell(box["mean"])]
        cells += [f"{box[name]['value']:.2f}" for name in ("median", "fr_7", "fr_10", "auc_7", "auc_10")]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def subset_table(metrics: dict[str, Any]) -> str:
    """Parts of the sets, and facial parts."""
    lines = ["| part | faces | NME | by box size |", "|---|---|---|---|"]
    for key in ("common", "wflw"):
        for name, subset in metrics[key]["subsets"].items():
            if name != "common":
                cells = [_cell(subset[norm]["mean"]) for norm in ("outer_eye", "box")]
                lines.append(f"| {SETS[key][-1]}, {name} | {subset['box']['faces']} | " + " | ".join(cells) + " |")
        for name, part in metrics[key]["parts"].items():
            cells = [_cell(part[norm]) for norm in ("outer_eye", "box")]
            lines.append(f"| {SETS[key][-1]}: {name} | {metrics[key]['faces']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def noise_table(metrics: dict[str, Any]) -> str:
    """NME over box noise: moved by up to so much of the box side along x and y, and grown or shrunk by as much."""
    lines = ["| box noise | NME | FR@10 |", "|---|---|---|"]
    for level in metrics["common"]["box_noise"]:
        lines.append(f"| ±{100 * level['level']:g} % | {_cell(level['mean'])} | {level['fr_10']['value']:.2f} |")
    return "\n".join(lines)


def peers_table(metrics: dict[str, Any]) -> str:
    """Other detectors on the same faces, from peers.json, and this one below."""
    peers = json.loads((HERE / "peers.json").read_text(encoding="utf-8"))["rows"]
    ours: dict[str, Any] = {"name": "**pipnet**"}
    for key in ("common", "wflw"):
        eyes, inner = metrics[key]["all"]["outer_eye"], metrics[key]["all"]["inner"]
        ours[key] = {name: eyes[name]["value"] for name in ("median", "fr_10", "auc_10")}
        ours[key] |= {"nme": eyes["mean"]["value"], "inner": inner["mean"]["value"]}
    columns = [
        ("common", "nme", "Common NME"),
        ("common", "inner", "51 inner points"),
        ("wflw", "nme", "WFLW-108 NME"),
        ("wflw", "median", "median"),
        ("wflw", "fr_10", "FR@10"),
        ("wflw", "auc_10", "AUC@10"),
        ("wflw", "inner", "51 inner points"),
    ]
    lines = ["| | " + " | ".join(heading for *_, heading in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in [*peers, ours]:
        cells = []
        for key, name, _ in columns:
            value, missed = row[key].get(name), row[key].get("missed")
            cells.append("–" if value is None else f"{value:.2f}" + (f" ({missed} missed)" if missed else ""))
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


TABLES = (main_table, box_table, subset_table, noise_table, peers_table)


def _cell(interval: dict[str, float]) -> str:
    return f"{interval['value']:.2f} ({interval['low']:.2f} … {interval['high']:.2f})"


def main(arguments: list[str]) -> None:
    """Command line."""
    target = HERE / "metrics.json"
    if arguments != ["--table"]:
        weights = Path(arguments[1]) if len(arguments) > 1 else None
        metrics = measure(Path(arguments[0]), weights)
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    metrics = json.loads(target.read_text(encoding="utf-8"))
    print("\n\n".join(table(metrics) for table in TABLES))


if __name__ == "__main__":
    main(sys.argv[1:])
