"""Milliseconds a face costs the data path, decoding included, on one core.

    python experiments/data_path/measure.py DATA_ROOT

DATA_ROOT holds ``300W/``; the training faces are read. Writes ``metrics.json`` beside this file. Takes 1 to 3 minutes.
The stages of a face are timed one by one within ``FaceCrops.__getitem__``: ``read`` is file to RGB pixels, ``warp`` the
crop, ``photometric`` light, sharpness and occlusion, ``rest`` the drawing of random numbers, the points and the
tensors.

Times are processor time of all threads, so that waiting for a turn on a busy machine costs nothing. The same work is
done in 10 passes: each face by each recipe in turn, its random numbers the same in every pass. A face counts with its
fastest pass, since other work on the core empties the caches; the mean over all passes says how much that was.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml

import pipnet.data.dataset
from experiments.record import data_root, processor, write
from pipnet.config import config_dir
from pipnet.data.dataset import FaceCrops
from pipnet.data.datasets import read_dataset
from pipnet.data.transforms import Augment
from pipnet.geometry import Crop
from pipnet.layouts import get_layout

HERE = Path(__file__).resolve().parent
RECIPES = ("none", "paper", "modern")
STAGES = ("read", "warp", "photometric")
FACES, PASSES = 400, 10
SIZE, BOX_SCALE = 256, 1.25


def recipe(name: str) -> dict[str, float]:
    """Numbers of ``conf/transform/NAME.yaml`` with those that it builds on."""
    content = yaml.safe_load((Path(config_dir()) / "transform" / f"{name}.yaml").read_text())
    merged: dict[str, float] = {}
    for part in [*map(recipe, content.pop("defaults", [])), content]:
        merged |= part
    return merged


class Stopwatch:
    """Milliseconds of processor time spent in each stage; wraps the functions that the data path calls."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        pipnet.data.dataset.read_image = self._timed("read", pipnet.data.dataset.read_image)
        Crop.warp = self._timed("warp", Crop.warp)  # type: ignore[method-assign]
        Augment.photometric = self._timed("photometric", Augment.photometric)  # type: ignore[method-assign]

    def _timed(self, stage: str, function: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            result = function(*arguments)
            self.spent[stage] += 1000 * (time.process_time() - start)
            return result

        return timed

    def face(self, faces: FaceCrops, epoch: int, index: int) -> dict[str, float]:
        """Milliseconds of each stage and in all, of one face."""
        self.spent.clear()
        start = time.process_time()
        faces[epoch, index]
        total = 1000 * (time.process_time() - start)
        stages = {stage: self.spent[stage] for stage in STAGES}
        return {**stages, "rest": total - sum(stages.values()), "total": total}


def measure(root: Path) -> dict[str, Any]:
    """Time all recipes on the training faces of 300W."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    layout = get_layout("300w_68")
    samples, _ = read_dataset("300w", root=root / "300W", layout=layout, part="train", validation="exclude")
    order = np.random.default_rng(0).permutation(len(samples))[:FACES].tolist()
    sets = {
        name: FaceCrops(samples, layout, input_size=SIZE, crop_scale=BOX_SCALE, augment=Augment(**recipe(name)))
        for name in RECIPES
    }
    for index in order:  # into the file cache, so that the disk is not measured
        Path(samples[index].image).read_bytes()
    watch = Stopwatch()
    times: dict[str, list[list[dict[str, float]]]] = {name: [] for name in RECIPES}  # recipe, pass, face
    for _ in range(PASSES):
        for name in RECIPES:
            times[name].append([])
        for index in order:
            for name in RECIPES:
                times[name][-1].append(watch.face(sets[name], 0, index))
    return {
        "faces": FACES,
        "passes": PASSES,
        "input_size": SIZE,
        "crop_scale": BOX_SCALE,
        "median_box_side_px": float(np.median([max(samples[i].box[2:] - samples[i].box[:2]) for i in order])),
        "versions": {name: version(name) for name in ("opencv-python", "numpy", "torch")},
        "processor": processor(),
        "milliseconds": {name: summary(times[name]) for name in RECIPES},
    }


def summary(times: list[list[dict[str, float]]]) -> dict[str, float]:
    """Mean of the fastest passes, in all and by stage, their spread over faces, and the mean over all passes."""
    fastest = [min(passes, key=lambda t: t["total"]) for passes in zip(*times, strict=True)]  # one a face
    totals = np.array([face["total"] for face in fastest])
    return {
        "total": float(totals.mean()),
        **{stage: float(np.mean([face[stage] for face in fastest])) for stage in (*STAGES, "rest")},
        "median": float(np.median(totals)),
        "p90": float(np.percentile(totals, 90)),
        "all_passes": float(np.mean([face["total"] for faces in times for face in faces])),
    }


def main() -> None:
    metrics = measure(data_root(__doc__))
    write(HERE / "metrics.json", metrics)


if __name__ == "__main__":
    main()
