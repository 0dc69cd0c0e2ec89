"""What a network's file says of itself, as text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def describe(path: Path) -> str:
    """Layout, crop, precision, inputs and outputs, and the card.

    Args:
        path: ``.onnx``, ``.xml``, or a checkpoint.

    Raises:
        FileNotFoundError: No such file.
        ValueError: No network of pipnet, or damaged; or what reads it is not installed.
    """
    if path.suffix.lower() in (".onnx", ".xml"):
        from pipnet.inference.runtimes import open_fastest

        metadata: Mapping[str, Any] = open_fastest(path).metadata
        ports = _ports_of_onnx(path) if path.suffix.lower() == ".onnx" else _ports_of_openvino(path)
    else:
        metadata, ports = _of_checkpoint(path), []
    precision = metadata.get("precision", "fp32")
    if metadata.get("calibration_faces"):
        precision += f", calibrated on {metadata['calibration_faces']} faces"
    files = [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]
    facts = [
        ("file", f"{path}, {megabytes(files)}, format {metadata['format']}"),
        ("network", f"{metadata.get('backbone', 'not said')}, {metadata['input_size']} px, {precision}"),
        ("layout", f"{metadata['layout']['name']}, {metadata['layout']['num_points']} points"),
        ("box scale", f"{metadata['box_scale']:g}: side of the crop over the longer side of the points' tight box"),
        *ports,
        ("data", f"licence: {metadata.get('training', {}).get('licence', 'not stated')}"),
    ]
    lines = [f"{name:<10} {text}" for name, text in facts]
    card = metadata.get("card", "").strip()
    return "\n".join([*lines, "", card or "The file has no card."])


def megabytes(files: list[Path]) -> str:
    """Size of files together."""
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _ports_of_onnx(path: Path) -> list[tuple[str, str]]:
    from pipnet.inference.onnx_session import onnx_session

    session = onnx_session(path)
    return [
        (kind, f"{port.name}: {port.type.removeprefix('tensor(').removesuffix(')')} {_shape(port.shape)}")
        for kind, ports in (("input", session.get_inputs()), ("output", session.get_outputs()))
        for port in ports
    ]


def _ports_of_openvino(path: Path) -> list[tuple[str, str]]:
    from pipnet.inference.openvino_session import read_openvino

    model, _ = read_openvino(path)
    return [
        (kind, f"{port.any_name}: {port.element_type.to_dtype()} {_shape(port.partial_shape)}")
        for kind, ports in (("input", model.inputs), ("output", model.outputs))
        for port in ports
    ]


def _shape(shape: Any) -> str:
    """With B for the side that may be anything."""
    sides = [str(side) for side in shape]
    return "(" + ", ".join(side if side.isdecimal() else "B" for side in sides) + ("," if len(sides) == 1 else "") + ")"


def _of_checkpoint(path: Path) -> dict[str, Any]:
    from pipnet.export.card import card_of
    from pipnet.model import checkpoint
    from pipnet.model.graph import metadata_of

    loaded = checkpoint.load(path)
    return metadata_of(loaded, card=card_of(loaded, path))
