"""Latency of each part of a frame, measured from outside: nothing in the measured code knows of it."""

from __future__ import annotations

import copy
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

PARTS = ("read", "detect", "crop", "network", "decode", "track", "draw", "show", "write")

# Frames that the figures are made of: enough for a percentile, and a camera may run for days.
_REMEMBERED = 4096


class Stopwatch:
    """Seconds spent in each of :data:`PARTS`, frame by frame.

    ``crop`` is what happens in a landmarker's call before its network first runs, ``decode`` what happens after its
    last run, ``track`` what a tracker does around its calls of detector and landmarker. ``read`` and ``write`` happen
    on threads of their own, beside the others.
    """

    def __init__(self) -> None:
        self._frame: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, deque[float]] = {part: deque(maxlen=_REMEMBERED) for part in PARTS}
        self._ends: deque[float] = deque(maxlen=_REMEMBERED)
        self._first = 0.0
        self.frames = 0

    def add(self, part: str, seconds: float) -> None:
        """Time spent in a part of the frame that is under way."""
        self._frame[part] += seconds

    def add_aside(self, part: str, seconds: float) -> None:
        """Time spent on a frame by another thread; may be called from there."""
        self._seconds[part].append(seconds)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The time that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - start)

    def frame_done(self) -> dict[str, float]:
        """The frame that was under way is finished; returns the seconds of its parts."""
        parts = dict(self._frame)
        for part, seconds in parts.items():
            self._seconds[part].append(seconds)
        self._frame.clear()
        self._ends.append(time.perf_counter())
        self._first = self._first if self.frames else self._ends[-1]
        self.frames += 1
        return parts

    def frames_per_second(self, over_s: float | None = None) -> float:
        """Frames finished a second, in the last ``over_s`` seconds; None is since the first frame."""
        if self.frames < 2:
            return 0.0
        if over_s is None:
            return (self.frames - 1) / max(self._ends[-1] - self._first, 1e-9)
        since = time.perf_counter() - over_s
        recent = [end for end in reversed(self._ends) if end >= since]
        return (len(recent) - 1) / max(recent[0] - recent[-1], 1e-9) if len(recent) > 1 else 0.0

    def summary(self, last: int = _REMEMBERED) -> dict[str, dict[str, float]]:
        """For each part that ran in its ``last`` frames: median and 95th percentile in ms, and in how many it ran."""
        result = {}
        for part in PARTS:
            if seconds := list(self._seconds[part])[-last:]:
                median, p95 = (round(float(value), 3) for value in 1000 * np.percentile(seconds, (50, 95)))
                result[part] = {"median_ms": median, "p95_ms": p95, "frames": len(seconds)}
        return result

    def watch(self, landmarker: Any) -> Any:
        """A landmarker that does the same and is measured; the one given stays as it is."""
        return _WatchedLandmarker(landmarker, self)

    def track(self, tracker: Callable[..., Any], *arguments: Any) -> Any:
        """Call a tracker that runs on a watched landmarker; what neither detector nor landmarker took is ``track``."""
        before = self._inside()
        start = time.perf_counter()
        result = tracker(*arguments)
        self.add("track", time.perf_counter() - start - (self._inside() - before))
        return result

    def _inside(self) -> float:
        return sum(self._frame.get(part, 0.0) for part in ("detect", "crop", "network", "decode"))


class _WatchedLandmarker:
    """Stands in front of a landmarker; its detector and its network report to the stopwatch."""

    def __init__(self, landmarker: Any, watch: Stopwatch) -> None:
        self._watch, self._network = watch, _WatchedNetwork(landmarker.runtime, watch)
        self._landmarker = copy.copy(landmarker)  # shares weights and detector
        self._landmarker.runtime = self._network

    def __getattr__(self, name: str) -> Any:
        return getattr(self._landmarker, name)

    def detector(self, image: np.ndarray) -> Any:
        detector = self._landmarker.detector
        with self._watch.part("detect"):
            return detector(image)

    def __call__(self, image: np.ndarray, boxes: Any, angles: np.ndarray | None = None) -> Any:
        self._network.first = self._network.last = None
        start = time.perf_counter()
        faces = self._landmarker(image, boxes=boxes, angles=angles)
        if self._network.first is not None and self._network.last is not None:
            self._watch.add("crop", self._network.first - start)
            self._watch.add("decode", time.perf_counter() - self._network.last)
        return faces


class _WatchedNetwork:
    """Stands in front of a runtime, and remembers when it was entered first and left last."""

    def __init__(self, runtime: Any, watch: Stopwatch) -> None:
        self._runtime, self._watch = runtime, watch
        self.first: float | None = None
        self.last: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def __call__(self, crops: np.ndarray) -> Any:
        start = time.perf_counter()
        result = self._runtime(crops)
        self.last = time.perf_counter()
        self.first = start if self.first is None else self.first
        self._watch.add("network", self.last - start)
        return result
