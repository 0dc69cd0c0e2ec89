"""How far the labels of a set sit beside what they mark, left or right: metrics.json.

python experiments/label_shift/measure.py CHECKPOINT DATA_ROOT      # a network trained with label_shift=0
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.record import write
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.data.sample import in_validation
from pipnet.inference.landmarker import SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.layouts import get_layout
from pipnet.metrics import nme, norm_distances

HERE = Path(__file__).resolve().parent
LABEL_SHIFT = 0.0048  # conf/dataset/300w.yaml
_CHUNK = 64


def measure(weights: Path, data_root: Path) -> dict[str, Any]:
    """Labels minus the mean of what a network says to a photo and to its mirror image, on training faces.

    That mean has no sideways bias, whatever the network learned: mirroring the photo changes its sign. What is left is
    a property of the labels. Nothing of the kind is known about y: no symmetry of a face shows it.
    """
    layout = get_layout("300w_68")
    samples, _ = read_dataset("300w", root=data_root / "300W", layout=layout, part="train", validation="include")
    landmarker = FaceLandmarker.load(weights or SHIPPED_WEIGHTS, device="cpu")
    permutation = list(layout.mirror)
    shifts, errors, mirrored_errors, points = [], [], [], []
    for first in range(0, len(samples), _CHUNK):
        chunk = samples[first : first + _CHUNK]
        images = [read_image(sample.image) for sample in chunk]
        widths = np.array([image.shape[1] for image in images])
        boxes = np.stack([sample.box for sample in chunk])
        plain = landmarker.predict_batch(images, boxes).points
        mirrored_boxes = np.column_stack([widths - 1 - boxes[:, 2], boxes[:, 1], widths - 1 - boxes[:, 0], boxes[:, 3]])
        turned = landmarker.predict_batch([image[:, ::-1] for image in images], mirrored_boxes).points
        back = (widths[:, None] - 1 - turned[..., 0])[:, permutation]  # (F, N), x only
        labels = np.stack([sample.points[:, 0] for sample in chunk])
        shifts.append((labels - (plain[..., 0] + back) / 2).mean(axis=1))
        errors.append((plain[..., 0] - labels).mean(axis=1))
        mirrored_errors.append((labels - back).mean(axis=1))  # in the mirrored photo right is left
        points.append(plain)
    shift = np.concatenate(shifts)
    side = np.array([(sample.box[2:] - sample.box[:2]).max() for sample in samples])
    subset = np.array([sample.subsets[0] for sample in samples])
    groups = {"all": np.ones(len(samples), bool)}
    groups |= {name: subset == name for name in sorted(set(subset.tolist()))}
    edges = [0, 125, 175, 220, np.inf]
    names = ["box side below 125 px", "125 to 175 px", "175 to 220 px", "220 px and more"]
    groups |= {name: (side >= a) & (side < b) for name, a, b in zip(names, edges, edges[1:], strict=False)}
    held_out = np.array([in_validation(sample.image.stem) for sample in samples])
    true, predicted = np.stack([sample.points for sample in samples]), np.concatenate(points)
    moved = predicted + np.stack([LABEL_SHIFT * side, np.zeros_like(side)], axis=1)[:, None]
    norm = norm_distances(true, layout)["outer_eye"]
    return {
        "groups": {name: _figures(shift[chosen], side[chosen]) for name, chosen in groups.items()},
        "signed_error_px": {"photo": _mean(errors), "mirrored photo": _mean(mirrored_errors)},
        "validation_nme": {
            "as predicted": 100 * float(nme(predicted, true, norm)[held_out].mean()),
            f"moved right by {LABEL_SHIFT} of the box side": 100 * float(nme(moved, true, norm)[held_out].mean()),
        },
    }


def _mean(parts: list[np.ndarray]) -> float:
    return float(np.concatenate(parts).mean())


def _figures(shift: np.ndarray, side: np.ndarray) -> dict[str, float]:
    share = 100 * shift / side
    return {
        "faces": len(shift),
        "pixels": float(shift.mean()),
        "pixels_error": float(shift.std(ddof=1) / np.sqrt(len(shift))),
        "percent_of_box": float(share.mean()),
        "percent_of_box_error": float(share.std(ddof=1) / np.sqrt(len(shift))),
    }


def main(arguments: list[str]) -> None:
    """Command line."""
    weights, data_root = map(Path, arguments)
    metrics = measure(weights, data_root)
    write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main(sys.argv[1:])
