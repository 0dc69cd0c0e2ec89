"""Which faces an export is calibrated on and compared on, cut as the network sees them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.console import counted
from pipnet.data.datasets import read_dataset
from pipnet.data.images import IMAGE_SUFFIXES, BadSampleError, photos_below, read_image
from pipnet.data.sample import BadItems, Sample
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.geometry import crop_of_square, crop_squares
from pipnet.layouts import PointLayout
from pipnet.model.checkpoint import LoadedModel


def calibration_crops(
    samples: Sequence[Sample],
    *,
    crop_scale: float,
    size: int,
    count: int = 300,
    seed: int = 0,
    loose: float = 0.0,
    bad: BadItems | None = None,
) -> np.ndarray:
    """Crops, without augmentation, of faces spread evenly over a set.

    Args:
        samples: Faces; only their photos and boxes are used.
        crop_scale: Side of the crop over the longer side of the face box.
        size: S, side of the crops in pixels.
        count: How many; a smaller set gives all it has.
        seed: Of the choice, :func:`spread_choice`, and of the boxes that are off.
        loose: How far every second box is off, :func:`loosened`; 0 leaves all as they are.
        bad: Takes photos that can't be read; None stops at the first.

    Returns:
        K crops, RGB uint8 ``(K, S, S, 3)``, in the order of ``samples``.

    Raises:
        BadSampleError: A photo can't be read; the message names it.
        ValueError: ``count`` is below 1, or there is no face.
    """
    bad = BadItems() if bad is None else bad
    crops = []
    rng = np.random.default_rng(seed)
    for number, index in enumerate(spread_choice(len(samples), count, seed)):
        sample = samples[index]
        try:
            image = read_image(sample.image)
        except BadSampleError as error:
            bad.add(f"{sample.name}: {error}")
            continue
        box = loosened(sample.box, loose, rng) if number % 2 else sample.box
        square = crop_squares(box, crop_scale)[0]
        crops.append(crop_of_square(square, size, sample.angle).warp(image))
    if not crops:
        raise ValueError(f"no face to calibrate on; the first that was skipped: {[*bad.reasons, 'none'][0]}")
    return np.stack(crops)


def loosened(box: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """A box ``(4,)`` moved and resized at random, as those of hard faces are.

    ``amount`` is the largest move along x and y as a fraction of the longer side, and the largest growth or shrinkage;
    from 0 to below 1, uniform.
    """
    *move, growth = rng.uniform(-amount, amount, 3)
    size = box[2:] - box[:2]
    centre = (box[:2] + box[2:]) / 2 + np.array(move) * size.max()
    half = size / 2 * (1 + growth)
    return np.concatenate([centre - half, centre + half])


def spread_choice(total: int, count: int, seed: int) -> np.ndarray:
    """Numbers of ``count`` items out of ``total``, one at random from each of as many equal stretches.

    A dataset is sorted by source and subject; so every part of it is represented by its share, and runs of photos of
    one person are not.

    Returns:
        ``(min(count, total),)`` int, ascending, none twice.
    """
    if count < 1 or total < 1:
        raise ValueError(f"can't choose {count} of {total} faces; both must be at least 1")
    count = min(count, total)
    edges = np.arange(count + 1) * total // count
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


_DRAWN = 32  # faces; for a comparison of 32-bit numbers they are as good as photos
# Of every second box that int8 is calibrated on: ranges of good boxes alone cut off what hard faces need.
_LOOSE = 0.3


@dataclass(frozen=True)
class Faces:
    """Crops with their origin, as it goes on after "12 faces", and a sentence for each item that could not be used."""

    crops: np.ndarray
    origin: str
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        """``12 faces of 300w (train)``."""
        return f"{counted(len(self.crops), 'face')} {self.origin}"


def find_faces(loaded: LoadedModel, options: argparse.Namespace) -> Faces:
    """The faces that the options name: photos of a folder, a dataset, or what the network was trained on.

    int8 gets every second face in a box that is off. An fp32 export only compares on them, so one without faces at hand
    takes drawn ones.

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
            return synthetic_faces(loaded, options.seed)
        raise ValueError(
            f"no training faces: {error}. Give --data-root DIR (the folder that holds the dataset), --dataset NAME, "
            "or --faces DIR with photos of faces"
        ) from error


def synthetic_faces(loaded: LoadedModel, seed: int = 0) -> Faces:
    """Faces that need no file."""
    crop = {"crop_scale": loaded.crop_scale, "size": loaded.net.input_size}
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
    """Where a dataset lies on this machine, from where it lay in training, ``recorded`` being its data_root then."""
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
        crop_scale=loaded.crop_scale,
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
    from pipnet.inference.detectors import RetinaFace

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
            square, angle = crop_squares(box, loaded.crop_scale)[0], float(np.nan_to_num(found.angles[0]))
            crops.append(crop_of_square(square, loaded.net.input_size, angle).warp(image))
        if len(crops) == options.calibration_faces:
            break
    if not crops:
        raise ValueError(f"--faces {folder}: no face found in {len(photos)} photos; give photos of faces")
    return Faces(np.stack(crops), f"found in {folder}", tuple(bad.reasons))
