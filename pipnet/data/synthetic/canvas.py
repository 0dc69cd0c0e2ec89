"""Strokes and fills with sub-pixel vertices, and what light, lens and sensor add to a finished picture.

Pictures are RGB uint8 ``(size, size, 3)``; vertices are ``(n, 2)`` pixel-centre coordinates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from pipnet.data.images import Photo

Color = tuple[int, int, int]
Curve = npt.NDArray[np.float64]  # (n, 2), source pixels

_SHIFT = 4  # vertices in sixteenths of a pixel


def mix(a: Color, b: Color, share: float) -> Color:
    """``share`` of ``b`` in ``a``, 0 to 1."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def darker(color: Color, share: float) -> Color:
    """A shadow of a colour: darker, and a little cooler, as painted shadows are."""
    return mix(color, (28, 16, 44), share)


def lighter(color: Color, share: float) -> Color:
    """A highlight of a colour."""
    return mix(color, (255, 250, 235), share)


@dataclass
class Canvas:
    """A picture that is drawn on, and the curves of a face, which may be given by their names.

    Attributes:
        picture: Changed in place.
        curves: Of :func:`pipnet.data.synthetic.face.outlines`.
        unit: Pixels of a template unit.
        pen: Usual width of a line, pixels.
        rng: Chooses what a painter leaves to chance.
    """

    picture: Photo
    curves: Mapping[str, Curve]
    unit: float
    pen: float
    rng: np.random.Generator

    def fill(self, shape: str | Curve, color: Color) -> None:
        """A filled closed shape."""
        cv2.fillPoly(self.picture, [self._fixed(shape)], color, cv2.LINE_AA, _SHIFT)

    def lines(
        self, curves: Iterable[str | Curve] | Curve, color: Color, width: float = 1, *, closed: bool = False
    ) -> None:
        """Lines of a whole number of pixels, at least one, many at once."""
        vertices = [self._fixed(curve) for curve in curves]
        cv2.polylines(self.picture, vertices, closed, color, max(1, round(width)), cv2.LINE_AA, _SHIFT)

    def disc(self, centre: npt.ArrayLike, radius: float, color: Color) -> None:
        """A filled circle."""
        x, y = self._fixed(np.asarray(centre)).tolist()
        cv2.circle(self.picture, (x, y), int(radius * (1 << _SHIFT)), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)

    def stroke(self, curve: str | Curve, color: Color, width: float, taper: float = 0.0) -> None:
        """A brush stroke centred on a curve.

        Args:
            curve: The middle of the stroke.
            color: RGB.
            width: Pixels, any fraction; at the middle of the stroke where it tapers.
            taper: Share of the width that is lost towards both ends, 0 to 1.
        """
        if width * (1 - taper / 2) <= 1.3:  # thinner than that a brush of any shape is an antialiased line
            self.lines([curve], color)
            return
        middle = self.curves[curve] if isinstance(curve, str) else curve
        along = np.empty_like(middle)
        along[1:-1] = middle[2:] - middle[:-2]
        along[0], along[-1] = middle[1] - middle[0], middle[-1] - middle[-2]
        normal = along[:, ::-1] * (-1, 1) / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
        bulge = np.linspace(-1, 1, len(middle)) ** 2
        # OpenCV's antialiased fill covers half a pixel beyond its vertices.
        half = np.maximum(width / 2 * (1 - taper * bulge) - 0.5, 0.1)[:, None] * normal
        self.fill(np.concatenate([middle + half, (middle - half)[::-1]]), color)

    def eyeball(self, side: str, opened: float, *, white: Color, iris: Color, pupil: Color, glint: Color) -> None:
        """What the lids of an eye leave visible."""
        self.fill(f"{side}_eye", white)
        if opened > 0.2:
            self.fill(f"{side}_iris", iris)
            self.fill(f"{side}_pupil", pupil)
        if opened > 0.5:
            self.disc(self.curves[f"{side}_glint"][0], max(self.pen * 0.75, 0.8), glint)

    def spectacle_frame(self, color: Color, rims: float, rest: float) -> None:
        """Rims, bridge and temples of glasses; widths are in pens."""
        left, right = self.curves["left_glass"], self.curves["right_glass"]
        self.lines([left, right], color, self.pen * rims, closed=True)
        bridge = [_nearest(left, right.mean(axis=0)), _nearest(right, left.mean(axis=0))]
        self.lines([np.stack(bridge), "left_temple", "right_temple"], color, self.pen * rest)

    def swirl(self) -> Curve:
        """The spiral of a lollipop."""
        centre, t = self.curves["prop"].mean(axis=0), np.linspace(0.05, 1, 60)
        return centre + 0.33 * self.unit * t[:, None] * np.column_stack([np.cos(15 * t), np.sin(15 * t)])

    def _fixed(self, shape: str | Curve) -> npt.NDArray[np.int32]:
        curve = self.curves[shape] if isinstance(shape, str) else shape
        return np.rint(curve * (1 << _SHIFT)).astype(np.int32)


def _nearest(curve: Curve, place: Curve) -> Curve:
    return curve[np.argmin(np.linalg.norm(curve - place, axis=1))]


def gradient(size: int, corners: npt.ArrayLike) -> Photo:
    """A smooth picture between four colours: top left, top right, bottom left, bottom right."""
    # Through 8 x 8 colours, since the resize is flat for half a cell at the edges.
    share = np.linspace(0, 1, 8)
    weights = np.stack([1 - share, share], axis=1)
    grid = np.einsum("yi,xj,ijc->yxc", weights, weights, np.asarray(corners, dtype=float).reshape(2, 2, 3))
    return cast("Photo", cv2.resize(grid.astype(np.uint8), (size, size), interpolation=cv2.INTER_LINEAR))


def light(picture: Photo, gains: npt.NDArray[np.float64]) -> Photo:
    """The picture lit unevenly; four gains between 0 and 1, ordered as in :func:`gradient`."""
    corners = np.repeat((255 * gains).astype(int), 3)
    return cast("Photo", cv2.multiply(picture, gradient(len(picture), corners), scale=1 / 255))


@cache
def _grain(size: int, amplitude: int, coarse: int) -> npt.NDArray[np.int16]:
    rng = np.random.default_rng([size, amplitude, coarse])
    grain = rng.normal(0, amplitude, (size // coarse + 64, size // coarse + 64)).astype(np.float32)
    grain = cv2.resize(grain, None, fx=coarse, fy=coarse, interpolation=cv2.INTER_CUBIC)
    return np.repeat(np.rint(grain).astype(np.int16)[..., None], 3, axis=2)


def add_grain(picture: Photo, rng: np.random.Generator, amplitude: int, coarse: int = 1) -> Photo:
    """The picture with noise, or with the grain of paper where ``coarse`` is 2 or more pixels.

    The noise is cut from one large sheet at a random place: drawing it anew would cost more than the whole face.
    """
    size = len(picture)
    x, y = rng.integers(0, 64, 2)
    grain = _grain(size, amplitude, coarse)[y : y + size, x : x + size]
    return cast("Photo", cv2.add(picture, grain, dtype=cv2.CV_8U))
