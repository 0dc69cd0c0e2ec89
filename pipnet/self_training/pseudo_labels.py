"""Pseudo-labels of unlabelled faces on the disk: points, how sure they are, and samples to train on.

A folder of :func:`pipnet.self_training.teacher.estimate` holds ``points.npy``, ``spread.npy``,
``disagreement.npy``, ``angle.npy`` and, written last, ``done.json``. They are memory-mapped: ten million faces take no
more memory than five hundred.

Pseudo-labels for the eye: a table of all of them, and a contact sheet from the surest faces to the least sure.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.data.images import read_image, write_image
from pipnet.data.report import Color, contact_sheet, face_tile
from pipnet.data.sample import Sample
from pipnet.files import replacing
from pipnet.geometry import tight_box
from pipnet.self_training.face_store import UnlabelledFaces

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
        folder: Filled by :func:`pipnet.self_training.teacher.estimate`.
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


_TILE = 160  # pixels
# From points that are hardly known to sure ones: red, orange, yellow, green.
_COLORS: tuple[Color, ...] = ((240, 50, 50), (250, 150, 40), (245, 225, 60), (70, 230, 90))


def write_table(labels: PseudoLabels, path: str | Path) -> None:
    """Write every pseudo-label as a row of a CSV file.

    Columns: ``image`` (what the photo was called; bytes that are no UTF-8 stay as they are), ``crop`` (the file that
    holds the face, in the pool's folder), ``x0 y0 x1 y1`` (tight box of the points), ``confidence`` (mean over the
    points), and ``x_n y_n confidence_n`` of each point. Coordinates are pixels of the upright photo. Rows are written
    one by one.

    Raises:
        OSError: The file can't be written.
        ValueError: The pool has lost what it knew of a photo.
    """
    faces = labels.faces
    head = ["image", "crop", "x0", "y0", "x1", "y1", "confidence"]
    head += [f"{name}_{n}" for n in range(labels.num_points) for name in ("x", "y", "confidence")]
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(head)
        for index in range(len(labels)):
            image, points = faces.in_photo(index, labels.points(index))
            confidence = labels.confidence_of(index)
            each = np.column_stack([points, confidence]).ravel()
            crop = faces.path(index).relative_to(faces.folder).as_posix()
            numbers = [*(f"{value:.2f}" for value in tight_box(points)), f"{confidence.mean():.3f}"]
            writer.writerow([image, crop, *numbers, *(f"{value:.3f}" for value in each)])


def write_sheet(labels: PseudoLabels, path: str | Path, count: int = 48) -> None:
    """Draw faces with their points, evenly chosen from the most confident to the least, as a picture.

    The surest points are green, then yellow, orange and red (confidence below 1/4). Under each face stands the mean
    confidence of its points.

    Args:
        labels: What to draw.
        path: Of the picture; its suffix says the format.
        count: Faces, or all if there are fewer.

    Raises:
        OSError: The file can't be written.
        BadSampleError: A crop can't be read; the message names the file.
    """
    confidence = labels.face_confidence
    order = np.argsort(-confidence, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)].tolist()
    tiles = [_tile(labels, index) for index in chosen]
    sheet = contact_sheet(tiles, captions=[f"{confidence[index]:.2f}" for index in chosen])
    write_image(Path(path), sheet)


def _tile(labels: PseudoLabels, index: int) -> np.ndarray:
    points, confidence = labels.points(index), labels.confidence_of(index)
    step = np.minimum((confidence * len(_COLORS)).astype(int), len(_COLORS) - 1)  # (N,)
    layers = [(np.where(step[:, None] == number, points, np.nan), color) for number, color in enumerate(_COLORS)]
    (top, color), below = layers[0], layers[1:]
    image = read_image(labels.faces.path(index))
    return face_tile(image, top, box=tight_box(points), size=_TILE, color=color, others=below)
