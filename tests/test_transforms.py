"""Augmentation: each switch does what it says and only that, and points stay on their pixels."""

from dataclasses import fields

import cv2
import numpy as np
import pytest
import torch
from augmenting import PHOTOMETRIC, PICTURE, SIZE, painted, recipe, rng
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from pipnet.data.dataset import EpochBatches, FaceCrops
from pipnet.data.sample import Sample
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.data.transforms import Augment
from pipnet.geometry import crop_of_square, turned
from pipnet.layouts import get_layout, layout_from_dict

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


@given(
    st.integers(0, 2**31),
    st.floats(0.15, 0.85),
    st.floats(0.15, 0.85),
    st.sampled_from([90.0, 128.0, 200.0, 333.3]),
)
@settings(max_examples=120, deadline=None)
def test_a_blob_is_where_its_point_is_said_to_be(seed, x, y, side):
    """Any composed warp; half a pixel lost anywhere is five times the tolerance."""
    size = 128
    square = np.array([201.3, 188.8, side])
    turns = {"mirror_p": 0.5, "rotate_p": 0.7, "rotate": 40, "translate_p": 0.5, "translate": 0.1}
    sizes = {"scale": 0.2, "aspect": 0.3, "box_shift": 0.03, "box_scale_jitter": 0.05}
    crop, _ = Augment(**turns, **sizes).crop(square, size, rng(seed))
    point = square[:2] + (np.array([x, y]) - 0.5) * side * 0.7
    sigma = max(2.5 * side / size, 2.5)  # wide enough for every zoom
    rows, columns = np.mgrid[0:400, 0:400]
    blob = 255 * np.exp(-((columns - point[0]) ** 2 + (rows - point[1]) ** 2) / (2 * sigma**2))
    seen = crop.warp(np.repeat(np.rint(blob).astype(np.uint8)[..., None], 3, axis=2))[..., 0].astype(float)
    said = crop.to_unit(point[None])[0] * size - 0.5
    if np.any((said < 14) | (said > size - 15)):
        return  # the blob is cut by the edge, and so is its centroid
    assert np.abs(centroid(seen) - said).max() < 0.1


@given(st.integers(0, 1000), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_dataset_sends_names_with_the_pixels(seed, shrunk):
    """Two blobs of two colours; after mirroring the red one is still where the point of that name now is."""
    width = 520 if shrunk else 130  # 520: the crop is averaged down first
    points = np.array([[0.35, 0.45], [0.62, 0.55]]) * width
    rows, columns = np.mgrid[0:width, 0:width]
    image = np.zeros((width, width, 3), np.uint8)
    for channel, (x, y) in enumerate(points):
        radius = ((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.02 * width) ** 2)
        image[..., channel] = np.rint(255 * np.exp(-radius))
    box = np.array([0.3, 0.3, 0.7, 0.7]) * width
    augment = Augment(mirror_p=0.5, rotate_p=1, rotate=30, scale=0.1, aspect=0.2, box_shift=0.03)
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


def test_loader_processes_give_what_one_process_gives():
    faces = drawn(Augment(**recipe("modern")), count=10)
    seen = []
    for workers in (0, 1):
        batches = EpochBatches(len(faces), 2, seed=0)
        batches.start(epoch=4)
        context = "spawn" if workers else None
        loader = DataLoader(faces, batch_sampler=batches, num_workers=workers, multiprocessing_context=context)
        seen.append(list(loader))
    assert len(seen[0]) == 5
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["points"], b["points"])


def test_labels_that_sit_to_the_right_do_so_in_mirrored_faces_too():
    """A pair of points 1 px right of what they mark: 1 px right of the same marks in the mirrored picture."""
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
