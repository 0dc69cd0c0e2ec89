"""The benchmark: labelled only, plain self-training, the paper's STC and ours, three seeds each, on both test sets.

    python experiments/cross_domain/measure.py RUNS DATA_ROOT              # metrics.json and the tables of README.md
    python experiments/cross_domain/measure.py RUNS DATA_ROOT --partial    # with the trainings that are there
    python experiments/cross_domain/measure.py RUNS DATA_ROOT --pair 300w_cofw68    # another pair, metrics_<pair>.json
    python experiments/cross_domain/measure.py --table                     # only the tables, from metrics.json

RUNS holds ``cross_domain_<pair>_<curriculum>_<seed>``, folders of ``python -m pipnet.self_train``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.atomic import replacing

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1, 2)  # at least these; further ones that are there take part
ROWS = {  # curriculum: what the tables say
    "labels": "labelled only",
    "none": "plain self-training",
    "paper": "the paper's STC",
    "ours": "ours",
}
FIRST = "labels"
COMPARED = {"first": (FIRST, tuple(ROWS)), "stc": ("paper", ("ours",))}  # difference to whom, and whose
_NORM_TITLES = {"outer_eye": "outer eyes", "box": "box size", "label_box": "published box"}
_STATISTIC_TITLES = {"mean": "NME", "median": "median", "fr_10": "FR@10", "auc_10": "AUC@10"}


def command(pair: str, row: str, seed: int) -> str:
    """What makes a run."""
    return f"python -m pipnet.self_train experiment=cross_domain_{pair} curriculum={row} seed={seed}"


def find_runs(runs: Path, pair: str, *, partial: bool) -> dict[str, dict[int, Path]]:
    """Row, then seed, to the folder of a finished run.

    Raises:
        FileNotFoundError: A run is missing and ``partial`` is off, or there is none at all; the message names the
            command that makes it.
    """
    found: dict[str, dict[int, Path]] = {}
    for row in ROWS:
        name = re.compile(rf"cross_domain_{pair}_{row}_(\d+)")
        folders = sorted(runs.glob(f"cross_domain_{pair}_{row}_*")) if runs.is_dir() else []
        matches = [(match, folder) for folder in folders if (match := name.fullmatch(folder.name))]
        found[row] = {int(match[1]): folder for match, folder in matches if (folder / "best.pt").is_file()}
    seeds = sorted({*SEEDS, *(seed for folders in found.values() for seed in folders)})
    missing = [(row, seed) for row in ROWS for seed in seeds if seed not in found[row]]
    if missing and (not partial or not any(found.values())):
        row, seed = missing[0]
        folder = runs / f"cross_domain_{pair}_{row}_{seed}"
        more = f"{len(missing) - 1} more are missing; " if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"no finished run {folder}; make it with: {command(pair, row, seed)} folder={folder} "
            f"({more}--partial leaves such runs out)"
        )
    return {row: dict(sorted(folders.items())) for row, folders in found.items() if folders}


def training_images(folder: Path) -> int:
    """Images that all stages of a run trained on, each as often as it was seen.

    Raises:
        ValueError: The run's ``stages.json`` is missing or says nothing about it.
    """
    path = folder / "stages.json"
    try:
        return sum(int(stage["images"]) for stage in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not say how many images each stage saw ({error!r}); run it again") from error


def measure(runs: Path, data_root: Path, pair_name: str, *, partial: bool) -> dict[str, Any]:
    """All figures as plain types, percent; no error of a single face is kept."""
    from figures import INTERVAL
    from pairs import errors_of, pair_named, read_faces, remembered

    from pipnet.inference.detect import RetinaFace

    pair = pair_named(pair_name)
    found = find_runs(runs, pair_name, partial=partial)
    images = {row: [training_images(folder) for folder in folders.values()] for row, folders in found.items()}
    sets = {key: read_faces(getattr(pair, key), data_root) for key in ("source", "target")}
    detector = remembered(RetinaFace)
    errors: dict[str, list[dict[str, dict[str, np.ndarray]]]] = {}
    for row, folders in found.items():
        errors[row] = [errors_of(folder / "best.pt", sets, detector) for folder in folders.values()]
        print(row, f"seeds {', '.join(map(str, folders))}", flush=True)
    return {
        "unit": "percent; differences in points, relative in percent of the other row's figure",
        "interval": INTERVAL,
        "pair": pair_name,
        "labelled": pair.labelled,
        "rows": {
            row: {
                "seeds": list(folders),
                "training_images": images[row],
                "commands": [command(pair_name, row, seed) for seed in folders],
            }
            for row, folders in found.items()
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
    lines = ["| set, norm | | " + " | ".join(_STATISTIC_TITLES.values()) + " |", "|---" * 6 + "|"]
    for title, rows in _whole_sets(metrics):
        for row, figures in rows.items():
            cells = [_cell(figures[name]) for name in _STATISTIC_TITLES]
            lines.append(f"| {title} | {_row_title(metrics, row)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def difference_table(metrics: dict[str, Any]) -> str:
    """Paired differences in points, and the relative change of the NME."""
    heads = [*_STATISTIC_TITLES.values(), "NME, relative"]
    lines = ["| set, norm | | " + " | ".join(heads) + " |", "|---" * (len(heads) + 2) + "|"]
    for title, rows in _whole_sets(metrics):
        for name, (base, _) in COMPARED.items():
            for row, figures in rows.items():
                if f"to_{name}" in figures:
                    change = figures[f"to_{name}"]
                    cells = [_change(change[statistic]) for statistic in _STATISTIC_TITLES]
                    cells.append(_change(change["mean"]["relative"], " %"))
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
                change = f" ({_change(figures['to_first']['mean'])})" if "to_first" in figures else ""
                cells.append(f"{figures['mean']['value']:.2f}{change}" if change else _cell(figures["mean"]))
            lines.append(f"| {subset} | {table['faces']} | {_NORM_TITLES[norm]} | " + " | ".join(cells) + " |")
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


TABLES = (main_table, difference_table, attribute_table, seed_table)


def _whole_sets(metrics: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Title and rows of each set and norm."""
    return [
        (f"{faces['title']}, by {_NORM_TITLES[norm]}", table["rows"])
        for faces in metrics["sets"].values()
        for norm, table in faces["figures"]["all"].items()
    ]


def _row_title(metrics: dict[str, Any], row: str) -> str:
    """With the number of seeds where there are fewer than another row has."""
    counts = {name: len(about["seeds"]) for name, about in metrics["rows"].items()}
    most = max([len(SEEDS), *counts.values()])
    return ROWS[row] + ("" if counts[row] == most else f" ({counts[row]} of {most} seeds)")


def _cell(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} … {figure['high']:.2f})"


def _change(figure: dict[str, Any], unit: str = "") -> str:
    if figure["value"] is None:
        return "–"
    if figure["low"] is None:
        return f"{figure['value']:+.2f}{unit}"
    return f"{figure['value']:+.2f}{unit}: {figure['low']:+.2f} … {figure['high']:+.2f}"


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="?", type=Path, metavar="RUNS")
    parser.add_argument("data_root", nargs="?", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--pair", default="300w_wflw")
    parser.add_argument("--partial", action="store_true", help="leave out trainings that are missing, and say so")
    parser.add_argument("--output", type=Path, help="file of the figures; default: metrics.json beside the script")
    parser.add_argument("--table", action="store_true", help="only print the tables of that file")
    options = parser.parse_args(arguments)
    standard = "metrics.json" if options.pair == "300w_wflw" else f"metrics_{options.pair}.json"
    target = options.output or HERE / standard
    if not options.table:
        if options.data_root is None:
            parser.error("RUNS and DATA_ROOT are needed, or --table")
        try:
            metrics = measure(options.runs, options.data_root, options.pair, partial=options.partial)
        except (OSError, ValueError) as error:
            sys.exit(f"error: {error}")
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(metrics, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    metrics = json.loads(target.read_text(encoding="utf-8"))
    print("\n\n".join(table(metrics) for table in TABLES))


if __name__ == "__main__":
    main(sys.argv[1:])
