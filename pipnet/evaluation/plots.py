"""Pictures of an evaluation: the error curve, the cost of box noise, the worst faces."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from pipnet.data.images import read_image, write_image
from pipnet.data.report import contact_sheet, draw_points
from pipnet.evaluation.evaluate import Evaluation, NoiseLevel
from pipnet.files import replacing
from pipnet.geometry import crop_of_square, crop_squares
from pipnet.metrics import auc, ced, labelled_box

_LIMIT = 0.10  # right end of the error curve
_TILE = 256
_TRUE, _PRED, _LINK = (60, 220, 60), (255, 70, 60), (255, 210, 60)  # RGB
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
    """
    errors = evaluation.errors()
    order = np.argsort(np.where(np.isnan(errors), -1.0, errors))[::-1]  # what can't be measured is not worst
    tiles, captions = [], []
    for face in order[:count].tolist():
        sample, true, pred = evaluation.samples[face], evaluation.true[face], evaluation.pred[face]
        # Twice the face, so that a prediction beside it is still seen.
        crop = crop_of_square(crop_squares(labelled_box(true[None]), crop_scale=2.0)[0], _TILE)
        tile = np.ascontiguousarray(crop.warp(read_image(sample.image)))
        true_crop, pred_crop = crop.to_crop(true), crop.to_crop(pred)
        pairs = np.stack([true_crop, pred_crop], axis=1)  # (N, 2, 2)
        for pair in pairs[np.isfinite(pairs).all(axis=(1, 2))]:
            ends = np.clip(np.rint(pair * 16), -(2**20), 2**20).astype(np.int32)  # far ones would overflow
            cv2.polylines(tile, [ends], False, _LINK, 1, cv2.LINE_AA, shift=4)
        labelled = np.isfinite(true).all(axis=1)
        tile = draw_points(tile, pred_crop[labelled], color=_PRED, radius=1.5)
        tiles.append(draw_points(tile, true_crop, color=_TRUE, radius=1.5))
        error = errors[face]
        figure = "missed" if np.isinf(error) else "not measurable" if np.isnan(error) else f"NME {100 * error:.2f} %"
        captions.append(f"{figure} {sample.name}".encode("ascii", "replace").decode())
    write_image(Path(path), contact_sheet(tiles, columns=columns, captions=captions, gap=0))
