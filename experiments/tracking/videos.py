"""Videos whose truth is known: real faces on known paths, over each other, and over what hides them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.motion import move, moved, spun, still, sway
from pipnet.data.datasets import read_dataset
from pipnet.data.images import read_image
from pipnet.data.sample import Sample
from pipnet.geometry import box_size, tight_box
from pipnet.layouts import get_layout

FRAME, SMALL, FPS, NOISE = (640, 480), (400, 400), 30, 6.0
LAYOUT = get_layout("300w_68")
TURNING, CIRCLING = "one face, turning once around", "one face, upright, on a circle"


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


def once_round(kind: str, face: Face, count: int, seed: int) -> tuple[Video, np.ndarray]:
    """One face of 180 px: still, or once around in all frames, in even steps: about itself or, upright, on a circle.

    The frames are small, and have camera noise on the face as well.

    Returns:
        The video, and the path ``(T, 2, 3)`` as it would be without the camera's shaking.
    """
    turn = 2 * np.pi * np.arange(count) / count
    paths = []
    for shake in (0.3, 0.0):
        path = still(count, face.centre, face.scale_to(180), jitter_px=shake, seed=seed, size=SMALL)
        if kind == TURNING:
            path = spun(path, np.rad2deg(turn), size=SMALL)
        elif kind == CIRCLING:  # as fast as the points of the turning one
            middle = (np.array(SMALL) - 1) / 2
            radius = np.sqrt(((moved(face.points, path[:1]) - middle) ** 2).sum(axis=-1).mean())
            path[:, :, 2] += radius * np.column_stack([np.cos(turn), np.sin(turn)])
        paths.append(path)
    plain = next(iter(wall(1, seed)))[: SMALL[1], : SMALL[0]]
    frames = move(face.patch, paths[0], size=SMALL, noise=NOISE, seed=seed, onto=repeat(plain))
    return Video(frames, [moved(face.points, paths[0])]), paths[1]


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
