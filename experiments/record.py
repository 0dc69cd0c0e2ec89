"""What the scripts of the records share: their command line, the file of the figures, the processor."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from pipnet.benchmark.machine import describe
from pipnet.files import replacing
from pipnet.metrics import Interval


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A command line that is described by the text at the top of its script."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def data_root(description: str | None) -> Path:
    """DATA_ROOT, where it is all that a script is given."""
    command = command_line(description)
    command.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    return command.parse_args().data_root


def write(file: Path, metrics: Any) -> None:
    """The figures, as JSON; ``python experiments/tables.py`` brings them to the README beside it."""
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


def read(file: Path) -> Any:
    """What :func:`write` wrote; FileNotFoundError if it has not yet."""
    return json.loads(file.read_text(encoding="utf-8"))


def percent(value: Interval) -> dict[str, float]:
    """An interval of fractions in percent, rounded."""
    return {name: round(100 * float(getattr(value, name)), 4) for name in ("value", "low", "high")}


def write_with_missing(file: Path, metrics: dict[str, Any]) -> None:
    """The figures of the runs that are there; says which are not."""
    write(file, metrics)
    if metrics["missing"]:
        print(f"missing: {', '.join(metrics['missing'])}")


def processor() -> str:
    """Model name of the processor, and whether it has the instructions for 8 bits."""
    facts = describe()
    return f"{facts['processor']} ({'VNNI' if facts['vnni'] else 'no VNNI'})"


def drop_settings() -> None:
    """Start again without the environment variables that set threads or the allocator: they are read at the start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "OMP_"))}
    if len(kept) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], kept)
