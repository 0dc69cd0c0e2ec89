"""Landmarks drawn on a photo or a frame, in proportion to the face: the same look on 200 and on 4,000 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import cycle, pairwise

import cv2
import numpy as np

from pipnet.geometry import box_corners, tight_box
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import PointLayout, get_layout, map_points
from pipnet.measurements import rotation_of

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


class _Canvas:
    """The part of a photo that holds one face, for antialiased strokes; :meth:`finish` puts it back.

    Args:
        image: RGB uint8 ``(H, W, 3)``, contiguous; drawn into.
        bounds: ``(4,)``, ``x0, y0, x1, y1``, photo pixels: what will be drawn on. It may lie outside of the photo.
        finest: Width of the finest stroke that will be drawn, photo pixels.

    Attributes:
        visible: Whether any of it lies in the photo; if not, nothing may be drawn.
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

        Starts and ends ``(S, 2)`` and widths ``(S,)`` are photo pixels; finite, any size.
        """
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
        """Discs; centres ``(N, 2)`` and radii ``(N,)`` are photo pixels; finite, any size."""
        centres = self._on_canvas(centres)
        radii = radii * self._zoom
        reach = radii[:, None] + 2
        seen = np.all((centres > -reach) & (centres < np.array(self._pixels.shape[1::-1]) + reach), axis=1)
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


def _draw_badges(
    image: np.ndarray, texts: Sequence[tuple[str, Colour]], corner: tuple[float, float], height: float
) -> None:
    """Short texts side by side, each on a rounded ground of its own colour, light or dark as the ground needs.

    ``corner`` is where the row's lower left corner goes, moved as far as needed to stay in the photo; pixels.
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
    labelled) are skipped. A point with a score below 0.5 is hollow and its lines are faint: the network does not trust
    it, often because something hides it.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        faces: What to draw, in pixels of this photo.
        points: A dot on every point.
        contours: Lines along the layout's groups.
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
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"draw_faces takes RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
    if pose:
        faces[:0].head_pose((1, 1))  # says so if the layout has none, also where there is no face
    if out is None:
        drawn = image.copy(order="C")
    elif out.dtype != np.uint8 or out.shape != image.shape or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(
            f"out must be contiguous and writable uint8 {image.shape}, got {out.dtype} {out.shape}; "
            "np.empty_like(image, order='C') makes one"
        )
    else:
        drawn = out
        if out is not image:
            np.copyto(out, image)
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
        _draw_badges(drawn, *badge)
    return drawn


def part_colours(layout: PointLayout) -> dict[str, Colour]:
    """A colour for every part of a layout: :data:`PART_COLOURS`, and others in turn for parts it does not know."""
    others = cycle(OTHER_COLOURS)
    return {part: PART_COLOURS[part] if part in PART_COLOURS else next(others) for part in layout.parts()}


def point_colours(layout: PointLayout) -> list[Colour]:
    """A colour for every point: that of its part, or the first of :data:`OTHER_COLOURS` for points in no group."""
    colours = [OTHER_COLOURS[0]] * layout.num_points
    by_part = part_colours(layout)
    for part, members in layout.parts().items():
        for index in members:
            colours[index] = by_part[part]
    return colours


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
    corners = box_corners(box, face.angles[0]) if boxes and np.isfinite(box).all() else None
    if corners is not None:
        around = tight_box(np.concatenate([around.reshape(2, 2), corners]))
    reach = _DOT_SHADE * radius + 2  # of the widest stroke; a line's is less
    space = reach + (_AXIS * size if pose else 0)
    canvas = _Canvas(image, around + np.array([-space, -space, space, space]), finest=line)
    if not canvas.visible:
        return None
    doubts = np.clip((_SURE - np.nan_to_num(face.scores[0])) / (_SURE - _DOUBTFUL), 0, 1)
    if corners is not None:
        _draw_lines(canvas, corners, np.roll(corners, -1, axis=0), np.full(4, _FRAME * line), [colour] * 4)
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
    """What widths are in proportion to, pixels: the longer side of the face's points or of its box, the smaller one.

    So one point that went astray makes no thick strokes.
    """
    sides = [float((known[2:] - known[:2]).max()) for known in (around, box) if np.isfinite(known).all()]
    return min(min((side for side in sides if side >= 1), default=1.0), 2.0 * max(shape))


def _draw_lines(
    canvas: _Canvas, starts: np.ndarray, ends: np.ndarray, widths: np.ndarray, colours: Sequence[Colour]
) -> None:
    """All shades before all lines, so that none darkens the line of a neighbour."""
    canvas.lines(starts, ends, _LINE_SHADE * widths, [_SHADE] * len(starts))
    canvas.lines(starts, ends, widths, colours)


def _draw_contours(
    canvas: _Canvas, places: np.ndarray, labelled: np.ndarray, doubts: np.ndarray, width: float, layout: PointLayout
) -> None:
    starts, ends, colours = _contours(layout, labelled.tobytes())
    if not len(starts):
        return
    doubt = np.maximum(doubts[starts], doubts[ends])
    widths = width * (1 - _THINNED * doubt)
    colours = np.round(colours + _DIMMED * doubt[:, None] * (_SHADE - colours)).astype(int).tolist()
    _draw_lines(canvas, places[starts], places[ends], widths, colours)


def _draw_dots(canvas: _Canvas, centres: np.ndarray, radius: float, colours: np.ndarray, doubts: np.ndarray) -> None:
    radii = np.full(len(centres), radius)
    shades = [_SHADE] * len(centres)
    canvas.dots(centres, _DOT_SHADE * radii, shades)
    canvas.dots(centres, radii, colours.tolist())
    hollow = doubts > 0
    if hollow.any():
        canvas.dots(centres[hollow], min(_CORE * radius, radius - _LEAST_RING) * doubts[hollow], shades)


def _draw_pose(canvas: _Canvas, face: FaceLandmarks, shape: tuple[int, ...], size: float, width: float) -> None:
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
    _draw_lines(canvas, starts, tips, np.full(3, width), colours)
    forward = tips[np.flatnonzero(order == 2)]  # seen end on it is only this dot
    canvas.dots(forward, np.array([_LINE_SHADE * width]), [_SHADE])
    canvas.dots(forward, np.array([1.4 * width]), [_AXIS_COLOURS[2]])


@lru_cache(maxsize=16)
def _palette(layout: PointLayout) -> np.ndarray:
    return np.array(point_colours(layout))  # (N, 3)


@lru_cache(maxsize=64)
def _contours(layout: PointLayout, labelled: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last point of every line to draw, ``(S,)`` each, and its colour, ``(S, 3)``.

    ``labelled`` has a byte a point, 0 for those that are not; lines pass them over.
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
