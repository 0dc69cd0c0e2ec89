"""Boxes and crops: the inverse is exact, and a picture is cut exactly where the points are sent."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipnet.geometry import (
    affine_crop,
    angle_between,
    box_corners,
    box_iou,
    box_size,
    boxes_seen_turned,
    crop_of_square,
    crop_squares,
    roll_angles,
    scale_boxes,
    tight_box,
    turned,
)
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import PointLayout

POSITION = st.floats(-3000, 3000)
SIDE = st.floats(8, 4000)


@st.composite
def crops(draw):
    side = draw(SIDE)
    return affine_crop(
        np.array([draw(POSITION), draw(POSITION)]),
        (side, side * draw(st.floats(0.7, 1.4))),
        draw(st.sampled_from([1, 2, 63, 64, 128, 256])),
        angle=draw(st.floats(-180, 180)),
        mirror=draw(st.booleans()),
    )


@given(crops(), st.lists(st.tuples(POSITION, POSITION), min_size=1, max_size=5))
def test_the_way_back_is_exact(crop, points):
    points = np.array(points)
    scale = 1 / np.abs(crop.matrix[:, :2]).max()
    np.testing.assert_allclose(crop.to_source(crop.to_crop(points)), points, atol=1e-8 * max(scale, 1))
    np.testing.assert_allclose(crop.from_unit(crop.to_unit(points)), points, atol=1e-8 * max(scale, 1) * crop.size)
    np.testing.assert_allclose(crop.to_unit(points) * crop.size, crop.to_crop(points) + 0.5, rtol=1e-9, atol=1e-7)


@given(POSITION, POSITION, SIDE, st.floats(-90, 90), st.sampled_from([1, 64, 255]))
def test_mirroring_is_size_minus_one_minus_x(x, y, side, angle, size):
    arguments = (np.array([x, y]), (side, side * 1.2), size)
    plain = affine_crop(*arguments, angle=angle)
    mirrored = affine_crop(*arguments, angle=angle, mirror=True)
    points = np.array([[x + 3.25, y - 7.5], [x - side, y + 1.0]])
    there = plain.to_crop(points)
    np.testing.assert_allclose(mirrored.to_crop(points), there * (-1, 1) + (size - 1, 0), atol=1e-6)


def test_stretched_then_turned_clockwise():
    crop = affine_crop(np.array([0.0, 0.0]), (100.0, 50.0), 100, angle=90)
    np.testing.assert_allclose(crop.to_crop(np.array([50.0, 0.0])), [49.5, 49.5 + 50], atol=1e-9)
    np.testing.assert_allclose(crop.to_crop(np.array([0.0, 25.0])), [49.5 - 50, 49.5], atol=1e-9)


def blob(width: int, height: int, centre: np.ndarray, sigma: float) -> np.ndarray:
    """A bright spot whose centre of mass lies at ``centre`` to a hundredth of a pixel."""
    x = np.exp(-((np.arange(width) - centre[0]) ** 2) / (2 * sigma**2))
    y = np.exp(-((np.arange(height) - centre[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.rint(250 * np.outer(y, x)).astype(np.uint8)[..., None], 3, axis=2)


def mass_centre(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


# Side of the square in source pixels: enlarged 4 times, as it is, shrunk 1.9, 2.0, 3.9, 7.3 and 15.6 times.
SIDES = (16.0, 64.0, 121.6, 128.0, 249.6, 467.2, 998.4)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("angle", "mirror"), [(0, False), (0, True), (27, False), (-63, True)])
def test_the_picture_goes_where_the_points_go(side, angle, mirror):
    rng = np.random.default_rng(int(side))
    size, scale = 64, side / 64
    off = []
    for _ in range(12):
        width, height = int(side * 1.6) + rng.integers(0, 9), int(side * 1.5) + rng.integers(0, 9)
        centre = np.array([width, height]) / 2 + rng.uniform(-0.1, 0.1, 2) * side
        spot = centre + rng.uniform(-0.2, 0.2, 2) * side
        crop = affine_crop(centre, (side, side), size, angle=angle, mirror=mirror)
        seen = crop.warp(blob(width, height, spot, sigma=2.5 * scale))
        off.append(mass_centre(seen) - crop.to_crop(spot))
    off = np.array(off)
    assert np.abs(off).max() < 0.1, "pixels of the crop"
    assert np.abs(off.mean(axis=0)).max() < 0.05, "a constant shift, pixels of the crop"


@pytest.mark.parametrize("side", [64.0, 300.0, 1000.0])
@pytest.mark.parametrize("beyond", [(-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1)])
def test_a_box_partly_outside_the_photo_is_padded_and_keeps_its_place(side, beyond):
    size, scale = 64, side / 64
    width = height = int(side * 1.3)
    edge = np.array([width, height]) / 2 * (1 + np.array(beyond)) - 0.5  # on the photo's edge, or its middle
    crop = crop_of_square(np.array([*edge, side]), size)
    spot = edge - np.array(beyond) * side * 0.25
    seen = crop.warp(blob(width, height, spot, sigma=2.0 * scale))
    assert np.abs(mass_centre(seen) - crop.to_crop(spot)).max() < 0.1

    flat = crop.warp(np.full((height, width, 3), 200, np.uint8), border=(9, 8, 7))
    y, x = np.mgrid[:size, :size]
    at = crop.to_source(np.stack([x, y], axis=-1).astype(float))
    inside = ((at > 0) & (at < (width - 1, height - 1))).all(axis=-1)
    outside = ((at < -scale - 1) | (at > (width + scale, height + scale))).any(axis=-1)
    assert inside.any()
    assert outside.any()
    assert (flat[outside] == (9, 8, 7)).all()
    deep = ((at > scale) & (at < (width - 1 - scale, height - 1 - scale))).all(axis=-1)
    assert (flat[deep] == 200).all()


@pytest.mark.parametrize("photo", [500, 501, 502, 503, 1007])
def test_the_photo_is_shown_up_to_its_last_pixel(photo):
    square = np.array([(photo - 1) / 2, (photo - 1) / 2, float(photo)])
    assert crop_of_square(square, 125).warp(np.full((photo, photo, 3), 200, np.uint8)).min() >= 199
    image = np.random.default_rng(0).integers(0, 256, (photo, photo, 3), dtype=np.uint8)
    assert np.array_equal(crop_of_square(square, photo).warp(image), image)


def test_a_box_wholly_outside_shows_the_border_only():
    image = np.full((50, 60, 3), 200, np.uint8)
    for side in (20.0, 500.0):
        crop = crop_of_square(np.array([2000.0, -1500.0, side]), 64)
        assert (crop.warp(image, border=(1, 2, 3)) == (1, 2, 3)).all()
    smaller_than_a_block = np.full((3, 3, 3), 255, np.uint8)
    assert crop_of_square(np.array([1.0, 1.0, 640.0]), 64).warp(smaller_than_a_block).shape == (64, 64, 3)


def test_large_faces_do_not_alias():
    """Stripes one pixel wide, seen from far away, are grey: no false pattern."""
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 254
    seen = crop_of_square(np.array([511.5, 511.5, 900.0]), 64).warp(stripes)
    assert np.abs(seen.astype(int) - 127).max() <= 25


# Boxes, by hand.


def test_tight_box_leaves_unlabelled_points_out():
    points = np.array([[3.0, 9.0], [np.nan, np.nan], [-1.5, 12.0], [2.0, 10.0]])
    assert tight_box(points).tolist() == [-1.5, 9.0, 3.0, 12.0]
    assert tight_box(np.stack([points, points + 1])).shape == (2, 4)
    assert np.isfinite(tight_box(points, 30.0)).all()
    assert box_size(np.array([[1.0, 1.0, 3.0, 9.0], [0.0, 0.0, 5.0, 5.0]])).tolist() == [4.0, 5.0]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 5, 15, 15], 25 / 175),
        ([0, 0, 10, 10], [2, 2, 4, 8], 12 / 100),  # inside
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),  # touching
        ([0, 0, 10, 10], [11, 11, 12, 12], 0.0),
        ([3, 3, 3, 3], [3, 3, 3, 3], 0.0),  # no area, no division by zero
    ],
)
def test_box_iou(a, b, expected):
    a, b = np.array([a], dtype=float), np.array([b], dtype=float)
    assert box_iou(a, b)[0, 0] == pytest.approx(expected)
    assert box_iou(b, a)[0, 0] == pytest.approx(expected)
    assert box_iou(a[:0], np.repeat(b, 3, axis=0)).shape == (0, 3)


@pytest.mark.parametrize(
    ("box", "scale", "expected"),
    [
        ([0, 0, 100, 50], 1.0, [50, 25, 100]),  # the longer side counts
        ([0, 0, 50, 100], 1.2, [25, 50, 120]),
        ([-20, -10, 0, 30], 0.5, [-10, 10, 20]),
        ([5, 5, 5, 9], 1.0, [5, 7, 4]),  # a line has an extent
    ],
)
def test_crop_squares(box, scale, expected):
    np.testing.assert_allclose(crop_squares(np.array(box), scale), [expected])
    assert crop_squares(np.zeros((0, 4)), scale).shape == (0, 3)


@pytest.mark.parametrize("bad", [[5, 5, 5, 5], [0, 0, np.nan, 4], [9, 9, 3, 3], [9, 3, 3, 9], [0, 0, np.inf, 1]])
def test_crop_squares_names_the_box_without_extent(bad):
    with pytest.raises(ValueError, match=r"box 1 .* has no extent"):
        crop_squares(np.array([[0, 0, 1, 1], bad], dtype=float), 1.0)


# Turned boxes. Clockwise in the picture, y down.

ANGLE = st.floats(-720, 720)
SHAPE = np.array([[-3.0, -2.0], [3.0, -2.0], [0.5, 1.0], [-1.0, 4.0]])


@st.composite
def boxes_(draw):
    x, y, width, height = draw(POSITION), draw(POSITION), draw(SIDE), draw(SIDE)
    return np.array([x, y, x + width, y + height])


@given(ANGLE, ANGLE, POSITION, POSITION)
def test_turning_keeps_lengths_and_adds_up(a, b, x, y):
    vector = np.array([x, y])
    assert np.linalg.norm(turned(vector, a)) == pytest.approx(np.hypot(x, y), abs=1e-8)
    np.testing.assert_allclose(turned(turned(vector, a), b), turned(vector, a + b), atol=1e-7)
    np.testing.assert_allclose(turned(np.stack([vector] * 2), np.array([a, b]))[1], turned(vector, b), atol=1e-9)
    np.testing.assert_allclose(turned(vector, 90), [-y, x], atol=1e-9)


@given(ANGLE, st.lists(st.tuples(POSITION, POSITION), min_size=2, max_size=6))
def test_a_turned_tight_box_is_the_tight_box_where_the_face_is_upright(angle, points):
    points = np.array(points)
    box, frame = tight_box(points, angle), tight_box(turned(points, -angle))
    np.testing.assert_allclose(box[2:] - box[:2], frame[2:] - frame[:2], atol=1e-7)
    centre = turned((frame[:2] + frame[2:]) / 2, angle)
    np.testing.assert_allclose((box[:2] + box[2:]) / 2, centre, atol=1e-7)
    # Its corners hold the points, and each side touches one.
    corners = turned(box_corners(box, angle), -angle)
    np.testing.assert_allclose(tight_box(corners), frame, atol=1e-6)
    many = tight_box(np.stack([points, points]), np.array([angle, 0.0]))
    np.testing.assert_allclose(many, [box, tight_box(points)], atol=1e-9)


@given(boxes_(), ANGLE, st.floats(0.1, 10))
def test_corners_and_scaling_keep_the_centre(box, angle, factor):
    corners, centre = box_corners(box, angle), (box[:2] + box[2:]) / 2
    np.testing.assert_allclose(corners.mean(axis=0), centre, atol=1e-6)
    width, height = box[2:] - box[:2]
    sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
    np.testing.assert_allclose(sides, [width, height, width, height], rtol=1e-9)
    np.testing.assert_allclose(box_corners(box, 0.0)[[0, 2]].ravel(), box, atol=1e-9)
    scaled = scale_boxes(box, factor)
    np.testing.assert_allclose((scaled[:2] + scaled[2:]) / 2, centre, atol=1e-6)
    assert box_size(scaled) == pytest.approx(factor * box_size(box))


@given(boxes_(), ANGLE, st.floats(0.5, 2))
def test_an_upright_box_seen_turned_keeps_centre_and_area(box, angle, aspect):
    seen = boxes_seen_turned(box, angle, aspect)
    np.testing.assert_allclose(seen[:2] + seen[2:], box[:2] + box[2:], atol=1e-6)
    assert box_size(seen) == pytest.approx(box_size(box))
    (width, height), (across, down) = box[2:] - box[:2], seen[2:] - seen[:2]
    own = max(width / height, height / width, aspect, 1 / aspect)
    assert 1 / own - 1e-9 <= across / down <= own + 1e-9
    np.testing.assert_allclose(boxes_seen_turned(box, angle + 180, aspect), seen, atol=1e-5)


@pytest.mark.parametrize(("by", "sides"), [(0, (4, 9)), (90, (9, 4)), (-90, (9, 4)), (180, (4, 9)), (45, (3, 12))])
def test_what_a_box_says_of_width_and_height(by, sides):
    """All in its own frame, all the other way round at right angles, and half way what is usual: a quarter here."""
    seen = boxes_seen_turned(np.array([0.0, 0, 4, 9]), by, aspect=0.25)
    np.testing.assert_allclose(seen[2:] - seen[:2], sides, atol=1e-9)


@given(st.floats(-179.9, 179.9), st.floats(0.01, 100), POSITION, POSITION)
def test_the_roll_of_a_turned_shape_is_its_turn(angle, scale, x, y):
    seen = scale * turned(SHAPE, angle) + (x, y)
    assert angle_between(roll_angles(seen, SHAPE * 7 + 3), angle) == pytest.approx(0, abs=1e-4)
    assert roll_angles(np.stack([seen] * 2).astype(np.float32), SHAPE).shape == (2,)
    assert roll_angles(SHAPE * 0, SHAPE) == pytest.approx(0)
    assert roll_angles(np.zeros((0, 4, 2)), SHAPE).shape == (0,)


@given(ANGLE, ANGLE)
def test_the_shorter_way_between_two_angles(a, b):
    way = angle_between(a, b)
    assert -180 <= way < 180
    np.testing.assert_allclose(turned(np.array([1.0, 0.0]), b + way), turned(np.array([1.0, 0.0]), a), atol=1e-9)


@given(POSITION, POSITION, SIDE, ANGLE, st.sampled_from([1, 64, 255]))
def test_a_crop_with_an_angle_shows_the_turned_square_upright(x, y, side, angle, size):
    crop = crop_of_square(np.array([x, y, side]), size, angle)
    corners = box_corners(np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2]), angle)
    np.testing.assert_allclose(crop.to_unit(corners), [[0, 0], [1, 0], [1, 1], [0, 1]], atol=1e-7)
    np.testing.assert_allclose(crop.from_unit(crop.to_unit(corners)), corners, atol=1e-6)
    expected = affine_crop(np.array([x, y]), (side, side), size, angle=-angle)
    np.testing.assert_allclose(crop.matrix, expected.matrix, rtol=1e-9, atol=1e-6)


@given(POSITION, POSITION, SIDE, st.floats(-180, 180), ANGLE, st.booleans())
def test_a_tilted_region_is_made_upright_before_all_else(x, y, side, angle, tilt, mirror):
    """Stretched along its own axes: a turned photo with a region turned with it gives the same crop."""
    how = {"angle": angle, "mirror": mirror}
    points = np.array([[x, y], [x + side, y], [x, y + side / 3]])
    upright = affine_crop(np.array([x, y]), (side, 1.4 * side), 64, **how).to_unit(points)
    centre = turned(np.array([x, y]), tilt)
    tilted = affine_crop(centre, (side, 1.4 * side), 64, tilt=tilt, **how).to_unit(turned(points, tilt))
    np.testing.assert_allclose(tilted, upright, atol=1e-6)


# The warp reads the region under the crop and nothing else, and gives what a warp of the whole photo would.

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
