"""The frame loop of videos and cameras: each face is followed, drawn, shown and written, and the speed is summed up."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipnet.console import StopRequest, counted, how_many, note, said, written_as
from pipnet.data.images import write_image
from pipnet.demo.camera import CaptureError, Frame, FrameSource
from pipnet.demo.output import Results
from pipnet.demo.stopwatch import Stopwatch
from pipnet.demo.window import Overlay, Window
from pipnet.inference.drawing import draw_faces
from pipnet.landmarks import FaceLandmarks

# The stopwatch's parts in words. The search does not run on every frame, so its time is that of a search.
_PARTS = {
    "read": "read {}",
    "detect": "find faces {} a search",
    "crop": "cut out faces {}",
    "network": "network {}",
    "decode": "read out points {}",
    "track": "follow {}",
    "draw": "draw {}",
    "show": "show {}",
    "write": "write {}",
}

_WAIT_S = 0.05  # for a frame, before keys are looked at again
_FIGURES_EVERY_S = 0.25  # they can't be read when they change faster
_FIGURES_OVER = 60  # frames
_MESSAGE_S = 4.0
_LONGEST_WAIT_S = 10.0  # a file's time stamps may jump; but slides may stand for seconds
_BEHIND_FRAMES = 1.5  # from which frames are skipped
_BEHIND_S = 1.0  # from which the clock is set anew: the machine can't keep up at all
_MOST_SKIPPED = 10  # in a row


class Playback:
    """The speed of a video in a window, its own: when a frame is due, and which are skipped so as not to fall behind.

    Without ``may_skip`` every frame is shown, late if need be.
    """

    def __init__(self, fps: float, *, may_skip: bool) -> None:
        self._frame_s, self._may_skip = 1 / fps, may_skip
        self._start: float | None = None  # when the frame of time 0 was due
        self._skipped = 0

    def restart(self) -> None:
        """The next frame is due at once, after a pause for instance."""
        self._start = None

    def wait_s(self, time_s: float) -> float | None:
        """How long until a frame of this time is due; 0 if it is late, None if it is skipped."""
        now = time.perf_counter()
        if self._start is None:
            self._start = now - time_s
        wait = self._start + time_s - now
        if wait < -_BEHIND_S or wait > _LONGEST_WAIT_S:
            self._start = now - time_s
            wait = 0.0
        if self._may_skip and wait < -_BEHIND_FRAMES * self._frame_s and self._skipped < _MOST_SKIPPED:
            self._skipped += 1
            return None
        self._skipped = 0
        return max(wait, 0.0)


class FrameLoop:
    """Plays a source to its end.

    Args:
        source: Gives the frames.
        tracker: ``(frame, seconds) -> FaceLandmarks``; runs on a landmarker that ``watch`` watches.
        watch: Measures.
        results: What is kept.
        window: Where it is shown, or None.
        folder: Where snapshots go.
        seconds: Stop after so much, or None.
        before: Told the number of each frame before the tracker runs.
    """

    def __init__(
        self,
        source: FrameSource,
        tracker: Callable[[np.ndarray, float], FaceLandmarks],
        watch: Stopwatch,
        results: Results,
        *,
        window: Window | None,
        folder: Path,
        seconds: float | None = None,
        before: Callable[[int], Any] = lambda number: None,
    ) -> None:
        self.frames = self.with_face = self.most_faces = 0
        self.skipped = 0  # because the window would have fallen behind
        self.stopped: str | None = None  # why it ended before the end of the source
        self.broke_off = False  # the source could not be read any further
        self._source, self._tracker, self._watch, self._results = source, tracker, watch, results
        self._window, self._folder, self._seconds, self._before = window, folder, seconds, before
        self._playback = Playback(source.fps, may_skip=not results)
        self._first_s: float | None = None
        self._shown: tuple[Frame, FaceLandmarks] | None = None
        self._trouble: str | None = None
        self._message, self._message_until = "", 0.0
        self._state = ""  # of a window that stands still
        self._lines: tuple[str, ...] = ()
        self._lines_until = 0.0
        total = None if source.live else source.count
        self._progress = tqdm(total=total, unit="frame", disable=None, leave=False)

    def play(self) -> None:
        """Until the source ends, or somebody ends it; OSError where a result can't be written."""
        started = time.perf_counter()
        with StopRequest(alone=True) as stop, self._progress:
            while not self._ended(stop, started):
                if self._window is not None and self._window.paused:
                    self._idle()
                    self._playback.restart()
                    continue
                try:
                    frame = self._source.take(_WAIT_S)
                except CaptureError as error:  # what was done until here is kept
                    self.stopped, self.broke_off = str(error), True
                    break
                self._tell_trouble()
                if frame is None:
                    if self._source.ended:
                        break
                    self._idle()
                elif self._in_time(frame):
                    self._look_at(frame)

    def _ended(self, stop: StopRequest, started: float) -> bool:
        if stop.asked:
            self.stopped = f"stopped by {stop.by}"
        elif self._window is not None and self._window.closed:
            self.stopped = "stopped in the window"
        elif self._results.nearly_full:
            self.stopped = "stopped because the disk is nearly full"
        elif self._seconds is not None and self._source.live and time.perf_counter() - started >= self._seconds:
            return True
        return self.stopped is not None

    def _in_time(self, frame: Frame) -> bool:
        """Whether a frame is looked at. In a window a file plays at its own speed."""
        if self._seconds is not None and not self._source.live and frame.time_s >= self._seconds:
            self._source.close()
            return False
        if self._window is None or self._source.live:
            return True
        wait_s = self._playback.wait_s(frame.time_s)
        if wait_s is None:
            self.skipped += 1
            self._progress.update()
            return False
        end = time.perf_counter() + wait_s
        while (left := end - time.perf_counter()) > 0 and not self._window.closed:
            self._window.poll(left)
        return True

    def _look_at(self, frame: Frame) -> None:
        self._first_s = frame.time_s if self._first_s is None else self._first_s
        time_s = frame.time_s - self._first_s
        # A live source has frames that nobody saw; numbers count those that were looked at.
        number = self.frames if self._source.live else frame.number
        self._watch.add("read", frame.read_s)
        self._before(number)
        faces = self._watch.track(self._tracker, frame.image, time_s)
        picture = self._draw(frame, faces)
        self._results.write(number, time_s, faces, picture)
        self.frames += 1
        self.with_face += len(faces) > 0
        self.most_faces = max(self.most_faces, len(faces))
        if picture is not None:
            self._show(picture, faces, frame)
        self._watch.frame_done()
        self._progress.update()

    def _draw(self, frame: Frame, faces: FaceLandmarks) -> np.ndarray | None:
        """The frame with the faces drawn in, where anybody wants it."""
        if self._window is None and self._results.recording is None:
            return None
        overlay = Overlay() if self._window is None else self._window.overlay
        # Without a window nobody needs the frame as it was any more; with one it may be drawn again, see _idle.
        out = frame.image if self._window is None else None
        with self._watch.part("draw"):
            switches = asdict(overlay) | {"ids": overlay.ids and len(faces) > 1}
            return draw_faces(frame.image, faces, **switches, out=out)

    def _show(self, picture: np.ndarray, faces: FaceLandmarks, frame: Frame) -> None:
        if self._window is None:
            return
        self._shown = frame, faces
        now = time.perf_counter()
        if now >= self._lines_until:
            self._lines_until = now + _FIGURES_EVERY_S
            self._lines = self._figures(faces, now - frame.taken)
            self._state = ""
        with self._watch.part("show"):
            self._window.show(picture, self._lines)
            self._window.poll()
        self._snapshot(picture)

    def _figures(self, faces: FaceLandmarks, delay_s: float) -> tuple[str, ...]:
        parts = self._watch.summary(last=_FIGURES_OVER)
        first = f"{self._watch.frames_per_second(1.0):.0f} frames/s   {how_many(len(faces))}"
        if self._source.live:
            first += f"   delay {1000 * delay_s:.0f} ms"
        times = "ms: " + "  ".join(f"{part} {figures['median_ms']:.1f}" for part, figures in parts.items())
        return first, times, self._note()

    def _note(self) -> str:
        """What happened last, for a while; else the keys."""
        fresh = self._trouble is not None or time.perf_counter() < self._message_until
        return self._message if fresh else "q quit   space pause   s snapshot   h all keys"

    def _idle(self) -> None:
        """No new frame, but the window lives on: keys work, and what they switch is seen."""
        if self._window is None:
            return
        acted = self._window.poll(_WAIT_S if self._window.paused else 0.0)
        state = "paused" if self._window.paused else "no picture" if self._trouble else ""
        if self._shown is None or self._window.closed or not (acted or state != self._state):
            return
        self._state = state
        picture = self._draw(*self._shown)
        if picture is not None:
            self._window.show(picture, (state or self._lines[0], *self._lines[1:2], self._note()))
            self._snapshot(picture)

    def _snapshot(self, picture: np.ndarray) -> None:
        if self._window is None or not self._window.snapshot_wanted:
            return
        self._window.snapshot_wanted = False
        number = 1
        while (path := self._folder / f"{self._source.name}_snapshot_{number}.png").exists():
            number += 1
        try:
            write_image(path, picture)
        except (OSError, ValueError) as error:
            self._say(said(error))
        else:
            self._say(f"snapshot {path}")

    def _tell_trouble(self) -> None:
        trouble = self._source.trouble
        if trouble != self._trouble:
            self._trouble = trouble
            self._say(trouble or "the camera is back")

    def _say(self, message: str) -> None:
        """In the window and in the terminal."""
        self._message = message
        self._message_until = time.perf_counter() + _MESSAGE_S
        self._lines_until = 0.0
        note("demo", message, partial(tqdm.write, file=sys.stderr))


def summary_lines(
    called: str, loop: FrameLoop, source: FrameSource, tracker: Any, watch: Stopwatch, written: list[Path]
) -> list[str]:
    """What is said of a source (``called``) at its end: frames, faces, speed and files; what happened; latency."""
    first = [f"{called}: {counted(loop.frames, 'frame')}" + (f" ({loop.stopped})" if loop.stopped else "")]
    first.append(f"{loop.with_face} with a face" + (f", up to {loop.most_faces}" if loop.most_faces > 1 else ""))
    per_second = watch.frames_per_second()
    if per_second:  # not of a single frame
        first.append(f"{per_second:.1f} frames per second")
    if written:
        first.append(f"written to {written_as(written)}")
    lines = [", ".join(first)]
    if not loop.frames:
        return lines
    statistics = tracker.statistics
    second = [f"searches for faces: {statistics.detector_calls_per_100:.1f} per 100 frames"]
    if loop.with_face:
        second.append(f"known faces out of sight: {100 * statistics.lost_share:.1f} % of their frames")
    second.append(f"broken frames: {source.broken}")
    if loop.skipped:
        second.append(f"skipped to keep the speed: {loop.skipped}")
    lines.append("; ".join(second))
    parts = [_PARTS[part].format(f"{figures['median_ms']:.1f}") for part, figures in watch.summary().items()]
    return [*lines, f"milliseconds a frame (median): {', '.join(parts)}"] if parts else lines
