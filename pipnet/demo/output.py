"""What the demo leaves behind: records and tables of points, videos, and names for all files.

Every file appears whole or not at all.
"""

from __future__ import annotations

import argparse
import csv
import errno
import io
import json
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from pipnet.console import as_text, with_kept
from pipnet.files import openable, replacing
from pipnet.formats import row_columns
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import PointLayout

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# What OpenCV's own builds can encode, by container; the first that opens is taken. Not H.264: its encoder is missing
# from OpenCV's packages, for its licence.
CODECS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".mkv"), ("mp4v",)),
    ".avi": ("XVID", "MJPG"),
    ".webm": ("VP80",),
}

_AHEAD = 8  # pictures that may wait for the encoder
_LOOK_EVERY = 50  # frames between two looks at the free space
_LEAST_FREE = 16 * 2**20  # bytes left on the disk at which a recording had better end
_LONGEST_HOLD_S = 600.0  # that a picture is repeated: a damaged file may claim any time
_LOST_SHARE = 0.02  # containers without a frame count are off by a frame or two; a full disk loses more


class Names:
    """Names for what is written: none twice, and none of a photo or video that is read (``inputs``)."""

    def __init__(self, inputs: Sequence[Path]) -> None:
        self._taken = {path.resolve() for path in inputs}

    def free(self, folder: Path, name: str, *suffixes: str) -> Path:
        """``folder/NAME.SUFFIX`` with the first suffix, or with a number where that, or one with another, is taken.

        A file of an earlier run does not count as taken: it is replaced.
        """
        number, path = 1, folder / f"{name}{suffixes[0]}"
        while self._taken & {path.with_suffix(suffix).resolve() for suffix in suffixes}:
            number += 1
            path = folder / f"{name}_{number}{suffixes[0]}"
        self._taken.add(path.resolve())
        return path


def name_of_address(address: str) -> str:
    """What to call files of a stream or a video from the net: no folder, and no password, in it.

    Example:
        >>> name_of_address("rtsp://me:secret@camera.local:554/live/1.sdp?key=2"), name_of_address("udp://@camera:5000")
        ('1', 'camera_5000')
    """
    host, _, path = re.split("[?#]", address.partition("://")[2])[0].partition("/")
    return re.sub(r"[^\w.-]+", "_", Path(path).stem or host.rpartition("@")[2]).strip("._-") or "video"


def write_json(path: Path, source: str, image: np.ndarray, faces: FaceLandmarks) -> None:
    """The faces of one photo."""
    height, width = image.shape[:2]
    content = {"image": as_text(source), "width": width, "height": height, **faces.to_dict()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


class _PendingFile:
    """A file that is written over a long time, and takes its name in the end: :func:`replacing` as an object."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._block = ExitStack()
        self._temporary = self._block.enter_context(replacing(path))

    def finish(self) -> None:
        """Give the file its name."""
        self._block.close()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._failed(GeneratorExit())

    def _failed(self, error: BaseException) -> BaseException:
        """Leave nothing behind; returns the error, with the file's name where it lacked one."""
        try:
            self._block.__exit__(type(error), error, error.__traceback__)
        except BaseException as named:
            return named
        return error


class _PendingText(_PendingFile):
    """A text file that is written as frames come."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = self._temporary.open("w", encoding="utf-8", newline="")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.discard()

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            raise self._failed(error) from error

    def _add(self, text: str) -> None:
        self._try(lambda: self._file.write(text))

    def finish(self) -> None:
        self._try(self._file.close)
        super().finish()

    def discard(self) -> None:
        with suppress(OSError):  # what still waits to be written may not fit on the disk
            self._file.close()
        super().discard()


class VideoRecord(_PendingText):
    """The faces of every frame, as JSON that is written as the frames come: a day in front of a camera fits too."""

    def __init__(self, path: Path, source: str, size: tuple[int, int], layout: PointLayout) -> None:
        super().__init__(path)
        head = {"video": as_text(source), "width": size[0], "height": size[1], "layout": layout.name}
        self._add(json.dumps(head)[:-1] + ', "frames": [')
        self._separator = "\n"

    def write(self, number: int, time_s: float, faces: FaceLandmarks) -> None:
        """The faces of a frame."""
        content = {"frame": number, "time": round(time_s, 4), "faces": faces.to_dict()["faces"]}
        self._add(self._separator + json.dumps(content))
        self._separator = ",\n"

    def finish(self) -> None:
        """Give the file its name."""
        self._add("\n]}\n")
        super().finish()


class Table(_PendingText):
    """The faces of photos or frames as CSV."""

    def __init__(self, path: Path, layout: PointLayout) -> None:
        super().__init__(path)
        self._add_row(row_columns(layout, ("source", "frame", "time_s")))

    def write(self, source: str, number: int, time_s: float, faces: FaceLandmarks) -> None:
        """A row for each face."""
        for row in faces.to_rows(source=as_text(source), frame=number, time_s=round(time_s, 4)):
            self._add_row(row.values())

    def _add_row(self, row: Iterable[Any]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        self._add(line.getvalue())


class Recording(_PendingFile):
    """A video that takes its name when it is finished, whole, and lasts as long as what it shows.

    It is encoded on a thread of its own. Pictures may come at uneven times (a camera, a screen recording): one is
    repeated or skipped where that keeps each at its time, within half a frame.

    Args:
        path: The file; its suffix, one of :data:`CODECS`, says the container.
        size: Width and height of the pictures; others are brought to it.
        fps: Frames a second.
        longest_hold_s: The most that a picture is repeated; where the next one comes later, the video goes on with it
            as if there had been no gap.
        took: Told the seconds that each picture took, by the thread.

    A file that can't be written is an OSError, on :meth:`write` and :meth:`finish` too.
    """

    def __init__(
        self,
        path: Path,
        size: tuple[int, int],
        fps: float,
        *,
        longest_hold_s: float = _LONGEST_HOLD_S,
        took: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        super().__init__(path)
        self.nearly_full = False  # the disk is; end the recording while it can be kept
        self.frames = 0
        self._size, self._fps, self._longest_hold_s, self._took = size, fps, longest_hold_s, took
        self._error: BaseException | None = None
        self._first_s = 0.0
        try:
            self._writer = _open_writer(self._temporary, path, size, fps)
        except OSError:
            super().discard()
            raise
        self._pictures: queue.Queue[tuple[np.ndarray, float] | None] = queue.Queue(_AHEAD)
        self._thread = threading.Thread(target=self._encode, name=f"recording {path}", daemon=True)
        self._thread.start()

    def write(self, picture: np.ndarray, time_s: float) -> None:
        """Add a picture, RGB uint8 ``(H, W, 3)``, which must not be changed any more."""
        if self._error is not None:
            raise self._error
        self._pictures.put((picture, time_s))

    def finish(self) -> None:
        """Encode what waits, check the file, and give it its name. Without a picture there is no file."""
        self._stop()
        if self._error is None and self.frames == 0:
            super().discard()
            return
        try:
            if self._error is not None:
                raise self._error
            _check(self._temporary, self.path, self.frames)
        except Exception as error:
            raise self._failed(error) from error
        super().finish()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._stop()
        super().discard()

    def _stop(self) -> None:
        if self._thread.is_alive():
            self._pictures.put(None)
            self._thread.join()

    def _encode(self) -> None:
        """The thread. It takes pictures to the end even after an error, so that nobody waits for room."""
        bgr = np.empty((self._size[1], self._size[0], 3), dtype=np.uint8)
        while (item := self._pictures.get()) is not None:
            if self._error is not None:
                continue
            try:
                start = time.perf_counter()
                self._encode_one(*item, bgr)
                self._took(time.perf_counter() - start)
            except OSError as error:
                self._error = error
            except BaseException as error:  # cv2.error, say: for whoever writes it is a file that can't be written
                self._error = OSError(errno.EIO, f"the encoder failed ({error})".replace("\n", " "))
        self._writer.release()

    def _encode_one(self, picture: np.ndarray, time_s: float, bgr: np.ndarray) -> None:
        if picture.shape[1::-1] != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        cv2.cvtColor(picture, cv2.COLOR_RGB2BGR, dst=bgr)
        for _ in range(self._due(time_s)):
            if self.frames % _LOOK_EVERY == 0:
                self.nearly_full = shutil.disk_usage(self.path.parent).free < _LEAST_FREE
            self._writer.write(bgr)
            self.frames += 1

    def _due(self, time_s: float) -> int:
        """How many frames the picture makes, so that the video is as long as what it shows."""
        if self.frames == 0:
            self._first_s = time_s
        due = round((time_s - self._first_s) * self._fps) + 1 - self.frames
        if due <= max(self._longest_hold_s * self._fps, 1):
            return max(due, 0)
        self._first_s = time_s - self.frames / self._fps  # a camera was gone; the video does not wait for it
        return 1


def _open_writer(temporary: Path, path: Path, size: tuple[int, int], fps: float) -> cv2.VideoWriter:
    for codec in CODECS[path.suffix.lower()]:
        with openable(temporary) as name:
            writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*codec), fps, size)
        if writer.isOpened():
            return writer
        writer.release()
    width, height = size
    raise OSError(
        f"{path} can't be written: this OpenCV has no encoder for {path.suffix} at {width} x {height}; try .avi or .mp4"
    )


def _check(temporary: Path, path: Path, frames: int) -> None:
    """OpenCV's writer reports no error, so the file itself must tell: does it open, and hold what was written?"""
    held = -1.0
    if temporary.exists():
        with openable(temporary) as name:
            written = cv2.VideoCapture(name)
            if written.isOpened():
                held = written.get(cv2.CAP_PROP_FRAME_COUNT)
            written.release()
    if held >= frames * (1 - _LOST_SHARE) - 2:
        return
    if shutil.disk_usage(path.parent).free < _LEAST_FREE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise OSError(errno.EIO, "the encoder failed")


class Results:
    """The files of one video or camera, made whole in the end or not at all.

    Args:
        source: A :class:`pipnet.demo.camera.FrameSource`.
        called: Its name or address, for the files' contents.
        options: Of the command line: ``json``, ``csv``, and ``boxes``, a file that must stay.
        layout: What the points mean.
        folder: Where the files go.
        file: The video's own name, or None for ``NAME_landmarks.mp4``.
        video: Whether a video is written.
        took: Told the seconds that the encoder took for a picture.
    """

    def __init__(
        self,
        source: Any,
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
        self._lost: dict[_PendingFile, OSError] = {}
        try:
            if video:
                hold_s = 1.0 if source.live else _LONGEST_HOLD_S  # a camera that was gone is not waited for
                self.recording = Recording(path, source.size, source.fps, longest_hold_s=hold_s, took=took)
            if options.json:
                self._record = VideoRecord(path.with_suffix(".json"), called, source.size, layout)
            if options.csv:
                self._table = Table(path.with_suffix(".csv"), layout)
        except BaseException:
            self.discard()
            raise

    def __bool__(self) -> bool:
        return bool(self._files())

    @property
    def nearly_full(self) -> bool:
        """The disk is: end while what was done can be kept."""
        return self.recording is not None and self.recording.nearly_full

    def write(self, number: int, time_s: float, faces: FaceLandmarks, picture: np.ndarray | None) -> None:
        """Add a frame; the picture, with the faces drawn, must not be changed any more."""
        if picture is not None:
            self._try(self.recording, lambda recording: recording.write(picture, time_s))
        self._try(self._record, lambda record: record.write(number, time_s, faces))
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
            if file not in self._lost and self._try(file, lambda file: file.finish()):
                empty = isinstance(file, Recording) and not file.frames  # leaves no file
                kept += [] if empty else [file.path]
        if self._lost:
            raise with_kept(next(iter(self._lost.values())), kept)
        return kept

    def discard(self) -> None:
        """Leave nothing behind that is not finished."""
        for file in self._files():
            file.discard()

    def _try(self, file: _PendingFile | None, act: Callable[[Any], None]) -> bool:
        if file is not None:
            try:
                act(file)
            except OSError as error:
                self._lost[file] = error
        return file not in self._lost

    def _files(self) -> list[_PendingFile]:
        return [file for file in (self.recording, self._record, self._table) if file is not None]
