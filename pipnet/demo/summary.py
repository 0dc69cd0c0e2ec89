"""What the demo says at the end of a video or a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipnet.demo.capture import FrameSource
from pipnet.demo.moving import FrameLoop
from pipnet.demo.stopwatch import Stopwatch
from pipnet.demo.wording import counted, written_as

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
    first = [f"{called}: {counted(loop.frames, 'frame')}{stopped}"]
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
        second.append(f"left out to keep the speed: {loop.skipped}")
    lines.append("; ".join(second))
    parts = [_PARTS[part].format(f"{figures['median_ms']:.1f}") for part, figures in watch.summary().items()]
    return [*lines, f"milliseconds a frame (median): {', '.join(parts)}"] if parts else lines
