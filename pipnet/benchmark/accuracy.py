"""The other axis: NME of the contenders, from a file or measured on labelled faces."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipnet.benchmark.contenders import Contender, sentence
from pipnet.layouts import PointLayout

if TYPE_CHECKING:
    from pipnet.data.sample import Sample

LAYOUT = "300w_68"
_PART = "common"


@dataclass(frozen=True)
class Accuracy:
    """Of one contender; mean NME over the faces it found, percent of the outer-eye distance.

    Attributes:
        nme: Of all points; None where it has others than the labels.
        inner: Of the 51 points inside the face, without the jaw; None where it is not known.
        faces: Measured; None for a figure that was given.
        missed: Of them, without a result.
    """

    nme: float | None
    inner: float | None = None
    faces: int | None = None
    missed: int = 0


def read_accuracy(path: str | Path) -> dict[str, Accuracy]:
    """``--nme``: a JSON object of names and percent.

    Raises:
        ValueError: The file holds something else; the message names the entry.
        FileNotFoundError: No such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path} for --nme")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f'{path} must hold one object of names and percent, as {{"shipped fp32": 2.95}}')
    for name, value in content.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{path}: {name!r} must have a number of percent, got {value!r}")
    return {name: Accuracy(float(value)) for name, value in content.items()}


def accuracy_of(contender: Contender, known: Mapping[str, Accuracy]) -> Accuracy | None:
    """By the contender's name, or by its model and precision."""
    return known.get(contender.name) or known.get(f"{contender.model} {contender.precision}")


def read_faces(root: str | Path, count: int | None = None) -> tuple[list[Sample], PointLayout]:
    """The faces of ``--data``: 300W's part ``common``, or ``count`` of them spread over it.

    Raises:
        FileNotFoundError: They are not there.
    """
    from pipnet.data.datasets import read_dataset
    from pipnet.layouts import get_layout

    layout = get_layout(LAYOUT)
    samples, _ = read_dataset("300w", root=Path(root) / "300W", layout=layout, part=_PART)
    if count is not None and count < len(samples):
        samples = [samples[index] for index in np.linspace(0, len(samples) - 1, count).round().astype(int)]
    return samples, layout


def measure_accuracy(
    contenders: Sequence[Contender],
    judged: Callable[[Contender], bool],
    samples: Sequence[Sample],
    layout: PointLayout,
    *,
    after_each: Callable[[], object] = lambda: None,
) -> tuple[dict[str, Accuracy], list[tuple[str, str]]]:
    """NME by contender's name, label boxes; and name and reason of what could not be measured.

    Args:
        contenders: One of each name is measured.
        judged: Whether a contender's points mean anything.
        samples: Labelled faces.
        layout: Of their points, 68.
        after_each: Called after each contender.
    """
    found: dict[str, Accuracy] = {}
    failed: dict[str, str] = {}
    for contender in contenders:
        if contender.name in found or contender.name in failed or not judged(contender):
            continue
        measure = _of_network if contender.other is None else _of_other
        try:
            found[contender.name] = measure(contender, samples, layout)
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            failed[contender.name] = sentence(error)
        after_each()
    return found, [(f"{name}, NME", reason) for name, reason in failed.items()]


def _of_network(contender: Contender, samples: Sequence[Sample], layout: PointLayout) -> Accuracy:
    from pipnet.benchmark.others import INNER_OF_68
    from pipnet.evaluation.evaluate import evaluate
    from pipnet.inference.landmarker import FaceLandmarker

    landmarker = FaceLandmarker.load(contender.file, device="cpu", runtime=contender.runtime, threads=contender.threads)
    result = evaluate(landmarker, samples, layout=layout)
    inner = result.errors(points=INNER_OF_68) if result.layout.num_points == layout.num_points else None
    return _accuracy(result.errors(), inner)


def _of_other(contender: Contender, samples: Sequence[Sample], layout: PointLayout) -> Accuracy:
    from pipnet.benchmark.others import INNER_OF_68
    from pipnet.data.sample import BadItems
    from pipnet.evaluation.faces import photo_chunks
    from pipnet.metrics import nme, norm_distances

    assert contender.other is not None
    other, find = contender.other
    true = np.stack([sample.points for sample in samples])
    pred = np.full((len(samples), other.num_points, 2), np.nan)
    for chunk in photo_chunks(samples, BadItems("raise"), np.ones(len(samples), dtype=bool)):
        for index, image in chunk:
            crop = other.crop(samples[index].box)
            points = find(crop.warp(image))
            if points is not None:
                pred[index] = crop.to_source(points)
    norm = norm_distances(true, layout)["outer_eye"]
    whole = nme(pred, true, norm) if other.num_points == layout.num_points else None
    return _accuracy(whole, nme(pred[:, list(other.inner)], true[:, list(INNER_OF_68)], norm))


def _accuracy(whole: np.ndarray | None, inner: np.ndarray | None) -> Accuracy:
    from pipnet.metrics import mean_error

    errors: Any = whole if whole is not None else inner
    percent = [None if one is None else 100 * float(mean_error(one)) for one in (whole, inner)]
    return Accuracy(*percent, faces=len(errors), missed=int(np.isinf(errors).sum()))
