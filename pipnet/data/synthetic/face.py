"""The geometry of a synthetic face: a small 3D template of the 68 points, bent by expression, turned and projected.

With the curves through them and around them: hair, ears, glasses. The template is one half of a face; the other half is
its mirror image, so mirroring a face and permuting its points by ``PointLayout.mirror`` gives another face of the same
family. Template units: half the width of the jaw is 1, x points to the right of the picture, y down, z towards the
viewer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

from pipnet.geometry import tight_box
from pipnet.layouts import get_layout

Array = npt.NDArray[np.float64]
Curves = dict[str, Array]  # name to (n, 2), source pixels

# Index, x, y, z of the picture's left half, midline included.
_HALF = np.array(
    [
        *[(0, -1.00, -0.25, -0.20), (1, -0.99, 0.02, -0.20), (2, -0.95, 0.29, -0.18), (3, -0.87, 0.55, -0.13)],
        *[(4, -0.75, 0.79, -0.06), (5, -0.58, 0.99, 0.02), (6, -0.38, 1.14, 0.10), (7, -0.19, 1.23, 0.16)],
        (8, 0.00, 1.26, 0.18),
        *[(17, -0.80, -0.46, 0.02), (18, -0.67, -0.57, 0.14), (19, -0.50, -0.61, 0.22), (20, -0.33, -0.58, 0.27)],
        (21, -0.18, -0.50, 0.30),
        *[(27, 0.00, -0.28, 0.30), (28, 0.00, -0.11, 0.39), (29, 0.00, 0.06, 0.48), (30, 0.00, 0.22, 0.57)],
        *[(31, -0.19, 0.35, 0.32), (32, -0.10, 0.40, 0.40), (33, 0.00, 0.42, 0.45)],
        *[(36, -0.64, -0.22, 0.08), (37, -0.53, -0.34, 0.16), (38, -0.37, -0.34, 0.20), (39, -0.25, -0.19, 0.20)],
        *[(40, -0.37, -0.13, 0.20), (41, -0.53, -0.14, 0.16)],
        *[(48, -0.36, 0.73, 0.20), (49, -0.21, 0.665, 0.29), (50, -0.08, 0.63, 0.34), (51, 0.00, 0.65, 0.35)],
        *[(57, 0.00, 0.87, 0.33), (58, -0.11, 0.86, 0.32), (59, -0.24, 0.815, 0.28)],
        *[(60, -0.30, 0.73, 0.22), (61, -0.11, 0.725, 0.31), (62, 0.00, 0.735, 0.33)],
        *[(66, 0.00, 0.735, 0.33), (67, -0.11, 0.725, 0.31)],
    ]
)
_ROWS = {int(index): row for row, index in enumerate(_HALF[:, 0])}
_LEFT = _HALF[:, 0].astype(int)
_RIGHT = np.array(get_layout("300w_68").mirror)[_LEFT]
_MIDLINE = _LEFT == _RIGHT


def _rows(*indices: int) -> list[int]:
    return [_ROWS[i] for i in indices]


_JAW, _BROW, _NOSE = _rows(*range(9)), _rows(*range(17, 22)), _rows(27, 28, 29, 30, 31, 32, 33)
_EYE, _UPPER_LID, _LOWER_LID = _rows(36, 37, 38, 39, 40, 41), _rows(37, 38), _rows(41, 40)
_MOUTH, _CORNERS, _BESIDE = _rows(48, 49, 50, 51, 57, 58, 59, 60, 61, 62, 66, 67), _rows(48, 60), _rows(49, 59)
_UPPER_LIP, _UPPER_LIP_INSIDE = _rows(49, 50, 51), _rows(61, 61, 62)
_LOWER_LIP, _LOWER_LIP_INSIDE = _rows(57, 58, 59), _rows(66, 67, 67)
_DROPPED, _DROP = _rows(57, 58, 59, 66, 67, 48, 60), np.array([1.0, 0.97, 0.68, 1.0, 0.93, 0.16, 0.16])
# How far the jaw follows the mouth and a longer chin: nothing at the ears, everything at the chin.
_CHIN = np.array([0, 0, 0.05, 0.15, 0.35, 0.6, 0.82, 0.96, 1.0])


@dataclass(frozen=True)
class SyntheticFace:
    """One face: where it is, how it is turned, its proportions and its expression; pairs are (picture's left, right).

    Attributes:
        centre: Middle of the tight box of its 68 points, source pixels.
        extent: Longer side of that box, source pixels.
        yaw: Degrees it looks to the picture's right.
        pitch: Degrees it looks down.
        roll: Degrees it is turned clockwise in the picture.
        width, chin, jaw, eye_size, nose_width, nose_length, mouth_width, lips: Proportions, 1 is the template;
            ``chin`` and ``jaw`` are added, 0 is the template.
        mouth_open, pucker: 0 to 1. ``smile``: -1 to 1 at each corner. ``eye_open``: 0 (closed) to 1.3. ``brow_raise``:
            -1 (frowning) to 1.
    """

    centre: tuple[float, float]
    extent: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    width: float = 1.0
    chin: float = 0.0
    jaw: float = 0.0
    eye_size: float = 1.0
    nose_width: float = 1.0
    nose_length: float = 1.0
    mouth_width: float = 1.0
    lips: float = 1.0
    mouth_open: float = 0.0
    pucker: float = 0.0
    smile: tuple[float, float] = (0.0, 0.0)
    eye_open: tuple[float, float] = (1.0, 1.0)
    brow_raise: tuple[float, float] = (0.0, 0.0)

    def mirrored(self, width: int) -> SyntheticFace:
        """The face that the mirror image of a picture ``width`` pixels wide shows."""
        return replace(
            self,
            centre=(width - 1 - self.centre[0], self.centre[1]),
            yaw=-self.yaw,
            roll=-self.roll,
            smile=self.smile[::-1],
            eye_open=self.eye_open[::-1],
            brow_raise=self.brow_raise[::-1],
        )

    @cached_property
    def template(self) -> Array:
        """The 68 points with this face's proportions and expression, not yet turned: ``(68, 3)``, template units."""
        mirror = np.array([-1.0, 1.0, 1.0])
        left, right = self._half(0), self._half(1) * mirror
        points = np.empty((68, 3))
        points[_LEFT] = left
        points[_RIGHT] = right
        points[_LEFT[_MIDLINE]] = (left[_MIDLINE] + right[_MIDLINE]) / 2
        return points

    def _half(self, side: int) -> Array:
        """The rows of ``_HALF`` with the expression of one side, drawn as the left side."""
        smile, eye_open, brow = self.smile[side], self.eye_open[side], self.brow_raise[side]
        half = _HALF[:, 1:].copy()
        x, y = half[:, 0], half[:, 1]

        y[_JAW] += _CHIN * (self.chin + 0.24 * self.mouth_open)
        x[_JAW] -= self.jaw * np.sin(np.pi * _CHIN)
        y[_BROW] -= 0.13 * max(brow, 0.0) - np.array([-0.03, 0, 0.03, 0.09, 0.13]) * max(-brow, 0.0)

        middle_x, line_y = -0.445, -0.20  # of the eye, through its corners
        x[_EYE] = middle_x + (x[_EYE] - middle_x) * self.eye_size
        y[_EYE] = line_y + (y[_EYE] - line_y) * self.eye_size
        lower = y[_LOWER_LID]
        y[_UPPER_LID] = lower + (y[_UPPER_LID] - lower) * eye_open

        x[_NOSE] *= self.nose_width
        y[_NOSE] = -0.28 + (y[_NOSE] + 0.28) * self.nose_length

        inside = y[_UPPER_LIP_INSIDE]
        y[_UPPER_LIP] = inside + (y[_UPPER_LIP] - inside) * self.lips
        inside = y[_LOWER_LIP_INSIDE]
        y[_LOWER_LIP] = inside + (y[_LOWER_LIP] - inside) * self.lips
        x[_MOUTH] *= self.mouth_width * (1 - 0.2 * self.mouth_open) * (1 - 0.42 * self.pucker)
        x[_CORNERS] -= 0.08 * max(smile, 0.0)
        y[_CORNERS] -= 0.10 * smile
        x[_BESIDE] -= 0.03 * max(smile, 0.0)
        y[_BESIDE] -= 0.035 * smile
        y[_DROPPED] += 0.40 * self.mouth_open * _DROP
        y[_MOUTH] += 0.12 * (self.nose_length - 1) + 0.35 * self.chin
        return half

    def project(self, shape: Array) -> Array:
        """Template units ``(..., 3)`` to source pixels ``(..., 2)``: turned, then seen from far away."""
        linear, offset = self._view
        return shape @ linear.T + offset

    def points(self) -> Array:
        """The 68 points, source pixels ``(68, 2)``."""
        return self.project(self.template)

    @cached_property
    def unit(self) -> float:
        """Source pixels of one template unit."""
        return float(np.linalg.norm(self._view[0], axis=1).max())

    @cached_property
    def _view(self) -> tuple[Array, Array]:
        """``(2, 3)`` and ``(2,)``: the affine camera that puts the tight box of the points where it belongs."""
        yaw, pitch, roll = np.deg2rad([self.yaw, self.pitch, self.roll])
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
        tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0]])
        linear = tilt @ nod @ turn @ np.diag([self.width, 1.0, 1.0])
        box = tight_box(self.template @ linear.T)
        scale = self.extent / (box[2:] - box[:2]).max()
        return linear * scale, np.asarray(self.centre) - (box[:2] + box[2:]) / 2 * scale


HAIRLINES = ("fringe", "parted_left", "parted_right", "high", "spiky", "curly", "bald", "beanie")
BACK_HAIR = ("none", "short", "bob", "long", "afro", "bun")
GLASSES = ("none", "round", "square", "sun")

# Control points of the hair's lower edge over the forehead, x and y, from the picture's left to its right.
_EDGES: dict[str, list[tuple[float, float]]] = {
    "fringe": [(-1.03, -0.16), (-0.92, -0.6), (-0.55, -0.8), (0, -0.84), (0.55, -0.8), (0.92, -0.6), (1.03, -0.16)],
    "high": [(-1.03, -0.16), (-0.92, -0.7), (-0.62, -1.02), (0, -0.93), (0.62, -1.02), (0.92, -0.7), (1.03, -0.16)],
    "curly": [(-1.04, -0.2), (-0.92, -0.66), (-0.5, -0.88), (0, -0.93), (0.5, -0.88), (0.92, -0.66), (1.04, -0.2)],
    "beanie": [(-1.06, -0.5), (-0.8, -0.74), (-0.4, -0.84), (0, -0.87), (0.4, -0.84), (0.8, -0.74), (1.06, -0.5)],
    "parted_left": [
        *[(-1.03, -0.16), (-0.95, -0.64), (-0.72, -0.94), (-0.42, -1.12), (0.1, -0.94), (0.7, -0.78), (1.03, -0.16)]
    ],
}
_EDGES["parted_right"] = [(-x, y) for x, y in reversed(_EDGES["parted_left"])]
_CIRCLE = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_RING = np.column_stack([np.cos(_CIRCLE), np.sin(_CIRCLE)])
_ARC = np.linspace(np.pi, 0, 33)  # from the left ear over the top to the right one


@dataclass(frozen=True)
class Look:
    """What a face wears and holds: names from the tuples above, and where its eyes look (template units)."""

    hairline: str = "fringe"
    back_hair: str = "short"
    glasses: str = "none"
    gaze: tuple[float, float] = (0.0, 0.0)
    iris: float = 0.105
    prop: bool = False
    prop_at: tuple[float, float] = (0.6, 0.9)

    @property
    def shows_ears(self) -> bool:
        """Whether no hair hides them."""
        return self.back_hair not in ("bob", "long", "afro")


def outlines(face: SyntheticFace, look: Look) -> Curves:
    """Every curve of the picture: name to ``(n, 2)``, source pixels.

    ``points`` are the 68; ``head``, eyes, irises, ``lips``, ``gap``, ``hair`` and the like are closed, the others run
    from the picture's left to its right, lower edges back to the left. Curves named after a group of the layout pass
    through its points.
    """
    shapes = dict(_curves(face.template, look))
    ends = np.cumsum([len(shape) for shape in shapes.values()])
    flat = face.project(np.concatenate(list(shapes.values())))
    return dict(zip(shapes, np.split(flat, ends[:-1]), strict=True))


def _curves(points: Array, look: Look) -> Iterator[tuple[str, Array]]:
    yield "points", points
    jaw = _spline(17, 65) @ points[:17]
    yield "jaw", jaw
    yield "head", np.concatenate([jaw, _dome(1.0, 1.02, -0.15)[::-1][1:-1]])
    yield "left_brow", _spline(5, 17) @ points[17:22]
    yield "right_brow", _spline(5, 17) @ points[22:27]
    bridge = _spline(4, 13) @ points[27:31]
    base = _spline(5, 17) @ points[31:36]
    yield "nose_bridge", bridge
    yield "nose_base", base
    for side, tip, sign in (("left", 0, -1), ("right", 4, 1)):
        wing = points[31 + tip]
        fold = np.array([(0.03, -0.13), (0.085, -0.07), (0.07, 0.0), (0, 0)]) @ [[sign, 0, 0], [0, 1, 0]]
        yield f"nose_{side}", np.concatenate([bridge, base[8::sign], _moved(wing[None], -0.03 * sign, -0.16)])
        yield f"wing_{side}", wing + fold
        yield f"nostril_{side}", (wing + points[33]) / 2 + _oval(0.055, 0.025) + (0, -0.02, 0)

    for side, first, sign in (("left", 36, -1), ("right", 42, 1)):
        upper = _spline(4, 17) @ points[first : first + 4]
        lower = _spline(4, 17) @ points[[first + 3, first + 4, first + 5, first]]
        yield f"{side}_upper_lid", upper
        yield f"{side}_lower_lid", lower
        yield f"{side}_eye", np.concatenate([upper, lower[1:-1]])
        middle = (points[first] + points[first + 3]) / 2
        half_width = abs(points[first + 3, 0] - points[first, 0]) / 2
        centre = middle + np.array([*look.gaze, 0.0]) * half_width / 0.195 + (0, -0.02, 0)
        radius = look.iris * half_width / 0.195
        yield f"{side}_iris", _clipped(centre, radius, upper, lower)
        yield f"{side}_pupil", _clipped(centre, radius * 0.52, upper, lower)
        yield f"{side}_glint", centre[None] + (radius * 0.35, -radius * 0.4, 0)
        yield f"{side}_crease", _moved(upper[2:-2], 0, -0.055)
        yield f"{side}_cheek", _moved(middle + _oval(0.2, 0.13), 0.09 * sign, 0.55)
        yield f"{side}_glass", _moved(middle + _frame(look.glasses), 0, 0.02, 0.16)
        yield f"{side}_temple", np.array([(sign * 0.74, -0.24, 0.2), (sign * 1.02, -0.2, -0.2)])
        yield f"{side}_ear", _ear() * (sign, 1, 1)
        yield f"{side}_ear_fold", _ear()[3:14] * (0.55 * sign, 0.6, 1) + (0.48 * sign, 0, 0)
        yield f"{side}_lobe", np.array([(sign * 1.07, 0.24, -0.25)])

    top = _spline(7, 25) @ points[48:55]
    bottom = _spline(7, 25) @ points[[54, 55, 56, 57, 58, 59, 48]]
    inner_top = _spline(5, 17) @ points[60:65]
    inner_bottom = _spline(5, 17) @ points[[64, 65, 66, 67, 60]]
    yield "lips_top", top
    yield "lips_bottom", bottom
    yield "lips", np.concatenate([top, bottom[1:-1]])
    yield "gap_top", inner_top
    yield "gap_bottom", inner_bottom
    yield "gap", np.concatenate([inner_top, inner_bottom[1:-1]])
    open_y = inner_bottom[8, 1] - inner_top[8, 1]
    floor = np.interp(inner_top[:, 0], *inner_bottom[::-1, :2].T)  # y of the lower lip below each point of the upper
    teeth, tongue = inner_top.copy(), inner_top.copy()
    teeth[:, 1] = np.minimum(floor, inner_top[:, 1] + 0.3 * open_y)
    tongue[:, 1] = np.maximum(inner_top[:, 1], floor - 0.4 * open_y * (1 - (np.linspace(-1, 1, 17) / 0.8) ** 4))
    yield "teeth", np.concatenate([inner_top, teeth[::-1]])
    yield "tongue", np.concatenate([tongue[2:-2], np.column_stack([inner_top[:, 0], floor, inner_top[:, 2]])[-3:1:-1]])
    yield "mouth_shade", points[57] + np.array([(-0.13, 0.12, -0.03), (0, 0.145, 0), (0.13, 0.12, -0.03)])

    yield "neck", np.array([(-0.5, 0.55, -0.35), (-0.47, 1.55, -0.4), (0.47, 1.55, -0.4), (0.5, 0.55, -0.35)])
    yield "back_hair", _back_hair(look.back_hair)
    yield "bun", _moved(_oval(0.42, 0.4), 0, -1.62, -0.5)
    yield from _front_hair(look)


@cache
def _spline(points: int, samples: int, closed: bool = False) -> Array:
    """Matrix ``(samples, points)`` that turns points into a smooth curve through every one of them."""
    if closed:
        knots = np.vstack([np.eye(points), np.eye(points)[:1]])
        curve = CubicSpline(np.arange(points + 1), knots, bc_type="periodic")
        return curve(np.linspace(0, points, samples, endpoint=False))
    return CubicSpline(np.arange(points), np.eye(points))(np.linspace(0, points - 1, samples))


def _dome(radius_x: float, radius_y: float, depth: float) -> Array:
    """The top of the head from the left ear to the right one."""
    return np.column_stack([radius_x * np.cos(_ARC), -0.25 - radius_y * np.sin(_ARC), np.full(len(_ARC), depth)])


def _moved(shape: Array, x: float, y: float, z: float = 0.0) -> Array:
    return shape + np.array([x, y, z])


def _oval(radius_x: float, radius_y: float) -> Array:
    return np.column_stack([_RING * (radius_x, radius_y), np.zeros(len(_RING))])


def _ear() -> Array:
    x, y = _RING.T
    return np.column_stack([1.03 + 0.14 * x * (1 - 0.3 * y), 0.02 + 0.27 * y, np.full(len(_RING), -0.24)])


def _frame(kind: str) -> Array:
    """The rim of one glass around the middle of an eye."""
    if kind == "round" or kind == "none":
        return _oval(0.29, 0.29)
    power = 0.5 if kind == "square" else 0.7  # a superellipse: between a circle and a box
    return np.column_stack([0.32 * np.sign(_RING) * np.abs(_RING) ** power * (1, 0.75), np.zeros(len(_RING))])


def _clipped(centre: Array, radius: float, upper: Array, lower: Array) -> Array:
    """The part of a circle that the eyelids leave visible. Lids run along x, so it is cut column by column."""
    x = np.linspace(max(centre[0] - radius, upper[0, 0]), min(centre[0] + radius, upper[-1, 0]), 13)
    rise = np.sqrt(np.maximum(radius**2 - (x - centre[0]) ** 2, 0))
    lid_top, lid_bottom = np.interp(x, *upper[:, :2].T), np.interp(x, *lower[::-1, :2].T)
    top = np.clip(centre[1] - rise, lid_top, lid_bottom)
    bottom = np.clip(centre[1] + rise, top, np.maximum(lid_bottom, top))
    depth = np.full(len(x), centre[2])
    return np.concatenate([np.column_stack([x, top, depth]), np.column_stack([x, bottom, depth])[::-1]])


def _back_hair(kind: str) -> Array:
    bumps = 1 + (0.05 * np.abs(np.sin(5.5 * _ARC)) if kind == "afro" else 0.0)
    wide, high = {"afro": (1.5, 1.45), "bob": (1.2, 1.2), "long": (1.2, 1.2)}.get(kind, (1.07, 1.1))
    dome = _dome(wide, high, -0.4)
    dome[:, 0] *= bumps
    dome[:, 1] = -0.25 + (dome[:, 1] + 0.25) * bumps
    ends = {
        "bob": [(1.27, 0.3), (1.2, 0.95), (0.9, 1.02), (-0.9, 1.02), (-1.2, 0.95), (-1.27, 0.3)],
        "long": [(1.3, 0.5), (1.42, 1.4), (1.25, 2.1), (-1.25, 2.1), (-1.42, 1.4), (-1.3, 0.5)],
        "afro": [(1.45, 0.25), (1.2, 0.62), (0.6, 0.5), (-0.6, 0.5), (-1.2, 0.62), (-1.45, 0.25)],
    }.get(kind, [(1.0, 0.2), (0.6, 0.6), (-0.6, 0.6), (-1.0, 0.2)])
    return np.concatenate([dome, np.column_stack([ends, np.full(len(ends), -0.45)])])


def _front_hair(look: Look) -> Iterator[tuple[str, Array]]:
    """``hair`` and what is cut from it; ``hair_top`` and ``hair_edge`` lie opposite each other point by point."""
    kind = look.hairline
    radius = {"curly": (1.2, 1.26), "spiky": (1.12, 1.2), "beanie": (1.14, 1.22)}.get(kind, (1.14, 1.2))
    top = _dome(*radius, -0.12)
    top[:, 1] -= 0.1 * np.sin(_ARC) ** 6
    if kind in ("curly", "spiky"):
        bumps = np.abs(np.sin(5.5 * _ARC)) if kind == "curly" else 1.6 * (1 - np.abs(((_ARC / np.pi * 7) % 1) * 2 - 1))
        lift = 1 + 0.08 * bumps * np.sin(_ARC)
        top[:, 0] *= lift
        top[:, 1] = -0.25 + (top[:, 1] + 0.25) * lift
    edge = _spline(7, len(_ARC)) @ np.array(_EDGES.get(kind, _EDGES["high" if kind == "bald" else "fringe"]))
    if kind == "spiky":
        edge[:, 1] -= np.resize([0, 0.09, 0.18, 0.09], len(edge))
    if kind == "curly":
        edge[:, 1] += 0.05 * np.abs(np.sin(6.5 * _ARC))
    edge = np.column_stack([edge, 0.2 - 0.32 * edge[:, 0] ** 2])
    yield "hair_top", top
    yield "hair_edge", edge
    yield "hair", np.concatenate([top, edge[::-1]])
    yield "band", np.concatenate([edge, _moved(edge, 0, -0.27, -0.03)[::-1]])
    yield "prop", _moved(_oval(0.36, 0.36), *look.prop_at, 0.62)
    yield "prop_stick", np.array([(*look.prop_at, 0.6), (look.prop_at[0] * 1.5, look.prop_at[1] + 1.6, 0.5)])
    yield "pompom", _moved(_oval(0.2, 0.2), 0, -1.62, -0.15)
