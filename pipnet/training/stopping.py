"""A polite end: Ctrl-C or SIGTERM lets the step in progress finish, so that the state on disk is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Remembers that the user or the cluster asked the training to stop.

    A second request acts at once, as it would without this class; with several processes it doesn't, since ``torchrun``
    repeats the signal that the terminal has sent already (and kills for good after a while).

    Args:
        alone: Whether this is the only process.

    Example:
        >>> with StopRequest(alone=True) as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     stop.asked
        True
    """

    def __init__(self, *, alone: bool) -> None:
        self.asked = False
        self.by = ""  # "Ctrl-C" or "a signal", once asked
        self._alone = alone
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self.by = "Ctrl-C" if number == signal.SIGINT else "a signal"
        if self._alone:
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
