"""Timing in turn: A B A B, so that what slows the machine for a while slows everybody."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Timed:
    """Something to time.

    Attributes:
        key: What its times are found under.
        call: One call.
        prepare: What must hold while it is timed and others change, such as torch's number of threads.
    """

    key: Hashable
    call: Callable[[], object]
    prepare: Callable[[], object] = _nothing


@dataclass(frozen=True)
class Spread:
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> Spread:
        """All three times a factor."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def time_interleaved(
    timed: Sequence[Timed],
    *,
    rounds: int,
    block_seconds: float = 0.1,
    min_calls: int = 3,
    max_calls: int = 50,
    clock: Callable[[], float] = time.perf_counter,
    after_round: Callable[[int], object] | None = None,
) -> dict[Hashable, np.ndarray]:
    """Time calls in turn.

    A round visits each contender once: it is prepared, called once without a clock (caches and the predecessor's idle
    threads), then some times with one.

    Args:
        timed: In the order of a round.
        rounds: How many.
        block_seconds: About as long a contender is timed in a round; the number of its calls follows from a first one.
        min_calls: At least so many calls.
        max_calls: At most so many.
        clock: Seconds.
        after_round: Is told how many rounds are done.

    Returns:
        By key, seconds of each call, ``(rounds, calls)``.

    Raises:
        ValueError: Two have the same key, or ``rounds`` is below 1.

    Example:
        >>> now = [0.0]
        >>> def takes(seconds):
        ...     def call():
        ...         now[0] += seconds
        ...     return call
        >>> found = time_interleaved([Timed("a", takes(2.0)), Timed("b", takes(1.0))], rounds=2, clock=lambda: now[0])
        >>> found["a"].tolist(), found["b"].shape
        ([[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]], (2, 3))
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    keys = [one.key for one in timed]
    if len(set(keys)) < len(keys):
        raise ValueError(f"two things to time are called {next(key for key in keys if keys.count(key) > 1)!r}")
    calls = {}
    for one in timed:
        one.prepare()
        one.call()
        start = clock()
        one.call()
        seconds = clock() - start
        calls[one.key] = int(np.clip(block_seconds / max(seconds, 1e-9), min_calls, max_calls))
    found: dict[Hashable, np.ndarray] = {key: np.empty((rounds, number)) for key, number in calls.items()}
    collecting = gc.isenabled()
    try:
        for number in range(rounds):
            for one in timed:
                gc.collect(0)
                gc.disable()
                _time_block(one, found[one.key][number], clock)
                if collecting:
                    gc.enable()
            if after_round is not None:
                after_round(number + 1)
    finally:
        if collecting:
            gc.enable()
    return found


def _time_block(one: Timed, seconds: np.ndarray, clock: Callable[[], float]) -> None:
    one.prepare()
    one.call()
    for index in range(len(seconds)):
        start = clock()
        one.call()
        seconds[index] = clock() - start


def spread(values: np.ndarray) -> Spread:
    """Median and quartiles of numbers.

    Example:
        >>> spread(np.array([4.0, 1.0, 2.0, 3.0, 5.0]))
        Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def of_rounds(seconds: np.ndarray) -> Spread:
    """Of the medians of each round; ``seconds`` is ``(rounds, calls)``."""
    return spread(np.median(seconds, axis=1))


def ratio(base: np.ndarray, own: np.ndarray) -> Spread:
    """How many times faster than the base, round by round.

    Args:
        base: Seconds of what is compared with, ``(rounds, calls)``.
        own: Seconds, with as many rounds of the same run.

    Example:
        A machine that slows down threefold in the second of three rounds:

        >>> slower = np.array([[1.0], [3.0], [1.0]])
        >>> ratio(4 * slower, 2 * slower)
        Spread(median=2.0, low=2.0, high=2.0)
    """
    return spread(np.median(base, axis=1) / np.median(own, axis=1))


def rates(seconds: Mapping[Hashable, np.ndarray], work: Mapping[Hashable, float]) -> dict[Hashable, float]:
    """The largest work per second seen in any call, by key."""
    return {key: work[key] / float(seconds[key].min()) for key in work}
