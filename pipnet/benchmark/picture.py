"""A picture of the results: how long a face takes, and speed against NME where that is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from pipnet.files import replacing

_COLORS = {"torch": "#d1495b", "onnxruntime": "#00798c", "openvino": "#6a4c93", "own": "#7a7a7a"}
_MARKERS = {"fp32": "o", "int8": "s", "": "D"}
_SHADES = (1.0, 0.55, 0.35, 0.25)  # of the bars of one contender, by number of threads
_BAR = 0.8
# Where a label may stand from its point, in points of the page: near first.
_PLACES = sorted(
    ((side * reach, dy) for side in (1, -1) for reach in (8, 25, 50) for dy in range(-99, 100, 9)),
    key=lambda place: (abs(place[0]) + 1.5 * abs(place[1]), -place[0], place[1]),
)


def draw_picture(results: dict[str, Any], path: str | Path) -> None:
    """Draw the content of ``benchmark.json``; whole or not at all.

    Bars for the smallest batch, beside them speed and NME for the smallest number of threads.
    """
    batch = min(row["batch"] for row in results["contenders"])
    rows = [row for row in results["contenders"] if row["batch"] == batch]
    threads = min(row["threads"] for row in rows)
    key = _accuracy_key(rows)
    known = [row for row in rows if row["threads"] == threads and key and (row["accuracy"] or {}).get(key) is not None]
    names = list(dict.fromkeys(row["name"] for row in rows))
    height = max(3.6, 1.3 + 0.34 * len(names))
    figure = Figure(figsize=(13.0 if known else 7.5, max(height, 5.0) if known else height), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if known else 1, squeeze=False)[0]
    _draw_bars(panels[0], rows, names, batch)
    if known:
        _draw_points(
            panels[1], known, "NME, % of the outer-eye distance" + (", 51 inner points" if key == "inner" else "")
        )
        panels[1].set_title(f"speed and error, {_threads(threads)}; best is down and left", fontsize="medium")
        figure.draw_without_rendering()  # labels are placed where the axes have come to lie
        _label(panels[1], known, key)
    machine = results["machine"]
    figure.suptitle(f"{machine['processor']}, {machine['cores']} cores to use", fontsize="small", color="0.35")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _accuracy_key(rows: list[dict[str, Any]]) -> str | None:
    """All points, unless somebody has the inner ones only and everybody has these."""
    known = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    if not known:
        return None
    inner_only = any(one["nme"] is None for one in known)
    return "inner" if inner_only and all(one["inner"] is not None for one in known) else "nme"


def _draw_bars(axes: Axes, rows: list[dict[str, Any]], names: list[str], batch: int) -> None:
    counts = sorted({row["threads"] for row in rows})
    end = max(row["ms"]["high"] for row in rows) / batch
    for row in rows:
        place = counts.index(row["threads"])
        width = _BAR / len(counts)
        y = names.index(row["name"]) - _BAR / 2 + width * (place + 0.5)
        low, middle, high = (row["ms"][name] / batch for name in ("low", "median", "high"))
        color = _COLORS.get(row["runtime"], "black")
        axes.barh(y, middle, width, color=color, alpha=_SHADES[min(place, len(_SHADES) - 1)])
        axes.plot([low, high], [y, y], color="black", linewidth=1)
        axes.text(high + 0.01 * end, y, f"{middle:.1f}", va="center", fontsize="x-small")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="ms a face: median, quartiles of the rounds", xlim=(0, 1.12 * end))
    shades = " and ".join(_threads(count) for count in counts)
    axes.set_title(f"{shades}{' (paler)' if len(counts) > 1 else ''}, batch {batch}", fontsize="medium")
    axes.grid(axis="x", alpha=0.3)


def _draw_points(axes: Axes, rows: list[dict[str, Any]], ylabel: str) -> None:
    key = "inner" if ylabel.endswith("inner points") else "nme"
    for row in rows:
        low, middle, high = (row["ms"][name] / row["batch"] for name in ("low", "median", "high"))
        color = _COLORS.get(row["runtime"], "black")
        y = row["accuracy"][key]
        axes.plot([low, high], [y, y], color=color, linewidth=1.5, alpha=0.6)
        axes.plot([middle], [y], marker=_MARKERS.get(row["precision"], "o"), color=color, markersize=7, linestyle="")
    axes.set_xscale("log")
    values = [row["ms"]["median"] / row["batch"] for row in rows]
    axes.set_xlim(min(values) / 1.6, max(values) * 2.2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    errors = [row["accuracy"][key] for row in rows]
    margin = max(0.3 * (max(errors) - min(errors)), 0.05 * max(errors), 1e-3)
    axes.set_ylim(max(min(errors) - margin, 0), max(errors) + margin)
    axes.set(xlabel="ms a face (log)", ylabel=ylabel)
    axes.grid(alpha=0.3)


def _label(axes: Axes, rows: list[dict[str, Any]], key: str | None) -> None:
    """Names beside the points, each where it covers no other."""
    frame = axes.get_window_extent()
    points = [axes.transData.transform((row["ms"]["median"] / row["batch"], row["accuracy"][key])) for row in rows]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in points]
    lines = [_line(axes, row, key) for row in rows]
    lines = [box for box in lines if box.width > 14]  # a shorter one lies behind its point
    for own, row in enumerate(rows):
        others = [*lines, *(box for index, box in enumerate(taken) if index != own)]
        for place in _PLACES:
            note = _note(axes, row, key, place)
            box = note.get_window_extent()
            note.remove()
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in others):
                break
        else:
            place = _PLACES[0]
        _note(axes, row, key, place, line=max(abs(place[0]), abs(place[1])) > 9)
        taken.append(box)


def _line(axes: Axes, row: dict[str, Any], key: str | None) -> Bbox:
    """Where the quartiles of a point are drawn."""
    ends = [(row["ms"][name] / row["batch"], row["accuracy"][key]) for name in ("low", "high")]
    (x0, y), (x1, _) = axes.transData.transform(ends)
    return Bbox.from_extents(x0, y - 2, x1, y + 2)


def _note(
    axes: Axes, row: dict[str, Any], key: str | None, place: tuple[int, int], *, line: bool = False
) -> Annotation:
    color = _COLORS.get(row["runtime"], "black")
    return axes.annotate(
        row["name"],
        (row["ms"]["median"] / row["batch"], row["accuracy"][key]),
        xytext=place,
        textcoords="offset points",
        ha="left" if place[0] > 0 else "right",
        va="center",
        fontsize="small",
        color=color,
        # The extent of a note includes its line, so places are tried without one.
        arrowprops={"arrowstyle": "-", "color": color, "alpha": 0.4} if line else None,
    )


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
