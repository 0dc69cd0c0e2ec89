"""What the scripts that train for a record share: one at a time to a process, and what is kept of each training."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import math
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from experiments.record import processor
from pipnet.data.sample import Sample
from pipnet.files import replacing
from pipnet.model import checkpoint
from pipnet.self_training.ingest import ingest
from pipnet.training.distributed import join_processes

T = TypeVar("T")


def precision() -> str:
    """What a small network trains fastest in here: bfloat16 beside float32 where the processor computes in both.

    The same arithmetic elsewhere would be emulated, at a quarter of the speed of float32.
    """
    return "hybrid" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32"


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


def own_face_store(photos: Path, shared: Path, folder: Path, *, face_size: int) -> Path:
    """A store with the faces of the photos of a list, for one training alone: two can't gather into one at a time.

    The detector looks at each photo once, into ``shared``; the other process waits for it.
    """
    with shared.with_suffix(".lock").open("w") as lock, join_processes("cpu") as processes:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ingest(photos, shared, processes=processes, face_size=face_size, progress=False)
        if not folder.is_dir():
            begun = folder.with_name(f"{folder.name}_begun")
            shutil.rmtree(begun, ignore_errors=True)
            shutil.copytree(shared, begun).rename(folder)
    return folder


def write_labels(samples: Sequence[Sample], path: Path) -> None:
    """A label file of ``conf/dataset/own_csv``, with boxes; points that are not labelled are empty cells."""
    header = ["image", *(f"{axis}{point}" for point in range(len(samples[0].points)) for axis in "xy")]
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*header, "box_x0", "box_y0", "box_x1", "box_y1"])
        for sample in samples:
            cells = ["" if math.isnan(value) else value for value in sample.points.round(3).ravel().tolist()]
            rows.writerow([Path(str(sample.image)).resolve(), *cells, *sample.box.round(3).tolist()])


def list_each(runs: Iterable[T], kept: Callable[[T], Path]) -> None:
    """Say which runs are kept and which are missing."""
    for run in runs:
        print(f"{kept(run).stem}: {'kept' if kept(run).is_file() else 'missing'}")


def trained(
    module: str, arguments: Sequence[str], where: Sequence[str], folder: Path, *, runs: Path, data_root: Path
) -> tuple[Any, dict[str, Any]]:
    """Run a training to its end in ``folder``: the checkpoint, and what every record says of a training.

    ``where`` are the arguments that name places of this machine; the command that is kept has the two places by name.

    Raises:
        subprocess.CalledProcessError: The training failed; it has said why.
    """
    named = [word.replace(str(runs), "RUNS").replace(str(data_root), "DATA_ROOT") for word in where]
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", module, *arguments, *where, f"folder={folder}"], check=True)
    best = folder / "best.pt"
    loaded = checkpoint.load(best)
    return loaded, {
        "command": shlex.join(["python", "-m", module, *arguments, *named]),
        "sha256": hashlib.sha256(best.read_bytes()).hexdigest(),
        "commit": loaded.training["commit"],
        "processor": processor(),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
