"""The picture of ``accuracy.py``: milliseconds of a face against its error, a panel for each set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = {"common": "Common-554 (dlib has probably seen it)", "wflw": "WFLW-108"}
SCALES = {"common": "linear", "wflw": "log"}  # dlib's mean on WFLW is four times that of all others
OURS_COLOR, OTHERS_COLOR = "#1f5fa8", "#b0552b"
MARKERS = {"eager": "o", "torch": "s", "onnxruntime": "D", "openvino": "^"}
APART = 11  # points between two upright labels


def picture(metrics: dict[str, Any], path: Path) -> None:
    """Draw it.

    Args:
        metrics: Of ``accuracy.json``.
        path: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from pipnet.files import replacing

    titles = metrics["titles"]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 5.2))
    for axis, part in zip(axes, PANELS, strict=True):
        _panel(axis, part, metrics, list(titles))
    axes[0].set_ylabel("mean error of 51 inner points, % of the outer-eye distance")
    note = "left and down is better; bars: 95 % intervals of the mean over faces"
    figure.text(0.99, 0.015, note, ha="right", fontsize=8.5)
    figure.text(0.01, 0.015, "pipnet, the network that ships", color=OURS_COLOR, fontsize=8.5)
    figure.text(0.2, 0.015, "others", color=OTHERS_COLOR, fontsize=8.5)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    for axis, part in zip(axes, PANELS, strict=True):  # now that a point's place on the page is known
        own = [name for name in titles if name.startswith("shipped")]
        _labels_below(axis, part, metrics, {name: titles[name].removeprefix("pipnet, ") for name in own})
        missed = {name: metrics["sets"][part][name]["missed"] for name in titles if name not in own}
        _labels_above(axis, part, metrics, {n: titles[n] + f" ({k} missed)" * (k > 0) for n, k in missed.items()})
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")
    pyplot.close(figure)


def _place(metrics: dict[str, Any], part: str, name: str) -> tuple[float, dict[str, float]]:
    return metrics["speed"][name]["ms"]["median"], metrics["sets"][part][name]["51"]["mean"]


def _panel(axis: Axes, part: str, metrics: dict[str, Any], names: list[str]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullFormatter

    for name in names:
        x, error = _place(metrics, part, name)
        own = name.startswith("shipped")
        color = OURS_COLOR if own else OTHERS_COLOR
        axis.errorbar(
            x,
            error["value"],
            yerr=[[error["value"] - error["low"]], [error["high"] - error["value"]]],
            marker=MARKERS[name.split()[1]] if own else "o",
            color=color,
            markerfacecolor="white" if own and name.endswith("fp32") else color,
            markersize=7,
            elinewidth=1,
            capsize=2.5,
        )
    places = [_place(metrics, part, name) for name in names]
    low, high = min(error["low"] for _, error in places), max(error["high"] for _, error in places)
    # Room for labels, upright ones below and lines of them above.
    axis.set(title=PANELS[part], xlabel="milliseconds a face, 1 thread", xscale="log", yscale=SCALES[part])
    axis.set_ylim(*((0, 1.35 * high) if SCALES[part] == "linear" else (0.22 * low, 2 * high)))
    axis.set_xlim(0.7 * min(x for x, _ in places), 1.8 * max(x for x, _ in places))
    logarithmic = [axis.xaxis, axis.yaxis] if SCALES[part] == "log" else [axis.xaxis]
    for line in logarithmic:
        line.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
        line.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        line.set_minor_formatter(NullFormatter())
    if SCALES[part] == "linear":
        axis.yaxis.set_major_locator(MultipleLocator(1))
    axis.grid(alpha=0.2)
    axis.spines[["top", "right"]].set_visible(False)


def _labels_below(axis: Axes, part: str, metrics: dict[str, Any], titles: dict[str, str]) -> None:
    """Upright, moved aside where marks are closer than letters are high."""
    order = sorted(titles, key=lambda name: _place(metrics, part, name)[0])
    to_points = 72 / axis.figure.dpi
    wanted = [axis.transData.transform((_place(metrics, part, name)[0], 1))[0] * to_points for name in order]
    for index, own in enumerate(_apart(wanted)):
        x, error = _place(metrics, part, order[index])
        axis.annotate(
            titles[order[index]],
            (x, error["low"]),
            xytext=(own - wanted[index], -14),
            textcoords="offset points",
            rotation=90,
            ha="center",
            va="top",
            fontsize=8.5,
            color=OURS_COLOR,
            arrowprops={"arrowstyle": "-", "color": OURS_COLOR, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2},
        )


def _apart(wanted: list[float]) -> list[float]:
    """Rising places as near to the wanted ones as they can be, :data:`APART` from each other."""
    groups: list[list[float]] = []  # places that touch share their displacement
    for place in wanted:
        groups.append([place])
        while (
            len(groups) > 1
            and _centre(groups[-1]) - _centre(groups[-2]) < APART * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_centre(group) + APART * (i - (len(group) - 1) / 2) for group in groups for i in range(len(group))]


def _centre(group: list[float]) -> float:
    return sum(group) / len(group)


def _labels_above(axis: Axes, part: str, metrics: dict[str, Any], titles: dict[str, str]) -> None:
    """The fastest beside its mark, each of the others on a line of its own, so that no text crosses a leader."""
    order = sorted(titles, key=lambda name: _place(metrics, part, name)[0])
    style = {"fontsize": 8.5, "color": OTHERS_COLOR, "va": "center"}
    for line, name in enumerate(order):
        x, error = _place(metrics, part, name)
        if name == order[0]:
            axis.annotate(titles[name], (x, error["value"]), xytext=(9, 0), textcoords="offset points", **style)
            continue
        # The last has the least room to its right, and nothing below it.
        axis.annotate(
            titles[name].replace(" (", "\n(") if name == order[-1] else titles[name],
            (x, error["high"]),
            xytext=(x, 1.02 - 0.05 * line),
            textcoords=("data", "axes fraction"),
            ha="left",
            arrowprops={
                "arrowstyle": "-",
                "color": OTHERS_COLOR,
                "linewidth": 0.5,
                "shrinkA": 0,
                "shrinkB": 2,
                "relpos": (0, 0),
            },
            **style,
        )
