"""Sessions of native libraries in other processes: pickled, copied or forked, they are opened again."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Session(Generic[T]):
    """What ``open_()`` gives, opened when it is first needed, and again in each process that it gets into.

    A session has threads, and they don't live on in a forked process: there it would wait for them, at the latest when
    it is closed. So a fork leaves it alone for good and opens its own. A copy, pickled or not, opens its own too.

    Args:
        open_: Without arguments; what can be pickled, so that this can.

    Example:
        >>> import copy
        >>> session = Session(dict)
        >>> session.get() is session.get(), session.get() is copy.deepcopy(session).get()
        (True, False)
    """

    def __init__(self, open_: Callable[[], T]) -> None:
        self._open = open_
        self._opened: T | None = None
        self._lock = threading.Lock()
        _sessions.add(self)

    def get(self) -> T:
        """The session of this process."""
        opened = self._opened
        if opened is None:
            with self._lock:
                if self._opened is None:
                    self._opened = self._open()
                opened = self._opened
        return opened

    def __reduce__(self) -> tuple[Any, ...]:
        return Session, (self._open,)

    def _leave(self) -> None:
        """In a forked process: never closed, because that would join threads that are not there."""
        if self._opened is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._opened))
        self._opened, self._lock = None, threading.Lock()  # another thread may have held the lock


_sessions: weakref.WeakSet[Session[Any]] = weakref.WeakSet()
_torch_may_have_threads = True


def may_have_threads() -> bool:
    """Whether PyTorch may compute on several threads; in a forked process its OpenMP would wait for the parent's."""
    return _torch_may_have_threads


def _forked() -> None:
    global _torch_may_have_threads
    _torch_may_have_threads = _torch_may_have_threads and "torch" not in sys.modules
    for session in list(_sessions):
        session._leave()
    if "onnxruntime" in sys.modules or "openvino" in sys.modules:
        # What they tear down when a program ends waits for their threads as well, even where there was no session
        # (1.32). Python has ended by then, so nothing is lost when the process does without it.
        with suppress(AttributeError):  # not in every C library
            libc = ctypes.CDLL(None)
            libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forked)
