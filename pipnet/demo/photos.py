"""The demo on photos: find, draw, write, say so in a line; one after the other, whatever one of them holds."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipnet.data.images import write_image
from pipnet.demo.output import Names, Table, write_json
from pipnet.demo.sources import Photo, read_ahead
from pipnet.demo.wording import counted, doubtful, how_many, said, speed, with_kept, written_as
from pipnet.faces import FaceLandmarks
from pipnet.inference.draw import draw_faces
from pipnet.training.stopping import StopRequest


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
        self._done = self._faces = self._without = self._left_out = 0
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
        tqdm.write(f"pipnet.demo: {said(error)}", file=sys.stderr)

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
            faces, left_out = surest(found, self._options.min_score, self._options.max_faces)
            milliseconds = 1000 * (time.perf_counter() - started)
            written = self._write(photo, image, faces)
        except (ValueError, OSError) as error:
            self.complain(error)
            return
        self._done += 1
        self._faces += len(faces)
        self._without += not len(faces)
        self._left_out += left_out
        keeping = doubtful(left_out)[:-1] + f"; --min-score 0 keeps {'it' if left_out == 1 else 'them'})"
        tqdm.write(
            f"{photo.source}: {how_many(len(faces))}{keeping if left_out else ''} in {milliseconds:.0f} ms, written to "
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
        parts += [how_many(self._faces) + doubtful(self._left_out), f"{counted(self._without, 'photo')} without a face"]
        print(", ".join(parts) + (f"; {speed(self._done, 'photo', seconds)}" if self._done else ""))


def surest(faces: FaceLandmarks, min_score: float, most: int | None) -> tuple[FaceLandmarks, int]:
    """The faces that are worth showing.

    Args:
        faces: Best detection first.
        min_score: Of a face as a whole; those below are left out.
        most: At most so many of the others; None is all.

    Returns:
        The faces, and how many were left out for their score.
    """
    sure = faces.face_scores >= min_score
    return faces[np.flatnonzero(sure)[:most]], int((~sure).sum())
