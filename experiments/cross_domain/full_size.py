"""Two checkpoints side by side: round 0, the weights that shipped before, and what self-training made of them.

    python experiments/cross_domain/full_size.py BEFORE.pt AFTER.pt DATA_ROOT    # full_size.json and its tables
    python experiments/cross_domain/full_size.py --table                         # only the tables, from full_size.json

``--pair`` as in ``measure.py``. One training each, so nothing says how far another seed would lie.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import NORM_TITLES, STATISTIC_TITLES, cell, change_cell
from readme import write_tables

from pipnet.files import replacing

HERE = Path(__file__).resolve().parent
ROWS = {"before": "round 0", "after": "ours"}


def measure(checkpoints: dict[str, Path], data_root: Path, pair_name: str) -> dict[str, Any]:
    """All figures as plain types, percent; no error of a single face is kept.

    Args:
        checkpoints: ``before`` and ``after``.
        data_root: Holds the pair's two sets.
        pair_name: A pair of ``pairs.py``.
    """
    import numpy as np
    from figures import INTERVAL, difference, figures
    from pairs import errors_of, pair_named, read_faces, remembered

    from pipnet.inference.detectors import RetinaFace

    pair = pair_named(pair_name)
    sets = {key: read_faces(getattr(pair, key), data_root) for key in ("source", "target")}
    detector = remembered(RetinaFace)
    errors = {row: errors_of(path, sets, detector) for row, path in checkpoints.items()}
    metrics: dict[str, Any] = {
        "unit": "percent; differences in points, relative in percent of round 0",
        "interval": INTERVAL,
        "pair": pair_name,
        "sha256": {row: hashlib.sha256(path.read_bytes()).hexdigest() for row, path in checkpoints.items()},
        "sets": {},
    }
    for key, faces in sets.items():
        tables: dict[str, Any] = {}
        for subset, chosen in faces.subsets().items():
            for norm in errors["before"][key]:
                before, after = (errors[row][key][norm][chosen] for row in ROWS)
                measurable = ~np.isnan(before + after)
                if measurable.any():
                    before, after = before[None, measurable], after[None, measurable]
                    tables.setdefault(subset, {})[norm] = {
                        "faces": int(measurable.sum()),
                        "missed": int(np.isinf(before).sum()),
                        "before": figures(before),
                        "after": figures(after),
                        "change": difference(after, before),
                    }
        metrics["sets"][key] = {"title": faces.title, "boxes": faces.about.boxes, "figures": tables}
    return metrics


def full_size_table(metrics: dict[str, Any]) -> str:
    """Both checkpoints on both sets, the difference, and the relative change."""
    heads = [*ROWS.values(), "difference", "relative"]
    lines = ["| set, norm | | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    for faces in metrics["sets"].values():
        for norm, table in faces["figures"]["all"].items():
            for name, title in STATISTIC_TITLES.items():
                change = table["change"][name]
                cells = [cell(table["before"][name]), cell(table["after"][name])]
                cells += [change_cell(change), change_cell(change["relative"], " %")]
                lines.append(f"| {faces['title']}, by {NORM_TITLES[norm]} | {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def full_size_parts_table(metrics: dict[str, Any]) -> str:
    """NME on the parts of both sets."""
    heads = ["faces", "norm", *ROWS.values(), "difference", "relative"]
    lines = ["| part | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for faces in metrics["sets"].values():
        for subset, norms in faces["figures"].items():
            for norm, table in norms.items() if subset != "all" else ():
                change = table["change"]["mean"]
                cells = [str(table["faces"]), NORM_TITLES[norm], cell(table["before"]["mean"])]
                cells += [cell(table["after"]["mean"]), change_cell(change), change_cell(change["relative"], " %")]
                lines.append(f"| {faces['title']}, {subset} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


TABLES = {"full_size": full_size_table, "full_size parts": full_size_parts_table}


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path, metavar="BEFORE.pt")
    parser.add_argument("after", nargs="?", type=Path, metavar="AFTER.pt")
    parser.add_argument("data_root", nargs="?", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--pair", default="300w_wflw")
    parser.add_argument(
        "--output", type=Path, help="file of the figures; default: full_size.json beside the script, or full_size_PAIR"
    )
    parser.add_argument("--table", action="store_true", help="only print the tables of that file")
    options = parser.parse_args(arguments)
    standard = "full_size.json" if options.pair == "300w_wflw" else f"full_size_{options.pair}.json"
    target = options.output or HERE / standard
    if not options.table:
        if options.data_root is None:
            parser.error("BEFORE.pt, AFTER.pt and DATA_ROOT are needed, or --table")
        try:
            metrics = measure({"before": options.before, "after": options.after}, options.data_root, options.pair)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    metrics = json.loads(target.read_text(encoding="utf-8"))
    tables = {name: table(metrics) for name, table in TABLES.items()}
    if not options.table and target.name == "full_size.json":
        write_tables(target.parent / "README.md", tables)
    print("\n\n".join(tables.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
