"""Pictures of an evaluation: the error curve, the cost of box noise, the worst faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from pipnet.data.images import read_image, write_image
from pipnet.evaluation.evaluate import Evaluation, NoiseLevel
from pipnet.files import replacing
from pipnet.geometry import crop_of_square, crop_squares
from pipnet.metrics import auc, ced, labelled_box

_LIMIT = 0.10  # right end of the error curve
_TILE = 256
_CAPTION = 34
_TRUE, _PRED, _LINK, _INK = (60, 220, 60), (255, 70, 60), (255, 210, 60), (235, 235, 235)  # RGB
_NORM_AXES = {
    "outer_eye": "outer eye distance",
    "pupil": "pupil distance",
    "box": "box size",
    "label_box": "label box size",
}


def draw_ced(evaluation: Evaluation, path: str | Path) -> None:
    """Cumulative error curves: all faces by the main norm and by box size, and each part of the dataset.

    Missed faces never enter the curve, so it ends below 1 by their share.
    """
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axes = figure.subplots()
    main = evaluation.main_norm
    everyone = np.ones(len(evaluation), dtype=bool)
    curves = [(f"all faces, by {_NORM_AXES[main]}", main, everyone, {"color": "black", "linewidth": 2.2})]
    if main != "box":
        curves.append(
            ("all faces, by box size", "box", everyone, {"color": "black", "linewidth": 1.4, "linestyle": "--"})
        )
    for name in evaluation.subset_names():
        if not (chosen := evaluation.in_subset(name)).all():
            curves.append((name, main, chosen, {"linewidth": 1.2}))
    for title, norm, chosen, style in curves:
        errors = evaluation.errors(norm)[chosen]
        errors = errors[~np.isnan(errors)]
        if not errors.size:
            continue
        x, y = ced(errors, _LIMIT)
        label = f"{title} ({len(errors)}): AUC@10 {100 * auc(errors, _LIMIT):.1f} %"
        axes.plot(100 * x, 100 * y, drawstyle="steps-post", label=label, **style)
    axes.set(xlim=(0, 100 * _LIMIT), ylim=(0, 101), xlabel="NME, %", ylabel="faces with at most this error, %")
    axes.set_title(
        f"{len(evaluation)} faces, {int(evaluation.missed.sum())} missed, boxes: {evaluation.protocol['boxes']}"
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_box_noise(noise: Sequence[NoiseLevel], norm: str, path: str | Path) -> None:
    """Mean and median NME over the amount of box noise, with the 95 % intervals as bands."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    noise = sorted(noise, key=lambda level: level.level)
    levels = [100 * level.level for level in noise]
    for name, color in (("mean", "tab:blue"), ("median", "tab:orange")):
        intervals = [level.statistics[name].scaled(100) for level in noise]
        axes.plot(levels, [interval.value for interval in intervals], marker="o", color=color, label=name)
        lows, highs = [interval.low for interval in intervals], [interval.high for interval in intervals]
        axes.fill_between(levels, lows, highs, color=color, alpha=0.2, linewidth=0)
    axes.set(
        xlabel="box noise: largest shift and change of size, % of the box side",
        ylabel=f"NME, % of the {_NORM_AXES[norm]}",
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def draw_worst_faces(evaluation: Evaluation, path: str | Path, *, count: int = 24, columns: int = 6) -> None:
    """Contact sheet of the faces with the largest errors, missed ones first.

    True points are green, predicted ones red, and a yellow line joins the two.

    Raises:
        OSError: If the file can't be written.
        ValueError: If OpenCV can't write a picture with this suffix.
    """
    errors = evaluation.errors()
    order = np.argsort(np.where(np.isnan(errors), -1.0, errors))[::-1]  # what can't be measured is not worst
    tiles = [_face_tile(evaluation, int(face), float(errors[face])) for face in order[:count]]
    columns = min(columns, len(tiles))
    blank = np.zeros_like(tiles[0])
    tiles += [blank] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    write_image(Path(path), np.concatenate(rows))


def _face_tile(evaluation: Evaluation, face: int, error: float) -> np.ndarray:
    """One face with its points and a caption, RGB uint8 ``(_TILE + _CAPTION, _TILE, 3)``."""
    sample, true, pred = evaluation.samples[face], evaluation.true[face], evaluation.pred[face]
    # Twice the face, so that a prediction beside it is still seen.
    square = crop_squares(labelled_box(true[None]), crop_scale=2.0)[0]
    crop = crop_of_square(square, _TILE)
    tile = np.ascontiguousarray(crop.warp(read_image(sample.image)))
    labelled = ~np.isnan(true).any(axis=-1)
    true_crop = crop.to_crop(true[labelled])
    if not evaluation.missed[face]:
        pred_crop = crop.to_crop(pred[labelled])
        for start, end in zip(true_crop, pred_crop, strict=True):
            cv2.line(tile, _fixed(start), _fixed(end), _LINK, 1, cv2.LINE_AA, shift=4)
        _dots(tile, pred_crop, _PRED)
    _dots(tile, true_crop, _TRUE)
    caption = np.zeros((_CAPTION, _TILE, 3), dtype=np.uint8)
    figure = "missed" if np.isinf(error) else "not measurable" if np.isnan(error) else f"NME {100 * error:.2f} %"
    text = (sample.name if len(sample.name) <= 38 else "..." + sample.name[-35:]).encode("ascii", "replace").decode()
    for line, words in enumerate((text, figure)):
        cv2.putText(caption, words, (3, 13 + 15 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.38, _INK, 1, cv2.LINE_AA)
    return np.concatenate([tile, caption])


def _dots(image: np.ndarray, points: np.ndarray, color: tuple[int, int, int]) -> None:
    for point in points:
        cv2.circle(image, _fixed(point), 24, color, -1, cv2.LINE_AA, shift=4)  # radius 1.5 px


def _fixed(point: np.ndarray) -> tuple[int, int]:
    """Crop pixels as OpenCV's fixed point with 4 fractional bits; far points are clipped, they'd overflow."""
    x, y = np.clip(np.rint(point * 16), -(2**20), 2**20).astype(int).tolist()
    return x, y
