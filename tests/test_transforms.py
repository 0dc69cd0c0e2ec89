"""Augmentation: each switch does what it says and only that, and points stay on their pixels."""

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipnet.config import config_dir
from pipnet.data.dataset import FaceCrops
from pipnet.data.sample import Sample
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.data.transforms import Augment
from pipnet.geometry import crop_of_square, turned
from pipnet.layouts import get_layout, layout_from_dict

SIZE = 64
PICTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8), (0, 0), 1.5)
PHOTOMETRIC = {
    "brightness": Augment(brightness=0.4),
    "contrast": Augment(contrast=0.4),
    "saturation": Augment(saturation=0.8),
    "hue": Augment(hue=30),
    "gamma": Augment(gamma=0.5),
    "gray": Augment(gray_p=1),
    "blur": Augment(blur_p=1, blur=0.03),
    "shrink": Augment(shrink_p=1, shrink=4),
    "noise": Augment(noise_p=1, noise=20),
    "occlude": Augment(occlude_p=1, occlude=0.5),
    "occlude_textured": Augment(occlude_p=1, occlude=0.5, occlude_textured=1),
}
LAYOUT = get_layout("300w_68")
TWO = layout_from_dict({"name": "two", "num_points": 2, "mirror_pairs": [[0, 1]]})
SQUARE = np.array([100.0, 80.0, 120.0])
GEOMETRIC = {
    "mirror": Augment(mirror_p=1),
    "rotate": Augment(rotate_p=1, rotate=30),
    "translate": Augment(translate_p=1, translate=0.2),
    "scale": Augment(scale=0.3),
    "aspect": Augment(aspect=0.3),
    "box_shift": Augment(box_shift=0.1),
    "box_scale_jitter": Augment(box_scale_jitter=0.1),
}


def recipe(name):
    """A recipe of conf/transform with the recipes that it builds on."""
    content = yaml.safe_load((Path(config_dir()) / "transform" / f"{name}.yaml").read_text())
    below = [recipe(base) for base in content.pop("defaults", [])]
    return {key: value for part in [*below, content] for key, value in part.items()}


def rng(seed):
    return np.random.default_rng(seed)


def painted(augment, seed, picture=PICTURE):
    return augment.photometric(picture.copy(), rng(seed))


def parts(crop):
    """Zoom, stretch, angle in degrees, centre of the region in sides of the square, mirrored or not."""
    linear = crop.matrix[:, :2]
    mirrored = np.linalg.det(linear) < 0
    if mirrored:
        linear = np.diag([-1.0, 1.0]) @ linear
    scale_x, scale_y = np.linalg.norm(linear, axis=0) * SQUARE[2] / SIZE
    angle = np.rad2deg(np.arctan2(linear[1, 0], linear[0, 0]))
    shift = (crop.to_source(np.array([SIZE - 1, SIZE - 1]) / 2) - SQUARE[:2]) / SQUARE[2]
    size = {"zoom": -np.log(scale_x * scale_y) / 2, "stretch": np.log(scale_y / scale_x)}
    return size | {"angle": angle, "shift": shift, "mirrored": mirrored}


def drawn(augment=None, count=6, seed=0, **more):
    arguments = {"input_size": SIZE, "crop_scale": 1.25, "augment": augment, "seed": seed} | more
    return FaceCrops(draw_faces(count, seed=0, size=96), LAYOUT, **arguments)


# --- nothing asked, nothing done


def test_recipes_name_every_switch_and_impossible_numbers_are_refused():
    for name in ("none", "paper", "modern"):
        assert set(recipe(name)) == {field.name for field in fields(Augment)}, name
        Augment(**recipe(name))
    with pytest.raises(ValueError, match=r"mirror_p is a probability, got 1\.5"):
        Augment(mirror_p=1.5)
    with pytest.raises(ValueError, match="blur must not be"):
        Augment(blur=-1)


def test_without_a_switch_the_crop_is_the_plain_crop_bit_for_bit():
    plain, off, none = drawn(None), drawn(Augment()), drawn(Augment(**recipe("none")))
    for index in range(len(plain)):
        for other in (off, none):
            assert torch.equal(plain[0, index]["image"], other[3, index]["image"])
            assert torch.equal(plain[0, index]["points"], other[3, index]["points"])


# --- geometry, switch by switch


@pytest.mark.parametrize("name", GEOMETRIC)
def test_a_geometric_switch_changes_its_own_part_only(name):
    drawn_parts = [parts(GEOMETRIC[name].crop(SQUARE, SIZE, rng(seed))[0]) for seed in range(400)]
    values = {key: np.array([part[key] for part in drawn_parts], dtype=float) for key in drawn_parts[0]}
    owner = {"mirror": "mirrored", "rotate": "angle", "translate": "shift", "box_shift": "shift"}
    owner |= {"scale": "zoom", "box_scale_jitter": "zoom", "aspect": "stretch"}
    for key, numbers in values.items():
        if key != owner[name]:
            np.testing.assert_allclose(numbers, 0, atol=1e-9, err_msg=key)
    own = values[owner[name]]
    if name == "mirror":
        assert own.all()
    elif name.startswith("box_"):
        assert own.std() == pytest.approx(0.1, rel=0.1)
        assert np.abs(own).max() > 0.25  # a bell, not an interval
    else:
        limit = {"rotate": 30, "translate": 0.2, "scale": 0.3, "aspect": 0.3}[name]
        assert np.abs(own).max() <= limit + 1e-9
        assert np.abs(own).max() > 0.95 * limit
        assert own.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)  # evenly spread
    assert abs(own.mean()) < 0.2 * own.std() or name == "mirror"


def test_probabilities_are_kept():
    augment = Augment(mirror_p=0.3, rotate_p=0.6, rotate=30, translate_p=0.2, translate=0.1)
    found = [parts(augment.crop(SQUARE, SIZE, rng(seed))[0]) for seed in range(2000)]
    shares = [np.mean([np.abs(part[key]).max() > 1e-9 for part in found]) for key in ("mirrored", "angle", "shift")]
    assert shares == pytest.approx([0.3, 0.6, 0.2], abs=0.04)  # four standard deviations


def test_a_geometric_switch_leaves_light_alone_and_the_other_way_round():
    for augment in GEOMETRIC.values():
        assert np.array_equal(painted(augment, 0), PICTURE)
    upright = crop_of_square(SQUARE, SIZE)
    for augment in PHOTOMETRIC.values():
        crop, mirrored = augment.crop(SQUARE, SIZE, rng(0))
        assert np.array_equal(crop.matrix, upright.matrix)
        assert not mirrored


# --- points follow pixels


def centroid(plane):
    rows, columns = np.mgrid[: plane.shape[0], : plane.shape[1]]
    return np.array([(columns * plane).sum(), (rows * plane).sum()]) / plane.sum()


@given(st.integers(0, 1000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_dataset_sends_names_with_the_pixels(seed, shrunk):
    width = 520 if shrunk else 130  # 520: the crop is averaged down first
    points = np.array([[0.35, 0.45], [0.62, 0.55]]) * width
    rows, columns = np.mgrid[0:width, 0:width]
    image = np.zeros((width, width, 3), np.uint8)
    for channel, (x, y) in enumerate(points):
        radius = ((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.02 * width) ** 2)
        image[..., channel] = np.rint(255 * np.exp(-radius))
    box = np.array([0.3, 0.3, 0.7, 0.7]) * width
    turns = {"mirror_p": 0.5, "rotate_p": 0.7, "rotate": 40, "translate_p": 0.5, "translate": 0.1}
    augment = Augment(**turns, scale=0.1, aspect=0.2, box_shift=0.03, box_scale_jitter=0.03)
    faces = FaceCrops([Sample(image, points, "two", box=box)], TWO, input_size=64, crop_scale=2.0, augment=augment)
    face = faces[seed, 0]
    crop, mirrored = augment.crop(faces.squares[0], 64, rng([0, seed, 0]))
    pixels = face["image"].numpy().astype(float)
    for channel in (0, 1):
        name = 1 - channel if mirrored else channel  # the left one of a mirrored pair is the right one
        said = face["points"][name].numpy() * 64 - 0.5
        assert np.abs(centroid(pixels[..., channel]) - said).max() < 0.1
    assert np.allclose(crop.to_unit(points)[[1, 0]] if mirrored else crop.to_unit(points), face["points"], atol=1e-5)


def test_points_outside_the_crop_stay_where_they_are():
    faces = drawn(Augment(translate_p=1, translate=0.9), count=3)
    faces.samples[0].points[3] = np.nan  # not labelled, and stays so
    outside = 0
    for epoch in range(20):
        for index, sample in enumerate(faces.samples):
            crop, _ = faces.augment.crop(faces.squares[index], SIZE, rng([0, epoch, index]))
            points = faces[epoch, index]["points"].numpy()
            np.testing.assert_allclose(points, crop.to_unit(sample.points), atol=1e-5)
            outside += ((points < -0.2) | (points > 1.2)).any()
            assert np.isnan(points).any(axis=1).sum() == (index == 0)
    assert outside > 20


# --- repeatable


def test_a_face_depends_on_seed_epoch_and_index_alone():
    augment = Augment(**recipe("modern"))
    faces = drawn(augment)
    before = [sample.image.copy() for sample in faces.samples]
    forwards = [faces[2, index] for index in range(6)]
    backwards = [faces[2, index] for index in reversed(range(6))][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["points"], b["points"])
    for other in (faces[3, 0], drawn(augment, seed=1)[2, 0]):
        assert not torch.equal(forwards[0]["image"], other["image"])
        assert not torch.equal(forwards[0]["points"], other["points"])
    assert all(np.array_equal(a, sample.image) for a, sample in zip(before, faces.samples, strict=True))


def test_labels_that_sit_to_the_right_do_so_in_mirrored_faces_too():
    marks = np.array([[30.0, 40.0], [70.0, 44.0]])
    sample = Sample(
        np.zeros((100, 100, 3), np.uint8), marks + np.array([1.0, 0.0]), "two", box=np.array([10.0, 10, 90, 90])
    )
    unit, right = crop_of_square(np.array([50.0, 50.0, 100.0]), 128).to_unit(marks), np.array([0.01, 0.0])
    for augment, expected in ((Augment(), unit), (Augment(mirror_p=1), (unit * [-1, 1] + [1, 0])[[1, 0]])):
        faces = FaceCrops([sample], TWO, input_size=128, crop_scale=1.25, label_shift=1 / 80, augment=augment)
        np.testing.assert_allclose(faces[0, 0]["points"], expected + right, atol=1e-6)


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("augment", [None, Augment(), *GEOMETRIC.values()])
def test_a_tilted_face_is_seen_as_the_same_face_upright(quarters, augment):
    """Whatever is drawn: turns start from upright, and the labels of a mirrored face move along it."""
    rng = np.random.default_rng(3)
    image = cv2.resize(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), (160, 160), interpolation=cv2.INTER_CUBIC)
    points, box = rng.uniform(40, 120, (68, 2)), np.array([40.0, 50, 121, 122])
    angle, half = 90.0 * quarters, (box[2:] - box[:2]) / 2
    centre = turned((box[:2] + box[2:]) / 2 - 79.5, angle) + 79.5
    upright = Sample(image, points, "face", box=box)
    tilted = Sample(
        np.ascontiguousarray(np.rot90(image, -quarters)),
        turned(points - 79.5, angle) + 79.5,
        "face",
        box=np.concatenate([centre - half, centre + half]),
        angle=angle,
    )
    crops = [
        FaceCrops([sample], LAYOUT, input_size=64, crop_scale=1.25, augment=augment, label_shift=0.02)
        for sample in (upright, tilted)
    ]
    for epoch in range(3):
        seen, wanted = crops[1][epoch, 0], crops[0][epoch, 0]
        np.testing.assert_allclose(seen["points"], wanted["points"], atol=1e-5)
        # Samples of 1/32 pixel and blocks that begin elsewhere, which show at the photo's end.
        assert np.abs(seen["image"].numpy().astype(int) - wanted["image"].numpy()).mean() < 3
    np.testing.assert_allclose(crops[1].plain_points(), crops[0].plain_points(), atol=1e-9)


# --- light, sharpness and occlusion

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
