"""A photo becomes a video along a known path, so that the true points of every frame are known.

A path is one affine matrix a frame, ``(T, 2, 3)``, from photo pixels to frame pixels: :func:`still`, :func:`sway` and
:func:`spun` make them, :func:`moved` takes labels along them, and :func:`move` paints the frames. Several faces in one
picture are laid over each other by giving one video to another (``onto``). Everything follows from its arguments and a
seed. ``size`` is width and height of the frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

_FRAME = (640, 480)


def still(
    count: int,
    centre: tuple[float, float],
    scale: float,
    *,
    jitter_px: float = 0.0,
    seed: int = 0,
    size: tuple[int, int] = _FRAME,
) -> np.ndarray:
    """The path ``(T, 2, 3)`` of a face that keeps still before a camera that does not quite.

    Args:
        count: T, frames.
        centre: The photo's point ``x, y`` that stands in the middle of the frame, for example the centre of a face.
        scale: Frame pixels for a photo pixel.
        jitter_px: Standard deviation of a shift drawn anew for every frame along x and along y, frame pixels.
        seed: Of the shifts.
        size: Of the frames.

    Example:
        >>> moved(np.array([[20.0, 10.0]]), still(1, (20.0, 10.0), 2.0, size=(101, 61))).tolist()
        [[[50.0, 30.0]]]
    """
    shifts = np.random.default_rng(seed).normal(0, jitter_px, (count, 2))
    return _path(centre, np.full(count, float(scale)), np.zeros(count), shifts, size)


def sway(
    count: int,
    centre: tuple[float, float],
    scale: float,
    *,
    fps: float = 30.0,
    amplitude_px: float = 0.0,
    degrees: float = 0.0,
    zoom: float = 1.0,
    period_s: float = 2.0,
    size: tuple[int, int] = _FRAME,
) -> np.ndarray:
    """The path ``(T, 2, 3)`` of a face that goes to and fro, turns in the picture's plane, comes closer and goes back.

    It swings along x in ``period_s`` seconds and along y, half as far, in half of that: an eight lying on its side. The
    speed is largest, ``2 pi * amplitude_px / period_s * sqrt(2)`` frame pixels a second, where the face passes the
    middle. Angle and size swing out of step with the place, so that no frame shows the face as it was.

    Args:
        count: T, frames.
        centre: The photo's point ``x, y`` about which it moves.
        scale: Frame pixels for a photo pixel, in the mean.
        fps: Frames a second.
        amplitude_px: How far it swings to each side along x, frame pixels.
        degrees: How far it turns to each side.
        zoom: How much larger, and how much smaller, it gets; from 1.
        period_s: Seconds from side to side and back.
        size: Of the frames.

    Example:
        >>> path = sway(31, (0.0, 0.0), 1.0, amplitude_px=40.0, period_s=4.0, size=(201, 101))
        >>> moved(np.zeros((1, 2)), path)[[0, 30], 0].round(6).tolist()  # a quarter of the way round after a second
        [[100.0, 50.0], [140.0, 50.0]]
    """
    phase = 2 * np.pi * np.arange(count) / (fps * period_s)
    place = amplitude_px * np.column_stack([np.sin(phase), np.sin(2 * phase) / 2])
    return _path(centre, scale * zoom ** np.sin(phase + 2), degrees * np.sin(phase + 1), place, size)


def spun(matrices: np.ndarray, degrees: np.ndarray, *, size: tuple[int, int] = _FRAME) -> np.ndarray:
    """A path turned clockwise about the middle of the frame, by so many degrees ``(T,)`` in each frame.

    Example:
        >>> spun(still(1, (0.0, 0.0), 1.0, size=(3, 3)), np.array([90.0]), size=(3, 3)).round(6).tolist()
        [[[0.0, -1.0, 1.0], [1.0, 0.0, 1.0]]]
    """
    middle, radians = (np.array(size) - 1) / 2, np.deg2rad(degrees)
    path = matrices.copy()
    path[:, :, 2] -= middle
    cos, sin = np.cos(radians), np.sin(radians)
    path = np.moveaxis(np.array([[cos, -sin], [sin, cos]]), -1, 0) @ path
    path[:, :, 2] += middle
    return path


def moved(points: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Where points ``(N, 2)`` of the photo are in every frame, ``(T, N, 2)``.

    Example:
        >>> shift = np.array([[[1.0, 0, 3], [0, 1, 4]]])
        >>> moved(np.array([[10.0, 20.0]]), shift).tolist()
        [[[13.0, 24.0]]]
    """
    return np.einsum("tij,nj->tni", matrices[:, :, :2], points) + matrices[:, None, :, 2]


def move(
    image: np.ndarray,
    matrices: np.ndarray,
    *,
    size: tuple[int, int] = _FRAME,
    noise: float = 0.0,
    seed: int = 0,
    border: tuple[int, int, int] = (0, 0, 0),
    onto: Iterable[np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """The frames of a photo that moves along a path: T times RGB uint8 ``(height, width, 3)``.

    A photo that is shown smaller than it is gets averaged down once, by the same factor for the whole path, and the
    warp is cubic: sharpness that changed from frame to frame would look like motion to the network.

    Args:
        image: RGB uint8 ``(H, W, 3)``. With ``onto`` give it cut to the face.
        matrices: ``(T, 2, 3)``, photo pixels to frame pixels.
        size: Of the frames.
        noise: Standard deviation of camera noise, grey levels: independent for pixels, channels and frames.
        seed: Of the noise.
        border: Colour where the photo ends.
        onto: Frames that the photo is laid upon, instead of ``border``, at least T; theirs must be ``size``.
    """
    image, matrices = _averaged_down(image, matrices)
    rng, whole = np.random.default_rng(seed), np.full(image.shape[:2], 255, dtype=np.uint8)
    below = iter(onto) if onto is not None else None
    for matrix in matrices:
        frame = cv2.warpAffine(
            image, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=border
        )
        if below is not None:
            covered = cv2.warpAffine(whole, matrix, size) == 255  # not the rim, which is mixed with the border
            frame = np.where(covered[..., None], frame, next(below))
        if noise:
            frame = frame + noise * rng.standard_normal(frame.shape, dtype=np.float32)
            frame = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
        yield frame


def _averaged_down(image: np.ndarray, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The photo reduced by a whole factor where every frame shows it smaller than that, and the path to match."""
    scale = np.sqrt(np.abs(np.linalg.det(matrices[:, :, :2]))).max(initial=0)
    shrink = min(int(1 / max(scale, 1e-9) + 1e-6), *image.shape[:2])
    if shrink < 2:
        return image, matrices
    height, width = image.shape[0] // shrink, image.shape[1] // shrink
    image = image[: height * shrink, : width * shrink]  # whole blocks, so that each pixel is the mean of as many
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    # A reduced pixel i has its centre at i * shrink + (shrink - 1) / 2 of the photo.
    middle = (shrink - 1) / 2
    to_photo = np.array([[shrink, 0, middle], [0, shrink, middle], [0, 0, 1.0]])
    return image, matrices @ to_photo


def _path(
    centre: tuple[float, float], scales: np.ndarray, degrees: np.ndarray, places: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Matrices that bring ``centre`` to the middle of the frame plus ``places`` (T, 2), scaled and turned about it."""
    radians = np.deg2rad(degrees)
    cos, sin = scales * np.cos(radians), scales * np.sin(radians)
    linear = np.stack([np.stack([cos, -sin], axis=-1), np.stack([sin, cos], axis=-1)], axis=-2)  # (T, 2, 2)
    middle = (np.array(size) - 1) / 2
    offset = middle + places - linear @ np.asarray(centre, dtype=np.float64)
    return np.concatenate([linear, offset[..., None]], axis=-1)
