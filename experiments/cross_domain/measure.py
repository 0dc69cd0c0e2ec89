"""The benchmark: labelled only, plain self-training, the paper's STC and ours, three seeds each, on both test sets.

    python experiments/cross_domain/measure.py RUNS DATA_ROOT              # metrics.json and the tables of README.md
    python experiments/cross_domain/measure.py RUNS DATA_ROOT --partial    # with the trainings that are there
    python experiments/cross_domain/measure.py RUNS DATA_ROOT --pair 300w_cofw68    # another pair, metrics_<pair>.json
    python experiments/cross_domain/measure.py --table                     # only the tables, from metrics.json

RUNS holds ``cross_domain_<pair>_<curriculum>_<seed>``, folders of ``python -m pipnet.self_train``. A run is measured
once, and anew when its weights are others: its errors are kept in ``errors/``, which stands in for runs that RUNS does
not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import NORM_TITLES, STATISTIC_TITLES, cell, change_cell
from readme import write_tables
from runs import SEEDS, command, find_runs

from pipnet.files import replacing

HERE = Path(__file__).resolve().parent
FIRST, STC, OURS = "labels", "paper_short", "ours"
ROWS = {FIRST: "labelled only", "none_short": "plain self-training", STC: "the paper's STC", OURS: "ours"}
COMPARED = {"first": (FIRST, tuple(ROWS)), "stc": (STC, (OURS,))}  # difference to whom, and whose


def measure(runs: Path | None, data_root: Path, pair_name: str, *, partial: bool, kept: Path) -> dict[str, Any]:
    """All figures as plain types, percent.

    Args:
        runs: Folder of the trainings; None takes those that were measured before.
        data_root: Of the test sets.
        pair_name: Of ``pairs.PAIRS``.
        partial: Leave out trainings that are missing.
        kept: Folder of the errors of each training; those that are not there, or of other weights, are measured.
    """
    from figures import INTERVAL
    from pairs import errors_of, pair_named, read_faces, remembered

    from pipnet.inference.detectors import RetinaFace

    pair = pair_named(pair_name)
    found = find_runs(runs, pair_name, ROWS, partial=partial, kept=kept)
    sets = {key: read_faces(getattr(pair, key), data_root) for key in ("source", "target")}
    detector = remembered(RetinaFace)
    images: dict[str, list[int]] = {}
    errors: dict[str, list[dict[str, dict[str, np.ndarray]]]] = {}
    for row, seeds in found.items():
        for seed, run in seeds.items():
            if not run.is_measured:
                run.keep(command(pair_name, row, seed), errors_of(run.folder / "best.pt", sets, detector))
                print(row, f"seed {seed}", flush=True)
            seen, read = run.read()
            images.setdefault(row, []).append(seen)
            errors.setdefault(row, []).append(read)
    return {
        "unit": "percent; differences in points, relative in percent of the other row's figure",
        "interval": INTERVAL,
        "pair": pair_name,
        "labelled": pair.labelled,
        "rows": {
            row: {
                "seeds": list(seeds),
                "training_images": images[row],
                "commands": [command(pair_name, row, seed) for seed in seeds],
            }
            for row, seeds in found.items()
        },
        "missing": [name for name in ROWS if name not in found],
        "sets": {
            key: {
                "title": faces.title,
                "boxes": faces.about.boxes,
                "figures": {
                    subset: compare({row: [run[key] for run in mine] for row, mine in errors.items()}, chosen)
                    for subset, chosen in (faces.subsets() if key == "target" else {"all": slice(None)}).items()
                },
            }
            for key, faces in sets.items()
        },
    }


def compare(errors: dict[str, list[dict[str, np.ndarray]]], chosen: np.ndarray | slice) -> dict[str, Any]:
    """Figures of all rows on some faces, and their differences.

    Args:
        errors: Row to one entry a seed, norm to ``(F,)``.
        chosen: Which of the faces.

    Returns:
        Norm to ``faces``, ``missed`` and ``rows``: row to the statistics and the differences of :data:`COMPARED`.
    """
    from figures import difference, figures

    tables = {}
    for norm in next(iter(errors.values()))[0]:
        stacked = {row: np.stack([seed[norm][chosen] for seed in seeds]) for row, seeds in errors.items()}
        measurable = ~np.isnan(np.concatenate(list(stacked.values()))).any(axis=0)
        stacked = {row: values[:, measurable] for row, values in stacked.items()}
        if not measurable.any():
            continue
        rows: dict[str, Any] = {row: figures(values) for row, values in stacked.items()}
        for name, (base, whose) in COMPARED.items():
            for row in whose:
                if row in rows and base in rows and row != base:
                    rows[row][f"to_{name}"] = difference(stacked[row], stacked[base])
        missed = int(np.isinf(next(iter(stacked.values()))[0]).sum())
        tables[norm] = {"faces": int(measurable.sum()), "missed": missed, "rows": rows}
    return tables


def main_table(metrics: dict[str, Any]) -> str:
    """Every row on both sets, by both norms, with intervals."""
    lines = ["| set, norm | | " + " | ".join(STATISTIC_TITLES.values()) + " |", "|---" * 6 + "|"]
    for title, rows in _whole_sets(metrics):
        for row, figures in rows.items():
            cells = [cell(figures[name]) for name in STATISTIC_TITLES]
            lines.append(f"| {title} | {_row_title(metrics, row)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference_table(metrics: dict[str, Any]) -> str:
    """Paired differences in points, and the relative change of the NME."""
    heads = [*STATISTIC_TITLES.values(), "NME, relative"]
    lines = ["| set, norm | | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    for title, rows in _whole_sets(metrics):
        for name, (base, _) in COMPARED.items():
            for row, figures in rows.items():
                if f"to_{name}" in figures:
                    change = figures[f"to_{name}"]
                    cells = [change_cell(change[statistic]) for statistic in STATISTIC_TITLES]
                    cells.append(change_cell(change["mean"]["relative"], " %"))
                    lines.append(f"| {title} | {ROWS[row]} − {ROWS[base]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def attribute_table(metrics: dict[str, Any]) -> str:
    """NME on the parts of the target set; behind the first row the difference to it."""
    target = metrics["sets"]["target"]
    rows = list(metrics["rows"])
    titles = [_row_title(metrics, row) for row in rows]
    lines = [f"| {target['title']} | faces | norm | " + " | ".join(titles) + " |", "|---" * (len(rows) + 3) + "|"]
    for subset, norms in target["figures"].items():
        for norm, table in norms.items():
            cells = []
            for row in rows:
                figures = table["rows"][row]
                change = f" ({change_cell(figures['to_first']['mean'])})" if "to_first" in figures else ""
                cells.append(f"{figures['mean']['value']:.2f}{change}" if change else cell(figures["mean"]))
            lines.append(f"| {subset} | {table['faces']} | {NORM_TITLES[norm]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def seed_table(metrics: dict[str, Any]) -> str:
    """Training images of each row, and NME by box size of its single seeds."""
    titles = [f"{faces['title']}, by box size" for faces in metrics["sets"].values()]
    lines = ["| | seeds | training images a seed | " + " | ".join(titles) + " |", "|---" * 5 + "|"]
    for row, about in metrics["rows"].items():
        images = " / ".join(f"{count:,}" for count in dict.fromkeys(about["training_images"]))
        cells = [", ".join(map(str, about["seeds"])), images]
        for faces in metrics["sets"].values():
            single = faces["figures"]["all"]["box"]["rows"][row]["mean"]["seeds"]
            cells.append(" / ".join(f"{value:.2f}" for value in single))
        lines.append(f"| {ROWS[row]} | " + " | ".join(cells) + " |")
    lines += [f"| {ROWS[row]} | none: not measured | | | |" for row in metrics["missing"]]
    return "\n".join(lines)


TABLES = {"main": main_table, "differences": difference_table, "parts": attribute_table, "seeds": seed_table}


def _whole_sets(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Title and rows of each set and norm."""
    return [
        (f"{faces['title']}, by {NORM_TITLES[norm]}", table["rows"])
        for faces in metrics["sets"].values()
        for norm, table in faces["figures"]["all"].items()
    ]


def _row_title(metrics: dict[str, Any], row: str) -> str:
    """With the number of seeds where there are fewer than another row has."""
    counts = {name: len(about["seeds"]) for name, about in metrics["rows"].items()}
    most = max([len(SEEDS), *counts.values()])
    return ROWS[row] + ("" if counts[row] == most else f" ({counts[row]} of {most} seeds)")


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path, metavar="RUNS")
    parser.add_argument("data_root", nargs="?", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--pair", default="300w_wflw")
    parser.add_argument("--partial", action="store_true", help="leave out trainings that are missing, and say so")
    parser.add_argument(
        "--output", type=Path, help="file of the figures; default: metrics.json beside the script, or metrics_PAIR"
    )
    parser.add_argument("--table", action="store_true", help="only print the tables of that file")
    options = parser.parse_args(arguments)
    standard = "metrics.json" if options.pair == "300w_wflw" else f"metrics_{options.pair}.json"
    target = options.output or HERE / standard
    if not options.table:
        if options.data_root is None:
            parser.error("RUNS and DATA_ROOT are needed, or --table")
        try:
            metrics = measure(
                options.runs, options.data_root, options.pair, partial=options.partial, kept=target.parent / "errors"
            )
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    metrics = json.loads(target.read_text(encoding="utf-8"))
    tables = {f"{metrics['pair']} {name}": table(metrics) for name, table in TABLES.items()}
    if not options.table and target.name == standard:
        write_tables(target.parent / "README.md", tables)
    print("\n\n".join(tables.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
