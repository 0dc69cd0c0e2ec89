"""Calibrate the scores of a trained network on validation faces.

A network that is right on nearly every validation face says little about what its mistakes look like. So it is shown
the same faces under what it meets outside: as augmented in training, in boxes that are far off, and crops of the photos
that show no face. The probabilities that come out hold for that mixture; ``experiments/scores`` measures them on faces
of other sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from pipnet.data.dataset import FaceCrops
from pipnet.data.images import read_image
from pipnet.data.sample import Sample
from pipnet.data.transforms import Augment
from pipnet.geometry import box_size, crop_of_square
from pipnet.layouts import PointLayout
from pipnet.metrics import labelled_box
from pipnet.model.confidence import fit_confidence
from pipnet.model.network import LandmarkNet

_MOST_FACES = 400  # of a large set, evenly spread over it: the regression has few numbers to find
_ROUNDS = 4  # times that every face is augmented
_BACKGROUNDS = 2  # crops without a face, a photo
_ASTRAY = {"box_shift": 0.15, "box_scale_jitter": 0.2}  # boxes far off, as a tracker's are when it loses a face
_BATCH_SIZE = 32


def calibrate(
    net: LandmarkNet,
    samples: Sequence[Sample],
    layout: PointLayout,
    *,
    crop_scale: float,
    augment: Augment,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit the scores of a network, :class:`pipnet.model.confidence.Confidence`.

    Args:
        net: In eval mode.
        samples: Labelled faces that the network was not trained on.
        layout: What their points mean.
        crop_scale: Side of the crop over the longer side of the face box.
        augment: What faces meet outside; the recipe of the training is a good choice.
        seed: Of everything random.

    Returns:
        For :meth:`pipnet.model.network.LandmarkNet.calibrate`.

    Raises:
        ValueError: There is no face, or the network is right, or wrong, on every point.
    """
    if not samples:
        raise ValueError("no face to calibrate the scores on")
    samples = samples[:: -(-len(samples) // _MOST_FACES)]
    crop = {"input_size": net.input_size, "crop_scale": crop_scale, "seed": seed}
    recipes = [(None, 1), (augment, _ROUNDS), (Augment(**_ASTRAY), 1)]
    parts = [
        _votes(net, _labelled(FaceCrops(samples, layout, augment=recipe, **crop), rounds)) for recipe, rounds in recipes
    ]
    parts.append(_votes(net, _backgrounds(samples, net.input_size, net.num_points, np.random.default_rng(seed))))
    spread, peak, error = (np.concatenate(column) for column in zip(*parts, strict=True))
    return fit_confidence(spread, peak, error)


def _labelled(faces: FaceCrops, rounds: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for epoch in range(rounds):
        for index in range(len(faces)):
            face = faces[epoch, index]
            yield face["image"].numpy(), face["points"].numpy()


def _backgrounds(
    samples: Sequence[Sample], size: int, num_points: int, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Crops beside the face, with points nowhere. A photo that the face fills gives none."""
    nowhere = np.full((num_points, 2), np.inf)
    for sample in samples:
        image = read_image(sample.image)
        for square in squares_beside(sample.box, image.shape[1::-1], rng)[:_BACKGROUNDS]:
            yield crop_of_square(square, size).warp(image), nowhere


def squares_beside(box: np.ndarray, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Squares of a photo that show no face, of its size or smaller: ``(K, 3)`` as centre x, centre y, side.

    ``box`` is the only face of the photo; where it fills the photo there are none. As many numbers are drawn for every
    photo.
    """
    longer = float(max(box[2:] - box[:2]))
    sides = longer * rng.uniform(0.3, 1.2, 60)
    centres = rng.uniform((0, 0), image_size, (60, 2))
    # A corner of the face may show; both eyes and the mouth do not.
    beside = np.abs(centres - (box[:2] + box[2:]) / 2).max(axis=1) > 0.6 * longer + 0.2 * sides
    return np.column_stack([centres, sides])[beside]


def _votes(
    net: LandmarkNet, crops: Iterator[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spread, peak and error of every point, each ``(B, N)``."""
    device = net.device
    none = np.empty((0, net.num_points))
    spreads, peaks, errors = [none], [none], [none]
    while batch := list(islice(crops, _BATCH_SIZE)):
        pixels = torch.from_numpy(np.stack([crop for crop, _ in batch])).to(device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            votes = net.count_votes(net(net.normalize(pixels)))
        true = np.stack([points for _, points in batch]).astype(np.float64)
        distance = np.linalg.norm(votes.points_unit.cpu().numpy() - true, axis=-1)
        nowhere = np.isinf(true)
        size = box_size(labelled_box(np.where(nowhere, np.nan, true)))[:, None]
        spreads.append(votes.spread.cpu().numpy())
        peaks.append(votes.peak.cpu().numpy())
        errors.append(np.where(nowhere.any(axis=-1), np.inf, distance / size))
    return np.concatenate(spreads), np.concatenate(peaks), np.concatenate(errors)
