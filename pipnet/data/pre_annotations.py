"""Labels that people made by correcting what pipnet wrote for them, and how these are told from mistakes.

``python -m pipnet.self_train --export-for-labelling`` writes :data:`PRE_ANNOTATIONS` beside the photos, for CVAT and
Label Studio. Both count pixels from the corner of the photo: the centre of the first pixel is 0.5, 0.5 there, and 0, 0
in pipnet.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from pipnet.data.images import BadSampleError
from pipnet.data.sample import Validation, wanted_keys
from pipnet.files import read_text
from pipnet.layouts import PointLayout

PRE_ANNOTATIONS = "person_keypoints_default.json"  # as CVAT calls the COCO keypoints of a task without subsets
MARK = "pipnet_export"  # key of ``info`` that tells such a file from one that CVAT has written
FIRST_PIXEL = 0.5  # where both tools have its centre

_MOVED = 0.05  # px; CVAT keeps two decimals, Label Studio percent
_SWAPPED = 0.5  # points are on the wrong side if that makes the way they were moved at least so much shorter
_log = logging.getLogger(__name__)


class PreAnnotations:
    """What the network said of photos before people corrected it; one face a photo.

    Args:
        content: Of the file.
        path: Of the file, for messages.
        layout: What the points mean.

    Raises:
        ValueError: The file is damaged, or of another layout.
    """

    def __init__(self, content: dict[str, Any], path: Path, layout: PointLayout) -> None:
        self.path, self._layout = path, layout
        self._unmoved: dict[str, int] = {}  # photos that were read, and how many of their points are as they were
        self._foreign: set[str] = set()
        try:
            names = {image["id"]: Path(image["file_name"]).name for image in content["images"]}
            self._held_out = {Path(image["file_name"]).stem for image in content["images"] if image["validation"]}
            order = [content["categories"][0]["keypoints"].index(name) for name in layout.names]
            self._points = {
                names[face["image_id"]]: np.array(face["keypoints"], np.float64).reshape(-1, 3)[order, :2]
                for face in content["annotations"]
            }
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(
                f"{path} is damaged, or its points are not those of layout {layout.name}; export it again"
            ) from error

    def part(self, stems: Iterable[str], validation: Validation) -> set[str]:
        """As :func:`pipnet.data.sample.wanted_keys`, but the photos chosen at random are those that validate."""
        stems = set(stems)
        held_out = self._held_out & stems
        if not held_out or held_out == stems:  # of a few photos that are labelled already
            return wanted_keys(stems, validation)
        return {"include": stems, "only": held_out, "exclude": stems - held_out}[validation]

    def corrected(self, photo: str, points: np.ndarray, where: str) -> np.ndarray:
        """Labels of a photo as pipnet counts pixels.

        Args:
            photo: Its name, with or without folders.
            points: ``(N, 2)``, pixels as the tools count them, in the layout's order; NaN where not labelled.
            where: What a message calls the face.

        Raises:
            BadSampleError: A part of the face has left and right exchanged.
        """
        before = self._points.get(Path(photo.replace("\\", "/")).name)
        if before is None:
            self._foreign.add(photo)
            return points
        self._check_sides(before, points, where)
        self._unmoved[photo] = int((np.abs(points - before).max(axis=1) < _MOVED).sum())
        return points - FIRST_PIXEL

    def _check_sides(self, before: np.ndarray, points: np.ndarray, where: str) -> None:
        mirror = np.array(self._layout.mirror)
        parts = self._layout.parts() or {"face": list(range(self._layout.num_points))}
        for part, indices in parts.items():
            paired = np.array([i for i in indices if mirror[i] != i and np.isfinite(points[[i, mirror[i]]]).all()], int)
            moved, crossed = (np.linalg.norm(points[paired] - before[to], axis=1) for to in (paired, mirror[paired]))
            if len(paired) and (crossed < moved).all() and crossed.sum() < _SWAPPED * moved.sum():
                raise BadSampleError(
                    f"{where}: left and right are exchanged in the part {part!r}: each of its points lies where its"
                    f" partner was, e.g. {self._layout.names[paired[0]]}; left is the picture's; correct it"
                )

    def report(self) -> None:
        """Log what was read: how much was left as the network had it, and photos that were never exported."""
        count, points = len(self._unmoved), self._layout.num_points
        if count:
            as_it_was = sorted(photo for photo, unmoved in self._unmoved.items() if unmoved == points)
            share = sum(self._unmoved.values()) / (count * points)
            _log.info("%d corrected faces; %.0f %% of the points were never moved", count, 100 * share)
            if as_it_was:
                _log.warning("no point was moved in %d of %d faces: %s", len(as_it_was), count, _some(as_it_was))
        if self._foreign:
            _log.warning(
                "%d photos are not in %s, so their pixels are taken as 0-based: %s",
                len(self._foreign), self.path, _some(sorted(self._foreign)),
            )  # fmt: skip


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def read_pre_annotations(path: Path, layout: PointLayout) -> PreAnnotations | None:
    """The export that labels were made from, or None where there is none; errors as :class:`PreAnnotations`."""
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, RecursionError):
        return None  # not ours; the reader says so, if it is what is to be read
    info = content.get("info") if isinstance(content, dict) else None
    return PreAnnotations(content, path, layout) if isinstance(info, dict) and MARK in info else None


def coco_of_label_studio(tasks: list[Any], path: Path, layout: PointLayout) -> dict[str, Any]:
    """Label Studio's own JSON export as COCO keypoints, still in its pixels.

    Of each task the newest annotation that was not cancelled counts, one face a task; a point that was deleted is not
    labelled. Tasks without an annotation are skipped and counted.

    Raises:
        ValueError: It is another JSON, or a task has a point twice or an unknown one.
    """
    images, annotations, empty = [], [], 0
    number = {name: index for index, name in enumerate(layout.names)}
    for task in tasks:
        try:
            photo = _photo_of(task["data"]["image"])
            done = [one for one in task["annotations"] if not one.get("was_cancelled")]
            last = max(done, key=lambda one: str(one.get("updated_at", "")), default={"result": []})
            results = [one for one in last["result"] if one.get("type") == "keypointlabels"]
            keypoints, sizes = np.zeros((layout.num_points, 3)), set()
            for one in results:
                (name,), size = one["value"]["keypointlabels"], (one["original_width"], one["original_height"])
                if name not in number:
                    raise ValueError(f"{path}, {photo}: layout {layout.name} has no point {name!r}")
                if keypoints[number[name], 2]:
                    raise ValueError(f"{path}, {photo}: point {name} stands twice; a photo has one face here")
                place = np.array([one["value"]["x"], one["value"]["y"]]) / 100 * size
                keypoints[number[name]] = *place, 2
                sizes.add(size)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path}: not COCO keypoints, nor Label Studio's JSON (not JSON-MIN) with keypoints and an image;"
                " export it as JSON"
            ) from error
        if not results:
            empty += 1
            continue
        (width, height), identity = next(iter(sizes)), len(images) + 1
        images.append({"id": identity, "file_name": photo, "width": width, "height": height})
        face = {"id": identity, "image_id": identity, "category_id": 1, "keypoints": keypoints.ravel().tolist()}
        annotations.append(face)
    if empty:
        _log.warning("%s: %d of %d tasks have no label yet and are skipped", path, empty, len(tasks))
    category = {"id": 1, "name": "face", "keypoints": list(layout.names)}
    return {"images": images, "annotations": annotations, "categories": [category]}


def _photo_of(address: str) -> str:
    """The name of a photo that Label Studio serves: ``/data/local-files/?d=images/a.jpg`` is ``a.jpg``."""
    name = unquote(address).replace("\\", "/").rpartition("?d=")[2].rpartition("/")[2]
    return re.sub(r"^[0-9a-f]{8}-", "", name)  # which it puts before the name of a photo that was uploaded
