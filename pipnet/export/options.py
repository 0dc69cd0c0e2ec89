"""The command line of the export, and which of its options go together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

SHIPPED = "shipped"
_SHIPPED_STEM = "300w_mobilenet_v2"  # of the files in pipnet/weights
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
PRECISIONS = ("fp32", "int8")
DEFAULT_FACES = 300

# Options that write a file; --show reads one.
_WRITING = ("format", "precision", "output", "data_root", "dataset", "faces", "calibration_faces", "seed")


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The options, checked as far as that needs no file.

    Returns:
        The parser, for errors that show later, and the options: ``checkpoint`` (None for the weights that ship),
        ``format``, ``precision``, ``output`` (always a file), ``data_root``, ``dataset``, ``faces``,
        ``calibration_faces``, ``seed``, and ``show``, a file or None.

    Raises:
        SystemExit: Status 2, for arguments that are wrong or don't go together; 0 for ``--help``.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.show is not None:
        given = [name for name in _WRITING if getattr(options, name) is not None]
        if options.checkpoint is not None or given:
            other = f"--{given[0].replace('_', '-')}" if given else f"the checkpoint {options.checkpoint}"
            parser.error(f"--show {options.show} only reads that file; leave out {other}")
        return parser, options
    if options.faces is not None and (options.dataset is not None or options.data_root is not None):
        parser.error("--faces takes photos without labels; leave out --dataset and --data-root")
    options.precision = options.precision or "fp32"
    options.calibration_faces = options.calibration_faces or DEFAULT_FACES
    options.seed = options.seed or 0
    if options.checkpoint == SHIPPED:
        options.checkpoint = None
    _choose_output(parser, options)
    return parser, options


def _choose_output(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Settle format and file: each follows from the other where only one is given."""
    output: Path | None = options.output
    if options.checkpoint is not None and Path(options.checkpoint).suffix.lower() in SUFFIXES.values():
        parser.error(f"{options.checkpoint} is an exported graph already; give the checkpoint (.pt) that it is made of")
    in_folder = output is not None and (output.is_dir() or output.suffix == "")
    if output is not None and not in_folder:
        fitting = [name for name, suffix in SUFFIXES.items() if suffix == output.suffix]
        if not fitting or options.format not in (None, *fitting):
            suffix = SUFFIXES.get(options.format, " or ".join(SUFFIXES.values()))
            parser.error(f"--output {output}: the name must end in {suffix}")
        options.format = fitting[0]
        return
    options.format = options.format or "onnx"
    if options.checkpoint is None:
        # Not beside the checkpoint: that is the inside of the installed package.
        folder, stem = Path(), _SHIPPED_STEM
    else:
        folder, stem = Path(options.checkpoint).parent, Path(options.checkpoint).stem
    name = stem + ("_int8" if options.precision == "int8" else "") + SUFFIXES[options.format]
    options.output = (output or folder) / name


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"pipnet.export: error: {message} (--help lists the options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m pipnet.export",
        description="Write a trained network as one graph that is enough to predict, and check it against PyTorch.",
    )
    # Of the code that runs; what pip knows is that of the day of installing, where the package is editable.
    version = import_module("pipnet").__version__
    parser.add_argument("--version", action="version", version=f"pipnet {version}", help="show it, and exit")
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT", help="a best.pt, or 'shipped' (default): the weights that ship"
    )
    parser.add_argument(
        "--format", choices=tuple(SUFFIXES), help="onnx (one file) or openvino (.xml and .bin); default: onnx"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="fp32 (default), or int8: smaller and faster")
    parser.add_argument(
        "--output",
        type=_path,
        metavar="PATH",
        help="file, or folder (default: beside the checkpoint, under its name, with _int8 for int8; of the weights "
        "that ship here)",
    )
    parser.add_argument("--show", type=_path, metavar="FILE", help="print what a file says of itself, and exit")
    faces = parser.add_argument_group("faces, to calibrate int8 and to compare with PyTorch")
    faces.add_argument(
        "--data-root",
        type=_path,
        metavar="DIR",
        help="folder that holds the dataset (default: PIPNET_DATA, else where the checkpoint was trained)",
    )
    faces.add_argument(
        "--dataset",
        metavar="NAME",
        help="a file of conf/dataset, by name or path (default: what the checkpoint was trained on); its split "
        "train is read",
    )
    faces.add_argument("--faces", type=_path, metavar="DIR", help="photos without labels instead; faces are detected")
    faces.add_argument(
        "--calibration-faces",
        type=_positive,
        metavar="N",
        help=f"how many, spread evenly over the set (default: {DEFAULT_FACES})",
    )
    faces.add_argument("--seed", type=_seed, metavar="N", help="of their choice (default: 0)")
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return number


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("needs the name of a file or folder; . is the folder you are in")
    return Path(text)
