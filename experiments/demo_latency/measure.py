"""Frames per second of the demo on a video, from file to file, and the time of each part.

    python experiments/demo_latency/measure.py

The video is made on the spot: the public-domain portrait, swaying on a known path, 640 x 480, 30 frames a second,
MPEG-4. It goes through what ``python -m pipnet.demo --video FILE`` is made of, with its default settings and without a
window: once with nothing kept, once with the landmarks drawn and the video written (the default), once with JSON and
CSV too. In turn, several times over. Writes ``metrics.json``; ``--seconds 5`` tries it out on a shorter video.

Environment variables that set threads or the allocator are dropped: what a user has is measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.data import astronaut

from experiments.motion import move, sway
from experiments.record import command_line, drop_settings, processor, write
from pipnet.demo.camera import quiet_opencv
from pipnet.demo.live import FrameLoop, Results
from pipnet.demo.stopwatch import Stopwatch
from pipnet.demo.video import VideoFile
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.tracking import FaceTracker

HERE = Path(__file__).resolve().parent
CASES = {"nothing kept": (), "video": ("video",), "video, JSON, CSV": ("video", "json", "csv")}
SECONDS, FPS, RUNS = 60.0, 30.0, 5
SIZE = (640, 480)
CENTRE = (224.0, 133.0)  # of the face, in the portrait
SCALE = 2.2  # the face is about 200 pixels wide
BAR = 60.0  # frames per second


def write_video(path: Path, seconds: float) -> int:
    """The swaying portrait; returns the number of frames."""
    frames = round(seconds * FPS)
    path_of = sway(frames, CENTRE, SCALE, fps=FPS, amplitude_px=80, degrees=10, zoom=1.15, period_s=3.0, size=SIZE)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, SIZE)
    for frame in move(astronaut(), path_of, size=SIZE, noise=2.0, border=(110, 110, 110)):
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return frames


def play(video: Path, landmarker: FaceLandmarker, keep: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Once through the demo's own pieces, put together as its command does."""
    source = VideoFile(str(video))
    watch = Stopwatch()
    tracker = FaceTracker(watch.watch(landmarker))
    options = argparse.Namespace(json="json" in keep, csv="csv" in keep, boxes=None)
    results = Results(
        source,
        str(video),
        options,
        landmarker.layout,
        folder=folder,
        file=None,
        video="video" in keep,
        took=lambda seconds: watch.add_aside("write", seconds),
    )
    loop = FrameLoop(source, tracker, watch, results, window=None, folder=folder)
    try:
        loop.play()
        results.finish()
    finally:
        results.discard()
        source.close()
    statistics = tracker.statistics
    return {
        "frames": loop.frames,
        "frames_with_a_face": loop.with_face,
        "frames_per_second": watch.frames_per_second(),
        "detector_calls_per_100": statistics.detector_calls_per_100,
        "lost_share": statistics.lost_share,
        "parts": watch.summary(),
    }


def measure(seconds: float) -> dict[str, Any]:
    """All cases in turn, :data:`RUNS` times."""
    cv2.setNumThreads(1)  # as the demo does
    landmarker = FaceLandmarker.load(device="cpu", runtime="onnxruntime")
    runs: dict[str, list[dict[str, Any]]] = {case: [] for case in CASES}
    with tempfile.TemporaryDirectory() as folder, quiet_opencv():
        video = Path(folder) / "video.mp4"
        frames = write_video(video, seconds)
        short = Path(folder) / "short.mp4"
        write_video(short, 1.0)
        play(short, landmarker, (), Path(folder))  # warm
        for _ in range(RUNS):
            for case, keep in CASES.items():
                runs[case].append(play(video, landmarker, keep, Path(folder)))
                print(f"{case}: {runs[case][-1]['frames_per_second']:.1f} frames per second", file=sys.stderr)
    return {
        "video": {"size": SIZE, "frames": frames, "frames_per_second": FPS, "faces": 1},
        "bar_frames_per_second": BAR,
        "runs": RUNS,
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("opencv-python", "onnxruntime", "numpy")},
        "cases": {case: summary(found) for case, found in runs.items()},
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run in the middle by frame rate, and the rates of all."""
    ordered = sorted(runs, key=lambda run: run["frames_per_second"])
    return {**ordered[len(ordered) // 2], "all_runs": [run["frames_per_second"] for run in runs]}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of video; fewer than the default write nothing")
    arguments = parser.parse_args()
    drop_settings()
    metrics = measure(arguments.seconds)
    if arguments.seconds == SECONDS:
        write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main()
