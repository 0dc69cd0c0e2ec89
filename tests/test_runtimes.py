"""The same network on every runtime: the same points, and files that are refused in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.inference.onnx_session import threads_from_environment
from pipnet.inference.runtimes import OnnxRuntime, TorchRuntime
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.graph import export_onnx
from pipnet.model.pipnet import PIPNet

ROOT = Path(__file__).resolve().parent.parent
FACE = np.array([[179.0, 88.0, 270.0, 178.0], [175.0, 80.0, 275.0, 185.0], [300.0, 20.0, 420.0, 140.0]])
PARAMETERS = {"point_bias": [0.25] * 68, "log_spread": -1.0, "peak": 0.5, "face_bias": 0.0, "face_weight": 1.0}


@pytest.fixture(scope="module")
def small() -> checkpoint.LoadedModel:
    mean_face = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=4, input_size=64, confidence=PARAMETERS).eval()
    return checkpoint.LoadedModel(net, get_layout("300w_68"), 1.25, {"licence": "none"})


def test_the_graph_that_ships_is_the_checkpoint_that_ships():
    """Within 1e-3 px on photo crops, also in a batch and without a face."""
    photo = astronaut()
    torch_faces = FaceLandmarker.load(SHIPPED_WEIGHTS, device="cpu")(photo, boxes=FACE)
    onnx_faces = FaceLandmarker.load(SHIPPED_GRAPH)(photo, boxes=FACE)
    np.testing.assert_allclose(onnx_faces.points[:2], torch_faces.points[:2], atol=1e-3)
    np.testing.assert_allclose(onnx_faces.scores, torch_faces.scores, atol=1e-4)
    np.testing.assert_allclose(onnx_faces.face_scores, torch_faces.face_scores, atol=1e-4)
    assert onnx_faces.layout == torch_faces.layout
    assert onnx_faces.face_scores[0] > 0.9
    assert onnx_faces.face_scores[2] < 0.01


@pytest.mark.parametrize("half", [False, True])
def test_an_exported_network_predicts_the_same(small, tmp_path, half):
    path = tmp_path / "net.onnx"
    export_onnx(small, path, half=half)
    crops = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    reference, exported = TorchRuntime(small.net)(crops), OnnxRuntime(path, threads=1)(crops)
    # Without training no cell stands out: 16 bits may choose another one, so their scores are compared only roughly.
    for ours, theirs in zip(exported, reference, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        if not half:
            np.testing.assert_allclose(ours, theirs, atol=1e-4)
    landmarker = FaceLandmarker.load(path)
    assert landmarker.box_scale == 1.25
    assert landmarker.layout == small.layout
    assert landmarker.runtime.metadata["training"] == {"licence": "none"}
    assert path.stat().st_size < (5e6 if half else 9e6)


def test_names_of_runtimes(small, tmp_path):
    graph, weights = tmp_path / "net.onnx", tmp_path / "net.pt"
    export_onnx(small, graph)
    checkpoint.save(weights, small.net, layout=small.layout, box_scale=1.25, training={})
    assert isinstance(FaceLandmarker.load(device="cpu").runtime, OnnxRuntime)
    assert isinstance(FaceLandmarker.load(device="cpu", runtime="torch").runtime, TorchRuntime)
    assert isinstance(FaceLandmarker.load(weights, device="cpu").runtime, TorchRuntime)
    assert isinstance(FaceLandmarker.load(graph, runtime="onnxruntime").runtime, OnnxRuntime)
    with pytest.raises(ValueError, match="no runtime 'tensorflow'; there are: auto, torch, onnxruntime"):
        FaceLandmarker.load(runtime="tensorflow")
    with pytest.raises(ValueError, match=r"net\.onnx is a graph for ONNX Runtime"):
        FaceLandmarker.load(graph, runtime="torch")
    with pytest.raises(ValueError, match=r"net\.pt is a checkpoint for PyTorch"):
        FaceLandmarker.load(weights, runtime="onnxruntime")


def test_whoever_wants_points_on_a_cpu_does_not_pay_for_torch():
    program = """
import sys
from skimage.data import astronaut
from pipnet import FaceLandmarker
assert len(FaceLandmarker.load(device="cpu")(astronaut())) == 1
print(sorted({"torch", "torchvision", "hydra", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.stdout.strip() == "[]", done.stderr


def test_files_that_are_no_graph(small, tmp_path):
    import onnx

    with pytest.raises(FileNotFoundError, match=r"no network .*gone\.onnx"):
        FaceLandmarker.load(tmp_path / "gone.onnx")
    path = tmp_path / "net.onnx"
    export_onnx(small, path)
    whole = path.read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "text": b"no network at all", "empty": b""}.items():
        broken = tmp_path / f"{name}.onnx"
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.onnx is (damaged|no network)") as caught:
            FaceLandmarker.load(broken)
        assert "\n" not in str(caught.value)
    model = onnx.load(path)
    for text, message in (
        (json.dumps({"format": 99, "layout": {}, "box_scale": 1, "input_size": 64}), "upgrade pipnet"),
        ("{", "can't be read"),
        (json.dumps({"format": 1}), "can't be read"),
        (None, "says nothing of its points"),
    ):
        del model.metadata_props[:]
        if text is not None:
            entry = model.metadata_props.add()
            entry.key, entry.value = "pipnet", text
        onnx.save(model, tmp_path / "other.onnx")
        with pytest.raises(ValueError, match=message):
            FaceLandmarker.load(tmp_path / "other.onnx")


def test_threads_come_from_the_environment(monkeypatch):
    for text, threads in (("3", 3), ("2,1", 2), ("", 0), ("many", 0)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert threads_from_environment() == threads
