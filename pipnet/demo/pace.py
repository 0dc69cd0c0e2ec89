"""The speed of a video in a window: its own."""

from __future__ import annotations

import time

_LONGEST_WAIT_S = 10.0  # a file's time stamps may jump; but slides may stand for seconds
_BEHIND_FRAMES = 1.5  # from which frames are left out
_BEHIND_S = 1.0  # from which the clock is set anew: the machine can't keep up at all
_MOST_SKIPPED = 10  # in a row


class Pace:
    """Says when a frame is due, and which are left out where showing all would fall behind.

    Args:
        fps: Frames a second.
        may_skip: False shows every frame, late if need be.

    Example:
        >>> pace = Pace(25.0, may_skip=True)
        >>> pace.wait_s(0.0)
        0.0
        >>> 0.03 < pace.wait_s(0.04) <= 0.04
        True
    """

    def __init__(self, fps: float, *, may_skip: bool) -> None:
        self._frame_s, self._may_skip = 1 / fps, may_skip
        self._start: float | None = None  # when the frame of time 0 was due
        self._skipped = 0

    def restart(self) -> None:
        """The next frame is due at once, after a pause for instance."""
        self._start = None

    def wait_s(self, time_s: float) -> float | None:
        """How long until a frame of this time is due; 0 if it is late, None if it is left out."""
        now = time.perf_counter()
        if self._start is None:
            self._start = now - time_s
        wait = self._start + time_s - now
        if wait < -_BEHIND_S or wait > _LONGEST_WAIT_S:
            self._start = now - time_s
            wait = 0.0
        if self._may_skip and wait < -_BEHIND_FRAMES * self._frame_s and self._skipped < _MOST_SKIPPED:
            self._skipped += 1
            return None
        self._skipped = 0
        return max(wait, 0.0)
