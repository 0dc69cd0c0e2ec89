"""What all commands have in common: their command line, their words for errors, what they print, and Ctrl-C.

* What ends a command is one line on stderr, ``pipnet.demo: error: …``; what it says besides is ``pipnet.demo: …``.
* A package of an extra that is not installed is one sentence with the ``pip install`` that brings it.
* Nothing that a terminal, a pipe or a table can't hold ends a command. A name of a file is bytes: one that is no text
  is written down with its odd bytes as ``\xe9``, in messages, in CSV and in JSON alike; a letter that a terminal can't
  show becomes ``\u9854`` there.
* Ctrl-C is one line and status 1, without a traceback; while a command starts it acts at once.
"""

from __future__ import annotations

import argparse
import codecs
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, cast

_FIRST_BYTE = 0xDC00  # Python keeps the byte b of a name that is no text as the lone surrogate 0xDC00 + b
_ESCAPE = "pipnet.escape"  # how Python calls what is done with a letter that can't be encoded
_STOPS = (signal.SIGINT, signal.SIGTERM)

# What is imported of the packages that an extra of pyproject.toml brings.
EXTRAS = {
    "train": ("torch", "torchvision", "hydra", "omegaconf", "yaml", "tensorboard", "scipy", "matplotlib", "h5py"),
    "web": ("aiohttp",),
    "export": ("onnx",),
    "openvino": ("openvino",),
    "timm": ("timm",),
}


def as_text(name: str) -> str:
    """A name as text that every file can hold."""
    return name.encode("utf-8", _ESCAPE).decode()


def careful_output() -> None:
    """Let ``print`` write whatever there is, from now on: names that can't be shown, and to a reader who left.

    What is printed after the end of a reader (``| head -1``) goes nowhere, and the work is done to its end.
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

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):  # what is read back from such a stream
        return cast("tuple[str, int]", codecs.backslashreplace_errors(error))
    letters = error.object[error.start : error.end]
    codes = [ord(letter) - (_FIRST_BYTE if "\udc80" <= letter <= "\udcff" else 0) for letter in letters]
    return "".join(chr(code).encode("ascii", "backslashreplace").decode() for code in codes), error.end


codecs.register_error(_ESCAPE, _escape)


def counted(number: int, what: str) -> str:
    """A number with its noun."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def how_many(faces: int) -> str:
    """``no face``, ``1 face``, ``2 faces``."""
    return counted(faces, "face") if faces else "no face"


def doubtful(skipped: int) -> str:
    """What is said behind the faces when doubtful ones were skipped; nothing where none was.

    Example:
        >>> how_many(2) + doubtful(7), how_many(0) + doubtful(1)
        ('2 faces (and 7 doubtful ones skipped)', 'no face (and 1 doubtful one skipped)')
    """
    return f" (and {counted(skipped, 'doubtful one')} skipped)" if skipped else ""


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
    """An error as a sentence, with its notes: the system's own begin with a number that nobody knows.

    Example:
        >>> said(PermissionError(13, "Permission denied", "out/a.png"))
        'out/a.png: Permission denied; check the rights, or choose another folder'
        >>> said(OSError(28, "a.png can't be written: No space left on device; free disk space"))
        "a.png can't be written: No space left on device; free disk space"
    """
    sentence = str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        sentence = error.strerror
        if error.filename is not None:
            sentence = f"{error.filename}: {sentence}; check the rights, or choose another folder"
    return "; ".join([sentence, *getattr(error, "__notes__", [])])


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


def failure(command: str, error: Exception | str) -> str:
    """What ends a command, as its one line; ``""`` is ``pipnet`` itself."""
    return f"{_speaker(command)}: error: {said(error)}"


def complain(command: str, error: Exception | str) -> int:
    """Say on stderr what ended a command; returns its exit status, 1."""
    print(failure(command, error), file=sys.stderr)
    return 1


def note(command: str, sentence: Exception | str, say: Callable[[str], object] | None = None) -> None:
    """Say on stderr what ends nothing; ``say`` prints the line there another way, as beside a progress bar."""
    say = say or partial(print, file=sys.stderr)
    say(f"{_speaker(command)}: {said(sentence)}")


class MissingExtraError(ImportError):
    """A package is not installed that comes with an extra; the message says which ``pip install`` brings it."""


def missing(package: str, extra: str | None = None) -> str:
    """A sentence: this package is not installed, and the extra that brings it.

    ``extra`` is the one that is about to be used, which may bring all of ``train`` along.
    """
    own = next(name for name, packages in EXTRAS.items() if package in packages)
    extra = extra if extra and own == "train" else own
    return f'{package} is not installed; pip install "pipnet[{extra}]" brings it'


@contextmanager
def needs(extra: str, module: str = "") -> Iterator[None]:
    """Around imports of what an extra (a name of :data:`EXTRAS`) brings: without it they are one sentence.

    ``module`` is ``__name__`` of a module around whose imports this stands. Where that is what Python runs, a command
    is starting: then the sentence ends the process, and so does Ctrl-C, at once and in one line.

    Raises:
        MissingExtraError: A package of an extra is not installed; SystemExit where a command is starting.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    command = spec.name.removeprefix("pipnet.") if module == "__main__" and spec is not None else ""
    if command:
        end_at_once_on_ctrl_c(command)
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if all(package not in packages for packages in EXTRAS.values()):
            raise
        sentence = missing(package, extra)
        if command:
            sys.exit(failure(command, sentence))
        raise MissingExtraError(sentence) from error
    except MissingExtraError as error:  # from inside of what is imported
        if command:
            sys.exit(failure(command, error))
        raise
    finally:
        if command:
            started()


def version() -> str:
    """The version of pipnet."""
    # Of the code that runs. What pip knows is that of the day of installing, where the package is editable.
    return import_module("pipnet").__version__


class Parser(argparse.ArgumentParser):
    """A command line: what is wrong with it is one line and status 2, and ``--version`` is there."""

    def __init__(self, command: str, description: str) -> None:
        called = sys.argv[0] if sys.argv[0].startswith("pipnet ") else f"python -m pipnet.{command}"
        super().__init__(prog=called, description=description)
        self.command = command
        self.add_argument(
            "--version", action="version", version=f"pipnet {version()}", help="show which pipnet this is, and exit"
        )

    def error(self, message: str) -> NoReturn:
        """End the process with one line and status 2; argparse's own puts it below a dozen lines of usage."""
        self.exit(2, f"{failure(self.command, message)} (--help lists the options)\n")


def positive(text: str) -> int:
    """A whole number from 1, as an argument of a command line."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0, as an argument of a command line."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    number = int(text) if text.isdecimal() else -1
    if number < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least}, got {text!r}")
    return number


def file_or_folder(text: str) -> Path:
    """A path that is not empty, as an argument of a command line."""
    if not text.strip():
        raise argparse.ArgumentTypeError("needs the name of a file or folder; . is the folder you are in")
    return Path(text)


def run(command: str, work: Callable[[], int], *, alone: bool, unfinished: str = "") -> int:
    """Do the work of a command, whatever is printed, whoever reads it, and when Ctrl-C comes: the exit status.

    Args:
        command: Name of the command, as ``demo``.
        work: Returns the exit status; it may call :func:`started` once something is open that a Ctrl-C must close in
            good order.
        alone: Whether the process is the command's: not where another program calls, whose Ctrl-C is its own.
        unfinished: What is said of what was interrupted, as ``nothing was written``.
    """
    careful_output()
    shown = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category is UserWarning:  # meant for who uses a command, who needs no line of its source
            note(command, str(message))
        else:
            shown(message, category, *where, **more)

    if alone:
        end_at_once_on_ctrl_c(command, unfinished)
        warnings.showwarning = show
    try:
        return work()
    except KeyboardInterrupt:
        print(interrupted(command, unfinished), file=sys.stderr)
        return 1
    finally:
        warnings.showwarning = shown
        started()


def interrupted(command: str, unfinished: str = "") -> str:
    """What is said when Ctrl-C has ended a command."""
    return f"{_speaker(command)}: interrupted{'; ' if unfinished else ''}{unfinished}"


def _speaker(command: str) -> str:
    return f"pipnet.{command}" if command else "pipnet"


def end_at_once_on_ctrl_c(command: str, unfinished: str = "") -> None:
    """Until :func:`started`, Ctrl-C ends the process at once, with one line and status 1.

    That is for the time in which nothing is open yet that would have to be kept. An exception will not do: libraries
    are being imported, and some turn a KeyboardInterrupt inside of them into an error of their own (``initialization
    failed``), which then reads as if a file were damaged. Where SIGINT is ignored (a job in the background) it stays
    ignored.
    """
    line = f"{interrupted(command, unfinished)}\n".encode()

    def end(_number: int, _frame: FrameType | None) -> None:
        os.write(2, line)
        os._exit(1)

    global _ending
    main_thread = threading.current_thread() is threading.main_thread()  # Python allows handlers nowhere else
    if main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        _ending = end
        signal.signal(signal.SIGINT, end)


_ending: Any = None


def started() -> None:
    """From now on Ctrl-C is what Python makes of it, or a :class:`StopRequest`."""
    if _ending is not None and signal.getsignal(signal.SIGINT) is _ending:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class StopRequest:
    """Remembers that the user or the cluster asked the training to stop.

    A second request acts at once where the process is ``alone``. Of several it doesn't, since ``torchrun`` repeats the
    signal that the terminal has sent already (and kills for good after a while).
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

    def __exit__(self, *_: object) -> None:
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
