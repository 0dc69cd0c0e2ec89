"""A video with the landmarks drawn in, encoded on a thread of its own."""

from __future__ import annotations

import errno
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from pipnet.demo.output import PendingFile
from pipnet.files import openable

# What OpenCV's own builds can encode, by container; the first that opens is taken. Not H.264: its encoder is missing
# from OpenCV's packages, for its licence.
CODECS: dict[str, tuple[str, ...]] = {
    ".mp4": ("mp4v",),
    ".m4v": ("mp4v",),
    ".mov": ("mp4v",),
    ".mkv": ("mp4v",),
    ".avi": ("XVID", "MJPG"),
    ".webm": ("VP80",),
}

_AHEAD = 8  # pictures that may wait for the encoder
_LOOK_EVERY = 50  # frames between two looks at the free space
_LEAST_FREE = 16 * 2**20  # bytes left on the disk at which a recording had better end
_LONGEST_HOLD_S = 600.0  # that a picture is repeated: a damaged file may claim any time
_LOST_SHARE = 0.02  # containers without a frame count are off by a frame or two; a full disk loses more


class Recording:
    """A video file that takes its name when it is finished, whole, and lasts as long as what it shows.

    Pictures may come at uneven times (a camera, a screen recording): one is repeated or skipped where that keeps each
    at its time, within half a frame.

    Args:
        path: The file; its suffix, one of :data:`CODECS`, says the container.
        size: Width and height of the pictures; others are brought to it.
        fps: Frames a second.
        longest_hold_s: The most that a picture is repeated; where the next one comes later, the video goes on with it
            as if there had been no gap.
        took: Told the seconds that each picture took, by the thread.

    Attributes:
        nearly_full: The disk is; end the recording while it can be kept.
        frames: Written so far.

    Raises:
        OSError: The file can't be written, on :meth:`write` and :meth:`finish` too.
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
        self.path = path
        self.nearly_full = False
        self.frames = 0
        self._size, self._fps, self._longest_hold_s, self._took = size, fps, longest_hold_s, took
        self._error: BaseException | None = None
        self._first_s = 0.0
        self._pending = PendingFile(path)
        try:
            self._writer = _open_writer(self._pending.temporary, path, size, fps)
        except OSError:
            self._pending.discard()
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
            self._pending.discard()
            return
        try:
            if self._error is not None:
                raise self._error
            _check(self._pending.temporary, self.path, self.frames)
        except Exception as error:
            raise self._pending.failed(error) from error
        self._pending.finish()

    def discard(self) -> None:
        """Leave nothing behind."""
        self._stop()
        self._pending.discard()

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
