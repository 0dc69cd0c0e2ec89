"""Pseudo-labels of unlabelled faces: points, how sure they are, samples to train on, a table and a contact sheet.

They lie beside the faces in their store (:mod:`pipnet.self_training.face_store`), a row a face, and are read when they
are asked for: ten million faces take no more memory than five hundred.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipnet.data.images import write_image
from pipnet.data.report import Color, contact_sheet, face_tile
from pipnet.data.sample import Sample
from pipnet.files import replacing
from pipnet.geometry import tight_box
from pipnet.self_training.face_store import UnlabelledFaces

_TOLERANCE = 0.05  # of the box: where a point this unsure has a confidence of 1/e


@dataclass(frozen=True)
class Selection:
    """Which pseudo-labels are trained on, and how much they count.

    Args:
        weighted: Points count by their confidence; else all count fully.
        min_face: Faces whose points have less confidence on average are skipped.

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


class Estimate(NamedTuple):
    """What a teacher says of faces."""

    points: np.ndarray  # (F, N, 2) float32, pixels of the crops
    spread: np.ndarray  # (F, N) float32, cells: how far the votes for a point lie apart, mean over the views
    disagreement: np.ndarray  # (F, N) float32, fraction of the box: how far the views lie apart, root mean square
    angle: np.ndarray  # (F,) float32, degrees: how far the face was turned clockwise where it was cut


class PseudoLabels:
    """What a teacher says of unlabelled faces; :func:`pipnet.self_training.teacher.estimate` fills them.

    Args:
        faces: Those it was asked about.
        about: What the labels follow from: teacher, views, and the like. Those of anything else lie beside them.

    Raises:
        OSError: The disk is full.
    """

    def __init__(self, faces: UnlabelledFaces, about: dict[str, Any]) -> None:
        self.faces, self.about = faces, about
        with faces.database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO labellings (request) VALUES (?)", [json.dumps(about)])
            found = connection.execute("SELECT id FROM labellings WHERE request = ?", [json.dumps(about)])
            self._labelling = found.fetchone()[0]

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> Estimate:
        """What is said of one face, without the leading F."""
        query = "SELECT points, spread, disagreement, angle FROM labels WHERE labelling = ? AND face = ?"
        found = self.faces.database.rows(query, [self._labelling, range(len(self))[index]])[0]
        points, spread, disagreement = (np.frombuffer(part, "<f4") for part in found[:3])
        return Estimate(points.reshape(-1, 2), spread, disagreement, np.float32(found[3]))

    def hold(self, rows: range) -> bool:
        """Whether all of some consecutive faces are labelled."""
        query = "SELECT count(*) FROM labels WHERE labelling = ? AND face BETWEEN ? AND ?"
        return self.faces.database.rows(query, [self._labelling, rows.start, rows.stop - 1]) == [(len(rows),)]

    def write(self, rows: range, labels: Estimate) -> None:
        """Write the labels of consecutive faces, all or none.

        Raises:
            OSError: The disk is full.
        """
        sure = confidence(labels, self.about["cell"]).mean(axis=1)
        with self.faces.database.writing() as connection:
            for row, angle, mean, *parts in zip(rows, labels.angle.tolist(), sure.tolist(), *labels[:3], strict=True):
                values = (self._labelling, row, angle, mean, *(part.astype("<f4").tobytes() for part in parts))
                connection.execute("REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def confidence(self, index: int) -> np.ndarray:
        """How sure the points of a face are, ``(N,)`` float32 in [0, 1]; see :func:`confidence`."""
        return confidence(self[index], self.about["cell"])

    @property
    def face_confidence(self) -> np.ndarray:
        """Mean confidence of each face's points, ``(F,)`` float32."""
        query = "SELECT confidence FROM labels WHERE labelling = ? ORDER BY face"
        found = self.faces.database.each(query, [self._labelling])
        return np.fromiter((value for (value,) in found), np.float32, len(self))

    def samples(self, select: Selection | None = None) -> PseudoSamples:
        """Faces to train on, made on demand.

        Args:
            select: None trains on everything, as the paper does.
        """
        return PseudoSamples(self, select or Selection())


class PseudoSamples(Sequence[Sample]):
    """Pseudo-labelled faces in the form of labelled ones; each is made when it is asked for.

    The box of a face is the tight box of its points, in the frame in which the face is upright.
    """

    def __init__(self, labels: PseudoLabels, select: Selection) -> None:
        self.labels, self.select = labels, select
        self._rows = np.flatnonzero(labels.face_confidence >= select.min_face) if select.min_face else None

    def __len__(self) -> int:
        return len(self.labels) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = index if self._rows is None else int(self._rows[index])
        faces, label = self.labels.faces, self.labels[row]
        points, angle = label.points.astype(np.float64), float(label.angle)
        weight = confidence(label, self.labels.about["cell"]) if self.select.weighted else None
        box = tight_box(points, angle) if angle else tight_box(points)
        return Sample(faces.image(row), points, faces.name(row), box=box, weight=weight, angle=angle)


def confidence(labels: Estimate, cell: float) -> np.ndarray:
    """How sure points are, ``(..., N)`` float32 in [0, 1]: ``exp(-u / 0.05)``.

    ``u = hypot(disagreement, spread)`` with both as fractions of the box: a point whose views lie apart by 5 % of the
    face's size, or whose votes do, has 0.37; one without any doubt has 1.

    Args:
        labels: Of one face or many.
        cell: Side of a cell as a fraction of the box.

    Example:
        >>> sure = Estimate(np.zeros((2, 2)), np.zeros(2), np.array([0, 0.05]), np.zeros(()))
        >>> confidence(sure, cell=0.1).round(2).tolist()
        [1.0, 0.37]
    """
    return np.exp(-np.hypot(labels.disagreement, labels.spread * np.float32(cell)) / np.float32(_TOLERANCE))


_TILE = 160  # pixels
# From points that are hardly known to sure ones: red, orange, yellow, green.
_COLORS: tuple[Color, ...] = ((240, 50, 50), (250, 150, 40), (245, 225, 60), (70, 230, 90))


def write_table(labels: PseudoLabels, path: str | Path) -> None:
    """Write every pseudo-label as a row of a CSV file.

    Columns: ``image`` (what the photo was called; bytes that are no UTF-8 stay as they are), ``face`` (its name: the
    digest of the photo and the number of the detection), ``x0 y0 x1 y1`` (tight box of the points), ``confidence``
    (mean over the points), and ``x_n y_n confidence_n`` of each point. Coordinates are pixels of the upright photo.
    Rows are written one by one.

    Raises:
        OSError: The file can't be written.
    """
    faces = labels.faces
    head = ["image", "face", "x0", "y0", "x1", "y1", "confidence"]
    head += [f"{name}_{n}" for n in range(len(labels[0].points)) for name in ("x", "y", "confidence")]
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(head)
        for index in range(len(labels)):
            label = labels[index]
            image, points = faces.in_photo(index, label.points.astype(np.float64))
            sure = confidence(label, labels.about["cell"])
            each = np.column_stack([points, sure]).ravel()
            numbers = [*(f"{value:.2f}" for value in tight_box(points)), f"{sure.mean():.3f}"]
            writer.writerow([image, faces.name(index), *numbers, *(f"{value:.3f}" for value in each)])


def write_contact_sheet(labels: PseudoLabels, path: str | Path, count: int = 48) -> None:
    """Draw faces with their points, evenly chosen from the most confident to the least, as a picture.

    The surest points are green, then yellow, orange and red (confidence below 1/4). Under each face stands the mean
    confidence of its points.

    Args:
        labels: What to draw.
        path: Of the picture; its suffix says the format.
        count: Faces, or all if there are fewer.

    Raises:
        OSError: The file can't be written.
        BadSampleError: A crop is damaged; the message names it.
    """
    sure = labels.face_confidence
    order = np.argsort(-sure, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)].tolist()
    tiles = [_tile(labels, index) for index in chosen]
    sheet = contact_sheet(tiles, captions=[f"{sure[index]:.2f}" for index in chosen])
    write_image(Path(path), sheet)


def _tile(labels: PseudoLabels, index: int) -> np.ndarray:
    points = labels[index].points.astype(np.float64)
    step = np.minimum((labels.confidence(index) * len(_COLORS)).astype(int), len(_COLORS) - 1)  # (N,)
    layers = [(np.where(step[:, None] == number, points, np.nan), color) for number, color in enumerate(_COLORS)]
    (top, color), below = layers[0], layers[1:]
    return face_tile(labels.faces.image(index), top, box=tight_box(points), size=_TILE, color=color, others=below)
