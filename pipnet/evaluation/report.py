"""The report of an evaluation: figures with intervals, one line a face, pictures.

Files: ``metrics.json``, ``per_face.csv``, ``ced.png``, ``worst_faces.png`` and, with a noise curve, ``box_noise.png``.
All errors, rates and areas in them are in percent.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.console import as_text
from pipnet.evaluation.evaluate import Evaluation, NoiseLevel
from pipnet.evaluation.plots import draw_box_noise, draw_ced, draw_worst_faces
from pipnet.files import replacing
from pipnet.metrics import Interval, bootstrap, error_statistics, mean_error

UNIT = "percent (errors: of the named distance; fr: of the faces; auc: of the area)"

# Faces are judged by the box at 7 % as well, the threshold that papers use with this norm.
_THRESHOLDS: dict[str, tuple[float, ...]] = dict.fromkeys(("box", "label_box"), (0.07, 0.08, 0.10))
_NORM_TITLES = {"outer_eye": "outer eyes", "pupil": "pupils", "box": "box size", "label_box": "label box size"}


def write_report(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    noise: Sequence[NoiseLevel] = (),
    about: Mapping[str, Any] | None = None,
    unread: Sequence[str] = (),
    resamples: int = 2000,
    worst: int = 24,
) -> dict[str, Any]:
    """Measure an evaluation and write its files.

    Args:
        evaluation: Result of :func:`pipnet.evaluation.evaluate.evaluate`.
        folder: Made if missing; files of an earlier report are replaced.
        noise: Result of :func:`pipnet.evaluation.evaluate.box_noise_curve`.
        about: What was measured (checkpoint, dataset, split); plain types, written at the top of ``metrics.json``.
        unread: Faces that the reader of the dataset skipped, one reason each; listed with those skipped here.
        resamples: Bootstrap resamples of each interval.
        worst: Faces on ``worst_faces.png``.

    Returns:
        The content of ``metrics.json``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {**(about or {}), **measure(evaluation, noise=noise, resamples=resamples)}
    metrics["skipped"] = [as_text(reason) for reason in (*unread, *evaluation.bad)]
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _write_per_face(evaluation, folder / "per_face.csv")
    draw_ced(evaluation, folder / "ced.png")
    draw_worst_faces(evaluation, folder / "worst_faces.png", count=worst)
    if noise:
        draw_box_noise(noise, evaluation.main_norm, folder / "box_noise.png")
    return metrics


def measure(evaluation: Evaluation, *, noise: Sequence[NoiseLevel] = (), resamples: int = 2000) -> dict[str, Any]:
    """All figures of an evaluation as plain types, percent; what can't be measured is None.

    Returns:
        ``layout``, ``protocol``, ``faces``, ``missed``, ``skipped`` (reasons); ``all``: for each norm, for the inner
        points (``inner``, main norm) and, if asked for, the authors' ``crop_space``, the mean, median, fr and auc,
        each as ``{"value", "low", "high"}`` with a 95 % bootstrap interval; ``subsets``: the same for each part of the
        dataset; ``parts``: the mean over the points of each facial part; ``bias``: mean signed error along x and y;
        ``box_noise``: the curve.
    """
    everyone = np.ones(len(evaluation), dtype=bool)
    vectors = _error_vectors(evaluation)
    return {
        "unit": UNIT,
        "interval": f"95 % percentile bootstrap over faces, {resamples} resamples",
        "layout": evaluation.layout.name,
        "protocol": evaluation.protocol
        | ({} if evaluation.crop_space_scale is None else {"crop_space_scale": evaluation.crop_space_scale}),
        "main_norm": evaluation.main_norm,
        "faces": len(evaluation),
        "missed": int(evaluation.missed.sum()),
        "skipped": list(evaluation.bad),
        "mean_box_iou": _rounded(float(np.nanmean(evaluation.ious)) * 100) if not evaluation.missed.all() else None,
        "all": _figures(vectors, everyone, resamples),
        "subsets": {
            name: _figures(vectors, evaluation.in_subset(name), resamples) for name in evaluation.subset_names()
        },
        "parts": {
            part: {
                norm: _percent(_bootstrap(evaluation.errors(norm, points), {"mean": mean_error}, resamples)["mean"])
                for norm in dict.fromkeys((evaluation.main_norm, "box"))
            }
            for part, points in evaluation.layout.parts().items()
        },
        "bias": _bias(evaluation, resamples),
        "box_noise": [
            {"level": level.level, "faces": level.faces}
            | {name: _percent(interval) for name, interval in level.statistics.items()}
            for level in noise
        ],
    }


def format_table(metrics: Mapping[str, Any]) -> str:
    """The main figures of :func:`measure` as a text table for a terminal."""
    columns = ("mean", "median", "fr_8", "fr_10", "auc_8", "auc_10")
    rows = [["NME %, by", "faces", "mean", "median", "FR@8", "FR@10", "AUC@8", "AUC@10"]]

    def add(title: str, figures: Mapping[str, Any]) -> None:
        rows.append([title, str(figures["faces"]), *(_cell(figures[column]) for column in columns)])

    main = metrics["main_norm"]
    for key, figures in metrics["all"].items():
        add(_title(key, main), figures)
    for name, subset in metrics["subsets"].items():
        if subset["box"]["faces"] == metrics["all"]["box"]["faces"]:
            continue  # every face is in it: the lines above
        for key in dict.fromkeys((main, "box")):
            add(f"{name}, {_title(key, main)}", subset[key])
    for part, norms in metrics["parts"].items():
        rows.append([f"{part}, {_title(main, main)}", str(metrics["faces"]), _cell(norms[main]), *[""] * 5])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    bias = metrics["bias"]
    lines.append(f"bias: x {_cell(bias['x'])}, y {_cell(bias['y'])} (signed, % of {_NORM_TITLES[main]})")
    for level in metrics["box_noise"]:
        lines.append(
            f"box noise ±{100 * level['level']:g} %: mean {_cell(level['mean'])}, FR@10 {_cell(level['fr_10'])}"
        )
    return "\n".join(lines)


def _error_vectors(evaluation: Evaluation) -> dict[str, np.ndarray]:
    vectors = {norm: evaluation.errors(norm) for norm in evaluation.norms}
    if evaluation.layout.inner:
        vectors["inner"] = evaluation.errors(points=evaluation.layout.inner)
    if evaluation.crop_space_scale is not None:
        vectors["crop_space"] = evaluation.crop_space_errors()
    return vectors


def _figures(vectors: Mapping[str, np.ndarray], chosen: np.ndarray, resamples: int) -> dict[str, Any]:
    figures = {}
    for key, errors in vectors.items():
        statistics = error_statistics(_THRESHOLDS.get(key, (0.08, 0.10)))
        errors = errors[chosen]
        figures[key] = {
            "faces": int((~np.isnan(errors)).sum()),
            "found": int(np.isfinite(errors).sum()),
            "unmeasurable": int(np.isnan(errors).sum()),
            **{name: _percent(interval) for name, interval in _bootstrap(errors, statistics, resamples).items()},
        }
    return figures


def _bootstrap(errors: np.ndarray, statistics: Mapping[str, Any], resamples: int) -> dict[str, Interval]:
    """Intervals over the faces that can be measured; NaN throughout where none can."""
    errors = errors[~np.isnan(errors)]
    if not errors.size:
        return {name: Interval(np.nan, np.nan, np.nan) for name in statistics}
    return bootstrap(errors, statistics, resamples=resamples)


def _bias(evaluation: Evaluation, resamples: int) -> dict[str, Any]:
    bias = evaluation.bias()
    average = {"mean": lambda values: values.mean(axis=-1)}
    return {
        axis: _percent(_bootstrap(values, average, resamples)["mean"])
        for axis, values in zip("xy", bias.T, strict=True)
    }


def _percent(interval: Interval) -> dict[str, float | None]:
    scaled = interval.scaled(100)
    return {name: _rounded(getattr(scaled, name)) for name in ("value", "low", "high")}


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _title(key: str, main: str) -> str:
    if key == "inner":
        return f"inner points, {_NORM_TITLES[main]}"
    return {**_NORM_TITLES, "crop_space": "authors' crop space"}[key]


def _cell(interval: Mapping[str, float | None]) -> str:
    if interval["value"] is None:
        return "-"
    return f"{interval['value']:.2f} [{interval['low']:.2f}, {interval['high']:.2f}]"


def _write_per_face(evaluation: Evaluation, path: Path) -> None:
    """One line a face, in the order of the samples; an empty cell is a missed face or an error without its norm."""
    parts = {part: evaluation.errors(points=points) for part, points in evaluation.layout.parts().items()}
    vectors = {f"nme_{key}": values for key, values in _error_vectors(evaluation).items()}
    vectors |= {f"part_{part}": values for part, values in parts.items()}
    vectors |= {f"bias_{axis}": values for axis, values in zip("xy", evaluation.bias().T, strict=True)}
    distances = {f"{norm}_px": values for norm, values in evaluation.norms.items()}
    header = ["name", "subsets", "found", "box_iou", "score", *distances, *vectors]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for face, sample in enumerate(evaluation.samples):
            writer.writerow(
                [
                    as_text(sample.name),
                    "+".join(sample.subsets),
                    int(not evaluation.missed[face]),
                    _text(evaluation.ious[face]),
                    _text(evaluation.scores[face]),
                    *(_text(values[face]) for values in distances.values()),
                    *(_text(100 * values[face]) for values in vectors.values()),
                ]
            )


def _text(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""
