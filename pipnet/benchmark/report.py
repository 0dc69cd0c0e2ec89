"""The files of a benchmark: ``benchmark.json``, ``report.md``, ``speed.png``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipnet.benchmark.picture import draw_picture
from pipnet.benchmark.tables import left_out_table, peak_table, start_table, timing_table, work_table
from pipnet.files import replacing

JSON, MARKDOWN, PICTURE = "benchmark.json", "report.md", "speed.png"


def write_report(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write all files, each whole or not at all.

    Raises:
        OSError: One can't be written; the message names it.
    """
    paths = [folder / name for name in (JSON, MARKDOWN, PICTURE)]
    with replacing(paths[0]) as temporary:
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    with replacing(paths[1]) as temporary:
        temporary.write_text(markdown(results), encoding="utf-8")
    draw_picture(results, paths[2])
    return paths


def markdown(results: dict[str, Any]) -> str:
    """The report as text."""
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    settings_outside = " ".join(f"{name}={value}" for name, value in machine["environment"].items())
    load = results["load_average"]
    busy = "" if load is None else f" Processes that wanted a core while it ran: {load:.1f}."
    parts = [
        "# Benchmark",
        f"{machine['processor']}, {machine['cores']} cores to use, {machine['system']}, Python {machine['python']}, "
        f"pipnet {machine['pipnet']}, {versions}. Crops of {results['subject']}. {settings['rounds']} rounds, "
        f"everything in turn.{busy}",
        f"    python -m pipnet.benchmark {settings['command']}".rstrip(),
        timing_table(results),
        "Milliseconds: median and quartiles of the rounds. Times faster: than PyTorch on the same network, threads and "
        "batch, in the same rounds (another detector: than the first network's PyTorch on one face). Share of the "
        "peak: at the median, and of the fastest call.",
        *results["notes"],
        *([f"Environment: {settings_outside}."] if settings_outside else []),
        *_section("Cold and warm start", start_table(results)),
        *_section("The machine's matrix peak, in the same rounds", peak_table(results)),
        *_section("Work, 2 × multiply-accumulate, one face", work_table(results)),
        *_section("Left out", left_out_table(results)),
    ]
    if any(row["accuracy"] is not None for row in results["contenders"]):
        parts.append(f"![Speed and error]({PICTURE})")
    else:
        parts.append(f"![Milliseconds a face]({PICTURE})")
    return "\n\n".join(parts) + "\n"


def _section(title: str, table: str) -> list[str]:
    return [f"## {title}", table] if table else []
