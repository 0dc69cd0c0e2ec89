"""Ctrl-C that is not forgotten."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Whether Ctrl-C was pressed: libraries turn a KeyboardInterrupt inside of them into errors of their own."""

    came = False

    def check(self) -> None:
        """Raise it again where somebody caught it."""
        if self.came:
            raise KeyboardInterrupt


@contextmanager
def remembered_interrupt() -> Iterator[Interrupt]:
    """While it lasts, Ctrl-C is a KeyboardInterrupt as ever, and is remembered; where others own it, it is theirs."""
    interrupt = Interrupt()

    def note(_number: int, _frame: FrameType | None) -> None:
        interrupt.came = True
        raise KeyboardInterrupt

    try:
        ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if ours:
            signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread, which is where Ctrl-C arrives
        ours = False
    try:
        yield interrupt
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
