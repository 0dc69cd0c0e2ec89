"""The formats of :mod:`pipnet.inference.file_boxes`: a CSV or JSON file to its entries, or one sentence about it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipnet.text_files import csv_rows, read_text

_CORNERS = ("x0", "y0", "x1", "y1")
# What pipnet's own tables call these columns.
_ALIASES = {"source": "image"} | {f"box_{corner}": corner for corner in _CORNERS}
_COLUMNS = "image,x0,y0,x1,y1 (and frame, score, angle where there are such)"


@dataclass(frozen=True)
class Entry:
    """A box, or the word that there is none.

    Attributes:
        name: Photo or video, as in the file.
        frame: Number of the frame, or None for a photo.
        box: ``x0, y0, x1, y1``, or None: no face here.
        score: In [0, 1].
        angle: Degrees, how far the box is turned; NaN where the file does not say.
        place: Where it stands in the file, for messages.
    """

    name: str
    frame: int | None
    box: tuple[float, float, float, float] | None
    score: float
    angle: float
    place: str


def read_entries(path: Path) -> list[Entry]:
    """All entries of a file, whose first letter tells JSON from CSV.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file can't be used; the message says where and why.
    """
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file of boxes") from None
    except OSError as error:
        raise ValueError(f"{path}: the boxes can't be read ({error.strerror})") from error
    read = _read_json if text.lstrip()[:1] in ("{", "[") else _read_csv
    try:
        entries = list(read(text))
    except _BadEntryError as error:
        raise ValueError(f"{path}, {error}") from None
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise ValueError(f"{path}: neither a CSV nor a JSON of boxes ({error})") from None
    if not entries:
        raise ValueError(f"{path}: no boxes in it; a CSV has the columns {_COLUMNS}")
    return entries


class _BadEntryError(ValueError):
    """Place and reason, without the file."""


def _read_csv(text: str) -> Iterator[Entry]:
    rows = csv_rows(text)
    there = [name.strip() for name in _cells(*next(rows))]
    header = [_ALIASES.get(name, name) for name in there]
    missing = [name for name in ("image", *_CORNERS) if name not in header]
    if missing:
        shown = ", ".join(there[:8]) + (", …" if len(there) > 8 else "") or "nothing"
        raise _BadEntryError(f"line 1: no column {missing[0]!r} in the header ({shown}); boxes need {_COLUMNS}")
    for number, found in rows:
        place, row = f"line {number}", dict(zip(header, _cells(number, found), strict=False))
        cells = {name: row.get(name, "").strip() for name in ("image", "frame", *_CORNERS, "score", "angle")}
        if not cells["image"]:
            raise _BadEntryError(f"{place}: no image; every row names the photo or video of its box")
        corners = [cells[name] for name in _CORNERS]
        box = corners if any(corners) else None
        yield _entry(cells["image"], cells["frame"] or None, box, cells["score"] or None, place, cells["angle"] or None)


def _cells(number: int, row: list[str] | str) -> list[str]:
    if isinstance(row, str):
        raise _BadEntryError(f"line {number}: {row}")
    return row


def _read_json(text: str) -> Iterator[Entry]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        if "\n" in text.strip() and error.msg.startswith("Extra data"):
            yield from _read_json_lines(text)
            return
        raise _BadEntryError(f"line {error.lineno}: not JSON ({error.msg})") from None
    yield from _records(content)


def _read_json_lines(text: str) -> Iterator[Entry]:
    """One object a line, which is how results of a video are written while it plays."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                content = json.loads(line)
            except json.JSONDecodeError as error:
                raise _BadEntryError(f"line {number}: not JSON ({error.msg})") from None
            yield from _records(content, f"line {number}, ")


def _records(content: Any, before: str = "") -> Iterator[Entry]:
    """What the demo writes (an object with ``faces``, alone, in a list or under ``frames``), or names to boxes."""
    if isinstance(content, list):
        for index, record in enumerate(content):
            if not isinstance(record, dict):
                raise _BadEntryError(f"{before}entry {index}: an object with 'image' and 'faces' is expected")
            yield from _records(record, f"{before}entry {index}, ")
    elif "faces" in content:
        yield from _demo_record(content, content, before)
    elif isinstance(content.get("frames"), list):
        for index, record in enumerate(content["frames"]):
            if not isinstance(record, dict) or "faces" not in record:
                raise _BadEntryError(f"{before}frame {index}: an object with 'frame' and 'faces' is expected")
            yield from _demo_record({"frame": index} | record, content | record, f"{before}frame {index}, ")
    else:
        for name, value in content.items():
            if isinstance(value, dict):
                for frame, boxes in value.items():
                    yield from _boxes(name, frame, boxes, f"{before}{name!r}, frame {frame}")
            else:
                yield from _boxes(name, None, value, f"{before}{name!r}")


def _demo_record(record: dict[str, Any], named: dict[str, Any], before: str) -> Iterator[Entry]:
    name = next((named[key] for key in ("image", "video", "source") if isinstance(named.get(key), str)), None)
    if name is None:
        raise _BadEntryError(f"{before}no 'image': the photo or video of the faces must be named")
    place, frame, faces = f"{before}{name!r}", record.get("frame"), record["faces"]
    if not isinstance(faces, list) or not all(isinstance(face, dict) and "box" in face for face in faces):
        raise _BadEntryError(f"{place}: 'faces' must be a list of objects with a 'box'")
    if not faces:
        yield _entry(name, frame, None, None, place)
    for index, face in enumerate(faces):
        yield _entry(name, frame, face["box"], face.get("score"), f"{place}, face {index}", face.get("angle"))


def _boxes(name: str, frame: str | None, boxes: Any, place: str) -> Iterator[Entry]:
    if not isinstance(boxes, list):
        raise _BadEntryError(f"{place}: a list of boxes [x0, y0, x1, y1] is expected, got {boxes!r}")
    if not boxes:
        yield _entry(name, frame, None, None, place)
    for index, box in enumerate(boxes):
        if not isinstance(box, list) or len(box) not in (4, 5):
            raise _BadEntryError(f"{place}, box {index}: [x0, y0, x1, y1] or [x0, y0, x1, y1, score], got {box!r}")
        yield _entry(name, frame, box[:4], box[4] if len(box) == 5 else None, f"{place}, box {index}")


def _entry(name: str, frame: Any, box: Any, score: Any, place: str, angle: Any = None) -> Entry:
    """Values as they stand in the file, checked."""
    if frame is not None:
        number = _number(frame, "frame", place)
        if number < 0 or number != int(number):
            raise _BadEntryError(f"{place}: frame must be a whole number from 0, got {frame!r}")
        frame = int(number)
    corners = None
    if box is not None:
        if not isinstance(box, list) or len(box) != 4:
            raise _BadEntryError(f"{place}: a box is [x0, y0, x1, y1], got {box!r}")
        corners = tuple(_number(value, name, place) for value, name in zip(box, _CORNERS, strict=True))
        if not (corners[0] < corners[2] and corners[1] < corners[3]):
            raise _BadEntryError(
                f"{place}: {list(corners)} is no box; boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1"
            )
    value = 1.0 if score is None else _number(score, "score", place)
    if not 0 <= value <= 1:
        raise _BadEntryError(f"{place}: the score must lie in [0, 1], got {score!r}")
    return Entry(name, frame, corners, value, math.nan if angle is None else _number(angle, "angle", place), place)


def _number(value: Any, what: str, place: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _BadEntryError(f"{place}: {what} must be a number, got {value!r}")
    return number
