"""The stopwatch's parts are where the time went, and add up to it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipnet.demo.stopwatch import Stopwatch
from pipnet.inference.detect import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import get_layout


class SlowNetwork:
    input_size = 32

    def __call__(self, crops):
        time.sleep(0.02)
        faces = len(crops)
        return np.full((faces, 68, 2), 0.5), np.ones((faces, 68)), np.ones(faces)


def slow_detector(image):
    time.sleep(0.04)
    return Detections([[10, 10, 40, 40]], [0.9])


@pytest.fixture
def landmarker() -> FaceLandmarker:
    return FaceLandmarker(SlowNetwork(), layout=get_layout("300w_68"), box_scale=1.2, detector=slow_detector)


def slow_tracker(landmarker):
    def track(frame, time_s):
        time.sleep(0.01)
        boxes = landmarker.detector(frame).boxes if time_s == 0 else np.array([[10, 10, 40, 40]])
        return landmarker(frame, boxes=boxes)

    return track


def test_parts_of_a_tracked_frame(landmarker):
    watch = Stopwatch()
    watched = watch.watch(landmarker)
    assert watched.layout is landmarker.layout
    frame = np.zeros((50, 60, 3), dtype=np.uint8)
    start = time.perf_counter()
    for number in range(3):
        faces = watch.track(slow_tracker(watched), frame, float(number))
        np.testing.assert_array_equal(faces.points, landmarker(frame, boxes=faces.boxes).points)
        parts = watch.frame_done()
        assert set(parts) == {"crop", "network", "decode", "track"} | ({"detect"} if number == 0 else set())
    took = time.perf_counter() - start
    summary = watch.summary()
    for part, seconds, frames in (("detect", 0.04, 1), ("network", 0.02, 3), ("track", 0.01, 3)):
        assert summary[part]["frames"] == frames
        assert 1000 * seconds <= summary[part]["median_ms"] < 1000 * seconds + 15, part
    assert summary["crop"]["median_ms"] < 10
    assert summary["decode"]["median_ms"] < 10
    # One of the two network calls of each frame is the comparison's.
    inside = sum(figures["median_ms"] * figures["frames"] for figures in summary.values())
    assert 0.5 * 1000 * took < inside < 1000 * took
    assert isinstance(landmarker.runtime, SlowNetwork)  # the one given stays as it is


def test_no_face_runs_no_network(landmarker):
    watch = Stopwatch()
    assert len(watch.watch(landmarker)(np.zeros((9, 9, 3), np.uint8), boxes=np.zeros((0, 4)))) == 0
    assert watch.frame_done() == {}
    assert watch.summary() == {}


def test_frame_rate_and_what_it_remembers():
    watch = Stopwatch()
    assert watch.frames_per_second() == 0
    for _ in range(6):
        time.sleep(0.01)
        watch.frame_done()
    assert 40 < watch.frames_per_second() <= 100
    assert 40 < watch.frames_per_second(over_s=10) <= 100
    assert watch.frames_per_second(over_s=0.0) == 0
    for _ in range(10_000):
        watch.add("draw", 0.001)
        watch.frame_done()
    assert watch.summary()["draw"]["frames"] == 4096
    assert watch.frames == 10_006
