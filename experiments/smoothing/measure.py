"""Jitter against lag of the points' smoothing: metrics.json and curve.png.

    python experiments/smoothing/measure.py DATA_ROOT [--faces N] [--cache DIR]
    python experiments/smoothing/measure.py DATA_ROOT --turning

DATA_ROOT holds ``300W/``. Every face becomes five videos along known paths (``experiments.motion``); the shipped
network follows it, each box from its last points, and the points are kept. Filters are then compared on the same
points. All of it takes 15 minutes on one core; with ``--cache`` the points are kept in DIR for the next run. With
``--turning`` only the row of the turning heads is measured anew, in 3 minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments.motion import move, moved, spun, still, sway
from experiments.record import command_line, write
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.data.sample import Sample
from pipnet.geometry import box_size, tight_box
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.smoothing import FaceFilter, OneEuro, OneEuroSettings, Smoothing
from pipnet.layouts import get_layout

HERE = Path(__file__).resolve().parent
FACES = {"validation": 30, "test": 60}
PARTS = {
    "validation": {"part": "train", "validation": "only"},
    "test": {"part": "common"},
    "turning": {"part": "common"},
}
FRAMES, FPS, FRAME, FACE_PX = 60, 30, (400, 400), 180
NOISE = {"still, noise 5": 5.0, "still, noise 8": 8.0}  # grey levels; and shifts of SHAKE_PX in every frame
MOVING_NOISE, SHAKE_PX = 6.0, 0.3
TURNING, TURN = "turning by 36° a second", 36.0  # degrees a second
SPEEDS = (0.1, 0.33, 1.0)  # largest of the path, face widths a second; angle and size swing in proportion
DRIFTS = (0.02, 0.05, 0.1)  # face widths a second
SETTLED = FPS // 2  # frames after which a filter has no memory of the first one
UPPER_LIDS, LOWER_LIDS = [37, 38, 43, 44], [41, 40, 47, 46]
BLINK = (0.33, 0.67, 1.0, 1.0, 0.75, 0.5, 0.25)  # how far the lids are closed, 7 frames

Video = dict[str, np.ndarray]
Filter = Callable[[np.ndarray, float], np.ndarray]


def paths(sample: Sample, number: int) -> dict[str, tuple[np.ndarray, float]]:
    """Name to matrices ``(T, 2, 3)`` and noise of the videos of one face."""
    centre, scale = tuple((sample.box[:2] + sample.box[2:]) / 2), FACE_PX / float(box_size(sample.box))
    made = {
        name: (still(FRAMES, centre, scale, jitter_px=SHAKE_PX, seed=number, size=FRAME), noise)
        for name, noise in NOISE.items()
    }
    for speed in SPEEDS:
        amplitude = speed * FACE_PX * 2 / (2 * np.pi * np.sqrt(2))  # see experiments.motion.sway; period 2 s
        path = sway(
            FRAMES,
            centre,
            scale,
            fps=FPS,
            amplitude_px=amplitude,
            degrees=15 * speed,
            zoom=1 + 0.15 * speed,
            size=FRAME,
        )
        made[f"{speed:g}"] = (path, MOVING_NOISE)
    return made


def turning(sample: Sample, number: int) -> dict[str, tuple[np.ndarray, float]]:
    """As :func:`paths`: a head that turns about itself. Sixty of them, each six degrees on, go all the way round."""
    centre, scale = tuple((sample.box[:2] + sample.box[2:]) / 2), FACE_PX / float(box_size(sample.box))
    path = still(FRAMES, centre, scale, size=FRAME)
    degrees = 6 * number + TURN * np.arange(FRAMES) / FPS
    return {TURNING: (spun(path, degrees, size=FRAME), MOVING_NOISE)}


def points_of(
    samples: list[Sample],
    landmarker: FaceLandmarker,
    videos_of: Callable[[Sample, int], dict[str, tuple[np.ndarray, float]]],
) -> dict[str, Video]:
    """What the network sees: for each video ``raw`` and ``true``, ``(F, T, N, 2)``."""
    seen: dict[str, dict[str, list[np.ndarray]]] = {}
    for number, sample in enumerate(samples):
        image = read_image(sample.image)
        for name, (path, noise) in videos_of(sample, number).items():
            true, raw = moved(sample.points, path), []
            last = true[:1]
            for frame in move(image, path, size=FRAME, noise=noise, seed=number):
                roll = landmarker.rolls(last)
                last = landmarker(frame, boxes=tight_box(last, roll), angles=roll).points.astype(np.float64)
                raw.append(last[0])
            video = seen.setdefault(name, {"raw": [], "true": []})
            video["raw"].append(np.stack(raw))
            video["true"].append(true)
        print(f"{number + 1} of {len(samples)} faces", end="\r", flush=True)
    print()
    return {name: {key: np.stack(rows) for key, rows in video.items()} for name, video in seen.items()}


def cached(part: str, root: Path, count: int, cache: Path | None) -> dict[str, Video]:
    """:func:`points_of` the first ``count`` faces of a fixed random order, from the cache where it has them."""
    file = cache / f"{part}_{count}.npz" if cache else None
    if file and file.is_file():
        with np.load(file) as arrays:
            names = dict.fromkeys(key.rpartition("/")[0] for key in arrays)
            return {name: {key: arrays[f"{name}/{key}"] for key in ("raw", "true")} for name in names}
    samples, _ = read_dataset("300w", root=root / "300W", layout=get_layout("300w_68"), **PARTS[part])
    order = np.random.default_rng(0).permutation(len(samples))[:count]
    landmarker = FaceLandmarker.load(device="cpu", runtime="onnxruntime")
    videos = points_of([samples[index] for index in order], landmarker, turning if part == "turning" else paths)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **{f"{name}/{key}": rows for name, video in videos.items() for key, rows in video.items()})
    return videos


def in_face_frame(smoothing: Smoothing) -> Filter:
    """The filter that ships: face and shape apart."""

    def run(raw: np.ndarray, fps: float) -> np.ndarray:
        smooth = FaceFilter(smoothing)
        return np.stack([smooth(raw[:, t], t / fps) for t in range(raw.shape[1])], axis=1)

    return run


def each_point(settings: OneEuroSettings) -> Filter:
    """The plain One-Euro filter: every point by itself, in pixels of the picture."""

    def run(raw: np.ndarray, fps: float) -> np.ndarray:
        smooth = OneEuro(settings)
        sizes = box_size(tight_box(raw))[..., None, None]
        return np.stack([smooth(raw[:, t], 1 / fps, sizes[:, t]) for t in range(raw.shape[1])], axis=1)

    return run


def eyes(true: np.ndarray) -> np.ndarray:
    """Distance of the outer eye corners, ``(F, T)``."""
    left, right = get_layout("300w_68").norm_pair or (0, 1)
    return np.linalg.norm(true[..., left, :] - true[..., right, :], axis=-1)


def jitter(points: np.ndarray, true: np.ndarray, first: int = 0) -> np.ndarray:
    """Standard deviation of a point over time, mean of the points, % of the eyes' distance; one a face."""
    return 100 * np.sqrt(points[:, first:].var(axis=1).sum(axis=-1)).mean(axis=-1) / eyes(true)[:, 0]


def steps(points: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Root mean square of what a point moves from frame to frame, likewise."""
    return 100 * np.sqrt((np.diff(points, axis=1) ** 2).sum(axis=-1).mean(axis=1)).mean(axis=-1) / eyes(true)[:, 0]


def error(points: np.ndarray, true: np.ndarray) -> float:
    """NME, % of the eyes' distance."""
    return float(100 * (np.linalg.norm(points - true, axis=-1).mean(axis=-1) / eyes(true)).mean())


def lag(points: np.ndarray, true: np.ndarray) -> float:
    """Frames by which the points come behind the truth: the least-squares fit of ``true(t - lag)``, constant bias of
    each point aside."""
    speed = np.gradient(true, axis=1)
    wrong = points - true
    wrong, speed = (part - part.mean(axis=1, keepdims=True) for part in (wrong, speed))
    return float(-(wrong * speed).sum() / (speed**2).sum())


def blink_kept(run: Filter, still_points: np.ndarray) -> float:
    """A blink is drawn into the points of still faces: how far the smoothed lids close, of how far they did."""
    start = FRAMES // 2
    way = (still_points[:, :, LOWER_LIDS] - still_points[:, :, UPPER_LIDS]).mean(axis=1)  # (F, 4, 2)
    blinking = still_points.copy()
    for number, closed in enumerate(BLINK):
        blinking[:, start + number, UPPER_LIDS] += closed * way
    change = (run(blinking, FPS) - run(still_points, FPS))[:, :, UPPER_LIDS]
    closed = (change * way[:, None]).sum(axis=(0, 2, 3)) / (way**2).sum()
    return float(closed.max())


def drift_lag(run: Filter, still_points: np.ndarray, speed: float) -> dict[str, float]:
    """A steady motion along x is added to the points of still faces: how far behind the smoothed ones come."""
    way = speed * FACE_PX / FPS  # pixels a frame
    drifting = still_points.copy()
    drifting[..., 0] += way * np.arange(FRAMES)[:, None]
    behind = float((drifting - run(drifting, FPS))[:, SETTLED:, :, 0].mean())
    return {"frames": behind / way, "px": behind}


def judge(run: Filter, videos: dict[str, Video]) -> dict[str, Any]:
    """All figures of a filter."""
    figures: dict[str, Any] = {"still": {}, "moving": {}}
    for name in NOISE:
        raw, true = videos[name]["raw"], videos[name]["true"]
        calm = run(raw, FPS)
        before, after = jitter(raw, true), jitter(calm, true)
        doubled = 2 * raw - raw.mean(axis=1, keepdims=True)  # as a face of half the size would shake
        figures["still"][name] = {
            "raw": float(before.mean()),
            "smoothed": float(after.mean()),
            "less": float(100 * (1 - after.mean() / before.mean())),
            "less_settled": less(calm, raw, true, SETTLED),
            "less_steps": float(100 * (1 - steps(calm, true).mean() / steps(raw, true).mean())),
            "faces_less_60": float(100 * (after <= 0.4 * before).mean()),
            "less_doubled": less(run(doubled, FPS), doubled, true, 0),
            "less_at_15_fps": less(run(raw, 15), raw, true, 0),
            "less_at_60_fps": less(run(raw, 60), raw, true, 0),
            "error_raw": error(raw, true),
            "error": error(calm, true),
        }
    for speed in SPEEDS:
        figures["moving"][f"{speed:g}"] = judge_moving(run, videos[f"{speed:g}"])
    figures["drift"] = {f"{speed:g}": drift_lag(run, videos["still, noise 5"]["raw"], speed) for speed in DRIFTS}
    figures["blink_kept"] = blink_kept(run, videos["still, noise 5"]["raw"])
    return figures


def judge_moving(run: Filter, video: Video) -> dict[str, float]:
    """What a filter costs on moving faces."""
    raw, true = video["raw"], video["true"]
    calm = run(raw, FPS)
    return {
        "error_raw": error(raw, true),
        "error": error(calm, true),
        "added": error(calm, true) - error(raw, true),
        "moved": error(calm, true + raw - true),
        "lag_raw": lag(raw, true),
        "lag": lag(calm, true),
    }


def less(calm: np.ndarray, raw: np.ndarray, true: np.ndarray, first: int) -> float:
    """By how many % jitter falls, from frame ``first`` on."""
    return float(100 * (1 - jitter(calm, true, first).mean() / jitter(raw, true, first).mean()))


def families() -> dict[str, dict[float, Filter]]:
    """The filters of the curve: a name and the factor on the default's ``beta`` (or, for the paper's, beta itself)."""
    default = Smoothing()

    def scaled(factor: float, *, idle: bool) -> Smoothing:
        parts = {
            name: replace(part, beta=factor * part.beta, idle_speed=part.idle_speed if idle else 0.0)
            for name, part in (("motion", default.motion), ("shape", default.shape))
        }
        return Smoothing(**parts)

    factors = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
    return {
        "each point, beta": {
            beta: each_point(OneEuroSettings(min_cutoff=1.0, beta=beta)) for beta in (2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
        },
        "face and shape, no idle speed, beta x": {f: in_face_frame(scaled(f, idle=False)) for f in factors},
        "face and shape (ships), beta x": {f: in_face_frame(scaled(f, idle=True)) for f in factors},
    }


def measure(root: Path, counts: dict[str, int], cache: Path | None) -> dict[str, Any]:
    """The curve on validation faces, the default on test faces."""
    cv2.setNumThreads(1)
    videos = cached("validation", root, counts["validation"], cache)
    curve = [
        {"filter": name, "factor": factor, **judge(run, videos)}
        for name, filters in families().items()
        for factor, run in filters.items()
    ]
    metrics = {
        "faces": counts,
        "frames": FRAMES,
        "settings": asdict(Smoothing()),
        "curve": curve,
        "test": judge(in_face_frame(Smoothing()), cached("test", root, counts["test"], cache)),
    }
    add_turning(metrics, root, counts["test"], cache)
    return metrics


def add_turning(metrics: dict[str, Any], root: Path, count: int, cache: Path | None) -> None:
    """The row of the turning heads."""
    cv2.setNumThreads(1)
    video = cached("turning", root, count, cache)[TURNING]
    metrics["test"]["moving"][TURNING] = judge_moving(in_face_frame(Smoothing()), video)


def draw(metrics: dict[str, Any], path: Path) -> None:
    """Jitter left over lag and over added error."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), sharey=True)
    x_of = (
        lambda row: row["moving"][f"{SPEEDS[0]:g}"]["lag"],
        lambda row: row["moving"][f"{SPEEDS[-1]:g}"]["added"],
    )
    names = dict.fromkeys(row["filter"] for row in metrics["curve"])
    for panel, x, label, bar in zip(
        panels,
        x_of,
        (f"lag at {SPEEDS[0]:g} face widths a second, frames", f"added NME at {SPEEDS[-1]:g} face widths a second, %"),
        (1.0, 0.5),
        strict=True,
    ):
        for name in names:
            rows = [row for row in metrics["curve"] if row["filter"] == name]
            panel.plot(
                [x(row) for row in rows],
                [_left(row) for row in rows],
                "o-",
                markersize=4,
                label=name.rpartition(",")[0],
            )
        chosen = [row for row in metrics["curve"] if "ships" in row["filter"] and row["factor"] == 1.0]
        panel.plot([x(row) for row in chosen], [_left(row) for row in chosen], "k*", markersize=13, label="default")
        panel.axhline(40, color="grey", linestyle=":")
        panel.axvline(bar, color="grey", linestyle=":")
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("jitter left of a still face, %")
    panels[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _left(row: dict[str, Any]) -> float:
    return 100 - row["still"]["still, noise 5"]["less"]


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--faces", type=int, metavar="N", help="faces of each part, for a trial; writes nothing")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where the network's points are kept")
    parser.add_argument("--turning", action="store_true", help="only the turning heads; the rest is kept as it is")
    arguments = parser.parse_args()
    counts = dict.fromkeys(FACES, arguments.faces) if arguments.faces else FACES
    if arguments.turning:
        metrics = json.loads((HERE / "metrics.json").read_text())
        add_turning(metrics, arguments.root, counts["test"], arguments.cache)
    else:
        metrics = measure(arguments.root, counts, arguments.cache)
    if not arguments.faces:
        write(HERE / "metrics.json", metrics)
        if not arguments.turning:
            draw(metrics, HERE / "curve.png")


if __name__ == "__main__":
    main()
