"""The benchmark: labelled only, plain self-training, STC (shortened) and ours, three seeds each, on both test sets.

    python experiments/cross_domain/measure.py RUNS DATA_ROOT              # metrics.json
    python experiments/cross_domain/measure.py RUNS DATA_ROOT --partial    # with the trainings that are there
    python experiments/cross_domain/measure.py RUNS DATA_ROOT --pair 300w_cofw68    # another pair, metrics_<pair>.json

RUNS holds ``cross_domain_<pair>_<curriculum>_<seed>``, folders of ``python -m pipnet.self_train``. A run is measured
once, and anew when its weights are others: its errors are kept in ``errors/``, which stands in for runs that RUNS does
not hold.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cross_domain.figures import INTERVAL, difference, figures, over_photos
from experiments.cross_domain.pairs import errors_of, pair_named, read_faces, remembered
from experiments.cross_domain.runs import command, find_runs
from experiments.record import command_line, write
from pipnet.inference.detectors import RetinaFace

HERE = Path(__file__).resolve().parent
FIRST, STC, OURS = "labels", "paper_short", "ours"
ROWS = (FIRST, "none_short", STC, OURS)
COMPARED = {"first": (FIRST, ROWS), "stc": (STC, (OURS,))}  # difference to whom, and whose


def measure(runs: Path | None, data_root: Path, pair_name: str, *, partial: bool, kept: Path) -> dict[str, Any]:
    """All figures as plain types, percent.

    Args:
        runs: Folder of the trainings; None takes those that were measured before.
        data_root: Of the test sets.
        pair_name: Of ``pairs.PAIRS``.
        partial: Leave out trainings that are missing.
        kept: Folder of the errors of each training; those that are not there, or of other weights, are measured.
    """
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
                    subset: compare(
                        {row: [run[key] for run in mine] for row, mine in errors.items()}, chosen, faces.photos
                    )
                    for subset, chosen in (faces.subsets() if key == "target" else {"all": slice(None)}).items()
                },
            }
            for key, faces in sets.items()
        },
    }


def compare(
    errors: dict[str, list[dict[str, np.ndarray]]], chosen: np.ndarray | slice, photos: np.ndarray
) -> dict[str, Any]:
    """Figures of all rows on some faces, and their differences; of means also with intervals over photos.

    Args:
        errors: Row to one entry a seed, norm to ``(F,)``.
        chosen: Which of the faces.
        photos: ``(F,)`` ids of the photos of all faces.

    Returns:
        Norm to ``faces``, ``missed`` and ``rows``: row to the statistics and the differences of :data:`COMPARED`.
    """
    tables = {}
    for norm in next(iter(errors.values()))[0]:
        if any(norm not in seed for seeds in errors.values() for seed in seeds):
            continue  # a run of before it was measured
        stacked = {row: np.stack([seed[norm][chosen] for seed in seeds]) for row, seeds in errors.items()}
        measurable = ~np.isnan(np.concatenate(list(stacked.values()))).any(axis=0)
        stacked = {row: values[:, measurable] for row, values in stacked.items()}
        if not measurable.any():
            continue
        ids = photos[chosen][measurable]
        rows: dict[str, Any] = {row: figures(values) for row, values in stacked.items()}
        for name, (base, whose) in COMPARED.items():
            for row in whose:
                if row in rows and base in rows and row != base:
                    to = difference(stacked[row], stacked[base])
                    to["mean"]["by_photo"] = over_photos(stacked[row], stacked[base], ids)
                    rows[row][f"to_{name}"] = to
        missed = int(np.isinf(next(iter(stacked.values()))[0]).sum())
        tables[norm] = {"faces": int(measurable.sum()), "missed": missed, "rows": rows}
    return tables


def main(arguments: Sequence[str]) -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--pair", default="300w_wflw")
    parser.add_argument("--partial", action="store_true", help="leave out trainings that are missing, and say so")
    parser.add_argument(
        "--output", type=Path, help="file of the figures; default: metrics.json beside the script, or metrics_PAIR"
    )
    options = parser.parse_args(arguments)
    standard = "metrics.json" if options.pair == "300w_wflw" else f"metrics_{options.pair}.json"
    target = options.output or HERE / standard
    try:
        metrics = measure(
            options.runs, options.data_root, options.pair, partial=options.partial, kept=target.parent / "errors"
        )
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    write(target, metrics)


if __name__ == "__main__":
    main(sys.argv[1:])
