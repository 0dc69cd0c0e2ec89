"""The warp reads the region under the crop and nothing else, and gives what a warp of the whole photo would."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import cv2
import numpy as np
import pytest

from pipnet.geometry import affine_crop, crop_of_square
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import PointLayout

NOISE = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
BORDER = (9, 8, 7)


@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize("turned", [False, True])
def test_the_region_alone_gives_what_the_whole_photo_gives(size, turned):
    """OpenCV's own warp of the photo as it is; few values round the other way."""
    rng = np.random.default_rng(size)
    unequal = 0
    for number in range(40):
        centre = rng.uniform((-40, -40), (680, 520))
        side = rng.uniform(0.1, 1.9) * size
        if number % 2:  # edges on whole pixels
            centre, side = np.round(centre) - 0.5, 2 * np.round(side / 2)
        how = {"angle": rng.uniform(-60, 60), "mirror": number % 3 == 0} if turned else {}
        crop = affine_crop(centre, (side, side), size, **how)
        whole = cv2.warpAffine(NOISE, crop.matrix, (size, size), flags=cv2.INTER_LINEAR, borderValue=BORDER)
        off = np.abs(crop.warp(NOISE, border=BORDER).astype(int) - whole)
        assert off.max() <= 1
        unequal += (off > 0).sum()
    assert unequal <= 3e-3 * 40 * size * size * 3


@pytest.mark.parametrize(("side", "x"), [(512.0, 300.0), (600.0, 300.5), (600.0, 301.3), (700.0, 301.0)])
def test_what_lies_beyond_the_square_does_not_show(side, x):
    """Not even where the region of a crop that is averaged down had to be extended to whole blocks."""
    photo = np.random.default_rng(1).integers(0, 256, (900, 901, 3), dtype=np.uint8)
    crop = crop_of_square(np.array([x + 100, 440.0, side]), 256)
    beyond = int(x + 100 + side / 2) + 3
    blackened = photo.copy()
    blackened[:, beyond:] = 0
    assert np.array_equal(crop.warp(photo), crop.warp(blackened))


@pytest.mark.parametrize("side", [80.0, 600.0])
def test_a_crop_can_be_cut_into_a_slot_of_a_batch(side):
    batch = np.full((3, 128, 128, 3), 7, dtype=np.uint8)
    crop = crop_of_square(np.array([300.2, 200.7, side]), 128)
    assert np.shares_memory(crop.warp(NOISE, out=batch[1]), batch)
    assert np.array_equal(batch[1], crop.warp(NOISE))
    assert (batch[[0, 2]] == 7).all()
    assert np.array_equal(crop.warp(NOISE[..., ::-1]), batch[1][..., ::-1])  # a view is cut like a photo
    inner = NOISE[10:470, 20:620]
    assert np.array_equal(crop.warp(inner), crop.warp(np.ascontiguousarray(inner)))


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((64, 64, 3), dtype=np.uint8),
        np.zeros((128, 128, 3), dtype=np.float32),
        np.zeros((128, 128, 6), dtype=np.uint8)[..., ::2],  # OpenCV would write into a copy of it
    ],
)
def test_a_slot_that_does_not_fit_is_refused(out):
    crop = crop_of_square(np.array([300.0, 200.0, 80.0]), 128)
    with pytest.raises(ValueError, match=r"out must be writeable contiguous uint8 \(128, 128, 3\)"):
        crop.warp(NOISE, out=out)


def most_memory(call: Callable[[], object]) -> int:
    """Bytes that a call takes at most, arrays of NumPy and OpenCV."""
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("side", [100.0, 500.0])
@pytest.mark.parametrize("view", [np.s_[:], np.s_[:, :, ::-1]], ids=["photo", "view"])
def test_a_large_photo_is_not_copied_for_a_small_face(side, view):
    photo = np.zeros((3000, 4000, 3), dtype=np.uint8)[view]
    crop = crop_of_square(np.array([2000.0, 1500.0, side]), 128)
    assert most_memory(lambda: crop.warp(photo)) < photo.nbytes / 10


def test_a_landmarker_with_a_box_does_not_copy_the_photo():
    def middle(crops: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.full((len(crops), 1, 2), 0.5), np.ones((len(crops), 1)), np.ones(len(crops))

    middle.input_size = 128
    landmarker = FaceLandmarker(middle, layout=PointLayout("nose", 1, mirror=(0,)), crop_scale=1.2)
    photo = np.zeros((3000, 4000, 3), dtype=np.uint8)
    assert most_memory(lambda: landmarker(photo, boxes=[2000, 1500, 2300, 1800])) < photo.nbytes / 10
