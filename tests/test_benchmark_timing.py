"""Timing in turn, with a clock that the test turns; no time of this machine is judged."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from pipnet.benchmark.timing import Timed, of_rounds, ratio, spread, time_interleaved


class Clock:
    """Calls that take known time, on a machine that slows down for a while."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slow = 1.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, name: str, seconds: float):
        def call() -> None:
            self.log.append(name)
            self.now += seconds * self.slow

        return call

    def timed(self, name: str, seconds: float) -> Timed:
        return Timed(name, self.takes(name, seconds), lambda: self.log.append(f"prepare {name}"))


def test_all_are_timed_in_every_round_after_being_prepared_and_warmed_up():
    clock, rounds = Clock(), []
    found = time_interleaved(
        [clock.timed("a", 1.0), clock.timed("b", 2.0)],
        rounds=2,
        min_calls=2,
        clock=clock,
        after_round=lambda number, seconds: rounds.append((number, seconds["b"].shape)),
    )
    a, b = ["prepare a", "a", "a", "a"], ["prepare b", "b", "b", "b"]  # one call that no clock sees, two that it does
    assert clock.log == [*a[:3], *a, *b[:3], *b, *a, *b]  # the first time round the number of calls is chosen
    assert rounds == [(1, (1, 2)), (2, (2, 2))]
    np.testing.assert_array_equal(found["a"], np.full((2, 2), 1.0))
    np.testing.assert_array_equal(found["b"], np.full((2, 2), 2.0))


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, 50), (0.01, 10), (0.05, 4), (3.0, 4)])
def test_the_number_of_calls_follows_from_the_first(seconds, calls):
    clock = Clock()
    found = time_interleaved([clock.timed("a", seconds)], rounds=1, block_seconds=0.1001, min_calls=4, clock=clock)
    assert found["a"].shape == (1, calls)
    clock = Clock()
    found = time_interleaved([clock.timed("a", 3.0)], rounds=1, min_calls=1, clock=clock)
    assert clock.log == ["prepare a", "a", "a"]  # a slow call is not made again to choose the number
    assert found["a"].tolist() == [[3.0]]


def test_ratios_do_not_see_a_machine_that_slows_down():
    clock = Clock()

    def after_round(number: int, _seconds: object) -> None:
        clock.slow = 3.0 if number % 2 else 1.0

    timed = [clock.timed("slow", 0.5), clock.timed("fast", 0.1)]
    found = time_interleaved(timed, rounds=8, clock=clock, after_round=after_round)
    times = of_rounds(found["fast"])
    assert times.high / times.low == pytest.approx(3)
    compared = ratio(found["slow"], found["fast"])
    assert (compared.low, compared.median, compared.high) == pytest.approx((5, 5, 5))


@pytest.mark.parametrize(
    ("visits", "rounds"),
    [
        (0, {}),
        (1, {"a": 1}),
        (2, {"a": 1, "b": 1}),
        (3, {"a": 1, "b": 1}),
        (5, {"a": 2, "b": 2}),
        (6, {"a": 3, "b": 3}),
    ],
)
def test_a_timing_that_is_stopped_keeps_whole_rounds_or_what_there_is_of_the_first(visits, rounds):
    clock, asked = Clock(), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > visits

    found = time_interleaved([clock.timed("a", 1.0), clock.timed("b", 2.0)], rounds=3, clock=clock, stop=stop)
    assert {key: len(times) for key, times in found.items()} == rounds


def test_the_median_of_a_round_ignores_a_hiccup():
    seconds = np.full((5, 7), 0.002)
    seconds[3, 2] = 9.0
    assert of_rounds(seconds) == spread(np.full(5, 0.002))


def test_the_garbage_collector_is_off_while_a_clock_runs_and_as_before_afterwards():
    seen = []

    def call() -> None:
        seen.append(gc.isenabled())
        if len(seen) > 8:
            raise RuntimeError("broken")

    assert gc.isenabled()
    time_interleaved([Timed("a", call)], rounds=1, block_seconds=0)
    assert seen == [False] * 6
    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="broken"):
        time_interleaved([Timed("a", call)], rounds=1)
    assert gc.isenabled()
    gc.disable()
    try:
        time_interleaved([Timed("a", int)], rounds=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_wrong_arguments_of_the_timing():
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        time_interleaved([], rounds=0)
    with pytest.raises(ValueError, match="two things to time are called 'a'"):
        time_interleaved([Timed("b", int), Timed("a", int), Timed("a", int)], rounds=1)
