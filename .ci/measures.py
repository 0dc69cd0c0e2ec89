"""Count what CONTRIBUTING.md's table says: ``python .ci/measures.py [CHECKOUT]``."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]).resolve()
# Which files of the package run code of their own for the first photo, after everything is imported and loaded.
PHOTO = """
import sys, threading, pathlib
import numpy as np
from skimage.data import astronaut
from pipnet import FaceLandmarker
landmarker, seen = FaceLandmarker.load(runtime="onnxruntime"), set()
landmarker(astronaut())
def note(frame, event, _):
    name = frame.f_code.co_filename
    if "/pipnet/" in name and frame.f_code.co_name != "<module>":
        seen.add(name.split("/pipnet/")[-1])
threading.setprofile(note), sys.setprofile(note)
landmarker(astronaut())
sys.setprofile(None)
print(len(seen), *sorted(seen))
"""
# Which files of the package do more where one more unlabelled photo is ingested, labelled by a teacher, and cut as the
# next stage trains on it. What is done once a run or once a stage does not count, nor does what is done on import: only
# files with more calls for two photos than for one, in batches of one face. The files of pipnet/model are left out, as
# they are above, where a runtime computes the network as one graph.
UNLABELLED = """
import collections, pathlib, sys, tempfile, threading
import cv2, torch
from skimage.data import astronaut
from pipnet.data.dataset import FaceCrops
from pipnet.data.transforms import Augment
from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.model import checkpoint
from pipnet.self_training.ingest import ingest
from pipnet.self_training.pseudo_labels import Teacher, estimate
from pipnet.training.distributed import Processes
alone, model, calls = Processes(0, 1, torch.device("cpu")), checkpoint.load(SHIPPED_WEIGHTS), collections.Counter()
def note(frame, event, _):
    name = frame.f_code.co_filename
    if event == "call" and "/pipnet/" in name and frame.f_code.co_name != "<module>":
        calls[name.split("/pipnet/")[-1]] += 1
def stage(count):
    calls.clear()
    with tempfile.TemporaryDirectory() as folder:
        photos = pathlib.Path(folder, "photos")
        photos.mkdir()
        for number in range(count):
            cv2.imwrite(str(photos / f"{number}.png"), astronaut()[number:])
        threading.setprofile(note), sys.setprofile(note)
        faces = ingest(photos, photos.with_name("store"), processes=alone, progress=False).faces
        labels = estimate(Teacher(model, label_shift=0.0, views=2, batch_size=1), faces, alone)
        crops = FaceCrops(labels.samples(), model.layout, input_size=64, crop_scale=1.25, augment=Augment())
        for index in range(len(crops)):
            crops[0, index]
        threading.setprofile(None), sys.setprofile(None)
    return dict(calls)
stage(1)
one, two = stage(1), stage(2)
more = [name for name in sorted(two) if two[name] > one.get(name, 0) and not name.startswith("model/")]
print(len(more), *more)
"""


def measured(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def lines(paths: list[Path]) -> int:
    return sum(path.read_text(encoding="utf-8").count("\n") for path in paths)


package, tests = sorted((ROOT / "pipnet").rglob("*.py")), sorted((ROOT / "tests").rglob("*.py"))
print("modules of pipnet/:", len(package))
print("lines of pipnet/:", lines(package))
print("lines of tests/:", lines(tests))
print("files of conf/:", len(list((ROOT / "conf").rglob("*.yaml"))))
print("lines of README.md:", lines([ROOT / "README.md"]))
print("lines of pipnet/benchmark/:", lines([path for path in package if "benchmark" in path.parts]))
print("files from a photo to its points:", measured(PHOTO))
print("files from an unlabelled photo to the next stage:", measured(UNLABELLED))
