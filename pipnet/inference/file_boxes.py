"""Boxes that stand in a file, from another detector or from a hand: photo or frame in, boxes out.

A CSV has a header; its columns may stand in any order, and others are ignored::

    image,frame,x0,y0,x1,y1,score
    party/a.jpg,,104.5,62,180,151,0.98
    party/a.jpg,,310,70,371.5,142,0.91
    empty.jpg,,,,,,
    clip.mp4,0,104.5,62,180,151,
    clip.mp4,1,105.5,62,181,151,

``image`` is a photo or a video, ``frame`` the frame's number in a video, from 0 (the column may be left out where
there are photos only). ``x0, y0, x1, y1`` is the tight box of the points in pixels, 0-based and naming pixel centres.
``score`` lies in [0, 1] and is 1 where it is left out. A column ``angle`` says by how many degrees a face is tilted
clockwise, and its box turned about its own centre; where it is left out the box is upright, the face anyhow. A row with
no numbers says: no face here.

A JSON holds the same, as one object::

    {"party/a.jpg": [[104.5, 62, 180, 151, 0.98], [310, 70, 371.5, 142]], "empty.jpg": [],
     "clip.mp4": {"0": [[104.5, 62, 180, 151]], "1": []}}

What ``python -m pipnet.demo`` writes with ``--json`` or ``--csv`` can be given back too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np

from pipnet.console import as_text
from pipnet.files import csv_rows, read_text
from pipnet.inference.detections import UNCALIBRATED, Calibration, Detections

_CORNERS = ("x0", "y0", "x1", "y1")
# What pipnet's own tables call these columns.
_ALIASES = {"source": "image"} | {f"box_{corner}": corner for corner in _CORNERS}
_COLUMNS = "image,x0,y0,x1,y1 (and frame, score, angle where there are such)"


class _Entry(NamedTuple):
    """A box, or with no corners the word that there is none."""

    name: str  # of the photo or video
    frame: int | None  # None for a photo
    corners: list[float]
    score: float
    angle: float  # degrees, NaN where the file does not say
    place: str  # in the file, for messages


class _BadEntryError(ValueError):
    """Place and reason, without the file."""


class FileBoxes:
    """Boxes by photo, or by video and frame; also a detector, which is told which photo is meant.

    A detector sees pixels, and pixels don't say which photo they are. So :meth:`seek` goes before each call::

        boxes = FileBoxes("boxes.csv")
        landmarker = FaceLandmarker.load(detector=boxes)
        boxes.seek("clip.mp4", frame=7)
        faces = landmarker(frame_7)

    Args:
        path: A CSV or JSON file as described above.
        calibration: Turns the boxes into tight boxes of the points, where the file holds a detector's own.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file can't be used; the message names the file, and the line (CSV) or the entry (JSON).
    """

    def __init__(self, path: str | Path, *, calibration: Calibration = UNCALIBRATED) -> None:
        self.path = Path(path)
        rows: dict[str, dict[int | None, list[_Entry]]] = {}
        for entry in _read(self.path):
            frames = rows.setdefault(entry.name, {})
            if frames and (entry.frame is None) != (None in frames):
                raise ValueError(
                    f"{self.path}, {entry.place}: {entry.name!r} has boxes with a frame and without; give every box of"
                    " a video its frame"
                )
            frames.setdefault(entry.frame, []).append(entry)
        self._detections = {
            name: {frame: _detections(entries, calibration) for frame, entries in frames.items()}
            for name, frames in rows.items()
        }
        self._parts = {name: _parts(name) for name in self._detections}
        self._here: Detections | None = None

    def __len__(self) -> int:
        """Photos and videos that the file knows."""
        return len(self._detections)

    def of(self, name: str | Path, frame: int | None = None) -> Detections:
        """Boxes of a photo, or of a frame (from 0) of a video, best first.

        The file's name fits a photo if it is the end of the photo's path, or the photo's path is the end of it:
        ``a.jpg`` and ``party/a.jpg`` both fit ``/home/me/party/a.jpg``. The longest that fits counts, so with photos of
        one name in several folders, name the folders in the file. A frame that the file leaves out has no face; a photo
        that it leaves out is an error.

        Raises:
            ValueError: The file does not know this photo, or has no frames for it, or has only frames.
        """
        known = self._find(as_text(str(name)))  # as the demo's own files have it
        frames = self._detections[known]
        if frame is None and list(frames) == [0]:
            return frames[0]  # the demo's table counts a photo as frame 0
        if (frame is None) != (None in frames):
            has, asked = ("boxes without frames", "a video") if None in frames else ("boxes by frame", "a photo")
            raise ValueError(
                f"{self.path}: {known!r} has {has}, and {name} is {asked}; correct the column or key 'frame'"
            )
        return frames.get(frame, _detections([], UNCALIBRATED))

    def seek(self, name: str | Path, frame: int | None = None) -> None:
        """Name the photo or frame of the next calls; raises as :meth:`of` does."""
        self._here = self.of(name, frame)

    def __call__(self, image: np.ndarray) -> Detections:
        """Boxes of the photo or frame that was named last; the pixels are not looked at."""
        if self._here is None:
            raise ValueError(f"{self.path}: which photo? call seek(name, frame) before the detector")
        return self._here

    def _find(self, name: str) -> str:
        given, absolute = _parts(name), _parts(str(Path(name).absolute()))
        fitting = [known for known, parts in self._parts.items() if absolute[-len(parts) :] == parts]
        if fitting:
            return max(fitting, key=lambda known: len(self._parts[known]))
        fitting = [known for known, parts in self._parts.items() if parts[-len(given) :] == given]
        if len(fitting) > 1:
            raise ValueError(f"{self.path}: {name} could be {fitting[0]!r} or {fitting[1]!r}; give the longer path")
        if not fitting:
            some = ", ".join(repr(known) for known in list(self._detections)[:3])
            more = ", …" if len(self) > 3 else ""
            raise ValueError(
                f"{self.path}: no boxes for {name}; the file has {some}{more}; a photo without a face needs a line too:"
                ' its name, the other columns empty (JSON: "NAME": [])'
            )
        return fitting[0]


def _detections(entries: list[_Entry], calibration: Calibration) -> Detections:
    faces = [entry for entry in entries if entry.corners]
    boxes = np.reshape([face.corners for face in faces], (-1, 4))
    scores, angles = [face.score for face in faces], [face.angle for face in faces]
    if calibration == UNCALIBRATED:
        return Detections(boxes, scores, angles)
    return Detections.calibrated(boxes, scores, calibration, angles)


def _parts(name: str) -> tuple[str, ...]:
    """Folders and file of a path of either kind, without ``.`` and what ``..`` takes back."""
    parts: list[str] = []
    for part in PurePath(name.replace("\\", "/")).parts:
        if part == ".." and parts and parts[-1] != "/":
            parts.pop()
        elif part != "..":
            parts.append(part)
    return tuple(parts)


def _read(path: Path) -> list[_Entry]:
    """All entries of a file, whose first letter tells JSON from CSV."""
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: no such file of boxes") from None
    except OSError as error:
        raise ValueError(f"{path}: the boxes can't be read ({error.strerror})") from error
    try:
        entries = list(_read_json(text) if text.lstrip()[:1] in ("{", "[") else _read_csv(text))
    except _BadEntryError as error:
        raise ValueError(f"{path}, {error}") from None
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise ValueError(f"{path}: neither a CSV nor a JSON of boxes ({error})") from None
    if not entries:
        raise ValueError(f"{path}: no boxes in it; a CSV has the columns {_COLUMNS}")
    return entries


def _read_csv(text: str) -> Iterator[_Entry]:
    header: list[str] | None = None
    for number, row in csv_rows(text):
        place = f"line {number}"
        if isinstance(row, str):
            raise _BadEntryError(f"{place}: {row}")
        if header is None:
            there = [name.strip() for name in row]
            header = [_ALIASES.get(name, name) for name in there]
            missing = [name for name in ("image", *_CORNERS) if name not in header]
            if missing:
                shown = ", ".join(there[:8]) + (", …" if len(there) > 8 else "") or "nothing"
                raise _BadEntryError(f"line 1: no column {missing[0]!r} in the header ({shown}); boxes need {_COLUMNS}")
            continue
        cells = {name: cell.strip() or None for name, cell in zip(header, row, strict=False)}
        if not cells.get("image"):
            raise _BadEntryError(f"{place}: no image; every row names the photo or video of its box")
        corners = [cells.get(name) for name in _CORNERS]
        box = [corner or "" for corner in corners] if any(corners) else None
        yield _entry(place, str(cells["image"]), cells.get("frame"), box, cells.get("score"), cells.get("angle"))


def _read_json(text: str) -> Iterator[_Entry]:
    """One document after another, as the demo's files of several photos put together are."""
    decoder, start = json.JSONDecoder(), len(text) - len(text.lstrip())
    while start < len(text):
        try:
            content, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            raise _BadEntryError(f"line {error.lineno}: not JSON ({error.msg})") from None
        line = text.count("\n", 0, start) + 1
        yield from _records(content, f"line {line}, " if line > 1 else "")
        start = end
        while text[start : start + 1].isspace():
            start += 1


def _records(content: Any, before: str = "") -> Iterator[_Entry]:
    """What the demo writes (an object with ``faces``, alone, in a list or under ``frames``), or names to boxes."""
    if isinstance(content, list):
        for index, record in enumerate(content):
            if not isinstance(record, dict):
                raise _BadEntryError(f"{before}entry {index}: an object with 'image' and 'faces' is expected")
            yield from _records(record, f"{before}entry {index}, ")
    elif "faces" in content:
        yield from _demo_record(content, before)
    elif isinstance(content.get("frames"), list):
        for index, record in enumerate(content["frames"]):
            if not isinstance(record, dict) or "faces" not in record:
                raise _BadEntryError(f"{before}frame {index}: an object with 'frame' and 'faces' is expected")
            yield from _demo_record(content | {"frame": index} | record, f"{before}frame {index}, ")
    else:
        for name, value in content.items():
            if isinstance(value, dict):
                for frame, boxes in value.items():
                    yield from _boxes(name, frame, boxes, f"{before}{name!r}, frame {frame}")
            else:
                yield from _boxes(name, None, value, f"{before}{name!r}")


def _demo_record(record: dict[str, Any], before: str) -> Iterator[_Entry]:
    name = next((record[key] for key in ("image", "video", "source") if isinstance(record.get(key), str)), None)
    if name is None:
        raise _BadEntryError(f"{before}no 'image': the photo or video of the faces must be named")
    place, frame, faces = f"{before}{name!r}", record.get("frame"), record["faces"]
    if not isinstance(faces, list) or not all(isinstance(face, dict) and "box" in face for face in faces):
        raise _BadEntryError(f"{place}: 'faces' must be a list of objects with a 'box'")
    if not faces:
        yield _entry(place, name, frame)
    for index, face in enumerate(faces):
        yield _entry(f"{place}, face {index}", name, frame, face["box"], face.get("score"), face.get("angle"))


def _boxes(name: str, frame: str | None, boxes: Any, place: str) -> Iterator[_Entry]:
    if not isinstance(boxes, list):
        raise _BadEntryError(f"{place}: a list of boxes [x0, y0, x1, y1] is expected, got {boxes!r}")
    if not boxes:
        yield _entry(place, name, frame)
    for index, box in enumerate(boxes):
        if not isinstance(box, list) or len(box) not in (4, 5):
            raise _BadEntryError(f"{place}, box {index}: [x0, y0, x1, y1] or [x0, y0, x1, y1, score], got {box!r}")
        yield _entry(f"{place}, box {index}", name, frame, *[box[:4], *box[4:]])


def _entry(place: str, name: str, frame: Any, box: Any = None, score: Any = None, angle: Any = None) -> _Entry:
    """Values as they stand in the file, checked; without a box, that there is no face."""
    if frame is not None:
        number = _number(frame, "frame", place)
        if number < 0 or number != int(number):
            raise _BadEntryError(f"{place}: frame must be a whole number from 0, got {frame!r}")
        frame = int(number)
    corners: list[float] = []
    if box is not None:
        if not isinstance(box, list) or len(box) != 4:
            raise _BadEntryError(f"{place}: a box is [x0, y0, x1, y1], got {box!r}")
        corners = [_number(value, what, place) for value, what in zip(box, _CORNERS, strict=True)]
        if not (corners[0] < corners[2] and corners[1] < corners[3]):
            raise _BadEntryError(f"{place}: {corners} is no box; boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    value = 1.0 if score is None else _number(score, "score", place)
    if not 0 <= value <= 1:
        raise _BadEntryError(f"{place}: the score must lie in [0, 1], got {score!r}")
    return _Entry(name, frame, corners, value, math.nan if angle is None else _number(angle, "angle", place), place)


def _number(value: Any, what: str, place: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise _BadEntryError(f"{place}: {what} must be a number, got {value!r}")
    return number
