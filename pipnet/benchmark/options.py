"""The command line of the benchmark."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from pipnet.benchmark.machine import usable_cores

RUNTIMES = ("torch", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "int8")
_ROUNDS, _QUICK_ROUNDS = 15, 3
_STARTS, _QUICK_STARTS = 5, 1


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"pipnet.benchmark: error: {message} (--help lists the options)\n")


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The options, checked as far as that needs no file.

    Returns:
        The parser, for errors that show later, and the options; lists without repetitions, ``rounds`` and ``starts``
        filled in.

    Raises:
        SystemExit: Status 2 for wrong arguments, 0 for ``--help``.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    options.models = _flat(options.models) or ["shipped"]
    options.runtimes = _names(parser, "--runtimes", options.runtimes, RUNTIMES)
    options.precisions = _names(parser, "--precisions", options.precisions, PRECISIONS)
    options.threads = _numbers(parser, "--threads", options.threads) or ([1, 2] if usable_cores() > 1 else [1])
    options.batch = _numbers(parser, "--batch", options.batch) or ([1] if options.quick else [1, 16])
    if options.rounds is None:
        options.rounds = _QUICK_ROUNDS if options.quick else _ROUNDS
    if options.starts is None:
        options.starts = _QUICK_STARTS if options.quick else _STARTS
    if options.nme and options.data:
        parser.error("--nme gives what --data measures; leave one out")
    if options.data and not options.data.is_dir():
        parser.error(f"--data {options.data} is no folder; give the one that holds 300W")
    return parser, options


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipnet.benchmark",
        description="Time networks, runtimes and other landmark detectors side by side on this machine's CPU, and "
        "write a table and a picture.",
    )
    version = import_module("pipnet").__version__
    parser.add_argument("--version", action="version", version=f"pipnet {version}", help="show which pipnet this is")
    add = parser.add_argument
    add(
        "--models",
        nargs="+",
        metavar="NAME|FILE",
        help="shipped (default), .pt, .onnx or .xml files, backbones with random weights: resnet18, mobilenet_v2@128",
    )
    add("--runtimes", nargs="+", metavar="NAME", help=f"of {', '.join(RUNTIMES)} (default: all)")
    add("--precisions", nargs="+", metavar="NAME", help=f"of {', '.join(PRECISIONS)} (default: both)")
    add("--threads", nargs="+", metavar="N", help="numbers of threads, as 1,2 (default: 1,2)")
    add("--batch", nargs="+", metavar="N", help="faces a call, as 1,16 (default: 1,16; with --quick 1)")
    add("--no-others", action="store_true", help="leave out other landmark detectors that are installed")
    add("--nme", type=Path, metavar="FILE", help='JSON with the NME of contenders in percent: {"shipped fp32": 2.95}')
    add("--data", type=Path, metavar="ROOT", help="measure the NME on ROOT/300W")
    add("--rounds", type=_count, metavar="N", help=f"rounds of timing (default: {_ROUNDS}, --quick {_QUICK_ROUNDS})")
    add(
        "--starts",
        type=_count_or_none,
        metavar="N",
        help=f"cold starts of each network (default: {_STARTS}, --quick {_QUICK_STARTS}; 0: none)",
    )
    add("--output", type=Path, default=Path("benchmark"), metavar="DIR", help="folder of the report (benchmark)")
    add("--quick", action="store_true", help="few rounds, small matrices, 50 faces of --data: to see that it runs")
    return parser


def _flat(given: Sequence[str] | None) -> list[str]:
    """``["1,2", "3"]`` to ``["1", "2", "3"]``, each once; a file may have a comma in its name."""
    parts = [part for text in given or () for part in ([text] if Path(text).is_file() else text.split(","))]
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _names(
    parser: argparse.ArgumentParser, option: str, given: Sequence[str] | None, known: Sequence[str]
) -> list[str]:
    names = _flat(given)
    for name in names:
        if name not in known:
            parser.error(f"{option}: no {name!r}; there are: {', '.join(known)}")
    return names or list(known)


def _numbers(parser: argparse.ArgumentParser, option: str, given: Sequence[str] | None) -> list[int]:
    texts = _flat(given)
    for text in texts:
        if not text.isdecimal() or int(text) < 1:
            parser.error(f"{option} takes whole numbers from 1, got {text!r}")
    return list(dict.fromkeys(int(text) for text in texts))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def _count_or_none(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)
