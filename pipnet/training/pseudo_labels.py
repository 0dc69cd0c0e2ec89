"""Pseudo-labels of unlabelled faces on the disk: points, how sure they are, and samples to train on.

A folder of :func:`pipnet.training.pseudo_labelling.estimate` holds ``points.npy``, ``spread.npy``,
``disagreement.npy``, ``angle.npy`` and, written last, ``done.json``. They are memory-mapped: ten million faces take no
more memory than five hundred.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.data.face_store import UnlabelledFaces
from pipnet.data.sample import Sample
from pipnet.geometry import tight_box

ARRAYS = ("points", "spread", "disagreement", "angle")
_TOLERANCE = 0.05  # of the box: where a point this unsure has a confidence of 1/e
_ROWS = 4096  # faces looked at in one go


@dataclass(frozen=True)
class Selection:
    """Which pseudo-labels are trained on, and how much they count.

    Args:
        weighted: Points count by their confidence; else all count fully.
        min_face: Faces whose points have less confidence on average are left out.

    Raises:
        ValueError: A limit that is not in [0, 1].
    """

    weighted: bool = False
    min_face: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.min_face, int | float) and 0 <= self.min_face <= 1):
            raise ValueError(f"min_face is a confidence and lies in [0, 1], got {self.min_face!r}")
        if not isinstance(self.weighted, bool):
            raise ValueError(f"weighted must be true or false, got {self.weighted!r}")


class PseudoLabels:
    """What a teacher says of unlabelled faces.

    Args:
        folder: Filled by :func:`pipnet.training.pseudo_labelling.estimate`.
        faces: Those it was asked about.

    Attributes:
        spread: ``(F, N)`` float32, how far the votes for each point lie apart, mean over the views, cells.
        disagreement: ``(F, N)`` float32, how far the views lie apart, root mean square, as a fraction of the size of
            the face's box; 0 where there was one view.
        angle: ``(F,)`` float32, degrees: how far the face was turned clockwise where it was cut.
        about: How they were made: teacher, views, and the like.

    Raises:
        FileNotFoundError: They are not finished.
        ValueError: They belong to other faces.
    """

    def __init__(self, folder: str | Path, faces: UnlabelledFaces) -> None:
        self.folder, self.faces = Path(folder), faces
        try:
            self.about: dict[str, Any] = json.loads((self.folder / "done.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.folder} holds no finished pseudo-labels; estimate them first") from None
        self._points, self.spread, self.disagreement, self.angle = (
            np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS
        )
        if len(self._points) != len(faces):
            raise ValueError(
                f"{self.folder} labels {len(self._points)} faces, {faces.folder} has {len(faces)}; use another folder"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (self.folder, self.faces.folder)  # a loader process maps the files itself, nothing is copied

    def __len__(self) -> int:
        return len(self._points)

    @property
    def num_points(self) -> int:
        """N."""
        return self._points.shape[1]

    def points(self, index: int) -> np.ndarray:
        """Points of a face, ``(N, 2)`` float64, pixels of the crop's file (``faces.path(index)``)."""
        return self._points[index].astype(np.float64)

    def confidence_of(self, rows: int | slice | np.ndarray) -> np.ndarray:
        """How sure the points of some faces are, in [0, 1]: ``exp(-u / 0.05)``.

        ``u = hypot(disagreement, spread)`` with both as fractions of the box: a point whose views lie apart by 5 % of
        the face's size, or whose votes do, has 0.37; one without any doubt has 1.

        Returns:
            ``(N,)`` for a number, ``(F', N)`` for a slice or numbers; float32.
        """
        spread = np.asarray(self.spread[rows]) * np.float32(self.about["cell"])
        return np.exp(-np.hypot(np.asarray(self.disagreement[rows]), spread) / np.float32(_TOLERANCE))

    @property
    def face_confidence(self) -> np.ndarray:
        """Mean confidence of each face's points, ``(F,)`` float32."""
        return np.concatenate([self.confidence_of(rows).mean(axis=1) for rows in self._parts()] or [np.empty(0, "f4")])

    def samples(self, select: Selection | None = None) -> PseudoSamples:
        """Faces to train on, made on demand.

        Args:
            select: None trains on everything, as the paper does.
        """
        return PseudoSamples(self, select or Selection())

    def _parts(self) -> list[slice]:
        return [slice(first, min(first + _ROWS, len(self))) for first in range(0, len(self), _ROWS)]

    def _selected(self, select: Selection) -> np.ndarray | None:
        """Numbers of the faces that a selection keeps, or None for all."""
        return np.flatnonzero(self.face_confidence >= select.min_face) if select.min_face else None


class PseudoSamples(Sequence[Sample]):
    """Pseudo-labelled faces in the form of labelled ones; each is made when it is asked for.

    The box of a face is the tight box of its points, in the frame in which the face is upright.
    """

    def __init__(self, labels: PseudoLabels, select: Selection) -> None:
        self.labels, self.select = labels, select
        self._rows = labels._selected(select)

    def __len__(self) -> int:
        return len(self.labels) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = index if self._rows is None else int(self._rows[index])
        points, faces = self.labels.points(row), self.labels.faces
        weight = self.labels.confidence_of(row) if self.select.weighted else None
        angle = float(self.labels.angle[row])
        box = tight_box(points, angle) if angle else tight_box(points)
        return Sample(faces.path(row), points, faces.name(row), box=box, weight=weight, angle=angle)


def _open(folder: Path, faces: Path) -> PseudoLabels:
    return PseudoLabels(folder, UnlabelledFaces(faces))
