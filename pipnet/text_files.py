"""Text files as people's programs save them: their encoding, the cells of a line, and what is wrong with a YAML."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from pathlib import Path

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | Path) -> str:
    r"""Text of a file in UTF-8, with or without a mark at its start, or in UTF-16 with one (Excel's "Unicode text").

    Returns:
        The text without the mark; every line ends in ``\n``.

    Raises:
        OSError: The file can't be read; the message names it.
        ValueError: It is in another encoding, or no text; the message names the file and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.csv"
        ...     _ = file.write_bytes("image\r\né.jpg".encode("utf-16"))
        ...     read_text(file)
        'image\né.jpg'
    """
    data = Path(path).read_bytes()
    encoding = "utf-16" if data.startswith(_UTF_16) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = _unix(data[: error.start].decode(encoding, "ignore")).count("\n") + 1
        if encoding == "utf-16":
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
    r"""Rows of a CSV from its header on, with commas, tabs or semicolons, whichever the header has most of.

    A cell in quotes may hold a line break, but a quote that is left open costs its own line only, not all behind it.

    Returns:
        The number of the line that a row begins on, from 1, and its cells, or what is wrong with the line. Blank lines
        behind the header are skipped.

    Example:
        >>> list(csv_rows('image;x\n"a;b.jpg";1\n"c.jpg;2\nd.jpg;3\n'))[:2]
        [(1, ['image', 'x']), (2, ['a;b.jpg', '1'])]
        >>> [number for number, row in csv_rows('image;x\n"c.jpg;2\nd.jpg;3\n') if isinstance(row, str)]
        [2]
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
