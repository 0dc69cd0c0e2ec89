"""The figures of the record from what the trainings kept: ``metrics.json`` and the pictures.

    python experiments/heads/measure.py                  # of the trainings that are there; says which are not

Needs neither photos nor checkpoints: ``runs/`` holds the error and the score of every face.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.heads.heads import AGAIN, FEW_LABELS, FRACTIONS, HEADS, LONG, LONGER, RATES, SEEDS, Run, all_runs
from experiments.heads.train import kept
from experiments.record import command_line, percent, read, write_with_missing
from pipnet.metrics import bootstrap, error_statistics, paired_bootstrap

HERE = Path(__file__).resolve().parent
SETS = ("validation", "common", "wflw", "infants")
BASE = "pip"  # of the differences
STATISTICS = error_statistics((0.10,))


def errors(run: Run, of_set: str) -> np.ndarray:
    """NME of each face, ``(F,)`` fractions."""
    return np.array(read(kept(run))["errors"][of_set]) / 100


def seeds_of(head: str) -> list[Run]:
    """The trainings of a head that are there."""
    return [run for run in (Run(head, seed) for seed in SEEDS) if kept(run).is_file()]


def figures(head: str, of_set: str) -> dict[str, Any]:
    """Percent, of each face's mean over seeds; ``to_pip`` is the difference to PIP on the same faces and seeds."""
    runs = seeds_of(head)
    by_seed = np.stack([errors(run, of_set) for run in runs])
    mine = by_seed.mean(axis=0)
    found = bootstrap(mine, STATISTICS)
    of_head: dict[str, Any] = {name: percent(found[name]) for name in ("mean", "median")} | {
        "by_seed": [round(100 * float(seed.mean()), 4) for seed in by_seed],
    }
    of_head["fr_10"] = mean_of((by_seed > 0.10).mean(axis=0))
    base = [run for run in seeds_of(BASE) if run.seed in {mine.seed for mine in runs}]
    if head != BASE and base:
        theirs = np.mean([errors(run, of_set) for run in base], axis=0)
        of_head["to_pip"] = percent(paired_bootstrap(mine, theirs))
    return of_head


def mean_of(values: np.ndarray) -> dict[str, float]:
    """Mean over faces with its interval, percent."""
    return percent(bootstrap(values, {"mean": STATISTICS["mean"]})["mean"])


def of_one(run: Run, base: Run, of_set: str) -> dict[str, Any]:
    """Mean of one training, and its difference to another on the same faces."""
    mine = errors(run, of_set)
    apart = None if run == base else percent(paired_bootstrap(mine, errors(base, of_set)))
    return {"mean": mean_of(mine), "to_pip": apart}


def risk_coverage(run: Run, of_set: str) -> list[float]:
    """NME, percent, of the best-scored tenth of the faces, two tenths and so on.

    Coordinates have scores that tell faces apart where they look at the mirror image too.
    """
    content = read(kept(run))
    content = content.get("flips") or content
    values = np.array(content["errors"][of_set])[np.argsort(-np.array(content["face_scores"][of_set]), kind="stable")]
    return [round(float(values[: round(len(values) * share / 10)].mean()), 4) for share in range(1, 11)]


def measure() -> dict[str, Any]:
    """All figures of the trainings that are there, plain types."""
    heads: dict[str, Any] = {}
    for name, head in HEADS.items():
        runs = seeds_of(name)
        if not runs:
            continue
        first = read(kept(runs[0]))
        flipped = first.get("flips", {}).get("errors", {})
        tries = [Run(name, rate=rate) for rate in RATES] if head.tuned else []
        heads[name] = {
            "title": head.title,
            "seeds": [run.seed for run in runs],
            "command": first["command"],
            "learning_rate": first["learning_rate"],
            "tries": {str(run.rate): read(kept(run))["validation"] for run in tries if kept(run).is_file()},
            "images": first["images"],
            "parameters": first["parameters"],
            "processors": sorted({read(kept(run))["processor"] for run in runs}),
            "sets": {of_set: figures(name, of_set) for of_set in SETS},
            "box_noise": first["box_noise"],
            "decoders": first["decoders"],
            "flips": {of_set: mean_of(np.array(values) / 100) for of_set, values in flipped.items()},
            "int8": {"mean": mean_of(np.array(first["int8"]["common"]) / 100)},
            "risk_coverage": {of_set: risk_coverage(runs[0], of_set) for of_set in ("common", "wflw", "infants")},
        }
    few = {
        name: {
            str(percent): {
                "mean": mean_of(errors(run, "common")),
                "faces": read(kept(run))["faces"],
                "images": read(kept(run))["images"],
            }
            for percent in (*FRACTIONS, 100)
            if kept(run := Run(name, percent=percent)).is_file()
        }
        for name in FEW_LABELS
    }
    long = {
        name: {
            length: {"images": read(kept(run))["images"]} | {of_set: of_one(run, base, of_set) for of_set in SETS}
            for length, run, base in (
                ("before", Run(name), Run(BASE)),
                ("after", Run(name, times=LONGER), Run(BASE, times=LONGER)),
            )
        }
        for name in LONG
        if kept(Run(name, times=LONGER)).is_file() and kept(Run(BASE, times=LONGER)).is_file()
    }
    return {
        "unit": "percent, intervals of 95 % over faces",
        "faces": {of_set: len(errors(seeds_of(BASE)[0], of_set)) for of_set in SETS} if BASE in heads else {},
        "heads": heads,
        "few_labels": few,
        "few_labels_again": {AGAIN.name: mean_of(errors(AGAIN, "common"))} if kept(AGAIN).is_file() else {},
        "long": long,
        "missing": [run.name for run in all_runs() if not kept(run).is_file()],
    }


def main() -> None:
    """Command line."""
    command_line(__doc__).parse_args()
    write_with_missing(HERE / "metrics.json", measure())


if __name__ == "__main__":
    main()
