"""Scripts of ``experiments/efficiency`` and ``experiments/speed``: other detectors, the peak, cold starts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.efficiency import peers
from experiments.efficiency.peers import INNER_OF_68, INNER_OF_MESH, Peer, PeerUnavailableError, installed_peers
from experiments.speed import peak, starts
from pipnet.benchmark.cases import Case
from pipnet.inference.landmarker import SHIPPED_GRAPH, FaceLandmarker
from pipnet.layouts import get_layout
from pipnet.model.pipnet import PIPNet

# What these packages are called with, so that the tests run where they are not installed.
DLIB = """
class rectangle:
    def __init__(self, left, top, right, bottom):
        self.corners = left, top, right, bottom

class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

class shape_predictor:
    def __init__(self, path):
        if open(path).read() != "a model":
            raise RuntimeError("Unexpected version found\\nwhile deserializing")

    def __call__(self, image, box):
        assert image.dtype.name == "uint8" and image.flags.c_contiguous
        left, top, right, bottom = box.corners
        self.found = [Point(left, top), Point(right, bottom)] + [Point(0, 0)] * 66
        return self

    def parts(self):
        return self.found
"""
FAN = """
import numpy as np

class LandmarksType:
    TWO_D = 1

class FaceAlignment:
    def __init__(self, kind, device, face_detector, compile):
        assert (kind, device, face_detector, compile) == (1, "cpu", "folder", False)

    def get_landmarks_from_image(self, image, detected_faces):
        # The package's own rule: what it cuts of the picture round a box.
        x0, y0, x1, y1 = detected_faces[0][:4]
        half = 200 * (x1 - x0 + y1 - y0) / 195 / 2
        x, y = (x0 + x1) / 2, (y0 + y1) / 2 - 0.12 * (y1 - y0)
        return [np.array([[x - half, y - half], [x + half, y + half]] + [[0, 0]] * 66, dtype=np.float32)]
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a package of that name be found first, and forgets it afterwards."""

    def make(name: str, **files: str) -> Path:
        folder = tmp_path / "site" / name
        folder.mkdir(parents=True)
        for file, content in {"__init__": "", **files}.items():
            (folder / f"{file}.py").write_text(content)
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        made.append(name)
        return folder

    made: list[str] = []
    yield make
    for name in made:
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            del sys.modules[module]


@pytest.fixture(autouse=True)
def no_files_from_outside(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(peers.DLIB_MODEL_VARIABLE, raising=False)
    monkeypatch.delenv(peers.MEDIAPIPE_TASK_VARIABLE, raising=False)


def test_what_is_not_installed_is_not_listed(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert installed_peers(dlib_model="model.dat", mediapipe_task="face.task") == {}


def test_dlib_gets_the_box_in_the_middle_of_its_crop(package, tmp_path):
    package("dlib", __init__=DLIB)
    (tmp_path / "model.dat").write_text("a model")
    other = installed_peers(dlib_model=tmp_path / "model.dat")["dlib-68"]
    assert (other.num_points, other.inner) == (68, tuple(range(17, 68)))
    box = np.array([100.0, 50.0, 180.0, 150.0])
    crop = other.crop(box)
    find = other.open()
    corners = crop.to_source(find(np.zeros((crop.size, crop.size, 3), np.uint8))[:2])
    # 1.1 times the longer side of 100, a tenth of it above the middle (140, 100); whole pixels of the crop.
    assert corners == pytest.approx(np.array([[85, 35], [195, 145]]), abs=165 / crop.size)
    assert corners.mean(axis=0) == pytest.approx([140, 90], abs=1e-9)
    assert find(np.zeros((crop.size, crop.size, 3), np.uint8)[:, ::-1]).shape == (68, 2)


def test_dlib_takes_the_model_of_its_package_or_of_the_environment(package, tmp_path, monkeypatch):
    package("dlib", __init__=DLIB)
    models = package("face_recognition_models") / "models"
    models.mkdir()
    file = models / "shape_predictor_68_face_landmarks.dat"
    missing = installed_peers()["dlib-68"]
    assert str(file) in missing.problem
    with pytest.raises(PeerUnavailableError, match="install face_recognition_models, or name"):
        missing.open()
    file.write_text("a model")
    assert installed_peers()["dlib-68"].open()(np.zeros((64, 64, 3), np.uint8)) is not None
    (tmp_path / "broken.dat").write_text("something else")
    monkeypatch.setenv(peers.DLIB_MODEL_VARIABLE, str(tmp_path / "broken.dat"))
    with pytest.raises(PeerUnavailableError, match=r"dlib-68 is installed but can't be loaded \(RuntimeError: Unexp"):
        installed_peers()["dlib-68"].open()


def test_face_alignment_never_downloads(package, tmp_path, monkeypatch):
    package("face_alignment", __init__=FAN, api='models_urls = {"2DFAN-4": "somewhere/2DFAN4-1234.pth.tar"}')
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    other = installed_peers()["face-alignment"]
    with pytest.raises(PeerUnavailableError, match=r"its weights 2DFAN4-1234\.pth\.tar are not in torch's cache"):
        other.open()
    weights = tmp_path / "torch" / "hub" / "checkpoints" / "2DFAN4-1234.pth.tar"
    weights.parent.mkdir(parents=True)
    weights.touch()
    corners = other.open()(np.zeros((256, 256, 3), np.uint8))[:2]
    assert corners == pytest.approx(np.array([[0.0, 0.0], [256.0, 256.0]]), abs=1e-3)  # it sees the whole crop
    crop = other.crop(np.array([0.0, 0.0, 195.0, 195.0]), size=400)  # where its own rule puts it
    assert crop.to_source(np.array([[-0.5, -0.5], [399.5, 399.5]])) == pytest.approx(
        np.array([[-102.5, -125.9], [297.5, 274.1]])
    )


def test_an_old_face_alignment_says_so(package):
    package("face_alignment", __init__=FAN, api="models_urls = {}")
    with pytest.raises(PeerUnavailableError, match=r"older than 1\.5; upgrade it"):
        installed_peers()["face-alignment"].open()


def test_mediapipe_without_facemesh_says_so(package, tmp_path):
    package("mediapipe")
    found = installed_peers(mediapipe_task=tmp_path / "none.task")
    assert list(found)[-4:] == ["mediapipe-mesh", "mediapipe-attention", "mediapipe-attention-box", "mediapipe-task"]
    with pytest.raises(PeerUnavailableError, match=r"this version has no FaceMesh; install mediapipe 0\.10\.21"):
        found["mediapipe-attention"].open()
    with pytest.raises(PeerUnavailableError, match=r"there is no file .*none\.task; give the path"):
        found["mediapipe-task"].open()
    (tmp_path / "none.task").touch()
    with pytest.raises(PeerUnavailableError, match=r"mediapipe-task is installed but can't be loaded"):
        installed_peers(mediapipe_task=tmp_path / "none.task")["mediapipe-task"].open()
    assert "mediapipe-task" not in installed_peers()


def test_the_51_vertices_of_the_mesh():
    assert len(INNER_OF_MESH) == len(set(INNER_OF_MESH)) == len(INNER_OF_68) == 51
    assert max(INNER_OF_MESH) < 468  # all there without attention too


def test_a_box_without_extent_is_refused():
    other = Peer("any", "", 1, (), lambda: None, 1.0, 0.0)
    with pytest.raises(ValueError, match="no extent"):
        other.crop(np.array([5.0, 5.0, 5.0, 5.0]))


LOADABLE = [name for name, other in installed_peers().items() if not other.problem]


@pytest.mark.skipif(not LOADABLE, reason="no other landmark detector is installed (dlib, MediaPipe, face-alignment)")
@pytest.mark.parametrize("name", LOADABLE or ["none"])
def test_installed_detectors_find_the_points_of_a_portrait(name):
    """Brows, eyes, nose and mouth lie where pipnet puts them, within a tenth of the face, left on the left."""
    from skimage.data import astronaut

    other = installed_peers()[name]
    image = np.ascontiguousarray(astronaut())
    box = np.array([179.0, 88.0, 270.0, 178.0])
    crop = other.crop(box)
    points = other.open()(crop.warp(image))
    assert points.shape == (other.num_points, 2)
    found = crop.to_source(points)[list(other.inner)]
    ours = FaceLandmarker.load(device="cpu")(image, boxes=box).points[0, list(INNER_OF_68)]
    assert np.linalg.norm(found - ours, axis=1).max() < 9.1
    # Mirrored, the points come out mirrored: neither their order nor the frame is off.
    flipped = other.open()(np.ascontiguousarray(crop.warp(image)[:, ::-1]))[list(other.inner)]
    mirror = np.array(get_layout("300w_68").mirror)[list(INNER_OF_68)] - INNER_OF_68[0]
    back = crop.to_source(np.column_stack([crop.size - 1 - flipped[mirror, 0], flipped[mirror, 1]]))
    assert np.linalg.norm(back - found, axis=1).mean() < 2.0


def test_the_peak_is_the_best_rate_of_any_size_and_call():
    called = "matrix product"
    seconds = {
        (called, "fp32", 1, 1000): np.array([[0.020, 0.040], [0.025, 0.030]]),  # 2 GFLOP in 20 ms
        (called, "fp32", 1, 500): np.array([[0.005, 0.002]]),  # 0.25 GFLOP in 2 ms
        (called, "int8", 2, 500): np.array([[0.001]]),
        ("shipped torch fp32", 1, 1): np.array([[1e-9]]),  # not a product
    }
    found = peak.peaks(seconds)
    assert [(one.precision, one.threads, one.size) for one in found] == [("fp32", 1, 500), ("int8", 2, 500)]
    assert [one.gflops for one in found] == pytest.approx([125, 250])


def test_work_counts_two_for_each_multiply_accumulate():
    """The dense form of a head is a product over all its channels at every cell; the rest is the backbone's."""
    mean_face = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=4, input_size=64).eval()
    in_graph, dense = peak.network_work(net)
    head = 2 * 576 * 68 * (3 + 2 * 4) * 2 * 2 / 1e9  # channels, points, maps of a point, cells
    with torch.inference_mode(), FlopCounterMode(display=False) as backbone:
        net.backbone(torch.zeros(1, 3, 64, 64))
    assert dense == pytest.approx(backbone.get_total_flops() / 1e9 + head)
    assert backbone.get_total_flops() / 1e9 < in_graph < dense


def test_cold_starts_are_those_of_a_fresh_process_and_a_failure_is_said(tmp_path):
    """Linux hands the largest resident set of the parent down to what it starts; that figure would be no start's."""
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    broken, good, again = (
        Case(name, "onnxruntime", "int8", 1, batch, int, file)
        for name, file, batch in (
            ("broken", tmp_path / "broken.onnx", 1),
            ("good", SHIPPED_GRAPH, 1),
            ("good", SHIPPED_GRAPH, 16),
        )
    )
    assert starts.one_per_network([broken, good, again]) == [broken, good]
    ballast = np.ones(600 * 2**17)  # 600 MiB
    (start,), failed = starts.measure_starts([broken, good], repeats=2)
    assert (start.name, len(start.cold_s), start.torch) == ("good onnxruntime int8", 2, False)
    assert max(start.peak_mib) < ballast.nbytes / 2**20
    assert start.cold_s[0] > start.warm_s[0] > 0
    assert failed[0][0] == "broken onnxruntime int8, start"
    assert "broken.onnx" in failed[0][1]
