"""Readers of a user's own set: a folder of photos with a CSV file or a COCO-keypoints JSON file."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.data.sample import BadItems, BadSampleError, Sample
from pipnet.data.splits import Validation, check_choice, check_validation, is_wanted, require, sample_at
from pipnet.layouts import PointLayout

_OPTIONAL_COLUMNS = ("name", "subset", "box_x0", "box_y0", "box_x1", "box_y1")
_VISIBILITY = (0, 1, 2)  # COCO: not labelled, labelled but hidden, labelled and visible


def read_csv(
    root: Path,
    layout: PointLayout,
    bad: BadItems,
    *,
    file: str = "labels.csv",
    images: str = ".",
    validation: Validation = "include",
) -> list[Sample]:
    """Your own set as a CSV file, one line a face, comma-separated, UTF-8, with a header.

    Columns, in any order: ``image`` (path of the photo), ``x0, y0, x1, y1, ...`` to the last point of the layout
    (pixels, 0-based pixel centres; both cells of a point empty = not labelled); optional ``name`` (unique; default: the
    image column, with ``#2`` for a photo's second face), ``subset`` (names, ``;`` between them), and the four columns
    ``box_x0, box_y0, box_x1, box_y1`` (default, also where all four cells are empty: the tight box of the points).

    Args:
        root: Folder of the set.
        layout: Says how many points a line has.
        bad: Takes the lines that can't be used.
        file: The CSV file, relative to ``root``.
        images: Folder that the image column is relative to, relative to ``root``.
        validation: Leave out, keep only or keep the faces that :func:`~pipnet.data.splits.in_validation` picks by the
            stem of the photo: a validation part without a file of its own.

    Raises:
        FileNotFoundError: The CSV file is missing.
        ValueError: The header lacks a column or has one that isn't known; the message names it.
        BadSampleError: A bad line under ``on_bad="raise"``.
    """
    check_validation(validation)
    path = require(root / file, "a CSV file with the columns image,x0,y0,x1,y1,...")
    coordinates = [f"{axis}{point}" for point in range(layout.num_points) for axis in "xy"]
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, restkey="too many cells")
        _check_header(path, list(reader.fieldnames or ()), coordinates, layout)
        rows = [(reader.line_num, row) for row in reader]
    faces_of: dict[str, int] = {}
    names: set[str] = set()

    def read(item: tuple[str, dict[str, str], str]) -> Sample:
        where, row, default_name = item
        if "too many cells" in row or None in row.values():
            raise BadSampleError(f"{where}: the line has not as many cells as the header; correct or delete it")
        name = (row.get("name") or "").strip() or default_name
        if name in names:
            raise BadSampleError(f"{where}: the name {name!r} stands on an earlier line too; names are unique")
        image = root / images / row["image"].strip()
        if not row["image"].strip() or not image.is_file():
            raise BadSampleError(f"{where}: no photo {image}; correct the image column or put the photo there")
        points = np.array([_cell(row, column, where) for column in coordinates]).reshape(-1, 2)
        _check_labelled(points, where)
        box = np.array([_cell(row, column, where) for column in _OPTIONAL_COLUMNS[2:] if column in row])
        if np.isnan(box).any() and not np.isnan(box).all():
            raise BadSampleError(f"{where}: some of the four box cells are empty; fill all or none")
        sample = sample_at(
            where,
            image=image,
            points=points,
            name=name,
            subsets=tuple(part.strip() for part in (row.get("subset") or "").split(";") if part.strip()),
            box=box if box.size and not np.isnan(box).any() else None,
        )
        names.add(name)
        return sample

    items = []
    for number, row in rows:
        photo = (row["image"] or "").strip()
        faces_of[photo] = faces_of.get(photo, 0) + 1  # counted before anything is left out: names stay the same
        if is_wanted(Path(photo).stem, validation):
            default_name = photo if faces_of[photo] == 1 else f"{photo}#{faces_of[photo]}"
            items.append((f"{path}, line {number}", row, default_name))
    return list(bad.collect(items, read))


def _check_header(path: Path, header: Sequence[str], coordinates: Sequence[str], layout: PointLayout) -> None:
    expected = f"layout {layout.name!r} needs image,x0,y0,...,{coordinates[-2]},{coordinates[-1]}"
    for column in ("image", *coordinates):
        if column not in header:
            raise ValueError(f"{path}, line 1: the header has no column {column!r}; {expected}")
    for column in header:
        if column not in {"image", *coordinates, *_OPTIONAL_COLUMNS}:
            optional = ", ".join(_OPTIONAL_COLUMNS)
            raise ValueError(f"{path}, line 1: column {column!r} is not known; {expected}; optional: {optional}")
    if len(set(header)) != len(header):
        raise ValueError(f"{path}, line 1: a column stands twice in the header; {expected}")
    boxes = [column for column in _OPTIONAL_COLUMNS[2:] if column in header]
    if len(boxes) not in (0, 4):
        raise ValueError(f"{path}, line 1: a box needs four columns, the header has only {', '.join(boxes)}")


def _cell(row: dict[str, str], column: str, where: str) -> float:
    """A cell as a number; an empty one is NaN."""
    text = row[column].strip()
    if not text:
        return np.nan
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise BadSampleError(f"{where}, column {column}: {text!r} is not a number; correct it or leave the cell empty")
    return value


def _check_labelled(points: np.ndarray, where: str) -> None:
    empty = np.isnan(points)
    half = np.flatnonzero(empty[:, 0] != empty[:, 1])
    if half.size:
        raise BadSampleError(f"{where}: point {half[0]} has only one coordinate; give both or leave both empty")
    if empty.all():
        raise BadSampleError(f"{where}: no point is labelled; leave the face out")


def read_coco(
    root: Path,
    layout: PointLayout,
    bad: BadItems,
    *,
    file: str = "annotations.json",
    images: str = "images",
    validation: Validation = "include",
    box: str = "points",
) -> list[Sample]:
    """Your own set as COCO-keypoints JSON: ``images`` (id, file_name) and ``annotations`` (image_id, keypoints, bbox).

    Keypoints are ``x, y, v`` for each point of the layout, in pixels, taken as 0-based: v = 0 is not labelled, 1 hidden
    (``occluded``), 2 visible. Names are the photo's path and the annotation's id, ``a.jpg#17``.

    Args:
        root: Folder of the set.
        layout: Says how many points an annotation has.
        bad: Takes the annotations that can't be used (without a labelled point, too).
        file: The JSON file, relative to ``root``.
        images: Folder that file names are relative to, relative to ``root``.
        validation: As in :func:`read_csv`.
        box: ``points`` for the tight box of the points, ``rectangle`` for ``bbox`` (x, y, width, height).

    Raises:
        FileNotFoundError: The JSON file is missing.
        ValueError: The file isn't JSON, or not COCO's; the message names the place.
        BadSampleError: A bad annotation under ``on_bad="raise"``.
    """
    check_choice("box", box, ("points", "rectangle"))
    check_validation(validation)
    path = require(root / file, "a COCO-keypoints JSON file with images and annotations")
    photos, annotations = _load_coco(path)

    def read(item: tuple[int, dict[str, Any]]) -> Sample:
        position, annotation = item
        where = f"{path}, annotation {annotation.get('id', f'number {position + 1}')}"
        image = root / images / photos[annotation["image_id"]]
        if not image.is_file():
            raise BadSampleError(f"{where}: no photo {image}; put it there or delete the annotation")
        try:
            values = np.array(annotation.get("keypoints", ()), dtype=np.float64)
        except (TypeError, ValueError):
            raise BadSampleError(f"{where}: its keypoints are not all numbers; correct or delete it") from None
        if values.shape != (3 * layout.num_points,) or not np.isfinite(values).all():
            raise BadSampleError(
                f"{where}: keypoints must be {3 * layout.num_points} finite numbers (x, y, v of {layout.num_points} "
                f"points), got {values.size}; correct or delete it"
            )
        x, y, visibility = values.reshape(-1, 3).T
        if not np.isin(visibility, _VISIBILITY).all():
            raise BadSampleError(f"{where}: visibility must be 0, 1 or 2; correct or delete it")
        points = np.where(visibility[:, None] > 0, np.column_stack([x, y]), np.nan)
        _check_labelled(points, where)
        return sample_at(
            where,
            image=image,
            points=points,
            name=f"{photos[annotation['image_id']]}#{annotation.get('id', position + 1)}",
            box=_coco_box(annotation, where) if box == "rectangle" else None,
            occluded=visibility == 1,
        )

    def find_photo(item: tuple[int, dict[str, Any]]) -> bool:
        position, annotation = item
        if annotation.get("image_id") in photos:
            return is_wanted(Path(photos[annotation["image_id"]]).stem, validation)
        bad.add(
            f"{path}, annotation {annotation.get('id', f'number {position + 1}')}: "
            f"image_id {annotation.get('image_id')!r} is not in images; add the image or delete the annotation"
        )
        return False

    return list(bad.collect(filter(find_photo, enumerate(annotations)), read))


def _load_coco(path: Path) -> tuple[dict[Any, str], list[dict[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error}); export it again") from error
    try:
        photos = {image["id"]: str(image["file_name"]) for image in content["images"]}
        annotations = content["annotations"]
        if not all(isinstance(annotation, dict) for annotation in annotations):
            raise TypeError
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not COCO keypoints; needs 'images', each with id and file_name, and 'annotations', each with "
            "image_id and keypoints"
        ) from error
    return photos, annotations


def _coco_box(annotation: dict[str, Any], where: str) -> np.ndarray:
    bbox = annotation.get("bbox")
    try:
        x, y, width, height = (float(value) for value in bbox)
    except (TypeError, ValueError):
        raise BadSampleError(
            f"{where}: bbox {bbox!r} is not x, y, width, height; correct it or use box=points"
        ) from None
    return np.array([x, y, x + width, y + height])
