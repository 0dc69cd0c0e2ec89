"""What is kept of a video or camera while it plays: a video, a record, a table; any of them, or none."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pipnet.demo.capture import FrameSource
from pipnet.demo.output import Names, Table, VideoRecord
from pipnet.demo.recording import Recording
from pipnet.demo.wording import with_kept
from pipnet.faces import FaceLandmarks
from pipnet.layouts import PointLayout

_File: TypeAlias = Recording | VideoRecord | Table


class Results:
    """The files of one video or camera. Made whole in the end, or not at all.

    Args:
        source: What is played.
        called: Name or address of it, for the files' contents.
        options: Of the command line: ``json``, ``csv``, and ``boxes``, a file that must stay.
        layout: What the points mean.
        folder: Where the files go.
        file: The video's own name, or None for ``NAME_landmarks.mp4``.
        video: Whether a video is written.
        took: Told the seconds that the encoder took for a picture.

    Raises:
        OSError: A file can't be written; on :meth:`write` and :meth:`finish` too.
    """

    def __init__(
        self,
        source: FrameSource,
        called: str,
        options: argparse.Namespace,
        layout: PointLayout,
        *,
        folder: Path,
        file: Path | None,
        video: bool,
        took: Callable[[float], None],
    ) -> None:
        self._called = called
        inputs = ([] if source.live else [Path(called)]) + ([options.boxes] if options.boxes else [])
        path = file or Names(inputs).free(folder, f"{source.name}_landmarks", ".mp4", ".json", ".csv")
        self.recording: Recording | None = None
        self._record: VideoRecord | None = None
        self._table: Table | None = None
        self._lost: dict[_File, OSError] = {}
        try:
            if video:
                hold = {"longest_hold_s": 1.0} if source.live else {}  # a camera that was gone is not waited for
                self.recording = Recording(path, source.size, source.fps, **hold, took=took)
            if options.json:
                self._record = VideoRecord(path.with_suffix(".json"), called, source.size, layout)
            if options.csv:
                self._table = Table(path.with_suffix(".csv"), layout)
        except BaseException:
            self.discard()
            raise

    def __bool__(self) -> bool:
        return any(self._files())

    @property
    def nearly_full(self) -> bool:
        """The disk is: end while what was done can be kept."""
        return self.recording is not None and self.recording.nearly_full

    def write(self, number: int, time_s: float, faces: FaceLandmarks, picture: np.ndarray | None) -> None:
        """Add a frame; the picture, with the faces drawn, must not be changed any more."""
        if self.recording is not None and picture is not None:
            self._try(self.recording, lambda recording: recording.write(picture, time_s))
        if self._record is not None:
            self._try(self._record, lambda record: record.write(number, time_s, faces))
        if self._table is not None:
            self._try(self._table, lambda table: table.write(self._called, number, time_s, faces))
        if self._lost:
            raise next(iter(self._lost.values()))

    def finish(self) -> list[Path]:
        """Give the files their names; these are returned.

        When one fails, or has failed on :meth:`write`, the others are kept all the same, and the error names them.
        """
        kept = []
        if self.recording is not None:  # its error has the file's name only when it is finished
            self._lost.pop(self.recording, None)
        for file in self._files():
            if file not in self._lost and self._try(file, lambda file: file.finish()) and not _is_empty(file):
                kept.append(file.path)
        if self._lost:
            raise with_kept(next(iter(self._lost.values())), kept)
        return kept

    def discard(self) -> None:
        """Leave nothing behind that is not finished."""
        for file in self._files():
            file.discard()

    def _try(self, file: _File, act: Callable[[Any], None]) -> bool:
        try:
            act(file)
        except OSError as error:
            self._lost[file] = error
        return file not in self._lost

    def _files(self) -> list[_File]:
        return [file for file in (self.recording, self._record, self._table) if file is not None]


def _is_empty(file: _File) -> bool:
    """A video without a picture, which leaves no file."""
    return isinstance(file, Recording) and file.frames == 0
