"""Do RetinaFace's five points give a better box than its rectangle, and does that matter to the landmarks?

    python experiments/detector_boxes/five_points.py DATA_ROOT

Least squares on the training faces without the validation part: centre and longer side of the tight box from the
shape of RetinaFace's box and its five points, all relative to that box, each face also mirrored. Residuals on both
parts; then the shipped network on the validation faces in boxes of each kind. Adds ``five_points`` to
``metrics.json``; a minute.
"""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from experiments.record import command_line, write
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.data.sample import Sample
from pipnet.geometry import box_iou, tight_box
from pipnet.inference.detectors import _PIXEL_MEAN, RETINAFACE_CALIBRATION, RetinaFace, _decode
from pipnet.layouts import get_layout
from pipnet.metrics import nme

METRICS = Path(__file__).with_name("metrics.json")
MIRRORED = [1, 0, 2, 4, 3]  # eyes, nose, corners of the mouth


def detect(image: np.ndarray, tight: np.ndarray, detector: RetinaFace) -> tuple[np.ndarray, np.ndarray]:
    """RetinaFace's own box ``(4,)`` and points ``(5, 2)`` of the face under a tight box, source pixels.

    The photos are so small that one search without reduction finds every face.
    """
    network_input = cv2.dnn.blobFromImage(image, mean=_PIXEL_MEAN[::-1], swapRB=True)
    offsets, confidences, points = detector._session.get().run(None, {"input": network_input})
    kept = np.flatnonzero(confidences[0, :, 1] > detector.score_threshold)
    boxes, five = _decode(offsets[0, kept], points[0, kept], kept, *image.shape[:2])
    boxes -= 0.5
    # Several anchors see the face: the surest of those that lie on it.
    score = confidences[0, kept, 1] * (box_iou(tight[None], boxes)[0] > 0.3)
    best = int(score.argmax())
    return boxes[best], five[best] - 0.5


def frame_of(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre ``(F, 2)`` and size ``(F, 1)`` of boxes: what everything is relative to."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2, np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1, keepdims=True))


def features(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """``(F, 12)``: one, the box's aspect, and the points in its frame."""
    centre, size = frame_of(boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    relative = (points - centre[:, None]) / size[:, None]
    return np.column_stack([np.ones(len(boxes)), np.log(sides[:, 0] / sides[:, 1]), relative.reshape(len(boxes), 10)])


def targets(tight: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """``(F, 3)``: shift of the centre in the box's frame, logarithm of the longer side over the box's size."""
    centre, size = frame_of(boxes)
    longer = (tight[:, 2:] - tight[:, :2]).max(axis=1, keepdims=True)
    return np.column_stack([((tight[:, :2] + tight[:, 2:]) / 2 - centre) / size, np.log(longer / size)])


def squares(predicted: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The inverse of :func:`targets`, as squares ``(F, 4)``: the crop takes no more from a box."""
    centre, size = frame_of(boxes)
    middle, half = centre + predicted[:, :2] * size, size * np.exp(predicted[:, 2:]) / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def mirrored(boxes: np.ndarray) -> np.ndarray:
    """Boxes on the other side of x = 0."""
    return np.column_stack([-boxes[:, 2], boxes[:, 1], -boxes[:, 0], boxes[:, 3]])


def residuals(tight: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Standard deviations as in ``fit.py``: shift in longer sides of the tight box, logarithm of longer sides."""
    longer, of_found = ((boxes[:, 2:] - boxes[:, :2]).max(axis=1) for boxes in (tight, found))
    shift = (found[:, :2] + found[:, 2:] - tight[:, :2] - tight[:, 2:]) / 2 / longer[:, None]
    columns = {"shift_x": shift[:, 0], "shift_y": shift[:, 1], "log_size": np.log(of_found / longer)}
    return {name: round(float(values.std()), 4) for name, values in columns.items()}


def landmark_error(samples: list[Sample], boxes: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """NME in % of the shipped network in boxes of each kind, and what the five points change with its interval."""
    from pipnet.inference.landmarker import FaceLandmarker

    landmarker = FaceLandmarker.load(device="cpu")
    images = [read_image(sample.image) for sample in samples]
    true = np.stack([sample.points for sample in samples])
    norm = np.linalg.norm(true[:, 36] - true[:, 45], axis=1)
    errors = {
        kind: 100 * nme(landmarker.predict_batch(images, list(of_kind)).points, true, norm)
        for kind, of_kind in boxes.items()
    }
    change = errors["points"] - errors["now"]
    draws = np.random.default_rng(0).integers(0, len(change), (2000, len(change)))
    low, high = np.quantile(change[draws].mean(axis=1), [0.025, 0.975])
    result = {
        kind: {"mean": round(float(e.mean()), 3), "median": round(float(np.median(e)), 3)} for kind, e in errors.items()
    }
    result["change"] = {
        "mean": round(float(change.mean()), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
    }
    return result


def main() -> None:
    """Fit, measure, add to the record."""
    parser = command_line(__doc__)
    parser.add_argument("data_root", type=Path, help="folder that holds 300W/")
    options = parser.parse_args()
    metrics = json.loads(METRICS.read_text(encoding="utf-8"))
    layout, detector, parts = get_layout("300w_68"), RetinaFace(threads=1), {}
    for part, choice in (("fit", "exclude"), ("validation", "only")):
        root = options.data_root / "300W"
        samples = read_dataset("300w", root=root, layout=layout, part="train", validation=choice)[0]
        tight = np.stack([tight_box(sample.points) for sample in samples])
        found = [detect(read_image(s.image), box, detector) for s, box in zip(samples, tight, strict=True)]
        parts[part] = samples, tight, *(np.stack(arrays) for arrays in zip(*found, strict=True))

    _, tight, boxes, points = parts["fit"]
    flipped = points[:, MIRRORED] * [-1, 1]
    x = np.concatenate([features(boxes, points), features(mirrored(boxes), flipped)])
    y = np.concatenate([targets(tight, boxes), targets(mirrored(tight), mirrored(boxes))])
    coefficients = np.linalg.lstsq(x, y, rcond=None)[0]
    record: dict[str, dict] = {}
    for part, (samples, tight, boxes, points) in parts.items():
        of_kinds = {
            "now": RETINAFACE_CALIBRATION.apply(boxes),
            "points": squares(features(boxes, points) @ coefficients, boxes),
        }
        record[part] = {kind: residuals(tight, of_kind) for kind, of_kind in of_kinds.items()}
        if part == "validation":
            record["nme"] = landmark_error(samples, {"label": tight} | of_kinds)
    write(METRICS, metrics | {"five_points": record})


if __name__ == "__main__":
    main()
