"""``python -m pipnet.export``: its options, what it does, what it shows of a file, and the card that travels in it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipnet.console import MissingExtraError, Parser, complain, file_or_folder, natural, needs, positive, said, started

if TYPE_CHECKING:
    from pipnet.model.checkpoint import LoadedModel


SHIPPED = "shipped"
_SHIPPED_STEM = "300w_mobilenet_v2"  # of the files in pipnet/weights
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
PRECISIONS = ("fp32", "int8")
DEFAULT_FACES = 300

# Options that write a file; --show reads one.
_WRITING = ("format", "precision", "output", "data_root", "dataset", "faces", "calibration_faces", "seed")


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The parser, for errors that show later, and the options, checked as far as that needs no file.

    ``options.checkpoint`` is None for the weights that ship, ``options.output`` always a file.
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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "export", "Write a trained network as one graph that is enough to predict, and check it against PyTorch."
    )
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT", help="a best.pt, or 'shipped' (default): the weights that ship"
    )
    parser.add_argument(
        "--format", choices=tuple(SUFFIXES), help="onnx (one file) or openvino (.xml and .bin); default: onnx"
    )
    parser.add_argument("--precision", choices=PRECISIONS, help="fp32 (default), or int8: smaller and faster")
    parser.add_argument(
        "--output",
        type=file_or_folder,
        metavar="PATH",
        help="file, or folder (default: beside the checkpoint, under its name, with _int8 for int8; of the weights "
        "that ship here)",
    )
    parser.add_argument(
        "--show", type=file_or_folder, metavar="FILE", help="print what a file says of itself, and exit"
    )
    faces = parser.add_argument_group("faces, to calibrate int8 and to compare with PyTorch")
    faces.add_argument(
        "--data-root",
        type=file_or_folder,
        metavar="DIR",
        help="folder that holds the dataset (default: PIPNET_DATA, else where the checkpoint was trained)",
    )
    faces.add_argument(
        "--dataset",
        metavar="NAME",
        help="a file of conf/dataset, by name or path (default: what the checkpoint was trained on); its split "
        "train is read",
    )
    faces.add_argument(
        "--faces", type=file_or_folder, metavar="DIR", help="photos without labels instead; faces are detected"
    )
    faces.add_argument(
        "--calibration-faces",
        type=positive,
        metavar="N",
        help=f"how many, spread evenly over the set (default: {DEFAULT_FACES})",
    )
    faces.add_argument("--seed", type=natural, metavar="N", help="of their choice (default: 0)")
    return parser


def run(arguments: Sequence[str] | None = None) -> int:
    """See :func:`pipnet.export.main`."""
    parser, options = parse(arguments)
    try:
        if options.show is not None:
            print(describe(options.show), flush=True)
            return 0
        with needs("export"):
            return _export(options)
    except MissingExtraError as error:
        return complain("export", error)
    except (ValueError, OSError) as error:
        parser.error(said(error))


def _export(options: argparse.Namespace) -> int:
    from pipnet.export.faces import find_faces
    from pipnet.export.writing import LIMIT_INT8, ExportError, missing_package, write
    from pipnet.inference.landmarker import SHIPPED_WEIGHTS
    from pipnet.model import checkpoint

    started()  # from here on there are files that a Ctrl-C must not leave half written
    output: Path = options.output
    if problem := missing_package(output):  # before anything that takes time
        raise MissingExtraError(problem)
    source = SHIPPED_WEIGHTS if options.checkpoint is None else Path(options.checkpoint)
    loaded = checkpoint.load(source)
    card = card_of(loaded, source)
    faces = find_faces(loaded, options)
    for reason in faces.skipped:
        print(f"skipped: {reason}")
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        differences = write(loaded, output, precision=options.precision, crops=faces.crops, card=card)
    except ExportError as error:
        return complain("export", error)
    files = [output, output.with_suffix(".bin")] if output.suffix == ".xml" else [output]
    size = loaded.net.input_size
    calibrated = f", calibrated on {faces}" if options.precision == "int8" else ""
    print(f"{' and '.join(map(str, files))}: {options.precision}{calibrated}, {megabytes(files)}")
    print(f"compared with PyTorch on {faces}, in pixels of the {size} px crop:")
    for difference in differences:
        if difference.not_compared:
            print(f"  {difference.runtime:<12} not compared: {difference.not_compared}")
            continue
        print(
            f"  {difference.runtime:<12} largest {difference.largest_px:.2g}, mean {difference.mean_px:.2g}; scores "
            f"{difference.largest_score:.2g} at most"
        )
    for difference in differences:
        if options.precision == "int8" and difference.mean_px > LIMIT_INT8 * size:
            print(
                f"warning: on {difference.runtime} int8 moves points by {100 * difference.mean_px / size:.2f} % of "
                f"the crop's side on average, more than {100 * LIMIT_INT8:g} %. Calibrate on more faces like those it "
                "will see (--calibration-faces, --dataset or --faces DIR), or export --precision fp32"
            )
    print(f'use: FaceLandmarker.load("{output}"), or python -m pipnet.demo --weights {output}')
    return 0


def describe(path: Path) -> str:
    """What ``--show`` prints of an ``.onnx``, ``.xml`` or checkpoint.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No network of pipnet, or damaged; or what reads it is not installed.
    """
    if path.suffix.lower() in (".onnx", ".xml"):
        from pipnet.inference.runtimes import open_fastest

        metadata: Mapping[str, Any] = open_fastest(path).metadata
        ports = [
            (kind, f"{name}: {type_} ({', '.join(sides)}{',' if len(sides) == 1 else ''})")
            for kind, name, type_, sides in _ports(path)
        ]
    else:
        from pipnet.model import checkpoint
        from pipnet.model.onnx_graph import metadata_of

        loaded = checkpoint.load(path)
        metadata, ports = metadata_of(loaded, card=card_of(loaded, path)), []
    precision = metadata.get("precision", "fp32")
    if metadata.get("calibration_faces"):
        precision += f", calibrated on {metadata['calibration_faces']} faces"
    files = [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]
    facts = [
        ("file", f"{path}, {megabytes(files)}, format {metadata['format']}"),
        ("network", f"{metadata.get('backbone', 'not said')}, {metadata['input_size']} px, {precision}"),
        ("layout", f"{metadata['layout']['name']}, {metadata['layout']['num_points']} points"),
        ("crop scale", f"{metadata['crop_scale']:g}: side of the crop over the longer side of the points' tight box"),
        *ports,
        ("data", f"licence: {metadata.get('training', {}).get('licence', 'not stated')}"),
    ]
    lines = [f"{name:<10} {text}" for name, text in facts]
    card = metadata.get("card", "").strip()
    return "\n".join([*lines, "", card or "The file has no card."])


def megabytes(files: list[Path]) -> str:
    """Size of files together."""
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _ports(path: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Of inputs and outputs: which of them, name, type, and sides, with B for one that may be anything."""
    from pipnet.inference.sessions import onnx_session, read_openvino

    if path.suffix.lower() == ".onnx":
        session = onnx_session(path)
        ports = {"input": session.get_inputs(), "output": session.get_outputs()}
        told = [
            (kind, port.name, port.type.removeprefix("tensor(").removesuffix(")"), port.shape)
            for kind, some in ports.items()
            for port in some
        ]
    else:
        model, _ = read_openvino(path)
        ports = {"input": model.inputs, "output": model.outputs}
        told = [
            (kind, port.any_name, str(port.element_type.to_dtype()), port.partial_shape)
            for kind, some in ports.items()
            for port in some
        ]
    for kind, name, type_, shape in told:
        yield kind, name, type_, [str(side) if str(side).isdecimal() else "B" for side in shape]


def card_of(loaded: LoadedModel, path: Path | None = None) -> str:
    """The text of ``STEM.md`` beside a checkpoint, or, without one, a short card made from its training record."""
    beside = None if path is None else path.with_suffix(".md")
    if beside is None or not beside.is_file():
        return _from_record(loaded, "network" if path is None else path.name)
    try:
        return beside.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{beside}, the card of the network, is no text in UTF-8; save it as such") from error


def _from_record(loaded: LoadedModel, name: str) -> str:
    net, record = loaded.net, loaded.training
    config, metrics = record.get("config", {}), record.get("metrics", {})
    facts = {
        "Dataset": config.get("dataset", {}).get("name"),
        "Faces": ", ".join(f"{count} {part}" for part, count in record.get("faces", {}).items()) or None,
        "Licence of the data": record.get("licence"),
        "Seed": config.get("seed"),
        "Epoch": record.get("epoch"),
    }
    for key, what in (("val_nme", "NME"), ("val_nme_box", "NME by box size")):
        facts[f"Validation {what}"] = f"{metrics[key]:.2f} %" if key in metrics else None
    facts["Version of pipnet"] = record.get("versions", {}).get("pipnet")
    lines = [f"* {key}: {fact}" for key, fact in facts.items() if fact is not None]
    neighbors = net.arguments.get("num_neighbors")
    counts = f"{net.num_points} points (layout {loaded.layout.name})"
    counts += f", {neighbors} neighbours" if neighbors is not None else ""
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{type(net).__name__} on {net.arguments['backbone']} at {net.input_size} px: {counts}. Made from the"
            " training record; nobody wrote a card.",
            "",
            *(lines or ["The file holds no record of a training."]),
            "",
        ]
    )
