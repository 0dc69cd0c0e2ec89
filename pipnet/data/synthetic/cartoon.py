"""Faces in flat colour with ink outlines."""

from __future__ import annotations

import numpy as np

from pipnet.data.synthetic.face import SyntheticFace
from pipnet.data.synthetic.ink import Color, darker, disc, fill, gradient, lighter, lines, mix, stroke
from pipnet.data.synthetic.outlines import Curves, Look

SKINS: tuple[Color, ...] = (
    *[(255, 224, 201), (250, 208, 178), (240, 188, 152), (226, 168, 128), (205, 143, 103)],
    *[(176, 117, 80), (146, 93, 64), (124, 79, 57), (102, 64, 49)],
)
HAIRS: tuple[Color, ...] = (
    *[(38, 30, 33), (62, 42, 36), (98, 62, 42), (142, 88, 48), (196, 132, 62), (232, 192, 112), (186, 74, 38)],
    *[(150, 150, 158), (222, 218, 212), (224, 96, 140), (52, 148, 160), (92, 82, 180), (88, 158, 92)],
)
EYES: tuple[Color, ...] = ((74, 48, 34), (104, 68, 40), (66, 110, 150), (78, 128, 86), (96, 108, 118), (120, 92, 44))
LIPS: tuple[Color, ...] = ((204, 92, 92), (190, 66, 78), (222, 118, 112), (156, 62, 72), (214, 74, 110))
CLOTHES: tuple[Color, ...] = (
    *[(232, 90, 79), (64, 118, 170), (242, 184, 76), (84, 140, 108), (122, 88, 150), (240, 238, 228), (52, 58, 76)],
)
BACKDROPS: tuple[Color, ...] = (
    *[(250, 214, 165), (170, 214, 220), (196, 220, 178), (240, 176, 168), (206, 190, 226), (248, 232, 200)],
    *[(120, 162, 190), (88, 116, 132), (232, 150, 110), (150, 190, 160), (64, 70, 98), (246, 202, 212)],
)
INK: Color = (46, 30, 40)


def _pick(rng: np.random.Generator, colors: tuple[Color, ...], spread: int = 10) -> Color:
    color = np.array(colors[rng.integers(len(colors))]) + rng.integers(-spread, spread + 1, 3)
    return tuple(np.clip(color, 0, 255).tolist())  # type: ignore[return-value]


def paint_cartoon(rng: np.random.Generator, size: int, face: SyntheticFace, look: Look, curves: Curves) -> np.ndarray:
    """A picture of the face, RGB uint8 ``(size, size, 3)``.

    Args:
        rng: Chooses colours and background.
        size: Side of the picture in pixels.
        face: The geometry (for the expression and the length of a template unit).
        look: What it wears.
        curves: ``outlines(face, look)``.
    """
    unit = face.unit
    pen = 0.034 * unit
    skin, hair = _pick(rng, SKINS, 8), _pick(rng, HAIRS)
    lit = 1 if rng.random() < 0.5 else -1  # the side the light comes from
    shade = darker(mix(skin, (205, 80, 80), 0.12), 0.2)
    skin_ink, hair_ink = darker(mix(skin, (150, 50, 40), 0.25), 0.62), darker(hair, 0.5)
    picture = _backdrop(rng, size)

    if look.back_hair == "bun" and look.hairline not in ("bald", "beanie"):
        fill(picture, curves["bun"], darker(hair, 0.12))
        stroke(picture, curves["bun"], hair_ink, pen)
    if look.back_hair != "none" and look.hairline != "bald":
        fill(picture, curves["back_hair"], darker(hair, 0.28))
    _body(picture, rng, curves, shade, skin_ink, unit)
    ears = look.back_hair not in ("bob", "long", "afro")
    for side in ("left", "right") if ears else ():
        fill(picture, curves[f"{side}_ear"], mix(skin, shade, 0.35))
        lines(picture, [curves[f"{side}_ear"]], skin_ink, max(1, round(pen * 0.8)), closed=True)
        stroke(picture, curves[f"{side}_ear_fold"], darker(shade, 0.25), pen * 0.8, 0.6)

    _skin(picture, rng, curves, skin, shade, lit, unit)
    side = "right" if lit < 0 else "left"
    fill(picture, curves[f"nose_{side}"], mix(skin, shade, 0.75))
    stroke(picture, curves["nose_bridge"], mix(shade, skin_ink, 0.6), pen * 0.8, 0.4)
    for nostril in ("left", "right"):
        fill(picture, curves[f"nostril_{nostril}"], mix(shade, skin_ink, 0.8))
        stroke(picture, curves[f"wing_{nostril}"], mix(shade, skin_ink, 0.6), pen * 0.8, 0.3)
    stroke(picture, curves["nose_base"], skin_ink, pen, 0.35)
    _mouth(picture, rng, face, curves, skin, skin_ink, pen)
    iris = _pick(rng, EYES)
    lashes = rng.random() < 0.5
    for index, side in enumerate(("left", "right")):
        _eye(picture, curves, side, face.eye_open[index], iris, skin_ink, pen, lashes)
    brow = darker(hair if look.hairline != "bald" else HAIRS[1], 0.35)
    if abs(sum(brow) - sum(skin)) < 130:  # a brow that can't be seen teaches nothing
        brow = darker(brow, 0.75) if sum(skin) > 270 else lighter(brow, 0.4)
    thick = rng.uniform(0.07, 0.13) * unit
    stroke(picture, curves["left_brow"], brow, thick, 0.55)
    stroke(picture, curves["right_brow"], brow, thick, 0.55)
    stroke(picture, curves["jaw"], skin_ink, pen * 1.25, 0.25)
    _headdress(picture, rng, look, curves, hair, hair_ink, skin_ink, pen)
    _glasses(picture, rng, look, curves, pen)
    if ears and rng.random() < 0.2:
        for side in ("left", "right"):
            disc(picture, curves[f"{side}_lobe"][0], 0.06 * unit, (244, 206, 92))
    if look.prop:
        _lollipop(picture, rng, curves, unit)
    return picture


def _lollipop(picture: np.ndarray, rng: np.random.Generator, curves: Curves, unit: float) -> None:
    """Something in front of the face; it hides points as hands and cups do in photos."""
    stroke(picture, curves["prop_stick"], (244, 240, 230), 0.09 * unit)
    color = _pick(rng, LIPS)
    fill(picture, curves["prop"], color)
    centre = curves["prop"].mean(axis=0)
    t = np.linspace(0.05, 1, 60)
    swirl = centre + 0.33 * unit * t[:, None] * np.column_stack([np.cos(15 * t), np.sin(15 * t)])
    stroke(picture, swirl, (252, 236, 226), 0.075 * unit)
    lines(picture, [curves["prop"]], darker(color, 0.5), 1, closed=True)


def _backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    a, b = _pick(rng, BACKDROPS, 14), _pick(rng, BACKDROPS, 14)
    picture = gradient(size, (a, mix(a, b, rng.random()), mix(a, b, rng.random()), b))
    tint = [lighter(a, 0.35), darker(b, 0.12), _pick(rng, BACKDROPS), lighter(b, 0.2)]
    kind = rng.integers(5)
    if kind == 0:  # rays
        middle = rng.uniform(0.2, 0.8, 2) * size
        edges = np.linspace(0, 2 * np.pi, 2 * int(rng.integers(7, 13)), endpoint=False) + rng.random()
        for start, end in edges.reshape(-1, 2):
            fan = 1.5 * size * np.array([(0, 0), (np.cos(start), np.sin(start)), (np.cos(end), np.sin(end))])
            fill(picture, middle + fan, tint[0])
    elif kind == 1:  # dots
        step = size / rng.uniform(5, 9)
        for row in range(int(size / step) + 2):
            for column in range(int(size / step) + 2):
                disc(picture, ((column + 0.5 * (row % 2)) * step, row * step), 0.18 * step, tint[0])
    elif kind == 2:  # hills
        for level, color in zip((0.55, 0.75), (tint[3], tint[1]), strict=True):
            x = np.linspace(0, 1, 17)
            y = level + 0.1 * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.6) + rng.random()))
            fill(picture, size * np.concatenate([np.column_stack([x, y]), [(1.05, 1.1), (-0.05, 1.1)]]), color)
    elif kind == 3:  # stripes
        angle, step = rng.uniform(0, np.pi), size / rng.uniform(4, 8)
        across, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        for i in np.arange(-6, 7):
            corner = size / 2 + across * step * i * 2
            fill(
                picture,
                corner
                + size * 1.5 * np.array([-along, along, along, -along])
                + step * np.array([[0], [0], [1], [1]]) * across,
                tint[3],
            )
    for _ in range(rng.integers(1, 6)):  # clutter: round and cornered things, some of them skin-coloured
        middle, radius = rng.uniform(0, size, 2), rng.uniform(0.03, 0.14) * size
        color = _pick(rng, SKINS) if rng.random() < 0.25 else tint[rng.integers(4)]
        if rng.random() < 0.5:
            disc(picture, middle, radius, color)
        else:
            turns = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            fill(picture, middle + radius * np.column_stack([np.cos(turns), np.sin(turns)]), color)
    return picture


def _body(picture: np.ndarray, rng: np.random.Generator, curves: Curves, shade: Color, ink: Color, unit: float) -> None:
    """Neck and shoulders: the neck turns with the head, the shoulders stay level."""
    neck = curves["neck"].copy()
    base = (neck[1] + neck[2]) / 2
    neck[1:3] = base + unit * np.array([(-0.5, 0.4), (0.5, 0.4)])
    wide, cloth = rng.uniform(1.5, 1.9), _pick(rng, CLOTHES)
    bottom = len(picture) + 2
    half = [(-wide, 0.85), (-0.9 * wide, 0.4), (-0.95, 0.16), (-0.55, 0.0)]
    collar = base + unit * np.column_stack([np.linspace(-0.55, 0.55, 9), 0.32 - 0.32 * np.linspace(-1, 1, 9) ** 2])
    slope = np.array(half) * unit
    shoulders = np.concatenate([base + slope, collar, (base + slope * (-1, 1))[::-1]])
    hem = [(base[0] + (wide + 0.1) * unit, bottom), (base[0] - (wide + 0.1) * unit, bottom)]
    fill(picture, neck, darker(shade, 0.14))
    lines(picture, [neck[:2], neck[2:]], ink)
    fill(picture, np.concatenate([shoulders, hem]), cloth)
    stroke(picture, collar, darker(cloth, 0.35), 0.09 * unit)
    lines(picture, [base + slope[:-1], base + slope[:-1] * (-1, 1)], darker(cloth, 0.4))


def _skin(
    picture: np.ndarray, rng: np.random.Generator, curves: Curves, skin: Color, shade: Color, lit: int, unit: float
) -> None:
    """The face in two tones: the edge of the shadow follows the cheek."""
    head, points = curves["head"], curves["points"]
    fill(picture, head, shade)
    right = points[45] - points[36]
    right /= np.linalg.norm(right)
    away = np.clip((head - points[30]) @ right * -lit / unit, 0, 1)[:, None]  # 0 on the lit side, 1 at the dark edge
    fill(picture, head + away**1.5 * 0.24 * unit * right * lit, skin)
    if rng.random() < 0.55:
        for side in ("left", "right"):
            fill(picture, curves[f"{side}_cheek"], mix(skin, (236, 88, 92), 0.22))
    if rng.random() < 0.15:
        for side in ("left", "right"):
            for x, y in rng.normal(0, 0.09, (5, 2)) * unit + curves[f"{side}_cheek"].mean(axis=0):
                disc(picture, (x, y), 0.02 * unit, mix(skin, shade, 0.9))


def _mouth(
    picture: np.ndarray,
    rng: np.random.Generator,
    face: SyntheticFace,
    curves: Curves,
    skin: Color,
    ink: Color,
    pen: float,
) -> None:
    red = mix(skin, _pick(rng, LIPS), rng.uniform(0.45, 1.0))
    fill(picture, curves["lips"], red)
    if face.mouth_open > 0.06:
        fill(picture, curves["gap"], (84, 26, 38))
        fill(picture, curves["tongue"], (206, 92, 98))
        fill(picture, curves["teeth"], (252, 250, 242))
    edge = darker(red, 0.45)
    stroke(picture, curves["lips_top"], edge, pen * 0.9, 0.3)
    stroke(picture, curves["lips_bottom"], edge, pen * 0.9, 0.3)
    for gap in ("gap_top", "gap_bottom") if face.mouth_open > 0.06 else ("gap_top",):
        stroke(picture, curves[gap], darker(red, 0.72), pen * 0.9, 0.3)
    stroke(picture, curves["mouth_shade"], mix(skin, ink, 0.3), pen, 0.6)


def _eye(
    picture: np.ndarray, curves: Curves, side: str, opened: float, iris: Color, ink: Color, pen: float, lashes: bool
) -> None:
    fill(picture, curves[f"{side}_eye"], (250, 250, 248))
    if opened > 0.2:
        fill(picture, curves[f"{side}_iris"], iris)
        fill(picture, curves[f"{side}_pupil"], (20, 14, 18))
        if opened > 0.5:
            disc(picture, curves[f"{side}_glint"][0], max(pen * 0.75, 0.8), (255, 255, 255))
    upper, lower = curves[f"{side}_upper_lid"], curves[f"{side}_lower_lid"]
    stroke(picture, lower, mix(ink, (255, 255, 255), 0.12), pen * 0.8, 0.3)
    stroke(picture, upper, INK, pen * (1.9 if lashes else 1.5), 0.45)
    stroke(picture, curves[f"{side}_crease"], mix(ink, (255, 220, 200), 0.35), pen * 0.7, 0.8)
    if lashes:
        outer, inner = (upper[0], upper[5]) if side == "left" else (upper[-1], upper[-6])
        stroke(picture, np.linspace(outer, outer + 0.55 * (outer - inner), 5), INK, pen * 1.2, 0.5)


def _headdress(
    picture: np.ndarray,
    rng: np.random.Generator,
    look: Look,
    curves: Curves,
    hair: Color,
    hair_ink: Color,
    skin_ink: Color,
    pen: float,
) -> None:
    if look.hairline == "bald":
        lines(picture, [curves["head"][64:]], skin_ink, max(1, round(pen)))
        return
    color, ink = hair, hair_ink
    if look.hairline == "beanie":
        color = _pick(rng, CLOTHES)
        ink = darker(color, 0.5)
        fill(picture, curves["pompom"], lighter(color, 0.5))
        lines(picture, [curves["pompom"]], ink, max(1, round(pen)), closed=True)
    fill(picture, curves["hair"], color)
    if look.hairline == "beanie":
        fill(picture, curves["band"], darker(color, 0.2))
    else:  # a highlight, opposite points of the hair's two edges mixed
        shine = slice(6, 16) if rng.random() < 0.5 else slice(17, 27)
        top, edge = curves["hair_top"][shine], curves["hair_edge"][shine]
        shine_line = 0.62 * top + 0.38 * edge if look.hairline != "spiky" else (0.62 * top + 0.38 * edge)[::4]
        stroke(picture, shine_line, lighter(color, 0.28), pen * 2.4, 1.0)
        strands = [top[i] + (edge[i] - top[i]) * np.linspace(0.45, 0.95, 4)[:, None] for i in range(1, 10, 3)]
        lines(picture, strands, darker(color, 0.28))
    lines(picture, [curves["hair"]], ink, max(1, round(pen)), closed=True)


def _glasses(picture: np.ndarray, rng: np.random.Generator, look: Look, curves: Curves, pen: float) -> None:
    if look.glasses == "none":
        return
    frame = (34, 30, 38) if rng.random() < 0.6 else _pick(rng, CLOTHES)
    left, right = curves["left_glass"], curves["right_glass"]
    for glass in (left, right):
        if look.glasses == "sun":
            fill(picture, glass, (44, 40, 52))
            shine = glass[15:20] * 0.7 + glass.mean(axis=0) * 0.3
            stroke(picture, shine, (150, 150, 168), pen * 1.6, 0.8)
    lines(picture, [left, right], frame, max(1, round(pen * 1.6)), closed=True)
    bridge = np.stack(
        [
            left[np.argmin(np.linalg.norm(left - right.mean(axis=0), axis=1))],
            right[np.argmin(np.linalg.norm(right - left.mean(axis=0), axis=1))],
        ]
    )
    lines(picture, [bridge, curves["left_temple"], curves["right_temple"]], frame, max(1, round(pen * 1.3)))
