"""Head poses of heads whose pose is known: made ones, drawn ones, and photos with their mirror images."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pipnet.data.synthetic.face import SyntheticFace
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import get_layout
from pipnet.measurements import TEMPLATE_MM, TEMPLATE_POINTS, from_line_of_sight, rotation_of, solve_pose

L68 = get_layout("300w_68")
RECORD = Path(__file__).resolve().parent.parent / "experiments" / "head_pose"


def seen(yaw, pitch, roll, *, size=(640, 480), focal=640.0, at=(0.0, 0.0, 600.0)):
    """The template before a camera, turned from the line of sight, ``(68, 2)``; other points are zero."""
    points = np.zeros((68, 2))
    towards = from_line_of_sight(np.eye(3)[None], np.array([at], dtype=float))[0]
    camera = TEMPLATE_MM @ (towards.T @ rotation_of(yaw, pitch, roll)).T + at
    points[TEMPLATE_POINTS] = camera[:, :2] / camera[:, 2:] * focal + (np.array(size) - 1) / 2
    return points


def faces_of(*points):
    return FaceLandmarks(np.stack(points), np.ones((len(points), 68)), np.ones((len(points), 4)), L68)


def test_exact_points_give_the_exact_pose():
    angles = list(product([-85, -40, 0, 15, 60], [-40, 0, 25], [-170, -45, 0, 30]))
    found = faces_of(*(seen(*of, at=(120, -80, 700)) for of in angles)).head_pose((640, 480))
    np.testing.assert_allclose(found, angles, atol=0.01)


def test_rotation_and_translation_put_the_template_where_it_is_seen():
    points = seen(30, 10, -20, at=(50, 30, 900))
    rotations, translations = solve_pose(points[None], (640, 480))
    np.testing.assert_allclose(translations[0], [50, 30, 900], rtol=1e-3)
    camera = TEMPLATE_MM @ rotations[0].T + translations[0]
    again = camera[:, :2] / camera[:, 2:] * 640 + [319.5, 239.5]
    np.testing.assert_allclose(again, points[TEMPLATE_POINTS], atol=1e-3)


def test_the_line_of_sight_goes_to_the_head():
    places = np.random.default_rng(0).uniform([-800, -500, 300], [800, 500, 900], (50, 3))
    turns = from_line_of_sight(np.tile(np.eye(3), (50, 1, 1)), places)
    np.testing.assert_allclose(np.linalg.det(turns), 1)
    length = np.linalg.norm(places, axis=1)
    np.testing.assert_allclose(np.einsum("fij,fj->fi", turns, places), np.outer(length, [0, 0, 1]), atol=1e-9)
    angle = np.arccos((np.trace(turns, axis1=1, axis2=2) - 1) / 2)
    np.testing.assert_allclose(angle, np.arccos(places[:, 2] / length), atol=1e-6)  # the shortest turn


def test_a_wrong_focal_length_costs_little_even_at_the_edge_and_the_default_is_the_longer_side():
    for focal in (450, 1500):
        points = seen(20, -10, 5, focal=focal, at=(0.35 * 640 / focal * 900, 0, 900))
        faces = faces_of(points)
        np.testing.assert_allclose(faces.head_pose((640, 480)), [[20, -10, 5]], atol=2.5)
        np.testing.assert_allclose(faces.head_pose((640, 480), focal=focal), [[20, -10, 5]], atol=0.01)
    upright = seen(20, 0, 0, size=(480, 640), at=(100, -150, 500))
    np.testing.assert_allclose(faces_of(upright).head_pose((480, 640)), [[20, 0, 0]], atol=0.01)


def test_signs_on_synthetic_faces():
    """The synthetic faces have a template and a camera of their own: only signs and rough sizes can agree."""
    straight = faces_of(SyntheticFace(centre=(320, 240), extent=160).points()).head_pose((640, 480))[0]
    for axis, name in enumerate(("yaw", "pitch", "roll")):
        for degrees in (-25, 25):
            drawn = SyntheticFace(centre=(320, 240), extent=160, **{name: degrees}).points()
            change = faces_of(drawn).head_pose((640, 480))[0] - straight
            assert 0.4 < change[axis] / degrees < 1.6, name
            assert np.abs(np.delete(change, axis)).max() < 10, name


def test_a_mirrored_face_negates_yaw_and_roll():
    points = np.random.default_rng(0).normal(0, 2, (68, 2)) + seen(35, 12, -25, at=(60, 40, 600))
    mirrored = points.copy()
    mirrored[:, 0] = 639 - points[:, 0]
    mirrored = mirrored[list(L68.mirror)]
    a, b = faces_of(points, mirrored).head_pose((640, 480))
    np.testing.assert_allclose(b, a * [-1, 1, -1], atol=1e-3)


def test_noise_never_turns_a_face_around():
    rng = np.random.default_rng(0)
    angles = rng.uniform(-1, 1, (100, 3)) * [75, 40, 45]
    points = np.stack([seen(*of) for of in angles]) + rng.normal(0, 4, (100, 68, 2))  # about 4 % of the eye distance
    error = np.abs(faces_of(*points).head_pose((640, 480)) - angles)
    assert error.max() < 30
    assert np.median(error, axis=0).max() < 3


def test_unusable_input_is_named():
    good, lost, spot = seen(0, 0, 0), np.full((68, 2), np.nan), np.full((68, 2), 7.0)
    for bad in (lost, spot):
        with pytest.raises(ValueError, match="face 1: its points are not finite or lie on one spot"):
            faces_of(good, bad).head_pose((640, 480))
    for size, focal in (((0, 480), None), ((640, 480), 0.0), ((640, 480), float("nan"))):
        with pytest.raises(ValueError, match="image_size must be"):
            faces_of(good).head_pose(size, focal=focal)


@pytest.mark.parametrize("points", [np.random.default_rng(1).uniform(0, 5, (68, 2)), np.arange(136.0).reshape(68, 2)])
def test_points_that_are_no_face_give_finite_angles(points):
    assert np.isfinite(faces_of(points).head_pose((640, 480))).all()


def test_the_template_is_the_one_of_the_record():
    fitted = json.loads((RECORD / "template.json").read_text())["template_mm"]
    template = {int(point): xyz for point, xyz in zip(TEMPLATE_POINTS, TEMPLATE_MM.tolist(), strict=True)}
    assert len(template) == 23
    for point, xyz in fitted.items():
        assert template[int(point)] == pytest.approx(xyz), point
        x, y, z = template[L68.mirror[int(point)]]
        assert [-x, y, z] == pytest.approx(xyz), point


def test_the_record_has_no_flips_and_few_wrong_signs_and_says_where_the_portrait_looks():
    metrics = json.loads((RECORD / "metrics.json").read_text())
    for name, of in metrics["made"]["by_setting"].items():
        assert of["flips"] == 0, name
        assert of["wrong_sign"] <= 0.01 * of["clear"], name
    portrait = metrics["portrait"]
    readme = " ".join((RECORD / "README.md").read_text().split())
    assert f"as looking {portrait['camera_axes'][1]:.0f}° down" in readme
    assert f"from the line of sight it is {portrait['line_of_sight'][1]:.0f}°" in readme


@pytest.mark.data
def test_real_faces_and_their_mirror_images():
    from pipnet.data.datasets import read_dataset
    from pipnet.data.images import read_image
    from pipnet.inference.landmarker import FaceLandmarker

    root = Path(os.environ["PIPNET_DATA"]) / "300W"
    samples, _ = read_dataset("300w", root=root, layout=L68, part="train", validation="only")
    landmarker = FaceLandmarker.load(device="cpu")
    differences = []
    for sample in samples[::10]:
        image = read_image(sample.image)
        height, width = image.shape[:2]
        x0, y0, x1, y1 = sample.box
        boxes = [sample.box, [width - 1 - x1, y0, width - 1 - x0, y1]]
        a, b = landmarker([image, image[:, ::-1]], boxes=boxes)
        differences.append(b.head_pose((width, height))[0] * [-1, 1, -1] - a.head_pose((width, height))[0])
    assert np.median(np.abs(differences), axis=0).max() < 1.5
    assert np.abs(differences).max() < 8
