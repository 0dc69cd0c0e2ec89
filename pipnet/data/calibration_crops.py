"""Some faces of a set, cut as the network sees them: 8-bit networks are calibrated, and exports compared, on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipnet.data.images import read_image
from pipnet.data.sample import BadItems, BadSampleError, Sample
from pipnet.geometry import crop_of_square, crop_squares


def calibration_crops(
    samples: Sequence[Sample],
    *,
    box_scale: float,
    size: int,
    count: int = 300,
    seed: int = 0,
    loose: float = 0.0,
    bad: BadItems | None = None,
) -> np.ndarray:
    """Crops, without augmentation, of faces spread evenly over a set.

    Args:
        samples: Faces; only their photos and boxes are used.
        box_scale: Side of the crop over the longer side of the face box.
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

    Example:
        >>> face = Sample(np.full((40, 40, 3), 7, np.uint8), np.array([[10.0, 10], [30, 30]]), "a")
        >>> calibration_crops([face] * 5, box_scale=1.0, size=8, count=2).shape
        (2, 8, 8, 3)
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
        square = crop_squares(box, box_scale)[0]
        crops.append(crop_of_square(square, size, sample.angle).warp(image))
    if not crops:
        raise ValueError(f"no face to calibrate on; the first that was left out: {[*bad.reasons, 'none'][0]}")
    return np.stack(crops)


def loosened(box: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """A box ``(4,)`` moved and resized at random, as those of hard faces are.

    Args:
        box: ``x0, y0, x1, y1``, source pixels.
        amount: Largest move along x and along y as a fraction of the longer side, and largest growth or shrinkage;
            from 0 to below 1, uniform.
        rng: Draws three numbers.

    Example:
        >>> loosened(np.array([0.0, 0, 10, 20]), 0.0, np.random.default_rng(0)).tolist()
        [0.0, 0.0, 10.0, 20.0]
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

    Args:
        total: How many there are.
        count: How many are wanted, at least 1.
        seed: Of the choice within each stretch.

    Returns:
        ``(min(count, total),)`` int, ascending, none twice.

    Raises:
        ValueError: ``count`` is below 1, or there is nothing to choose from.

    Example:
        >>> chosen = spread_choice(1000, 4, seed=0)
        >>> (chosen // 250).tolist(), spread_choice(3, 10, seed=0).tolist()
        ([0, 1, 2, 3], [0, 1, 2])
    """
    if count < 1 or total < 1:
        raise ValueError(f"can't choose {count} of {total} faces; both must be at least 1")
    count = min(count, total)
    edges = np.arange(count + 1) * total // count
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])
