"""What the cases cost in accuracy: their NME on labelled faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipnet.benchmark.cases import Case
from pipnet.layouts import get_layout
from pipnet.metrics import mean_error

if TYPE_CHECKING:
    from pipnet.data.sample import Sample

_LAYOUT = "300w_68"
_CHUNK = 64  # faces between two looks at whether to stop


def read_faces(root: Path, count: int | None = None) -> list[Sample]:
    """Faces of 300W's part ``common`` in ``root/300W``, all or ``count`` of them.

    Raises:
        FileNotFoundError: They are not there.
    """
    from pipnet.data.datasets import read_dataset

    samples, _ = read_dataset("300w", root=root / "300W", layout=get_layout(_LAYOUT), part="common")
    return samples[:: max(1, len(samples) // count)][:count] if count else samples


def measure_accuracy(
    cases: Sequence[Case],
    samples: Sequence[Sample],
    say: Callable[[str], object] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """NME in percent by case's name, in the boxes of the labels; and name and reason of what could not be measured.

    Args:
        cases: One of each name is measured, of those whose points mean anything.
        samples: Labelled faces of 68 points.
        say: Told what is measured next.
        stop: Asked now and then; true ends the measuring, and of the case under way nothing is kept.
    """
    from pipnet.evaluation.evaluate import evaluate
    from pipnet.inference.landmarker import FaceLandmarker

    found, failed = {}, []
    for name, case in {case.name: case for case in cases if case.measurable and samples}.items():
        say(f"NME of {name}")
        errors = []
        try:
            landmarker = FaceLandmarker.load(case.file, device="cpu", runtime=case.runtime, threads=case.threads)
            for start in range(0, len(samples), _CHUNK):
                if stop():
                    return found, failed
                chunk = samples[start : start + _CHUNK]
                errors.append(evaluate(landmarker, chunk, layout=get_layout(_LAYOUT)).errors())
            found[name] = 100 * float(mean_error(np.concatenate(errors)))
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            failed.append((f"{name}, NME", str(error).strip().partition("\n")[0]))
    return found, failed
