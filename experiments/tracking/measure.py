"""Following faces through videos whose truth is known: metrics.json and the tables of README.md.

    python experiments/tracking/measure.py DATA_ROOT
    python experiments/tracking/measure.py --table

DATA_ROOT holds ``300W/``. Real faces move along known paths (``pipnet.data.motion``) in pictures of 640 x 480, at 30
frames a second and with camera noise; several faces, and what hides them, are laid over each other. Where the next box
comes from is compared on validation faces, all the rest is measured on Common-554. Takes 6 minutes on one core;
``--quick`` takes one minute and writes nothing.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipnet.data.images import read_image
from pipnet.data.motion import move, moved, still, sway
from pipnet.data.readers import read_dataset
from pipnet.data.sample import Sample
from pipnet.geometry import box_size, tight_box
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.matching import match
from pipnet.inference.tracking import FaceTracker
from pipnet.layouts import get_layout

HERE = Path(__file__).resolve().parent
FRAME, FPS, NOISE = (640, 480), 30, 6.0
LAYOUT = get_layout("300w_68")
THRESHOLDS = (0.05, 0.1, 0.2, 0.5)


class Video(NamedTuple):
    """Frames, and the faces in them: ``(T, N, 2)`` each, NaN while a face can't be seen."""

    frames: Iterable[np.ndarray]
    faces: list[np.ndarray]


class Face(NamedTuple):
    """A labelled face, cut out of its photo with some of its surroundings."""

    patch: np.ndarray
    points: np.ndarray

    @property
    def centre(self) -> tuple[float, float]:
        box = tight_box(self.points)
        return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2

    def scale_to(self, size: float) -> float:
        return size / float(box_size(tight_box(self.points)))


def faces_of(root: Path, count: int, **part: str) -> list[Face]:
    """The first faces of a fixed random order."""
    samples, _ = read_dataset("300w", root=root / "300W", layout=LAYOUT, **part)
    order = np.random.default_rng(1).permutation(len(samples))[:count]
    return [_cut_out(samples[index]) for index in order]


def _cut_out(sample: Sample, margin: float = 0.3) -> Face:
    image = read_image(sample.image)
    around = margin * (sample.box[2:] - sample.box[:2])
    x0, y0 = np.maximum(np.floor(sample.box[:2] - around), 0).astype(int)
    x1, y1 = np.ceil(sample.box[2:] + around).astype(int)
    return Face(np.ascontiguousarray(image[y0:y1, x0:x1]), sample.points - [x0, y0])


def wall(count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Frames of soft patches of colour, with camera noise."""
    rng = np.random.default_rng(seed)
    picture = rng.integers(40, 200, (12, 16, 3), dtype=np.uint8)
    return move(picture, still(count, (7.5, 5.5), 55.0), noise=NOISE, seed=seed)


def at(path: np.ndarray, x: float, y: float) -> np.ndarray:
    """A path moved by ``x, y`` frame pixels."""
    path = path.copy()
    path[:, :, 2] += [x, y]
    return path


def laid(face: Face, path: np.ndarray, onto: Iterable[np.ndarray], seed: int = 0) -> Iterator[np.ndarray]:
    return move(face.patch, path, onto=onto, seed=seed)


def single(face: Face, count: int, speed: float, seed: int) -> Video:
    """One face of 180 px, still (speed 0) or swaying by so many face widths a second."""
    scale = face.scale_to(180)
    path = still(count, face.centre, scale, jitter_px=0.3, seed=seed)
    if speed:
        amplitude = speed * 180 * 2 / (2 * np.pi * np.sqrt(2))
        path = sway(count, face.centre, scale, fps=FPS, amplitude_px=amplitude, degrees=15, zoom=1.15)
    return Video(laid(face, path, wall(count, seed)), [moved(face.points, path)])


def three(faces: list[Face], count: int, seed: int) -> Video:
    """Three faces of 110 px side by side, each on a path of its own."""
    frames, truth = wall(count, seed), []
    for face, x, period in zip(faces, (-200, 0, 200), (2.0, 2.7, 3.4), strict=True):
        path = sway(count, face.centre, face.scale_to(110), amplitude_px=30, degrees=10, zoom=1.1, period_s=period)
        frames = laid(face, at(path, x, 0), frames)
        truth.append(moved(face.points, at(path, x, 0)))
    return Video(frames, truth)


def crossing(faces: list[Face], count: int, seed: int) -> Video:
    """One face of 120 px passes before another within 4 seconds; hidden while their centres are closer than 0.8."""
    behind, front = faces
    way = np.linspace(-220, 220, count)
    paths = []
    for face, direction in ((behind, 1), (front, -1)):
        path = still(count, face.centre, face.scale_to(120))
        path[:, 0, 2] += direction * way
        paths.append(path)
    frames = laid(front, paths[1], laid(behind, paths[0], wall(count, seed)))
    truth = [moved(face.points, path) for face, path in zip(faces, paths, strict=True)]
    truth[0] = np.where((np.abs(2 * way) < 0.8 * 120)[:, None, None], np.nan, truth[0])
    return Video(frames, truth)


def leaving(face: Face, count: int, seed: int, away_s: float) -> Video:
    """A face of 150 px goes out on the right, three face widths a second, and its centre comes back after so long."""
    path = still(count, face.centre, face.scale_to(150))
    time, speed = np.arange(count) / FPS, 450.0
    rest = away_s - 2 * 80 / speed  # out of sight, 80 px behind the border
    out, back = np.clip(time - 1, 0, 400 / speed), np.clip(time - 1 - 400 / speed - rest, 0, 400 / speed)
    path[:, 0, 2] += speed * (out - back)
    truth = moved(face.points, path)
    centres = tight_box(truth)[:, [0, 2]].mean(axis=1)
    return Video(laid(face, path, wall(count, seed)), [np.where((centres < FRAME[0])[:, None, None], truth, np.nan)])


def hand(face: Face, count: int, seed: int, hidden_s: float) -> Video:
    """A patch of skin colour covers a still face of 180 px for so long."""
    path = still(count, face.centre, face.scale_to(180), jitter_px=0.3, seed=seed)
    skin = np.full((260, 240, 3), (190, 140, 120), dtype=np.uint8)
    hidden = (np.arange(count) >= FPS) & (np.arange(count) < FPS * (1 + hidden_s))
    cover = at(still(count, (119.5, 129.5), 1.0), 0, 0)
    cover[~hidden, 0, 2] += 5000  # out of the picture
    frames = move(skin, cover, onto=laid(face, path, wall(count, seed)))
    return Video(frames, [np.where(hidden[:, None, None], np.nan, moved(face.points, path))])


def cut(faces: list[Face], count: int, seed: int) -> Video:
    """Another face at another place from the middle on."""
    parts, truth = [], []
    for face, x, first in zip(faces, (-150, 150), (True, False), strict=True):
        path = at(still(count // 2, face.centre, face.scale_to(150), jitter_px=0.3, seed=seed), x, 0)
        parts.append(list(laid(face, path, wall(count // 2, seed + first))))
        seen, none = moved(face.points, path), np.full((count // 2, LAYOUT.num_points, 2), np.nan)
        truth.append(np.concatenate([seen, none] if first else [none, seen]))
    return Video(parts[0] + parts[1], truth)


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
        boxes = landmarker.detector(frame).boxes
        pair = match(tight_box(true)[None], boxes, 0.7)
        if pair:
            errors.append(nme(landmarker(frame, boxes=boxes[pair[0][1]]).points[0], true))
        else:
            missed += 1
    return {"errors": errors, "missed": [float(missed)]}


class FromSmoothed(FaceTracker):
    """Takes the next box from the smoothed points, to compare."""

    def _next_box(self, raw: np.ndarray, smoothed: np.ndarray) -> np.ndarray:
        return tight_box(smoothed)


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
            scores.setdefault(name, []).append(float(landmarker(picture, boxes=around).face_scores[0]))
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
    metrics: dict[str, Any] = {"videos": {}}
    for kind in kinds:
        rows = [follow(FaceTracker(landmarker), videos(kind, n)) for n in range(1 if kind == "nobody" else few)]
        metrics["videos"][kind] = summary(rows)
        print(kind, {key: metrics["videos"][kind][key] for key in ("detector_calls_per_100", "error")}, flush=True)
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


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def videos_table(metrics: dict[str, Any]) -> str:
    """What tracking costs and misses."""
    head = ("video", "videos", "frames", "detector calls per 100 frames", "known face lost, % of its frames")
    head += ("visible face tracked, %", "under one id, %", "faces", "ids", "face where there is none, frames", "NME")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in metrics["videos"].items():
        cells = [name, str(row["videos"]), str(row["frames"]), f"{row['detector_calls_per_100']:.1f}"]
        cells += [f"{row['lost_share']:.1f}", _or_dash(row["tracked_share"], ".1f")]
        cells += [_or_dash(row["same_id_share"], ".1f"), str(row["faces"]), str(row["ids"]), str(row["extra"])]
        lines.append("| " + " | ".join([*cells, _or_dash(row["error"], ".2f")]) + " |")
    return "\n".join(lines)


def detecting_table(metrics: dict[str, Any]) -> str:
    """Tracking beside detecting on every frame."""
    head = ("video", "frames", "NME detecting on every frame", "not detected", "NME tracking, not smoothed", "smoothed")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in metrics["detecting"].items():
        cells = [name, str(row["frames"]), f"{row['detected']:.2f}", str(row["missed"])]
        lines.append("| " + " | ".join([*cells, f"{row['tracked_raw']:.2f}", f"{row['tracked']:.2f}"]) + " |")
    return "\n".join(lines)


def next_box_table(metrics: dict[str, Any]) -> str:
    """Where the next box comes from."""
    head = ("next box from", "faces", "frames each", "NME still", "NME moving", "jitter of the smoothed points")
    head += ("box shakes by", "box creeps by, mean", "largest")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in metrics["next_box"]:
        cells = [row["from"], str(row["faces"]), str(row["frames"])]
        keys = ("error_still", "error_moving", "jitter", "shake", "creep_mean", "creep_max")
        lines.append("| " + " | ".join([*cells, *(f"{row[key]:.3f}" for key in keys)]) + " |")
    return "\n".join(lines)


def scores_table(metrics: dict[str, Any]) -> str:
    """What passes a face score."""
    head = ("picture", "faces", *(f"from {t:g}" for t in THRESHOLDS))
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in metrics["scores"].items():
        lines.append(f"| {name} | {row['faces']} | " + " | ".join(f"{row[f'{t:g}']:.0f}" for t in THRESHOLDS) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?", metavar="DATA_ROOT")
    parser.add_argument("--quick", action="store_true", help="a trial with fewer faces; writes nothing")
    parser.add_argument("--table", action="store_true", help="print the tables of the metrics.json that is there")
    arguments = parser.parse_args()
    if arguments.table:
        metrics = json.loads((HERE / "metrics.json").read_text())
    elif arguments.root is None:
        parser.error("give DATA_ROOT, the folder that holds 300W/")
    else:
        metrics = measure(arguments.root, quick=arguments.quick)
        if not arguments.quick:
            (HERE / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print("\n\n".join(make(metrics) for make in (videos_table, detecting_table, next_box_table, scores_table)))


if __name__ == "__main__":
    main()
