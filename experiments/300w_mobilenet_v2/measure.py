"""Measure the weights that ship: metrics.json, ced.png and box_noise.png.

python experiments/300w_mobilenet_v2/measure.py DATA_ROOT [CHECKPOINT]
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from experiments.record import write
from pipnet.data.datasets import read_dataset
from pipnet.evaluation.evaluate import box_noise_curve, evaluate
from pipnet.evaluation.report import write_report
from pipnet.inference.landmarker import SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.layouts import get_layout

HERE = Path(__file__).resolve().parent
# key: (reader, folder, layout, options of the reader, boxes)
SETS: dict[str, tuple[str, str, str, dict[str, str], str]] = {
    "validation": ("300w", "300W", "300w_68", {"part": "train", "validation": "only"}, "labels"),
    "common": ("300w", "300W", "300w_68", {"part": "common"}, "labels"),
    "common_detector": ("300w", "300W", "300w_68", {"part": "common"}, "detector"),
    "wflw": ("wflw", "WFLW", "wflw_98", {"part": "test"}, "labels"),
    "wflw_detector": ("wflw", "WFLW", "wflw_98", {"part": "test"}, "detector"),
}
NOISE_LEVELS = (0.0, 0.05, 0.1, 0.15, 0.2)


def measure(data_root: Path, weights: Path | None) -> dict[str, Any]:
    """Metrics of every set; the CED curve of Common-554 is kept, pictures of faces are not."""
    landmarker = FaceLandmarker.load(weights or SHIPPED_WEIGHTS, device="cpu")
    metrics = {}
    for key, (reader, folder, layout_name, options, boxes) in SETS.items():
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


def main(arguments: list[str]) -> None:
    """Command line."""
    metrics = measure(Path(arguments[0]), Path(arguments[1]) if len(arguments) > 1 else None)
    write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main(sys.argv[1:])
