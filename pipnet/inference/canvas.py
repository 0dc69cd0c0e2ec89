"""Antialiased strokes and labels on a part of a photo, with subpixel places and widths, fast enough for live video."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

Colour = tuple[int, int, int]  # RGB

_SUBPIXEL_BITS = 4
# OpenCV's antialiased shapes come out larger than asked for; measured, in pixels: the radius of a disc, the width of a
# thin polygon. What is asked for is less by as much.
_DISC_GROWS, _POLYGON_GROWS = 0.55, 1.4
# That leaves the thinnest line 1.4 pixels wide, so fine strokes go to a canvas of twice the photo's size, which is
# reduced again; from this width in pixels on they go straight into the photo, which is faster.
_FINE = 2.0
_ZOOM = 2
_LARGEST_CANVAS = 2**23  # pixels; a larger one (points scattered over a huge photo) costs more than it is worth


class Canvas:
    """The part of a photo that holds one face, to draw on; :meth:`finish` puts it back.

    Args:
        image: RGB uint8 ``(H, W, 3)``, contiguous; drawn into.
        bounds: ``(4,)``, ``x0, y0, x1, y1``, photo pixels: what will be drawn on. It may lie outside of the photo.
        finest: Width of the finest stroke that will be drawn, photo pixels.

    Attributes:
        visible: Whether any of it lies in the photo; if not, drawing does nothing.

    Example:
        >>> photo = np.zeros((9, 9, 3), dtype=np.uint8)
        >>> canvas = Canvas(photo, np.array([4.0, 4.0, 4.0, 4.0]), finest=2.0)
        >>> canvas.dots(np.array([[4.0, 4.0]]), np.array([2.0]), [(255, 0, 0)])
        >>> canvas.finish()
        >>> photo[4, 4].tolist(), photo[0, 0].tolist()
        ([255, 0, 0], [0, 0, 0])
    """

    def __init__(self, image: np.ndarray, bounds: np.ndarray, finest: float) -> None:
        limit = np.array(image.shape[1::-1])
        corner = np.clip(np.floor(bounds[:2]), 0, limit).astype(int)
        end = np.clip(np.ceil(bounds[2:]) + 1, 0, limit).astype(int)
        (x0, y0), (x1, y1) = corner.tolist(), end.tolist()
        self._part = image[y0:y1, x0:x1]
        self._corner = corner
        self.visible = bool(self._part.size)
        self._zoom = 1
        self._pixels = self._part
        if finest < _FINE and self.visible and self._part.size // 3 * _ZOOM**2 <= _LARGEST_CANVAS:
            self._zoom = _ZOOM
            self._pixels = cv2.resize(self._part, None, fx=_ZOOM, fy=_ZOOM, interpolation=cv2.INTER_NEAREST)

    def lines(self, starts: np.ndarray, ends: np.ndarray, widths: np.ndarray, colours: Sequence[Colour]) -> None:
        """Straight strokes, with square ends that reach over by half the width, so that a chain has no gaps.

        Args:
            starts: ``(S, 2)``, photo pixels; finite, any size.
            ends: ``(S, 2)``, photo pixels.
            widths: ``(S,)``, photo pixels.
            colours: S colours.
        """
        if not self.visible:
            return
        half = np.maximum(widths * self._zoom - _POLYGON_GROWS, 0.1)[:, None] / 2  # (S, 1), canvas pixels
        starts, ends, seen = self._cut(self._on_canvas(starts), self._on_canvas(ends), margin=4 * float(half.max()) + 4)
        along = ends - starts
        length = np.sqrt((along * along).sum(axis=1, keepdims=True))
        along = np.divide(along, length, out=np.tile([1.0, 0.0], (len(along), 1)), where=length > 1e-9) * half
        across = along[:, ::-1] * [-1.0, 1.0]
        starts, ends = starts - along, ends + along
        corners = np.stack([starts - across, ends - across, ends + across, starts + across], axis=1)  # (S, 4, 2)
        fixed = np.round(corners * 2**_SUBPIXEL_BITS).astype(np.int32)
        pixels = self._pixels
        for index in np.flatnonzero(seen).tolist():
            cv2.fillConvexPoly(pixels, fixed[index], colours[index], cv2.LINE_AA, _SUBPIXEL_BITS)

    def dots(self, centres: np.ndarray, radii: np.ndarray, colours: Sequence[Colour]) -> None:
        """Discs.

        Args:
            centres: ``(N, 2)``, photo pixels; finite, any size.
            radii: ``(N,)``, photo pixels.
            colours: N colours.
        """
        if not self.visible:
            return
        centres = self._on_canvas(centres)
        radii = radii * self._zoom
        reach = radii[:, None] + 2
        seen = ((centres > -reach) & (centres < np.array(self._pixels.shape[1::-1]) + reach)).all(axis=1)
        fixed = np.round(np.where(seen[:, None], centres, 0) * 2**_SUBPIXEL_BITS).astype(int).tolist()
        radii = np.round(np.maximum(radii - _DISC_GROWS, 0.1) * 2**_SUBPIXEL_BITS).astype(int).tolist()
        pixels = self._pixels
        for index in np.flatnonzero(seen).tolist():
            cv2.circle(pixels, fixed[index], radii[index], colours[index], cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)

    def finish(self) -> None:
        """Put what was drawn into the photo."""
        if self._zoom > 1:
            height, width = self._part.shape[:2]
            # The mean of a pixel's copies is the pixel: where nothing was drawn, nothing changes.
            self._part[:] = cv2.resize(self._pixels, (width, height), interpolation=cv2.INTER_AREA)

    def _on_canvas(self, points: np.ndarray) -> np.ndarray:
        # A photo pixel's centre is the middle of its zoom x zoom canvas pixels. 64 bits: points may be at 1e9.
        return (np.asarray(points, dtype=np.float64) - self._corner + 0.5) * self._zoom - 0.5

    def _cut(self, starts: np.ndarray, ends: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Segments cut to the canvas and a margin, and which of them reach it: OpenCV's numbers have 32 bits."""
        low, high = np.full(2, -margin), np.array(self._pixels.shape[1::-1]) + margin
        both = np.stack([starts, ends])
        if (both > low).all() and (both < high).all():
            return starts, ends, np.ones(len(starts), dtype=bool)
        along = ends - starts
        # Where along the segment (0 to 1) each edge is crossed. A segment along an edge divides by 0: inf is right.
        with np.errstate(divide="ignore", invalid="ignore"):
            crossings = np.sort(np.stack([(low - starts) / along, (high - starts) / along]), axis=0)
        enter = np.clip(np.nan_to_num(crossings[0].max(axis=1), nan=2.0), 0, None)[:, None]
        leave = np.clip(np.nan_to_num(crossings[1].min(axis=1), nan=-1.0), None, 1)[:, None]
        seen = (enter <= leave)[:, 0]
        enter, leave = np.where(seen[:, None], enter, 0), np.where(seen[:, None], leave, 0)
        cut = np.where(seen[None, :, None], np.stack([starts + enter * along, starts + leave * along]), 0)
        return cut[0], cut[1], seen


def draw_badges(
    image: np.ndarray, texts: Sequence[tuple[str, Colour]], corner: tuple[float, float], height: float
) -> None:
    """Short texts side by side, each on a rounded ground of its own, light or dark as the ground needs.

    Args:
        image: RGB uint8 ``(H, W, 3)``; drawn into.
        texts: Each with the colour of its ground.
        corner: Where the row's lower left corner goes, photo pixels; moved as far as needed to stay in the photo.
        height: Of a badge, photo pixels.
    """
    patches = [_badge(text, max(round(height), 8)) for text, _ in texts]
    gap = patches[0][0].shape[0] // 6
    width = sum(ground.shape[1] + gap for ground, _ in patches) - gap
    rows, columns = image.shape[:2]
    x = int(np.clip(corner[0], 0, max(columns - width, 0)))
    y = int(np.clip(corner[1] - patches[0][0].shape[0], 0, max(rows - patches[0][0].shape[0], 0)))
    for (ground, ink), (_, colour) in zip(patches, texts, strict=True):
        part = image[y : y + ground.shape[0], x : x + ground.shape[1]]
        ground, ink = ground[: part.shape[0], : part.shape[1]], ink[: part.shape[0], : part.shape[1]]
        bright = np.dot(colour, (0.299, 0.587, 0.114)) > 128
        layer = part + ground * (np.array(colour) - part)
        part[:] = np.round(layer + ink * ((20 if bright else 255) - layer))
        x += ground.shape[1] + gap
        if x >= columns:
            break


@lru_cache(maxsize=512)
def _badge(text: str, height: int) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel the ground and the text cover, float32 ``(height, w, 1)`` each, in [0, 1]."""
    zoom = 1 if height > 100 else 4
    tall = height * zoom
    scale = 0.52 * tall / 21  # Hershey's figures are 21 pixels high at scale 1
    stroke = max(round(0.085 * tall), 1)
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
    wide = max(-(-(width + round(0.55 * tall)) // zoom), height) * zoom
    ground, ink = np.zeros((2, tall, wide), dtype=np.uint8)
    middle = tall // 2
    cv2.line(ground, (middle, middle), (wide - 1 - middle, middle), 255, tall - 2 * zoom, cv2.LINE_AA)
    place = ((wide - width) // 2, middle + round(0.26 * tall))
    cv2.putText(ink, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, stroke, cv2.LINE_AA)
    size = (wide // zoom, height)
    covers = [cv2.resize(layer, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255 for layer in (ground, ink)]
    return covers[0].reshape(height, -1, 1), covers[1].reshape(height, -1, 1)
