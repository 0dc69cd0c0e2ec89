"""An exported graph: written, opened again, compared with PyTorch on every runtime here, and only then named."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from pipnet.console import missing
from pipnet.model.checkpoint import LoadedModel

# Batches of 1, of 7, and then of 16: a graph that was traced with one face may serve one face only.
_FIRST_BATCHES, _BATCH = (1, 8), 16


@dataclass(frozen=True)
class Difference:
    """How far a runtime's predictions are from PyTorch's; NaN where ``not_compared`` says why there are none."""

    runtime: str
    largest_px: float = float("nan")  # distance of a point, pixels of the crop
    mean_px: float = float("nan")
    largest_score: float = float("nan")  # difference of a score, of points and faces
    not_compared: str = ""

    def within(self, tolerance_px: float, tolerance_score: float) -> bool:
        """Whether both are kept; a network that gives NaN keeps none."""
        return bool(self.not_compared) or (self.largest_px <= tolerance_px and self.largest_score <= tolerance_score)


def compare(path: Path, loaded: LoadedModel, crops: np.ndarray) -> list[Difference]:
    """Open a file again with each runtime and compare it with the network that it was made of.

    Raises:
        ValueError: A runtime that is installed finds the file damaged.
    """
    from pipnet.inference.runtimes import GRAPH_RUNTIMES, RuntimeUnavailableError, open_runtime

    batches = _batches(crops)
    device = next(loaded.net.parameters()).device
    with torch.inference_mode():  # the network as it was trained, not as it is arranged for the export
        predictions = [loaded.net.predict(torch.from_numpy(batch).to(device).permute(0, 3, 1, 2)) for batch in batches]
    expected = _joined([tuple(part.cpu().numpy() for part in prediction) for prediction in predictions])
    differences = []
    for name in sorted(GRAPH_RUNTIMES[path.suffix]):
        try:
            runtime = open_runtime(path, name)
        except RuntimeUnavailableError as error:
            differences.append(Difference(name, not_compared=str(error)))
            continue
        points, *scores = _joined([runtime(batch) for batch in batches])
        distance = np.linalg.norm(points - expected[0], axis=-1) * loaded.net.input_size
        off = [np.abs(ours - theirs).max() for ours, theirs in zip(scores, expected[1:], strict=True)]
        differences.append(Difference(name, float(distance.max()), float(distance.mean()), float(max(off))))
    return differences


def _batches(crops: np.ndarray) -> list[np.ndarray]:
    edges = [*_FIRST_BATCHES, *range(_FIRST_BATCHES[-1] + _BATCH, len(crops), _BATCH)]
    return [batch for batch in np.split(crops, edges) if len(batch)]


def _joined(parts: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    return [np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True)]


TOLERANCE_PX = 1e-3  # pixels of the crop, of 32-bit graphs
TOLERANCE_SCORE = 1e-3
# Of the crop's side, mean move of a point by int8 beyond which the command warns. The network that ships has 0.16 %;
# the graph that lost 4 to 10 % of its accuracy on CPUs without VNNI had 0.5 to 0.8 % on them.
LIMIT_INT8 = 0.003


class ExportError(ValueError):
    """An exported graph that does not say what the network says; nothing is kept of it."""


def missing_package(path: Path) -> str:
    """What is not installed and needed to write a file of this suffix, as a sentence; "" where all is there."""
    needed = ["onnx", *(["openvino"] if path.suffix == ".xml" else [])]
    lacking = [package for package in needed if find_spec(package) is None]
    return f"{path.name} can't be written: {missing(lacking[0])}" if lacking else ""


def write(loaded: LoadedModel, path: Path, *, precision: str, crops: np.ndarray, card: str) -> list[Difference]:
    """Write a graph whole or not at all, after it was compared with the network.

    A ``.xml`` for OpenVINO brings a ``.bin`` of the same stem; older files of that name are replaced. int8 is
    calibrated on the crops, uint8 ``(K, S, S, 3)``, and all is compared on them; the card is stored in the file.

    Raises:
        ExportError: A 32-bit graph differs by more than 0.001 px, or its scores by more than 0.001; or a
            runtime refuses the graph. An older file of that name stays.
        ValueError: A package is missing.
        OSError: The file can't be written; the message names it.
    """
    from pipnet.model.onnx_graph import export_onnx

    if problem := missing_package(path):
        raise ValueError(problem)
    with _beside(path) as whole:
        graph = whole.with_suffix(".onnx")
        export_onnx(loaded, graph, calibration=crops if precision == "int8" else None, card=card)
        if path.suffix == ".xml":
            _convert(graph, whole, path)
        differences = _compared(whole, path, loaded, crops)
        for difference in differences if precision == "fp32" else ():
            if not difference.within(TOLERANCE_PX, TOLERANCE_SCORE):
                raise ExportError(
                    f"{path} was not kept: on {difference.runtime} a point is {difference.largest_px:.4f} px and a"
                    f" score {difference.largest_score:.4f} from PyTorch's (up to {TOLERANCE_PX} px and"
                    f" {TOLERANCE_SCORE} are rounding); report it with the checkpoint"
                )
        if path.suffix == ".xml":
            # In this order no moment has an .xml beside another one's .bin.
            path.unlink(missing_ok=True)
            os.replace(whole.with_suffix(".bin"), path.with_suffix(".bin"))
        os.replace(whole, path)
    return differences


def _convert(graph: Path, whole: Path, path: Path) -> None:
    from pipnet.inference.sessions import export_openvino

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
