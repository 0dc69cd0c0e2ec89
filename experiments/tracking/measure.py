"""Following faces through videos whose truth is known: metrics.json.

    python experiments/tracking/measure.py DATA_ROOT
    python experiments/tracking/measure.py DATA_ROOT --turning

DATA_ROOT holds ``300W/``. Real faces move along known paths (``experiments.motion``) in pictures of 640 x 480, at 30
frames a second and with camera noise; several faces, and what hides them, are laid over each other. Where the next box
comes from is compared on validation faces, all the rest is measured on Common-554. Takes 8 minutes on one core;
``--turning`` measures only the head that turns, in 2 minutes; ``--quick`` takes one minute and writes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments.motion import moved
from experiments.record import command_line, write
from experiments.tracking.videos import (
    CIRCLING,
    FPS,
    LAYOUT,
    TURNING,
    Face,
    Video,
    crossing,
    cut,
    faces_of,
    hand,
    leaving,
    once_round,
    single,
    three,
    wall,
)
from pipnet.geometry import box_size, tight_box
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.tracking import FaceTracker, match

HERE = Path(__file__).resolve().parent
THRESHOLDS = (0.05, 0.1, 0.2, 0.5)
SETTLED = FPS // 2  # frames after which the smoothing has no memory of the first one


def follow(tracker: FaceTracker, video: Video) -> dict[str, Any]:
    """Counts of one video: who was seen under which id, and the detector's calls."""
    ids: list[list[int]] = [[] for _ in video.faces]  # of each face, frame by frame; -1 is not seen
    errors, extra = [], 0
    for number, frame in enumerate(video.frames):
        found = tracker(frame, number / FPS)
        visible = [k for k, points in enumerate(video.faces) if np.isfinite(points[number]).all()]
        true = np.array([video.faces[k][number] for k in visible]).reshape(-1, LAYOUT.num_points, 2)
        pairs = dict(match(tight_box(true), tight_box(found.points), 0.5)) if len(true) and len(found) else {}
        extra += len(found) - len(pairs)
        for row, face in enumerate(visible):
            ids[face].append(int(found.ids[pairs[row]]) if row in pairs else -1)
            if row in pairs:
                errors.append(nme(found.points[pairs[row]], true[row]))
    statistics = tracker.statistics
    seen = sum(len(face) for face in ids)
    kept = sum(max(Counter(i for i in face if i >= 0).values(), default=0) for face in ids)
    return {
        "frames": statistics.frames,
        "detector_calls": statistics.detector_calls,
        "lost_face_frames": statistics.lost_face_frames,
        "returned_face_frames": statistics.face_frames,
        "faces": len(ids),
        "ids": sum(len(set(face) - {-1}) for face in ids),
        "face_frames": seen,
        "tracked": sum(sum(i >= 0 for i in face) for face in ids),
        "same_id": kept,
        "extra": extra,
        "errors": errors,
    }


def nme(points: np.ndarray, true: np.ndarray) -> float:
    """% of the outer eyes' distance."""
    left, right = LAYOUT.norm_pair or (0, 1)
    return float(100 * np.linalg.norm(points - true, axis=-1).mean() / np.linalg.norm(true[left] - true[right]))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Sums over the videos of one kind, as the table shows them."""
    total = {key: sum(row[key] for row in rows) for key in rows[0] if key != "errors"}
    errors = [error for row in rows for error in row["errors"]]
    known = total["returned_face_frames"] + total["lost_face_frames"]
    return {
        "videos": len(rows),
        **total,
        "detector_calls_per_100": 100 * total["detector_calls"] / total["frames"],
        "lost_share": 100 * total["lost_face_frames"] / max(known, 1),
        "tracked_share": 100 * total["tracked"] / total["face_frames"] if total["face_frames"] else None,
        "same_id_share": 100 * total["same_id"] / total["tracked"] if total["tracked"] else None,
        "error": float(np.mean(errors)) if errors else None,
    }


def every_frame(landmarker: FaceLandmarker, video: Video) -> dict[str, list[float]]:
    """Errors with the detector's box in every frame, of the face nearest to the true one."""
    errors, missed = [], 0
    for number, frame in enumerate(video.frames):
        true = video.faces[0][number]
        found = landmarker.detector(frame)
        pair = match(tight_box(true)[None], found.boxes, 0.7)
        if pair:
            errors.append(nme(landmarker(frame, boxes=found[[pair[0][1]]]).points[0], true))
        else:
            missed += 1
    return {"errors": errors, "missed": [float(missed)]}


class FromSmoothed(FaceTracker):
    """Takes the next box from the smoothed points, to compare."""

    def _next_box(self, raw: np.ndarray, smoothed: np.ndarray, angle: float) -> np.ndarray:
        return tight_box(smoothed, angle)


class Watched(FaceTracker):
    """Keeps what is seen of the face that is followed, as the network sees it and smoothed, by frame."""

    def reset(self) -> None:
        super().reset()
        self.seen: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def _next_box(self, raw: np.ndarray, smoothed: np.ndarray, angle: float) -> np.ndarray:
        self.seen.setdefault(self.statistics.frames, (raw, smoothed))
        return super()._next_box(raw, smoothed, angle)


def carried_back(points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Points ``(T, N, 2)`` of the frames in the pixels of the photo: the frame of the face itself."""
    return np.stack([(p - m[:, 2]) @ np.linalg.inv(m[:, :2]).T for p, m in zip(points, path, strict=True)])


def jitter(points: np.ndarray, path: np.ndarray, face: Face) -> float:
    """Of the points in the face's own frame, by their steps from frame to frame, % of the outer eyes' distance.

    What stays behind steadily, or is wrong steadily, makes no step.
    """
    left, right = LAYOUT.norm_pair or (0, 1)
    steps = np.diff(carried_back(points, path)[SETTLED:], axis=0)
    eyes = np.linalg.norm(face.points[left] - face.points[right])
    return float(100 * np.sqrt((steps**2).sum(axis=-1).mean() / 2) / eyes)


def turning(root: Path, *, quick: bool) -> dict[str, dict[str, Any]]:
    """A face that turns once around beside upright ones: counts, errors, jitter, and how far smoothing is behind."""
    cv2.setNumThreads(1)
    landmarker = FaceLandmarker.load(device="cpu", runtime="onnxruntime")
    faces, count, rows = faces_of(root, 1 if quick else 4, part="common"), 60 if quick else 300, {}
    for kind in ("one face, still", CIRCLING, TURNING):
        counts, figures = [], []
        for seed, face in enumerate(faces):
            tracker = Watched(landmarker)
            video, path = once_round(kind, face, count, seed)
            counts.append(follow(tracker, video))
            missing = np.full((2, LAYOUT.num_points, 2), np.nan)
            raw, smoothed = np.stack([tracker.seen.get(n + 1, missing) for n in range(count)], axis=1)
            speed = np.gradient(moved(face.points, path), axis=0)  # pixels a frame
            behind = ((raw - smoothed) * speed)[SETTLED:].sum() / max((speed[SETTLED:] ** 2).sum(), 1e-9)
            figures.append([jitter(raw, path, face), jitter(smoothed, path, face), float(behind)])
        rows[kind] = summary(counts)
        rows[kind] |= dict(zip(("jitter_raw", "jitter", "behind"), np.mean(figures, axis=0).tolist(), strict=True))
        print(kind, {key: rows[kind][key] for key in ("ids", "jitter_raw", "jitter", "behind")}, flush=True)
    rows["one face, still"]["behind"] = None
    return rows


def next_box(landmarker: FaceLandmarker, faces: list[Face], count: int) -> list[dict[str, Any]]:
    """Where the next box comes from: error, jitter, and how far the box creeps on a still face."""
    rows = []
    for name, kind in (("the network's points", FaceTracker), ("smoothed points", FromSmoothed)):
        errors: dict[float, list[float]] = {0.0: [], 1.0: []}
        jitter, creep, shake = [], [], []
        for seed, face in enumerate(faces):
            for speed in errors:
                tracker = kind(landmarker, max_faces=1)
                video = single(face, count, speed, seed)
                found = [tracker(frame, number / FPS) for number, frame in enumerate(video.frames)]
                points = np.stack([faces_.points[0] for faces_ in found])
                errors[speed] += [nme(p, t) for p, t in zip(points, video.faces[0], strict=True)]
                if not speed:
                    boxes = np.stack([faces_.boxes[0] for faces_ in found])[1:]
                    third, size = len(boxes) // 3, box_size(boxes).mean()
                    change = boxes[-third:].mean(axis=0) - boxes[:third].mean(axis=0)
                    creep.append(100 * np.abs(change).max() / size)
                    shake.append(100 * boxes.std(axis=0).mean() / size)
                    eyes = np.linalg.norm(video.faces[0][0, 36] - video.faces[0][0, 45])
                    jitter.append(100 * np.sqrt(points.var(axis=0).sum(axis=-1)).mean() / eyes)
        rows.append(
            {
                "from": name,
                "frames": count,
                "faces": len(faces),
                "error_still": float(np.mean(errors[0.0])),
                "error_moving": float(np.mean(errors[1.0])),
                "jitter": float(np.mean(jitter)),
                "creep_mean": float(np.mean(creep)),
                "creep_max": float(np.max(creep)),
                "shake": float(np.mean(shake)),
            }
        )
    return rows


def scores_of(landmarker: FaceLandmarker, root: Path, count: int) -> dict[str, Any]:
    """Share of validation faces, and of pictures without one, whose face score passes thresholds."""
    scores: dict[str, list[float]] = {}
    for face in faces_of(root, count, part="train", validation="only"):
        image, box = face.patch, tight_box(face.points)
        (width, height), aside = box[2:] - box[:2], np.array([1, 0, 1, 0])
        lower = image.copy()
        lower[int(box[1] + height / 2) :] = (140, 110, 90)
        turned = cv2.warpAffine(image, cv2.getRotationMatrix2D(face.centre, 40, 1), image.shape[1::-1])
        kinds = {
            "as it is": (image, box),
            "box a third of a face aside": (image, box + 0.33 * width * aside),
            "lower half hidden": (lower, box),
            "turned by 40°": (turned, box),
            "blurred (sigma a 24th of the face)": (cv2.GaussianBlur(image, (0, 0), width / 24), box),
            "box beside the face": (image, box + width * aside),
            "all but the chin hidden": (_hide_above(image, box[3] - 0.15 * height), box),
        }
        for name, (picture, around) in kinds.items():
            scores.setdefault(name, []).append(float(landmarker(picture, boxes=around, angles=0.0).face_scores[0]))
    return {
        name: {"faces": len(row), **{f"{t:g}": 100 * float(np.mean(np.array(row) >= t)) for t in THRESHOLDS}}
        for name, row in scores.items()
    }


def _hide_above(image: np.ndarray, y: float) -> np.ndarray:
    hidden = image.copy()
    hidden[: max(int(y), 0)] = (140, 110, 90)
    return hidden


def measure(root: Path, *, quick: bool) -> dict[str, Any]:
    """Everything that the README shows."""
    cv2.setNumThreads(1)
    landmarker = FaceLandmarker.load(device="cpu", runtime="onnxruntime")
    few = 1 if quick else 4
    count = 60 if quick else 90
    faces = faces_of(root, 3 * few, part="common")

    def videos(kind: str, n: int) -> Video:
        pair, triple = faces[2 * n : 2 * n + 2], faces[3 * n : 3 * n + 3]
        made = {
            "one face, still": lambda: single(faces[n], count, 0.0, n),
            "one face, moving": lambda: single(faces[n], count, 1.0, n),
            "three faces, moving": lambda: three(triple, count, n),
            "two faces that cross": lambda: crossing(pair, 120, n),
            "nobody": lambda: Video(wall(300, n), []),
            "leaves for 0.6 s": lambda: leaving(faces[n], 130, n, 0.6),
            "leaves for 2 s": lambda: leaving(faces[n], 160, n, 2.0),
            "hidden for 0.5 s": lambda: hand(faces[n], 90, n, 0.5),
            "hidden for 2 s": lambda: hand(faces[n], 150, n, 2.0),
            "cut of scene": lambda: cut(pair, 60, n),
        }
        return made[kind]()

    kinds = ("one face, still", "one face, moving", "three faces, moving", "two faces that cross", "nobody")
    kinds += ("leaves for 0.6 s", "leaves for 2 s", "hidden for 0.5 s", "hidden for 2 s", "cut of scene")
    metrics: dict[str, Any] = {"videos": {}, "turning": turning(root, quick=quick)}
    for kind in kinds:
        rows = [follow(FaceTracker(landmarker), videos(kind, n)) for n in range(1 if kind == "nobody" else few)]
        metrics["videos"][kind] = summary(rows)
        print(kind, {key: metrics["videos"][kind][key] for key in ("detector_calls_per_100", "error")}, flush=True)
    metrics["videos"][TURNING] = metrics["turning"][TURNING]
    metrics["detecting"] = {}
    for kind in ("one face, still", "one face, moving"):
        row: dict[str, Any] = {"tracked": metrics["videos"][kind]["error"]}
        raw = [follow(FaceTracker(landmarker, smoothing=False), videos(kind, n)) for n in range(few)]
        row["tracked_raw"] = summary(raw)["error"]
        each = [every_frame(landmarker, videos(kind, n)) for n in range(few)]
        row["detected"] = float(np.mean([error for video in each for error in video["errors"]]))
        row["missed"] = int(sum(video["missed"][0] for video in each))
        row["frames"] = few * count
        metrics["detecting"][kind] = row
    validation = faces_of(root, few, part="train", validation="only")
    metrics["next_box"] = next_box(landmarker, validation, 90 if quick else 240)
    metrics["scores"] = scores_of(landmarker, root, 10 if quick else 100)
    return metrics


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--quick", action="store_true", help="a trial with fewer faces; writes nothing")
    parser.add_argument("--turning", action="store_true", help="only the turning head; the rest is kept as it is")
    arguments = parser.parse_args()
    if arguments.turning:
        metrics = json.loads((HERE / "metrics.json").read_text())
        metrics["turning"] = turning(arguments.root, quick=arguments.quick)
        metrics["videos"][TURNING] = metrics["turning"][TURNING]
    else:
        metrics = measure(arguments.root, quick=arguments.quick)
    if not arguments.quick:
        write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main()
