"""Videos along known paths: what is painted is where the matrices say."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.motion import move, moved, still, sway


def spots(size: tuple[int, int], places: list[tuple[float, float]], radius: float) -> np.ndarray:
    """Soft white spots on black, centred to a fraction of a pixel."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    light = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * radius**2)) for px, py in places)
    return np.repeat(np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def centre_of_light(frame: np.ndarray) -> np.ndarray:
    light = frame.astype(float).sum(axis=2)
    y, x = np.mgrid[: frame.shape[0], : frame.shape[1]]
    return np.array([(light * x).sum(), (light * y).sum()]) / light.sum()


@pytest.mark.parametrize("scale", [0.19, 0.4, 0.6, 1.0, 2.3])
def test_a_spot_is_painted_where_its_point_is(scale):
    place = (217.3, 162.6)
    photo = spots((403, 301), [place], radius=6 / scale if scale < 1 else 6)
    path = sway(12, (210.0, 170.0), scale, amplitude_px=30, degrees=25, zoom=1.2, size=(200, 150), period_s=0.5)
    true = moved(np.array([place]), path)[:, 0]
    found = np.array([centre_of_light(frame) for frame in move(photo, path, size=(200, 150))])
    assert true.std(axis=0).min() > 5
    np.testing.assert_allclose(found, true, atol=0.06)


def test_noise_is_as_asked_and_new_in_every_frame():
    grey = np.full((40, 50, 3), 120, dtype=np.uint8)
    path = still(3, (24.5, 19.5), 1.0, size=(50, 40))
    frames = np.array(list(move(grey, path, size=(50, 40), noise=6.0, seed=4))).astype(float) - 120
    assert 5.9 < frames.std() < 6.1
    assert abs(np.corrcoef(frames[0].ravel(), frames[1].ravel())[0, 1]) < 0.05
    assert abs(np.corrcoef(frames[0, ..., 0].ravel(), frames[0, ..., 1].ravel())[0, 1]) < 0.08
    again = np.array(list(move(grey, path, size=(50, 40), noise=6.0, seed=4))).astype(float) - 120
    np.testing.assert_array_equal(frames, again)


def test_a_still_face_shakes_as_much_as_asked():
    path = still(4000, (10.0, 10.0), 1.5, jitter_px=0.4, seed=1, size=(101, 81))
    places = moved(np.array([[10.0, 10.0]]), path)[:, 0]
    np.testing.assert_allclose(places.mean(axis=0), [50, 40], atol=0.03)
    np.testing.assert_allclose(places.std(axis=0), 0.4, atol=0.02)
    np.testing.assert_array_equal(path[:, :, :2], np.broadcast_to(1.5 * np.eye(2), (4000, 2, 2)))
    np.testing.assert_array_equal(still(3, (1, 2), 1.0)[0], still(3, (1, 2), 1.0)[2])


def test_sway_turns_and_zooms_as_far_as_asked():
    path = sway(600, (0.0, 0.0), 0.5, fps=100, amplitude_px=20, degrees=15, zoom=1.25, period_s=3.0)
    scales = np.sqrt(np.linalg.det(path[:, :, :2]))
    angles = np.rad2deg(np.arctan2(path[:, 1, 0], path[:, 0, 0]))
    assert scales.max() == pytest.approx(0.625, abs=1e-3)
    assert scales.min() == pytest.approx(0.4, abs=1e-3)
    assert angles.max() == pytest.approx(15, abs=0.01)
    assert angles.min() == pytest.approx(-15, abs=0.01)
    place = moved(np.zeros((1, 2)), path)[:, 0] - [319.5, 239.5]
    np.testing.assert_allclose(np.abs(place).max(axis=0), [20, 10], atol=0.01)
    speed = np.linalg.norm(np.diff(place, axis=0), axis=1).max() * 100
    assert speed == pytest.approx(2 * np.pi * 20 / 3 * np.sqrt(2), rel=0.01)


def test_one_photo_is_laid_upon_another():
    size = (60, 40)
    ground = move(np.full((40, 60, 3), 50, dtype=np.uint8), still(2, (29.5, 19.5), 1.0, size=size), size=size)
    patch = np.full((10, 10, 3), 250, dtype=np.uint8)
    frames = list(move(patch, still(2, (4.5, 4.5), 1.0, size=size), size=size, onto=ground))
    assert len(frames) == 2
    assert frames[0][20, 30].tolist() == [250] * 3
    assert frames[0][2, 2].tolist() == [50] * 3
    assert set(np.unique(frames[0])) == {50, 250}  # no dark rim where the patch ends
