"""Ctrl-C while the demo starts, when nothing is open yet that would have to be kept: one line, and out at once.

An exception will not do. Libraries are being imported, and some turn a KeyboardInterrupt inside of them into an error
of their own (``initialization failed``), which then reads as if a file were damaged.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = "pipnet.demo: interrupted"
STATUS = 1


def end_at_once_on_ctrl_c() -> None:
    """From now until :func:`started`. Where SIGINT is ignored (a job in the background) it stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def started() -> None:
    """From now on Ctrl-C is what Python makes of it, or a :class:`pipnet.training.stopping.StopRequest`."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(STATUS)
