"""Make the file that ships from the best checkpoint: 16-bit weights, and a record without folders of the machine.

python experiments/300w_mobilenet_v2/ship.py runs/300w_mobilenet_v2/best.pt
"""

from __future__ import annotations

import sys
from pathlib import Path

from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.model import checkpoint


def main(path: Path) -> None:
    """Write :data:`SHIPPED_WEIGHTS`."""
    best = checkpoint.load(path)
    config = best.training["config"]
    config |= {
        "folder": f"runs/{config['name']}",
        "init_from": f"runs/{config['name']}_192/best.pt",
        "data_root": "data",
    }
    config["dataset"]["root"] = "data/300W"
    checkpoint.save(
        SHIPPED_WEIGHTS, best.net, layout=best.layout, box_scale=best.box_scale, training=best.training, half=True
    )
    print(f"{SHIPPED_WEIGHTS.name}: {SHIPPED_WEIGHTS.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
