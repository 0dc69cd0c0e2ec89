"""Synthetic faces: repeatable, and labelled exactly where the picture is drawn."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipnet.data.datasets import read_dataset
from pipnet.data.synthetic.dataset import STYLES, draw_face, draw_faces
from pipnet.geometry import crop_of_square, crop_squares
from pipnet.layouts import get_layout

LAYOUT = get_layout("300w_68")
MIRROR = list(LAYOUT.mirror)


@pytest.mark.parametrize("style", STYLES)
def test_same_arguments_give_the_same_faces(style):
    first, again = draw_faces(6, seed=3, style=style), draw_faces(6, seed=3, style=style)
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.image, b.image)
        assert np.array_equal(a.points, b.points)
        assert (a.name, a.subsets) == (b.name, b.subsets)
    alone = draw_face(4, seed=3, style=style)  # whatever list it is in
    assert np.array_equal(first[4].image, alone.image)
    assert alone.name == "drawn_000004"


def test_no_two_faces_are_equal_within_and_across_seeds():
    points = [sample.points for seed in (0, 1, 2) for sample in draw_faces(20, seed=seed, size=64)]
    distances = np.array([[np.abs(a - b).max() for a in points] for b in points]) + np.eye(len(points)) * 1e9
    assert distances.min() > 0.5  # pixels, at 64 pixels a side


def test_styles_are_domains_of_the_same_faces():
    for cartoon, sketch in zip(draw_faces(5, seed=1), draw_faces(5, seed=1, style="sketch"), strict=True):
        assert np.array_equal(cartoon.points, sketch.points)
        assert np.abs(cartoon.image.astype(int) - sketch.image).mean() > 20


@pytest.mark.parametrize("size", [64, 300])
def test_points_lie_within_the_picture_and_the_face_fills_about_half(size):
    for sample in draw_faces(40, seed=5, size=size):
        assert (sample.image.shape, sample.image.dtype, sample.points.shape) == ((size, size, 3), np.uint8, (68, 2))
        assert sample.points.min() > 0
        assert sample.points.max() < size - 1
        longer = (sample.box[2:] - sample.box[:2]).max()
        assert 0.39 * size < longer < 0.61 * size


def test_mirrored_face_has_the_mirrored_points():
    size = 200
    for index in range(20):
        face, mirrored = draw_face(index, seed=2, size=size), draw_face(index, seed=2, size=size, mirror=True)
        expected = face.points[MIRROR] * (-1, 1) + (size - 1, 0)
        np.testing.assert_allclose(mirrored.points, expected, atol=1e-9)


@pytest.mark.parametrize(("style", "mirror"), [("cartoon", False), ("cartoon", True), ("sketch", False)])
def test_jaw_brows_and_nose_run_through_the_middle_of_what_is_drawn(style, mirror):
    """Where the picture changes across a line, sampled to a fraction of a pixel, is where the points say it is."""
    reach = np.arange(-4, 4.01, 0.25)  # pixels across the line
    for name, worst in (("jaw", 0.3), ("left_brow", 0.4), ("right_brow", 0.4), ("nose_bridge", 0.4)):
        group = next(list(group.indices) for group in LAYOUT.groups if group.name == name)
        shifts = []
        for index in range(30):
            sample = draw_face(index, seed=4, style=style, clean=True, mirror=mirror)
            line = sample.points[group]
            along = np.gradient(line, axis=0)
            normal = along[:, ::-1] * (-1, 1) / np.linalg.norm(along, axis=1, keepdims=True)
            at = (line[:, None] + reach[:, None] * normal[:, None]).astype(np.float32)  # (n, r, 2)
            profile = cv2.remap(sample.image.astype(np.float32), at[..., 0], at[..., 1], cv2.INTER_LINEAR)
            slope = (reach / 8 + 0.5)[:, None]
            # Skin on one side, what lies behind on the other.
            ends = profile[:, :1] * (1 - slope) + profile[:, -1:] * slope
            weight = np.square(profile - ends).sum(axis=2)
            centre = (weight * reach).sum(axis=1) / weight.sum(axis=1)
            shifts.extend((centre[:, None] * normal)[1:-1])
        shifts = np.array(shifts)
        assert np.abs(shifts.mean(axis=0)).max() < 0.1, f"{name} is drawn beside its points"
        assert np.linalg.norm(shifts, axis=1).mean() < worst, name


@pytest.mark.parametrize("style", STYLES)
def test_every_part_of_the_face_can_be_seen(style):
    contrast: dict[str, list[float]] = {group.name: [] for group in LAYOUT.groups}
    for index in range(30):
        sample = draw_face(index, seed=6, style=style, clean=True)
        grey = cv2.cvtColor(sample.image, cv2.COLOR_RGB2GRAY)
        around = np.ones((11, 11), np.uint8)
        local = cv2.dilate(grey, around).astype(float) - cv2.erode(grey, around)
        for group in LAYOUT.groups:
            x, y = np.rint(sample.points[list(group.indices)]).astype(int).T
            contrast[group.name].extend(local[y, x])
    for name, values in contrast.items():
        assert np.median(values) > 40, name
        assert np.mean(np.array(values) > 15) > 0.9, name


def test_the_mean_face_is_a_poor_guess():
    """A network that has learned nothing but the average must not look good on synthetic faces."""
    samples = draw_faces(100, seed=7, size=64)
    points = np.stack([sample.points for sample in samples])
    squares = crop_squares(np.stack([sample.box for sample in samples]), crop_scale=1.25)
    crops = [crop_of_square(square, 64) for square in squares]
    mean = np.mean([crop.to_unit(p) for crop, p in zip(crops, points, strict=True)], axis=0)
    guess = np.stack([crop.from_unit(mean) for crop in crops])
    eyes = np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)
    errors = np.linalg.norm(guess - points, axis=-1).mean(axis=1) / eyes
    assert 0.15 < errors.mean() < 0.3


def test_occluded_points_are_those_behind_a_prop_or_dark_glasses():
    samples = draw_faces(80, seed=8, size=64)
    hidden = [sample for sample in samples if sample.occluded.any()]
    assert 4 < len(hidden) < 27
    assert all(("occlusion" in sample.subsets) == sample.occluded.any() for sample in samples)
    assert max(sample.occluded.mean() for sample in hidden) < 0.6
    assert not any(draw_face(i, seed=8, size=64, clean=True).occluded.any() for i in range(80))


def test_reader_gives_the_same_faces():
    samples, bad = read_dataset("drawn", root=None, layout=LAYOUT, count=3, seed=9, size=64, style="sketch")
    assert len(bad) == 0
    expected = draw_faces(3, seed=9, size=64, style="sketch")
    assert all(np.array_equal(a.image, b.image) for a, b in zip(samples, expected, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"style": "oil"}, "no style 'oil'; there are cartoon, sketch"),
        ({"size": 20}, "at least 48"),
        ({"seed": -1}, "seed=-1"),
        ({"count": -1}, "count=-1"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        draw_faces(**{"count": 1, "seed": 0, **options})
    with pytest.raises(ValueError, match="not wflw_98"):
        read_dataset("drawn", root=None, layout=get_layout("wflw_98"))
