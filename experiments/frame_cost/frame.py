"""``FaceLandmarker`` on a frame with one given box, against the bare network.

    python experiments/frame_cost/frame.py            # frame.json; a minute
    python experiments/frame_cost/frame.py --quick    # tries it out, keeps nothing

A frame of 640 x 480 with a synthetic face of 200 px in its middle, as RGB array. Timed in turn, in one process on one
thread, with the graph that ships: the landmarker's whole call with the frame and the box; the
same runtime called with the crop ready; and the landmarker's call taken apart by the demo's stopwatch into ``crop``
(all that happens before the network: checks, square, warp), ``network`` and ``rest`` (back to pixels of the frame, the
result). Ratios are of rounds, with quartiles.

Then the crop by itself, for faces of several widths: ``repeated`` is square and warp called again and again, ``in
place`` is ``crop`` from above, after a network has emptied the caches, as it is in a video. From 410 px on a face is
averaged down before it is warped, which makes that width the dearest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments.record import command_line, write
from pipnet.benchmark.machine import describe, load_average
from pipnet.benchmark.timing import Timed, of_rounds, ratio, spread, time_interleaved
from pipnet.data.synthetic.dataset import draw_face
from pipnet.demo.stopwatch import Stopwatch
from pipnet.geometry import crop_of_square, crop_squares
from pipnet.inference.landmarker import SHIPPED_GRAPH, FaceLandmarker

FILE = Path(__file__).with_suffix(".json")
FRAME = (640, 480)
FACE = 200
FACES = (60, 150, 300, 410, 600)
RUNTIMES = ("onnxruntime", "openvino")
PARTS = {"crop": "crop", "network": "network", "decode": "rest"}  # the stopwatch's names, ours
ROUNDS, QUICK_ROUNDS = 100, 5
BARS = {"landmarker_over_network": 1.35, "crop_ms": 0.6}


def frame_with_face(width: float) -> tuple[np.ndarray, np.ndarray]:
    """A frame with a synthetic face of that many pixels, and the box of its points, ``(4,)``; large ones overhang."""
    sample = draw_face(0, seed=0, size=480)
    x0, y0, x1, y1 = sample.box
    scale = width / max(x1 - x0, y1 - y0)
    # From the centre of the face to the middle of the frame.
    shift = np.array(FRAME) / 2 - scale * np.array([x0 + x1, y0 + y1]) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    frame = cv2.warpAffine(sample.image, matrix, FRAME, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return frame, np.array([x0, y0, x1, y1]) * scale + np.tile(shift, 2)


class TakenApart:
    """A landmarker's call on a frame, with the seconds of its parts."""

    def __init__(self, landmarker: FaceLandmarker, frame: np.ndarray, box: np.ndarray) -> None:
        self._watch = Stopwatch()
        self._landmarker = self._watch.watch(landmarker)
        self._frame, self._box = frame, box
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}

    def __call__(self) -> None:
        self._landmarker(self._frame, boxes=self._box, angles=0)
        for part, seconds in self._watch.frame_done().items():
            self.seconds[part].append(seconds)

    def milliseconds(self) -> dict[str, dict[str, float]]:
        """Median and quartiles of each part."""
        return {name: vars(spread(np.array(self.seconds[part])).scaled(1000)) for part, name in PARTS.items()}


def measure(rounds: int) -> dict[str, Any]:
    """Both runtimes, and the crops on the second."""
    busy = load_average()
    cv2.setNumThreads(1)
    landmarkers = {name: FaceLandmarker.load(device="cpu", runtime=name, threads=1) for name in RUNTIMES}
    frame, box = frame_with_face(FACE)
    timed, apart = [], {}
    for name, landmarker in landmarkers.items():
        size = landmarker.runtime.input_size
        crop = crop_of_square(crop_squares(box, landmarker.crop_scale)[0], size).warp(frame)[None]
        apart[name] = TakenApart(landmarker, frame, box)
        timed += [
            Timed((name, "landmarker"), lambda landmarker=landmarker: landmarker(frame, boxes=box, angles=0)),
            Timed((name, "network"), lambda runtime=landmarker.runtime, crop=crop: runtime(crop)),
            Timed((name, "apart"), apart[name]),
        ]
    seconds = time_interleaved(timed, rounds=rounds, block_seconds=0.05)
    return {
        "frame": {"size": FRAME, "face": "drawn (pipnet.data.synthetic.dataset)", "face_px": FACE},
        "graph": SHIPPED_GRAPH.name,
        "input_size": size,
        "threads": 1,
        "rounds": rounds,
        "bars": BARS,
        "machine": describe(),
        "load_average": busy,
        "runtimes": {
            name: {
                "landmarker_ms": vars(of_rounds(seconds[name, "landmarker"]).scaled(1000)),
                "network_ms": vars(of_rounds(seconds[name, "network"]).scaled(1000)),
                "ratio": vars(ratio(seconds[name, "landmarker"], seconds[name, "network"])),
                "parts_ms": apart[name].milliseconds(),
            }
            for name in RUNTIMES
        },
        "crop_ms": crops(landmarkers["onnxruntime"], rounds),
    }


def crops(landmarker: FaceLandmarker, rounds: int) -> dict[str, Any]:
    """Milliseconds of the crop by width of the face, called again and again, and in place."""
    size = landmarker.runtime.input_size
    slot = np.empty((size, size, 3), dtype=np.uint8)
    timed, apart = [], {}
    for width in FACES:
        frame, box = frame_with_face(width)

        def repeated(frame: np.ndarray = frame, box: np.ndarray = box) -> None:
            crop_of_square(crop_squares(box, landmarker.crop_scale)[0], size).warp(frame, out=slot)

        apart[width] = TakenApart(landmarker, frame, box)
        timed += [Timed((width, "repeated"), repeated), Timed((width, "in place"), apart[width])]
    seconds = time_interleaved(timed, rounds=rounds, block_seconds=0.02)
    return {
        str(width): {
            "repeated": vars(of_rounds(seconds[width, "repeated"]).scaled(1000)),
            "in_place": apart[width].milliseconds()["crop"],
        }
        for width in FACES
    }


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds, nothing is kept")
    quick = parser.parse_args().quick
    metrics = measure(QUICK_ROUNDS if quick else ROUNDS)
    if not quick:
        write(FILE, metrics)


if __name__ == "__main__":
    main()
