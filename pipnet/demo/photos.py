"""The demo on photos: find, draw, write, say so in a line; one after the other, whatever one of them holds.

Photos to look at: the portrait, files, a folder with its subfolders; the next one is read while one is looked at.
"""

from __future__ import annotations

import argparse
import mimetypes
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
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
    """One photo.

    Attributes:
        path: The file; None is the portrait.
        inside: Its folder, seen from the folder that is searched; results keep that order.
    """

    path: Path | None
    inside: Path = Path()

    @property
    def source(self) -> str:
        """What to call it."""
        return PORTRAIT_NAME if self.path is None else str(self.path)

    @property
    def name(self) -> str:
        """What to call its results."""
        return PORTRAIT_NAME if self.path is None else self.path.stem

    def read(self) -> np.ndarray:
        """RGB uint8 ``(H, W, 3)``.

        Raises:
            ValueError: It can't be read; the message names it.
        """
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
    """All photos of a folder and its subfolders, linked ones too, sorted; hidden ones are skipped.

    A photo by suffix: see :func:`pipnet.data.images.photos_below`. What an earlier run wrote is not looked at
    again: ``NAME_landmarks.png`` beside its photo or where ``results`` would have it, and a subfolder that is
    ``results``. The working folder is searched all the same: results go there when nobody says where.

    Args:
        folder: Where to look.
        results: Where results go.

    Returns:
        The photos, and among them each subfolder that can't be read; and a sentence about the files that are no photos
        by their names, or nothing where there is none.

    Raises:
        ValueError: No such folder, or no photo in it.
    """
    if not folder.is_dir():
        use = "--video" if folder.is_file() and _is_video(folder) else "--image"
        raise ValueError(f"{folder} is no folder; use {use}" if folder.exists() else f"{folder}: no such folder")
    others: Counter[str] = Counter()
    here = {results.resolve()} - {Path.cwd().resolve()}
    found = photos_below(folder, in_order=True, but=here, others=others)
    photos = [Photo(path, path.parent.relative_to(folder) if path != folder else Path()) for path in found]
    written = {
        parent.resolve() / f"{photo.name}_landmarks"
        for photo in photos
        for parent in (photo.path.parent, results / photo.inside)
    }
    photos = [photo for photo in photos if _result_of(photo.path) not in written]
    if not photos:
        raise ValueError(f"{folder}: no photo in this folder; looked for {', '.join(IMAGE_SUFFIXES)}")
    # Tables and records are what the demo writes itself.
    kinds = [f"{number} {suffix}" for suffix, number in others.most_common() if suffix not in (".csv", ".json")]
    return photos, f"skipped, as no photos by their names: {', '.join(kinds)}" if kinds else ""


def read_ahead(photos: Sequence[Photo]) -> Iterator[tuple[Photo, Future[np.ndarray]]]:
    """Each photo with its picture, or with the error that reading raised, in order; one is read in advance."""
    with ThreadPoolExecutor(1, thread_name_prefix="photos") as thread:
        following = thread.submit(photos[0].read) if photos else None
        for index, photo in enumerate(photos):
            reading = following
            following = thread.submit(photos[index + 1].read) if index + 1 < len(photos) else None
            assert reading is not None
            yield photo, reading


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

    Args:
        photos: In order.
        landmarker: Finds the points.
        options: Of the command line.
        folder: Where results go.
        file: The picture's own name, or None for ``NAME_landmarks.png``.
        boxes: Says which photo is looked at next, where boxes come from a file.
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
        self._done = self._faces = self._without = self._skipped = 0
        self._interrupted = False
        self.failed = 0

    def run(self) -> int:
        """Do them all.

        Returns:
            The exit status.
        """
        table = self._open_table() if self._options.csv and self._several else None
        started = time.perf_counter()
        progress = tqdm(total=len(self._photos), unit="photo", disable=None if self._several else True, leave=False)
        try:
            with StopRequest(alone=True) as stop, progress:
                for photo, reading in read_ahead(self._photos):
                    self._attempt(photo, reading.result, table)
                    progress.update()
                    if stop.asked and self._done + self.failed < len(self._photos):
                        self._interrupted = True
                        break
            if table is not None:
                table.finish()
                print(f"{counted(self._faces, 'row')} written to {table.path}")
                table = None
        except OSError as error:
            self.complain(error)
        finally:
            if table is not None:
                table.discard()
        if self._several:
            self._summarise(time.perf_counter() - started)
        return 1 if self.failed else 0

    def complain(self, error: Exception | str) -> None:
        """Say what went wrong, and count it."""
        self.failed += 1
        note("demo", error, partial(tqdm.write, file=sys.stderr))

    def _open_table(self) -> Table | None:
        try:
            return Table(self._names.free(self._folder, "landmarks", ".csv"), self._landmarker.layout)
        except OSError as error:
            self.complain(error)
            return None

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
            self.complain(error)
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
                self._write_table(picture.with_suffix(".csv"), photo, faces)
                written.append(picture.with_suffix(".csv"))
        except OSError as error:
            raise with_kept(error, written) from error
        return written

    def _write_table(self, path: Path, photo: Photo, faces: FaceLandmarks) -> None:
        table = Table(path, faces.layout)
        try:
            table.write(photo.source, 0, 0.0, faces)
            table.finish()
        finally:
            table.discard()

    def _summarise(self, seconds: float) -> None:
        parts = [f"{self._done} of {counted(len(self._photos), 'photo')} done"]
        if self._interrupted:
            parts.append("interrupted")
        parts += [how_many(self._faces) + doubtful(self._skipped), f"{counted(self._without, 'photo')} without a face"]
        print(", ".join(parts) + (f"; {speed(self._done, 'photo', seconds)}" if self._done else ""))


def surest(faces: FaceLandmarks, min_score: float, most: int | None) -> tuple[FaceLandmarks, int]:
    """The faces that are worth showing.

    Args:
        faces: Best detection first.
        min_score: Of a face as a whole; those below are skipped.
        most: At most so many of the others; None is all.

    Returns:
        The faces, and how many were skipped for their score.
    """
    sure = faces.face_scores >= min_score
    return faces[np.flatnonzero(sure)[:most]], int((~sure).sum())
