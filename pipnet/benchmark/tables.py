"""Results as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

NOTHING = "–"


def timing_table(results: dict[str, Any]) -> str:
    """Milliseconds, ratios, work, share of the peak and NME of each contender."""
    rows = [
        [
            row["model"],
            row["runtime"],
            row["precision"] or NOTHING,
            str(row["threads"]),
            str(row["batch"]),
            f"{row['ms']['median']:.2f} ({row['ms']['low']:.2f} … {row['ms']['high']:.2f})",
            f"{row['ms_a_face']:.2f}",
            _ratio(row),
            _number(row["gflop"], "{:.3g}"),
            _share(row),
            *_accuracy(row["accuracy"]),
        ]
        for row in results["contenders"]
    ]
    head = ["network", "runtime", "precision", "threads", "batch", "ms a call", "ms a face", "times faster", "GFLOP"]
    return table([*head, "share of the peak (best)", "NME %", "51 inner %"], rows)


def work_table(results: dict[str, Any]) -> str:
    """GFLOP of each network: as the authors compute it, and what each runtime computes of it."""
    runtimes: dict[tuple[str, int, float, float | None], list[str]] = {}
    for row in results["contenders"]:
        if row["gflop"] is not None:
            key = (row["model"], row["input_size"], row["gflop"], row["gflop_dense"])
            names = runtimes.setdefault(key, [])
            names += [row["runtime"]] * (row["runtime"] not in names)
    rows = [
        [model, str(size), _number(dense, "{:.3g}"), ", ".join(names), f"{gflop:.3g}"]
        for (model, size, gflop, dense), names in runtimes.items()
    ]
    return table(["network", "crop, px", "GFLOP, all maps at every cell", "runtime", "GFLOP computed"], rows)


def peak_table(results: dict[str, Any]) -> str:
    """The machine's matrix peak."""
    rows = [
        [peak["precision"], str(peak["threads"]), f"{peak['gflops']:.0f}", str(peak["size"])]
        for peak in results["peaks"]
    ]
    return table(["precision", "threads", "10⁹ operations a second", "side of the matrices"], rows)


def start_table(results: dict[str, Any]) -> str:
    """Cold start, warm start, memory."""
    rows = [
        [
            start["name"],
            _seconds(start["cold_s"]),
            _seconds(start["warm_s"]),
            f"{max(start['peak_mib']):.0f}" if start["peak_mib"] else NOTHING,
            "yes" if start["torch"] else "no",
        ]
        for start in results["starts"]
    ]
    return table(["network", "cold start, s", "warm start, s", "peak memory, MiB", "imports torch"], rows)


def left_out_table(results: dict[str, Any]) -> str:
    """What takes no part, and why."""
    return table(["left out", "because"], [[row["name"], row["reason"]] for row in results["left_out"]])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; empty without rows.

    Example:
        >>> print(table(["a", "b"], [["1", "x|y"]]))
        | a | b |
        | --- | --- |
        | 1 | x/y |
    """
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "/") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ratio(row: dict[str, Any]) -> str:
    if row["ratio"] is None:
        return NOTHING
    if row["ratio_to"] == row["name"]:
        return "1"
    found = row["ratio"]
    return f"{found['median']:.2f} ({found['low']:.2f} … {found['high']:.2f})"


def _share(row: dict[str, Any]) -> str:
    if row["share"] is None:
        return NOTHING
    return f"{100 * row['share']:.0f} % ({100 * row['share_best']:.0f} %)"


def _accuracy(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return [NOTHING, NOTHING]
    missed = f" ({found['missed']} missed)" if found["missed"] else ""
    cells = [_number(found["nme"], "{:.2f}"), _number(found["inner"], "{:.2f}")]
    return [cell if cell == NOTHING else cell + missed for cell in cells]


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _seconds(values: Sequence[float]) -> str:
    middle = f"{statistics.median(values):.2f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.2f} … {max(values):.2f})"
