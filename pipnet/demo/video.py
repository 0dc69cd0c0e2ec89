"""A video from a file or an address: decoded ahead on a thread, every frame once, past frames that are broken."""

from __future__ import annotations

import math
import os
import queue
import re
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipnet.demo.camera import (
    JOIN_S,
    CaptureError,
    Frame,
    FrameSource,
    OpenCapture,
    Picture,
    as_rgb,
    open_capture,
    read_bgr,
)
from pipnet.demo.output import name_of_address
from pipnet.files import openable

# Where nobody knows how many frames there are, so many failed reads in a row are the end, not damage.
PATIENCE = 30
# A stretch of damage may be long where the file says how much is to come; but a file may lie.
_LONGEST_DAMAGE = 2000
_DEFAULT_FPS = 30.0
_RATES = (0.001, 1000.0)  # frames a second that a container may claim; beyond it is the clock's ticks
_USUAL_RATES = (1.0, 240.0)  # within these it is believed, outside the times of the first frames must say the same
_ANOTHER_PICTURE = 16.0  # mean difference, of 255, from which two pictures are not of one frame
# Containers that store how many frames they hold; of others OpenCV gives an estimate.
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")
_SAMPLE = 8  # every eighth pixel of every eighth row: enough to tell two pictures apart
_STILL_FRAMES = 50
_FORGETFUL_AVCODEC = 62  # of FFmpeg 8, whose errors of conversion OpenCV 4.13 and 5.0 don't look at
_NOT_CONVERTED = (
    "this OpenCV can't decode these frames, which may be interlaced; convert the video, as"
    " `ffmpeg -i OLD -vf bwdif NEW.mp4` does, or install opencv-python 5"
)
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # read whenever a video is opened


class VideoFile(FrameSource):
    """The frames of a video, in order; frames that can't be decoded are skipped and counted.

    Args:
        source: A file, or an address that OpenCV's FFmpeg reads.
        ahead: Frames that may be decoded before they are asked for.
        opener: Opens it; None is :func:`pipnet.demo.camera.open_capture`.

    Raises:
        CaptureError: No such file, no video, or none of its frames can be read.
    """

    def __init__(self, source: str, *, ahead: int = 4, opener: OpenCapture | None = None) -> None:
        self.source = source
        self.name = name_of_address(source) if "://" in source else Path(source).stem
        capture = _open(source, opener or open_capture)
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if _USUAL_RATES[0] <= fps <= _USUAL_RATES[1] else _DEFAULT_FPS
        self.count = _frame_count(capture, fps)
        self._capture = capture
        self._sample: Picture | None = None  # of the picture before this one
        self._believed = opener is not None  # only OpenCV's own captures go wrong as _read says
        self._origin: float | None = None  # the container's time of the first frame
        self._previous = -math.inf
        self._number = 0
        self._frames: queue.Queue[Frame | None] = queue.Queue(ahead)
        self._closing = threading.Event()
        self._failure: Exception | None = None
        first = self._next()
        if first is None:
            self._capture.release()
            raise CaptureError(f"{source}: not one frame of this video can be read; is the file damaged?")
        self.size = (first.image.shape[1], first.image.shape[0])
        ready: list[Frame | None] = [first]
        if fps != self.fps:
            ready.append(self._next())
            self.fps = _rate_by_times(ready[1], fps, self.fps)
        self._thread = threading.Thread(target=self._decode, args=(ready,), name=f"video {source}", daemon=True)
        self._thread.start()

    def take(self, timeout_s: float) -> Frame | None:
        """See :meth:`pipnet.demo.camera.FrameSource.take`."""
        if self.ended:
            return None
        try:
            frame = self._frames.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self.ended = frame is None
        if self.ended and self._failure is not None:
            raise CaptureError(f"{self.source} can't be read any further ({self._failure})")
        return frame

    def close(self) -> None:
        """See :meth:`pipnet.demo.camera.FrameSource.close`."""
        self._closing.set()
        end = time.monotonic() + JOIN_S
        while self._thread.is_alive() and time.monotonic() < end:
            try:  # the thread may wait for room
                self._frames.get_nowait()
            except queue.Empty:
                self._thread.join(0.02)
        self.ended = True

    def _decode(self, ready: list[Frame | None]) -> None:
        try:
            while (frame := ready.pop(0) if ready else self._next()) is not None and not self._closing.is_set():
                self._frames.put(frame)
            if self.count is not None and self.source.lower().endswith(_COUNTED) and not self._closing.is_set():
                self.broken = max(self.broken, self.count - self._number)
        except Exception as error:
            self._failure = error
        finally:  # or the one who takes frames would wait for ever
            self._capture.release()
            self._frames.put(None)

    def _next(self) -> Frame | None:
        """The next frame that can be read, or None at the end.

        A failed read may be a broken frame or the end, OpenCV does not say which. So reading goes on until all frames
        that the file promises were tried.
        """
        start, failed = time.perf_counter(), 0
        while (image := self._read()) is None:
            failed += 1
            if self._closing.is_set() or failed > self._most_failures():
                return None
        self.broken += failed
        now = time.perf_counter()
        frame = Frame(as_rgb(image), self._number, self._time_s(), now - start, now)
        self._number += 1
        return frame

    def _read(self) -> Picture | None:
        """The next picture, or None.

        OpenCV may say that it has one and hand out memory that nobody wrote to, see :func:`open_deinterlaced`. The sign
        of that is the picture before, once more, and of the first one nothing; so that one is compared with what the
        filters make of it. A video that stands still shows the same sign: from there on it goes through the filters,
        which is right for both.
        """
        image = read_bgr(self._capture)
        if image is None or self._believed:
            return image
        before, self._sample = self._sample, _sampled(image)
        if before is not None and not np.array_equal(before, self._sample):
            return image
        return self._second_look(image, first=before is None)

    def _second_look(self, image: Picture, *, first: bool) -> Picture:
        """The picture of the same time through the filters, which are kept where they are needed."""
        other = open_deinterlaced(self.source, self._capture.get(cv2.CAP_PROP_ORIENTATION_META))
        whole, origin = self._picture_after(other, self._previous)
        if whole is None:
            self._believed = True  # there are no filters here
            other.release()
            if first and _gives_nothing(open_capture(self.source)):
                raise CaptureError(f"{self.source}: {_NOT_CONVERTED}")
            return image
        if first and whole.shape == image.shape and cv2.absdiff(whole, image).mean() < _ANOTHER_PICTURE:
            other.release()
            return image
        self._capture.release()
        self._capture, self._origin, self._believed = other, origin, True
        return whole

    def _picture_after(self, capture: Any, time_s: float) -> tuple[Picture | None, float]:
        """The first picture of a later time, counted from the first one's own, which is returned too."""
        origin = None
        with suppress(cv2.error):
            while not self._closing.is_set() and capture.grab():
                stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                origin = stamp if origin is None else origin
                if stamp - origin > time_s:
                    return capture.retrieve()[1], origin
        return None, 0.0

    def _most_failures(self) -> int:
        if self.count is None:
            return PATIENCE
        return min(max(self.count - self._number - self.broken, 0), _LONGEST_DAMAGE)

    def _time_s(self) -> float:
        """The container's time of the frame just read, or one frame after the previous where it has none."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if self._origin is None:
            self._origin = stamp if math.isfinite(stamp) else 0.0
        time_s = stamp - self._origin
        if not math.isfinite(time_s) or time_s <= self._previous:
            time_s = self._previous + 1 / self.fps
        self._previous = max(time_s, 0.0)
        return self._previous


def _open(source: str, opener: OpenCapture) -> Any:
    address = "://" in source
    if not address:
        path = Path(source)
        if not path.exists():
            raise CaptureError(f"{source}: no such video")
        if path.is_dir():
            raise CaptureError(f"{source} is a folder, not a video; give one file, or --folder for photos")
        if path.is_file() and path.stat().st_size == 0:
            raise CaptureError(f"{source}: the file is empty")
    capture = opener(source)
    if not capture.isOpened():
        capture.release()
        if address:
            raise CaptureError(f"{source} does not answer, or is no video; check the address")
        raise CaptureError(f"{source}: not a video that OpenCV can read, or a damaged one")
    return capture


def _frame_count(capture: Any, fps: float) -> int | None:
    """Frames that the container promises, or None where it says nothing that can be believed."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    # Where a file has no frame rate OpenCV takes the clock's ticks for it, and counts them as frames.
    return int(count) if np.isfinite(count) and 0 < count < 1e8 and _RATES[0] <= fps < _RATES[1] else None


def _rate_by_times(second: Frame | None, claimed: float, default: float) -> float:
    """Frames a second of a video whose container claims an unusual rate, by the time of its second frame."""
    if second is None or second.time_s <= 0:
        return default
    seen = 1 / second.time_s
    if _RATES[0] <= claimed <= _RATES[1] and 0.9 < seen / claimed < 1.1:
        return claimed
    return min(max(seen, _RATES[0]), _USUAL_RATES[1])


def open_deinterlaced(source: str, turned: float = 0.0) -> Any:
    """The video through FFmpeg's filters, which make whole pictures of interlaced ones; it knows no number of frames.

    OpenCV 5 reads interlaced frames without an error and hands out memory that nobody wrote to: its converter refuses
    them, and nobody asks it. Not every OpenCV has the filters; then the capture is not open. The filters leave aside
    how the video is ``turned``: ``CAP_PROP_ORIENTATION_META``, degrees clockwise.
    """
    turn = {90: ",transpose=clock", 180: ",hflip,vflip", 270: ",transpose=cclock"}.get(round(turned) % 360, "")
    with openable(source) as name:
        before = os.environ.get(_FFMPEG_OPTIONS)
        os.environ[_FFMPEG_OPTIONS] = "input_format;lavfi"
        try:
            quoted = re.sub(r"([\\':])", r"\\\1", name)  # once for the filter, once more for the graph
            quoted = re.sub(r"([\\'\[\],;])", r"\\\1", quoted)
            filters = f"movie=filename={quoted},bwdif=mode=send_frame:deint=interlaced{turn}"
            return cv2.VideoCapture(filters, cv2.CAP_FFMPEG)
        finally:
            os.environ.pop(_FFMPEG_OPTIONS)
            if before is not None:
                os.environ[_FFMPEG_OPTIONS] = before


def open_stream(source: int | str) -> Any:
    """A live stream, deinterlaced where two pictures in a row are one; a :class:`Camera`'s opener."""
    capture = open_capture(source)
    pictures = [_sampled(image) for image in (read_bgr(capture) for _ in range(2)) if image is not None]
    if len(pictures) == 2 and np.array_equal(pictures[0], pictures[1]):
        other = open_deinterlaced(str(source))
        if other.isOpened():
            capture.release()
            return other
    return capture


def _sampled(image: Picture) -> Picture:
    return image[::_SAMPLE, ::_SAMPLE].copy()


def _gives_nothing(capture: Any) -> bool:
    """Whether a capture gives one picture again and again, in an OpenCV that does so with frames it can't convert.

    Only for where :func:`open_deinterlaced` can't tell: a video that really stands still looks the same.
    """
    version = re.search(r"avcodec:\s+YES \((\d+)", cv2.getBuildInformation())
    if version is None or int(version[1]) < _FORGETFUL_AVCODEC:
        return False
    pictures = [_sampled(image) for image in (read_bgr(capture) for _ in range(_STILL_FRAMES)) if image is not None]
    return len(pictures) > 1 and all(np.array_equal(picture, pictures[0]) for picture in pictures)
