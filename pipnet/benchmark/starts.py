"""Cold start, warm start and peak memory: a fresh process for each measurement, the networks in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.benchmark.contenders import Contender
from pipnet.benchmark.subject import Subject

_LIMIT_S = 300.0


@dataclass(frozen=True)
class Start:
    """How a network starts.

    Attributes:
        name: Of the contender.
        threads: Of the network.
        cold_s: From before the process is started until it has points, a number a measurement.
        warm_s: A second load in the same process with its first points.
        peak_mib: Largest resident set up to the first points; empty where the system does not say.
        torch: Whether torch was imported.
    """

    name: str
    threads: int
    cold_s: tuple[float, ...]
    warm_s: tuple[float, ...]
    peak_mib: tuple[float, ...]
    torch: bool


def one_per_network(contenders: Sequence[Contender]) -> list[Contender]:
    """The first contender of each name that has a file: threads and batches start alike."""
    first: dict[str, Contender] = {}
    for contender in contenders:
        if contender.file is not None:
            first.setdefault(contender.name, contender)
    return list(first.values())


def measure_starts(
    contenders: Sequence[Contender],
    subject: Subject,
    *,
    repeats: int,
    after_each: Callable[[], object] = lambda: None,
) -> tuple[list[Start], list[tuple[str, str]]]:
    """Start each network ``repeats`` times, in turn.

    Returns:
        The starts; and name and reason of what would not start.
    """
    results: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in contenders}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="pipnet-benchmark-") as folder:
        image = Path(folder) / "image.npy"
        np.save(image, subject.image)
        for _ in range(repeats):
            for contender in contenders:
                if contender.name not in failed:
                    try:
                        results[contender.name].append(_start(contender, image, subject))
                    except ValueError as error:
                        failed[contender.name] = str(error)
                after_each()
    starts = [
        Start(
            contender.name,
            contender.threads,
            tuple(one["cold_s"] for one in found),
            tuple(one["warm_s"] for one in found),
            tuple(one["peak_mib"] for one in found if one["peak_mib"] is not None),
            any(one["torch"] for one in found),
        )
        for contender in contenders
        if contender.name not in failed and (found := results[contender.name])
    ]
    return starts, [(f"{name}, start", reason) for name, reason in failed.items()]


def _start(contender: Contender, image: Path, subject: Subject) -> dict[str, Any]:
    asked = {
        "file": str(contender.file),
        "runtime": contender.runtime,
        "threads": contender.threads,
        "image": str(image),
        "box": subject.box.tolist(),
    }
    # This pipnet, also where the child would find another one or none.
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "pipnet.benchmark.one_start"]
    try:
        done = subprocess.run(
            [*command, json.dumps({**asked, "started": time.time()})],
            capture_output=True,
            text=True,
            env=environment,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"it did not start within {_LIMIT_S:.0f} s") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise ValueError(said[-1])
    return dict(json.loads(done.stdout.splitlines()[-1]))
