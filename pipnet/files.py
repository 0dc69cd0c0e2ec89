"""Files that appear whole or not at all, names that every library can open, and text as people's programs save it."""

from __future__ import annotations

import codecs
import csv
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the name ``path`` when the block ends well.

    The file is flushed to the disk before it is renamed, so a kill or a power cut leaves either the old file or the new
    one. When the block raises, the temporary file goes and an older ``path`` stays as it was. The temporary name keeps
    the suffix, for writers that choose a format by it.

    Raises:
        OSError: The file can't be written (no folder, full disk); the message names ``path``.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, f"{path} can't be written: {error.strerror}; check the folder") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(
                error.errno, f"{path} can't be written: {error.strerror}; free disk space or choose another folder"
            ) from error
        raise


@contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to fill, which takes the name ``path`` when the block ends well; ``path`` must not be there.

    Its files are flushed to the disk before. What a killed process left of an earlier one is swept up.

    Raises:
        OSError: It can't be written (a full disk); the message names ``path``, and nothing is left.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
        os.chmod(temporary, 0o777 & ~_umask())
        os.rename(temporary, path)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and error.errno is not None:
            reason = os.strerror(error.errno)  # the error's own words may have the temporary name
            said = f"{path} can't be written: {reason}; free disk space or choose another folder"
            raise OSError(error.errno, said) from error
        raise


@contextmanager
def openable(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name under which a C++ library can open a file, to read it or to write into it, while the block lasts.

    A name is bytes, and OpenCV crashes on one that is no UTF-8 (an old disk, an unpacked archive). Such a file, or its
    folder, gets a link in a temporary folder; any other one keeps its name.
    """
    name = os.fspath(path)
    if is_utf8(name):
        yield name
        return
    file = Path(os.path.abspath(name))
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        if is_utf8(file.name):  # the folder, so that what lies beside the file is found too
            link.symlink_to(file.parent, target_is_directory=True)
            yield str(link / file.name)
        else:
            link = link.with_suffix(file.suffix if is_utf8(file.suffix) else "")
            link.symlink_to(file)
            yield str(link)


def is_utf8(name: str) -> bool:
    """Whether the name of a file is text; Python marks the bytes of one that is not with lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def read_text(path: str | Path) -> str:
    r"""Text of a file in UTF-8, with or without a mark at its start, or in UTF-16 with one (Excel's "Unicode text").

    Returns:
        The text without the mark; every line ends in ``\n``.

    Raises:
        OSError: The file can't be read; the message names it.
        ValueError: It is in another encoding, or no text; the message names the file and the line.
    """
    data = Path(path).read_bytes()
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf_16 else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = _unix(data[: error.start].decode(encoding, "ignore")).count("\n") + 1
        if is_utf_16:
            raise ValueError(f"{path}, line {line}: cut off or no text in UTF-16; save it again, as UTF-8") from None
        byte = data[error.start]
        meant = bytes([byte]).decode("cp1252", "replace")
        raise ValueError(
            f"{path}, line {line}: byte 0x{byte:02X} is no UTF-8 (in Windows' own encoding it is {meant!r}); save the"
            ' file as UTF-8, in Excel as "CSV UTF-8"'
        ) from None
    text = _unix(text)
    if "\0" in text:  # UTF-16 without its mark is text in UTF-8 as well, with a zero between the letters
        line = text[: text.index("\0")].count("\n") + 1
        raise ValueError(f"{path}, line {line}: a byte 0, so no text, or UTF-16 without its mark; save it as UTF-8")
    return text


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def csv_rows(text: str) -> Iterator[tuple[int, list[str] | str]]:
    """Rows of a CSV from its header on, with commas, tabs or semicolons, whichever the header has most of.

    A cell in quotes may hold a line break, but a quote that is left open costs its own line only, not all behind it.

    Returns:
        The number of the line that a row begins on, from 1, and its cells, or what is wrong with the line. Blank lines
        behind the header are skipped.
    """
    lines = [f"{line}\n" for line in text.split("\n")]
    delimiter = max(",\t;", key=lines[0].count)
    width, at = 0, 0
    while at < len(lines):
        if at and not lines[at].strip():
            at += 1
            continue
        rows = csv.reader((lines[i] for i in range(at, len(lines))), delimiter=delimiter, strict=True)
        wrong = 'a quote (") is not closed, or not at the end of its cell; correct or delete the line'
        cells: list[str] = []
        try:
            cells = next(rows)
        except csv.Error as error:
            if "field larger" in str(error):
                wrong = f"no row of a table ({error}); correct or delete the line"
            rows = None
        if rows is None or (rows.line_num > 1 and len(cells) != width):  # an open quote that met a later one
            yield at + 1, wrong
            at += 1
            continue
        width = width or len(cells)
        yield at + 1, cells
        at += rows.line_num


def yaml_fault(error: Exception) -> str:
    """What a YAML parser found wrong, with the line, as one sentence."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return " ".join(str(error).split())
    tab = "; indent with blanks, YAML takes no tabs" if "\\t" in problem else ""
    return f"line {mark.line + 1}: {problem}{tab}"
