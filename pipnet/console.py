"""What is printed, and names of files as text: nothing that a terminal, a pipe or a table can't hold ends a command.

A name of a file is bytes. One that is no text is written down with its odd bytes as ``\\xe9``, in messages, in CSV and
in JSON alike; a letter that a terminal can't show becomes ``\\u9854`` there.
"""

from __future__ import annotations

import codecs
import io
import sys
from typing import cast

_FIRST_BYTE = 0xDC00  # Python keeps the byte b of a name that is no text as the lone surrogate 0xDC00 + b
_ESCAPE = "pipnet.escape"  # how Python calls what is done with a letter that can't be encoded


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
            return cast(int, super().write(data))  # type: ignore[arg-type]
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
