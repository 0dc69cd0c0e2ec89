"""What ``python -m pipnet.benchmark`` does, from its arguments to its exit status."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipnet.benchmark.machine import usable_cores
from pipnet.console import Parser, StopRequest, complain, counted, needs, note, positive, said

if TYPE_CHECKING:
    from pipnet.benchmark.cases import Network
    from pipnet.benchmark.timing import Seconds
    from pipnet.data.sample import Sample

RUNTIMES, PRECISIONS = ("torch", "onnxruntime", "openvino"), ("fp32", "int8")
_ROUNDS, _QUICK_ROUNDS, _QUICK_FACES = 15, 3, 50
_GONE = "--no-others, --starts and --nme do nothing any more; --data measures NME, experiments/efficiency the rest"


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The parser, for errors that show later, and the options; lists without repetitions, ``rounds`` filled in.

    Raises:
        SystemExit: Status 2 for wrong arguments, 0 for ``--help``.
    """
    what = "Time networks and runtimes side by side on this machine's CPU, and write a table."
    parser = Parser("benchmark", what)
    models = "shipped (default), .pt, .onnx or .xml files, backbones with random weights: resnet18, mobilenet_v2@128"
    add = parser.add_argument
    add("--models", **_listed("NAME|FILE", ["shipped"]), help=models)
    add("--runtimes", **_listed("NAME", RUNTIMES), help=f"of {', '.join(RUNTIMES)} (default: all)")
    add("--precisions", **_listed("NAME", PRECISIONS), help="fp32, int8 (default: both)")
    add("--threads", **_listed("N", [1, 2][: usable_cores()], positive), help="as 1,4 (default: 1,2)")
    add("--batch", **_listed("N", [1], positive), help="faces a call, as 1,16 (default: 1)")
    add("--data", type=Path, metavar="DIR", help="measure the NME on DIR/300W")
    add("--rounds", type=positive, metavar="N", help=f"rounds of timing (default: {_ROUNDS}, --quick {_QUICK_ROUNDS})")
    add("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="folder of the report (benchmark)")
    add("--quick", action="store_true", help=f"few short rounds, {_QUICK_FACES} faces of --data: to see that it runs")
    add("--no-others", "--starts", "--nme", dest="gone", nargs="?", const=True, help=argparse.SUPPRESS)  # of 0.4
    options = parser.parse_args(arguments)
    for name in ("models", "runtimes", "precisions", "threads", "batch"):
        setattr(options, name, list(dict.fromkeys(chain.from_iterable(getattr(options, name)))))
    options.rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    if options.data and not options.data.is_dir():
        parser.error(f"--data {options.data} is no folder; give the one that holds 300W")
    return parser, options


def _listed(metavar: str, default: Sequence[Any], kind: Callable[[str], Any] = str) -> dict[str, Any]:
    """An option that takes ``1,2 3``, of names that have to be among the default's where these are several."""

    def split(text: str) -> list[Any]:
        parts = [part.strip() for part in ([text] if Path(text).is_file() else text.split(","))]  # or a,b.pt is lost
        for part in parts:
            if kind is str and len(default) > 1 and part not in default:
                raise argparse.ArgumentTypeError(f"no {part!r}; there are: {', '.join(default)}")
        return [kind(part) for part in parts]

    return {"nargs": "+", "type": split, "default": [default], "metavar": metavar}


def run(arguments: Sequence[str] | None = None) -> int:
    """See :func:`pipnet.benchmark.main`."""
    parser, options = parse(arguments)
    options.command = shlex.join(sys.argv[1:] if arguments is None else arguments)
    if options.gone:
        say(_GONE)
    # A signal is remembered, not raised: libraries swallow a KeyboardInterrupt. Repeats change nothing.
    with StopRequest(alone=False) as stop, tempfile.TemporaryDirectory(prefix="pipnet-benchmark-") as made:
        try:
            networks, faces = _read(parser, options, Path(made))
            return _measure(options, networks, faces, stop)
        except KeyboardInterrupt:
            return _ended("interrupted before anything was timed; nothing is written")
        except (ValueError, OSError) as error:
            return complain("benchmark", error)


def _read(
    parser: argparse.ArgumentParser, options: argparse.Namespace, folder: Path
) -> tuple[list[Network], list[Sample]]:
    """The networks and labelled faces that the options name; makes the folder of the report."""
    from pipnet.benchmark.cases import find_network

    networks: dict[str, Network] = {}
    faces: list[Sample] = []
    try:
        with needs("train"):
            for text in options.models:
                network = find_network(text, folder)
                if networks.setdefault(network.name, network) is not network:
                    raise ValueError(f"two networks are called {network.name!r}; rename a file")
            if options.data is not None:
                from pipnet.benchmark.cases import read_faces

                faces = read_faces(options.data, _QUICK_FACES if options.quick else None)
    except (ValueError, OSError, ImportError) as error:
        parser.error(said(error))
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {options.output} can't be a folder: {error.strerror}; choose another")
    return list(networks.values()), faces


def _measure(
    options: argparse.Namespace, networks: Sequence[Network], faces: Sequence[Sample], stop: StopRequest
) -> int:
    import cv2

    from pipnet.benchmark.cases import build_cases
    from pipnet.benchmark.report import collect, summary, write_report
    from pipnet.benchmark.timing import time_interleaved

    cv2.setNumThreads(1)  # OpenCV's threads would fight those of the networks for the cores
    product = {name: getattr(options, name) for name in ("runtimes", "precisions", "threads")}
    suite = build_cases(networks, **product, batches=options.batch, say=say, stop=lambda: stop.asked)
    if not suite.cases and not stop.asked:
        for name, reason in suite.skipped:
            say(f"skipped: {name}: {reason}")
        return complain("benchmark", "nothing could be timed; the reasons are above")

    def report(seconds: Seconds, nme: dict[str, float], *notes: str) -> list[Path]:
        run = {"command": options.command, "rounds": options.rounds, "notes": [*notes, *_notes(networks, faces)]}
        results = collect(suite, seconds, nme, run)
        try:
            return write_report(results, options.output)
        finally:
            print(f"\n{summary(results)}\n", flush=True)

    started, said_at, shown = time.monotonic(), 0.0, False

    def after_round(number: int, seconds: Seconds) -> None:
        nonlocal said_at, shown
        passed = time.monotonic() - started
        left = passed / number * (options.rounds - number)
        if passed >= said_at + 2 or not left:
            said_at = passed
            say(f"round {number} of {options.rounds}, about {left:.0f} s left")
        enough = passed > (5 if number >= 3 else 20)  # seconds; a single round only where it is slow
        if enough and not shown and left > 10:
            shown = True
            report(seconds, {}, "A first table; more rounds follow.")

    say(f"timing {counted(len(suite.cases), 'case')}")
    seconds = time_interleaved(
        [case.timed() for case in suite.cases],
        rounds=options.rounds,
        block_seconds=0.02 if options.quick else 0.1,
        min_calls=1,
        after_round=after_round,
        stop=lambda: stop.asked,
    )
    if not seconds:
        raise KeyboardInterrupt
    nme: dict[str, float] = {}
    if faces:
        from pipnet.benchmark.cases import measure_accuracy

        nme, failed = measure_accuracy(suite.cases, faces, say, stop=lambda: stop.asked)
        suite.skipped += failed
    print(", ".join(map(str, report(seconds, nme, *(["Interrupted."] if stop.asked else [])))))
    return _ended("interrupted; what was measured is written") if stop.asked else 0


def _notes(networks: Sequence[Network], faces: Sequence[Sample]) -> list[str]:
    """What has to be known to read the table."""
    random = ", ".join(network.name for network in networks if not network.trained)
    here = ", ".join(network.name for network in networks if "int8.onnx" in network.files)
    notes = {
        f"Random weights: {random}.": random,
        f"int8 of {here} is calibrated on copies of one portrait: good for its speed only.": here,
        f"NME: of {counted(len(faces), 'face')} of 300W Common, in the boxes of the labels.": faces,
    }
    return [note for note, applies in notes.items() if applies]


def say(text: str) -> None:
    """Print what is going on, beside the results."""
    note("benchmark", text)


def _ended(text: str) -> int:
    say(text)
    return 1
