"""The figures of the record from what the trainings kept: ``metrics.json`` and ``error_over_labels.png``.

    python experiments/infants/measure.py            # of the trainings that are there; says which are not

Needs neither photos nor checkpoints: ``runs/`` holds the error of every face.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.infants.train import COUNTS, HERE, RATES, ROWS, SEEDS, TRIED_COUNT, Run, all_runs, kept
from experiments.record import command_line, percent, read, write_with_missing
from pipnet.files import replacing
from pipnet.metrics import bootstrap, error_statistics, paired_bootstrap

SETS = {
    "infants": "infants/test",
    "apart": "97 of infants/test",
    "common": "Common-554",
    "inner": "its 51 inner points",
}
DRAWN = ("infants", "common")
STATISTICS = error_statistics((0.10,))


def errors(file: Path, of_set: str) -> np.ndarray:
    """NME of each face, ``(F,)`` fractions."""
    return np.array(read(file)["errors"][of_set]) / 100


def figures(files: list[Path], of_set: str, pairs: dict[str, tuple[list[Path], list[Path]]]) -> dict[str, Any]:
    """Percent, of each face's mean over seeds; and what lies between trainings and others on the same faces."""
    by_seed = np.stack([errors(file, of_set) for file in files])
    found = bootstrap(by_seed.mean(axis=0), STATISTICS)
    to = {}
    for name, pair in pairs.items():
        mine, theirs = (np.mean([errors(file, of_set) for file in part], axis=0) for part in pair)
        to[f"to_{name}"] = percent(paired_bootstrap(mine, theirs))
    return {
        "mean": percent(found["mean"]),
        "median": percent(found["median"]),
        "fr_10": percent(bootstrap((by_seed > 0.10).mean(axis=0), {"mean": STATISTICS["mean"]})["mean"]),
        "by_seed": [round(100 * float(seed.mean()), 4) for seed in by_seed],
        "to_shipped": None,
        "to_labels": None,
    } | to


def measure() -> dict[str, Any]:
    """All figures of the trainings that are there, plain types."""
    shipped = kept(Run("labels", 0)).with_name("shipped.json")
    rows: dict[str, Any] = {"shipped": {of_set: figures([shipped], of_set, {}) for of_set in SETS}}
    for count in COUNTS:
        by_row = {
            row: {seed: kept(run) for seed in SEEDS if kept(run := Run(row, count, seed)).is_file()} for row in ROWS
        }
        for row, by_seed in by_row.items():
            files = list(by_seed.values())
            if not files:
                continue
            pairs = {"shipped": (files, [shipped])}
            both = sorted(by_seed.keys() & by_row["labels"].keys()) if row != "labels" else []
            if both:  # the seeds that both have
                pairs["labels"] = ([by_seed[seed] for seed in both], [by_row["labels"][seed] for seed in both])
            about = {"seeds": len(files), "images": read(files[0])["images"]}
            about["unlabelled"] = [read(file)["unlabelled"] for file in files]
            rows[f"{row}_{count}"] = about | {of_set: figures(files, of_set, pairs) for of_set in SETS}
    tries = {rate: kept(Run("labels", TRIED_COUNT, rate=rate)) for rate in RATES}
    return {
        "unit": "percent, intervals of 95 % over faces",
        "tries": {str(rate): round(read(file)["others"], 4) for rate, file in tries.items() if file.is_file()},
        "rows": rows,
        "processors": sorted({read(kept(run))["processor"] for run in all_runs() if kept(run).is_file()}),
        "missing": [run.name for run in all_runs() if not kept(run).is_file()],
    }


def curve(axis: Axes, rows: dict[str, Any], of_set: str) -> None:
    """Error over the number of labelled faces, from the weights as they ship."""
    start = rows["shipped"][of_set]["mean"]
    for row, color in zip(ROWS, ("tab:blue", "tab:red", "tab:green"), strict=True):
        found = {count: rows[f"{row}_{count}"][of_set]["mean"] for count in COUNTS if f"{row}_{count}" in rows}
        points = {0: start} | found
        axis.plot(list(points), [of["value"] for of in points.values()], "o-", color=color, label=ROWS[row])
        low, high = ([of[end] for of in points.values()] for end in ("low", "high"))
        axis.fill_between(list(points), low, high, color=color, alpha=0.12)
    axis.set(title=SETS[of_set], xlabel="labelled infants", ylabel="NME, %", xticks=[0, *COUNTS])
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Command line."""
    command_line(__doc__).parse_args()
    metrics = measure()
    write_with_missing(HERE / "metrics.json", metrics)
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    axes = figure.subplots(1, len(DRAWN))
    for axis, of_set in zip(axes, DRAWN, strict=True):
        curve(axis, metrics["rows"], of_set)
    axes[0].legend(fontsize=8, frameon=False)
    with replacing(HERE / "error_over_labels.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)


if __name__ == "__main__":
    main()
