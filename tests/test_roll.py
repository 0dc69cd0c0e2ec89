"""Faces at every angle: a network that knows upright faces only, and the one that ships on a turned portrait."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from pipnet.demo import command, main
from pipnet.geometry import angle_between, box_size, tight_box, turned
from pipnet.inference.detections import Calibration, Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import PointLayout

LAYOUT = PointLayout("three", 3, mirror=(1, 0, 2), norm_pair=(0, 1))
FACE = np.array([[-30.0, -20.0], [30.0, -20.0], [0.0, 40.0]])  # a red eye, a green one, a blue mouth; pixels
SURE, UNSURE = 0.95, 0.1
ANGLES = range(0, 360, 30)
# As fractions of the crops around their tight boxes.
_BOX = np.concatenate([FACE.min(axis=0), FACE.max(axis=0)])
MEAN_FACE = 0.5 + (FACE - (_BOX[:2] + _BOX[2:]) / 2) / (2.2 * (_BOX[2:] - _BOX[:2]).max())


class UprightOnly:
    """A network that finds three spots in a crop, if they are tilted by 50 degrees at most; else it makes them up."""

    input_size = 96

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.batches.append(len(crops))
        at = (np.arange(self.input_size) + 0.5) / self.input_size
        weights = crops.astype(np.float64) + 1e-9
        total = weights.sum(axis=(1, 2))
        x = np.einsum("bijc,j->bc", weights, at) / total
        y = np.einsum("bijc,i->bc", weights, at) / total
        points = np.stack([x, y], axis=2)
        across = points[:, 1] - points[:, 0]
        tilt = np.abs(np.rad2deg(np.arctan2(across[:, 1], across[:, 0])))
        sure = (tilt <= 50) & (crops.max(axis=(1, 2)) > 20).all(axis=1)
        points[~sure] = FACE / 150 + 0.5
        face_scores = np.where(sure, SURE - tilt / 500, UNSURE)
        return points, np.repeat(face_scores[:, None], 3, axis=1), face_scores


def face_at(angle: float, place: tuple[float, float] = (160.0, 120.0)) -> np.ndarray:
    return turned(FACE, angle) + place


def picture(*faces: np.ndarray, size: tuple[int, int] = (320, 240)) -> np.ndarray:
    """Spots on black, exact to a hundredth of a pixel."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    image = np.zeros((size[1], size[0], 3))
    for points in faces:
        for channel, (px, py) in enumerate(points):
            image[..., channel] += 250 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 3.0**2))
    return np.rint(image.clip(0, 255)).astype(np.uint8)


def never(image: np.ndarray) -> Detections:
    raise AssertionError("the detector ran although boxes were given")


@pytest.fixture
def network() -> UprightOnly:
    return UprightOnly()


@pytest.fixture
def landmarker(network) -> FaceLandmarker:
    return FaceLandmarker(network, layout=LAYOUT, crop_scale=2.2, mean_face=MEAN_FACE, detector=never)


@pytest.mark.parametrize("angle", ANGLES)
def test_every_angle_gives_the_points_and_the_angle(landmarker, network, angle):
    true = face_at(angle)
    faces = landmarker(picture(true), boxes=tight_box(true))
    np.testing.assert_allclose(faces.points[0], true, atol=0.5)
    assert angle_between(landmarker.rolls(faces.points)[0], angle) == pytest.approx(0, abs=1)
    assert angle_between(faces.angles[0], angle) == pytest.approx(0, abs=16)  # nearer is not looked at again
    assert faces.face_scores[0] > 0.9
    assert network.batches[:2] == [1, 3][: len(network.batches)] or network.batches == [1, 1]
    # The last look can be had again: its box and angle are in the result.
    network.batches.clear()
    again = landmarker(picture(true), faces.boxes, faces.angles)
    np.testing.assert_allclose(again.points, faces.points, atol=0.02)
    np.testing.assert_array_equal(again.angles, faces.angles)
    assert network.batches == [1]
    told = landmarker(picture(true), boxes=faces)  # a result is taken for what it is: boxes that are turned
    np.testing.assert_allclose(told.points, faces.points, atol=0.02)


@pytest.mark.parametrize("angle", ANGLES)
def test_a_given_angle_is_looked_at_once(landmarker, network, angle):
    true = face_at(angle)
    box = tight_box(true, angle)
    faces = landmarker(picture(true), boxes=box, angles=angle)
    assert network.batches == [1]
    np.testing.assert_allclose(faces.points[0], true, atol=0.5)
    np.testing.assert_allclose(faces.boxes[0], box, atol=1e-4)
    assert faces.angles.tolist() == [angle]
    batch = landmarker.predict_batch([picture(true)], [box], angles=[angle])
    np.testing.assert_array_equal(batch.points, faces.points)


def test_an_upright_face_costs_one_look_and_a_wrong_angle_is_the_callers(landmarker, network):
    true = face_at(-14.0)
    faces = landmarker(picture(true), boxes=tight_box(true))
    assert network.batches == [1]
    assert faces.angles.tolist() == [0.0]
    wrong = landmarker(picture(face_at(180)), boxes=tight_box(face_at(180)), angles=0)
    assert wrong.face_scores[0] == pytest.approx(UNSURE)
    assert network.batches == [1, 1]


def test_all_unsure_faces_of_all_photos_go_in_one_batch(landmarker, network):
    """Upright, upside down, on its side, and one that somebody knows; two photos of different size."""
    places = [(100.0, 100.0), (320.0, 110.0), (540.0, 130.0)]
    first = [face_at(angle, place) for angle, place in zip((0, 180, 90), places, strict=True)]
    second = [face_at(-90), face_at(-90, (470.0, 150.0))]
    photos = [picture(*first, size=(640, 240)), picture(*second, size=(600, 300))]
    boxes = [[tight_box(face) for face in first], [tight_box(second[0]), tight_box(second[1], -90.0)]]
    found = landmarker(photos, boxes, angles=[None, [np.nan, -90.0]])
    assert network.batches == [5, 3 * 3]  # quarter turns are upright here: no further look
    for faces, true in zip(found, (first, second), strict=True):
        np.testing.assert_allclose(faces.points, true, atol=0.5)
    assert [faces.angles.tolist() for faces in found] == [[0, -180, 90], [-90, -90]]


def test_what_is_no_face_ends(landmarker, network):
    """Never sure: other turns, a smaller box, the points of all these looks and of the surest of them, and no more."""
    nobody = np.zeros((240, 320, 3), np.uint8)
    nobody[:, ::9] = 200, 0, 0  # red stripes: no eyes, no mouth
    faces = landmarker(nobody, boxes=[100, 60, 220, 180])
    assert faces.face_scores[0] == pytest.approx(UNSURE)
    assert network.batches == [1, 3, 4, 7, 1, 1, 1]
    assert np.isfinite(faces.points).all()


class Faint(UprightOnly):
    """One that gives next to no score to a face that fills too little of its crop, though it sees where it is."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def __call__(self, crops):
        points, scores, face_scores = super().__call__(crops)
        small = np.ptp(points, axis=1).max(axis=1) < 0.9 / 2.2
        face_scores = np.where(face_scores < 0.5, 0.01, np.where(small, self.score, face_scores))
        return points, scores, face_scores


@pytest.mark.parametrize("score", [0.05, 0.005], ids=["the largest there is", "not even the largest"])
def test_a_face_is_found_by_way_of_a_score_that_says_nothing(score):
    landmarker = FaceLandmarker(Faint(score), layout=LAYOUT, crop_scale=2.2, mean_face=MEAN_FACE, detector=never)
    true = face_at(180)
    wide = tight_box(true) + np.array([-30, -30, 30, 30])
    faces = landmarker(picture(true), boxes=wide)
    assert faces.face_scores[0] > 0.9
    np.testing.assert_allclose(faces.points[0], true, atol=0.5)


def test_a_face_that_ends_with_a_score_that_says_nothing_keeps_its_first_look():
    class NeverSure(UprightOnly):
        def __call__(self, crops):
            points, scores, face_scores = super().__call__(crops)
            return points, scores, face_scores / 10

    landmarker = FaceLandmarker(NeverSure(), layout=LAYOUT, crop_scale=2.2, mean_face=MEAN_FACE, detector=never)
    box = tight_box(face_at(180))
    faces = landmarker(picture(face_at(180)), boxes=box)
    upright = landmarker(picture(face_at(180)), boxes=box, angles=0)
    np.testing.assert_array_equal(faces.boxes, upright.boxes)
    assert (faces.angles[0], faces.face_scores[0]) == (0, upright.face_scores[0])
    np.testing.assert_array_equal(faces.points, upright.points)


def test_without_a_mean_face_nothing_is_turned(network):
    plain = FaceLandmarker(network, layout=LAYOUT, crop_scale=2.2, detector=never)
    faces = plain(picture(face_at(90)), boxes=tight_box(face_at(90)))
    assert network.batches == [1]
    assert faces.angles.tolist() == [0.0]
    assert plain.rolls(faces.points).tolist() == [0.0]
    given = plain(picture(face_at(90)), boxes=tight_box(face_at(90), 90.0), angles=90)
    np.testing.assert_allclose(given.points[0], face_at(90), atol=0.5)


@pytest.mark.parametrize(
    ("angles", "message"),
    [
        ([0, 0], r"angles must be one number of degrees a box, .* got \(2,\) for 1 boxes"),
        ([[0]], r"got \(1, 1\) for 1 boxes"),
        (np.inf, "and an infinite one"),
        ("upright", "angles must be numbers, one a box"),
    ],
)
def test_bad_angles_are_one_sentence(landmarker, angles, message):
    image, box = picture(face_at(0)), tight_box(face_at(0))
    with pytest.raises(ValueError, match=message) as caught:
        landmarker(image, boxes=box, angles=angles)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^photo 0: .*" + message):
        landmarker([image], boxes=[box], angles=[angles])
    with pytest.raises(ValueError, match="many photos need one entry of angles each, got 1 photos and"):
        landmarker([image], boxes=[box], angles=30.0)


def test_a_detectors_box_is_calibrated_for_the_angle_that_the_caller_gives(network):
    calibration = Calibration(shift=(0.0, 0.25), scale=(1.0, 0.5))
    upright = np.array([-30.0, -80.0, 30.0, 40.0])  # around FACE, and as high again
    box = tight_box(turned(upright.reshape(2, 2), 90.0)) + np.tile([160.0, 120.0], 2)

    def detector(image: np.ndarray) -> Detections:
        return Detections.calibrated(box[None], np.ones(1), calibration)

    landmarker = FaceLandmarker(network, layout=LAYOUT, crop_scale=2.2, mean_face=MEAN_FACE, detector=detector)
    for faces in (landmarker(picture(face_at(90)), angles=90), landmarker([picture(face_at(90))], angles=[90])[0]):
        np.testing.assert_allclose(faces.boxes[0], tight_box(face_at(90), 90.0), atol=1e-4)
        np.testing.assert_allclose(faces.points[0], face_at(90), atol=0.5)
    np.testing.assert_allclose(landmarker(picture(face_at(90))).points[0], face_at(90), atol=0.5)


# The weights that ship, on the public-domain portrait.


def portrait_turned(degrees: float, points: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """The portrait turned clockwise about its middle, nothing cut off, and where points of it go."""
    image = astronaut()
    old = (np.array([image.shape[1], image.shape[0]]) - 1) / 2
    side = int(np.ceil(image.shape[0] * (abs(np.cos(np.deg2rad(degrees))) + abs(np.sin(np.deg2rad(degrees)))) - 1e-6))
    new = np.array([side - 1, side - 1]) / 2
    linear = turned(np.eye(2), degrees).T
    seen = cv2.warpAffine(image, np.column_stack([linear, new - linear @ old]), (side, side), flags=cv2.INTER_CUBIC)
    return seen, None if points is None else turned(points - old, degrees) + new


@pytest.fixture(scope="module")
def upright(shipped) -> FaceLandmarks:
    return shipped(astronaut())


@pytest.mark.parametrize("degrees", [45, 135, 180, -90])
@pytest.mark.parametrize("boxes", ["detector", "labels"])
def test_the_portrait_at_every_angle(shipped, upright, degrees, boxes):
    image, true = portrait_turned(degrees, upright.points[0].astype(np.float64))
    faces = shipped(image) if boxes == "detector" else shipped(image, tight_box(true))
    assert len(faces) == 1
    off = np.linalg.norm(faces.points[0] - true, axis=1) / box_size(upright.boxes[0])
    assert off.mean() < 0.02
    assert off.max() < 0.08
    assert faces.face_scores[0] > upright.face_scores[0] - 0.1
    roll = shipped.rolls(upright.points)[0] + degrees
    assert angle_between(shipped.rolls(faces.points)[0], roll) == pytest.approx(0, abs=3)
    assert angle_between(faces.angles[0], roll) == pytest.approx(0, abs=18)


@pytest.mark.parametrize("degrees", [180, 45])
def test_align_and_head_pose_follow_the_turn(shipped, upright, degrees):
    image, _ = portrait_turned(degrees)
    faces = shipped(image)
    before, after = upright.align(astronaut(), 128)[0], faces.align(image, 128)[0]
    assert np.abs(before.astype(float) - after).mean() < 12  # grey levels; another face, or this one turned, has 50
    assert np.abs(before.astype(float) - np.rot90(after)).mean() > 30
    pose, pose_turned = upright.head_pose((512, 512))[0], faces.head_pose(image.shape[1::-1])[0]
    assert angle_between(pose_turned[2], pose[2] + degrees) == pytest.approx(0, abs=4)
    np.testing.assert_allclose(pose_turned[:2], pose[:2], atol=12)  # seen from another side of the line of sight


def test_the_demo_shows_points_on_a_person_who_lies_and_takes_its_tables_back(tmp_path, shipped, upright, monkeypatch):
    image, true = portrait_turned(90, upright.points[0].astype(np.float64))
    photo = tmp_path / "lying.png"
    photo.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    known = {name: getattr(shipped, name) for name in ("layout", "crop_scale", "mean_face")}

    def load(parser, options, boxes=None):
        return shipped if boxes is None else FaceLandmarker(shipped.runtime, detector=boxes, **known)

    monkeypatch.setattr(command, "load_landmarker", load)
    common = ["--image", str(photo), "--json", "--csv"]
    assert main([*common, "--output", str(tmp_path / "out")]) == 0
    table, record = (tmp_path / "out" / f"lying_landmarks.{kind}" for kind in ("csv", "json"))
    face = face_in(record)
    assert face["angle"] == pytest.approx(90 + shipped.rolls(upright.points)[0], abs=18)
    np.testing.assert_allclose(face["points"], true, atol=0.05 * box_size(upright.boxes[0]))
    with table.open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["angle"]) == face["angle"]
    for given in (table, record):
        folder = tmp_path / given.suffix[1:]
        assert main([*common, "--detector", "boxes", str(given), "--output", str(folder)]) == 0
        again = face_in(folder / "lying_landmarks.json")
        assert again["angle"] == face["angle"]
        np.testing.assert_allclose(again["points"], face["points"], atol=0.5)  # of boxes with three decimals


def face_in(path: Path) -> dict:
    (face,) = json.loads(path.read_text())["faces"]
    return face
