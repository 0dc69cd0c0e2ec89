"""The curves of a synthetic face: what runs through its 68 points, and what is around them (hair, ears, glasses)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipnet.data.synthetic.face import SyntheticFace, spline

Curves = dict[str, np.ndarray]  # name to (n, 2), source pixels

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
        (-1.03, -0.16),
        (-0.95, -0.64),
        (-0.72, -0.94),
        (-0.42, -1.12),
        (0.1, -0.94),
        (0.7, -0.78),
        (1.03, -0.16),
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


def outlines(face: SyntheticFace, look: Look) -> Curves:
    """Every curve of the picture, in source pixels.

    Args:
        face: Gives the points and the view.
        look: Gives the rest.

    Returns:
        Name to ``(n, 2)``. ``points`` are the 68; ``head``, eyes, irises, ``lips``, ``gap``, ``hair`` and the like
        are closed, the others run from the picture's left to its right, lower edges back to the left. Curves
        named after a group of the layout pass through its points.

    Example:
        >>> curves = outlines(SyntheticFace(centre=(64.0, 64.0), extent=60.0), Look())
        >>> distance = np.linalg.norm(curves["jaw"][:, None] - curves["points"][:17], axis=-1)
        >>> bool(distance.min(axis=0).max() < 1e-9)
        True
    """
    template = face.template
    shapes = dict(_curves(template, look))
    ends = np.cumsum([len(shape) for shape in shapes.values()])
    flat = face.project(np.concatenate(list(shapes.values())))
    return dict(zip(shapes, np.split(flat, ends[:-1]), strict=True))


def _curves(points: np.ndarray, look: Look) -> Iterator[tuple[str, np.ndarray]]:
    yield "points", points
    jaw = spline(17, 65) @ points[:17]
    yield "jaw", jaw
    yield "head", np.concatenate([jaw, _dome(1.0, 1.02, -0.15)[::-1][1:-1]])
    yield "left_brow", spline(5, 17) @ points[17:22]
    yield "right_brow", spline(5, 17) @ points[22:27]
    bridge = spline(4, 13) @ points[27:31]
    base = spline(5, 17) @ points[31:36]
    yield "nose_bridge", bridge
    yield "nose_base", base
    for side, tip, sign in (("left", 0, -1), ("right", 4, 1)):
        wing = points[31 + tip]
        yield f"nose_{side}", np.concatenate([bridge, base[8::sign], _moved(wing[None], -0.03 * sign, -0.16)])
        yield (
            f"wing_{side}",
            wing + np.array([(0.03, -0.13), (0.085, -0.07), (0.07, 0.0), (0, 0)]) @ [[sign, 0, 0], [0, 1, 0]],
        )
        yield f"nostril_{side}", (points[31 + tip] + points[33]) / 2 + _oval(0.055, 0.025) + (0, -0.02, 0)

    for side, first, sign in (("left", 36, -1), ("right", 42, 1)):
        upper = spline(4, 17) @ points[first : first + 4]
        lower = spline(4, 17) @ points[[first + 3, first + 4, first + 5, first]]
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

    top = spline(7, 25) @ points[48:55]
    bottom = spline(7, 25) @ points[[54, 55, 56, 57, 58, 59, 48]]
    inner_top = spline(5, 17) @ points[60:65]
    inner_bottom = spline(5, 17) @ points[[64, 65, 66, 67, 60]]
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


def _dome(radius_x: float, radius_y: float, depth: float) -> np.ndarray:
    """The top of the head from the left ear to the right one."""
    return np.column_stack([radius_x * np.cos(_ARC), -0.25 - radius_y * np.sin(_ARC), np.full(len(_ARC), depth)])


def _moved(shape: np.ndarray, x: float, y: float, z: float = 0.0) -> np.ndarray:
    return shape + np.array([x, y, z])


def _oval(radius_x: float, radius_y: float) -> np.ndarray:
    return np.column_stack([_RING * (radius_x, radius_y), np.zeros(len(_RING))])


def _ear() -> np.ndarray:
    return np.column_stack(
        [1.03 + 0.14 * _RING[:, 0] * (1 - 0.3 * _RING[:, 1]), 0.02 + 0.27 * _RING[:, 1], np.full(28, -0.24)]
    )


def _frame(kind: str) -> np.ndarray:
    """The rim of one glass around the middle of an eye."""
    if kind == "round" or kind == "none":
        return _oval(0.29, 0.29)
    power = 0.5 if kind == "square" else 0.7  # a superellipse: between a circle and a box
    return np.column_stack([0.32 * np.sign(_RING) * np.abs(_RING) ** power * (1, 0.75), np.zeros(len(_RING))])


def _clipped(centre: np.ndarray, radius: float, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The part of a circle that the eyelids leave visible. Lids run along x, so it is cut column by column."""
    x = np.linspace(max(centre[0] - radius, upper[0, 0]), min(centre[0] + radius, upper[-1, 0]), 13)
    rise = np.sqrt(np.maximum(radius**2 - (x - centre[0]) ** 2, 0))
    lid_top, lid_bottom = np.interp(x, *upper[:, :2].T), np.interp(x, *lower[::-1, :2].T)
    top = np.clip(centre[1] - rise, lid_top, lid_bottom)
    bottom = np.clip(centre[1] + rise, top, np.maximum(lid_bottom, top))
    depth = np.full(len(x), centre[2])
    return np.concatenate([np.column_stack([x, top, depth]), np.column_stack([x, bottom, depth])[::-1]])


def _back_hair(kind: str) -> np.ndarray:
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


def _front_hair(look: Look) -> Iterator[tuple[str, np.ndarray]]:
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
    edge = spline(7, len(_ARC)) @ np.array(_EDGES.get(kind, _EDGES["high" if kind == "bald" else "fringe"]))
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
