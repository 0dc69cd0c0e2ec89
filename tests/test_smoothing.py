"""One-Euro filtering of points: against the paper, and what it does to noise, motion, turns and bad time stamps."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from pipnet.inference.smoothing import FaceFilter, FrameClock, OneEuro, OneEuroSettings, Smoothing

SQUARE = np.array([[0.0, 0.0], [90.0, 0.0], [90.0, 90.0], [0.0, 90.0], [45.0, 30.0], [45.0, 60.0]])
FPS = 30
RECORD = Path(__file__).resolve().parent.parent / "experiments" / "smoothing"


def run(points: np.ndarray, times: np.ndarray | None = None, smoothing: Smoothing | None = None) -> np.ndarray:
    smooth = FaceFilter(smoothing)
    times = np.arange(len(points)) / FPS if times is None else times
    return np.array([smooth(frame, time) for frame, time in zip(points, times, strict=True)])


def noise(frames: int, sigma: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, (frames, *SQUARE.shape))


def test_settled_it_is_the_filter_of_the_paper():
    """Algorithm 1 of Casiez et al. in scalars; from there on where the even averaging of the first values ends."""
    settings = OneEuroSettings(min_cutoff=1.5, beta=7.0, speed_cutoff=1.0)
    values = np.cumsum(np.random.default_rng(3).normal(0, 0.05, 200))
    times = np.cumsum(np.random.default_rng(4).uniform(0.02, 0.05, 200))

    def weight(cutoff: float, step: float) -> float:
        return 1 / (1 + 1 / (2 * np.pi * cutoff * step))

    expected, filtered, speed = [], None, 0.0
    for number, (value, step) in enumerate(zip(values, np.diff(times, prepend=0.0), strict=True), start=1):
        if filtered is None:
            filtered = value
        else:
            speed += weight(1.0, step) * ((value - filtered) / step - speed)
            share = weight(1.5 + 7.0 * abs(speed), step)
            filtered += max(share, 1 / number) * (value - filtered)
        expected.append(filtered)
    euro = OneEuro(settings)
    found = [
        float(euro(np.array([value]), step)[0]) for value, step in zip(values, np.diff(times, prepend=0.0), strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_each_vector_has_a_cutoff_of_its_own():
    settings = OneEuroSettings(min_cutoff=1.0, beta=5.0)
    values = np.random.default_rng(0).normal(0, 1, (30, 4, 2)) * np.array([0.1, 1, 5, 20])[:, None]
    together = OneEuro(settings)
    alone = [OneEuro(settings) for _ in range(4)]
    for frame in values:
        found = together(frame, 1 / FPS)
        np.testing.assert_allclose(found, [one(v, 1 / FPS) for one, v in zip(alone, frame, strict=True)], atol=1e-12)


def test_a_still_face_gets_calm_and_stays_in_place():
    shaken = SQUARE + noise(120, 0.4)
    calm = run(shaken)
    assert calm.std(axis=0).mean() < 0.4 * shaken.std(axis=0).mean()
    assert calm[20:].std(axis=0).mean() < 0.3 * shaken[20:].std(axis=0).mean()
    np.testing.assert_allclose(calm.mean(axis=0), shaken.mean(axis=0), atol=0.25)


@pytest.mark.parametrize("speed", [0.3, 1.0, 3.0])
def test_a_moving_face_lags_less_than_half_a_frame(speed):
    """Face widths a second; the lag in frames is the distance over the way of a frame."""
    way = 90 * speed / FPS
    moving = SQUARE + way * np.arange(90)[:, None, None] * np.array([1.0, 0.0])
    behind = (moving - run(moving))[30:, :, 0] / way
    assert behind.max() < 0.5
    assert behind.min() > -0.05


def test_a_turning_and_growing_face_keeps_its_shape():
    """A filter on each point would cut the corners of a turn: the face would shrink."""
    frames = np.arange(90)
    factor = (1 + 0.2 * np.sin(frames / 15)) * np.exp(0.5j * np.sin(frames / 12))
    flat = ((SQUARE - 45) @ np.array([1, 1j]))[None] * factor[:, None]
    turning = np.stack([flat.real, flat.imag], axis=-1) + 200
    calm = run(turning)
    np.testing.assert_allclose(
        np.linalg.norm(calm[20:, 0] - calm[20:, 2], axis=-1),
        np.linalg.norm(turning[20:, 0] - turning[20:, 2], axis=-1),
        rtol=0.02,
    )
    assert np.abs(calm - turning)[20:].max() < 2.0
    assert np.abs(calm - turning)[20:].max() > 0.01  # it does filter


def test_settings_depend_on_neither_resolution_nor_place_and_angle():
    shaken = SQUARE + noise(40, 0.5) + 40 * np.sin(np.arange(40) / 9)[:, None, None]
    turn = 5 * np.array([[0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(run(shaken @ turn + [500, -80]), run(shaken) @ turn + [500, -80], rtol=1e-9)


def test_twice_the_frame_rate_filters_alike():
    left = [
        run(SQUARE + noise(4 * fps, 0.4, seed=fps), np.arange(4 * fps) / fps)[fps:].std(axis=0).mean()
        for fps in (15, 30, 60)
    ]
    assert left[0] > left[1] > left[2]
    assert left[2] > 0.5 * left[1]


@pytest.mark.parametrize(
    "stamps",
    [
        np.zeros(60),
        np.full(60, np.nan),
        -np.arange(60) / FPS,
        np.repeat(np.arange(30) / 15, 2),
        np.cumsum(np.random.default_rng(0).uniform(0, 0.08, 60)),
        np.arange(60) / FPS + 1e9,
        np.arange(60) * 1e-9,
        np.where(np.arange(60) == 30, -5.0, np.arange(60) / FPS),
    ],
    ids=["constant", "none", "backward", "doubled", "irregular", "epoch", "tiny", "one jump back"],
)
def test_bad_time_stamps_neither_break_nor_freeze(stamps):
    way = 90 / FPS
    moving = SQUARE + way * np.arange(60)[:, None, None] * np.array([1.0, 0.5]) + noise(60, 0.3)
    calm = run(moving, stamps)
    assert np.isfinite(calm).all()
    assert np.abs(calm - moving)[10:].max() < 2 * way


def test_the_first_frame_passes_as_it_is_also_after_a_gap_and_a_reset():
    smooth = FaceFilter()
    np.testing.assert_allclose(smooth(SQUARE + 0.123, 7.0), SQUARE + 0.123, atol=1e-9)
    for number in range(1, 30):
        smooth(SQUARE, 7 + number / FPS)
    np.testing.assert_allclose(smooth(SQUARE * 1.3 + 50, 9.5), SQUARE * 1.3 + 50, atol=1e-9)
    assert np.abs(smooth(SQUARE, 9.5 + 1 / FPS) - SQUARE).max() > 0.1
    smooth.reset()
    np.testing.assert_allclose(smooth(3 * SQUARE, 9.6), 3 * SQUARE, atol=1e-9)


def test_several_faces_at_once_are_each_alone():
    faces = np.stack([SQUARE + noise(20, 0.3, seed) for seed in range(3)], axis=1)  # (T, F, N, 2)
    together = run(faces)
    for face in range(3):
        np.testing.assert_allclose(together[:, face], run(faces[:, face]), atol=1e-9)


def test_points_that_fall_together_pass():
    smooth = FaceFilter()
    smooth(SQUARE, 0.0)
    np.testing.assert_array_equal(smooth(np.full((6, 2), 7.0), 0.03), np.full((6, 2), 7.0))
    assert np.isfinite(smooth(SQUARE, 0.07)).all()


def test_the_clock_always_goes_on():
    clock = FrameClock()
    stamps = [3.0, 3.1, 3.1, np.nan, 2.0, np.inf, 2.5, 2.5 + 1e-12, -np.inf]
    seconds = [clock.tick(stamp) for stamp in stamps]
    assert seconds[0] == 0.0
    assert (np.diff(seconds) > 0.02).all()
    clock = FrameClock()  # an origin that shows late is no jump of a thousand seconds
    np.testing.assert_allclose([clock.tick(stamp) for stamp in (np.nan, 1000.0, 1000.5)], [0, 1 / 30, 1 / 30 + 0.5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_cutoff": 0.0, "beta": 1.0}, "min_cutoff must be larger than 0"),
        ({"min_cutoff": 1.0, "beta": -1.0}, "beta must not be negative"),
        ({"min_cutoff": 1.0, "beta": 1.0, "speed_cutoff": 0.0}, "speed_cutoff must be larger than 0"),
        ({"min_cutoff": 1.0, "beta": 1.0, "idle_speed": float("nan")}, "idle_speed must not be negative"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        OneEuroSettings(**settings)


def test_the_record_keeps_its_bars():
    metrics = json.loads((RECORD / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["settings"] == json.loads(json.dumps(asdict(Smoothing())))
    assert metrics["faces"]["test"] == 60
    for name, figures in metrics["test"]["still"].items():
        assert figures["less"] >= 60, name
    assert set(metrics["test"]["moving"]) == {"0.1", "0.33", "1", "turning by 36° a second"}
    for speed, figures in metrics["test"]["moving"].items():
        assert figures["added"] < 0.5, speed
        assert abs(figures["lag"]) < 1, speed
