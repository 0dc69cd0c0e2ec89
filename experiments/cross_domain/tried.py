"""What was tried before the benchmark, on the stand-in of ``turned.py``: which parts of ours help, which don't.

    python experiments/cross_domain/turned.py DATA_ROOT runs/turned
    python experiments/cross_domain/tried.py --commands runs/turned        # prints the trainings; run them
    python experiments/cross_domain/tried.py runs runs/turned              # measures those that are there: tried.json
    python experiments/cross_domain/tried.py --table

RUNS holds ``turned_<variant>``, folders of ``python -m pipnet.self_train``. Neither test set of the benchmark takes
part.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipnet.atomic import replacing

HERE = Path(__file__).resolve().parent
FIRST = "labels"


def _ours(**changes: Any) -> str:
    """``curriculum.stages`` of ours with other values in its mixed stages."""
    values = {
        "start": "newest",
        "labelled_share": 0.7,
        "views": 4,
        "select": "{weighted: true}",
        "lr": 0.0005,
    } | changes
    keys = ", ".join(f"{key}: {value}" for key, value in values.items() if value is not None)
    mixed = [f"{{name: mixed, epochs: {epochs}, {keys}}}" for epochs in (24, 36)]
    return f"curriculum=ours 'curriculum.stages=[{{name: labels, epochs: 60, pseudo: false}}, {', '.join(mixed)}]'"


# variant: (what it is, arguments of the command); "ours but for" names what differs from ours
VARIANTS: dict[str, tuple[str, str]] = {
    FIRST: ("labelled only", "curriculum=labels"),
    "none_short": ("plain self-training", "curriculum=none_short"),
    "paper_short": ("the paper's STC", "curriculum=paper_short"),
    "ours": ("ours", "curriculum=ours"),
    "ours_unweighted": ("ours, but every pseudo-label counts fully", _ours(select=None)),
    "ours_half": ("ours, but 40 % of an epoch labelled instead of 70 %", _ours(labelled_share=0.4)),
}


def commands(folder: Path) -> str:
    """A line for each training."""
    start = f"python -m pipnet.self_train experiment=cross_domain_turned dataset.root={folder}"
    return "\n".join(f"{start} folder=runs/turned_{name} {how}" for name, (_, how) in VARIANTS.items())


def measure(runs: Path, folder: Path) -> dict[str, Any]:
    """Figures of the variants that are there, percent.

    Raises:
        FileNotFoundError: The yardstick, labelled only, is not there.
    """
    from pipnet.config import dataset_config, read_split
    from pipnet.inference.landmarker import FaceLandmarker
    from pipnet.layouts import get_layout
    from pipnet.metrics import bootstrap, mean_error, paired_bootstrap
    from pipnet.training.evaluation import evaluate

    dataset = dataset_config("own_csv", folder.parent) | {"root": folder, "layout": "300w_68"}
    samples, _ = read_split(dataset, "test")
    layout = get_layout("300w_68")
    found = {name: runs / f"turned_{name}" for name in VARIANTS if (runs / f"turned_{name}" / "best.pt").is_file()}
    if FIRST not in found:
        raise FileNotFoundError(f"{runs}/turned_{FIRST}/best.pt is not there; --commands prints how to make it")
    errors, rows = {}, {}
    for name, run in found.items():
        stages = json.loads((run / "stages.json").read_text(encoding="utf-8"))
        result = evaluate(FaceLandmarker.load(run / "best.pt", runtime="torch"), samples, layout=layout)
        errors[name] = result.errors("box")
        mean = bootstrap(errors[name], {"mean": mean_error})["mean"].scaled(100)
        difference = None
        if name != FIRST:
            change = paired_bootstrap(errors[name], errors[FIRST]).scaled(100)
            difference = [round(value, 3) for value in (change.value, change.low, change.high)]
        rows[name] = {
            "training_images": sum(stage["images"] for stage in stages),
            "validation": round(stages[-1]["val_nme_box"], 3),
            "target": [round(value, 3) for value in (mean.value, mean.low, mean.high)],
            "difference": difference,
        }
        print(name, rows[name], flush=True)
    return {"faces": len(samples), "seeds": 1, "unit": "NME by box size, percent", "rows": rows}


def tried_table(metrics: dict[str, Any]) -> str:
    """A line for each variant."""
    lines = [
        f"| one seed each | training images | validation | {metrics['faces']} turned faces | to labelled only |",
        "|---|---|---|---|---|",
    ]
    for name, row in metrics["rows"].items():
        mean = "{:.2f} ({:.2f} … {:.2f})".format(*row["target"])
        change = "" if row["difference"] is None else "{:+.2f}: {:+.2f} … {:+.2f}".format(*row["difference"])
        images = f"{row['training_images']:,}"
        lines.append(f"| {VARIANTS[name][0]} | {images} | {row['validation']:.2f} | {mean} | {change} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="RUNS FOLDER")
    parser.add_argument("--commands", type=Path, metavar="FOLDER", help="print the trainings, FOLDER being turned.py's")
    parser.add_argument("--table", action="store_true", help="only print the table of tried.json")
    parser.add_argument("--output", type=Path, default=HERE / "tried.json")
    options = parser.parse_args(arguments)
    if options.commands:
        print(commands(options.commands))
        return
    if not options.table:
        if len(options.paths) != 2:
            parser.error("RUNS and FOLDER are needed, or --commands, or --table")
        try:
            metrics = measure(*options.paths)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        with replacing(options.output) as temporary:
            temporary.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    print(tried_table(json.loads(options.output.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main(sys.argv[1:])
