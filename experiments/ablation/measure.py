"""Measure the ablation's checkpoints: metrics.json.

python experiments/ablation/measure.py RUNS DATA_ROOT     # RUNS holds ablation_<variant>_<seed>/best.pt
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cross_domain.pairs import remembered
from experiments.record import write
from pipnet.data.datasets import read_dataset
from pipnet.evaluation.evaluate import evaluate
from pipnet.inference.detectors import RetinaFace
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import get_layout
from pipnet.metrics import bootstrap, error_statistics, mean_error, paired_bootstrap
from pipnet.model import checkpoint
from pipnet.model.pipnet import PIPNet

HERE = Path(__file__).resolve().parent
SEEDS = (0, 1, 2)
# variant: (run whose checkpoint is measured, merge to measure it with or None for its own)
VARIANTS: dict[str, tuple[str, str | None]] = {
    "modern": ("modern", None),  # the yardstick
    "no_neighbors": ("no_neighbors", None),
    "unmerged": ("modern", "none"),
    "padded": ("modern", "padded"),
    "paper": ("paper", None),
    "stride_16": ("stride_16", None),
    "label_boxes": ("label_boxes", None),
}
# column: (set, part options, how boxes are made, norm)
COLUMNS: dict[str, tuple[str, dict[str, str], str, str]] = {
    "validation": ("300w", {"part": "train", "validation": "only"}, "labels", "outer_eye"),
    "common": ("300w", {"part": "common"}, "labels", "outer_eye"),
    "common_jittered": ("300w", {"part": "common"}, "jittered", "outer_eye"),
    "common_detector": ("300w", {"part": "common"}, "detector", "outer_eye"),
    "wflw": ("wflw", {"part": "test", "box": "points"}, "labels", "box"),
}


def with_merge(loaded: checkpoint.LoadedModel, merge: str | None) -> checkpoint.LoadedModel:
    """The same weights, merged in another way."""
    if merge is None:
        return loaded
    net = PIPNet(**{**loaded.net.arguments, "merge": merge}).eval()
    net.load_state_dict(loaded.net.state_dict())
    return checkpoint.LoadedModel(net, loaded.layout, loaded.crop_scale, loaded.training)


def measure(runs: Path, data_root: Path) -> dict[str, Any]:
    """Errors of every variant, seed and column; percent."""
    detector = remembered(RetinaFace)
    errors: dict[str, dict[str, list[np.ndarray]]] = {}
    for variant, (run, merge) in VARIANTS.items():
        errors[variant] = {column: [] for column in COLUMNS}
        for seed in SEEDS:
            loaded = with_merge(checkpoint.load(runs / f"ablation_{run}_{seed}" / "best.pt"), merge)
            landmarker = FaceLandmarker.from_model(loaded, detector=detector)
            for column, (name, options, boxes, norm) in COLUMNS.items():
                layout = get_layout("300w_68" if name == "300w" else "wflw_98")
                samples, _ = read_dataset(name, root=data_root / name.upper(), layout=layout, **options)
                result = evaluate(landmarker, samples, layout=layout, boxes=boxes, shift=0.1, scale=0.1)
                errors[variant][column].append(result.errors(norm))
            print(
                variant, seed, *(f"{c} {100 * mean_error(e[-1]):.3f}" for c, e in errors[variant].items()), flush=True
            )
    return {
        "seeds": list(SEEDS),
        "faces": {column: len(errors["modern"][column][0]) for column in COLUMNS},
        "variants": {
            variant: {column: _figures(mine[column], errors["modern"][column]) for column in COLUMNS}
            for variant, mine in errors.items()
        },
    }


def _figures(seeds: list[np.ndarray], yardstick: list[np.ndarray]) -> dict[str, Any]:
    """Mean over seeds and faces with the interval over faces; difference to the yardstick, face by face."""
    pooled, reference = np.mean(seeds, axis=0), np.mean(yardstick, axis=0)
    mean = bootstrap(pooled, {"mean": error_statistics()["mean"]})["mean"]
    figures: dict[str, Any] = {
        "nme": [100 * float(v) for v in (mean.value, mean.low, mean.high)],
        "per_seed": [100 * float(mean_error(errors)) for errors in seeds],
        "missed": int(sum(np.isinf(errors).sum() for errors in seeds)),
    }
    if seeds is not yardstick:
        difference = paired_bootstrap(pooled, reference)
        figures["difference"] = [100 * float(v) for v in (difference.value, difference.low, difference.high)]
    return figures


def main(arguments: list[str]) -> None:
    """Command line."""
    runs, data_root = map(Path, arguments)
    metrics = measure(runs, data_root)
    write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main(sys.argv[1:])
