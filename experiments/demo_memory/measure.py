"""Does the demo's memory grow? Five minutes of a looped video through it, in one process.

    python experiments/demo_memory/measure.py

The video is the one of ``experiments/demo_latency``, ten seconds of it, over and over, as fast as it goes: read ahead,
tracked, drawn, encoded, with JSON and CSV. The resident memory of the process is noted every ten seconds; a straight
line through what comes after the first minute says how fast it grows. Writes ``metrics.json``; ``--seconds 20`` tries
it out.

Environment variables that set threads or the allocator are dropped: what a user has is measured. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments.demo_latency.measure import write_video
from experiments.record import command_line, drop_settings, write
from pipnet.demo.camera import Frame, quiet_opencv
from pipnet.demo.live import FrameLoop, Results
from pipnet.demo.stopwatch import Stopwatch
from pipnet.demo.video import VideoFile
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.tracking import FaceTracker

HERE = Path(__file__).resolve().parent
SECONDS, EVERY_S, WARM_SHARE = 300.0, 10.0, 0.2
BAR_MIB_PER_MINUTE = 1.0


class Looped:
    """A video again and again, with time and numbers that go on, until ``seconds`` have passed on the clock."""

    live, count, broken, trouble = False, None, 0, None

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._end = path, time.monotonic() + seconds
        self._video = VideoFile(str(path))
        self.name, self.size, self.fps = self._video.name, self._video.size, self._video.fps
        self.ended = False
        self.loops = 0
        self._frames, self._base_s, self._last_s = 0, 0.0, 0.0
        self._next_look, self._started = 0.0, time.monotonic()
        self.looks: list[tuple[float, float]] = []  # seconds, MiB

    def take(self, timeout_s: float) -> Frame | None:
        """The next frame; on the way, a look at the memory."""
        now = time.monotonic()
        if now - self._started >= self._next_look:
            self.looks.append((now - self._started, resident_mib()))
            self._next_look += min(EVERY_S, (self._end - self._started) / 10)
        if now >= self._end:
            self.ended = True
            return None
        frame = self._video.take(timeout_s)
        if frame is not None:
            self._last_s = self._base_s + frame.time_s
            self._frames += 1
            return Frame(frame.image, self._frames - 1, self._last_s, frame.read_s, frame.taken)
        if self._video.ended:
            self._video.close()
            self._video = VideoFile(str(self._path))
            self._base_s = self._last_s + 1 / self.fps
            self.loops += 1
        return None

    def close(self) -> None:
        """Let go of the file."""
        self._video.close()


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class HeldUpOnce:
    """Tells the stopwatch what a picture took, and holds the encoder up once, early.

    Eight pictures may wait for the encoder. They do when it is late for the first time, at a random moment, and the
    seven MiB that they take once are no growth.
    """

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self._pictures = 0

    def __call__(self, seconds: float) -> None:
        self._watch.add_aside("write", seconds)
        self._pictures += 1
        if self._pictures == 30:
            time.sleep(1.0)


def measure(seconds: float) -> dict[str, Any]:
    """Play, look, and fit the line."""
    cv2.setNumThreads(1)  # as the demo does
    landmarker = FaceLandmarker.load(device="cpu")
    with tempfile.TemporaryDirectory() as name, quiet_opencv():
        folder = Path(name)
        write_video(folder / "video.mp4", min(10.0, seconds / 4))
        source = Looped(folder / "video.mp4", seconds)
        watch = Stopwatch()
        tracker = FaceTracker(watch.watch(landmarker))
        options = argparse.Namespace(json=True, csv=True, boxes=None)
        results = Results(
            source,
            "video.mp4",
            options,
            landmarker.layout,
            folder=folder,
            file=None,
            video=True,
            took=HeldUpOnce(watch),
        )
        loop = FrameLoop(source, tracker, watch, results, window=None, folder=folder)
        try:
            loop.play()
            written = {path.suffix: path.stat().st_size / 2**20 for path in results.finish()}
        finally:
            results.discard()
            source.close()
        gc.collect()
    times, mib = np.array(source.looks).T
    late = times >= WARM_SHARE * seconds
    slope = float(np.polyfit(times[late], mib[late], 1)[0])
    return {
        "seconds": seconds,
        "frames": loop.frames,
        "loops": source.loops,
        "frames_per_second": watch.frames_per_second(),
        "written_mib": written,
        "resident_mib": [[round(float(t), 1), round(float(m), 2)] for t, m in source.looks],
        "after_warming_s": WARM_SHARE * seconds,
        "slope_mib_per_minute": 60 * slope,
        "bar_mib_per_minute": BAR_MIB_PER_MINUTE,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("opencv-python", "onnxruntime", "numpy")},
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="fewer than the default write nothing")
    arguments = parser.parse_args()
    drop_settings()
    metrics = measure(arguments.seconds)
    if arguments.seconds == SECONDS:
        write(HERE / "metrics.json", metrics)
    print(f"{metrics['slope_mib_per_minute']:+.2f} MiB a minute")


if __name__ == "__main__":
    main()
