"""Faces drawn in one ink on paper: contours, hatching, and a light wash."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipnet.data.synthetic.face import SyntheticFace
from pipnet.data.synthetic.ink import Color, add_grain, disc, fill, gradient, lines, mix, stroke
from pipnet.data.synthetic.outlines import Curves, Look


@dataclass(frozen=True)
class Paper:
    """A sheet and what is drawn on it with."""

    sheet: Color
    ink: Color
    wash: Color
    ruled: str = "plain"


PAPERS: tuple[Paper, ...] = (
    Paper((246, 241, 228), (58, 56, 60), (255, 252, 244)),  # graphite on cream
    Paper((252, 252, 250), (34, 54, 142), (255, 255, 255), "lines"),  # ballpoint in a school book
    Paper((208, 180, 142), (74, 44, 28), (226, 204, 170)),  # sepia on kraft
    Paper((240, 230, 214), (150, 52, 38), (250, 240, 224)),  # sanguine
    Paper((42, 56, 54), (228, 232, 224), (58, 74, 70)),  # chalk on a board
    Paper((36, 72, 128), (222, 234, 246), (48, 88, 148), "grid"),  # blueprint
    Paper((236, 240, 238), (28, 28, 30), (250, 252, 250), "grid"),  # fineliner on squared paper
)


def paint_sketch(rng: np.random.Generator, size: int, face: SyntheticFace, look: Look, curves: Curves) -> np.ndarray:
    """A picture of the face, RGB uint8 ``(size, size, 3)``; arguments as for the cartoon."""
    paper = PAPERS[rng.integers(len(PAPERS))]
    unit = face.unit
    pen = rng.uniform(0.026, 0.036) * unit
    ink = paper.ink
    soft, faint = mix(paper.ink, paper.sheet, 0.45), mix(paper.ink, paper.sheet, 0.72)
    picture = _sheet(rng, size, paper)

    if look.back_hair != "none" and look.hairline != "bald":
        _back_hair(picture, curves["back_hair"], paper, mix(soft, paper.sheet, 0.25), pen)
    _body(picture, rng, curves, paper, ink, soft, unit, pen)
    if look.back_hair not in ("bob", "long", "afro"):
        for side in ("left", "right"):
            fill(picture, curves[f"{side}_ear"], paper.wash)
            lines(picture, [curves[f"{side}_ear"]], soft, max(1, round(pen)), closed=True)
            stroke(picture, curves[f"{side}_ear_fold"], faint, pen)
    fill(picture, curves["head"], paper.wash)
    _hatch_cheek(picture, rng, curves, faint, unit)

    _twice(picture, rng, curves["nose_bridge"], soft, ink, pen * 0.85, unit)
    _twice(picture, rng, curves["nose_base"], soft, ink, pen, unit)
    for side in ("left", "right"):
        fill(picture, curves[f"nostril_{side}"], soft)
        stroke(picture, curves[f"wing_{side}"], soft, pen)
    _mouth(picture, rng, face, curves, paper, ink, soft, pen, unit)
    for index, side in enumerate(("left", "right")):
        _eye(picture, rng, curves, side, face.eye_open[index], paper, ink, soft, pen, unit)
        _brow(picture, rng, curves[f"{side}_brow"], ink, soft, unit, pen)
    _twice(picture, rng, curves["jaw"], soft, ink, pen * 1.25, unit)
    _hair(picture, rng, look, curves, paper, ink, soft, pen)
    if look.glasses != "none":
        rims = [curves["left_glass"], curves["right_glass"]]
        if look.glasses == "sun":
            for rim in rims:
                fill(picture, rim, mix(ink, paper.sheet, 0.12))
        lines(picture, rims, ink, max(1, round(pen * 1.5)), closed=True)
        inner = [rims[0][np.argmin(np.linalg.norm(rims[0] - rims[1].mean(axis=0), axis=1))]]
        inner += [rims[1][np.argmin(np.linalg.norm(rims[1] - rims[0].mean(axis=0), axis=1))]]
        lines(picture, [np.stack(inner), curves["left_temple"], curves["right_temple"]], ink, max(1, round(pen)))
    if look.prop:
        fill(picture, curves["prop"], paper.wash)
        centre, t = curves["prop"].mean(axis=0), np.linspace(0.05, 1, 60)
        swirl = centre + 0.33 * unit * t[:, None] * np.column_stack([np.cos(15 * t), np.sin(15 * t)])
        lines(picture, [curves["prop_stick"], swirl], ink, max(1, round(pen)))
        lines(picture, [curves["prop"]], ink, max(1, round(pen)), closed=True)
    return add_grain(picture, rng, 5, coarse=2)


def _twice(
    picture: np.ndarray, rng: np.random.Generator, curve: np.ndarray, soft: Color, ink: Color, width: float, unit: float
) -> None:
    """A searching line beside the true one, as a hand draws; the true one lies exactly on the curve."""
    bend = np.linspace(-1, 1, len(curve))[:, None]
    drift = rng.normal(0, 0.018 * unit, (2, 2))
    lines(picture, [curve + drift[0] + drift[1] * bend], mix(soft, ink, 0.1))
    stroke(picture, curve, ink, width, 0.3)


def _sheet(rng: np.random.Generator, size: int, paper: Paper) -> np.ndarray:
    edge = mix(paper.sheet, (90, 80, 60), 0.1)
    picture = gradient(size, [mix(paper.sheet, edge, rng.random()) for _ in range(4)])
    faint = mix(paper.sheet, paper.ink, 0.22)
    if paper.ruled != "plain":
        step, start = size / rng.uniform(8, 14), rng.random()
        at = (np.arange(-1, 16) + start) * step
        rules = [np.array([(-2, y), (size + 2, y)]) for y in at]
        if paper.ruled == "grid":
            rules += [np.array([(x, -2), (x, size + 2)]) for x in at]
        lines(picture, rules, mix(faint, (120, 160, 220), 0.3))
    doodle = mix(paper.sheet, paper.ink, 0.5)
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
            shape = (
                np.column_stack([1.3 * np.cos(turns), 0.7 * np.sin(turns)])
                * (1 + 0.18 * np.abs(np.sin(4 * turns)))[:, None]
            )
        lines(picture, [middle + reach * shape], doodle)
    return picture


def _strands(top: np.ndarray, edge: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Hairs from one curve to the other, a little bent: ``(count, 5, 2)``."""
    at = np.sort(rng.uniform(0, len(top) - 1, count))
    index = np.arange(len(top))
    starts = np.column_stack([np.interp(at, index, top[:, k]) for k in (0, 1)])
    ends = np.column_stack(
        [np.interp(np.clip(at + rng.normal(0, 0.8, count), 0, len(top) - 1), index, edge[:, k]) for k in (0, 1)]
    )
    share = np.linspace(0, 1, 5)[:, None]
    first, last = rng.uniform(0.0, 0.2, (count, 1, 1)), rng.uniform(0.75, 1.0, (count, 1, 1))
    reach = (ends - starts)[:, None]
    bend = reach[..., ::-1] * (0.08, -0.08) * np.sin(np.pi * share)
    return starts[:, None] + reach * (first + (last - first) * share) + bend


def _hair(
    picture: np.ndarray,
    rng: np.random.Generator,
    look: Look,
    curves: Curves,
    paper: Paper,
    ink: Color,
    soft: Color,
    pen: float,
) -> None:
    if look.hairline == "bald":
        stroke(picture, curves["head"][64:], ink, pen, 0.2)
        return
    fill(picture, curves["hair"], mix(paper.wash, paper.ink, rng.choice([0.0, 0.12, 0.3])))
    if look.hairline == "beanie":
        fill(picture, curves["band"], mix(paper.wash, paper.ink, 0.25))
        lines(picture, [curves["band"], curves["pompom"]], ink, 1, closed=True)
    lines(picture, _strands(curves["hair_top"], curves["hair_edge"], rng, 46), soft)
    lines(picture, _strands(curves["hair_top"], curves["hair_edge"], rng, 14), ink)
    lines(picture, [curves["hair"]], ink, max(1, round(pen)), closed=True)


def _back_hair(picture: np.ndarray, outline: np.ndarray, paper: Paper, soft: Color, pen: float) -> None:
    fill(picture, outline, mix(paper.wash, paper.ink, 0.14))
    middle = outline.mean(axis=0)
    lines(picture, [outline + (middle - outline) * share for share in (0.0, 0.04, 0.08, 0.13)], soft, closed=True)


def _body(
    picture: np.ndarray,
    rng: np.random.Generator,
    curves: Curves,
    paper: Paper,
    ink: Color,
    soft: Color,
    unit: float,
    pen: float,
) -> None:
    neck = curves["neck"].copy()
    base = (neck[1] + neck[2]) / 2
    neck[1:3] = base + unit * np.array([(-0.6, 0.2), (0.6, 0.2)])
    fill(picture, neck, mix(paper.wash, paper.sheet, 0.6))
    lines(picture, [neck[:2], neck[2:]], soft, max(1, round(pen)))
    wide = rng.uniform(1.4, 1.9)
    side = np.array([(-0.6, 0.2), (-0.9, 0.3), (-0.8 * wide, 0.45), (-wide, 0.9), (-wide, 3.0)]) * unit
    lines(picture, [base + side, base + side * (-1, 1)], ink, max(1, round(pen)))
    collar = np.column_stack([np.linspace(-0.6, 0.6, 9), 0.5 - 0.3 * np.linspace(-1, 1, 9) ** 2]) * unit
    lines(picture, [base + collar, base + collar * (1.1, 1.2)], soft)


def _hatch_cheek(picture: np.ndarray, rng: np.random.Generator, curves: Curves, faint: Color, unit: float) -> None:
    """Shadow along one cheek: short parallel lines that start at the jaw."""
    jaw = curves["jaw"]
    rows = jaw[4:30:2] if rng.random() < 0.5 else jaw[60:34:-2]
    inward = (curves["points"][33] - rows) * np.linspace(0.2, 0.42, len(rows))[:, None]
    lines(picture, np.stack([rows, rows + inward], axis=1), faint)


def _mouth(
    picture: np.ndarray,
    rng: np.random.Generator,
    face: SyntheticFace,
    curves: Curves,
    paper: Paper,
    ink: Color,
    soft: Color,
    pen: float,
    unit: float,
) -> None:
    fill(picture, curves["lips"], mix(paper.wash, paper.ink, rng.uniform(0.1, 0.35)))
    if face.mouth_open > 0.06:
        fill(picture, curves["gap"], mix(paper.ink, paper.sheet, 0.3))
        fill(picture, curves["teeth"], mix(paper.wash, (255, 255, 255), 0.5))
        stroke(picture, curves["gap_bottom"], ink, pen * 0.8, 0.3)
    stroke(picture, curves["gap_top"], ink, pen, 0.3)
    _twice(picture, rng, curves["lips_top"], soft, ink, pen * 0.8, unit)
    _twice(picture, rng, curves["lips_bottom"], soft, ink, pen * 0.8, unit)
    stroke(picture, curves["mouth_shade"], soft, pen * 0.8, 0.6)


def _eye(
    picture: np.ndarray,
    rng: np.random.Generator,
    curves: Curves,
    side: str,
    opened: float,
    paper: Paper,
    ink: Color,
    soft: Color,
    pen: float,
    unit: float,
) -> None:
    fill(picture, curves[f"{side}_eye"], mix(paper.wash, (255, 255, 255), 0.6 if sum(paper.sheet) > 380 else 0.1))
    if opened > 0.2:
        fill(picture, curves[f"{side}_iris"], mix(ink, paper.sheet, 0.4))
        fill(picture, curves[f"{side}_pupil"], ink)
        if opened > 0.5:
            disc(picture, curves[f"{side}_glint"][0], max(pen * 0.75, 0.8), paper.wash)
    stroke(picture, curves[f"{side}_lower_lid"], mix(ink, soft, 0.4), pen * 0.8, 0.3)
    stroke(picture, curves[f"{side}_upper_lid"], ink, pen * 1.6, 0.4)
    stroke(picture, curves[f"{side}_crease"], soft, pen * 0.7, 0.8)


def _brow(
    picture: np.ndarray, rng: np.random.Generator, curve: np.ndarray, ink: Color, soft: Color, unit: float, pen: float
) -> None:
    """The line of the brow and short hairs across it."""
    stroke(picture, curve, ink, pen * 1.8, 0.4)
    lean = rng.uniform(0.03, 0.06) * unit * np.column_stack([np.linspace(-1, 1, len(curve)), np.full(len(curve), -1.0)])
    lines(picture, np.stack([curve - lean, curve + lean], axis=1), mix(ink, soft, 0.3))
