"""Strokes and fills with sub-pixel vertices, and what light, lens and sensor add to a finished picture.

Pictures are RGB uint8 ``(size, size, 3)`` and changed in place; vertices are ``(n, 2)`` pixel-centre coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

Color = tuple[int, int, int]

_SHIFT = 4  # vertices in sixteenths of a pixel


def mix(a: Color, b: Color, share: float) -> Color:
    """``share`` of ``b`` in ``a``, 0 to 1.

    Example:
        >>> mix((0, 0, 0), (200, 100, 50), 0.5)
        (100, 50, 25)
    """
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))  # type: ignore[return-value]


def darker(color: Color, share: float) -> Color:
    """A shadow of a colour: darker, and a little cooler, as painted shadows are."""
    return mix(color, (28, 16, 44), share)


def lighter(color: Color, share: float) -> Color:
    """A highlight of a colour."""
    return mix(color, (255, 250, 235), share)


def _fixed(vertices: np.ndarray) -> np.ndarray:
    return np.rint(vertices * (1 << _SHIFT)).astype(np.int32)


def fill(picture: np.ndarray, polygon: np.ndarray, color: Color) -> None:
    """A filled closed shape."""
    cv2.fillPoly(picture, [_fixed(polygon)], color, cv2.LINE_AA, _SHIFT)


def lines(
    picture: np.ndarray, curves: Sequence[np.ndarray] | np.ndarray, color: Color, width: int = 1, closed: bool = False
) -> None:
    """Lines of a whole number of pixels, many at once; an array ``(k, n, 2)`` is k lines."""
    fixed = list(_fixed(curves)) if isinstance(curves, np.ndarray) else [_fixed(curve) for curve in curves]
    cv2.polylines(picture, fixed, closed, color, width, cv2.LINE_AA, _SHIFT)


def disc(picture: np.ndarray, centre: np.ndarray, radius: float, color: Color) -> None:
    """A filled circle."""
    x, y = _fixed(np.asarray(centre)).tolist()
    cv2.circle(picture, (x, y), int(radius * (1 << _SHIFT)), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)


def stroke(picture: np.ndarray, curve: np.ndarray, color: Color, width: float, taper: float = 0.0) -> None:
    """A brush stroke centred on a curve.

    Args:
        picture: Painted on.
        curve: ``(n, 2)``, the middle of the stroke.
        color: RGB.
        width: Pixels, any fraction; at the middle of the stroke where it tapers.
        taper: Share of the width that is lost towards both ends, 0 to 1.
    """
    if width * (1 - taper / 2) <= 1.3:  # thinner than that a brush of any shape is an antialiased line
        lines(picture, [curve], color)
        return
    along = np.empty_like(curve)
    along[1:-1] = curve[2:] - curve[:-2]
    along[0], along[-1] = curve[1] - curve[0], curve[-1] - curve[-2]
    normal = along[:, ::-1] * (-1, 1) / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    # OpenCV's antialiased fill covers half a pixel beyond its vertices.
    half = np.maximum(width / 2 * (1 - taper * _bulge(len(curve))) - 0.5, 0.1)[:, None] * normal
    fill(picture, np.concatenate([curve + half, (curve - half)[::-1]]), color)


@cache
def _bulge(samples: int) -> np.ndarray:
    return np.linspace(-1, 1, samples) ** 2


_SHARE = np.linspace(0, 1, 8)


def gradient(size: int, corners: Sequence[Color]) -> np.ndarray:
    """A smooth picture between four colours: top left, top right, bottom left, bottom right."""
    # Through 8 x 8 colours, since the resize is flat for half a cell at the edges.
    weights = np.stack([1 - _SHARE, _SHARE], axis=1)
    grid = np.einsum("yi,xj,ijc->yxc", weights, weights, np.asarray(corners, dtype=float).reshape(2, 2, 3))
    return cv2.resize(grid.astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR)


def light(picture: np.ndarray, corners: Sequence[float]) -> np.ndarray:
    """The picture lit unevenly; four gains between 0 and 1, ordered as in :func:`gradient`."""
    gain = gradient(len(picture), [(int(255 * g),) * 3 for g in corners])
    return cv2.multiply(picture, gain, scale=1 / 255)


@cache
def _grain(size: int, amplitude: int, coarse: int) -> np.ndarray:
    rng = np.random.default_rng([size, amplitude, coarse])
    grain = rng.normal(0, amplitude, (size // coarse + 64, size // coarse + 64)).astype(np.float32)
    grain = cv2.resize(grain, None, fx=coarse, fy=coarse, interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.rint(grain).astype(np.int16)[..., None], 3, axis=2)


def add_grain(picture: np.ndarray, rng: np.random.Generator, amplitude: int, coarse: int = 1) -> np.ndarray:
    """The picture with noise, or with the grain of paper where ``coarse`` is 2 or more pixels.

    The noise is cut from one large sheet at a random place: drawing it anew would cost more than the whole face.
    """
    size = len(picture)
    x, y = rng.integers(0, 64, 2)
    return cv2.add(picture, _grain(size, amplitude, coarse)[y : y + size, x : x + size], dtype=cv2.CV_8U)


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """The picture out of focus by ``sigma`` pixels."""
    return cv2.GaussianBlur(picture, (0, 0), sigma)
