"""Light, sharpness and occlusion: each switch does what it says and only that."""

import numpy as np
import pytest
from augmenting import PHOTOMETRIC, PICTURE, SIZE, painted, recipe, rng

from pipnet.data.transforms import Augment

RECIPES = {name: Augment(**recipe(name)) for name in ("paper", "modern")}


@pytest.mark.parametrize("augment", [*PHOTOMETRIC.values(), *RECIPES.values()], ids=[*PHOTOMETRIC, *RECIPES])
def test_a_photometric_switch_keeps_shape_type_and_range_and_does_something(augment):
    changed = 0
    for seed in range(20):
        picture = painted(augment, seed)
        assert picture.shape == PICTURE.shape
        assert picture.dtype == np.uint8
        assert picture.flags["C_CONTIGUOUS"]
        changed += not np.array_equal(picture, PICTURE)
    assert changed >= (5 if augment == RECIPES["paper"] else 15)  # a blur of less than a third of a pixel is skipped
    for extreme in (0, 255):
        assert painted(augment, 0, np.full_like(PICTURE, extreme)).dtype == np.uint8


def test_brightness_multiplies_and_contrast_spreads_around_the_mean():
    gray = np.full((8, 8, 3), 100, np.uint8)
    levels = [painted(Augment(brightness=0.4), seed, gray)[0, 0, 0] for seed in range(300)]
    assert 60 <= min(levels) < 63
    assert 137 < max(levels) <= 140
    for seed in range(50):  # an even picture has no contrast to change
        assert np.array_equal(painted(Augment(contrast=0.4), seed, gray), gray)
        picture = painted(Augment(contrast=0.4), seed)
        assert picture.mean() == pytest.approx(PICTURE.mean(), abs=1)
    spreads = [painted(Augment(contrast=0.4), seed).std() / PICTURE.std() for seed in range(300)]
    assert [min(spreads), max(spreads)] == pytest.approx([0.6, 1.4], abs=0.02)


def test_hue_and_saturation_keep_greys_and_luma():
    gray = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    luma = np.array([0.299, 0.587, 0.114])
    muted = (96 + PICTURE // 4).astype(np.uint8)  # far from the ends of the range
    for augment in (Augment(hue=60), Augment(saturation=0.9)):
        for seed in range(30):
            assert np.abs(painted(augment, seed, gray).astype(int) - gray).max() <= 1
            assert np.abs((painted(augment, seed, muted) - muted.astype(float)) @ luma).max() < 1
    assert np.ptp(painted(Augment(gray_p=1), 0).astype(int), axis=2).max() <= 1
    np.testing.assert_allclose(painted(Augment(gray_p=1), 0)[..., 0], PICTURE @ luma, atol=1)


def test_gamma_keeps_black_and_white():
    ends = np.zeros((8, 8, 3), np.uint8)
    ends[:4] = 255
    middles = []
    for seed in range(100):
        assert np.array_equal(painted(Augment(gamma=0.5), seed, ends), ends)
        middles.append(painted(Augment(gamma=0.5), seed, np.full((8, 8, 3), 128, np.uint8))[0, 0, 0])
    power = np.exp([0.5, -0.5])
    assert [min(middles), max(middles)] == pytest.approx(255 * (128 / 255) ** power, abs=2)


def test_blur_and_low_resolution_soften_in_place():
    for augment in (Augment(blur_p=1, blur=0.03), Augment(shrink_p=1, shrink=4)):
        softer = [painted(augment, seed) for seed in range(20)]
        sharpness = [np.abs(np.diff(picture.astype(int), axis=1)).mean() for picture in softer]
        assert min(sharpness) < 0.6 * np.abs(np.diff(PICTURE.astype(int), axis=1)).mean()
        # The inner part of a ramp is its own blur. A shift would lighten one ramp and darken its mirror image, rounding
        # does the same to both; half a pixel is 1.5 levels.
        ramp = np.repeat(np.repeat(np.arange(SIZE, dtype=np.uint8)[None, :, None] * 3, SIZE, 0), 3, 2)
        for seed in range(20):
            up, down = (
                (painted(augment, seed, side).astype(float) - side)[16:-16, 16:-16].mean()
                for side in (ramp, ramp[:, ::-1].copy())
            )
            assert abs(up - down) / 2 < 0.2


def test_noise_has_its_size_and_no_bias():
    gray = np.full((256, 256, 3), 128, np.uint8)
    deviations = []
    for seed in range(40):
        noise = painted(Augment(noise_p=1, noise=20), seed, gray).astype(float) - 128
        assert abs(noise.mean()) < 0.5
        assert np.ptp(noise, axis=2).max() == 0  # one plane for the three colours
        deviations.append(noise.std())
    assert max(deviations) < 20.5
    assert max(deviations) > 17
    assert np.mean(deviations) == pytest.approx(10, abs=3)


@pytest.mark.parametrize("textured", [0, 1])
def test_an_occlusion_is_one_rectangle_of_limited_size(textured):
    widest = 0
    picture = rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    for seed in range(200):
        occluded = painted(Augment(occlude_p=1, occlude=0.4, occlude_textured=textured), seed, picture)
        changed = np.any(occluded != picture, 2)
        if not changed.any():
            continue
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(height, width) <= 0.4 * SIZE
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.95
        widest = max(widest, width)
        inside = occluded[changed]
        assert (len(np.unique(inside, axis=0)) == 1) == (not textured or len(inside) == 1)
    assert widest > 0.35 * SIZE
