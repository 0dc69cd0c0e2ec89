"""A camera or live stream, read on a thread of its own: the newest frame only; opened again after it was gone."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from pipnet.demo.output import name_of_address
from pipnet.files import openable
from pipnet.inference.sessions import quiet_opencv as quiet_opencv

Picture = npt.NDArray[np.uint8]  # (H, W, 3); RGB in a Frame, BGR from read_bgr
# What opens a camera by index, or an address, as cv2.VideoCapture does.
OpenCapture = Callable[[int | str], Any]

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtp", "udp", "srt")

_FIRST_FRAME_TRIES = 5
_FAILED_READS = 5  # in a row, after which a camera counts as gone
PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0  # between attempts to open it again; doubled each time
_HIGHEST_INDEX = 10
OPEN_TIMEOUT_MS = 10_000
JOIN_S = 3.0  # for a thread that may hang in a driver, or in the net


class CaptureError(ValueError):
    """A camera or a video that can't be used; the message says which and why."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a camera or a video."""

    image: Picture  # RGB, the receiver's own
    number: int  # of the frames that were read, from 0
    time_s: float  # since the first one, always more than before
    read_s: float  # that reading and decoding took
    taken: float  # when it was there, by time.perf_counter()


class FrameSource(Protocol):
    """What the frame loop needs of a camera or a video."""

    name: str  # for files and messages
    live: bool = False  # frames come when they come, and those that nobody takes are lost
    count: int | None = None  # frames in all, where that is known
    size: tuple[int, int]  # width and height of the first frame
    fps: float
    ended: bool = False  # no frame will come any more
    broken: int = 0  # frames that could not be read
    trouble: str | None = None  # what is wrong at the moment

    def take(self, timeout_s: float) -> Frame | None:
        """The next frame, or None when there is none in this time; CaptureError where nothing more can be read."""
        ...

    def close(self) -> None:
        """Let go of the camera or file, and end the thread."""
        ...


class Camera(FrameSource):
    """A camera, or a live stream, read by a thread of its own as fast as it gives frames; only the newest is kept.

    So what is taken is never older than one frame of the camera, however slow the one who takes. A camera that stops
    giving frames is closed and opened again, with growing pauses, until it is back.

    Args:
        source: Index, from 0, or the address of a live stream.
        size: Width and height to ask the camera for; it may choose another.
        mirror: Turn left and right around.
        opener: Opens it; None is :func:`open_capture`.

    Raises:
        CaptureError: It does not open, or gives no picture; the message lists the indices that do open.
    """

    def __init__(
        self,
        source: int | str,
        *,
        size: tuple[int, int] | None = None,
        mirror: bool = False,
        opener: OpenCapture | None = None,
    ) -> None:
        self.source = source
        self.name = f"webcam{source}" if isinstance(source, int) else name_of_address(source)
        self.live = True
        self.returned = 0  # how often it was gone and came back
        self.untaken = 0  # frames that a newer one replaced
        self._asked_size, self._mirror = size, mirror
        self._opener = opener or open_capture
        opened = self._open()
        if opened is None:
            raise CaptureError(self._no_camera())
        capture, image = opened
        fps = capture.get(cv2.CAP_PROP_FPS)
        self.fps = float(fps) if 1 <= fps <= 240 else 30.0
        self.size = (image.shape[1], image.shape[0])
        self._start, self._number = time.perf_counter(), 0
        self._newest: Frame | None = None
        self._changed, self._closing = threading.Condition(), threading.Event()
        self._failure: Exception | None = None
        self._put(image, self._start)
        self._thread = threading.Thread(target=self._read, args=(capture,), name=f"camera {source}", daemon=True)
        self._thread.start()

    def take(self, timeout_s: float) -> Frame | None:
        """See :meth:`FrameSource.take`."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest is not None or self.ended, timeout_s)
            frame, self._newest = self._newest, None
        if frame is None and self._failure is not None:
            raise CaptureError(f"{self._called()} can't be read any more ({self._failure})")
        return frame

    def close(self) -> None:
        """See :meth:`FrameSource.close`. A driver that hangs in a read is left behind; it can't keep the demo."""
        self._closing.set()
        self._thread.join(JOIN_S)

    def _open(self) -> tuple[Any, Picture] | None:
        """An open capture and its first picture; some devices open and never give one."""
        capture = self._opener(self.source)
        if capture.isOpened():
            if self._asked_size is not None:
                # Few USB cameras reach their larger sizes without compression.
                capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
                capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._asked_size[0])
                capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._asked_size[1])
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            for _ in range(_FIRST_FRAME_TRIES):
                image = read_bgr(capture)
                if image is not None:
                    return capture, image
        capture.release()
        return None

    def _read(self, capture: Any) -> None:
        """The thread, which alone touches the capture: whatever ends it, nobody waits for a frame that can't come."""
        try:
            self._keep_reading(capture)
        except Exception as error:
            self._failure = error
        finally:
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def _keep_reading(self, capture: Any) -> None:
        failed, pause = 0, PAUSE_S
        try:
            while not self._closing.is_set():
                start = time.perf_counter()
                if (image := read_bgr(capture)) is None:
                    failed += 1
                    if failed < _FAILED_READS:
                        self._closing.wait(0.01)
                        continue
                    self.trouble = f"{self._called()} gives no picture; waiting for it to come back"
                    capture.release()
                    while (opened := None if self._closing.wait(pause) else self._open()) is None:
                        if self._closing.is_set():
                            return
                        pause = min(2 * pause, _LONGEST_PAUSE_S)
                    capture, image = opened
                    start, pause = time.perf_counter(), PAUSE_S
                    self.trouble = None
                    self.returned += 1
                failed = 0
                self._put(image, start)
        finally:
            capture.release()

    def _put(self, image: Picture, start: float) -> None:
        image = as_rgb(image)
        if self._mirror:
            image = np.asarray(cv2.flip(image, 1), np.uint8)
        now = time.perf_counter()
        with self._changed:
            self.untaken += self._newest is not None
            self._newest = Frame(image, self._number, now - self._start, now - start, now)
            self._number += 1
            self._changed.notify_all()

    def _called(self) -> str:
        return f"camera {self.source}" if isinstance(self.source, int) else self.source

    def _no_camera(self) -> str:
        if not isinstance(self.source, int):
            return f"{self.source} does not answer, or is no video; check the address"
        others = [index for index in camera_indices() if index != self.source and self._gives_pictures(index)]
        if not others:
            return f"camera {self.source} can't be opened, and no other camera was found; is one plugged in and free?"
        indices = ", ".join(map(str, others))
        return f"camera {self.source} can't be opened; these can: {indices} (--webcam {others[0]})"

    def _gives_pictures(self, index: int) -> bool:
        capture = self._opener(index)
        try:
            return capture.isOpened() and read_bgr(capture) is not None
        finally:
            capture.release()


def open_capture(source: int | str) -> Any:
    """``cv2.VideoCapture`` of a camera, a file or an address that gives up after ten seconds of silence."""
    if isinstance(source, str) and "://" in source:
        patience = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, patience)
    if isinstance(source, int):
        return cv2.VideoCapture(source)
    with openable(source) as name:
        return cv2.VideoCapture(name)


def read_bgr(capture: Any) -> Picture | None:
    """The next picture, BGR uint8 ``(H, W, 3)``, or None; OpenCV throws where a driver or a file is at its worst."""
    try:
        there, image = capture.read()
    except cv2.error:
        return None
    if not there or image is None or image.size == 0 or image.dtype != np.uint8:
        return None
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 3:
        return image
    # A picture that is none of these is no better than a frame that can't be decoded.
    turn = {1: cv2.COLOR_GRAY2BGR, 4: cv2.COLOR_BGRA2BGR}.get(channels)
    return None if turn is None else np.asarray(cv2.cvtColor(image, turn), np.uint8)


def as_rgb(image: Picture) -> Picture:
    """A picture from BGR, in place."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), np.uint8)


def camera_indices() -> list[int]:
    """Indices that may be cameras. On Linux the devices that are there, since each wrong guess costs time."""
    if sys.platform.startswith("linux"):
        found = [path.name.removeprefix("video") for path in Path("/dev").glob("video*")]
        return sorted(int(number) for number in found if number.isdecimal())
    return list(range(_HIGHEST_INDEX))
