"""Cold start, warm start and peak memory: a fresh process for each measurement, the networks in turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.benchmark.cases import Case

_LIMIT_S = 300.0
_BOX = [179.0, 88.0, 270.0, 178.0]  # of the face in the portrait of Eileen Collins


@dataclass(frozen=True)
class Start:
    """How a network starts.

    Attributes:
        name: Of the case.
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


def one_per_network(cases: Sequence[Case]) -> list[Case]:
    """The first case of each name: threads and batches start alike."""
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.name, case)
    return list(first.values())


def measure_starts(cases: Sequence[Case], *, repeats: int) -> tuple[list[Start], list[tuple[str, str]]]:
    """Start each network ``repeats`` times, in turn, on the portrait with its box given.

    Returns:
        The starts; and name and reason of what would not start.
    """
    from skimage.data import astronaut

    results: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="pipnet-benchmark-") as folder:
        image = Path(folder) / "image.npy"
        np.save(image, astronaut())
        for _ in range(repeats):
            for case in cases:
                if case.name not in failed:
                    try:
                        results[case.name].append(_start(case, image))
                    except ValueError as error:
                        failed[case.name] = str(error)
    starts = [
        Start(
            case.name,
            case.threads,
            tuple(one["cold_s"] for one in found),
            tuple(one["warm_s"] for one in found),
            tuple(one["peak_mib"] for one in found if one["peak_mib"] is not None),
            any(one["torch"] for one in found),
        )
        for case in cases
        if case.name not in failed and (found := results[case.name])
    ]
    return starts, [(f"{name}, start", reason) for name, reason in failed.items()]


def _start(case: Case, image: Path) -> dict[str, Any]:
    asked = {
        "file": str(case.file),
        "runtime": case.runtime,
        "threads": case.threads,
        "image": str(image),
        "box": _BOX,
    }
    # This pipnet, also where the child would find another one or none.
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, str(Path(__file__).with_name("one_start.py"))]
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
