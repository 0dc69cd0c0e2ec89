"""Boxes, the square crop of a face, and its exact inverse.

One convention everywhere: coordinates are 0-based and name pixel *centres*, so an image of width W covers
``[-0.5, W - 0.5]``. A crop of side ``size`` covers exactly the square it was cut from: crop pixel ``u`` has its centre
at ``(u + 0.5) / size`` of the square. Three frames, named by suffix: ``points_px`` (source pixels), ``points_crop``
(crop pixels), ``points_unit`` (fraction of the crop, 0 at its left/top edge and 1 at its right/bottom edge).

A face may be tilted in the picture. Its angle says by how much, in degrees, clockwise as one sees it (the y axis points
down). A box with an angle is a box turned by it about its own centre: ``x0, y0, x1, y1`` before turning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np


def tight_box(points: np.ndarray, angles: np.ndarray | float | None = None) -> np.ndarray:
    """Smallest box that holds the points.

    Args:
        points: ``(..., N, 2)``, any frame. NaN points (not labelled) are skipped.
        angles: ``(...)``, degrees: the box is the smallest of those turned by so much. None: upright.

    Returns:
        ``(..., 4)`` as ``x0, y0, x1, y1`` in the same frame; with angles, before it is turned about its own centre.

    Example:
        >>> tight_box(np.array([[2.0, 5.0], [8.0, 1.0]])).tolist()
        [2.0, 1.0, 8.0, 5.0]
        >>> tight_box(np.array([[0.0, 0.0], [6.0, 6.0]]), 45).round(1).tolist()  # as wide as the diagonal is long
        [-1.2, 3.0, 7.2, 3.0]
    """
    if angles is None:
        return np.concatenate([np.nanmin(points, axis=-2), np.nanmax(points, axis=-2)], axis=-1)
    angles = np.asarray(angles, dtype=np.float64)
    centre, size = centre_and_size(tight_box(turned(points, -angles[..., None])))
    return box_around(turned(centre, angles), size)


def centre_and_size(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres, and widths with heights, ``(..., 2)`` each, of boxes ``(..., 4)``."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]


def box_around(centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Boxes ``(..., 4)`` of a width and height ``(..., 2)`` about their centres ``(..., 2)``."""
    return np.concatenate([centre - size / 2, centre + size / 2], axis=-1)


def turned(vectors: np.ndarray, angles: np.ndarray | float) -> np.ndarray:
    """Vectors ``(..., 2)`` turned clockwise in the picture about the origin, by degrees that broadcast to ``(...)``.

    Example:
        >>> turned(np.array([1.0, 0.0]), 90).round(6).tolist()  # from the right to the bottom
        [0.0, 1.0]
    """
    radians = np.deg2rad(angles)
    cos, sin = np.cos(radians), np.sin(radians)
    x, y = vectors[..., 0], vectors[..., 1]
    return np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)


def box_corners(boxes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The four corners ``(..., 4, 2)`` of boxes ``(..., 4)`` turned by ``(...)`` degrees, in the order of drawing.

    The first is the upper left one as the face sees it.
    """
    centre, size = centre_and_size(boxes[..., None, :])
    return centre + turned(size / 2 * [[-1, -1], [1, -1], [1, 1], [-1, 1]], np.asarray(angles)[..., None])


def scale_boxes(boxes: np.ndarray, factor: float) -> np.ndarray:
    """Boxes ``(..., 4)`` made larger or smaller about their centres."""
    centre, size = centre_and_size(boxes)
    return box_around(centre, size * factor)


def boxes_seen_turned(boxes: np.ndarray, by: np.ndarray | float, aspect: float = 1.0) -> np.ndarray:
    """Upright boxes around faces of any tilt, as boxes in a frame turned by some degrees: same centres and areas.

    An upright box says how large a face is, whichever way it is tilted. It says how wide and how high the face is in
    frames at right angles to it, less in those between, and nothing half way: there ``aspect`` counts, width over
    height of such a box around an upright face.
    """
    centre, size = centre_and_size(boxes)
    own = np.maximum(size[..., 0], 1e-9) / np.maximum(size[..., 1], 1e-9)
    share = np.cos(2 * np.deg2rad(by))  # 1 upright, -1 at right angles
    stretch = np.sqrt(own**share * aspect ** (1 - np.abs(share)))
    side = box_size(boxes)
    return box_around(centre, np.stack([side * stretch, side / stretch], axis=-1))


def roll_angles(points: np.ndarray, upright: np.ndarray) -> np.ndarray:
    """How far faces are tilted clockwise in the picture: the turn that brings an upright face nearest to their points.

    The least-squares turn of Procrustes analysis. A head that looks aside keeps its vertical, so it comes out right.

    Args:
        points: ``(..., N, 2)``, any frame.
        upright: ``(N, 2)``, the same points of an upright face, any frame and size; a network's mean face.

    Returns:
        ``(...)``, degrees in (-180, 180]; 0 where all points lie on one spot.
    """
    # As complex numbers, a turn is a factor.
    found = np.ascontiguousarray(points, dtype=np.float64).view(np.complex128)[..., 0]
    wanted = np.ascontiguousarray(upright, dtype=np.float64).view(np.complex128)[:, 0].conj()
    return np.angle(found @ (wanted - wanted.mean()), deg=True)


def angle_between(a: np.ndarray, b: np.ndarray | float) -> np.ndarray:
    """How far ``a`` is turned from ``b``, the shorter way: degrees in [-180, 180)."""
    return (a - b + 180.0) % 360.0 - 180.0


def box_size(boxes: np.ndarray) -> np.ndarray:
    """Size of boxes as ``sqrt(width * height)``, the norm of box-normalised errors; ``(..., 4)`` to ``(...)``."""
    boxes = np.asarray(boxes)
    return np.sqrt((boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]))


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Overlap of boxes ``(A, 4)`` with boxes ``(B, 4)``: intersection over union ``(A, B)`` in [0, 1]."""
    corner0 = np.maximum(a[:, None, :2], b[None, :, :2])
    corner1 = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.clip(corner1 - corner0, 0, None).prod(axis=-1)  # (A, B)
    area_a = (a[:, 2:] - a[:, :2]).prod(axis=-1)
    area_b = (b[:, 2:] - b[:, :2]).prod(axis=-1)
    union = area_a[:, None] + area_b[None] - overlap
    return np.divide(overlap, union, out=np.zeros_like(overlap, dtype=float), where=union > 0)


def crop_squares(boxes: np.ndarray, crop_scale: float) -> np.ndarray:
    """The square that is cut around each box: same centre, side ``crop_scale`` times the longer side.

    Args:
        boxes: ``(F, 4)`` as ``x0, y0, x1, y1``, source pixels.
        crop_scale: Larger than 0; 1 touches the box.

    Returns:
        ``(F, 3)``: centre x, centre y, side.

    Raises:
        ValueError: If a box has no extent or is not finite; the message names it.
    """
    # Here and in the crops below: plain numbers for what is one face. A network that ran before has emptied the caches,
    # and then each NumPy call takes 5 to 10 microseconds.
    squares = []
    for index, box in enumerate(np.asarray(boxes, dtype=np.float64).reshape(-1, 4).tolist()):
        x0, y0, x1, y1 = box
        longer = max(x1 - x0, y1 - y0)
        if not (longer > 0 and x0 <= x1 and y0 <= y1 and all(map(math.isfinite, box))):
            raise ValueError(f"box {index} {box} has no extent; boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1")
        squares.append(((x0 + x1) / 2, (y0 + y1) / 2, crop_scale * longer))
    return np.array(squares).reshape(-1, 3)


@dataclass(frozen=True)
class Crop:
    """An affine map from source pixels to the pixels of a square crop, and back.

    Attributes:
        matrix: ``(2, 3)``: ``points_crop = matrix @ (x_px, y_px, 1)``.
        size: Side of the crop in pixels.

    Example:
        >>> crop = crop_of_square(np.array([50.0, 40.0, 20.0]), size=10)
        >>> crop.to_crop(np.array([[50.0, 40.0]])).tolist()  # the centre of 10 pixels lies between 4 and 5
        [[4.5, 4.5]]
        >>> crop.to_source(crop.to_crop(np.array([[47.0, 31.5]]))).tolist()
        [[47.0, 31.5]]
    """

    matrix: np.ndarray
    size: int

    def to_crop(self, points_px: np.ndarray) -> np.ndarray:
        """Source pixels to crop pixels, ``(..., 2)``."""
        return points_px @ self.matrix[:, :2].T + self.matrix[:, 2]

    def to_source(self, points_crop: np.ndarray) -> np.ndarray:
        """Crop pixels to source pixels, ``(..., 2)``; the exact inverse of :meth:`to_crop`."""
        return (points_crop - self.matrix[:, 2]) @ np.linalg.inv(self.matrix[:, :2]).T

    def to_unit(self, points_px: np.ndarray) -> np.ndarray:
        """Source pixels to fractions of the crop, ``(..., 2)``."""
        return (self.to_crop(points_px) + 0.5) / self.size

    def from_unit(self, points_unit: np.ndarray) -> np.ndarray:
        """Fractions of the crop to source pixels, ``(..., 2)``."""
        return self.to_source(points_unit * self.size - 0.5)

    def warp(
        self, image: np.ndarray, border: tuple[int, int, int] = (0, 0, 0), out: np.ndarray | None = None
    ) -> np.ndarray:
        """Cut the crop out of an image with one bilinear warp.

        A face much larger than the crop would alias, so where the map shrinks by 2 or more its region is first
        averaged down by the whole factor (``cv2.INTER_AREA``) and the warp starts from there. Only the region under the
        crop is read, however large the image.

        Args:
            image: uint8 ``(H, W, 3)``.
            border: Colour where the photo ends.
            out: Written to and returned, if given: uint8 ``(size, size, 3)``, contiguous; a slot of a batch.

        Returns:
            uint8 ``(size, size, 3)``.

        Raises:
            ValueError: ``out`` is no such array.
        """
        shape = (self.size, self.size, 3)
        if out is None:
            out = np.empty(shape, dtype=np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(
                f"out must be writeable contiguous uint8 {shape}, got {out.dtype} {out.shape}; take a slot of a batch"
            )
        (a, b, _), (c, d, _) = self.matrix.tolist()
        shrink = int(1 / max(math.sqrt(abs(a * d - b * c)), 1e-9) + 1e-6)
        shrink = max(min(shrink, max(image.shape[:2])), 1)  # a box far larger than the photo
        region, matrix = self._region(image, shrink)
        # OpenCV 5 warps four channels more than twice as fast as three, and to the same values.
        warped = cv2.warpAffine(
            cv2.cvtColor(region, cv2.COLOR_RGB2RGBA),
            matrix,
            (self.size, self.size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=border,
        )
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=out)
        return out

    def _region(self, image: np.ndarray, shrink: int) -> tuple[np.ndarray, np.ndarray]:
        """The region under the crop averaged down ``shrink`` times, and the map from it to the crop."""
        height, width = image.shape[:2]
        (a, b, x), (c, d, y) = self.matrix.tolist()
        # The rows of its inverse. Rounded only once for upright crops, so that edges on whole pixels stay there.
        det = a * d - b * c
        to_x, to_y = ((d / det, -b / det), (-c / det, a / det)) if b or c else ((1 / a, 0.0), (0.0, 1 / d))
        us, vs = (-0.5 - x, self.size - 0.5 - x), (-0.5 - y, self.size - 0.5 - y)  # outer edges of the crop
        xs = [to_x[0] * u + to_x[1] * v for u in us for v in vs]
        ys = [to_y[0] * u + to_y[1] * v for u in us for v in vs]
        # One reduced pixel of margin, so that the bilinear warp sees what lies just outside the square.
        x0 = min(max(math.floor(min(xs)) - shrink, 0), width - 1)
        y0 = min(max(math.floor(min(ys)) - shrink, 0), height - 1)
        x1 = min(max(math.ceil(max(xs)) + shrink + 1, x0 + 1), width)
        y1 = min(max(math.ceil(max(ys)) + shrink + 1, y0 + 1), height)
        # To whole blocks, as far as the photo goes.
        region = image[y0 : y1 + -(y1 - y0) % shrink, x0 : x1 + -(x1 - x0) % shrink]
        if shrink > 1:
            region = _reduced(region, shrink)
        # A reduced pixel i has its centre at x0 + i * shrink + (shrink - 1) / 2 of the source.
        x_first, y_first = x0 + (shrink - 1) / 2, y0 + (shrink - 1) / 2
        offset = a * x_first + b * y_first + x, c * x_first + d * y_first + y
        return region, np.array([[a * shrink, b * shrink, offset[0]], [c * shrink, d * shrink, offset[1]]])


def _reduced(image: np.ndarray, shrink: int) -> np.ndarray:
    """An image averaged down ``shrink`` times.

    Whole blocks only, so that every reduced pixel is a mean of exactly ``shrink x shrink`` pixels. Where the image ends
    within a block its last pixels are repeated: leaving the block out would darken the rim of the crop.
    """
    height, width = image.shape[:2]
    extra = (-height % shrink, -width % shrink)
    if (height + extra[0]) * (width + extra[1]) < 2 * height * width:
        return _block_means(image, (shrink, shrink), extra)
    # A photo of few rows or columns, of which most of a block would be repetition: the long axis first, or a strip of a
    # million pixels would become a square of them.
    rows, columns = ((shrink, 1), (extra[0], 0)), ((1, shrink), (0, extra[1]))
    for block, repeated in (rows, columns) if height > width else (columns, rows):
        image = _block_means(image, block, repeated)
    return image


def _block_means(image: np.ndarray, block: tuple[int, int], extra: tuple[int, int]) -> np.ndarray:
    """Means of blocks of (rows, columns), after the last row and column are repeated ``extra`` times."""
    if extra != (0, 0):
        image = cv2.copyMakeBorder(image, 0, extra[0], 0, extra[1], cv2.BORDER_REPLICATE)
    size = (image.shape[1] // block[1], image.shape[0] // block[0])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def crop_of_square(square: np.ndarray, size: int, angle: float = 0.0) -> Crop:
    """The crop of a square, in which a face that is tilted by ``angle`` is upright.

    Args:
        square: ``(3,)``: centre x, centre y, side, in source pixels (a row of :func:`crop_squares`).
        size: Side of the crop in pixels.
        angle: Degrees, how far face and square are tilted clockwise in the photo.
    """
    if angle:
        return affine_crop(square[:2], (float(square[2]), float(square[2])), size, angle=-float(angle))
    x, y, side = map(float, square)
    scale, middle = size / side, (size - 1) / 2
    return Crop(np.array([[scale, 0.0, middle - scale * x], [0.0, scale, middle - scale * y]]), size)


def affine_crop(
    centre: np.ndarray,
    side: tuple[float, float],
    size: int,
    *,
    angle: float = 0.0,
    tilt: float = 0.0,
    mirror: bool = False,
) -> Crop:
    """A crop that may also be turned, stretched and mirrored: what augmentation composes into one warp.

    Args:
        centre: Centre of the region, ``(2,)``, source pixels.
        side: Width and height of the region before turning, source pixels.
        size: Side of the crop in pixels.
        angle: Degrees the face turns clockwise in the crop (the y axis points down).
        tilt: Degrees the region is tilted clockwise in the photo; it is made upright before it is stretched and turned.
        mirror: Whether the crop is mirrored, ``x -> size - 1 - x`` in crop pixels. Points need
            ``PointLayout.mirror`` as well.
    """
    radians = np.deg2rad(angle)
    cos, sin = np.cos(radians), np.sin(radians)
    linear = np.array([[cos, -sin], [sin, cos]]) @ np.diag([size / side[0], size / side[1]])
    if tilt:
        linear = linear @ turned(np.eye(2), tilt)
    if mirror:
        linear = np.diag([-1.0, 1.0]) @ linear
    offset = (size - 1) / 2 - linear @ np.asarray(centre, dtype=np.float64)
    return Crop(np.column_stack([linear, offset]), size)
