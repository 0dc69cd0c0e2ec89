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


def lines(paths: list[Path]) -> int:
    return sum(path.read_text(encoding="utf-8").count("\n") for path in paths)


package, tests = sorted((ROOT / "pipnet").rglob("*.py")), sorted((ROOT / "tests").rglob("*.py"))
photo = subprocess.run([sys.executable, "-c", PHOTO], cwd=ROOT, capture_output=True, text=True, check=True).stdout
print("modules of pipnet/:", len(package))
print("lines of pipnet/:", lines(package))
print("lines of tests/:", lines(tests))
print("files of conf/:", len(list((ROOT / "conf").rglob("*.yaml"))))
print("lines of README.md:", lines([ROOT / "README.md"]))
print("lines of pipnet/benchmark/:", lines([path for path in package if "benchmark" in path.parts]))
print("files from a photo to its points:", photo.strip())
