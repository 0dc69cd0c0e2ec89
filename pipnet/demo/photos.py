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

from pipnet.demo.output import Names, Table, write_json, write_picture, written_as
from pipnet.demo.sources import Photo, read_ahead
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
        self._done = self._faces = self._without = 0
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
                    if stop.asked:
                        break
            if table is not None:
                table.finish()
                print(f"{self._faces} rows written to {table.path}")
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
        tqdm.write(f"pipnet.demo: {error}", file=sys.stderr)

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
            found = self._landmarker.detector(image).boxes[: self._options.max_faces]
            faces = self._landmarker(image, boxes=found)
            milliseconds = 1000 * (time.perf_counter() - started)
            written = self._write(photo, image, faces)
        except (ValueError, OSError) as error:
            self.complain(error)
            return
        self._done += 1
        self._faces += len(faces)
        self._without += not len(faces)
        tqdm.write(f"{photo.source}: {how_many(len(faces))} in {milliseconds:.0f} ms, written to {written_as(written)}")
        if table is not None:
            table.write(photo.source, 0, 0.0, faces)

    def _write(self, photo: Photo, image: np.ndarray, faces: FaceLandmarks) -> list[Path]:
        folder = self._folder / photo.inside
        folder.mkdir(parents=True, exist_ok=True)
        picture = self._file or self._names.free(folder, f"{photo.name}_landmarks", ".png", ".json", ".csv")
        write_picture(picture, draw_faces(image, faces))
        written = [picture]
        if self._options.json:
            written.append(picture.with_suffix(".json"))
            write_json(written[-1], photo.source, image, faces)
        if self._options.csv and not self._several:
            written.append(picture.with_suffix(".csv"))
            table = Table(written[-1], faces.layout)
            try:
                table.write(photo.source, 0, 0.0, faces)
                table.finish()
            finally:
                table.discard()
        return written

    def _summarise(self, seconds: float) -> None:
        parts = [f"{self._done} of {len(self._photos)} photos done", how_many(self._faces)]
        parts.append(f"{self._without} photos without a face")
        print(f"{', '.join(parts)}; {self._done / max(seconds, 1e-9):.1f} photos a second")


def how_many(faces: int) -> str:
    """``no face``, ``1 face``, ``2 faces``."""
    return {0: "no face", 1: "1 face"}.get(faces, f"{faces} faces")
