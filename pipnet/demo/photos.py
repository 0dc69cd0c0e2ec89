"""Landmarks on photos (the portrait, files, a folder): found, drawn, written and told, one photo after the other."""

from __future__ import annotations

import argparse
import mimetypes
import os
import re
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipnet.console import StopRequest, counted, doubtful, how_many, note, speed, with_kept, written_as
from pipnet.data.images import (
    IMAGE_SUFFIXES,
    PORTRAIT_NAME,
    BadSampleError,
    is_video,
    photos_below,
    portrait,
    read_image,
    write_image,
)
from pipnet.demo.output import Names, Table, write_json
from pipnet.inference.drawing import draw_faces
from pipnet.landmarks import FaceLandmarks


@dataclass(frozen=True)
class Photo:
    """One photo."""

    path: Path | None  # None is the portrait
    inside: Path = Path()  # its folder, seen from the folder that is searched; results keep that order

    @property
    def source(self) -> str:
        """What to call it."""
        return PORTRAIT_NAME if self.path is None else str(self.path)

    @property
    def name(self) -> str:
        """What to call its results."""
        return PORTRAIT_NAME if self.path is None else self.path.stem

    def read(self) -> np.ndarray:
        """RGB uint8 ``(H, W, 3)``; ValueError where it can't be read, whose message names it."""
        if self.path is None:
            return portrait()
        if self.path.is_dir():
            if not os.access(self.path, os.R_OK | os.X_OK):
                raise ValueError(f"{self.path}: this folder can't be listed; check its rights")
            raise ValueError(f"{self.path} is a folder; use --folder")
        if not self.path.is_file():
            link = self.path.is_symlink()
            raise ValueError(f"{self.path}: {'a link that leads nowhere' if link else 'no such photo'}")
        try:
            return read_image(self.path)
        except BadSampleError:
            if _is_video(self.path):
                raise ValueError(f"{self.path} is a video, not a photo; use --video") from None
            raise


def photos_in(folder: Path, results: Path) -> tuple[list[Photo], str]:
    """All photos of a folder and its subfolders, sorted, and a sentence about the files that are none by their names.

    What an earlier run wrote is skipped: ``NAME_landmarks.png`` beside its photo or where it is written today, and a
    subfolder ``results``, to which results go. The working folder is searched all the same: results go there when
    nobody says where. A subfolder that can't be read is among the photos.

    Raises:
        ValueError: No such folder, or no photo in it.
    """
    if not folder.is_dir():
        use = "--video" if folder.is_file() and _is_video(folder) else "--image"
        raise ValueError(f"{folder} is no folder; use {use}" if folder.exists() else f"{folder}: no such folder")
    others: Counter[str] = Counter()
    here = {results.resolve()} - {Path.cwd().resolve()}
    found = photos_below(folder, in_order=True, but=here, others=others)
    inside = {path: path.parent.relative_to(folder) if path != folder else Path() for path in found}
    written = {
        parent.resolve() / f"{path.stem}_landmarks"
        for path in inside
        for parent in (path.parent, results / inside[path])
    }
    photos = [Photo(path, inside[path]) for path in inside if _result_of(path) not in written]
    if not photos:
        raise ValueError(f"{folder}: no photo in this folder; looked for {', '.join(IMAGE_SUFFIXES)}")
    # Tables and records are what the demo writes itself.
    kinds = [f"{number} {suffix}" for suffix, number in others.most_common() if suffix not in (".csv", ".json")]
    return photos, f"skipped, as no photos by their names: {', '.join(kinds)}" if kinds else ""


def read_ahead(photos: Sequence[Photo]) -> Iterator[tuple[Photo, Future[np.ndarray]]]:
    """Each photo with its picture, or with the error that reading raised, in order; one is read in advance."""
    with ThreadPoolExecutor(1, thread_name_prefix="photos") as thread:
        reading = deque([thread.submit(photo.read) for photo in photos[:1]])
        for photo, following in zip_longest(photos, photos[1:]):
            if following is not None:
                reading.append(thread.submit(following.read))
            yield photo, reading.popleft()


def _result_of(path: Path) -> Path | None:
    """``folder/NAME_landmarks`` of a picture that has the name of a result, numbered or not."""
    name = re.fullmatch(r"(.+_landmarks)(_\d+)?\.png", path.name)
    return None if name is None else path.parent.resolve() / name[1]


def _is_video(path: Path) -> bool:
    """By its first bytes; of containers that these don't tell, by its name."""
    with path.open("rb") as file:
        start = file.read(16)
    return is_video(start) or (bool(start) and (mimetypes.guess_type(path.name)[0] or "").startswith("video/"))


class PhotoRun:
    """What becomes of the photos of one run.

    Results go to ``folder``, the picture of a single photo to ``file`` where that is given. ``boxes`` is told which
    photo is looked at next, where boxes come from a file.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        landmarker: Any,
        options: argparse.Namespace,
        *,
        folder: Path,
        file: Path | None,
        boxes: Any = None,
    ) -> None:
        self._photos, self._landmarker, self._options, self._boxes = photos, landmarker, options, boxes
        self._folder, self._file = folder, file
        inputs = [photo.path for photo in photos if photo.path is not None]
        self._names = Names([*inputs, *([options.boxes] if options.boxes else [])])
        self._several = len(photos) > 1
        self._done = self._failed = self._faces = self._without = self._skipped = 0

    def run(self) -> int:
        """Do them all; returns the exit status."""
        interrupted, started = False, time.perf_counter()
        progress = tqdm(total=len(self._photos), unit="photo", disable=None if self._several else True, leave=False)
        try:
            with self._table() as table, StopRequest(alone=True) as stop, progress:
                for photo, reading in read_ahead(self._photos):
                    self._attempt(photo, reading.result, table)
                    progress.update()
                    interrupted = stop.asked and self._done + self._failed < len(self._photos)
                    if interrupted:
                        break
            if table is not None:
                print(f"{counted(self._faces, 'row')} written to {table.path}")
        except OSError as error:
            self._complain(error)
        if self._several:
            self._summarise(time.perf_counter() - started, interrupted)
        return 1 if self._failed else 0

    def _table(self) -> AbstractContextManager[Table | None]:
        """The table of several photos, where one is wanted and can be written."""
        if self._options.csv and self._several:
            try:
                return Table(self._names.free(self._folder, "landmarks", ".csv"), self._landmarker.layout)
            except OSError as error:
                self._complain(error)
        return nullcontext()

    def _complain(self, error: Exception | str) -> None:
        """Say what went wrong, and count it."""
        self._failed += 1
        note("demo", error, partial(tqdm.write, file=sys.stderr))

    def _attempt(self, photo: Photo, read: Callable[[], np.ndarray], table: Table | None) -> None:
        try:
            image = read()
            started = time.perf_counter()
            if self._boxes is not None:
                self._boxes.seek(photo.source)
            found = self._landmarker(image, boxes=self._landmarker.detector(image))
            faces, skipped = surest(found, self._options.min_score, self._options.max_faces)
            milliseconds = 1000 * (time.perf_counter() - started)
            written = self._write(photo, image, faces)
        except (ValueError, OSError) as error:
            self._complain(error)
            return
        self._done += 1
        self._faces += len(faces)
        self._without += not len(faces)
        self._skipped += skipped
        keeping = doubtful(skipped)[:-1] + f"; --min-score 0 keeps {'it' if skipped == 1 else 'them'})"
        tqdm.write(
            f"{photo.source}: {how_many(len(faces))}{keeping if skipped else ''} in {milliseconds:.0f} ms, written to "
            f"{written_as(written)}"
        )
        if table is not None:
            table.write(photo.source, 0, 0.0, faces)

    def _write(self, photo: Photo, image: np.ndarray, faces: FaceLandmarks) -> list[Path]:
        folder = self._folder / photo.inside
        folder.mkdir(parents=True, exist_ok=True)
        picture = self._file or self._names.free(folder, f"{photo.name}_landmarks", ".png", ".json", ".csv")
        write_image(picture, draw_faces(image, faces))
        written = [picture]
        try:
            if self._options.json:
                write_json(picture.with_suffix(".json"), photo.source, image, faces)
                written.append(picture.with_suffix(".json"))
            if self._options.csv and not self._several:
                with Table(picture.with_suffix(".csv"), faces.layout) as table:
                    table.write(photo.source, 0, 0.0, faces)
                written.append(table.path)
        except OSError as error:
            raise with_kept(error, written) from error
        return written

    def _summarise(self, seconds: float, interrupted: bool) -> None:
        parts = [f"{self._done} of {counted(len(self._photos), 'photo')} done"] + ["interrupted"] * interrupted
        parts += [how_many(self._faces) + doubtful(self._skipped), f"{counted(self._without, 'photo')} without a face"]
        print(", ".join(parts) + (f"; {speed(self._done, 'photo', seconds)}" if self._done else ""))


def surest(faces: FaceLandmarks, min_score: float, most: int | None) -> tuple[FaceLandmarks, int]:
    """The faces whose score is at least ``min_score``, at most ``most``, and how many were skipped for their score."""
    sure = faces.face_scores >= min_score
    return faces[np.flatnonzero(sure)[:most]], int((~sure).sum())
