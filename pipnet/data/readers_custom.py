"""Readers of a user's own set: a folder of photos with a CSV file or a COCO-keypoints JSON file."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.data.images import BadSampleError, header_size, image_size
from pipnet.data.pre_annotations import PRE_ANNOTATIONS, coco_of_label_studio, read_pre_annotations
from pipnet.data.sample import BadItems, Sample, Validation, check_options, require, sample_at, wanted_keys
from pipnet.files import csv_rows, read_text
from pipnet.layouts import PointLayout

_Object = dict[str, Any]  # of JSON
_log = logging.getLogger(__name__)

_BOX_COLUMNS = ("box_x0", "box_y0", "box_x1", "box_y1")
_OPTIONAL_COLUMNS = ("name", "subset", *_BOX_COLUMNS)


def read_csv(
    root: Path,
    layout: PointLayout,
    bad: BadItems,
    *,
    file: str = "labels.csv",
    images: str = ".",
    validation: Validation = "include",
    exported: str = PRE_ANNOTATIONS,
) -> list[Sample]:
    """Your own set as a CSV file, one line a face, with a header: UTF-8 or UTF-16, with commas, semicolons or tabs.

    Columns, in any order: ``image`` (path of the photo), ``x0, y0, x1, y1, ...`` to the last point of the layout
    (pixels, 0-based pixel centres; both cells of a point empty = not labelled); optional ``name`` (unique; default: the
    image column, with ``#2`` for a photo's second face), ``subset`` (names, ``;`` between them), and the four columns
    ``box_x0, box_y0, box_x1, box_y1`` (default, also where all four cells are empty: the tight box of the points).

    Args:
        file: The CSV file, relative to ``root``.
        images: Folder that the image column is relative to, relative to ``root``.
        validation: As elsewhere, but picked by :func:`~pipnet.data.sample.wanted_keys`: a validation part without a
            file of its own.
        exported: What ``--export-for-labelling`` of self-training wrote, relative to ``root``. Where it is there, the
            photos that it chose at random validate.
    """
    check_options(validation=validation)
    path = require(root / file, "a CSV file with the columns image,x0,y0,x1,y1,...")
    coordinates = [f"{axis}{point}" for point in range(layout.num_points) for axis in "xy"]
    table = csv_rows(read_text(path))
    _, header = next(table)
    if isinstance(header, str):
        raise ValueError(f"{path}, line 1: {header}")
    columns = [cell.strip() for cell in header]
    _check_header(path, columns, coordinates, layout)
    names: set[str] = set()

    def read(item: tuple[str, dict[str, str] | str, str]) -> Sample:
        where, row, default_name = item
        if isinstance(row, str):
            raise BadSampleError(f"{where}: {row}")
        name = (row.get("name") or "").strip() or default_name
        if name in names:
            raise BadSampleError(f"{where}: the name {name!r} stands on an earlier line too; names are unique")
        image = _photo(root, images, row["image"].strip())
        if not row["image"].strip() or not image.is_file():
            raise BadSampleError(f"{where}: no photo {image}; correct the image column or put the photo there")
        points = np.array([_cell(row, column, where) for column in coordinates]).reshape(-1, 2)
        _check_labelled(points, where)
        box = np.array([_cell(row, column, where) for column in _BOX_COLUMNS if column in row])
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

    rows = []
    faces_of: Counter[str] = Counter()
    for number, cells in table:
        if isinstance(cells, str):  # what is wrong with the line
            row = cells
        elif len(cells) != len(columns):
            row = "the line has not as many cells as the header; correct or delete it"
        else:
            row = dict(zip(columns, cells, strict=True))
        photo = row["image"].strip() if isinstance(row, dict) else ""
        faces_of[photo] += 1  # counted before anything is skipped: names stay the same
        default_name = photo if faces_of[photo] == 1 else f"{photo}#{faces_of[photo]}"
        rows.append((f"{path}, line {number}", row, default_name, Path(photo).stem))
    before = read_pre_annotations(root / exported, layout)
    part = wanted_keys if before is None else before.part
    wanted = part((stem for *_, row, _, stem in rows if isinstance(row, dict)), validation)
    # A line without a photo is on both sides of the validation split: it is said wherever the file is read.
    return list(bad.collect([row[:3] for row in rows if isinstance(row[1], str) or row[3] in wanted], read))


def _photo(root: Path, images: str, name: str) -> Path:
    """Where a photo lies whose name is seen from the folder of images, or, as some programs write it, from the root."""
    below = [folder / spelt for spelt in (name, name.replace("\\", "/")) for folder in (root / images, root)]
    return next((path for path in below if name and path.is_file()), below[0])


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
    boxes = [column for column in _BOX_COLUMNS if column in header]
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
        comma = ", a decimal comma must be a point" if "," in text else ""
        raise BadSampleError(
            f"{where}, column {column}: {text!r} is not a number{comma}; correct it or leave the cell empty"
        )
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
    category: str | None = None,
    exported: str = PRE_ANNOTATIONS,
) -> list[Sample]:
    """Your own set as COCO-keypoints JSON: ``images`` (id, file_name) and ``annotations`` (image_id, keypoints, bbox).

    Keypoints are ``x, y, v`` for each point of the layout, flat or as triples, in pixels, taken as 0-based: v = 0 is
    not labelled, 1 hidden (``occluded``), 2 visible. Where ``categories`` has the names of the layout's points in
    another order, points are put in the layout's, and a warning says so. Names are the photo's path and the
    annotation's id, ``a.jpg#17``. Label Studio's own JSON is read as well, one face a task.

    Args:
        file: The JSON file, relative to ``root``.
        images: Folder that file names are relative to, relative to ``root``.
        validation: As in :func:`read_csv`.
        box: ``points`` for the tight box of the points, ``rectangle`` for ``bbox`` (x, y, width, height).
        category: Name of the category that is read; None takes the only one, or the one that has the layout's names,
            or the one called face. How many annotations of others there are is logged.
        exported: What ``--export-for-labelling`` of self-training wrote, relative to ``root``. Where it is there, its
            photos are matched by their names: those that it chose at random validate, pixels are taken as CVAT and
            Label Studio count them, faces with left and right exchanged are bad items, and how many points were never
            moved is logged.
    """
    check_options(box=box, validation=validation)
    path = require(root / file, "a COCO-keypoints JSON file with images and annotations")
    photos, annotations, categories = _load_coco(path, layout)
    before = read_pre_annotations(root / exported, layout)
    orders = _face_categories(path, categories, layout, category)
    names: set[str] = set()
    others: Counter[str] = Counter()

    items: list[tuple[str, _Object, str]] = []
    for position, annotation in enumerate(annotations, start=1):
        where = f"{path}, annotation {annotation.get('id', f'number {position}')}"
        kind = _plain(annotation.get("category_id"))
        if kind in categories and kind not in orders:
            others[str(categories[kind].get("name"))] += 1
        elif categories and kind not in orders and (kind is not None or len(categories) > 1):
            number = annotation.get("category_id")
            bad.add(f"{where}: category_id {number!r} is not in categories; correct it or delete the annotation")
        else:
            items.append((where, annotation, str(annotation.get("id", position))))

    def read(item: tuple[str, _Object, str]) -> Sample:
        where, annotation, number = item
        photo = _coco_photo(photos, annotation, where)
        image = _photo(root, images, photo["file_name"])
        if not image.is_file():
            raise BadSampleError(f"{where}: no photo {image}; put it there or delete the annotation")
        if number in names:
            raise BadSampleError(f"{where}: the id stands on an earlier annotation too; number the annotations anew")
        _check_size(photo, image, where)
        points, visibility = _coco_points(annotation, layout, where)
        order = orders.get(_plain(annotation.get("category_id")), next(iter(orders.values()), slice(None)))
        points = points[order] if before is None else before.corrected(photo["file_name"], points[order], where)
        sample = sample_at(
            where,
            image=image,
            points=points,
            name=f"{photo['file_name']}#{number}",
            box=_coco_box(annotation, where) if box == "rectangle" else None,
            occluded=visibility[order] == 1,
        )
        names.add(number)
        return sample

    if others:
        counts = ", ".join(f"{count} of {name}" for name, count in others.items())
        taken = ", ".join(str(categories[kind].get("name")) for kind in orders)
        _log.warning("%s: annotations of other categories than %s are left aside: %s", path, taken, counts)
    ids = [_plain(annotation.get("image_id")) for _, annotation, _ in items]
    stem_of = {kind: Path(photos[kind][0]["file_name"]).stem for kind in ids if kind in photos}
    wanted = (wanted_keys if before is None else before.part)(stem_of.values(), validation) | {None}
    # An annotation without a photo is on both sides of the validation split: it is said wherever the file is read.
    chosen = [item for item, kind in zip(items, ids, strict=True) if stem_of.get(kind) in wanted]
    samples = list(bad.collect(chosen, read))
    if before is not None:
        before.report()
    return samples


def _plain(value: Any) -> Any:
    """An id, or None where it is none: a list or an object could not be looked up."""
    return value if isinstance(value, int | str | float) else None


def _load_coco(path: Path, layout: PointLayout) -> tuple[dict[Any, list[_Object]], list[_Object], dict[Any, _Object]]:
    """Photos by id, of which there should be one, annotations, and categories by id."""
    try:
        read: Any = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error}); export it again") from error
    except RecursionError as error:
        raise ValueError(f"{path}: not COCO keypoints, but brackets in brackets; export it again") from error
    content: Any = coco_of_label_studio(read, path, layout) if isinstance(read, list) and read else read
    photos: dict[Any, list[_Object]] = {}
    try:
        for image in content["images"]:
            there = photos.setdefault(image["id"], [])
            photo = {**image, "file_name": str(image["file_name"])}
            if photo not in there:  # the same photo twice contradicts nothing
                there.append(photo)
        annotations = content["annotations"]
        categories = {}
        for category in content.get("categories") or ():
            if categories.setdefault(category["id"], category) != category:
                raise ValueError(f"{path}: category id {category['id']!r} stands twice; number the categories anew")
        if not all(isinstance(item, dict) for item in (*annotations, *categories.values())):
            raise TypeError
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not COCO keypoints; needs 'images', each with id and file_name, and 'annotations', each with "
            "image_id and keypoints"
        ) from error
    return photos, annotations, categories


def _face_categories(
    path: Path, categories: dict[Any, _Object], layout: PointLayout, name: str | None
) -> dict[Any, list[int]]:
    """Categories that are faces: id to the places of the layout's points among theirs."""
    orders, wanted = {}, list(layout.names)
    for kind in _chosen(path, categories, layout, name):
        names = _keypoints(categories[kind])
        orders[kind] = list(range(layout.num_points))
        if names and names != wanted and sorted(names) == sorted(wanted):
            orders[kind] = places = [names.index(point) for point in wanted]
            moved = ", ".join(f"{wanted[new]} {new} from {old}" for new, old in enumerate(places))
            _log.warning(
                "%s: points stand in another order than in layout %s, read by name: %s", path, layout.name, moved
            )
        elif names and names != wanted and layout.is_named:
            other = next((point for point in names if point not in wanted), None) or "too few, or one twice"
            raise ValueError(
                f"{path}: its keypoints are called {', '.join(names[:6])}{', …' if len(names) > 6 else ''}, and layout"
                f" {layout.name} has other names ({other}: not in it); give both the same names"
            )
    return orders


def _chosen(path: Path, categories: dict[Any, _Object], layout: PointLayout, name: str | None) -> list[Any]:
    if name is None and len(categories) < 2:
        return list(categories)
    named = [kind for kind, category in categories.items() if str(category.get("name")) == (name or "face")]
    fitting = [kind for kind, category in categories.items() if sorted(_keypoints(category)) == sorted(layout.names)]
    chosen = named if name is not None else fitting or named
    if not chosen:
        there = ", ".join(str(category.get("name")) for category in categories.values()) or "none"
        raise ValueError(
            f"{path}: which category are the faces? There are: {there}; set category: NAME in the dataset's splits"
        )
    return chosen


def _keypoints(category: _Object) -> list[str]:
    names = category.get("keypoints")
    return [str(name) for name in names] if isinstance(names, list) else []


def _coco_photo(photos: dict[Any, list[_Object]], annotation: _Object, where: str) -> _Object:
    there = photos.get(_plain(annotation.get("image_id")), [])
    if len(there) > 1:
        named = " and ".join(photo["file_name"] for photo in there[:2])
        raise BadSampleError(
            f"{where}: image_id {annotation['image_id']!r} stands twice in images, for {named}; number the images anew"
        )
    if not there:
        raise BadSampleError(
            f"{where}: image_id {annotation.get('image_id')!r} is not in images; add the image or delete the annotation"
        )
    return there[0]


def _check_size(photo: _Object, image: Path, where: str) -> None:
    """Stop where the file says another size than the photo has: its points count in other pixels."""
    said = photo.get("width"), photo.get("height")
    if not all(isinstance(side, int | float) and side > 0 for side in said):
        return
    try:
        size = image_size(image)
    except BadSampleError:
        return  # whoever decodes the photo will say so
    if said == size:
        return
    begin = f"{where}: images says {said[0]} x {said[1]}, {image} has {size[0]} x {size[1]} px"
    if said == size[::-1] and header_size(image)[0] == said:
        raise BadSampleError(
            f"{begin} when its EXIF orientation has turned it upright: the labels count in the unturned pixels; turn"
            " them, or remove the orientation from the photo"
        )
    raise BadSampleError(
        f"{begin}: resized or replaced after labelling? Put the labelled photo back, or scale the labels and correct"
        " width and height"
    )


def _coco_points(annotation: _Object, layout: PointLayout, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Points ``(N, 2)``, NaN where not labelled, and visibility ``(N,)``."""
    n = layout.num_points
    try:
        values = np.array(annotation.get("keypoints", ()), dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise BadSampleError(f"{where}: its keypoints are not all numbers; correct or delete it") from None
    if values.shape not in ((3 * n,), (n, 3)) or not np.isfinite(values).all():
        raise BadSampleError(
            f"{where}: keypoints must be {3 * n} finite numbers (x, y, v of {n} points), got {values.size}; correct or"
            " delete it"
        )
    x, y, visibility = values.reshape(-1, 3).T
    if not np.isin(visibility, (0, 1, 2)).all():
        raise BadSampleError(f"{where}: visibility must be 0, 1 or 2; correct or delete it")
    points = np.where(visibility[:, None] > 0, np.column_stack([x, y]), np.nan)
    _check_labelled(points, where)
    return points, visibility


def _coco_box(annotation: _Object, where: str) -> np.ndarray:
    bbox: Any = annotation.get("bbox")
    try:
        x, y, width, height = map(float, bbox)
    except (TypeError, ValueError):
        raise BadSampleError(
            f"{where}: bbox {bbox!r} is not x, y, width, height; correct it or use box=points"
        ) from None
    return np.array([x, y, x + width, y + height])
