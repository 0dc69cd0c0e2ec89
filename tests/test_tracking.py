"""FaceTracker in worlds where every face is known, and with the shipped network on the portrait."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from experiments.motion import move, moved, still, sway
from pipnet.geometry import angle_between, roll_angles, tight_box, turned
from pipnet.inference.detections import Detections
from pipnet.inference.smoothing import Smoothing
from pipnet.inference.tracking import FaceTracker, cheapest_pairs, face_distances, match
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import PointLayout

LAYOUT = PointLayout("five", 5, mirror=(1, 0, 3, 2, 4), norm_pair=(0, 1))
SHAPE = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5], [0.0, 0.1]])
FPS = 30
RECORD = Path(__file__).resolve().parent.parent / "experiments" / "tracking"
World = Callable[[int], dict[str, tuple[float, float, float]]]
"""Frame number to name and ``(centre x, centre y, size)`` of the faces that can be seen."""


class FakeLandmarker:
    """Sees the face that lies in a box, if there is one; frames are told by their first two pixels.

    Args:
        world: What there is to see.
        noise: Of the points, pixels.
        detects: Which of the faces the detector finds in frame number n; all of them when None.
        alarms: Boxes that the detector finds in every frame though there is nothing.
        score: Face score of a face, by frame number and name.
    """

    layout = LAYOUT

    def __init__(self, world: World, *, noise=0.0, detects=None, alarms=(), score=lambda number, name: 0.95) -> None:
        self.world, self.noise, self.detects, self.alarms, self.score = world, noise, detects, alarms, score
        self.rng = np.random.default_rng(0)
        self.searched: list[int] = []
        self.calls: list[tuple[int, int]] = []  # frame, boxes
        self.shuffled = False

    def detector(self, frame: np.ndarray) -> Detections:
        number = number_of(frame)
        self.searched.append(number)
        faces = {
            name: f for name, f in self.world(number).items() if self.detects is None or self.detects(number, name)
        }
        boxes = [np.array([x - s / 2, y - s / 2, x + s / 2, y + s / 2]) for x, y, s in faces.values()]
        boxes = list(self.rng.permutation(boxes)) if self.shuffled else boxes
        boxes = [*map(np.array, self.alarms), *boxes]
        return Detections(np.array(boxes).reshape(-1, 4), np.linspace(0.99, 0.7, len(boxes)))

    def rolls(self, points: np.ndarray) -> np.ndarray:
        return np.zeros(len(points))

    def __call__(self, frame: np.ndarray, boxes, angles=None) -> FaceLandmarks:
        boxes = boxes.boxes if isinstance(boxes, Detections) else boxes
        number = number_of(frame)
        self.calls.append((number, len(boxes)))
        points, scores = [], []
        faces = self.world(number)
        true = np.array([[x, y, s] for x, y, s in faces.values()]).reshape(-1, 3)
        for box in boxes:
            apart = face_distances(box[None], box_of(true))[0] if len(true) else np.array([np.inf])
            nearest = int(apart.argmin())
            if apart[nearest] < 0.9:
                points.append(true[nearest, :2] + true[nearest, 2] * SHAPE + self.rng.normal(0, self.noise, (5, 2)))
                scores.append(self.score(number, list(faces)[nearest]))
            else:
                points.append((box[:2] + box[2:]) / 2 + 0.3 * (box[2:] - box[:2]) * SHAPE)
                scores.append(0.0)
        return FaceLandmarks(np.array(points), np.full((len(points), 5), 0.5), boxes, LAYOUT, np.array(scores))


class Turning(FakeLandmarker):
    """A face that turns clockwise by 1.2 degrees a frame, and is seen only in a crop that is turned nearly alike."""

    def rolls(self, points: np.ndarray) -> np.ndarray:
        return roll_angles(points, SHAPE)

    def __call__(self, frame: np.ndarray, boxes, angles=None) -> FaceLandmarks:
        faces, true = super().__call__(frame, boxes), 1.2 * number_of(frame)
        if angles is None:
            angles = np.full(len(faces), true)  # where nobody knows it, a landmarker looks all round
        middle = np.array(self.world(0)["a"][:2])
        scores = np.where(np.abs(angle_between(angles, true)) < 10, faces.face_scores, 0.0)
        points = turned(faces.points - middle, true) + middle
        return FaceLandmarks(points, faces.scores, faces.boxes, LAYOUT, scores, angles=angles)


def box_of(faces: np.ndarray) -> np.ndarray:
    return np.concatenate([faces[:, :2] - faces[:, 2:] / 2, faces[:, :2] + faces[:, 2:] / 2], axis=1)


def number_of(frame: np.ndarray) -> int:
    return int(frame[0, 0, 0]) + 256 * int(frame[0, 0, 1])


def frame_of(number: int) -> np.ndarray:
    frame = np.zeros((480, 640, 3), dtype=np.uint8)
    frame[0, 0] = number % 256, number // 256, 0
    return frame


def follow(landmarker: FakeLandmarker, frames: int, **options) -> tuple[list[FaceLandmarks], FaceTracker]:
    tracker = FaceTracker(landmarker, **options)
    return [tracker(frame_of(number), number / FPS) for number in range(frames)], tracker


def ids(results: list[FaceLandmarks]) -> list[list[int]]:
    return [faces.ids.tolist() for faces in results]


def one(x=300.0, y=240.0, size=100.0) -> World:
    return lambda number: {"a": (x, y, size)}


def test_a_face_costs_a_detector_call_every_so_often():
    landmarker = FakeLandmarker(one(), noise=0.3)
    results, tracker = follow(landmarker, 100, detect_every=30)
    assert ids(results) == [[0]] * 100
    assert landmarker.searched == [0, 30, 60, 90]
    assert landmarker.calls == [(number, 1) for number in range(100)]
    statistics = tracker.statistics
    assert (statistics.frames, statistics.detector_calls, statistics.face_frames) == (100, 4, 100)
    assert statistics.detector_calls_per_100 == 4.0
    assert (statistics.faces_new, statistics.faces_lost, statistics.lost_share) == (1, 0, 0.0)


def test_nobody_is_searched_once_there_are_enough():
    world = lambda number: {"a": (150.0, 240.0, 90.0), "b": (450.0, 240.0, 90.0), "c": (300.0, 90.0, 90.0)}  # noqa: E731
    landmarker = FakeLandmarker(world)
    results, _ = follow(landmarker, 80, max_faces=2)
    assert ids(results) == [[0, 1]] * 80
    np.testing.assert_allclose(results[0].points[:, 4, 0], [150, 450], atol=1e-4)  # the detector's first two
    assert landmarker.searched == [0]


def test_a_head_that_turns_once_around_is_never_lost():
    landmarker = Turning(one(), noise=0.3)
    results, tracker = follow(landmarker, 301, smoothing=False)
    assert ids(results) == [[0]] * 301
    assert landmarker.calls == [(number, 1) for number in range(301)]
    assert (tracker.statistics.faces_lost, tracker.statistics.lost_share) == (0, 0.0)
    assert {round(float(faces.angles[0]), -1) % 360 for faces in results} == set(range(0, 360, 10))
    for before, after in pairwise(results):
        roll = landmarker.rolls(before.points)
        np.testing.assert_allclose(after.angles, roll, atol=1e-3)
        np.testing.assert_allclose(after.boxes, tight_box(before.points, roll), atol=1e-3)


def test_faces_keep_their_ids_whatever_the_detector_s_order():
    def world(number):
        angle = number / 25
        return {
            name: (320 + 150 * np.cos(angle + k * np.pi / 2), 240 + 150 * np.sin(angle + k * np.pi / 2), 80.0)
            for k, name in enumerate("abcd")
        }

    landmarker = FakeLandmarker(world, noise=0.3)
    landmarker.shuffled = True
    results, tracker = follow(landmarker, 200, detect_every=5, smoothing=False)
    assert ids(results) == [[0, 1, 2, 3]] * 200
    assert tracker.statistics.faces_new == 4
    assert all(count == 4 for _, count in landmarker.calls)  # one call a frame, no face twice
    first = {
        name: int(np.linalg.norm(results[0].points[:, 4] - [x, y + 8], axis=1).argmin())
        for name, (x, y, _) in world(0).items()
    }
    for number, faces in enumerate(results):
        for name, (x, y, _) in world(number).items():
            np.testing.assert_allclose(faces.points[first[name], 4], [x, y + 8], atol=2)


@pytest.mark.parametrize(("frames", "expected"), [(10, 0), (27, 0), (40, 1)])
def test_a_face_behind_a_hand_comes_back_under_its_id_within_a_second(frames, expected):
    hidden = range(20, 20 + frames)
    landmarker = FakeLandmarker(lambda number: {} if number in hidden else {"a": (300 + number, 240.0, 100.0)})
    results, tracker = follow(landmarker, 80)
    assert landmarker.searched[1] == 20  # in the very frame
    assert all(len(results[number]) == 0 for number in hidden)
    assert ids(results)[-1] == [expected]
    back = next(number for number in range(20 + frames, 80) if len(results[number]))
    assert back == 20 + frames
    assert tracker.statistics.faces_lost == 1
    assert tracker.statistics.lost_face_frames == min(back - 20, FPS + 1)
    assert tracker.statistics.faces_new == 1 + expected


def test_a_face_that_comes_back_elsewhere_is_another():
    landmarker = FakeLandmarker(lambda number: {"a": (150.0 if number < 20 else 480.0, 240.0, 100.0)})
    results, tracker = follow(landmarker, 100)
    assert ids(results) == [[0]] * 20 + [[1]] * 80  # a cut of scene: not one frame without a face
    assert landmarker.searched[:2] == [0, 20]
    assert len(landmarker.searched) < 18  # the one that is gone is not looked for long
    np.testing.assert_allclose(results[20].points[0, 4], [480, 250], atol=1e-3)  # nothing of the old one is mixed in
    assert tracker.statistics.faces_lost == 1


ALARM = ([50.0, 50, 150, 150],)
FLAT = ([50.0, 50, 50, 50], [90.0, 90, 80, 80], [np.nan, 0, 1, 1])
DOUBT = [0.95] * 10 + [0.15] * 10 + [0.05] + [0.15] * 19


@pytest.mark.parametrize(
    ("landmarker", "options", "expected"),
    [
        (FakeLandmarker(lambda number: {"a": (200.0 if number < 20 else 295.0, 240.0, 100.0)}), {}, [[0]] * 30),
        (
            FakeLandmarker(
                lambda number: {"a": (150.0, 240.0, 90.0)} | ({"b": (450.0, 240.0, 90.0)} if number >= 12 else {})
            ),
            {"detect_every": 10},
            [[0]] * 20 + [[0, 1]] * 10,
        ),
        (FakeLandmarker(lambda number: {}, alarms=ALARM), {}, [[]] * 30),
        (FakeLandmarker(one(), alarms=ALARM), {"max_faces": 1}, [[0]] * 10),
        (FakeLandmarker(one(), score=lambda number, name: DOUBT[number]), {}, [[0]] * 20 + [[]] * 20),
        (FakeLandmarker(one(), detects=lambda number, name: number == 0), {"detect_every": 5}, [[0]] * 60),
        (FakeLandmarker(one(), alarms=FLAT), {}, [[0]] * 3),
    ],
    ids=[
        "a jump within the neighbourhood keeps the id",
        "one who joins is seen at the next search",
        "a false alarm is no face",
        "a false alarm that is surer than the face does not take its place",
        "a face in doubt is kept but not taken up",
        "the detector missing a face does not lose it",
        "boxes without extent are skipped",
    ],
)
def test_ids_from_frame_to_frame(landmarker, options, expected):
    results, tracker = follow(landmarker, len(expected), **options)
    assert ids(results) == expected
    if [] not in expected:
        assert (tracker.statistics.faces_lost, tracker.statistics.lost_share) == (0, 0)
        assert np.abs(results[-1].points[0, 4, 1] - 250) < 2


@pytest.mark.parametrize(
    ("world", "counts", "last"),
    [
        (lambda number: {"a": (500 + 5.0 * number, 240.0, 100.0)}, [1] * 28 + [0] * 32, []),  # is at 640 in frame 28
        # The network gives up on a face before its centre is out; nobody looks for it, and it may come back.
        (lambda number: {} if 20 <= number < 40 else {"a": (620.0, 240.0, 100.0)}, None, [0]),
    ],
    ids=["by its centre", "at the border"],
)
def test_a_face_that_leaves_the_picture_is_not_lost(world, counts, last):
    results, tracker = follow(FakeLandmarker(world), 60, detect_every=1000)
    assert counts is None or [len(faces) for faces in results] == counts
    assert ids(results)[-1] == last
    assert (tracker.statistics.faces_lost, tracker.statistics.lost_share) == (0, 0)


def test_an_empty_chair_is_searched_on_every_frame_and_who_sits_down_is_seen_at_once():
    landmarker = FakeLandmarker(lambda number: {"a": (300.0, 240.0, 100.0)} if number >= 200 else {})
    results, _ = follow(landmarker, 220)
    assert landmarker.searched == list(range(201))
    assert next(number for number, faces in enumerate(results) if len(faces)) == 200
    assert ids(results)[-1] == [0]
    none = results[0]
    assert (len(none), none.points.shape, none.ids.shape, none.face_scores.shape) == (0, (0, 5, 2), (0,), (0,))


def test_two_tracks_on_one_face_become_one():
    landmarker = FakeLandmarker(
        lambda number: {
            "a": (300.0, 240.0, 100.0),
            "b": (300.0 + max(3.0 * (70 - number), 0), 240.0, 100.0),
        },
        detects=lambda number, name: number == 0,
    )
    results, _ = follow(landmarker, 100)
    assert ids(results)[0] == [0, 1]
    assert ids(results)[-1] == [0]
    apart = [np.linalg.norm(faces.points[0, 4] - faces.points[1, 4]) for faces in results if len(faces) == 2]
    assert min(apart) > 25


def test_a_box_beside_a_face_gives_no_second_track():
    landmarker = FakeLandmarker(one(), alarms=([325.0, 190, 425, 290],))
    results, tracker = follow(landmarker, 100, detect_every=10)
    assert all(len(faces) == 1 for faces in results)
    assert len({id_ for faces in results for id_ in faces.ids.tolist()}) == 1
    assert tracker.statistics.lost_share == 0


def test_points_that_are_no_numbers_count_as_a_lost_face():
    class Broken(FakeLandmarker):
        def __call__(self, frame, boxes, angles=None):
            faces = super().__call__(frame, boxes)
            if 10 <= number_of(frame) < 15:
                faces.points[:, 2] = np.nan
            return faces

    results, _ = follow(Broken(one()), 40)
    assert [len(faces) for faces in results[8:15]] == [1, 1, 0, 0, 0, 0, 0]
    assert ids(results)[-1] == [0]
    assert all(np.isfinite(faces.points).all() for faces in results)


def test_a_detector_of_ones_own_may_say_how_a_face_is_tilted():
    """By any object with boxes and angles; those without an extent are skipped with their angles."""

    class Own(FakeLandmarker):
        told: ClassVar[list] = []

        def detector(self, frame):
            boxes = [[50.0, 50, 50, 50], *super().detector(frame).boxes]
            return SimpleNamespace(boxes=boxes, angles=[11.0, 22.0])

        def __call__(self, frame, boxes, angles=None):
            self.told += [boxes.angles.tolist()] if isinstance(boxes, Detections) else []
            return super().__call__(frame, boxes)

    landmarker = Own(one())
    assert ids(follow(landmarker, 3)[0]) == [[0]] * 3
    assert landmarker.told == [[22.0]]


def test_smoothing_is_on_and_can_be_turned_off():
    raw, calm, own = (
        np.array([faces.points[0] for faces in follow(FakeLandmarker(one(), noise=0.5), 60, **options)[0]])
        for options in ({"smoothing": False}, {}, {"smoothing": Smoothing()})
    )
    assert calm.std(axis=0).mean() < 0.4 * raw.std(axis=0).mean()
    np.testing.assert_array_equal(calm, own)
    np.testing.assert_array_equal(calm[0], raw[0])


def test_time_may_stand_still_or_run_backwards():
    for stamps in (np.zeros(60), np.full(60, np.nan), -np.arange(60.0)):
        landmarker = FakeLandmarker(lambda number: {} if number in range(20, 24) else {"a": (300.0, 240.0, 100.0)})
        tracker = FaceTracker(landmarker)
        results = [tracker(frame_of(number), stamp) for number, stamp in enumerate(stamps)]
        assert ids(results)[-1] == [0]


@given(
    costs=arrays(
        float,
        st.tuples(st.integers(0, 7), st.integers(0, 7)),
        elements=st.one_of(st.integers(0, 3), st.floats(0, 2), st.just(1e6)),
    )
)
@settings(deadline=None, max_examples=100)
def test_the_cheapest_pairs_are_those_of_scipy(costs):
    """As many pairs, each row and column once, at the same cost: with equal costs there is more than one answer."""
    rows, columns = cheapest_pairs(costs)
    expected = linear_sum_assignment(costs)
    assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows) == len(columns) == min(costs.shape)
    assert rows.tolist() == sorted(rows)
    assert costs[rows, columns].sum() == pytest.approx(costs[expected].sum(), rel=1e-12)


def test_reset_starts_a_new_video():
    landmarker = FakeLandmarker(one())
    tracker = FaceTracker(landmarker)
    for number in range(5):
        tracker(frame_of(number), number / FPS)
    tracker.reset()
    assert tracker.statistics.frames == 0
    assert tracker(frame_of(0), 0.0).ids.tolist() == [0]
    assert landmarker.searched == [0, 0]


def test_frames_of_any_kind_of_image_are_taken():
    tracker = FaceTracker(FakeLandmarker(lambda number: {}))
    for frame in (np.zeros((1, 1), np.uint8), np.zeros((5, 7, 4), np.uint8), np.zeros((90, 30, 3), np.uint16)):
        assert len(tracker(frame, 0.0)) == 0


def test_boxes_are_matched_all_at_once():
    a = np.array([[0.0, 0, 10, 10], [4.0, 0, 14, 10], [90.0, 0, 100, 10]])
    b = np.array([[3.0, 0, 13, 10], [-6.0, 0, 4, 10]])
    assert match(a, b, 0.7) == [(0, 1), (1, 0)]
    assert match(a, b[:0], 0.7) == []
    assert match(b, a, 0.2) == [(0, 1)]
    # Sizes count: a box twice as large around the same centre is another face.
    assert face_distances(a[:1], np.array([[-5.0, -5, 15, 15]]))[0, 0] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detect_every": 0}, "detect_every must be at least 1"),
        ({"max_faces": 0}, "max_faces must be at least 1"),
        ({"lost_below": 0.0}, "lost_below must lie between 0 and 1"),
        ({}, "layout 'nose' has a single point"),
    ],
)
def test_wrong_arguments_are_one_sentence(options, message):
    landmarker = FakeLandmarker(one())
    landmarker.layout = LAYOUT if options else PointLayout("nose", 1, mirror=(0,))
    with pytest.raises(ValueError, match=message):
        FaceTracker(landmarker, **options)


@pytest.fixture(scope="module")
def portrait(shipped) -> tuple[np.ndarray, np.ndarray]:
    """The photo around the face, and the points that the network sees on it."""
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the portrait")
    photo = np.ascontiguousarray(data.astronaut()[:300, 60:400])
    return photo, shipped(photo).points[0].astype(np.float64)


def followed(tracker: FaceTracker, photo: np.ndarray, path: np.ndarray, size: tuple[int, int], **noise):
    frames = move(photo, path, size=size, **noise)
    return [tracker(frame, number / FPS) for number, frame in enumerate(frames)]


def errors_of(results: list[FaceLandmarks], points: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Mean distance in each frame, in distances of the outer eye corners."""
    true = moved(points, path)
    eyes = np.linalg.norm(true[:, 36] - true[:, 45], axis=-1)
    return np.linalg.norm([faces.points[0] for faces in results] - true, axis=-1).mean(axis=-1) / eyes


def test_the_portrait_is_followed_along_a_path(shipped, portrait):
    photo, points = portrait
    size = (480, 360)
    path = sway(40, tuple(points.mean(axis=0)), 1.2, amplitude_px=40, degrees=12, zoom=1.15, size=size)
    tracker = FaceTracker(shipped, detect_every=30)
    results = followed(tracker, photo, path, size, noise=5, seed=1)
    assert ids(results) == [[0]] * 40
    assert tracker.statistics.detector_calls == 2
    errors = errors_of(results, points, path)
    assert errors.mean() < 0.025
    assert errors.max() < 0.05


def test_the_portrait_turns_once_around(shipped, portrait):
    photo, points = portrait
    centre, size = points.mean(axis=0), (360, 360)
    path = np.stack([cv2.getRotationMatrix2D(centre.tolist(), -15 * number, 1.2) for number in range(25)])
    path[:, :, 2] += (np.array(size) - 1) / 2 - centre
    tracker = FaceTracker(shipped, detect_every=12)
    results = followed(tracker, photo, path, size, noise=5, seed=1)
    assert ids(results) == [[0]] * 25
    assert tracker.statistics.lost_face_frames == 0
    assert tracker.statistics.detector_calls == 3  # not found again and again
    assert errors_of(results, points, path).max() < 0.05


def test_the_box_of_a_still_portrait_stays_put(shipped, portrait):
    """The tight box of predicted points, fed back 60 times, must not creep or shrink."""
    photo, points = portrait
    size = (320, 320)
    path = still(60, tuple(points.mean(axis=0)), 1.3, jitter_px=0.3, seed=2, size=size)
    tracker = FaceTracker(shipped, max_faces=1)
    boxes = np.stack([faces.boxes[0] for faces in followed(tracker, photo, path, size, noise=7, seed=2)])
    side = np.sqrt(np.prod(boxes[1:, 2:] - boxes[1:, :2], axis=1))
    early, late = boxes[1:21].mean(axis=0), boxes[40:].mean(axis=0)
    assert np.abs(late - early).max() < 0.02 * side.mean()
    assert side.std() < 0.02 * side.mean()
    assert tracker.statistics.detector_calls == 1


def test_the_record_shows_few_detector_calls_no_face_lost_and_a_turning_head_as_calm_as_an_upright_one():
    metrics = json.loads((RECORD / "metrics.json").read_text(encoding="utf-8"))
    for name in ("one face, still", "one face, moving", "three faces, moving", "one face, turning once around"):
        row = metrics["videos"][name]
        assert row["detector_calls_per_100"] < 5, name
        assert row["lost_share"] == 0, name
        assert row["same_id_share"] == 100, name
    assert metrics["videos"]["nobody"]["detector_calls_per_100"] == 100  # who comes is seen at once
    assert metrics["videos"]["nobody"]["extra"] == 0
    allowed = {"one face, still": 0.2, "one face, moving": 0.1}  # four still faces have four boxes in all
    for name, row in metrics["detecting"].items():
        assert row["tracked"] < row["detected"] + allowed[name], name
    rows = metrics["turning"]
    still, circling, turning = rows.values()
    assert list(rows)[-1] == "one face, turning once around"
    assert turning["jitter_raw"] < 1.05 * min(still["jitter_raw"], circling["jitter_raw"])
    assert turning["jitter"] < 1.05 * circling["jitter"]  # as fast: what moves is hardly smoothed, upright or not
    assert turning["error"] < 1.05 * still["error"]
    assert turning["behind"] < 0.25  # frames
