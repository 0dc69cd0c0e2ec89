"""What the demo says at the end of a video or a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipnet.demo.capture import FrameSource
from pipnet.demo.moving import FrameLoop
from pipnet.demo.output import written_as
from pipnet.demo.stopwatch import Stopwatch


def summary_lines(
    called: str, loop: FrameLoop, source: FrameSource, tracker: Any, watch: Stopwatch, written: list[Path]
) -> list[str]:
    """Frames, faces, speed and files; what happened on the way; the latency of each part.

    Args:
        called: Name of the source.
        loop: That played it.
        source: That was played.
        tracker: With ``statistics``.
        watch: That measured.
        written: Files.
    """
    stopped = f" ({loop.stopped})" if loop.stopped else ""
    first = [f"{called}: {loop.frames} frames{stopped}"]
    first.append(f"{loop.with_face} with a face" + (f", up to {loop.most_faces}" if loop.most_faces > 1 else ""))
    first.append(f"{watch.frames_per_second():.1f} frames per second")
    if written:
        first.append(f"written to {written_as(written)}")
    statistics = tracker.statistics
    second = [
        f"detector calls per 100 frames: {statistics.detector_calls_per_100:.1f}",
        f"frames with a face lost: {100 * statistics.lost_share:.1f} %",
        f"broken frames: {source.broken}",
    ]
    if loop.skipped:
        second.append(f"left out to keep the speed: {loop.skipped}")
    parts = [f"{part} {figures['median_ms']:.1f}" for part, figures in watch.summary().items()]
    lines = [", ".join(first), "; ".join(second)]
    return [*lines, f"milliseconds, median of the frames with that part: {', '.join(parts)}"] if parts else lines
