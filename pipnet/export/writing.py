"""One graph, written, opened again, compared with PyTorch, and only then given its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from pipnet.export.comparing import Difference, compare
from pipnet.model.checkpoint import LoadedModel

TOLERANCE_PX = 1e-3  # pixels of the crop, of 32-bit graphs
TOLERANCE_SCORE = 1e-3
# Of the crop's side, mean move of a point by 8 bits beyond which the command warns. The network that ships has 0.16 %;
# the graph that lost 4 to 10 % of its accuracy on CPUs without VNNI had 0.5 to 0.8 % on them.
LIMIT_INT8 = 0.003


class ExportError(ValueError):
    """An exported graph that does not say what the network says; nothing is kept of it."""


def missing_package(path: Path) -> str:
    """What is not installed and needed to write a file of this suffix, as a sentence; "" where all is there."""
    needed = {"onnx": "pipnet[export]"}
    if path.suffix == ".xml":
        needed["openvino"] = "pipnet[openvino]"
    for package, extra in needed.items():
        if find_spec(package) is None:
            return f"writing {path.name} needs the package {package}: pip install '{extra}'"
    return ""


def write(loaded: LoadedModel, path: Path, *, precision: str, crops: np.ndarray, card: str) -> list[Difference]:
    """Write a graph whole or not at all, after it was compared with the network.

    Args:
        loaded: On the CPU.
        path: ``.onnx``, or ``.xml`` for OpenVINO, which brings a ``.bin`` of the same stem. Older files of that name
            are replaced.
        precision: ``"fp32"`` or ``"int8"``.
        crops: Faces as RGB uint8 ``(K, S, S, 3)``: int8 is calibrated on them, and all is compared on them.
        card: Text about the weights, stored in the file.

    Returns:
        How far each runtime is from PyTorch.

    Raises:
        ExportError: A 32-bit graph differs by more than 0.001 px, or its scores by more than 0.001; or a
            runtime refuses the graph. An older file of that name stays.
        ValueError: A package is missing.
        OSError: The file can't be written; the message names it.
    """
    from pipnet.model.graph import export_onnx

    if problem := missing_package(path):
        raise ValueError(problem)
    with _beside(path) as whole:
        graph = whole.with_suffix(".onnx")
        export_onnx(loaded, graph, calibration=crops if precision == "int8" else None, card=card)
        if path.suffix == ".xml":
            _convert(graph, whole, path)
        differences = _compared(whole, path, loaded, crops)
        if precision == "fp32":
            _check(differences, path)
        if path.suffix == ".xml":
            # In this order no moment has an .xml beside another one's .bin.
            path.unlink(missing_ok=True)
            os.replace(whole.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(whole, path)
    return differences


def _convert(graph: Path, whole: Path, path: Path) -> None:
    from pipnet.inference.openvino_session import export_openvino

    try:
        export_openvino(graph, whole)
    except RuntimeError as error:  # how OpenVINO speaks of operators it can't compute, over many lines
        reason = [line for line in str(error).splitlines() if line.strip()][-1]
        raise ExportError(f"{path} was not written: OpenVINO can't take the graph ({reason.strip(' -')})") from error


def _compared(whole: Path, path: Path, loaded: LoadedModel, crops: np.ndarray) -> list[Difference]:
    try:
        return compare(whole, loaded, crops)
    except ValueError as error:  # it was written a moment ago: not the user's doing
        reason = str(error).replace(str(whole.with_suffix("")), str(path.with_suffix("")))
        raise ExportError(f"{path} was not kept, a runtime refuses it: {reason}") from error


def _check(differences: list[Difference], path: Path) -> None:
    for difference in differences:
        if not difference.within(TOLERANCE_PX, TOLERANCE_SCORE):
            raise ExportError(
                f"{path} was not kept: on {difference.runtime} a point is {difference.largest_px:.4f} px and a score "
                f"{difference.largest_score:.4f} from PyTorch's (up to {TOLERANCE_PX} px and {TOLERANCE_SCORE} are "
                "rounding); report it with the checkpoint"
            )


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """The path of the same name in a folder of its own beside it, on the same disk; the folder goes in the end.

    Raises:
        OSError: Names ``path``, never the folder.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent.resolve())
    except OSError as error:
        raise OSError(error.errno, f"{path} can't be written: {error.strerror}; check the folder") from error
    with folder:
        inside = Path(folder.name) / path.name
        try:
            yield inside
        except OSError as error:
            if error.errno is None:
                raise
            reason = f"{os.strerror(error.errno)}; free disk space or choose another folder"
            raise OSError(error.errno, f"{path} can't be written: {reason}") from error
