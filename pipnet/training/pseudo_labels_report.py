"""Pseudo-labels for the eye: a table of all of them, and a contact sheet from the surest faces to the least sure."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from pipnet.atomic import replacing
from pipnet.data.images import read_image, write_image
from pipnet.data.report import Color, contact_sheet, face_tile
from pipnet.geometry import tight_box
from pipnet.training.pseudo_labels import PseudoLabels

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
