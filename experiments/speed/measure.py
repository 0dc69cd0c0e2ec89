"""Every runtime and precision beside what the processor can do, and cold starts in fresh processes.

    python experiments/speed/measure.py                              # an hour; benchmark.json and speed.png
    python experiments/speed/measure.py --quick --output SOMEWHERE   # tries it out

What ``python -m pipnet.benchmark`` times, and in the same rounds square matrix products in torch (``peak.py``): the
share of the peak is the work of the network (two operations for each multiply-accumulate; a graph computes offsets at
one cell a point, PyTorch all maps at every cell) over its time and the largest rate of these products.

Cold start: a fresh process that imports pipnet, loads the network and finds the points of one given box, from before it
starts until it has the points; the files lie in the system's cache. Warm: a second load in that process, with its first
points. Memory: the largest resident set of that process up to its first points.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2

from experiments.record import command_line, write
from experiments.speed.peak import SIZES, network_work, peaks, products
from experiments.speed.starts import measure_starts, one_per_network
from pipnet.benchmark.cases import build_cases, find_network
from pipnet.benchmark.machine import describe, load_average
from pipnet.benchmark.report import case_rows
from pipnet.benchmark.timing import time_interleaved
from pipnet.files import replacing

HERE = Path(__file__).resolve().parent
MODELS, RUNTIMES, PRECISIONS = ("resnet18", "shipped"), ("torch", "onnxruntime", "openvino"), ("fp32", "int8")
THREADS, BATCHES = (1, 2), (1, 16)
_COLORS = {"torch": "#d1495b", "onnxruntime": "#00798c", "openvino": "#6a4c93"}
ROUNDS, STARTS = 15, 5


def measure(quick: bool) -> dict[str, Any]:
    """The content of ``benchmark.json``."""
    cv2.setNumThreads(1)
    rounds, repeats = (2, 1) if quick else (ROUNDS, STARTS)
    with tempfile.TemporaryDirectory() as made:
        networks = [find_network(name, Path(made)) for name in (MODELS[1:] if quick else MODELS)]
        suite = build_cases(
            networks,
            runtimes=RUNTIMES,
            precisions=PRECISIONS,
            threads=THREADS[:1] if quick else THREADS,
            batches=BATCHES[:1] if quick else BATCHES,
        )
        starts, failed = measure_starts(one_per_network(suite.cases), repeats=repeats)
        threads = sorted({case.threads for case in suite.cases})
        timed = [*(case.timed() for case in suite.cases), *products(threads, SIZES[:1] if quick else SIZES)]
        seconds = time_interleaved(
            timed, rounds=rounds, after_round=lambda number, _: print("round", number, flush=True)
        )
        load = load_average()
        work = {network.name: network_work(network.load().net) for network in networks if network.load}
    random = [network.name for network in networks if not network.trained]
    highest = {(peak.precision, peak.threads): peak.gflops for peak in peaks(seconds)}
    rows = case_rows(suite.cases, seconds, {})
    for row in rows:
        in_graph, dense = work[row["model"]]
        gflop = dense if row["runtime"] == "torch" else in_graph
        rate = 1000 * gflop * row["batch"] / highest[row["precision"], row["threads"]]
        row |= {"gflop": gflop, "gflop_dense": dense, "share": rate / row["ms"]["median"]}
        row["share_best"] = rate / row["ms"]["best"]
    return {
        "format": 2,
        "machine": describe(),
        "load_average": load,
        "image": "the portrait that ships",
        "settings": {"rounds": rounds, "starts": repeats},
        "notes": [f"Random weights, and int8 calibrated on copies of one portrait: {', '.join(random)}."]
        if random
        else [],
        "cases": rows,
        "peaks": [asdict(peak) for peak in peaks(seconds)],
        "starts": [asdict(start) for start in starts],
        "skipped": [{"name": name, "reason": reason} for name, reason in (*suite.skipped, *failed)],
    }


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


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--quick", action="store_true", help="one network on one thread, two rounds; needs --output")
    parser.add_argument("--output", type=Path, default=HERE, help="folder (default: beside this file)")
    options = parser.parse_args()
    if options.quick and options.output == HERE:
        parser.error("--quick would replace the record; give --output")
    results = measure(options.quick)
    options.output.mkdir(parents=True, exist_ok=True)
    write(options.output / "benchmark.json", results)
    picture(results, options.output / "speed.png")


if __name__ == "__main__":
    main()
