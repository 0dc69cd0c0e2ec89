"""What the scripts of the records share: their command line, the file of the figures, the processor."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pipnet.files import replacing
from pipnet.metrics import Interval

T = TypeVar("T")


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


def percent(value: Interval) -> dict[str, float]:
    """An interval of fractions in percent, rounded."""
    return {name: round(100 * float(getattr(value, name)), 4) for name in ("value", "low", "high")}


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process has a piece of work to itself; the system takes the claim back when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def keep_each(runs: Iterable[T], folder: Path, kept: Callable[[T], Path], train: Callable[[T], object]) -> None:
    """Train each run whose file is not there; ``folder`` holds the claims of the processes that do it together."""
    for run in runs:
        with claimed(folder / f"{kept(run).stem}.lock") as mine:
            if mine and not kept(run).is_file():
                try:
                    train(run)
                except FileNotFoundError as error:  # what another process is at
                    print(f"{kept(run).stem} waits for {error.filename}; give the command again", flush=True)


def list_each(runs: Iterable[T], kept: Callable[[T], Path]) -> None:
    """Say which runs are kept and which are missing."""
    for run in runs:
        print(f"{kept(run).stem}: {'kept' if kept(run).is_file() else 'missing'}")


def write_with_missing(file: Path, metrics: dict[str, Any]) -> None:
    """The figures of the runs that are there; says which are not."""
    write(file, metrics)
    if metrics["missing"]:
        print(f"missing: {', '.join(metrics['missing'])}")


def processor() -> str:
    """Model name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


def drop_settings() -> None:
    """Start again without the environment variables that set threads or the allocator: they are read at the start."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "OMP_"))}
    if len(kept) < len(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], kept)
