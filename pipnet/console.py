"""What is printed, and names of files as text: nothing that a terminal, a pipe or a table can't hold ends a command.

A name of a file is bytes. One that is no text is written down with its odd bytes as ``\xe9``, in messages, in CSV and
in JSON alike; a letter that a terminal can't show becomes ``\u9854`` there.

Also here: words for what is counted and for what went wrong, and what Ctrl-C does while a command starts and while it
works.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, cast

_FIRST_BYTE = 0xDC00  # Python keeps the byte b of a name that is no text as the lone surrogate 0xDC00 + b
_ESCAPE = "pipnet.escape"  # how Python calls what is done with a letter that can't be encoded
_STOPS = (signal.SIGINT, signal.SIGTERM)


def as_text(name: str) -> str:
    """A name as text that every file can hold.

    Example:
        >>> as_text("a.jpg"), as_text("caf\\udce9.jpg")
        ('a.jpg', 'caf\\\\xe9.jpg')
    """
    return name.encode("utf-8", _ESCAPE).decode()


def careful_output() -> None:
    """Let ``print`` write whatever there is, from now on: names that can't be shown, and to a reader who left.

    The end of a reader (``| head -1``) is no error: what is printed after it goes nowhere, and the work is done to its
    end.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # another program's
            continue
        if stream is getattr(sys, f"__{name}__") and not stream.isatty():
            stream.flush()
            raw = _Pipe(stream.fileno(), "wb", closefd=False)
            stream = io.TextIOWrapper(
                io.BufferedWriter(raw), stream.encoding, line_buffering=stream.line_buffering or name == "stderr"
            )
            setattr(sys, name, stream)
        stream.reconfigure(errors=_ESCAPE)


class _Pipe(io.FileIO):
    """A file that takes everything, also when nobody reads it any more."""

    def write(self, data: object) -> int:
        try:
            return cast("int", super().write(data))  # type: ignore[arg-type]
        except BrokenPipeError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def _escape(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    return "".join(_escaped(ord(letter)) for letter in letters), error.end


def _escaped(code: int) -> str:
    if 0x80 <= code - _FIRST_BYTE <= 0xFF:
        return f"\\x{code - _FIRST_BYTE:02x}"
    return chr(code).encode("ascii", "backslashreplace").decode()


codecs.register_error(_ESCAPE, _escape)


def counted(number: int, what: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "row"), counted(2, "photo"), counted(0, "frame")
        ('1 row', '2 photos', '0 frames')
    """
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def how_many(faces: int) -> str:
    """``no face``, ``1 face``, ``2 faces``."""
    return counted(faces, "face") if faces else "no face"


def doubtful(left_out: int) -> str:
    """What is said behind the faces when doubtful ones were left out; nothing where none was.

    Example:
        >>> how_many(2) + doubtful(7), how_many(0) + doubtful(1)
        ('2 faces (and 7 doubtful ones left out)', 'no face (and 1 doubtful one left out)')
    """
    return f" (and {counted(left_out, 'doubtful one')} left out)" if left_out else ""


def speed(number: int, what: str, seconds: float) -> str:
    """So many a second; where that is less than one in ten seconds, seconds for each.

    Example:
        >>> speed(24, "photo", 10.0), speed(2, "photo", 80.0)
        ('2.4 photos a second', '40 s a photo')
    """
    if number * 10 < seconds:
        return f"{seconds / number:.0f} s a {what}"
    return f"{number / max(seconds, 1e-9):.1f} {what}s a second"


def said(error: Exception | str) -> str:
    """An error as a sentence: the system's own begin with a number that nobody knows.

    Example:
        >>> said(PermissionError(13, "Permission denied", "out/a.png"))
        'out/a.png: Permission denied; check the rights, or choose another folder'
        >>> said(OSError(28, "a.png can't be written: No space left on device; free disk space"))
        "a.png can't be written: No space left on device; free disk space"
    """
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.filename is None:
        return error.strerror
    return f"{error.filename}: {error.strerror}; check the rights, or choose another folder"


def written_as(paths: Sequence[Path]) -> str:
    """``out/a.png and a.json``: the first with its folder, the others by name.

    Example:
        >>> written_as([Path("out/a.mp4"), Path("out/a.json"), Path("out/a.csv")])
        'out/a.mp4, a.json and a.csv'
    """
    first, *others = [str(paths[0]), *(path.name for path in paths[1:])]
    return ", ".join([first, *others[:-1]]) + f" and {others[-1]}" if others else first


def with_kept(error: OSError, kept: Sequence[Path]) -> OSError:
    """The error of one of several results, and which of the others are there, whole."""
    if not kept:
        return error
    return OSError(f"{said(error)}; {written_as(kept)} {'was' if len(kept) == 1 else 'were'} kept, whole")


def end_at_once_on_ctrl_c(interrupted: str) -> None:
    """Until :func:`started`, Ctrl-C ends the process at once, with one line and status 1.

    That is for the time in which nothing is open yet that would have to be kept. An exception will not do: libraries
    are being imported, and some turn a KeyboardInterrupt inside of them into an error of their own (``initialization
    failed``), which then reads as if a file were damaged. Where SIGINT is ignored (a job in the background) it stays
    ignored.

    Args:
        interrupted: The line.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        os.write(2, f"{interrupted}\n".encode())
        os._exit(1)

    global _ending
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _ending = end
        signal.signal(signal.SIGINT, end)


_ending: Any = None


def started() -> None:
    """From now on Ctrl-C is what Python makes of it, or a :class:`StopRequest`."""
    if _ending is not None and signal.getsignal(signal.SIGINT) is _ending:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
            self._before = {number: signal.signal(number, self._ask) for number in _STOPS}
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
