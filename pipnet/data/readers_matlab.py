"""Readers of the sets whose labels are MATLAB files: COFW (29 and 68 points) and AFLW (19 points)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.console import needs
from pipnet.data.images import BadSampleError, read_image
from pipnet.data.sample import BadItems, Sample, Validation, check_options, is_wanted, require, sample_at
from pipnet.layouts import PointLayout

_COFW_TREE = "COFW_train_color.mat and COFW_test_color.mat"
_COFW68_TREE = "COFW_test_color.mat, test_annotations/1_points.mat ... and cofw68_test_bboxes.mat"
_AFLW_TREE = "AFLWinfo_release.mat and the photos under flickr/"
_COFW_KEYS = {"train": ("IsTr", "phisTr", "bboxesTr"), "test": ("IsT", "phisT", "bboxesT")}


def read_cofw(
    root: Path,
    layout: PointLayout,
    bad: BadItems,
    *,
    part: str = "train",
    validation: Validation = "include",
    box: str = "points",
) -> list[Sample]:
    """COFW: MATLAB 7.3 (HDF5) files that hold the photos as well as the labels.

    A record of ``phis`` is N x, N y, N occlusion flags. MATLAB counts pixels from 1; 1 is subtracted. Photos (colour
    or grey) are held in memory for as long as the samples live. Records are named ``cofw_train_0001``, counted from 1
    as in MATLAB; ``validation`` goes by this name. ``box="rectangle"`` is the authors' crop.
    """
    check_options(part=part, box=box, validation=validation)
    path = require(root / f"COFW_{part}_color.mat", _COFW_TREE)
    with _open_hdf5(path, _COFW_KEYS[part]) as (file, images, phis, boxes):
        # HDF5 holds MATLAB's columns as rows: (3N, F) and (4, F) arrive transposed.
        records, rectangles = np.asarray(phis).T, np.asarray(boxes).T
        if len(records) != images.size or records.shape[1:] != (3 * layout.num_points,):
            raise ValueError(
                f"{path}: labels {records.shape} for {images.size} photos, expected {3 * layout.num_points} values a "
                f"photo ({layout.num_points} x, y, occlusion); get the published file (data/README.md)"
            )
        references = np.asarray(images).ravel()

        def read(index: int) -> Sample:
            where = f"{path}, record {index + 1}"
            x, y, occluded = records[index].reshape(3, -1)
            return sample_at(
                where,
                image=_matlab_image(file, references[index], where),
                points=_finite(np.column_stack([x, y]), where) - 1.0,  # MATLAB counts from 1
                name=_cofw_name(part, index),
                box=_cofw_box(rectangles[index]) if box == "rectangle" else None,
                occluded=occluded > 0.5,
            )

        wanted = [i for i in range(len(records)) if is_wanted(_cofw_name(part, i), validation)]
        return list(bad.collect(wanted, read))


def read_cofw68(
    root: Path,
    layout: PointLayout,
    bad: BadItems,
    *,
    part: str = "test",
    box: str = "points",
    images: str = ".",
) -> list[Sample]:
    """COFW-68: Ghiasi and Fowlkes' 68 points for the test photos of COFW; there is no training part.

    Each ``<i>_points.mat`` holds ``Points (68, 2)``, counted from 1 (1 is subtracted), and ``Occ (68, 1)``, for photo
    ``i`` of ``COFW_test_color.mat``, which lies in the folder ``images``, seen from ``root``.

    Reference:
        Ghiasi, Fowlkes, "Occlusion Coherence: Detecting and Localizing Occluded Faces", arXiv:1506.08347;
        github golnazghiasi/cofw68-benchmark.
    """
    check_options(part=part, parts=("test",), box=box)
    photos_path = require(root / images / "COFW_test_color.mat", _COFW68_TREE)
    annotations = require(root / "test_annotations", _COFW68_TREE)
    boxes_path = root / "cofw68_test_bboxes.mat"
    rectangles = None
    if box == "rectangle":
        rectangles = _load_mat(require(boxes_path, _COFW68_TREE), ("bboxes",))["bboxes"]
    with _open_hdf5(photos_path, ("IsT",)) as (file, photos):
        references = np.asarray(photos).ravel()
        if rectangles is not None and rectangles.shape != (len(references), 4):
            raise ValueError(
                f"{boxes_path}: boxes {rectangles.shape} for {len(references)} photos; get the published file"
            )

        def read(index: int) -> Sample:
            path = annotations / f"{index + 1}_points.mat"
            if not path.is_file():
                raise BadSampleError(f"{path}: no such label for photo {index + 1} of {photos_path}; put it there")
            try:
                mat = _load_mat(path, ("Points",))
            except ValueError as error:
                raise BadSampleError(str(error)) from error
            points = np.asarray(mat["Points"], dtype=np.float64)
            if points.shape != (layout.num_points, 2):
                raise BadSampleError(
                    f"{path}: points {points.shape}, expected {(layout.num_points, 2)}; replace the file"
                )
            return sample_at(
                str(path),
                image=_matlab_image(file, references[index], f"{photos_path}, record {index + 1}"),
                points=_finite(points, str(path)) - 1.0,  # MATLAB counts from 1
                name=_cofw_name("test", index),
                box=None if rectangles is None else _cofw_box(rectangles[index]),
                occluded=np.ravel(mat["Occ"]) > 0.5 if np.size(mat.get("Occ", ())) == len(points) else None,
            )

        return list(bad.collect(range(len(references)), read))


def read_aflw(
    root: Path,
    layout: PointLayout,
    bad: BadItems,
    *,
    part: str = "train",
    validation: Validation = "include",
    box: str = "points",
    images: str = "flickr",
    train_faces: int = 20_000,
) -> list[Sample]:
    """AFLW-19: Zhu et al.'s ``AFLWinfo_release.mat`` over AFLW's photos.

    Fields: ``data (F, 2N)`` as N x then N y, taken as 0-based as the authors' code does (the publisher does not say);
    ``bbox (F, 4)`` as ``x0, x1, y0, y1``; ``nameList``; ``ra``, a permutation counted from 1 whose first 20,000 faces
    train and whose rest test; ``mask_new (F, N)``, 1 where a point is visible. Hidden points are labelled too and
    count in the published figures: they become ``occluded``. Faces without a hidden point are the subset ``frontal``.
    ``box="rectangle"`` is the published crop, and the size that normalises published errors.

    Args:
        images: Folder of the photos, relative to ``root``.
        train_faces: How many faces of ``ra`` train.
    """
    check_options(part=part, box=box, validation=validation)
    path = require(root / "AFLWinfo_release.mat", _AFLW_TREE)
    photos = require(root / images, _AFLW_TREE)
    mat = _load_mat(path, ("data", "bbox", "nameList", "ra"))
    data, boxes = np.asarray(mat["data"], dtype=np.float64), np.asarray(mat["bbox"], dtype=np.float64)
    if data.shape != (len(boxes), 2 * layout.num_points) or boxes.shape[1:] != (4,):
        raise ValueError(
            f"{path}: data {data.shape} and bbox {boxes.shape}, expected (F, {2 * layout.num_points}) and (F, 4); "
            "get the published file (data/README.md)"
        )
    names = [str(np.ravel(cell)[0]) for cell in np.ravel(mat["nameList"])]
    order = np.ravel(mat["ra"]).astype(np.int64) - 1
    if len(names) != len(data) or not np.array_equal(np.sort(order), np.arange(len(data))):
        raise ValueError(f"{path}: nameList or ra does not fit the {len(data)} faces of data; get the published file")
    visible = np.asarray(mat["mask_new"]) > 0 if "mask_new" in mat else None

    def read(index: int) -> Sample:
        where = f"{path}, face {index + 1}"
        image = photos / names[index]
        if not image.is_file():
            raise BadSampleError(f"{where}: no photo {image}; put it there")
        occluded = None if visible is None else ~visible[index]
        return sample_at(
            where,
            image=image,
            points=_finite(data[index].reshape(2, -1).T, where),
            name=f"aflw_{index + 1:05d}",
            subsets=("frontal",) if occluded is not None and not occluded.any() else (),
            box=boxes[index][[0, 2, 1, 3]] if box == "rectangle" else None,
            occluded=occluded,
        )

    chosen = order[:train_faces] if part == "train" else order[train_faces:]
    return list(bad.collect([i for i in chosen if is_wanted(Path(names[i]).stem, validation)], read))


def _cofw_name(part: str, index: int) -> str:
    return f"cofw_{part}_{index + 1:04d}"


def _cofw_box(rectangle: np.ndarray) -> np.ndarray:
    """``x, y, width, height`` counted from 1, to corner pixels counted from 0 (as the authors' ``process_cofw``)."""
    x, y, width, height = np.asarray(rectangle, dtype=np.float64)
    return np.array([x - 1, y - 1, x + width - 2, y + height - 2])


def _finite(points: np.ndarray, where: str) -> np.ndarray:
    wrong = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if wrong.size:
        raise BadSampleError(f"{where}: point {wrong[0]} is {points[wrong[0]].tolist()}; leave the face out")
    return points


def _matlab_image(file: Any, reference: Any, where: str) -> np.ndarray:
    """The photo behind a reference: stored ``(W, H)`` or ``(3, W, H)``, as MATLAB's column order looks to HDF5."""
    try:
        return read_image(np.asarray(file[reference]).T)
    except (BadSampleError, ValueError, KeyError, OSError) as error:
        raise BadSampleError(f"{where}: the photo can't be read ({error}); get the published file") from error


@contextmanager
def _open_hdf5(path: Path, keys: tuple[str, ...]) -> Iterator[tuple]:
    """An open MATLAB 7.3 file followed by its datasets; wrong content is a ValueError that names the file."""
    with needs("train"):
        import h5py  # only these two sets need it

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a whole MATLAB 7.3 (HDF5) file ({error}); download it again") from error
    with file:
        _check_keys(path, keys, file)
        yield file, *(file[key] for key in keys)


def _load_mat(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The variables of a MATLAB v5 file; wrong content is a ValueError that names the file."""
    with needs("train"):
        import scipy.io

    try:
        mat = scipy.io.loadmat(path)
    except Exception as error:  # a damaged file makes scipy raise almost anything
        raise ValueError(f"{path}: not a whole MATLAB v5 file ({error}); download it again") from error
    _check_keys(path, keys, mat)
    return mat


def _check_keys(path: Path, keys: Iterable[str], present: Iterable[str]) -> None:
    there = sorted(key for key in present if not key.startswith("__"))
    for key in keys:
        if key not in there:
            raise ValueError(f"{path}: no {key!r} in it, only {', '.join(there)}; get the published file")
