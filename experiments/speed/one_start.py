"""One cold start, in a process of its own: ``python one_start.py JSON``; see ``starts.py``.

Imports nothing before it is needed: what pipnet brings along is part of what is measured.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def main(text: str) -> None:
    """Load, predict, say what it took.

    Args:
        text: JSON with ``file``, ``runtime``, ``threads``, ``image`` (an ``.npy`` file), ``box``, and ``started``,
            seconds of the system's clock before this process was started.
    """
    import numpy as np

    from pipnet.inference.landmarker import FaceLandmarker

    asked = json.loads(text)

    def load_and_predict() -> Any:
        landmarker = FaceLandmarker.load(
            asked["file"], device="cpu", runtime=asked["runtime"], threads=asked["threads"]
        )
        landmarker(np.load(asked["image"]), boxes=asked["box"])
        return landmarker

    landmarker = load_and_predict()
    cold_s = time.time() - asked["started"]
    peak_mib = peak_memory_mib()
    used = landmarker.runtime.name
    if used != asked["runtime"]:
        sys.exit(f"{asked['runtime']} could not be used, {used} was in its place")
    start = time.perf_counter()
    load_and_predict()
    warm_s = time.perf_counter() - start
    print(json.dumps({"cold_s": cold_s, "warm_s": warm_s, "peak_mib": peak_mib, "torch": "torch" in sys.modules}))


def peak_memory_mib() -> float | None:
    """Largest resident set of this process so far; None where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            # Not ru_maxrss: Linux starts it with the size of the parent, before this program took its place.
            return next(int(line.split()[1]) / 2**10 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    main(sys.argv[1])
