"""Which faces an export is calibrated on and compared on, cut as the network sees them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.data.calibration_crops import calibration_crops, loosened
from pipnet.data.images import IMAGE_SUFFIXES, read_image
from pipnet.data.photo_source import photos_below
from pipnet.data.readers import read_dataset
from pipnet.data.sample import BadItems, BadSampleError
from pipnet.data.synthetic import draw_faces
from pipnet.demo.wording import counted
from pipnet.geometry import crop_of_square, crop_squares
from pipnet.layouts import PointLayout
from pipnet.model.checkpoint import LoadedModel

_DRAWN = 32  # faces; for a comparison of 32-bit numbers they are as good as photos
# Of every second box that 8 bits are calibrated on: ranges of good boxes alone cut off what hard faces need.
_LOOSE = 0.3


@dataclass(frozen=True)
class Faces:
    """Crops with their origin.

    Attributes:
        crops: RGB uint8 ``(K, S, S, 3)``.
        origin: Where they are from, as it goes on after "12 faces".
        left_out: A sentence for each photo or label that could not be used.
    """

    crops: np.ndarray
    origin: str
    left_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        """``12 faces of 300w (train)``."""
        return f"{counted(len(self.crops), 'face')} {self.origin}"


def find_faces(loaded: LoadedModel, options: argparse.Namespace) -> Faces:
    """The faces that the options name: photos of a folder, a dataset, or what the network was trained on.

    int8 gets every second face in a box that is off (:func:`pipnet.data.calibration_crops.loosened`). An fp32 export
    only compares on them, so one without faces at hand takes drawn ones.

    Args:
        loaded: Gives crop, layout and training record.
        options: Of :func:`pipnet.export.options.parse`.

    Raises:
        ValueError: int8 and no faces, or faces that can't be used; the message says what to give.
        OSError: A folder is missing or can't be read.
    """
    if options.faces is not None:
        return _of_photos(loaded, options)
    if options.dataset is not None:
        from pipnet.config import dataset_config, dataset_layout

        dataset = dataset_config(options.dataset, options.data_root or os.environ.get("PIPNET_DATA", "data"))
        return _of_dataset(loaded, dataset, "train", dataset_layout(dataset), options)
    try:
        dataset, split = _trained_on(loaded, options.data_root)
        return _of_dataset(loaded, dataset, split, loaded.layout, options)
    except (ValueError, OSError) as error:
        if options.precision == "fp32" and options.data_root is None:
            return drawn_faces(loaded, options.seed)
        raise ValueError(
            f"no training faces: {error}. Give --data-root DIR (the folder that holds the dataset), --dataset NAME, "
            "or --faces DIR with photos of faces"
        ) from error


def drawn_faces(loaded: LoadedModel, seed: int = 0) -> Faces:
    """Faces that need no file."""
    crop = {"box_scale": loaded.box_scale, "size": loaded.net.input_size}
    return Faces(calibration_crops(draw_faces(_DRAWN, seed=seed), count=_DRAWN, **crop), "drawn by pipnet")


def _trained_on(loaded: LoadedModel, data_root: Path | None) -> tuple[dict[str, Any], str]:
    """Dataset and split of the training, with the folder where it lies on this machine."""
    config = loaded.training.get("config")
    try:
        dataset, split = dict(config["dataset"]), str(config["splits"]["train"])  # type: ignore[index]
        recorded = Path(str(config["data_root"]))  # type: ignore[index]
        known = dataset["name"], dataset["reader"], dataset["splits"][split], dataset["root"]
    except (KeyError, TypeError, ValueError):
        raise ValueError("the checkpoint does not say what it was trained on") from None
    if known[-1] is not None:
        dataset["root"] = _root_here(Path(str(known[-1])), recorded, data_root)
    return dataset, split


def _root_here(root: Path, recorded: Path, given: Path | None) -> Path:
    """Where a dataset lies on this machine, from where it lay in training, ``recorded`` being its data_root then.

    Example:
        >>> _root_here(Path("/home/ann/data/300W"), Path("/home/ann/data"), Path("/mnt/sets")).as_posix()
        '/mnt/sets/300W'
    """
    below = root.is_relative_to(recorded)
    here = given or (Path(os.environ["PIPNET_DATA"]) if below and os.environ.get("PIPNET_DATA") else None)
    if here is None:
        return root
    return here / (root.relative_to(recorded) if below else root.name)


def _of_dataset(
    loaded: LoadedModel, dataset: Mapping[str, Any], split: str, layout: PointLayout, options: argparse.Namespace
) -> Faces:
    if split not in dataset["splits"]:
        raise ValueError(f"dataset {dataset['name']} has no split {split!r}, nothing to train or calibrate on")
    samples, bad = read_dataset(
        dataset["reader"],
        root=dataset["root"],
        layout=layout,
        on_bad=dataset.get("on_bad", "raise"),
        **dict(dataset["splits"][split]),
    )
    crops = calibration_crops(
        samples,
        box_scale=loaded.box_scale,
        size=loaded.net.input_size,
        count=options.calibration_faces,
        seed=options.seed,
        loose=_loose(options),
        bad=bad,
    )
    return Faces(crops, f"of {dataset['name']} ({split})", tuple(bad.reasons))


def _loose(options: argparse.Namespace) -> float:
    return _LOOSE if options.precision == "int8" else 0.0


def _of_photos(loaded: LoadedModel, options: argparse.Namespace) -> Faces:
    """The surest face of each photo, in the boxes that the face detector gives."""
    from pipnet.inference.detect import RetinaFace

    folder: Path = options.faces
    if not folder.is_dir():
        raise FileNotFoundError(f"--faces {folder} is no folder; give a folder with photos of faces")
    photos = list(photos_below(folder, in_order=True))
    if not photos:
        raise ValueError(f"--faces {folder}: no photo in this folder; looked for {', '.join(IMAGE_SUFFIXES)}")
    detector, crops, bad = RetinaFace(), [], BadItems("skip")
    rng = np.random.default_rng(options.seed)
    # All photos in random order: those without a face are made up for by others.
    for index in rng.permutation(len(photos)):
        try:
            image = read_image(photos[index])
        except BadSampleError as error:
            bad.add(str(error))
            continue
        if len(found := detector(image)):  # best detection first
            box = loosened(found.boxes[0], _loose(options), rng) if len(crops) % 2 else found.boxes[0]
            square, angle = crop_squares(box, loaded.box_scale)[0], float(np.nan_to_num(found.angles[0]))
            crops.append(crop_of_square(square, loaded.net.input_size, angle).warp(image))
        if len(crops) == options.calibration_faces:
            break
    if not crops:
        raise ValueError(f"--faces {folder}: no face found in {len(photos)} photos; give photos of faces")
    return Faces(np.stack(crops), f"found in {folder}", tuple(bad.reasons))
