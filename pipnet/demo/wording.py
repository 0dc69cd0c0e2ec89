"""Words for what the demo counts and for what went wrong: right in number, and without codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


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
