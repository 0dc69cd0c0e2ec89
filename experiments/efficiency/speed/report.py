"""The report of ``measure.py``: ``benchmark.json`` as tables, and as a picture of bars."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipnet.benchmark.report import table
from pipnet.files import replacing

_COLORS = {"torch": "#d1495b", "onnxruntime": "#00798c", "openvino": "#6a4c93"}
# Of pipnet 0.4: what its keys are called now.
_RENAMED = {"contenders": "cases", "left_out": "skipped", "subject": "image"}


def read_results(path: Path) -> dict[str, Any]:
    """The content of a ``benchmark.json``, also of one that pipnet 0.4 wrote."""
    return {_RENAMED.get(key, key): value for key, value in json.loads(path.read_text(encoding="utf-8")).items()}


def markdown(results: dict[str, Any]) -> str:
    """The report as text."""
    machine, settings = results["machine"], results["settings"]
    vnni = {True: " (VNNI)", False: " (no VNNI)", None: ""}[machine.get("vnni")]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    environment = " ".join(f"{name}={value}" for name, value in machine["environment"].items())
    load = results["load_average"]
    busy = "" if load is None else f" Processes that wanted a core while it ran: {load:.1f}."
    parts = [
        "# Runtimes, precisions, and what the processor can do",
        f"{machine['processor']}{vnni}, {machine['cores']} cores to use, {machine['system']}, Python "
        f"{machine['python']}, pipnet {machine['pipnet']}, {versions}. Crops of {results['image']}. "
        f"{settings['rounds']} rounds, everything in turn.{busy}",
        "Milliseconds: median and quartiles of the rounds. Times faster: than PyTorch on the same network, threads and "
        "batch, in the same rounds. Share of the peak: of the largest rate of a matrix product, at the median, and of "
        "the fastest call.",
        timing_table(results["cases"]),
        *results["notes"],
        *([f"Environment: {environment}."] if environment else []),
        *_section("Cold and warm start", start_table(results["starts"])),
        *_section("The largest rate of a matrix product, in the same rounds", peak_table(results["peaks"])),
        *_section("Skipped", table(["skipped", "because"], [list(row.values()) for row in results["skipped"]])),
        "![Milliseconds a face](speed.png)",
    ]
    return "\n\n".join(parts) + "\n"


def timing_table(rows: Sequence[dict[str, Any]]) -> str:
    """Milliseconds, ratios, work and share of the peak of each case."""
    head = ["network", "runtime", "precision", "threads", "batch", "ms a call", "ms a face", "times faster", "GFLOP"]
    cells = [
        [
            *(str(row[key]) for key in ("model", "runtime", "precision", "threads", "batch")),
            _spread(row["ms"]),
            f"{row['ms_a_face']:.2f}",
            "1" if row["ratio_to"] == row["name"] else _spread(row["ratio"]),
            f"{row['gflop']:.3g}",
            f"{100 * row['share']:.0f} % ({100 * row['share_best']:.0f} %)",
        ]
        for row in rows
    ]
    return table([*head, "share of the peak (best)"], cells)


def peak_table(peaks: Sequence[dict[str, Any]]) -> str:
    """The processor's largest rates."""
    cells = [[peak["precision"], str(peak["threads"]), f"{peak['gflops']:.0f}", str(peak["size"])] for peak in peaks]
    return table(["precision", "threads", "10⁹ operations a second", "side of the matrices"], cells)


def start_table(starts: Sequence[dict[str, Any]]) -> str:
    """Cold start, warm start, memory."""
    cells = [
        [
            start["name"],
            _seconds(start["cold_s"]),
            _seconds(start["warm_s"]),
            f"{max(start['peak_mib']):.0f}" if start["peak_mib"] else "–",
            "yes" if start["torch"] else "no",
        ]
        for start in starts
    ]
    return table(["network", "cold start, s", "warm start, s", "peak memory, MiB", "imports torch"], cells)


def picture(results: dict[str, Any], path: Path) -> None:
    """Bars of the milliseconds of one face a call, with the quartiles of the rounds; paler for more threads."""
    from matplotlib.figure import Figure

    rows = [row for row in results["cases"] if row["batch"] == 1]
    names = list(dict.fromkeys(row["name"] for row in rows))
    threads = sorted({row["threads"] for row in rows})
    figure = Figure(figsize=(7.5, max(3.6, 1.3 + 0.34 * len(names))), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        place, height = threads.index(row["threads"]), 0.8 / len(threads)
        y = names.index(row["name"]) - 0.4 + height * (place + 0.5)
        low, middle, high = (row["ms"][name] for name in ("low", "median", "high"))
        axes.barh(y, middle, height, color=_COLORS[row["runtime"]], alpha=1 / (1 + place))
        axes.plot([low, high], [y, y], color="black", linewidth=1)
        axes.annotate(f"{middle:.1f}", (high, y), (4, 0), textcoords="offset points", va="center", fontsize="x-small")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("ms a face: median, quartiles of the rounds")
    axes.set_title(f"threads: {', '.join(map(str, threads))} (more are paler)", fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    machine = results["machine"]
    figure.suptitle(f"{machine['processor']}, {machine['cores']} cores to use", fontsize="small", color="0.35")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _section(title: str, content: str) -> list[str]:
    return [f"## {title}", content] if content else []


def _spread(value: dict[str, float]) -> str:
    return f"{value['median']:.2f} ({value['low']:.2f} … {value['high']:.2f})"


def _seconds(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} … {max(values):.2f})"
