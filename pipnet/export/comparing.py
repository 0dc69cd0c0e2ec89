"""Whether an exported graph says what the network says, on every runtime that can serve it here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipnet.model.checkpoint import LoadedModel

# Batches of 1, of 7, and then of 16: a graph that was traced with one face may serve one face only.
_FIRST_BATCHES, _BATCH = (1, 8), 16


@dataclass(frozen=True)
class Difference:
    """How far a runtime's predictions are from PyTorch's.

    Attributes:
        runtime: Its name.
        largest_px: Largest distance of a point, pixels of the crop.
        mean_px: Mean distance.
        largest_score: Largest difference of a score, of points and faces.
        not_compared: Why it was not compared, a sentence; the figures are NaN then. "" where it was.
    """

    runtime: str
    largest_px: float = float("nan")
    mean_px: float = float("nan")
    largest_score: float = float("nan")
    not_compared: str = ""

    def within(self, tolerance_px: float, tolerance_score: float) -> bool:
        """Whether both are kept; a network that gives NaN keeps none."""
        return bool(self.not_compared) or (self.largest_px <= tolerance_px and self.largest_score <= tolerance_score)


def compare(path: Path, loaded: LoadedModel, crops: np.ndarray) -> list[Difference]:
    """Open a file again with each runtime and compare it with the network that it was made of.

    Args:
        path: An ``.onnx`` or ``.xml``.
        loaded: The network.
        crops: RGB uint8 ``(K, S, S, 3)``.

    Returns:
        One entry a runtime.

    Raises:
        ValueError: A runtime that is installed finds the file damaged.
    """
    from pipnet.inference.runtimes import GRAPH_RUNTIMES, RuntimeUnavailableError, open_runtime

    batches = _batches(crops)
    expected = _joined([_reference(loaded, batch) for batch in batches])
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


def _reference(loaded: LoadedModel, crops: np.ndarray) -> tuple[np.ndarray, ...]:
    """PyTorch's own predictions, by the network as it was trained rather than as it is arranged for the export."""
    device = next(loaded.net.parameters()).device
    with torch.inference_mode():
        prediction = loaded.net.predict(torch.from_numpy(crops).to(device).permute(0, 3, 1, 2))
    return tuple(part.cpu().numpy() for part in prediction)


def _batches(crops: np.ndarray) -> list[np.ndarray]:
    edges = [*_FIRST_BATCHES, *range(_FIRST_BATCHES[-1] + _BATCH, len(crops), _BATCH)]
    return [batch for batch in np.split(crops, edges) if len(batch)]


def _joined(parts: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    return [np.concatenate(part).astype(np.float64) for part in zip(*parts, strict=True)]
