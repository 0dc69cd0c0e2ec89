"""Landmarks in forms that other programs read: flat rows for tables, COCO keypoints, iBUG's ``.pts``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pipnet.files import replacing
from pipnet.layouts import PointLayout

_BOX = ("box_x0", "box_y0", "box_x1", "box_y1")


def row_columns(layout: PointLayout, given: Sequence[str] = ()) -> list[str]:
    """Columns of :meth:`pipnet.landmarks.FaceLandmarks.to_rows`, in order: a table's header, also of one without faces.

    ``given`` says which of ``source``, ``frame`` and ``time_s`` the rows have.

    Example:
        >>> from pipnet.layouts import get_layout
        >>> row_columns(get_layout("300w_68"), ["time_s"])[:12]
        ['time_s', 'face', 'id', 'score', 'box_x0', 'box_y0', 'box_x1', 'box_y1', 'angle', 'x_0', 'y_0', 's_0']
    """
    first = [name for name in ("source", "frame", "time_s") if name in given]
    points = [f"{what}_{point}" for point in range(layout.num_points) for what in "xys"]
    return [*first, "face", "id", "score", *_BOX, "angle", *points]


def coco_category(layout: PointLayout) -> dict[str, Any]:
    """COCO's description of a layout: names of the points, and the lines between them (counted from 1, as COCO does).

    Example:
        >>> from pipnet.layouts import get_layout
        >>> category = coco_category(get_layout("300w_68"))
        >>> category["keypoints"][36], category["skeleton"][0]
        ('left_eye_0', [1, 2])
    """
    lines: list[list[int]] = []
    for group in layout.groups:
        around = [*group.indices, group.indices[0]] if group.closed else group.indices
        lines += [[a + 1, b + 1] for a, b in pairwise(around)]
    return {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": list(layout.names),
        "skeleton": lines,
    }


def merge_coco(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The documents of many photos as one; images and annotations are numbered anew, from 1.

    Args:
        documents: What :meth:`pipnet.landmarks.FaceLandmarks.to_coco` gives, all of one layout. Documents with the same
            file name add faces to the same photo.

    Raises:
        ValueError: No document, two layouts, or one photo in two sizes; the message names it.
    """
    images: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    categories: list[dict[str, Any]] | None = None
    for document in documents:
        if categories is None:
            categories = document["categories"]
        elif document["categories"] != categories:
            name = document["images"][0]["file_name"] if document["images"] else "a document"
            raise ValueError(f"{name} has other keypoints than the photos before it; merge one layout at a time")
        new_id = {}
        for image in document["images"]:
            name = image["file_name"]
            known = images.setdefault(name, {**image, "id": len(images) + 1})
            if (known["width"], known["height"]) != (image["width"], image["height"]):
                raise ValueError(
                    f"{name} comes with two sizes, {known['width']} x {known['height']} and {image['width']} x"
                    f" {image['height']}; give every photo a name of its own"
                )
            new_id[image["id"]] = known["id"]
        for annotation in document["annotations"]:
            annotations.append({**annotation, "id": len(annotations) + 1, "image_id": new_id[annotation["image_id"]]})
    if categories is None:
        raise ValueError("no documents to merge; give at least one photo's to_coco()")
    return {"images": list(images.values()), "annotations": annotations, "categories": categories}


def write_coco(path: str | Path, documents: Iterable[dict[str, Any]]) -> None:
    """Write the documents of many photos as one COCO keypoints file, whole or not at all.

    It reads back with ``read_coco`` of :mod:`pipnet.data.readers_custom`.

    Raises:
        ValueError: See :func:`merge_coco`.
        OSError: The file can't be written; the message names it.
    """
    content = merge_coco(documents)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


def write_pts(path: str | Path, points: np.ndarray) -> None:
    """Write the points ``(N, 2)`` of one face, 0-based, as iBUG's 1-based ``.pts``, whole or not at all.

    Raises:
        ValueError: A point is not finite; the format has no way to leave one out.
        OSError: The file can't be written; the message names it.
    """
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise ValueError(f"{path}: point {bad[0]} is not finite, and .pts files can't leave a point out")
    lines = [f"{x:.3f} {y:.3f}" for x, y in (np.asarray(points, dtype=np.float64) + 1.0).tolist()]
    text = "\n".join(["version: 1", f"n_points: {len(lines)}", "{", *lines, "}"])
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def rounded(values: ArrayLike) -> Any[Any]:
    """Plain numbers with three decimals: a thousandth of a pixel, and a tenth of the file."""
    return np.round(np.asarray(values, dtype=np.float64), 3).tolist()
