"""The two styles of synthetic faces: flat colour with ink outlines, and one ink on paper.

A painter gets a random generator, the side of the picture in pixels, the face, what it wears, and its
:func:`~pipnet.data.synthetic.face.outlines`; it returns RGB uint8 ``(size, size, 3)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipnet.data.images import Photo
from pipnet.data.synthetic.canvas import Canvas, Color, Curve, add_grain, darker, gradient, lighter, mix
from pipnet.data.synthetic.face import Curves, Look, SyntheticFace

SIDES = ("left", "right")
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
    red, green, blue = np.clip(color, 0, 255).tolist()
    return red, green, blue


def paint_cartoon(
    rng: np.random.Generator, size: int, face: SyntheticFace, look: Look, curves: Curves, backdrop: Photo | None = None
) -> Photo:
    """A face in flat colour with ink outlines; ``backdrop`` is painted on instead of a random one."""
    picture = np.empty((size, size, 3), np.uint8) if backdrop is None else backdrop
    canvas = Canvas(picture, curves, face.unit, 0.034 * face.unit, rng)
    pen = canvas.pen
    skin, hair = _pick(rng, SKINS, 8), _pick(rng, HAIRS)
    lit = 1 if rng.random() < 0.5 else -1  # the side the light comes from
    shade = darker(mix(skin, (205, 80, 80), 0.12), 0.2)
    skin_ink, hair_ink = darker(mix(skin, (150, 50, 40), 0.25), 0.62), darker(hair, 0.5)
    if backdrop is None:
        _backdrop(canvas)

    if look.back_hair == "bun" and look.hairline not in ("bald", "beanie"):
        canvas.fill("bun", darker(hair, 0.12))
        canvas.stroke("bun", hair_ink, pen)
    if look.back_hair != "none" and look.hairline != "bald":
        canvas.fill("back_hair", darker(hair, 0.28))
    _clothes(canvas, shade, skin_ink)
    if look.shows_ears:
        for side in SIDES:
            canvas.fill(f"{side}_ear", mix(skin, shade, 0.35))
            canvas.lines([f"{side}_ear"], skin_ink, pen * 0.8, closed=True)
            canvas.stroke(f"{side}_ear_fold", darker(shade, 0.25), pen * 0.8, 0.6)

    _skin(canvas, skin, shade, lit)
    canvas.fill("nose_right" if lit < 0 else "nose_left", mix(skin, shade, 0.75))
    canvas.stroke("nose_bridge", mix(shade, skin_ink, 0.6), pen * 0.8, 0.4)
    for side in SIDES:
        canvas.fill(f"nostril_{side}", mix(shade, skin_ink, 0.8))
        canvas.stroke(f"wing_{side}", mix(shade, skin_ink, 0.6), pen * 0.8, 0.3)
    canvas.stroke("nose_base", skin_ink, pen, 0.35)
    _painted_mouth(canvas, face, skin, skin_ink)
    iris = _pick(rng, EYES)
    lashes = rng.random() < 0.5
    for side, opened in zip(SIDES, face.eye_open, strict=True):
        _painted_eye(canvas, side, opened, iris, skin_ink, lashes)
    brow = darker(hair if look.hairline != "bald" else HAIRS[1], 0.35)
    if abs(sum(brow) - sum(skin)) < 130:  # a brow that can't be seen teaches nothing
        brow = darker(brow, 0.75) if sum(skin) > 270 else lighter(brow, 0.4)
    thick = rng.uniform(0.07, 0.13) * face.unit
    for side in SIDES:
        canvas.stroke(f"{side}_brow", brow, thick, 0.55)
    canvas.stroke("jaw", skin_ink, pen * 1.25, 0.25)
    _headdress(canvas, look, hair, hair_ink, skin_ink)
    _glasses(canvas, look)
    if look.shows_ears and rng.random() < 0.2:
        for side in SIDES:
            canvas.disc(curves[f"{side}_lobe"][0], 0.06 * face.unit, (244, 206, 92))
    if look.prop:  # a lollipop before the face hides points, as hands and cups do in photos
        canvas.stroke("prop_stick", (244, 240, 230), 0.09 * face.unit)
        color = _pick(rng, LIPS)
        canvas.fill("prop", color)
        canvas.stroke(canvas.swirl(), (252, 236, 226), 0.075 * face.unit)
        canvas.lines(["prop"], darker(color, 0.5), closed=True)
    return picture


def _backdrop(canvas: Canvas) -> None:
    rng, size = canvas.rng, len(canvas.picture)
    a, b = _pick(rng, BACKDROPS, 14), _pick(rng, BACKDROPS, 14)
    canvas.picture[:] = gradient(size, (a, mix(a, b, rng.random()), mix(a, b, rng.random()), b))
    tint = [lighter(a, 0.35), darker(b, 0.12), _pick(rng, BACKDROPS), lighter(b, 0.2)]
    kind = rng.integers(5)
    if kind == 0:  # rays
        middle = rng.uniform(0.2, 0.8, 2) * size
        edges = np.linspace(0, 2 * np.pi, 2 * int(rng.integers(7, 13)), endpoint=False) + rng.random()
        for start, end in edges.reshape(-1, 2):
            fan = 1.5 * size * np.array([(0, 0), (np.cos(start), np.sin(start)), (np.cos(end), np.sin(end))])
            canvas.fill(middle + fan, tint[0])
    elif kind == 1:  # dots
        step = size / rng.uniform(5, 9)
        for row in range(int(size / step) + 2):
            for column in range(int(size / step) + 2):
                canvas.disc(((column + 0.5 * (row % 2)) * step, row * step), 0.18 * step, tint[0])
    elif kind == 2:  # hills
        for level, color in ((0.55, tint[3]), (0.75, tint[1])):
            x = np.linspace(0, 1, 17)
            y = level + 0.1 * np.sin(2 * np.pi * (x * rng.uniform(0.6, 1.6) + rng.random()))
            canvas.fill(size * np.concatenate([np.column_stack([x, y]), [(1.05, 1.1), (-0.05, 1.1)]]), color)
    elif kind == 3:  # stripes
        angle, step = rng.uniform(0, np.pi), size / rng.uniform(4, 8)
        across, along = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
        ends = size * 1.5 * np.array([-along, along, along, -along])
        sides = step * np.array([[0], [0], [1], [1]]) * across
        for i in np.arange(-6, 7):
            canvas.fill(size / 2 + across * step * i * 2 + ends + sides, tint[3])
    for _ in range(rng.integers(1, 6)):  # clutter: round and cornered things, some of them skin-coloured
        middle, radius = rng.uniform(0, size, 2), rng.uniform(0.03, 0.14) * size
        color = _pick(rng, SKINS) if rng.random() < 0.25 else tint[rng.integers(4)]
        if rng.random() < 0.5:
            canvas.disc(middle, radius, color)
        else:
            turns = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            canvas.fill(middle + radius * np.column_stack([np.cos(turns), np.sin(turns)]), color)


def _clothes(canvas: Canvas, shade: Color, ink: Color) -> None:
    """Neck and shoulders: the neck turns with the head, the shoulders stay level."""
    unit = canvas.unit
    neck = canvas.curves["neck"].copy()
    base = (neck[1] + neck[2]) / 2
    neck[1:3] = base + unit * np.array([(-0.5, 0.4), (0.5, 0.4)])
    wide, cloth = canvas.rng.uniform(1.5, 1.9), _pick(canvas.rng, CLOTHES)
    bottom = len(canvas.picture) + 2
    slope = np.array([(-wide, 0.85), (-0.9 * wide, 0.4), (-0.95, 0.16), (-0.55, 0.0)]) * unit
    collar = base + unit * np.column_stack([np.linspace(-0.55, 0.55, 9), 0.32 - 0.32 * np.linspace(-1, 1, 9) ** 2])
    shoulders = np.concatenate([base + slope, collar, (base + slope * (-1, 1))[::-1]])
    hem = [(base[0] + (wide + 0.1) * unit, bottom), (base[0] - (wide + 0.1) * unit, bottom)]
    canvas.fill(neck, darker(shade, 0.14))
    canvas.lines([neck[:2], neck[2:]], ink)
    canvas.fill(np.concatenate([shoulders, hem]), cloth)
    canvas.stroke(collar, darker(cloth, 0.35), 0.09 * unit)
    canvas.lines([base + slope[:-1], base + slope[:-1] * (-1, 1)], darker(cloth, 0.4))


def _skin(canvas: Canvas, skin: Color, shade: Color, lit: int) -> None:
    """The face in two tones: the edge of the shadow follows the cheek."""
    head, points, unit = canvas.curves["head"], canvas.curves["points"], canvas.unit
    canvas.fill(head, shade)
    right = points[45] - points[36]
    right /= np.linalg.norm(right)
    away = np.clip((head - points[30]) @ right * -lit / unit, 0, 1)[:, None]  # 0 on the lit side, 1 at the dark edge
    canvas.fill(head + away**1.5 * 0.24 * unit * right * lit, skin)
    if canvas.rng.random() < 0.55:
        for side in SIDES:
            canvas.fill(f"{side}_cheek", mix(skin, (236, 88, 92), 0.22))
    if canvas.rng.random() < 0.15:  # freckles
        for side in SIDES:
            for place in canvas.rng.normal(0, 0.09, (5, 2)) * unit + canvas.curves[f"{side}_cheek"].mean(axis=0):
                canvas.disc(place, 0.02 * unit, mix(skin, shade, 0.9))


def _painted_mouth(canvas: Canvas, face: SyntheticFace, skin: Color, ink: Color) -> None:
    pen = canvas.pen
    red = mix(skin, _pick(canvas.rng, LIPS), canvas.rng.uniform(0.45, 1.0))
    canvas.fill("lips", red)
    is_open = face.mouth_open > 0.06
    if is_open:
        canvas.fill("gap", (84, 26, 38))
        canvas.fill("tongue", (206, 92, 98))
        canvas.fill("teeth", (252, 250, 242))
    for edge in ("lips_top", "lips_bottom"):
        canvas.stroke(edge, darker(red, 0.45), pen * 0.9, 0.3)
    for gap in ("gap_top", "gap_bottom") if is_open else ("gap_top",):
        canvas.stroke(gap, darker(red, 0.72), pen * 0.9, 0.3)
    canvas.stroke("mouth_shade", mix(skin, ink, 0.3), pen, 0.6)


def _painted_eye(canvas: Canvas, side: str, opened: float, iris: Color, ink: Color, lashes: bool) -> None:
    pen, upper = canvas.pen, canvas.curves[f"{side}_upper_lid"]
    canvas.eyeball(side, opened, white=(250, 250, 248), iris=iris, pupil=(20, 14, 18), glint=(255, 255, 255))
    canvas.stroke(f"{side}_lower_lid", mix(ink, (255, 255, 255), 0.12), pen * 0.8, 0.3)
    canvas.stroke(upper, INK, pen * (1.9 if lashes else 1.5), 0.45)
    canvas.stroke(f"{side}_crease", mix(ink, (255, 220, 200), 0.35), pen * 0.7, 0.8)
    if lashes:
        outer, inner = (upper[0], upper[5]) if side == "left" else (upper[-1], upper[-6])
        canvas.stroke(np.linspace(outer, outer + 0.55 * (outer - inner), 5), INK, pen * 1.2, 0.5)


def _headdress(canvas: Canvas, look: Look, hair: Color, hair_ink: Color, skin_ink: Color) -> None:
    if look.hairline == "bald":
        canvas.lines([canvas.curves["head"][64:]], skin_ink, canvas.pen)
        return
    color, ink = hair, hair_ink
    if look.hairline == "beanie":
        color = _pick(canvas.rng, CLOTHES)
        ink = darker(color, 0.5)
        canvas.fill("pompom", lighter(color, 0.5))
        canvas.lines(["pompom"], ink, canvas.pen, closed=True)
    canvas.fill("hair", color)
    if look.hairline == "beanie":
        canvas.fill("band", darker(color, 0.2))
    else:  # a highlight, opposite points of the hair's two edges mixed
        shine = slice(6, 16) if canvas.rng.random() < 0.5 else slice(17, 27)
        top, edge = canvas.curves["hair_top"][shine], canvas.curves["hair_edge"][shine]
        shine_line = 0.62 * top + 0.38 * edge
        canvas.stroke(shine_line[:: 4 if look.hairline == "spiky" else 1], lighter(color, 0.28), canvas.pen * 2.4, 1.0)
        strands = [top[i] + (edge[i] - top[i]) * np.linspace(0.45, 0.95, 4)[:, None] for i in range(1, 10, 3)]
        canvas.lines(strands, darker(color, 0.28))
    canvas.lines(["hair"], ink, canvas.pen, closed=True)


def _glasses(canvas: Canvas, look: Look) -> None:
    if look.glasses == "none":
        return
    frame = (34, 30, 38) if canvas.rng.random() < 0.6 else _pick(canvas.rng, CLOTHES)
    if look.glasses == "sun":
        for side in SIDES:
            glass = canvas.curves[f"{side}_glass"]
            canvas.fill(glass, (44, 40, 52))
            canvas.stroke(glass[15:20] * 0.7 + glass.mean(axis=0) * 0.3, (150, 150, 168), canvas.pen * 1.6, 0.8)
    canvas.spectacle_frame(frame, 1.6, 1.3)


@dataclass(frozen=True)
class Paper:
    """A sheet and what is drawn on it with."""

    sheet: Color
    ink: Color
    wash: Color
    ruled: str = "plain"

    @property
    def soft(self) -> Color:
        """Ink of little pressure."""
        return mix(self.ink, self.sheet, 0.45)


PAPERS: tuple[Paper, ...] = (
    Paper((246, 241, 228), (58, 56, 60), (255, 252, 244)),  # graphite on cream
    Paper((252, 252, 250), (34, 54, 142), (255, 255, 255), "lines"),  # ballpoint in a school book
    Paper((208, 180, 142), (74, 44, 28), (226, 204, 170)),  # sepia on kraft
    Paper((240, 230, 214), (150, 52, 38), (250, 240, 224)),  # sanguine
    Paper((42, 56, 54), (228, 232, 224), (58, 74, 70)),  # chalk on a board
    Paper((36, 72, 128), (222, 234, 246), (48, 88, 148), "grid"),  # blueprint
    Paper((236, 240, 238), (28, 28, 30), (250, 252, 250), "grid"),  # fineliner on squared paper
)


def paint_sketch(rng: np.random.Generator, size: int, face: SyntheticFace, look: Look, curves: Curves) -> Photo:
    """A face drawn in one ink on paper: contours, hatching, and a light wash."""
    paper = PAPERS[rng.integers(len(PAPERS))]
    pen = rng.uniform(0.026, 0.036) * face.unit
    ink, soft, faint = paper.ink, paper.soft, mix(paper.ink, paper.sheet, 0.72)
    canvas = Canvas(np.empty((size, size, 3), np.uint8), curves, face.unit, pen, rng)
    _sheet(canvas, paper)

    if look.back_hair != "none" and look.hairline != "bald":
        outline = curves["back_hair"]
        canvas.fill(outline, mix(paper.wash, ink, 0.14))
        inwards = outline.mean(axis=0) - outline
        echoes = [outline + inwards * share for share in (0.0, 0.04, 0.08, 0.13)]
        canvas.lines(echoes, mix(soft, paper.sheet, 0.25), closed=True)
    _shoulders(canvas, paper)
    if look.shows_ears:
        for side in SIDES:
            canvas.fill(f"{side}_ear", paper.wash)
            canvas.lines([f"{side}_ear"], soft, pen, closed=True)
            canvas.stroke(f"{side}_ear_fold", faint, pen)
    canvas.fill("head", paper.wash)
    # Shadow along one cheek: short parallel lines that start at the jaw.
    rows = curves["jaw"][4:30:2] if rng.random() < 0.5 else curves["jaw"][60:34:-2]
    inward = (curves["points"][33] - rows) * np.linspace(0.2, 0.42, len(rows))[:, None]
    canvas.lines(np.stack([rows, rows + inward], axis=1), faint)

    _twice(canvas, "nose_bridge", paper, pen * 0.85)
    _twice(canvas, "nose_base", paper, pen)
    for side in SIDES:
        canvas.fill(f"nostril_{side}", soft)
        canvas.stroke(f"wing_{side}", soft, pen)
    _drawn_mouth(canvas, face, paper)
    for side, opened in zip(SIDES, face.eye_open, strict=True):
        _drawn_eye(canvas, side, opened, paper)
    _twice(canvas, "jaw", paper, pen * 1.25)
    _drawn_hair(canvas, look, paper)
    if look.glasses == "sun":
        for side in SIDES:
            canvas.fill(f"{side}_glass", mix(ink, paper.sheet, 0.12))
    if look.glasses != "none":
        canvas.spectacle_frame(ink, 1.5, 1.0)
    if look.prop:
        canvas.fill("prop", paper.wash)
        canvas.lines(["prop_stick", canvas.swirl()], ink, pen)
        canvas.lines(["prop"], ink, pen, closed=True)
    return add_grain(canvas.picture, rng, 5, coarse=2)


def _twice(canvas: Canvas, name: str, paper: Paper, width: float) -> None:
    """A searching line beside the true one, as a hand draws; the true one lies exactly on the curve."""
    curve = canvas.curves[name]
    bend = np.linspace(-1, 1, len(curve))[:, None]
    drift = canvas.rng.normal(0, 0.018 * canvas.unit, (2, 2))
    canvas.lines([curve + drift[0] + drift[1] * bend], mix(paper.soft, paper.ink, 0.1))
    canvas.stroke(curve, paper.ink, width, 0.3)


def _sheet(canvas: Canvas, paper: Paper) -> None:
    rng, size = canvas.rng, len(canvas.picture)
    edge = mix(paper.sheet, (90, 80, 60), 0.1)
    canvas.picture[:] = gradient(size, [mix(paper.sheet, edge, rng.random()) for _ in range(4)])
    if paper.ruled != "plain":
        step, start = size / rng.uniform(8, 14), rng.random()
        at = (np.arange(-1, 16) + start) * step
        rules = [np.array([(-2, y), (size + 2, y)]) for y in at]
        if paper.ruled == "grid":
            rules += [np.array([(x, -2), (x, size + 2)]) for x in at]
        canvas.lines(rules, mix(mix(paper.sheet, paper.ink, 0.22), (120, 160, 220), 0.3))
    for _ in range(rng.integers(2, 6)):  # what else is on the sheet
        middle, reach = rng.uniform(0.02, 0.98, 2) * size, rng.uniform(0.03, 0.09) * size
        t = np.linspace(0, 1, 40)
        kind = rng.integers(4)
        if kind == 0:  # a spiral
            shape = t[:, None] * np.column_stack([np.cos(16 * t), np.sin(16 * t)])
        elif kind == 1:  # a star in one stroke
            turns = np.arange(6) * 4 * np.pi / 5 + rng.random()
            shape = np.column_stack([np.cos(turns), np.sin(turns)])
        elif kind == 2:  # a scribble
            shape = np.column_stack([2 * t - 1, np.sin(30 * t) * (0.6 - 0.4 * t)])
        else:  # a cloud
            turns = 2 * np.pi * t
            bumps = 1 + 0.18 * np.abs(np.sin(4 * turns))
            shape = np.column_stack([1.3 * np.cos(turns), 0.7 * np.sin(turns)]) * bumps[:, None]
        canvas.lines([middle + reach * shape], mix(paper.sheet, paper.ink, 0.5))


def _drawn_hair(canvas: Canvas, look: Look, paper: Paper) -> None:
    if look.hairline == "bald":
        canvas.stroke(canvas.curves["head"][64:], paper.ink, canvas.pen, 0.2)
        return
    canvas.fill("hair", mix(paper.wash, paper.ink, canvas.rng.choice([0.0, 0.12, 0.3])))
    if look.hairline == "beanie":
        canvas.fill("band", mix(paper.wash, paper.ink, 0.25))
        canvas.lines(["band", "pompom"], paper.ink, closed=True)
    canvas.lines(_strands(canvas, 46), paper.soft)
    canvas.lines(_strands(canvas, 14), paper.ink)
    canvas.lines(["hair"], paper.ink, canvas.pen, closed=True)


def _strands(canvas: Canvas, count: int) -> Curve:
    """Hairs from one edge of the hair to the other, a little bent: ``(count, 5, 2)``."""
    rng, top, edge = canvas.rng, canvas.curves["hair_top"], canvas.curves["hair_edge"]
    index = np.arange(len(top))
    at = np.sort(rng.uniform(0, len(top) - 1, count))
    starts = np.column_stack([np.interp(at, index, top[:, k]) for k in (0, 1)])
    ends = np.column_stack(
        [np.interp(np.clip(at + rng.normal(0, 0.8, count), 0, len(top) - 1), index, edge[:, k]) for k in (0, 1)]
    )
    share = np.linspace(0, 1, 5)[:, None]
    first, last = rng.uniform(0.0, 0.2, (count, 1, 1)), rng.uniform(0.75, 1.0, (count, 1, 1))
    reach = (ends - starts)[:, None]
    bend = reach[..., ::-1] * (0.08, -0.08) * np.sin(np.pi * share)
    return starts[:, None] + reach * (first + (last - first) * share) + bend


def _shoulders(canvas: Canvas, paper: Paper) -> None:
    unit = canvas.unit
    neck = canvas.curves["neck"].copy()
    base = (neck[1] + neck[2]) / 2
    neck[1:3] = base + unit * np.array([(-0.6, 0.2), (0.6, 0.2)])
    canvas.fill(neck, mix(paper.wash, paper.sheet, 0.6))
    canvas.lines([neck[:2], neck[2:]], paper.soft, canvas.pen)
    wide = canvas.rng.uniform(1.4, 1.9)
    side = np.array([(-0.6, 0.2), (-0.9, 0.3), (-0.8 * wide, 0.45), (-wide, 0.9), (-wide, 3.0)]) * unit
    canvas.lines([base + side, base + side * (-1, 1)], paper.ink, canvas.pen)
    collar = np.column_stack([np.linspace(-0.6, 0.6, 9), 0.5 - 0.3 * np.linspace(-1, 1, 9) ** 2]) * unit
    canvas.lines([base + collar, base + collar * (1.1, 1.2)], paper.soft)


def _drawn_mouth(canvas: Canvas, face: SyntheticFace, paper: Paper) -> None:
    pen, ink = canvas.pen, paper.ink
    canvas.fill("lips", mix(paper.wash, ink, canvas.rng.uniform(0.1, 0.35)))
    if face.mouth_open > 0.06:
        canvas.fill("gap", mix(ink, paper.sheet, 0.3))
        canvas.fill("teeth", mix(paper.wash, (255, 255, 255), 0.5))
        canvas.stroke("gap_bottom", ink, pen * 0.8, 0.3)
    canvas.stroke("gap_top", ink, pen, 0.3)
    _twice(canvas, "lips_top", paper, pen * 0.8)
    _twice(canvas, "lips_bottom", paper, pen * 0.8)
    canvas.stroke("mouth_shade", paper.soft, pen * 0.8, 0.6)


def _drawn_eye(canvas: Canvas, side: str, opened: float, paper: Paper) -> None:
    """An eye, the line of its brow and short hairs across it."""
    pen, ink, soft = canvas.pen, paper.ink, paper.soft
    white = mix(paper.wash, (255, 255, 255), 0.6 if sum(paper.sheet) > 380 else 0.1)
    canvas.eyeball(side, opened, white=white, iris=mix(ink, paper.sheet, 0.4), pupil=ink, glint=paper.wash)
    canvas.stroke(f"{side}_lower_lid", mix(ink, soft, 0.4), pen * 0.8, 0.3)
    canvas.stroke(f"{side}_upper_lid", ink, pen * 1.6, 0.4)
    canvas.stroke(f"{side}_crease", soft, pen * 0.7, 0.8)
    brow = canvas.curves[f"{side}_brow"]
    canvas.stroke(brow, ink, pen * 1.8, 0.4)
    rise = np.column_stack([np.linspace(-1, 1, len(brow)), np.full(len(brow), -1.0)])
    lean = canvas.rng.uniform(0.03, 0.06) * canvas.unit * rise
    canvas.lines(np.stack([brow - lean, brow + lean], axis=1), mix(ink, soft, 0.3))
