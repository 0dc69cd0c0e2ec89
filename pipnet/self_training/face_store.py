"""The face store: one SQLite file with what a detector found in each photo, and with the faces cut out of it.

A photo is known by the digest of its bytes: the same photo under three names is one, and is looked at once. What is
found in it is written in one transaction, so a kill at any moment leaves all of it or nothing. Crops lie in the same
file, as JPEG, and so do pseudo-labels (:mod:`pipnet.self_training.pseudo_labels`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import sqlite3
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import fsdecode, fsencode
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipnet.data.images import decode_image
from pipnet.files import replacing

FILE = "faces.sqlite"
_FORMAT = 3  # 1 and 2 were folders of files
_PATIENCE_S = 600.0  # that a process waits while others write
_SCHEMA = """
CREATE TABLE settings (content TEXT);
CREATE TABLE photos (digest BLOB PRIMARY KEY, name BLOB, width INTEGER, height INTEGER) WITHOUT ROWID;
CREATE TABLE faces (photo BLOB, number INTEGER, score REAL, size REAL, sharpness REAL, inside REAL, angle REAL,
    box BLOB, crop_box BLOB, crop INTEGER, PRIMARY KEY (photo, number)) WITHOUT ROWID;
CREATE TABLE crops (id INTEGER PRIMARY KEY, jpeg BLOB);
CREATE TABLE ingest (token TEXT);
CREATE TABLE met (photo BLOB PRIMARY KEY, times INTEGER) WITHOUT ROWID;
CREATE TABLE damaged (line BLOB);
CREATE TABLE selections (digest TEXT PRIMARY KEY, first INTEGER, count INTEGER);
CREATE TABLE selected (id INTEGER PRIMARY KEY, photo BLOB, number INTEGER);
CREATE TABLE labellings (id INTEGER PRIMARY KEY, request TEXT UNIQUE);
"""


class Database:
    """One SQLite file, opened by each process when it first asks: a connection must not be shared with a parent."""

    def __init__(self, file: Path) -> None:
        self.file, self._pid = file, -1

    def __reduce__(self) -> tuple[type[Database], tuple[Path]]:
        return Database, (self.file,)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query. Raises OSError where the file can't be read, ValueError where it is damaged."""
        return list(self.each(sql, values))

    def each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
        """The rows of a query one by one, for those that have no end."""
        with self._connected() as connection:
            yield from connection.execute(sql, values)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: what is executed in the block is written as a whole or not at all."""
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def share(self, *, one_machine: bool) -> None:
        """Choose how writers keep out of each other's way, while no other process uses the file.

        A write-ahead log needs memory that all processes share, which several machines have not, nor some file systems;
        there writers and readers take turns instead.
        """
        with self._connected() as connection:
            try:
                connection.execute(f"PRAGMA journal_mode={'WAL' if one_machine else 'DELETE'}").fetchall()
                connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
            except sqlite3.OperationalError:
                connection.execute("PRAGMA journal_mode=DELETE").fetchall()
            _flush_seldom(connection)

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._pid != os.getpid():
                self._connection, self._lock = _open(self.file), threading.RLock()
                self._pid = os.getpid()
                weakref.finalize(self, _close, self._connection, self._pid)
            with self._lock:
                yield self._connection
        except sqlite3.Error as error:
            raise _in_words(self.file, error) from error


def _open(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
    _flush_seldom(connection)
    return connection


def _flush_seldom(connection: sqlite3.Connection) -> None:
    """With a write-ahead log a power cut may take the last photos, which are found again, and never the file."""
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    connection.execute(f"PRAGMA synchronous={'NORMAL' if mode == 'wal' else 'FULL'}")


_OF_PARENTS: list[sqlite3.Connection] = []  # of processes that this one was forked from, which alone may close them


def _close(connection: sqlite3.Connection, pid: int) -> None:
    if pid == os.getpid():
        connection.close()
    else:
        _OF_PARENTS.append(connection)


def _in_words(file: Path, error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF  # without the details
    foreign = code == sqlite3.SQLITE_ERROR and "no such" in str(error)
    if code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_MISUSE) and not foreign:
        return error  # a mistake here, and nothing that is wrong with the file
    if foreign or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return ValueError(f"{file} is damaged, or not of a store of faces ({error}); use another folder")
    if code == sqlite3.SQLITE_BUSY:
        return OSError(errno.EBUSY, f"{file} is locked by another process; end it, then give the same command again")
    number = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS}.get(code, errno.EIO)
    return OSError(number, f"{file} can't be written: {error}; free disk space or choose another folder")


class FoundFace(NamedTuple):
    """One detection in one photo."""

    box: tuple[float, ...]  # tight box of the face x0, y0, x1, y1, source pixels; may reach over the border
    score: float  # of the detector, in [0, 1]
    size: float  # longer side of the box, source pixels
    sharpness: float  # see pipnet.self_training.ingest.sharpness
    inside: float  # share of the box that lies inside the photo
    crop_box: tuple[float, ...]  # the box in pixels of the crop
    angle: float | None = None  # degrees clockwise, and the box turned about its centre; None: the detector doesn't say


class FoundPhoto(NamedTuple):
    """What was found in one photo."""

    name: str  # what the photo was called where it was met first
    size: tuple[int, int]  # width and height in pixels, upright
    faces: Sequence[FoundFace] = ()  # best first


class FaceStore:
    """The store while photos are ingested.

    Args:
        folder: Made if it is not there.
        settings: How faces are found and cut: what must be equal for two photos to share a store. Plain values.
        one_machine: Whether all processes that write to it run on one.

    Raises:
        ValueError: The folder holds a store of other settings, or something else.
        OSError: It can't be written.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], *, one_machine: bool = True) -> None:
        self.folder = Path(folder)
        self.database = Database(self.folder / FILE)
        wanted = {"format": _FORMAT, **settings}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            said = f"{self.folder} can't be made: {error.strerror}; choose another folder"
            raise OSError(error.errno, said) from error
        there = [entry.name for entry in self.folder.iterdir() if not entry.name.startswith(".")]
        if there and FILE not in there:
            what = "faces that an earlier pipnet kept in another way" if "store.json" in there else "other files"
            raise ValueError(f"{self.folder} holds {what}; the faces need a folder of their own")
        self.database.share(one_machine=one_machine)
        with self.database.writing() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO settings VALUES (?)", [json.dumps(wanted)])
            known = json.loads(connection.execute("SELECT content FROM settings").fetchone()[0])
        names = [name for name in {**wanted, **known} if known.get(name) != wanted.get(name)]
        if names:
            differing = ", ".join(f"{name}={known.get(name)}, now {wanted.get(name)}" for name in names)
            raise ValueError(f"{self.folder} holds faces found with {differing}; use another folder")

    def knows(self, digest: str) -> bool:
        """Whether a photo with these bytes was looked at; ``digest`` is from :func:`photo_digest`."""
        return bool(self.database.rows("SELECT 1 FROM photos WHERE digest = ?", [bytes.fromhex(digest)]))

    def add(self, digest: str, photo: FoundPhoto, crops: Sequence[np.ndarray]) -> None:
        """Keep what was found in a photo, with a crop of each face (RGB uint8); one that is known stays as it is."""
        key = bytes.fromhex(digest)
        encoded = [cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))[1].tobytes() for crop in crops]
        with self.database.writing() as connection:
            new = connection.execute(
                "INSERT OR IGNORE INTO photos VALUES (?, ?, ?, ?)", [key, fsencode(photo.name), *photo.size]
            ).rowcount
            for number, (face, crop) in enumerate(zip(photo.faces if new else [], encoded, strict=bool(new))):
                figures = (face.score, face.size, face.sharpness, face.inside, face.angle)
                boxes = (np.array(box, "<f8").tobytes() for box in (face.box, face.crop_box))
                place = connection.execute("INSERT INTO crops (jpeg) VALUES (?)", [crop]).lastrowid
                connection.execute(
                    "INSERT INTO faces VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", [key, number, *figures, *boxes, place]
                )

    def begin(self) -> str:
        """Begin to note which photos there are; returns the token of this ingest. What other ingests noted goes."""
        for leftover in self.folder.glob(".*-*.*"):  # of a process that was killed while it wrote a list
            leftover.unlink(missing_ok=True)
        token = secrets.token_hex()
        with self.database.writing() as connection:
            _forget_ingest(connection)
            connection.execute("INSERT INTO ingest VALUES (?)", [token])
        return token

    def meet(self, token: str, photos: Sequence[str], damaged: Sequence[str] = ()) -> None:
        """Note photos that were met: digests of good ones, and a line for each damaged one.

        Raises:
            ValueError: Another ingest has begun meanwhile.
        """
        with self.database.writing() as connection:
            self._check(connection, token)
            connection.executemany(
                "INSERT INTO met VALUES (?, 1) ON CONFLICT (photo) DO UPDATE SET times = times + 1",
                [[bytes.fromhex(digest)] for digest in sorted(photos)],
            )
            connection.executemany("INSERT INTO damaged VALUES (?)", [[fsencode(line)] for line in damaged])

    def choose(self, token: str, limits: Mapping[str, tuple[str, float]], damaged: Path) -> tuple[dict[str, Any], str]:
        """Choose among the faces of the photos that were met, in the order of the photos' digests; the ingest ends.

        Args:
            token: Of this ingest.
            limits: As :attr:`pipnet.self_training.ingest.FaceRules.limits`; the first reason counts.
            damaged: File that gets the lines of the damaged photos.

        Returns:
            The counts, see :class:`pipnet.self_training.ingest.Ingested`, and the digest of the chosen faces, by which
            :class:`UnlabelledFaces` finds them.

        Raises:
            ValueError: Another ingest has begun meanwhile.
        """
        verdict = " ".join(f"WHEN {figure} < ? THEN '{reason}'" for reason, (figure, _) in limits.items())
        least = [value for _, value in limits.values()]
        every = (
            f"SELECT faces.photo, number, CASE {verdict} ELSE '' END, crop_box FROM met CROSS JOIN faces"
            " ON faces.photo = met.photo ORDER BY met.photo, number"  # the order in which both lie
        )
        counts: Counter[str] = Counter()
        digest = hashlib.sha256()

        def kept(found: sqlite3.Cursor) -> Iterator[tuple[bytes, int]]:
            for photo, number, reason, box in found:
                counts[reason] += 1
                counts["with_face"] += number == 0
                if not reason:
                    digest.update(photo + box)
                    yield photo, number

        with self.database.writing() as connection:
            self._check(connection, token)
            first = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM selected").fetchone()[0]
            connection.executemany(
                "INSERT INTO selected (photo, number) VALUES (?, ?)", kept(connection.execute(every, least))
            )
            name = digest.hexdigest()
            before = connection.execute("SELECT first FROM selections WHERE digest = ?", [name]).fetchone()
            if before or not counts[""]:
                connection.execute("DELETE FROM selected WHERE id >= ?", [first])
            if counts[""]:
                first = before[0] if before else first
                connection.execute("REPLACE INTO selections VALUES (?, ?, ?)", [name, first, counts[""]])
            met, different = connection.execute("SELECT coalesce(sum(times), 0), count(*) FROM met").fetchone()
            unusable = connection.execute("SELECT count(*) FROM damaged").fetchone()[0]
            with replacing(damaged) as temporary, temporary.open("wb") as file:
                for (line,) in connection.execute("SELECT line FROM damaged ORDER BY rowid"):
                    file.write(line + b"\n")
            _forget_ingest(connection)
        return {
            "photos": met + unusable,
            "damaged": unusable,
            "duplicates": met - different,
            "without_face": different - counts["with_face"],
            "detections": sum(counts[reason] for reason in ("", *limits)),
            "kept": counts[""],
            "dropped": {reason: counts[reason] for reason in limits},
        }, name

    def _check(self, connection: sqlite3.Connection, token: str) -> None:
        if connection.execute("SELECT token FROM ingest").fetchall() != [(token,)]:
            raise ValueError(f"{self.folder} was taken by another ingest meanwhile; run one at a time, then this again")


def _forget_ingest(connection: sqlite3.Connection) -> None:
    for table in ("ingest", "met", "damaged"):
        connection.execute(f"DELETE FROM {table}")


class Found(NamedTuple):
    """What the detector said of some faces, in pixels of their crops."""

    boxes: np.ndarray  # (F, 4) float32, tight boxes x0, y0, x1, y1, turned by ``angles`` about their centres
    angles: np.ndarray  # (F,) float32, degrees clockwise; NaN where the detector does not say
    scores: np.ndarray  # (F,) float32 in [0, 1]


class UnlabelledFaces:
    """The faces of a store that passed the rules, in an order that is the same on every machine.

    They are read when they are asked for: ten million faces take no more memory than five hundred. ``digest`` names a
    choice of faces; None takes the one that was made last.

    Raises:
        FileNotFoundError: There is no such choice.
        ValueError: The folder holds something else.
    """

    def __init__(self, folder: str | Path, digest: str | None = None) -> None:
        self.folder = Path(folder)
        self.database = Database(self.folder / FILE)
        query = "SELECT digest, first, count FROM selections WHERE coalesce(digest = ?, 1) ORDER BY rowid DESC LIMIT 1"
        found = self.database.rows(query, [digest]) if self.database.file.is_file() else []
        if not found:
            raise FileNotFoundError(f"{self.database.file} holds no such faces; ingest the photos first")
        self.digest, self._first, self._count = found[0]

    def __len__(self) -> int:
        return self._count

    def __reduce__(self) -> tuple[type[UnlabelledFaces], tuple[Path, str]]:
        return UnlabelledFaces, (self.folder, self.digest)

    def name(self, index: int) -> str:
        """What a face is called: ``<digest of the photo>-<number of the detection>``; unique and stable."""
        photo, number = self._face("photo, number", index)
        return f"{photo.hex()}-{number}"

    def image(self, index: int) -> np.ndarray:
        """The face with its surroundings, RGB uint8 ``(H, W, 3)``; BadSampleError where it is damaged."""
        data, number = self._face("jpeg, crop", index, "JOIN crops ON crops.id = crop")
        return decode_image(data, f"{self.database.file}, crop {number}")

    def found(self, rows: range) -> Found:
        """What the detector said of consecutive faces."""
        query = "SELECT crop_box, angle, score FROM selected JOIN faces USING (photo, number)"
        query += " WHERE selected.id BETWEEN ? AND ? ORDER BY selected.id"
        places = [self._first + rows.start, self._first + rows.stop - 1]
        boxes, angles, scores = zip(*self.database.rows(query, places), strict=True)
        return Found(
            np.frombuffer(b"".join(boxes), "<f8").reshape(-1, 4).astype(np.float32),
            np.array(angles, np.float32),  # None becomes NaN
            np.array(scores, np.float32),
        )

    def in_photo(self, index: int, points: np.ndarray) -> tuple[str, np.ndarray]:
        """The name of a face's photo, and points ``(..., 2)`` of the crop in pixels of the upright photo."""
        columns = self._face("name, box, crop_box", index, "JOIN photos ON photos.digest = photo")
        box, crop_box = (np.frombuffer(corners, "<f8").reshape(2, 2) for corners in columns[1:])
        scale = (box[1] - box[0]) / (crop_box[1] - crop_box[0])
        return fsdecode(columns[0]), box[0] + (points - crop_box[0]) * scale

    def photo_size(self, index: int) -> tuple[int, int]:
        """Width and height of the photo that a face is in, upright."""
        width, height = self._face("width, height", index, "JOIN photos ON photos.digest = photo")
        return width, height

    def largest_of_each_photo(self) -> np.ndarray:
        """The faces of which no other in the same photo is larger, ``(P,)`` int64, ascending."""
        # Of a group SQLite gives the row that has the maximum.
        query = "SELECT selected.id, max(size) FROM selected JOIN faces USING (photo, number)"
        query += " WHERE selected.id BETWEEN ? AND ? GROUP BY photo"
        rows = self.database.each(query, [self._first, self._first + self._count - 1])
        return np.sort(np.fromiter((row - self._first for row, _ in rows), np.int64))

    def _face(self, columns: str, index: int, joined: str = "") -> tuple[Any, ...]:
        query = f"SELECT {columns} FROM selected JOIN faces USING (photo, number) {joined} WHERE selected.id = ?"
        found = self.database.rows(query, [self._first + range(self._count)[index]])
        if not found:
            raise ValueError(f"{self.database.file} has lost face {index}; use another folder and find the faces again")
        return found[0]


def photo_digest(data: bytes) -> str:
    """BLAKE2b of a file's bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
