"""What was measured, as plain types and as text: ``benchmark.json``, ``report.md``, and what the terminal shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipnet.benchmark.cases import Case, Suite
from pipnet.benchmark.machine import describe, load_average
from pipnet.benchmark.timing import Seconds, of_rounds, ratio
from pipnet.files import replacing

FORMAT = 2  # of benchmark.json; 1 was that of pipnet 0.4


def collect(suite: Suite, seconds: Seconds, nme: Mapping[str, float], run: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``benchmark.json``: rows of :func:`case_rows`, and what has to be known to read them.

    Args:
        suite: What was to be timed, and what was skipped.
        seconds: By a case's key, ``(rounds, calls)``; a case that is missing was not reached.
        nme: Percent, by a case's name.
        run: Plain entries: ``command``, ``rounds`` that were asked for, ``notes``.
    """
    late = [
        f"{case.name}, threads={case.threads}, batch={case.batch}" for case in suite.cases if case.key not in seconds
    ]
    skipped = [*suite.skipped, *((name, "it was not reached") for name in late)]
    return {
        "format": FORMAT,
        "machine": describe(),
        "load_average": load_average(),
        **run,
        "rounds_done": max(map(len, seconds.values())),
        "cases": case_rows(suite.cases, seconds, nme),
        "skipped": [{"name": name, "reason": reason} for name, reason in skipped],
    }


def case_rows(cases: Sequence[Case], seconds: Seconds, nme: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row of plain types for each case that was timed, from the arguments of :func:`collect`.

    ``ms`` is of a call, ``ms_a_face`` its median by the faces in it; ``ratio`` says how many times faster than the case
    named in ``ratio_to`` (PyTorch on the same network, threads and batch, else the first of these) in the same rounds.
    """
    cases = [case for case in cases if case.key in seconds]
    rows = []
    for case in cases:
        like = [one for one in cases if (one.model, one.threads, one.batch) == (case.model, case.threads, case.batch)]
        base = next((one for one in like if one.runtime == "torch"), like[0])
        own = seconds[case.key]
        milliseconds = of_rounds(own).scaled(1000)
        rows.append(
            {key: getattr(case, key) for key in ("name", "model", "runtime", "precision", "threads", "batch")}
            | {
                "ms": {**asdict(milliseconds), "best": 1000 * float(own.min())},
                "ms_a_face": milliseconds.median / case.batch,
                "ratio": asdict(ratio(seconds[base.key], own)),
                "ratio_to": base.name,
                "nme": nme.get(case.name),
            }
        )
    return rows


def write_report(results: dict[str, Any], folder: Path) -> list[Path]:
    """Write both files, each whole or not at all.

    Raises:
        OSError: One can't be written; the message names it.
    """
    head = f"# Benchmark\n\n    python -m pipnet.benchmark {results['command']}".rstrip()
    files = {"benchmark.json": json.dumps(results, indent=2), "report.md": f"{head}\n\n{summary(results)}"}
    for name, content in files.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(content + "\n", encoding="utf-8")
    return [folder / name for name in files]


def summary(results: dict[str, Any]) -> str:
    """What the terminal shows: the machine, the table, what is fastest, and what has to be known to read it."""
    machine, done, asked = results["machine"], results["rounds_done"], results["rounds"]
    facts = [
        machine["processor"] + {True: " (VNNI)", False: " (no VNNI)", None: ""}[machine["vnni"]],
        f"{machine['cores']} cores to use",
        *(f"{name} {machine[name]}" for name in ("python", "pipnet")),
        *(f"{name} {number}" for name, number in machine["versions"].items()),
        *(f"{name}={value}" for name, value in machine["environment"].items()),
        *([] if results["load_average"] is None else [f"load average {results['load_average']:.1f}"]),
    ]
    best = {row["model"]: row for row in sorted(results["cases"], key=lambda row: -row["ms_a_face"])}
    fastest = [f"{row['name']}, threads={row['threads']}, batch={row['batch']}" for row in best.values()]
    rounds = asked if done == asked else f"{done} of {asked}"
    parts = [
        f"{', '.join(facts)}.",
        case_table(results["cases"]),
        f"Median and quartiles of {rounds} rounds, in turn. Times faster: than the row marked 1, in the same rounds.",
        f"Fastest: {'; '.join(fastest)}.",
        *results["notes"],
        table(["skipped", "because"], [[row["name"], row["reason"]] for row in results["skipped"]]),
    ]
    return "\n\n".join(filter(None, parts))


def case_table(rows: Sequence[dict[str, Any]]) -> str:
    """Milliseconds, ratios and NME of rows of :func:`case_rows`."""
    cells = [
        [
            *(str(row[key]) for key in ("model", "runtime", "precision", "threads", "batch")),
            _spread({key: row["ms"][key] / row["batch"] for key in ("median", "low", "high")}),
            "1" if row["ratio_to"] == row["name"] else _spread(row["ratio"]),
            "–" if row["nme"] is None else f"{row['nme']:.2f}",
        ]
        for row in rows
    ]
    return table(["network", "runtime", "precision", "threads", "batch", "ms a face", "times faster", "NME %"], cells)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with columns of even width; empty without rows."""
    if not rows:
        return ""
    lines = [head, *([cell.replace("|", "/") for cell in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def _spread(value: Mapping[str, float]) -> str:
    return f"{value['median']:.2f} ({value['low']:.2f} … {value['high']:.2f})"
