"""What ingesting photos costs, whether memory grows with the pool, and what the rules drop.

    python experiments/gathering/measure.py DATA_ROOT

DATA_ROOT holds ``unlabelled/``. Ingests the first 500 and 4,000 photos of ``utkface`` with 1 and 2 processes of one
thread each, every time in fresh processes and into a fresh store, and then once more into the store that is now full;
then the photos of ``wflw``, for the counts; and chooses among a million invented faces. Writes ``metrics.json``. About
ten minutes; ``--sizes 50 100 --index 10000`` tries it out. Environment variables that set the allocator are dropped:
what a user has is measured. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.record import command_line, write

HERE = Path(__file__).resolve().parent
SIZES, PROCESSES, INDEX = (500, 4000), (1, 2), 1_000_000


def peak_mib() -> float:
    """Most memory that this process ever had resident."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def ingest_here(reports: str, source: str, folder: str) -> None:
    """One of the processes that are measured; leaves its report in a file."""
    import cv2

    from pipnet.self_training.ingest import ingest
    from pipnet.training import distributed

    cv2.setNumThreads(1)
    with distributed.join_processes("cpu") as processes:
        start_mib, started = peak_mib(), time.perf_counter()
        ingested = ingest(source, folder, processes=processes, progress=False)
        seconds = time.perf_counter() - started
        report = {"seconds": seconds, "start_mib": start_mib, "peak_mib": peak_mib(), "counts": ingested.counts}
        report["digest"] = ingested.faces.digest
        (Path(reports) / f"{processes.rank}.json").write_text(json.dumps(report))


def choose_here(reports: str, count: str, folder: str) -> None:
    """A choice among invented faces, one a photo; leaves its report in a file."""
    import numpy as np

    from pipnet.self_training.face_store import FaceStore, FoundFace, FoundPhoto

    box = (0.0, 0.0, 80.0, 90.0)
    photo = FoundPhoto("invented", (200, 200), [FoundFace(box, 0.99, 90.0, 20.0, 1.0, box)])
    crop = np.zeros((1, 1, 3), np.uint8)
    before = peak_mib()
    store = FaceStore(folder, {})
    token = store.begin()
    for first in range(0, int(count), 1000):
        digests = [os.urandom(16).hex() for _ in range(min(1000, int(count) - first))]
        for digest in digests:
            store.add(digest, photo, [crop])
        store.meet(token, digests)
    started = time.perf_counter()
    counts, _ = store.choose(
        token, {"unsure": ("score", 0.85), "blurred": ("sharpness", 3.0)}, Path(folder) / "damaged.txt"
    )
    seconds = time.perf_counter() - started
    report = {"faces": counts["kept"], "seconds": seconds, "start_mib": before, "peak_mib": peak_mib()}
    (Path(reports) / "0.json").write_text(json.dumps(report))


def fresh(task: str, *arguments: object, processes: int = 1) -> list[dict[str, Any]]:
    """Run this script in fresh processes; what each reports, the main one first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={processes}", "--rdzv-backend=c10d"]
    launcher += ["--rdzv-endpoint=localhost:0", "--local-addr=localhost"]
    environment = {**kept, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryDirectory() as reports:  # lines that two processes print may run together
        command = [sys.executable, *(launcher if processes > 1 else []), __file__, task, reports, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(done.stderr)
        return [json.loads((Path(reports) / f"{rank}.json").read_text()) for rank in range(processes)]


def measure(data_root: Path, sizes: Sequence[int], index: int) -> dict[str, Any]:
    """All figures of ``metrics.json``."""
    chips = sorted((data_root / "unlabelled" / "utkface").glob("*.jpg"))
    for path in chips[: max(sizes)]:
        path.read_bytes()  # from here on all photos are in the file cache
    runs, counts, digests = [], {}, set()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for processes in PROCESSES:
            for photos in sorted(sizes):  # the counts are those of the largest
                source, pool = work / f"{photos}.txt", work / f"{photos}_{processes}"
                source.write_text("\n".join(map(str, chips[:photos])) + "\n")
                for known in (False, True):
                    reports = fresh("--ingest", source, pool, processes=processes)
                    runs.append(
                        {
                            "photos": reports[0]["counts"]["photos"],
                            "processes": processes,
                            "known": known,
                            "photos_per_second": photos / max(report["seconds"] for report in reports),
                            "start_mib": [report["start_mib"] for report in reports],
                            "peak_mib": [report["peak_mib"] for report in reports],
                        }
                    )
                    print(runs[-1], file=sys.stderr, flush=True)
                counts["utkface"] = reports[0]["counts"]
                digests |= {report["digest"] for report in reports if photos == max(sizes)}
        assert len(digests) == 1, "one process and two found different faces"
        scenes = work / "scenes.txt"
        found = sorted((data_root / "unlabelled" / "wflw").glob("*/*.jpg"))
        scenes.write_text("\n".join(map(str, found[: max(sizes)])) + "\n")
        counts["wflw"] = fresh("--ingest", scenes, work / "scenes")[0]["counts"]
        (work / "index").mkdir()
        invented = fresh("--invent", index, work / "index")[0]
    return {
        "runs": runs,
        "index": invented,
        "counts": counts,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("opencv-python", "onnxruntime", "numpy", "torch")},
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("data_root", nargs="?", type=Path)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="photos of each pool")
    parser.add_argument("--index", type=int, default=INDEX, help="invented faces")
    parser.add_argument("--ingest", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--invent", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ingest:
        ingest_here(*arguments.ingest)
        return
    if arguments.invent:
        choose_here(*arguments.invent)
        return
    if arguments.data_root is None:
        parser.error("give DATA_ROOT")
    metrics = measure(arguments.data_root, arguments.sizes, arguments.index)
    write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main()
