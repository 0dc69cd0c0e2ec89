"""Make the files that ship from the best checkpoint.

    python experiments/300w_mobilenet_v2/ship.py runs/300w_mobilenet_v2/best.pt DATA_ROOT

Calibrates the scores on the validation faces of DATA_ROOT/300W (one minute), stores the weights in 16 bits, leaves
folders of the machine out of the record, and writes the same network twice: as a checkpoint of PyTorch and as a graph
for ONNX Runtime (needs the extra `export`).
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipnet.data.readers import read_dataset
from pipnet.data.transforms import Augment
from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS
from pipnet.model import checkpoint
from pipnet.model.graph import export_onnx
from pipnet.training.calibration import calibrate


def main(path: Path, data_root: Path) -> None:
    """Write :data:`SHIPPED_WEIGHTS` and :data:`SHIPPED_GRAPH`."""
    best = checkpoint.load(path)
    config = best.training["config"]
    config |= {
        "folder": f"runs/{config['name']}",
        "init_from": f"runs/{config['name']}_192/best.pt",
        "data_root": "data",
    }
    config["dataset"]["root"] = "data/300W"
    # The weights that ship are the 16-bit ones, so these are calibrated and exported.
    _save(best)
    shipped = checkpoint.load(SHIPPED_WEIGHTS)
    samples, _ = read_dataset("300w", root=data_root / "300W", layout=shipped.layout, part="train", validation="only")
    augment = Augment(**config["transform"])
    shipped.net.calibrate(calibrate(shipped.net, samples, shipped.layout, box_scale=shipped.box_scale, augment=augment))
    _save(shipped)
    export_onnx(shipped, SHIPPED_GRAPH, half=True)
    for file in (SHIPPED_WEIGHTS, SHIPPED_GRAPH):
        print(f"{file.name}: {file.stat().st_size / 1e6:.1f} MB")


def _save(model: checkpoint.LoadedModel) -> None:
    checkpoint.save(
        SHIPPED_WEIGHTS, model.net, layout=model.layout, box_scale=model.box_scale, training=model.training, half=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
