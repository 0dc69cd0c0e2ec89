"""Pseudo-labels: a teacher labels unlabelled faces, and what it said becomes samples, a table and a contact sheet.

Labels lie beside the faces in their store (:mod:`pipnet.self_training.face_store`), a row a face, and are read when
they are asked for: ten million faces take no more memory than five hundred.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from pipnet.console import StopRequest
from pipnet.data.images import write_image
from pipnet.data.report import Color, contact_sheet, face_tile
from pipnet.data.sample import Sample
from pipnet.files import replacing
from pipnet.geometry import Crop, affine_crop, crop_of_square, crop_squares, tight_box, turned
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import PointLayout, can_map, get_layout, map_points
from pipnet.measurements import head_angles
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.network import LandmarkNet
from pipnet.self_training.face_store import UnlabelledFaces
from pipnet.training.distributed import Processes, in_step

CHUNK = 1024  # faces that are labelled and written at once: what a kill costs
_READERS = 4  # threads that decode crops while the network computes
_TURN, _SHIFT, _ZOOM = 10.0, 0.04, 0.08  # of further views: degrees, fraction of the crop's side, log
_LEAST_EXTENT = 1e-3  # pixels; points that fall on one another give no box
# Its own since 0.5: stores of 0.4 lack it, and keep labels with numbers that this version has no use for.
_SCHEMA = """CREATE TABLE IF NOT EXISTS estimates (labelling INTEGER, face INTEGER, angle REAL, face_score REAL,
    yaw REAL, points BLOB, scores BLOB, PRIMARY KEY (labelling, face))"""
YAW_BINS = (15, 30, 60)  # degrees between the bins
_MOST_REPEATS = 4
_TILE = 160  # pixels
# From points that are hardly known to sure ones: red, orange, yellow, green.
_COLORS: tuple[Color, ...] = ((240, 50, 50), (250, 150, 40), (245, 225, 60), (70, 230, 90))


@dataclass(frozen=True)
class Selection:
    """Which pseudo-labels are trained on, and how much they count.

    Args:
        weighted: Points count by their scores; else all count fully.
        min_face: Faces with a lower score are skipped.
        max_yaw: Heads that are turned by more degrees are skipped; those that can't be told stay.
        balanced: Heads that are turned are drawn more often, each up to four times, so that those of
            :data:`YAW_BINS` come as often as each other where there are enough.

    Raises:
        ValueError: A limit that is not in [0, 1], or no angle.
    """

    weighted: bool = False
    min_face: float = 0.0
    max_yaw: float | None = None
    balanced: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.min_face, int | float) and 0 <= self.min_face <= 1):
            raise ValueError(f"min_face is a score and lies in [0, 1], got {self.min_face!r}")
        if self.max_yaw is not None and not (isinstance(self.max_yaw, int | float) and self.max_yaw > 0):
            raise ValueError(f"max_yaw is an angle in degrees, above 0, or null, got {self.max_yaw!r}")
        for name in ("weighted", "balanced"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")


class Estimate(NamedTuple):
    """What a teacher says of faces."""

    points: np.ndarray  # (F, N, 2) float32, pixels of the crops, mean over the views
    scores: np.ndarray  # (F, N) float32 in [0, 1], of the points, mean over the views; see pipnet.model.confidence
    face_score: np.ndarray  # (F,) float32 in [0, 1], likewise
    angle: np.ndarray  # (F,) float32, degrees: how far the face was turned clockwise where it was cut
    yaw: np.ndarray  # (F,) float32, degrees: how far the head looks aside; NaN where the points can't tell


class PseudoLabels:
    """What a teacher says of unlabelled faces; :func:`estimate` fills them.

    ``about`` is what the labels follow from: teacher, views, and the like. Those of anything else lie beside them.
    """

    def __init__(self, faces: UnlabelledFaces, about: dict[str, Any]) -> None:
        self.faces, self.about = faces, about
        with faces.database.writing() as connection:
            connection.execute(_SCHEMA)
            connection.execute("INSERT OR IGNORE INTO labellings (request) VALUES (?)", [json.dumps(about)])
            found = connection.execute("SELECT id FROM labellings WHERE request = ?", [json.dumps(about)])
            self._labelling = found.fetchone()[0]

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, index: int) -> Estimate:
        """What is said of one face, without the leading F."""
        query = "SELECT points, scores, face_score, angle, yaw FROM estimates WHERE labelling = ? AND face = ?"
        points, scores, *numbers = self.faces.database.rows(query, [self._labelling, range(len(self))[index]])[0]
        scores = np.frombuffer(scores, "<f4")
        return Estimate(np.frombuffer(points, "<f4").reshape(-1, 2), scores, *np.array(numbers, np.float32))

    def hold(self, rows: range) -> bool:
        """Whether all of some consecutive faces are labelled."""
        query = "SELECT count(*) FROM estimates WHERE labelling = ? AND face BETWEEN ? AND ?"
        return self.faces.database.rows(query, [self._labelling, rows.start, rows.stop - 1]) == [(len(rows),)]

    def write(self, rows: range, labels: Estimate) -> None:
        """Write the labels of consecutive faces, all or none."""
        numbers = zip(labels.angle.tolist(), labels.face_score.tolist(), labels.yaw.tolist(), strict=True)
        with self.faces.database.writing() as connection:
            for row, of_face, *parts in zip(rows, numbers, labels.points, labels.scores, strict=True):
                values = (self._labelling, row, *of_face, *(part.astype("<f4").tobytes() for part in parts))
                connection.execute("REPLACE INTO estimates VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    @property
    def face_scores(self) -> np.ndarray:
        """Score of each face, ``(F,)`` float32."""
        return self._numbers("face_score")

    @property
    def yaws(self) -> np.ndarray:
        """Yaw of each face, ``(F,)`` float32, degrees; NaN where the points can't tell."""
        return self._numbers("yaw")

    def _numbers(self, name: str) -> np.ndarray:
        query = f"SELECT {name} FROM estimates WHERE labelling = ? ORDER BY face"
        found = self.faces.database.each(query, [self._labelling])
        return np.fromiter((np.nan if value is None else value for (value,) in found), np.float32, len(self))

    def samples(self, select: Selection | None = None) -> PseudoSamples:
        """Faces to train on, made on demand; without a selection all of them, as in the paper."""
        return PseudoSamples(self, select or Selection())


def repeats(yaws: np.ndarray) -> np.ndarray:
    """How often each head is drawn, for those of all bins of yaw to come equally often: 1 to 4.

    Example:
        >>> repeats(np.array([0, 3, -7, 5, 20, -21, -80, np.nan])).tolist()
        [1, 1, 1, 1, 2, 2, 4, 1]
    """
    bins = np.digitize(np.abs(yaws), YAW_BINS)
    counts = np.bincount(bins[~np.isnan(yaws)], minlength=len(YAW_BINS) + 1)
    wanted = np.round(counts.max() / np.maximum(counts, 1)).clip(1, _MOST_REPEATS).astype(int)
    return np.where(np.isnan(yaws), 1, wanted[bins])


class PseudoSamples(Sequence[Sample]):
    """Pseudo-labelled faces in the form of labelled ones; each is made when it is asked for.

    The box of a face is the tight box of its points, in the frame in which the face is upright.
    """

    def __init__(self, labels: PseudoLabels, select: Selection) -> None:
        self.labels, self.select = labels, select
        self._rows: np.ndarray | None = None
        if select.min_face or select.max_yaw:
            turned_away = np.abs(labels.yaws) > (select.max_yaw or np.inf)  # False where it is not known
            self._rows = np.flatnonzero((labels.face_scores >= select.min_face) & ~turned_away)
        self.faces = len(self)  # those drawn more often count once
        if select.balanced:
            rows = np.arange(len(labels)) if self._rows is None else self._rows
            self._rows = np.repeat(rows, repeats(labels.yaws[rows]))

    def __len__(self) -> int:
        return len(self.labels) if self._rows is None else len(self._rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = index if self._rows is None else int(self._rows[index])
        faces, label = self.labels.faces, self.labels[row]
        points, angle = label.points.astype(np.float64), float(label.angle)
        weight = label.scores.copy() if self.select.weighted else None  # to be writable
        box = tight_box(points, angle) if angle else tight_box(points)
        return Sample(faces.image(row), points, faces.name(row), box=box, weight=weight, angle=angle)


class Teacher:
    """A network that labels faces: the mean over augmented views of each.

    Args:
        model: A network with its layout and crop.
        label_shift: As it was trained; see :class:`pipnet.data.dataset.FaceCrops`.
        views: Augmented views of each face; every second one is mirrored, and from the third on they are slightly
            turned, moved and resized.
        seed: Of the views.
        batch_size: Faces a forward pass.
    """

    def __init__(
        self, model: LoadedModel, *, label_shift: float, views: int = 1, seed: int = 0, batch_size: int = 64
    ) -> None:
        self.net, self.crop_scale, self.layout = model.net, model.crop_scale, model.layout
        self.landmarker = FaceLandmarker.from_model(model)
        self.label_shift, self.views, self.seed, self.batch_size = label_shift, views, seed, batch_size

    def label(self, faces: UnlabelledFaces, rows: range) -> Iterator[Estimate]:
        """Labels of some faces, batch by batch; the next batch is read meanwhile."""
        batches = [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]
        with ThreadPoolExecutor(_READERS) as readers:
            ahead = [readers.submit(faces.image, row) for row in batches[0]]
            for batch, following in zip(batches, [*batches[1:], range(0)], strict=True):
                images = [future.result() for future in ahead]
                ahead = [readers.submit(faces.image, row) for row in following]
                found = faces.found(batch)
                seen = self.estimate(images, found.boxes, found.angles, batch)
                cut = zip(batch, seen.points.astype(np.float64), strict=True)
                photos = [faces.in_photo(row, points)[1] for row, points in cut]
                sizes = [faces.photo_size(row) for row in batch]
                yaws = [yaw_of(points, size, self.layout) for points, size in zip(photos, sizes, strict=True)]
                yield seen._replace(yaw=np.array(yaws, np.float32))

    def estimate(self, images: list[np.ndarray], boxes: np.ndarray, angles: np.ndarray, names: range) -> Estimate:
        """Labels of a batch of RGB uint8 images of any size.

        ``boxes (B, 4)`` and ``angles (B,)`` are the detector's, the latter NaN where it does not say. The views of a
        face depend on its number, its ``name``.
        """
        told: list[Any] = [
            Detections(box[None], np.ones(1), angle[None]) for box, angle in zip(boxes, angles, strict=True)
        ]
        first = self.landmarker.predict_batch(images, told, batch_size=len(images))
        angles = first.angles.astype(np.float64)
        tight = tight_box(first.points.astype(np.float64), angles)
        found = ((tight[:, 2:] - tight[:, :2]).max(axis=1) > _LEAST_EXTENT)[:, None]
        squares = crop_squares(np.where(found, tight, first.boxes), self.crop_scale)
        # The labels that the network learnt sit to the right in mirrored faces, too.
        shift = self.label_shift * squares[:, 2] / self.crop_scale  # (B,), pixels
        right = turned(np.stack([2 * shift, np.zeros_like(shift)], axis=1), angles)
        mirror = np.array(self.layout.mirror)
        views = []
        for view in range(self.views):
            crops = [self._crop(*face, view) for face in zip(squares, angles, names, strict=True)]
            points, scores, face_scores = self.see(images, crops)
            if view % 2 == 1:
                points, scores = points[:, mirror] + right[:, None], scores[:, mirror]
            views.append((points, scores, face_scores))
        means = [np.mean(part, axis=0) for part in zip(*views, strict=True)]
        not_known = np.full(len(images), np.nan)  # a crop does not tell where in its photo the camera looked
        return Estimate(*(part.astype(np.float32) for part in (*means, angles, not_known)))

    def _crop(self, square: np.ndarray, angle: float, name: int, view: int) -> Crop:
        """What a view shows: the first is the plain crop, the second that mirrored, further ones are moved as well."""
        if view == 0:
            return crop_of_square(square, self.net.input_size, angle)
        x, y, side = square.tolist()
        turn, right, down, zoom = np.random.default_rng([self.seed, name, view]).uniform(-1, 1, 4) * (view > 1)
        centre = np.array([x + _SHIFT * right * side, y + _SHIFT * down * side])
        side *= float(np.exp(_ZOOM * zoom))
        return affine_crop(centre, (side, side), self.net.input_size, angle=_TURN * turn - angle, mirror=view % 2 == 1)

    def see(self, images: list[np.ndarray], crops: list[Crop]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points ``(B, N, 2)`` float64, pixels of the images; their scores ``(B, N)``, and the faces' ``(B,)``."""
        pixels = np.stack([crop.warp(image) for crop, image in zip(crops, images, strict=True)])
        batch = torch.from_numpy(pixels).to(next(self.net.parameters()).device).permute(0, 3, 1, 2)
        units, scores, face_scores = (part.cpu().numpy() for part in self.net.predict(batch))
        points = [crop.from_unit(unit.astype(np.float64)) for crop, unit in zip(crops, units, strict=True)]
        return np.stack(points), scores, face_scores


def yaw_of(points: np.ndarray, size: tuple[int, int], layout: PointLayout) -> float:
    """How far a head looks to the picture's right, degrees, by its points ``(N, 2)`` on one of a width and height.

    NaN for a layout without the 68 points of 300W, and for points that are no face.
    """
    known = get_layout("300w_68")
    if not can_map(layout, known):
        return np.nan
    try:
        return float(head_angles(map_points(points[None], layout, known), size)[0, 0])
    except (ValueError, cv2.error):  # all points on one spot, or nearly
        return np.nan


def estimate(teacher: Teacher, faces: UnlabelledFaces, processes: Processes) -> PseudoLabels:
    """Label all faces with a network; every face, no matter how sure it is, as in the paper (section 3.4).

    A face is cut by its detector's box, upright, and again by the tight box of the points found: the box that training
    uses. Labels are never written again; what was interrupted resumes, to the same numbers, with any number of
    processes.

    Raises:
        OSError: The disk is full.
        BadSampleError: The crop of a face is damaged.
        TrainingError: Ctrl-C or SIGTERM asked for an end, or another process has failed; chunks in progress are lost.
    """
    request = {
        "teacher": weights_digest(teacher.net),
        "faces": faces.digest,
        "count": len(faces),
        "layout": teacher.layout.name,
        "confidence": teacher.net.arguments.get("confidence"),
        "label_shift": teacher.label_shift,
        "views": teacher.views,
        "seed": teacher.seed,
    }
    labels = PseudoLabels(faces, request)

    def share() -> Iterator[None]:
        """The chunks of this process that are not there yet, batch by batch."""
        for first in range(processes.rank * CHUNK, len(faces), processes.world_size * CHUNK):
            rows = range(first, min(first + CHUNK, len(faces)))
            if not labels.hold(rows):
                found = []
                for batch in teacher.label(faces, rows):
                    found.append(batch)
                    yield
                labels.write(rows, Estimate(*map(np.concatenate, zip(*found, strict=True))))
            yield

    stopped = f"stopped on request while faces were labelled; the same command resumes from {faces.folder}"
    with StopRequest(alone=processes.world_size == 1) as stop:
        in_step(share(), processes, stop, stopped)
    return labels


def weights_digest(net: LandmarkNet) -> str:
    """SHA-256 of all weights of a network, hexadecimal."""
    digest = hashlib.sha256()
    for name, values in net.state_dict().items():
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_table(labels: PseudoLabels, path: str | Path) -> None:
    """Write every pseudo-label as a row of a CSV file.

    Columns: ``image`` (what the photo was called; bytes that are no UTF-8 stay as they are), ``face`` (its name),
    ``x0 y0 x1 y1`` (tight box of the points), ``score`` of the face, and ``x_n y_n score_n`` of each point.
    Coordinates are pixels of the upright photo.
    """
    faces = labels.faces
    head = ["image", "face", "x0", "y0", "x1", "y1", "score"]
    head += [f"{name}_{n}" for n in range(len(labels[0].points)) for name in ("x", "y", "score")]
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(head)
        for index in range(len(labels)):
            label = labels[index]
            image, points = faces.in_photo(index, label.points.astype(np.float64))
            each = np.column_stack([points, label.scores]).ravel()
            numbers = [*(f"{value:.2f}" for value in tight_box(points)), f"{label.face_score:.3f}"]
            writer.writerow([image, faces.name(index), *numbers, *(f"{value:.3f}" for value in each)])


def write_contact_sheet(labels: PseudoLabels, path: str | Path, count: int = 48) -> None:
    """Draw ``count`` faces with their points, evenly chosen from the highest score to the lowest.

    The surest points are green, then yellow, orange and red (score below 1/4). Under each face stands its score.
    """
    sure = labels.face_scores
    order = np.argsort(-sure, kind="stable")
    chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)].tolist()
    tiles = []
    for index in chosen:
        points = labels[index].points.astype(np.float64)
        step = np.minimum((labels[index].scores * len(_COLORS)).astype(int), len(_COLORS) - 1)  # (N,)
        layers = [(np.where(step[:, None] == number, points, np.nan), color) for number, color in enumerate(_COLORS)]
        (top, color), below = layers[0], layers[1:]
        image, box = labels.faces.image(index), tight_box(points)
        tiles.append(face_tile(image, top, box=box, size=_TILE, color=color, others=below))
    sheet = contact_sheet(tiles, captions=[f"{sure[index]:.2f}" for index in chosen])
    write_image(Path(path), sheet)
