"""Timing in turn, A B A B, so that what slows the machine for a while slows everybody; medians and ratios."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Seconds: TypeAlias = dict[Hashable, np.ndarray]
"""By key, seconds of each call, ``(rounds, calls)``."""


@dataclass(frozen=True)
class Timed:
    """Something to time, by a key; ``prepare`` sets what others change, such as torch's number of threads."""

    key: Hashable
    call: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


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
    clock: Callable[[], float] = time.perf_counter,
    after_round: Callable[[int, Seconds], object] = lambda number, seconds: None,
    stop: Callable[[], bool] = lambda: False,
) -> Seconds:
    """Time calls in turn.

    A round visits each once: it is prepared, called once without a clock (caches, and the idle threads of the one
    before), then some times with one. Garbage collection is off while a clock runs.

    Args:
        timed: In the order of a round.
        rounds: How many.
        block_seconds: About as long each is timed in a round; the number of its calls follows from a first one.
        min_calls: At least so many calls; at most 50.
        clock: Gives seconds.
        after_round: Is told how many rounds are done, and the times so far.
        stop: Asked before each visit; true ends the timing.

    Returns:
        The times. Of a timing that was stopped those of its whole rounds, or where there is none those of the first
        round as far as it came.

    Raises:
        ValueError: Two have the same key, or ``rounds`` is below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    keys = [one.key for one in timed]
    if len(set(keys)) < len(keys):
        raise ValueError(f"two things to time are called {max(keys, key=keys.count)!r}")
    blocks: dict[Hashable, list[np.ndarray]] = {key: [] for key in keys}
    for number in range(1, rounds + 1):
        for one in timed:
            if stop():
                kept = max(number - 1, 1)
                return {key: np.stack(times[:kept]) for key, times in blocks.items() if times}
            own = blocks[one.key]
            if own:
                own.append(_block(one, len(own[0]), clock))
                continue
            first = _block(one, 1, clock)
            calls = int(np.clip(block_seconds / max(first[0], 1e-9), min_calls, 50))
            own.append(first if calls == 1 else _block(one, calls, clock))
        after_round(number, {key: np.stack(times) for key, times in blocks.items()})
    return {key: np.stack(times) for key, times in blocks.items()}


def _block(one: Timed, calls: int, clock: Callable[[], float]) -> np.ndarray:
    """Seconds of some calls in a row, ``(calls,)``."""
    collecting = gc.isenabled()
    gc.collect(0)
    gc.disable()
    try:
        one.prepare()
        one.call()
        seconds = np.empty(calls)
        for index in range(calls):
            start = clock()
            one.call()
            seconds[index] = clock() - start
        return seconds
    finally:
        if collecting:
            gc.enable()


def spread(values: np.ndarray) -> Spread:
    """Median and quartiles of numbers."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def of_rounds(seconds: np.ndarray) -> Spread:
    """Of the medians of each round; ``seconds`` is ``(rounds, calls)``."""
    return spread(np.median(seconds, axis=1))


def ratio(base: np.ndarray, own: np.ndarray) -> Spread:
    """How many times faster than the base, round by round; both are ``(rounds, calls)`` of the same timing."""
    return spread(np.median(base, axis=1) / np.median(own, axis=1))
