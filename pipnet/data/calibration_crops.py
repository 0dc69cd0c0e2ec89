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
    bad: BadItems | None = None,
) -> np.ndarray:
    """Plain crops, without augmentation, of faces spread evenly over a set.

    Args:
        samples: Faces; only their photos and boxes are used.
        box_scale: Side of the crop over the longer side of the face box.
        size: S, side of the crops in pixels.
        count: How many; a smaller set gives all it has.
        seed: Of the choice, :func:`spread_choice`.
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
    for index in spread_choice(len(samples), count, seed):
        sample = samples[index]
        try:
            image = read_image(sample.image)
        except BadSampleError as error:
            bad.add(f"{sample.name}: {error}")
            continue
        square = crop_squares(sample.box, box_scale)[0]
        crops.append(crop_of_square(square, size, sample.angle).warp(image))
    if not crops:
        raise ValueError(f"no face to calibrate on; the first that was left out: {[*bad.reasons, 'none'][0]}")
    return np.stack(crops)


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
