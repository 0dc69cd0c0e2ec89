"""Readers of the sets whose labels are text files: 300W (one ``.pts`` a face) and WFLW (one line a face)."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np

from pipnet.data.images import IMAGE_SUFFIXES, BadSampleError
from pipnet.data.sample import BadItems, Sample, Validation, check_options, is_wanted, require, sample_at
from pipnet.files import read_text
from pipnet.layouts import PointLayout

_log = logging.getLogger(__name__)

_300W_TREE = (
    "the iBUG folders afw/, helen/{trainset,testset}/, lfpw/{trainset,testset}/, ibug/, each photo with its .pts"
)
_300W_FOLDERS = {
    "train": ("afw", "helen/trainset", "lfpw/trainset"),
    "common": ("helen/testset", "lfpw/testset"),
    "challenge": ("ibug",),
}
_300W_FOLDERS["test"] = _300W_FOLDERS["common"] + _300W_FOLDERS["challenge"]

_WFLW_TREE = "WFLW_images/ and WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_{train,test}.txt"
WFLW_ATTRIBUTES = ("pose", "expression", "illumination", "makeup", "occlusion", "blur")


def read_300w(
    root: Path, layout: PointLayout, bad: BadItems, *, part: str = "train", validation: Validation = "include"
) -> list[Sample]:
    """300W: iBUG's folders of photos, each with a ``.pts`` file beside it, in the order of folders, then file names.

    The files count pixels from 1; 1 is subtracted here (the authors' code forgets it, and its predictions sit half a
    pixel to a pixel off). Subsets are the folder's name (afw, helen, lfpw, ibug) and, for test faces, ``common`` or
    ``challenge``.

    ``part`` is ``train``, ``common`` (helen and lfpw test), ``challenge`` (ibug), or ``test`` (both; without an ibug
    folder it is ``common`` alone, and a warning is logged).
    """
    check_options(part=part, parts=_300W_FOLDERS, validation=validation)
    folders = list(_300W_FOLDERS[part])
    if part == "test" and not (root / "ibug").is_dir():
        require(root, _300W_TREE)
        _log.warning("%s has no folder ibug: its test part is the Common subset only, without Challenge", root)
        folders.remove("ibug")
    return [sample for folder in folders for sample in _read_300w_folder(root, folder, layout, bad, validation)]


def _read_300w_folder(
    root: Path, folder: str, layout: PointLayout, bad: BadItems, validation: Validation
) -> list[Sample]:
    directory = require(root / folder, _300W_TREE)
    # One listing instead of a look-up a file: 6,000 of those are slow on network disks.
    # Names that begin with a dot are hidden: macOS puts a ._a.jpg and a ._a.pts beside each file on foreign disks.
    entries = sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    images = {path.stem: path for path in reversed(entries) if path.suffix.lower() in IMAGE_SUFFIXES}
    labels = [path for path in entries if path.suffix.lower() == ".pts" and is_wanted(path.stem, validation)]
    subsets = (folder.split("/")[0],)
    if folder in _300W_FOLDERS["test"]:
        subsets += ("challenge" if folder in _300W_FOLDERS["challenge"] else "common",)

    def read(path: Path) -> Sample:
        if path.stem not in images:
            raise BadSampleError(f"{path}: no {path.stem}.jpg or .png beside it; add the photo or delete the .pts file")
        points = read_pts(path, layout.num_points) - 1.0  # 1-based, see read_300w
        return sample_at(
            str(path), image=images[path.stem], points=points, name=f"{folder}/{path.stem}", subsets=subsets
        )

    samples = list(bad.collect(labels, read))
    labelled = {path.stem for path in entries if path.suffix.lower() == ".pts"}
    for stem in sorted(set(images) - labelled):
        if is_wanted(stem, validation):
            bad.add(f"{images[stem]}: no {stem}.pts beside it; add the label or delete the photo")
    return samples


def read_pts(path: Path, num_points: int) -> np.ndarray:
    """Points ``(num_points, 2)`` of a ``.pts`` file as they stand: iBUG's form with braces, or bare lines ``x y``.

    Raises:
        BadSampleError: Names the file and the line that is wrong.
    """
    try:
        stripped = [line.strip() for line in read_text(path).rstrip().split("\n")]
    except OSError as error:
        raise BadSampleError(f"{path}: can't be read as text ({error}); replace the file") from error
    except ValueError as error:
        raise BadSampleError(str(error)) from error
    first, last = 0, len(stripped)
    if "{" in stripped:
        first = stripped.index("{") + 1
        # Without the closing brace the last number may have lost digits, and no count would tell.
        if "}" not in stripped[first:]:
            raise BadSampleError(f"{path}, line {last}: the closing brace is missing, the file is cut off; replace it")
        last = stripped.index("}", first)
        behind = [number for number, line in enumerate(stripped, start=1) if number > last + 1 and line]
        if behind:
            raise BadSampleError(
                f"{path}, line {behind[0]}: goes on behind the closing brace; a .pts file holds one face; give a second"
                " one a file and a copy of the photo of its own"
            )
    rows = [(number, line) for number, line in enumerate(stripped[first:last], start=first + 1) if line]
    points = [_finite_numbers(line.split()) for _, line in rows]
    for (number, line), point in zip(rows, points, strict=True):
        if len(point) != 2:
            raise BadSampleError(f"{path}, line {number}: expected two numbers 'x y', got {line!r}; correct the line")
    if not points:
        raise BadSampleError(f"{path}: holds no points, expected {num_points}; replace the file")
    if len(points) != num_points:
        faces, rest = divmod(len(points), num_points)
        several = f", which makes {faces} faces, and a .pts file holds one" if faces > 1 and not rest else ""
        raise BadSampleError(
            f"{path}, lines {rows[0][0]}-{rows[-1][0]}: {len(points)} points, expected {num_points}{several}; "
            "correct or delete the file and its photo"
        )
    return np.array(points)


def read_wflw(
    root: Path,
    layout: PointLayout,
    bad: BadItems,
    *,
    part: str = "train",
    validation: Validation = "include",
    box: str = "points",
) -> list[Sample]:
    """WFLW: the official lists, a line a face: 2N coordinates, 4 of a rectangle, 6 attributes, the photo's path.

    Coordinates are taken as 0-based, as they stand. Subsets are the attributes that are set. A photo may hold several
    faces: the name is its path and the face's number in the list, ``37--Soccer/37_Soccer_Soccer_37_83#1``.
    """
    check_options(part=part, box=box, validation=validation)
    annotations = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    path = require(annotations / f"list_98pt_rect_attr_{part}.txt", _WFLW_TREE)
    coordinates = 2 * layout.num_points
    fields = coordinates + 4 + len(WFLW_ATTRIBUTES) + 1
    seen: Counter[str] = Counter()

    def read(item: tuple[str, str, int]) -> Sample:
        where, line, face = item
        tokens = line.split()
        if len(tokens) != fields:
            raise BadSampleError(f"{where}: {len(tokens)} fields, expected {fields}; correct or delete the line")
        numbers = _finite_numbers(tokens[: coordinates + 4])
        if len(numbers) < coordinates + 4:
            raise BadSampleError(
                f"{where}, field {len(numbers) + 1}: {tokens[len(numbers)]!r} is not a number; "
                "correct or delete the line"
            )
        attributes = tokens[coordinates + 4 : -1]
        if not set(attributes) <= {"0", "1"}:
            raise BadSampleError(
                f"{where}: attributes {' '.join(attributes)} are not 0 or 1; correct or delete the line"
            )
        image = root / "WFLW_images" / tokens[-1]
        if not image.is_file():
            raise BadSampleError(f"{where}: no photo {image}; put it there or delete the line")
        return sample_at(
            where,
            image=image,
            points=np.array(numbers[:coordinates]).reshape(-1, 2),
            name=f"{tokens[-1].rpartition('.')[0]}#{face}",
            subsets=tuple(name for name, value in zip(WFLW_ATTRIBUTES, attributes, strict=True) if value == "1"),
            box=np.array(numbers[coordinates:]) if box == "rectangle" else None,
        )

    items = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        photo = line.split()[-1]
        seen[photo] += 1  # counted before anything is skipped, so that names stay the same
        if is_wanted(Path(photo).stem, validation):
            items.append((f"{path}, line {number}", line, seen[photo]))
    return list(bad.collect(items, read))


def _finite_numbers(tokens: list[str]) -> list[float]:
    """The tokens as numbers, up to the first that isn't a finite one."""
    numbers: list[float] = []
    for token in tokens:
        try:
            value = float(token)
        except ValueError:
            break
        if not np.isfinite(value):
            break
        numbers.append(value)
    return numbers
