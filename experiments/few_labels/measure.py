"""The figures of the record from what the trainings kept: ``metrics.json``.

    python experiments/few_labels/measure.py         # of the trainings that are there; says which are not

Needs neither photos nor checkpoints: ``runs/`` holds the error of every face.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from experiments.few_labels.rows import LADDER, PERCENTS, ROWS, SEEDS, VARIANTS, Run, all_runs
from experiments.few_labels.train import due, kept, plateau
from experiments.record import command_line, percent, read, write_with_missing
from pipnet.metrics import bootstrap, error_statistics, paired_bootstrap

HERE = Path(__file__).resolve().parent
SETS = ("validation", "common", "infants")
# Pairs whose difference is measured, as row and percent of the labels; the first three are the bars.
PAIRS = (
    (("stc", 10), ("labels", 10)),
    (("ours", 10), ("stc", 10)),
    (("ours", 10), ("labels", 20)),
    (("ours", 10), ("labels", 10)),
    (("stld", 10), ("labels", 10)),
    (("stld", 10), ("stc", 10)),
    (("ours", 10), ("stld", 10)),
    (("plain", 10), ("labels", 10)),
    (("labels_long", 10), ("labels", 10)),
    (("ours", 20), ("labels", 20)),
    (("ours", 5), ("labels", 5)),
)
STATISTICS = error_statistics((0.10,))


def errors(row: str, share: int, of_set: str) -> dict[int, np.ndarray]:
    """NME of each face, ``(F,)`` fractions, by seed."""
    runs = {seed: Run(row, share, seed) for seed in SEEDS}
    return {
        seed: np.array(read(kept(run))["errors"][of_set]) / 100 for seed, run in runs.items() if kept(run).is_file()
    }


def figures(by_seed: dict[int, np.ndarray]) -> dict[str, Any]:
    """Percent; of each face's mean over seeds, with intervals over faces."""
    stacked = np.stack(list(by_seed.values()))
    found = bootstrap(stacked.mean(axis=0), STATISTICS)
    return {
        "mean": percent(found["mean"]),
        "median": percent(found["median"]),
        "fr_10": percent(bootstrap((stacked > 0.10).mean(axis=0), {"mean": STATISTICS["mean"]})["mean"]),
        "without_largest": round(100 * float(np.sort(stacked.mean(axis=0))[:-1].mean()), 4),
        "by_seed": [round(100 * float(seed.mean()), 4) for seed in stacked],
    }


def difference(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> dict[str, Any] | None:
    """Of the seeds that both have: paired over faces, each seed alone, and by t over seeds where there are three."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    mine, theirs = (np.stack([of[seed] for seed in seeds]) for of in (one, other))
    apart = 100 * (mine - theirs).mean(axis=1)
    paired = percent(paired_bootstrap(mine.mean(axis=0), theirs.mean(axis=0)))
    return {
        "paired": paired,
        "relative": {key: round(100 * value / (100 * float(theirs.mean())), 2) for key, value in paired.items()},
        "by_seed": [round(float(value), 4) for value in apart],
        "t_half_width": round(2.48 * float(apart.std(ddof=1)), 4) if len(seeds) == 3 else None,
    }


def recipe(command: str, share: int, seed: int) -> str:
    """A training's command without seed and precision, which is the machine's: the same for all seeds of a row."""
    command = re.sub(r"fit\.precision=\w+ ", "", command)
    return re.sub(rf"(?<=_{share}_){seed}(?!\d)|(?<=seed=){seed}(?!\d)", "SEED", command)


def measure() -> dict[str, Any]:
    """All figures of the trainings that are there, plain types."""
    rows: dict[str, Any] = {}
    for share in PERCENTS:
        for name, row in ROWS.items():
            by_set = {of_set: errors(name, share, of_set) for of_set in SETS}
            if not by_set["common"]:
                continue
            seeds = sorted(by_set["common"])
            every = [read(kept(Run(name, share, seed))) for seed in seeds]
            recipes = {recipe(one["command"], share, seed) for seed, one in zip(seeds, every, strict=True)}
            if len(recipes) > 1:
                raise ValueError(f"the trainings of {name}_{share} were not made alike: {sorted(recipes)}")
            first = every[0]
            rows[f"{name}_{share}"] = {
                "title": row.title,
                "percent": share,
                "seeds": seeds,
                "images": first["images"],
                "command": first["command"],
                "processors": sorted({one["processor"] for one in every}),
                "unlabelled": [one["unlabelled"] for one in every],
                "sets": {of_set: figures(of) for of_set, of in by_set.items()},
            }
    ladder = {
        f"{share}": {
            str(rung): read(kept(run))["validation"]
            for rung in LADDER
            if kept(run := Run("labels", share, rung=rung)).is_file()
        }
        for share in (10, 20)
    }
    return {
        "unit": "percent, intervals of 95 % over faces",
        "ladder": ladder,
        "plateau": {"10": plateau(), "20": plateau(20)},
        "variants": {
            name: read(kept(Run(name, 10)))["validation"] for name in VARIANTS if kept(Run(name, 10)).is_file()
        },
        "rows": rows,
        "differences": {
            f"{one[0]}_{one[1]} - {other[0]}_{other[1]}": {
                of_set: difference(errors(*one, of_set), errors(*other, of_set)) for of_set in ("common", "infants")
            }
            for one, other in PAIRS
            if f"{one[0]}_{one[1]}" in rows and f"{other[0]}_{other[1]}" in rows
        },
        "missing": [run.name for run in all_runs() if due(run) and not kept(run).is_file()],
    }


def main() -> None:
    """Command line."""
    command_line(__doc__).parse_args()
    write_with_missing(HERE / "metrics.json", measure())


if __name__ == "__main__":
    main()
