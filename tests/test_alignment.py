"""Upright crops: the eyes where they belong, the pixels of the photo, and heads in profile kept whole."""

from __future__ import annotations

import numpy as np
import pytest

from pipnet.alignment import EYES_AT, eye_centres, upright_crops
from pipnet.data.synthetic.face import SyntheticFace
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import LAYOUTS, get_layout

L68 = get_layout("300w_68")


def faces_of(*points, layout=L68):
    n = layout.num_points
    return FaceLandmarks(np.stack(points), np.ones((len(points), n)), np.ones((len(points), 4)), layout)


def drawn(**more):
    return SyntheticFace(**({"centre": (320, 240), "extent": 200} | more)).points()


def eyes(points):
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0)])


@pytest.mark.parametrize(("roll", "extent"), [(-120, 20), (-30, 200), (0, 900), (180, 200)])
def test_eyes_come_to_their_places(roll, extent):
    points = drawn(roll=roll, extent=extent, yaw=10)
    crop = faces_of(points).upright_crops(112)[0]
    np.testing.assert_allclose(crop.to_unit(eyes(points)), EYES_AT, atol=1e-4)
    linear = crop.matrix[:, :2]
    np.testing.assert_allclose(linear @ linear.T, np.linalg.det(linear) * np.eye(2), atol=1e-9)  # a similarity
    assert np.linalg.det(linear) > 0  # not mirrored


def test_other_places_and_other_layouts():
    points = drawn(roll=15)
    (crop,) = upright_crops(points[None], L68, 96, eyes=((0.3, 0.5), (0.7, 0.6)))
    np.testing.assert_allclose(crop.to_unit(eyes(points)), [(0.3, 0.5), (0.7, 0.6)], atol=1e-6)
    for name in LAYOUTS:
        layout = get_layout(name)
        rng = np.random.default_rng(0)
        assert eye_centres(rng.uniform(0, 9, (3, layout.num_points, 2)), layout).shape == (3, 2, 2)


def test_pixels_of_the_photo_arrive_where_the_points_do():
    """Coloured discs on the eyes of a turned face are found at EYES_AT in the crop."""
    import cv2

    points = drawn(roll=40, extent=240)
    photo = np.full((480, 640, 3), 60, dtype=np.uint8)
    for (x, y), colour in zip(eyes(points), ((250, 0, 0), (0, 250, 0)), strict=True):
        cv2.circle(photo, (round(x * 16), round(y * 16)), 6 * 16, colour, -1, cv2.LINE_AA, 4)
    aligned = faces_of(points).align(photo, 160)
    assert aligned.shape == (1, 160, 160, 3)
    assert aligned.dtype == np.uint8
    for channel, (x, y) in enumerate(EYES_AT):
        rows, columns = np.nonzero(aligned[0, :, :, channel] > 150)
        other = aligned[0, :, :, 1 - channel][rows, columns]
        assert other.max() < 110
        assert columns.mean() == pytest.approx(x * 160 - 0.5, abs=0.5)
        assert rows.mean() == pytest.approx(y * 160 - 0.5, abs=0.5)


def test_a_profile_is_kept_whole():
    points = drawn()
    squeezed = points.copy()
    squeezed[36:48, 0] = points[36:48, 0].mean() + 0.02 * (points[36:48, 0] - points[36:48, 0].mean())
    crop = faces_of(squeezed).upright_crops(100)[0]
    unit = crop.to_unit(squeezed)
    assert unit.min() > -0.1
    assert unit.max() < 1.1
    np.testing.assert_allclose(crop.to_unit(eyes(squeezed)).mean(axis=0), np.mean(EYES_AT, axis=0), atol=1e-4)
    together = points.copy()
    together[36:48] = points[36:48].mean(axis=0)  # eyes on one spot: no direction, so the photo's own
    matrix = faces_of(together).upright_crops(100)[0].matrix
    assert matrix[0, 0] > 0
    np.testing.assert_allclose(matrix[[0, 1], [1, 0]], 0, atol=1e-9)


def test_wrong_input_is_one_sentence():
    good = drawn()
    photo = np.zeros((480, 640, 3), np.uint8)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        faces_of(good).align(photo, 0)
    for bad in (np.full((68, 2), np.nan), np.full((68, 2), 4.0)):
        with pytest.raises(ValueError, match="face 1: its points are not finite or lie on one spot"):
            faces_of(good, bad).align(photo, 64)
    for wrong in (photo[..., 0], photo.astype(float), "photo.jpg", photo[:0]):
        with pytest.raises(ValueError, match="align needs"):
            faces_of(good).align(wrong, 64)
    with pytest.raises(ValueError, match="two different places"):
        upright_crops(good[None], L68, 64, eyes=((0.5, 0.4), (0.5, 0.4)))
