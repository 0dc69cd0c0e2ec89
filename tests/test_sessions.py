"""The landmarker in other processes: pickled, copied, forked, spawned, it finds the same points and never hangs."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from pipnet.inference.detections import Detections
from pipnet.inference.detectors import RetinaFace
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.runtimes import OnnxRuntime
from pipnet.inference.sessions import Session
from pipnet.inference.tracking import FaceTracker

ROOT = Path(__file__).resolve().parent.parent
COPIES = {"pickle": lambda thing: pickle.loads(pickle.dumps(thing)), "deepcopy": copy.deepcopy}


def upper_half(image: np.ndarray) -> Detections:
    """A detector of one's own."""
    return Detections([[179, 88, 270, 178]], [0.9])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_a_copy_finds_the_same_points(runtime, small_weights, small_graph):
    path = small_weights if runtime == "torch" else small_graph
    detector = RetinaFace(threads=1, max_side=256)
    landmarker = FaceLandmarker.load(path, device="cpu", runtime=runtime, threads=1, detector=detector)
    expected = landmarker(astronaut())
    assert len(expected) == 1
    for again in COPIES.values():
        other = again(landmarker)
        assert repr(other) == repr(landmarker)
        np.testing.assert_array_equal(other(astronaut()).points, expected.points)


@pytest.mark.parametrize("detector", ["retinaface", upper_half])
def test_a_copy_has_the_same_detector(detector, small_graph):
    landmarker = FaceLandmarker.load(small_graph, runtime="onnxruntime", threads=1, detector=detector)
    for other in (again(landmarker) for again in COPIES.values()):  # before the detector is loaded
        np.testing.assert_array_equal(other(astronaut()).boxes, landmarker(astronaut()).boxes)


def test_a_graph_made_in_memory_and_a_file_named_from_here_are_opened_again(small_graph, tmp_path, monkeypatch):
    content = small_graph.read_bytes()
    crops = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    (tmp_path / "net.onnx").write_bytes(content)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    for runtime in (OnnxRuntime("in memory", threads=1, content=content), OnnxRuntime("net.onnx", threads=1)):
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path / "elsewhere")
            np.testing.assert_array_equal(COPIES["pickle"](runtime)(crops)[0], runtime(crops)[0])
    (tmp_path / "net.onnx").unlink()
    with pytest.raises(ValueError, match=r"net\.onnx is damaged or not an ONNX file"):
        COPIES["pickle"](runtime)(crops)


@pytest.mark.parametrize("again", COPIES.values(), ids=COPIES)
def test_a_tracker_goes_on_in_a_copy(again):
    tracker = FaceTracker(FaceLandmarker.load(device="cpu", runtime="onnxruntime", threads=1))
    tracker(astronaut(), time_s=0.0)
    other = again(tracker)
    moved = np.roll(astronaut(), 3, axis=1)
    expected = tracker(moved, time_s=0.04)
    found = other(moved, time_s=0.04)
    assert found.ids.tolist() == expected.ids.tolist() == [0]
    np.testing.assert_array_equal(found.points, expected.points)


def test_a_session_is_opened_when_it_is_needed_and_once():
    opened = []
    session = Session(lambda: opened.append(1) or "session")
    assert opened == []
    assert (session.get(), session.get(), opened) == ("session", "session", [1])


FORKED = """
import multiprocessing, os, sys
import cv2, numpy as np
from skimage.data import astronaut
from pipnet import FaceLandmarker
from pipnet.inference.detectors import RetinaFace
from pipnet.inference.landmarker import SHIPPED_WEIGHTS

photo = cv2.resize(astronaut(), (1536, 1536))  # large enough for OpenCV to share it among threads as well
path = SHIPPED_WEIGHTS if sys.argv[1] == "torch" else None
options = {"device": "cpu", "runtime": sys.argv[1], "threads": 2}
landmarker = FaceLandmarker.load(path, detector=RetinaFace(threads=2, max_side=256), **options)

def points(count=2):
    faces = landmarker(photo)
    boxes = np.repeat(faces.boxes, count, axis=0)
    return landmarker(photo, boxes=boxes).points

if __name__ == "__main__":
    expected = points()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        (found,) = pool.map(points, [2])
        assert np.abs(found - expected).max() < 0.01, np.abs(found - expected).max()
    for use in (True, False):  # a child that ends as programs do closes what it holds
        child = os.fork()
        if child == 0:
            if use:
                points()
                FaceLandmarker.load(path, **options)(photo, boxes=[500, 250, 800, 550])  # one of its own
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert np.abs(points() - expected).max() < 0.01  # the parent goes on
    print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "torch"])
def test_a_forked_process_does_not_hang(runtime):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["OMP_WAIT_POLICY"] = "passive"  # threads that spin slow each other down on a busy machine
    done = subprocess.run(
        [sys.executable, "-c", FORKED, runtime], capture_output=True, text=True, cwd=ROOT, env=environment, timeout=1200
    )
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


SPAWNED = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import numpy as np
from skimage.data import astronaut
from pipnet import FaceLandmarker

if __name__ == "__main__":
    landmarker = FaceLandmarker.load(device="cpu", runtime="onnxruntime", threads=1)
    expected = landmarker(astronaut())
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(landmarker, astronaut()).result()
    np.testing.assert_array_equal(found.points, expected.points)
    print("done")
"""


def test_a_spawned_process_opens_its_own(tmp_path):
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=1200
    )
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def test_openvino_reports_nothing_over_the_network():
    program = """
import multiprocessing, sys, tempfile
from pipnet import FaceLandmarker
from pipnet.inference.landmarker import SHIPPED_GRAPH
from pipnet.inference.sessions import export_openvino
import numpy as np
multiprocessing.Process.start = lambda process: sys.exit(f"{process} is started")
export_openvino(SHIPPED_GRAPH, tempfile.mkdtemp() + "/graph.xml")
landmarker = FaceLandmarker.load(runtime="openvino")
landmarker(np.zeros((64, 64, 3), np.uint8))
import openvino.tools.ovc
print([name for name in sys.modules if "telemetry" in name and "ovc" not in name], landmarker.runtime.name)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout == "[] openvino\n", done.stderr
