"""From the notes of many processes to one sorted file of faces, in memory that does not grow with their number.

While photos are looked at, every process notes each photo and each detection in a file of its own for each first byte
of the photo's digest. Afterwards one process takes these 256 parts one by one: each is small, and sorted parts in a row
are a sorted whole. A photo that was met under several names, by whichever processes, appears once.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.atomic import replacing
from pipnet.data.face_rules import REASONS, FaceRules
from pipnet.data.face_store import FACE, PhotoRecord

_ROW = np.dtype([*FACE.descr, ("verdict", "u1")])
_PHOTO = 255  # the verdict of a row that stands for a photo itself
_PHOTO_NUMBER = 2**32 - 1
_PARTS = 256
_ROWS_IN_MEMORY = 20_000
_GIVEN_UP = "given_up"


class Notes:
    """What one process notes while it looks at photos; in the end it says that they are complete.

    Args:
        folder: Of this walk, from :func:`new_walk`.
        rank: This process.
        rules: Decide which detections are kept.

    Raises:
        ValueError: From every method: another gathering has taken the folder for itself.
        OSError: From every method: a file can't be written; the message names it.
    """

    def __init__(self, folder: Path, rank: int, rules: FaceRules) -> None:
        self.folder, self.rank, self.rules = folder, rank, rules
        self._rows: list[list[bytes]] = [[] for _ in range(_PARTS)]
        self._held = self._noted = self._damaged = 0

    def photo(self, digest: str, record: PhotoRecord) -> None:
        """Note a good photo and its detections."""
        key = np.frombuffer(bytes.fromhex(digest), np.uint8)
        rows = np.zeros(1 + len(record.faces), _ROW)
        rows["digest"] = key
        rows[0]["number"], rows[0]["verdict"] = _PHOTO_NUMBER, _PHOTO
        for number, face in enumerate(record.faces):
            verdict = self.rules.verdict(score=face.score, size=face.size, inside=face.inside, sharpness=face.sharpness)
            code = 1 + REASONS.index(verdict) if verdict else 0
            rows[1 + number] = (
                key,
                number,
                face.crop_box,
                np.nan if face.angle is None else face.angle,
                face.score,
                code,
            )
        self._rows[key[0]].append(rows.tobytes())
        self._held += len(rows)
        if self._held > _ROWS_IN_MEMORY:
            self._flush()

    def damaged(self, path: Path, reason: str) -> None:
        """Note a file that can't be used."""
        line = f"{path}: {reason}".replace("\r", "\\r").replace("\n", "\\n")
        self._append(f"{self.rank}.damaged", line.encode("utf-8", "surrogateescape") + b"\n")
        self._damaged += 1

    def finish(self) -> None:
        """Say that this process has seen all its photos."""
        self._flush()
        self._say(f"{self.rank}.done", json.dumps({"rows": self._noted, "damaged": self._damaged}))

    def give_up(self, reason: str) -> None:
        """Say to the other processes that this one ends without having seen all its photos."""
        with suppress(OSError, ValueError):  # the reason is on its way up already
            if not given_up(self.folder):  # the first one is the cause of the others
                self._say(_GIVEN_UP, reason)

    def _say(self, name: str, text: str) -> None:
        if not self.folder.is_dir():
            raise ValueError(_taken(self.folder.parent))
        with replacing(self.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")

    def _flush(self) -> None:
        for part, rows in enumerate(self._rows):
            if rows:
                self._append(f"{self.rank}-{part:02x}.rows", b"".join(rows))
                rows.clear()
        self._noted += self._held
        self._held = 0

    def _append(self, name: str, data: bytes) -> None:
        file = self.folder / name
        try:
            with file.open("ab") as notes:
                notes.write(data)
        except FileNotFoundError:
            raise ValueError(_taken(self.folder.parent)) from None
        except OSError as error:
            raise OSError(
                error.errno, f"{file} can't be written: {error.strerror}; free disk space or choose another folder"
            ) from error


def new_walk(folder: Path) -> Path:
    """A fresh folder for the notes of all processes; those of walks that were killed go."""
    for old in folder.glob("walk-*"):
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix="walk-", dir=folder))


def is_complete(walk: Path, world_size: int) -> bool:
    """Whether all processes have finished, or the walk is already put together and gone."""
    return not walk.is_dir() or all((walk / f"{rank}.done").is_file() for rank in range(world_size))


def given_up(walk: Path) -> str:
    """Why another process has ended early; empty if none has."""
    try:
        return (walk / _GIVEN_UP).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def assemble(walk: Path, folder: Path, world_size: int) -> dict[str, Any]:
    """Put together what the processes noted: ``damaged.txt`` and ``faces.npy``.

    Returns:
        The counts, see :class:`pipnet.training.gathering.Gathered`.

    Raises:
        OSError: A file can't be written.
        ValueError: Notes are missing: another process took the folder for itself.
    """
    try:
        done = [json.loads((walk / f"{rank}.done").read_text(encoding="utf-8")) for rank in range(world_size)]
    except FileNotFoundError:
        done = None
    counts: Counter[str] = Counter()
    for rows in _parts(walk, world_size):
        counts.update(_count(rows))
    if done is None or counts.pop("rows", 0) != sum(notes["rows"] for notes in done):
        raise ValueError(_taken(folder))
    damaged = sum(notes["damaged"] for notes in done)
    with replacing(folder / "damaged.txt") as temporary, temporary.open("wb") as lines:
        for rank in range(world_size):
            file = walk / f"{rank}.damaged"
            if file.is_file():
                with file.open("rb") as noted:
                    shutil.copyfileobj(noted, lines)
    faces = folder / "faces.npy"
    if counts["kept"]:
        with replacing(faces) as temporary, temporary.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(FACE), "fortran_order": False, "shape": (counts["kept"],)}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in _parts(walk, world_size):
                once = _once(rows)
                kept = once[once["verdict"] == 0]
                part = np.empty(len(kept), FACE)
                for name in FACE.fields:  # type: ignore[union-attr]
                    part[name] = kept[name]
                file.write(part.tobytes())
    else:
        faces.unlink(missing_ok=True)  # of other sources or rules
    return {
        "photos": counts["photos"] + damaged,
        "damaged": damaged,
        "duplicates": counts["photos"] - counts["different"],
        "without_face": counts["without_face"],
        "detections": counts["detections"],
        "kept": counts["kept"],
        "dropped": {reason: counts[reason] for reason in REASONS},
    }


def _parts(walk: Path, world_size: int) -> Iterator[np.ndarray]:
    """Part by part, all rows sorted by digest and number; of a photo that was met twice, twice."""
    for part in range(_PARTS):
        files = [walk / f"{rank}-{part:02x}.rows" for rank in range(world_size)]
        rows = np.concatenate([np.fromfile(file, _ROW) for file in files if file.is_file()] or [np.zeros(0, _ROW)])
        yield _sorted(rows)


def _sorted(rows: np.ndarray) -> np.ndarray:
    # A digest as two numbers: bytes compare as big-endian numbers do.
    high, low = np.ascontiguousarray(rows["digest"]).view(">u8").reshape(-1, 2).T
    return rows[np.lexsort((rows["number"], low, high))]


def _once(rows: np.ndarray) -> np.ndarray:
    """Sorted rows without repetitions; of two that differ, as detections of two kinds of machines may, the first."""
    same = (rows["digest"][1:] == rows["digest"][:-1]).all(axis=1) & (rows["number"][1:] == rows["number"][:-1])
    return rows[np.concatenate([np.ones(min(len(rows), 1), bool), ~same])]


def _count(rows: np.ndarray) -> dict[str, int]:
    once = _once(rows)
    photos = once["verdict"] == _PHOTO  # each comes after its detections
    before = np.concatenate([[True], photos[:-1]])
    verdicts = np.bincount(once["verdict"][~photos], minlength=1 + len(REASONS)).tolist()
    return {
        "rows": len(rows),
        "photos": int((rows["verdict"] == _PHOTO).sum()),
        "different": int(photos.sum()),
        "without_face": int((photos & before[: len(photos)]).sum()),
        "detections": int((~photos).sum()),
        "kept": verdicts[0],
        **dict(zip(REASONS, verdicts[1:], strict=True)),
    }


def _taken(folder: Path) -> str:
    return f"{folder} was taken by another gathering meanwhile; run one at a time, then this one again"
