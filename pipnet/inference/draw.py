"""Landmarks drawn on a photo or a frame, in proportion to the face: the same look on 200 and on 4,000 pixels."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np

from pipnet.faces import FaceLandmarks
from pipnet.geometry import box_corners, tight_box
from pipnet.inference.canvas import Canvas, Colour, draw_badges
from pipnet.layouts import PointLayout, get_layout, map_points
from pipnet.pose import rotation_of

# Clear on skin of any colour, and from each other for colour-blind eyes.
PART_COLOURS: dict[str, Colour] = {
    "jaw": (86, 204, 242),
    "brow": (255, 190, 70),
    "nose": (130, 225, 140),
    "eye": (255, 255, 255),
    "mouth": (255, 120, 150),
}
OTHER_COLOURS: tuple[Colour, ...] = ((190, 160, 255), (240, 228, 66), (0, 200, 180), (230, 130, 60))
# For boxes and badges: neighbours in the list are told apart at a glance, and black text is legible on all.
ID_COLOURS: tuple[Colour, ...] = (
    (86, 204, 242),
    (255, 190, 70),
    (130, 225, 140),
    (255, 140, 165),
    (190, 160, 255),
    (240, 228, 66),
    (70, 215, 195),
    (240, 150, 90),
)
_AXIS_COLOURS: tuple[Colour, ...] = ((255, 85, 85), (70, 210, 90), (80, 150, 255))  # right, down, out of the face
_SHADE: Colour = (20, 20, 30)

# Widths as fractions of the face's size, and the least that stays visible, in pixels of the photo. The shade under a
# stroke is wider by a factor.
_LINE, _LEAST_LINE, _LINE_SHADE = 1 / 155, 0.8, 2.0
_FRAME = 1.4  # width of a box, in lines
_RADIUS, _LEAST_RADIUS, _DOT_SHADE = 1 / 95, 1.0, 1.45
_AXIS, _AXIS_WIDTH = 0.45, 1.8  # length, in sizes of the face; width, in lines
_BADGE, _LEAST_BADGE = 1 / 9, 15.0

# A point that the network is sure of is a full dot. Below the first score it gets a dark core, which is largest from
# the second on: a ring; and its lines grow dark and thin. All in steps too small to see, so that a score near a
# threshold makes nothing blink in a video.
_SURE, _DOUBTFUL = 0.5, 0.2
_CORE, _LEAST_RING = 0.72, 0.6  # of the dot's radius; pixels of colour that stay around it
_DIMMED, _THINNED = 0.5, 0.45


def draw_faces(
    image: np.ndarray,
    faces: FaceLandmarks,
    *,
    points: bool = True,
    contours: bool = True,
    boxes: bool = False,
    scores: bool = False,
    ids: bool = False,
    pose: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Draw landmarks on a copy of a photo, or into a frame.

    Widths follow the size of the face. What lies outside the photo is cut off; points that are not finite (not
    labelled) are left out. A point with a score below 0.5 is hollow and its lines are faint: the network does not trust
    it, often because something hides it.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        faces: What to draw, in pixels of this photo.
        points: A dot on every point.
        contours: Lines along the layout's groups; a layout without groups has none.
        boxes: The box that each face was predicted from.
        scores: Colour the dots by their score, red (0) over yellow to green (1), and write the face's score over it.
        ids: Write the face's id over it, on a colour of its own, which its box gets too. Faces without ids
            (``faces.ids`` is None) have none.
        pose: Three axes that turn with the head, from the tip of the nose: red to the picture's right, green down, blue
            to where the nose points (:meth:`FaceLandmarks.head_pose`).
        out: Where to draw: an array like ``image``, contiguous, which saves a new one for each frame of a video. It
            may be ``image`` itself.

    Returns:
        ``out``, or where that is None a new array, RGB uint8 ``(H, W, 3)``.

    Raises:
        ValueError: The image is no such array, ``out`` does not fit it, or ``pose`` is asked of a layout that does not
            have it.

    Example:
        >>> from pipnet.layouts import get_layout
        >>> photo = np.zeros((20, 30, 3), dtype=np.uint8)
        >>> drawn = draw_faces(photo, FaceLandmarks.empty(get_layout("300w_68")))
        >>> drawn.shape, drawn is photo
        ((20, 30, 3), False)
        >>> draw_faces(photo, FaceLandmarks.empty(get_layout("300w_68")), out=photo) is photo
        True
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"draw_faces takes RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if pose:
        faces[:0].head_pose((1, 1))  # says so if the layout has none, also where there is no face
    drawn = _target(image, out)
    badges = []
    for face in faces:
        face_id = int(face.ids[0]) if ids and face.ids is not None else None
        colour = ID_COLOURS[0 if face_id is None else face_id % len(ID_COLOURS)]
        place = _draw_face(drawn, face, colour, points, contours, boxes, scores, pose)
        texts = [] if face_id is None else [(str(face_id), colour)]
        if scores:
            texts.append((f"{face.face_scores[0]:.2f}", _SHADE))
        if texts and place is not None:
            badges.append((texts, *place))
    for badge in badges:  # last, so that no face hides another's
        draw_badges(drawn, *badge)
    return drawn


def part_colours(layout: PointLayout) -> dict[str, Colour]:
    """A colour for every part of a layout: :data:`PART_COLOURS`, and others in turn for parts it does not know."""
    unknown = [part for part in layout.parts() if part not in PART_COLOURS]
    others = {part: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, part in enumerate(unknown)}
    return {part: (PART_COLOURS | others)[part] for part in layout.parts()}


def point_colours(layout: PointLayout) -> list[Colour]:
    """A colour for every point: that of its part, or the first of :data:`OTHER_COLOURS` for points in no group."""
    colours = [OTHER_COLOURS[0]] * layout.num_points
    by_part = part_colours(layout)
    for part, members in layout.parts().items():
        for index in members:
            colours[index] = by_part[part]
    return colours


def _target(image: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    """The array to draw into, which holds the photo."""
    if out is None:
        return image.copy(order="C")
    if out.dtype != np.uint8 or out.shape != image.shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"out must be contiguous and writable uint8 {image.shape}, got {out.dtype} {out.shape}; "
            "np.empty_like(image, order='C') makes one"
        )
    if out is not image:
        np.copyto(out, image)
    return out


def _draw_face(
    image: np.ndarray,
    face: FaceLandmarks,
    colour: Colour,
    points: bool,
    contours: bool,
    boxes: bool,
    scores: bool,
    pose: bool,
) -> tuple[tuple[float, float], float] | None:
    """Draw one face; where its badge goes and how high it is, pixels, or None where nothing of the face is seen."""
    places, box = face.points[0].astype(np.float64), face.boxes[0].astype(np.float64)
    labelled = np.isfinite(places).all(axis=1)
    if not labelled.any():
        return None
    around = tight_box(places[labelled])
    size = _face_size(around, box, image.shape)
    line, radius = max(_LINE * size, _LEAST_LINE), max(_RADIUS * size, _LEAST_RADIUS)
    boxes = boxes and bool(np.isfinite(box).all())
    if boxes:
        corners = box_corners(box, face.angles[0])
        around = tight_box(np.concatenate([around.reshape(2, 2), corners]))
    reach = _DOT_SHADE * radius + 2  # of the widest stroke; a line's is less
    space = reach + (_AXIS * size if pose else 0)
    canvas = Canvas(image, around + np.array([-space, -space, space, space]), finest=line)
    if not canvas.visible:
        return None
    doubts = np.clip((_SURE - np.nan_to_num(face.scores[0])) / (_SURE - _DOUBTFUL), 0, 1)
    if boxes:
        _draw_box(canvas, corners, _FRAME * line, colour)
    if contours:
        _draw_contours(canvas, places, labelled, doubts, line, face.layout)
    if points:
        colours = _score_colours(face.scores[0]) if scores else _palette(face.layout)
        _draw_dots(canvas, places[labelled], radius, colours[labelled], doubts[labelled])
    if pose and labelled.all():
        _draw_pose(canvas, face, image.shape, size, _AXIS_WIDTH * line)
    canvas.finish()
    height = max(_BADGE * size, _LEAST_BADGE)
    return (around[0] - line, around[1] - reach - height / 4), height


def _face_size(around: np.ndarray, box: np.ndarray, shape: tuple[int, ...]) -> float:
    """What widths are in proportion to, pixels: the longer side of the face.

    That of its points or of its box, whichever is smaller, so that one point that went astray makes no thick strokes.
    """
    sides = [float((known[2:] - known[:2]).max()) for known in (around, box) if np.isfinite(known).all()]
    return min(min((side for side in sides if side >= 1), default=1.0), 2.0 * max(shape))


def _draw_box(canvas: Canvas, corners: np.ndarray, width: float, colour: Colour) -> None:
    ends = np.roll(corners, -1, axis=0)
    canvas.lines(corners, ends, np.full(4, _LINE_SHADE * width), [_SHADE] * 4)
    canvas.lines(corners, ends, np.full(4, width), [colour] * 4)


def _draw_contours(
    canvas: Canvas, places: np.ndarray, labelled: np.ndarray, doubts: np.ndarray, width: float, layout: PointLayout
) -> None:
    starts, ends, colours = _contours(layout, labelled.tobytes())
    if not len(starts):
        return
    doubt = np.maximum(doubts[starts], doubts[ends])
    widths = width * (1 - _THINNED * doubt)
    colours = np.round(colours + _DIMMED * doubt[:, None] * (_SHADE - colours)).astype(int).tolist()
    starts, ends = places[starts], places[ends]
    # All shades before all lines, so that none darkens the line of a neighbour.
    canvas.lines(starts, ends, _LINE_SHADE * widths, [_SHADE] * len(starts))
    canvas.lines(starts, ends, widths, colours)


def _draw_dots(canvas: Canvas, centres: np.ndarray, radius: float, colours: np.ndarray, doubts: np.ndarray) -> None:
    radii = np.full(len(centres), radius)
    shades = [_SHADE] * len(centres)
    canvas.dots(centres, _DOT_SHADE * radii, shades)
    canvas.dots(centres, radii, colours.tolist())
    hollow = doubts > 0
    if hollow.any():
        canvas.dots(centres[hollow], min(_CORE * radius, radius - _LEAST_RING) * doubts[hollow], shades)


def _draw_pose(canvas: Canvas, face: FaceLandmarks, shape: tuple[int, ...], size: float, width: float) -> None:
    try:
        angles = face.head_pose((shape[1], shape[0]))[0]
    except (ValueError, cv2.error):  # points on one spot, or so far off that no head can be behind them
        return
    if not np.isfinite(angles).all():
        return
    # Columns: where the axes go that lead right, down and out of the face. The last one that is drawn lies on top:
    # those that lead away from the camera first.
    ends = rotation_of(*angles) * [1.0, 1.0, -1.0]
    order = np.argsort(-ends[2])
    nose = map_points(face.points[0], face.layout, get_layout("300w_68"))[30].astype(np.float64)
    tips = nose + _AXIS * size * ends[:2, order].T
    starts, colours = np.tile(nose, (3, 1)), [_AXIS_COLOURS[axis] for axis in order]
    canvas.lines(starts, tips, np.full(3, _LINE_SHADE * width), [_SHADE] * 3)
    canvas.lines(starts, tips, np.full(3, width), colours)
    forward = tips[np.flatnonzero(order == 2)]  # seen end on it is only this dot
    canvas.dots(forward, np.array([_LINE_SHADE * width]), [_SHADE])
    canvas.dots(forward, np.array([1.4 * width]), [_AXIS_COLOURS[2]])


@lru_cache(maxsize=16)
def _palette(layout: PointLayout) -> np.ndarray:
    return np.array(point_colours(layout))  # (N, 3)


@lru_cache(maxsize=64)
def _contours(layout: PointLayout, labelled: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last point of every line to draw, ``(S,)`` each, and its colour, ``(S, 3)``.

    Args:
        layout: What the points mean.
        labelled: N bytes, 0 for points that are not; lines pass them over.
    """
    of_parts = part_colours(layout)
    pairs: list[tuple[int, int]] = []
    colours: list[Colour] = []
    for group in layout.groups:
        chain = [index for index in group.indices if labelled[index]]
        steps = list(pairwise([*chain, chain[0]] if group.closed and len(chain) > 2 else chain))
        pairs += steps
        colours += [of_parts[group.part]] * len(steps)
    starts, ends = np.array(pairs, dtype=int).reshape(-1, 2).T
    return starts, ends, np.array(colours, dtype=float).reshape(-1, 3)


def _score_colours(scores: np.ndarray) -> np.ndarray:
    """Red at 0, yellow at 0.5, green at 1; ``(N,)`` to ``(N, 3)``."""
    scores = np.clip(np.nan_to_num(scores), 0, 1)
    red, green = np.minimum(1, 2 - 2 * scores), np.minimum(1, 2 * scores)
    return np.round(np.stack([255 * red, 230 * green, np.full(len(scores), 60.0)], axis=1)).astype(int)
