"""Make the checkpoint that ships from the best one.

    python experiments/300w_mobilenet_v2/ship.py runs/cross_domain_300w_wflw_full_2/best.pt DATA_ROOT
    python -m pipnet.export shipped --precision int8 --data-root DATA_ROOT --output pipnet/weights

Calibrates the scores on the validation faces of DATA_ROOT/300W (one minute), stores the weights in 16 bits, and leaves
folders of the machine out of the record. The second command, once the card is written, makes the graph of it that runs
on CPUs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pipnet.data.datasets import read_dataset
from pipnet.data.transforms import Augment
from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.model import checkpoint
from pipnet.training.calibration import calibrate


def main(path: Path, data_root: Path) -> None:
    """Write :data:`SHIPPED_WEIGHTS`."""
    best = checkpoint.load(path)
    _without_folders(best.training, data_root)
    config = best.training["config"]
    # The weights that ship are the 16-bit ones, so these are calibrated.
    _save(best)
    shipped = checkpoint.load(SHIPPED_WEIGHTS)
    samples, _ = read_dataset("300w", root=data_root / "300W", layout=shipped.layout, part="train", validation="only")
    augment = Augment(**config["transform"])
    shipped.net.calibrate(
        calibrate(shipped.net, samples, shipped.layout, crop_scale=shipped.crop_scale, augment=augment)
    )
    _save(shipped)
    print(f"{SHIPPED_WEIGHTS.name}: {SHIPPED_WEIGHTS.stat().st_size / 1e6:.1f} MB")


def _without_folders(training: dict[str, Any], data_root: Path) -> None:
    """Paths as a checkout has them: ``data`` for DATA_ROOT, ``runs`` for what trainings leave."""
    config, root = training["config"], data_root.resolve()
    config |= {
        "folder": f"runs/{config['name']}",
        "teacher": f"runs/{config['name'].removesuffix('_2')}/best.pt",
        "data_root": "data",
    }
    config["dataset"]["root"] = "data/300W"
    sources = training["unlabelled"]["sources"]
    sources[:] = [Path("data", Path(source).resolve().relative_to(root)).as_posix() for source in sources]


def _save(model: checkpoint.LoadedModel) -> None:
    checkpoint.save(
        SHIPPED_WEIGHTS, model.net, layout=model.layout, crop_scale=model.crop_scale, training=model.training, half=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
