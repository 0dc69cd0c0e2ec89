"""The pictures of the record, from ``metrics.json`` and ``cost.json``.

    python experiments/heads/pictures.py

``error_over_time.png``: error on Common-554 over milliseconds, in 32 bits and int8 on ONNX Runtime.
``error_over_labels.png``: over the share of the training faces. ``risk_coverage.png``: of the faces that are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments.heads.heads import FEW_LABELS, FRACTIONS, HEADS
from pipnet.files import replacing

HERE = Path(__file__).resolve().parent
COLORS = {"pip": "tab:red", "alone": "tab:orange", "l1": "tab:cyan", "wing": "tab:blue", "baseline": "tab:green"}
OTHERS = "0.45"
SETS = {"common": "Common-554", "wflw": "WFLW-108", "infants": "infants/test"}


def error_over_time(axis: Axes, heads: dict[str, Any], columns: dict[str, Any]) -> None:
    """Of the first seed: a filled mark for 32 bits, an open one for int8, with a line between."""
    for name, of_head in heads.items():
        color = COLORS.get(name, OTHERS)
        marks = [(columns["onnxruntime"][name]["ms"]["median"], of_head["sets"]["common"]["by_seed"][0], color)]
        marks.append((columns["onnxruntime_int8"][name]["ms"]["median"], of_head["int8"]["mean"]["value"], "white"))
        axis.plot([x for x, *_ in marks], [y for _, y, _ in marks], color=color, linewidth=0.8, alpha=0.6)
        for x, y, face in marks:
            axis.plot(x, y, "o", color=color, markerfacecolor=face, markersize=6)
        axis.annotate(
            name.replace("_", " "), marks[0][:2], xytext=(6, 4), textcoords="offset points", fontsize=8, color=color
        )
    axis.set(xlabel="milliseconds a face, ONNX Runtime, 1 thread", ylabel="NME on Common-554, %", xscale="log")
    axis.set_xlim(0.4, 30)
    axis.set_xticks([0.5, 1, 2, 5, 10, 20])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def error_over_labels(axis: Axes, few: dict[str, Any]) -> None:
    """With its interval over faces."""
    for name in FEW_LABELS:
        shares = sorted(map(int, few[name]))
        means = [few[name][str(share)]["mean"] for share in shares]
        middle = [mean["value"] for mean in means]
        axis.plot(shares, middle, "o-", color=COLORS[name], label=HEADS[name].title, markersize=4)
        axis.fill_between(
            shares, [mean["low"] for mean in means], [mean["high"] for mean in means], color=COLORS[name], alpha=0.12
        )
    axis.set(xlabel="training faces, %", ylabel="NME on Common-554, %", xscale="log", xticks=[5, 10, 20, 50, 100])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.legend(fontsize=8, frameon=False)


def risk_coverage(axis: Axes, heads: dict[str, Any], of_set: str) -> None:
    """NME of the best-scored part of the faces."""
    for name in COLORS:
        if name in heads:
            risks = heads[name]["risk_coverage"][of_set]
            axis.plot(range(10, 101, 10), risks, "o-", color=COLORS[name], label=HEADS[name].title, markersize=3)
    axis.set(title=SETS[of_set], xlabel="faces kept, %", ylabel="NME, %", ylim=(0, None))


def save(figure: Figure, name: str) -> None:
    for axis in figure.axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    with replacing(HERE / name) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main() -> None:
    metrics = json.loads((HERE / "metrics.json").read_text(encoding="utf-8"))
    cost = json.loads((HERE / "cost.json").read_text(encoding="utf-8"))
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    error_over_time(figure.subplots(), metrics["heads"], cost["columns"])
    save(figure, "error_over_time.png")
    if all(len(shares) == len(FRACTIONS) + 1 for shares in metrics["few_labels"].values()):
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        error_over_labels(figure.subplots(), metrics["few_labels"])
        save(figure, "error_over_labels.png")
    figure = Figure(figsize=(10.0, 3.6), layout="constrained")
    axes = figure.subplots(1, len(SETS))
    for axis, of_set in zip(axes, SETS, strict=True):
        risk_coverage(axis, metrics["heads"], of_set)
    axes[0].legend(fontsize=7, frameon=False)
    save(figure, "risk_coverage.png")


if __name__ == "__main__":
    main()
