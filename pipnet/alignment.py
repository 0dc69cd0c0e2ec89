"""Upright crops: a similarity transform that brings the two eyes of every face to the same two places."""

from __future__ import annotations

import numpy as np

from pipnet.geometry import Crop, tight_box
from pipnet.layouts import PointLayout, can_map, get_layout, map_points

EYES_AT = ((0.36, 0.38), (0.64, 0.38))
"""Left and right eye of the picture in an upright crop, fractions of its side (``points_unit``).

The lowest point of the jaw then lies at 0.90 of the crop's height in the median, and above 0.98 for 19 faces in 20 (202
validation faces of 300W).
"""

# The eyes of a head in profile come close together in the picture; brought to their places, its nose would fill the
# crop. So their distance counts as at least this share of the longer side of the tight box of the points, and they come
# out closer to each other than EYES_AT says. Seen from the front it is 0.43 in the median of the same faces.
_LEAST_DISTANCE = 0.35


def eye_centres(points: np.ndarray, layout: PointLayout) -> np.ndarray:
    """Middle of each eye: of its outline where the layout has one, else what the layout calls the pupil.

    Args:
        points: ``(F, N, 2)``, any frame.
        layout: What the N points mean: ``300w_68``, one that maps to it, or one with ``pupils``.

    Returns:
        ``(F, 2, 2)``: left and right eye of the picture, ``x, y``.

    Raises:
        ValueError: The layout has no eyes.
    """
    outlines = get_layout("300w_68")
    if can_map(layout, outlines):  # the outline does not follow the gaze, as WFLW's pupils do
        points, layout = map_points(points, layout, outlines), outlines
    if layout.pupils is None:
        raise ValueError(f"layout {layout.name!r} has no eyes to align; give its 'pupils', the points of each eye")
    return np.stack([points[:, list(side)].mean(axis=1) for side in layout.pupils], axis=1)


def upright_crops(
    points: np.ndarray,
    layout: PointLayout,
    size: int,
    *,
    eyes: tuple[tuple[float, float], tuple[float, float]] = EYES_AT,
) -> list[Crop]:
    """The map from source pixels to the upright crop of every face.

    Args:
        points: ``(F, N, 2)``, source pixels.
        layout: See :func:`eye_centres`.
        size: Side of the crops in pixels.
        eyes: Where left and right eye of the picture go, fractions of the side. Of a head turned so far aside that its
            eyes are near each other, only the middle between them and the angle of their line: it would be cut off.

    Raises:
        ValueError: The layout has no eyes, the size is not positive, both ``eyes`` are one place, or the points of a
            face are not finite or lie on one spot; the message names it.
    """
    if size < 1:
        raise ValueError(f"the size of the crops must be at least 1 pixel, got {size}")
    points = np.asarray(points, dtype=np.float64)
    wanted = np.asarray(eyes, dtype=np.float64)
    if wanted.shape != (2, 2) or not np.isfinite(wanted).all() or (wanted[0] == wanted[1]).all():
        raise ValueError(f"eyes must be two different places ((x, y), (x, y)), fractions of the crop, got {eyes}")
    if not len(points):
        return []
    bad = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)) | ~np.ptp(points, axis=1).any(axis=1))
    if bad.size:
        raise ValueError(f"face {bad[0]}: its points are not finite or lie on one spot; leave it out")
    boxes = tight_box(points)
    least = _LEAST_DISTANCE * (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    found = eye_centres(points, layout)  # (F, 2, 2)
    # As complex numbers a turn with a scale is one factor.
    across = (found[:, 1] - found[:, 0]) @ [1, 1j]  # (F,), source pixels
    across_wanted = (wanted[1] - wanted[0]) @ [1, 1j]
    direction = np.where(across == 0, 1, across / np.where(across == 0, 1, np.abs(across)))
    side = np.maximum(np.abs(across), least) / abs(across_wanted)  # of the crop, source pixels
    factor = across_wanted / abs(across_wanted) / direction * (size / side)
    linear = np.stack([factor.real, -factor.imag, factor.imag, factor.real], axis=1).reshape(-1, 2, 2)
    offset = wanted.mean(axis=0) * size - 0.5 - np.einsum("fij,fj->fi", linear, found.mean(axis=1))
    return [Crop(np.column_stack([a, b]), size) for a, b in zip(linear, offset, strict=True)]
