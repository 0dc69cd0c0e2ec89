"""Two checkpoints side by side: round 0, the weights that shipped before, and what self-training made of them.

    python experiments/cross_domain_full/measure.py BEFORE.pt AFTER.pt DATA_ROOT    # metrics.json

One training each, so nothing says how far another seed would lie.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cross_domain.figures import INTERVAL, difference, figures, over_photos
from experiments.cross_domain.pairs import PAIRS, errors_of, read_faces, remembered
from experiments.record import command_line, write
from pipnet.inference.detectors import RetinaFace

HERE = Path(__file__).resolve().parent
PAIR = "300w_wflw"


def measure(checkpoints: dict[str, Path], data_root: Path) -> dict[str, Any]:
    """All figures as plain types, percent, of ``before`` and ``after``; no error of a single face is kept."""
    pair = PAIRS[PAIR]
    sets = {key: read_faces(getattr(pair, key), data_root) for key in ("source", "target")}
    errors = {row: errors_of(path, sets, remembered(RetinaFace)) for row, path in checkpoints.items()}
    metrics: dict[str, Any] = {
        "unit": "percent; differences in points, relative in percent of round 0",
        "interval": INTERVAL,
        "pair": PAIR,
        "sha256": {row: hashlib.sha256(path.read_bytes()).hexdigest() for row, path in checkpoints.items()},
        "sets": {},
    }
    for key, faces in sets.items():
        tables: dict[str, Any] = {}
        for subset, chosen in faces.subsets().items():
            for norm in errors["before"][key]:
                before, after = (errors[row][key][norm][chosen][None] for row in ("before", "after"))
                change = difference(after, before)
                change["mean"]["by_photo"] = over_photos(after, before, faces.photos[chosen])
                tables.setdefault(subset, {})[norm] = {
                    "faces": before.size,
                    "missed": int(np.isinf(before).sum()),
                    "before": figures(before),
                    "after": figures(after),
                    "change": change,
                }
        metrics["sets"][key] = {"title": faces.title, "boxes": faces.about.boxes, "figures": tables}
    return metrics


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("before", type=Path, metavar="BEFORE.pt")
    parser.add_argument("after", type=Path, metavar="AFTER.pt")
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--output", type=Path, default=HERE / "metrics.json")
    options = parser.parse_args(arguments)
    try:
        metrics = measure({"before": options.before, "after": options.after}, options.data_root)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    write(options.output, metrics)


if __name__ == "__main__":
    main(sys.argv[1:])
