"""What an upright face pays for faces that are not: ``FaceLandmarker`` with and without the check of its tilt.

    python experiments/frame_cost/roll_cost.py        # roll_cost.json; a minute

A frame of 640 x 480 with the public-domain portrait (scikit-image's astronaut), its face 200 px wide, one given box,
the graph that ships, one thread. ``found``: nobody says how the face is tilted, so that it is looked at as if upright,
and its score and points say that this was right. ``given``: called with ``angles=0``, looked at once, nothing checked.
Timed in turn in one process, in seconds of CPU, which other processes on the machine change less than those of a clock;
ratios are of rounds, with quartiles.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from skimage.data import astronaut

from experiments.record import write
from pipnet.benchmark.machine import describe, load_average
from pipnet.benchmark.timing import Timed, of_rounds, ratio, time_interleaved
from pipnet.inference.landmarker import SHIPPED_GRAPH, FaceLandmarker

FILE = Path(__file__).with_suffix(".json")
FRAME = (640, 480)
BOX, FACE = np.array([179.0, 88.0, 270.0, 178.0]), 200  # in the portrait; width in the frame
RUNTIMES = ("onnxruntime", "openvino")
ROUNDS = 150
BAR = 1.03


def frame_with_portrait() -> tuple[np.ndarray, np.ndarray]:
    """The frame, and the box of the face."""
    scale = FACE / (BOX[2] - BOX[0])
    shift = np.array(FRAME) / 2 - scale * (BOX[:2] + BOX[2:]) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    return cv2.warpAffine(astronaut(), matrix, FRAME, flags=cv2.INTER_LINEAR), BOX * scale + np.tile(shift, 2)


def measure() -> dict[str, Any]:
    """Both runtimes in turn."""
    busy = load_average()
    cv2.setNumThreads(1)
    frame, box = frame_with_portrait()
    timed = []
    for name in RUNTIMES:
        landmarker = FaceLandmarker.load(device="cpu", runtime=name, threads=1)
        faces = landmarker(frame, boxes=box)
        if faces.angles[0] != 0 or faces.face_scores[0] < 0.9:
            raise SystemExit(f"{name}: the face was not upright or not sure at the first look: {faces}")
        timed += [
            Timed((name, "found"), lambda landmarker=landmarker: landmarker(frame, boxes=box)),
            Timed((name, "given"), lambda landmarker=landmarker: landmarker(frame, boxes=box, angles=0)),
        ]
    seconds = time_interleaved(timed, rounds=ROUNDS, block_seconds=0.05, clock=time.process_time)
    return {
        "graph": SHIPPED_GRAPH.name,
        "threads": 1,
        "rounds": ROUNDS,
        "bar": BAR,
        "machine": describe(),
        "load_average": busy,
        "runtimes": {
            name: {
                "found_ms": vars(of_rounds(seconds[name, "found"]).scaled(1000)),
                "given_ms": vars(of_rounds(seconds[name, "given"]).scaled(1000)),
                "ratio": vars(ratio(seconds[name, "found"], seconds[name, "given"])),
            }
            for name in RUNTIMES
        },
    }


def main() -> None:
    write(FILE, measure())


if __name__ == "__main__":
    main()
