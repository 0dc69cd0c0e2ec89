"""The stopwatch's parts are where the time went, and add up to it; the time is made up."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from pipnet.demo import stopwatch
from pipnet.demo.stopwatch import Stopwatch
from pipnet.inference.detections import Detections
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import get_layout


class Clock:
    """Goes on only when told, so that no other program's work is measured."""

    def __init__(self) -> None:
        self.now = 1000.0

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    return clock


class SlowLandmarker:
    """Takes its time before the network and after it."""

    layout = get_layout("300w_68")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.runtime = lambda crops: clock.pass_(0.02)

    def detector(self, image: np.ndarray) -> Detections:
        self.clock.pass_(0.04)
        return Detections([[10, 10, 40, 40]], [0.9])

    def __call__(self, image: np.ndarray, boxes: np.ndarray, angles: np.ndarray | None = None) -> FaceLandmarks:
        if len(boxes):
            self.clock.pass_(0.003)
            self.runtime(image)
            self.clock.pass_(0.001)
        return FaceLandmarks(np.zeros((len(boxes), 68, 2)), np.ones((len(boxes), 68)), boxes, self.layout)


@pytest.fixture
def landmarker(clock) -> SlowLandmarker:
    return SlowLandmarker(clock)


def test_parts_of_a_tracked_frame(landmarker, clock):
    watch = Stopwatch()
    watched = watch.watch(landmarker)
    assert watched.layout is landmarker.layout
    frame = np.zeros((50, 60, 3), dtype=np.uint8)
    network = landmarker.runtime

    def track(image, time_s):
        clock.pass_(0.01)
        boxes = watched.detector(image).boxes if time_s == 0 else np.array([[10, 10, 40, 40]])
        return watched(image, boxes=boxes)

    expected = {"detect": 0.04, "crop": 0.003, "network": 0.02, "decode": 0.001, "track": 0.01}
    for number in range(3):
        start = clock.now
        faces = watch.track(track, frame, float(number))
        parts = watch.frame_done()
        assert parts == pytest.approx({part: s for part, s in expected.items() if part != "detect" or number == 0})
        assert sum(parts.values()) == pytest.approx(clock.now - start)
        np.testing.assert_array_equal(faces.points, landmarker(frame, boxes=faces.boxes).points)  # not measured
    summary = watch.summary()
    assert {part: figures["frames"] for part, figures in summary.items()} == dict.fromkeys(expected, 3) | {"detect": 1}
    for part, seconds in expected.items():
        assert summary[part]["median_ms"] == summary[part]["p95_ms"] == pytest.approx(1000 * seconds)
    assert landmarker.runtime is network  # the one given stays as it is


def test_no_face_runs_no_network(landmarker):
    watch = Stopwatch()
    assert len(watch.watch(landmarker)(np.zeros((9, 9, 3), np.uint8), boxes=np.zeros((0, 4)))) == 0
    assert watch.frame_done() == {}
    assert watch.summary() == {}


def test_frame_rate_and_what_it_remembers(clock):
    watch = Stopwatch()
    assert watch.frames_per_second() == 0
    for step in (0.0, 0.01, 0.01, 0.02, 0.04):
        clock.pass_(step)
        watch.frame_done()
    assert watch.frames_per_second() == pytest.approx(4 / 0.08)
    assert watch.frames_per_second(over_s=0.05) == pytest.approx(1 / 0.04)
    assert watch.frames_per_second(over_s=0.0) == 0
    for _ in range(10_000):
        watch.add("draw", 0.001)
        watch.frame_done()
    assert watch.summary()["draw"]["frames"] == 4096
    assert watch.frames == 10_005
