"""The same network on every runtime: the same points, and files that are refused in one sentence."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from skimage.data import astronaut

from pipnet.geometry import crop_of_square
from pipnet.inference import landmarker, runtimes
from pipnet.inference.detectors import RetinaFace
from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.inference.runtimes import (
    OnnxRuntime,
    OpenVinoRuntime,
    RuntimeUnavailableError,
    TorchRuntime,
    open_runtime,
)
from pipnet.inference.sessions import export_openvino, threads_from_environment

ROOT = Path(__file__).resolve().parent.parent


def difference_px(ours, theirs, size: int) -> np.ndarray:
    """Distance of every point on one runtime from the same on another, crop pixels."""
    return np.linalg.norm(ours[0] - theirs[0], axis=-1) * size


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """Crops of one real face, a little tighter and wider."""
    squares = np.array([[225.0, 134.0, side] for side in (120.0, 126.0, 134.0)])
    return np.stack([crop_of_square(square, 256).warp(astronaut()) for square in squares])


@pytest.fixture(scope="module")
def shipped() -> TorchRuntime:
    return open_runtime(SHIPPED_WEIGHTS, "torch", threads=1)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_weights_that_ship_have_the_same_points_on_every_runtime(name, portrait, shipped):
    """Within 0.001 px in 32 bits, one by one and in a batch; half a pixel of 256 on average in 8 bits."""
    other = open_runtime(SHIPPED_WEIGHTS, name, threads=1)
    assert (shipped.name, other.name) == ("torch", name)
    expected = shipped(portrait)
    for got in (
        other(portrait),
        [np.concatenate(part) for part in zip(*(other(c[None]) for c in portrait), strict=False)],
    ):
        assert difference_px(got, expected, 256).max() < 1e-3
        np.testing.assert_allclose(got[1], expected[1], atol=1e-4)
        np.testing.assert_allclose(got[2], expected[2], atol=1e-4)
    for key in ("layout", "crop_scale"):
        assert other.metadata[key] == shipped.metadata[key]
    int8 = open_runtime(SHIPPED_GRAPH, name, threads=1)
    got = int8(portrait)
    assert difference_px(got, expected, 256).mean() < 0.8
    np.testing.assert_allclose(got[2], expected[2], atol=0.02)
    assert int8.metadata["precision"] == "int8"
    assert "non-commercial research" in int8.metadata["card"]


@pytest.mark.parametrize(
    ("runtime", "suffix"), [(OnnxRuntime, ".onnx"), (OpenVinoRuntime, ".onnx"), (OpenVinoRuntime, ".xml")]
)
def test_an_exported_network_predicts_the_same_and_keeps_it(small_model, small_graph, tmp_path, runtime, suffix):
    path = small_graph
    if suffix == ".xml":
        path = tmp_path / "net.xml"
        export_openvino(small_graph, path)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["net.bin", "net.xml"]
    crops = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    crops.flags.writeable = False
    network = runtime(path, threads=1)
    reference, exported = TorchRuntime(small_model.net)(crops.copy()), network(crops)
    for ours, theirs in zip(exported, reference, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    kept = [network(crop[None]) for crop in crops]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda crop: network(crop[None]), crops))
    for row, (one, other) in enumerate(zip(kept, together, strict=True)):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_allclose(one[0][0], exported[0][row], atol=1e-4)
    landmarker = FaceLandmarker.load(path)
    assert (landmarker.crop_scale, landmarker.layout) == (1.25, small_model.layout)
    known = landmarker.runtime.metadata
    assert (known["training"], known["card"], known["precision"]) == ({"licence": "none"}, "for tests", "fp32")


@pytest.mark.parametrize(
    ("file", "arguments", "said"),
    [
        (None, {}, "300w_mobilenet_v2_int8.onnx (mobilenet_v2), openvino in int8, 3 threads"),
        (None, {"runtime": "onnxruntime", "threads": 1}, "(mobilenet_v2), onnxruntime in int8, 1 thread"),
        (None, {"runtime": "torch"}, "300w_mobilenet_v2.pt (mobilenet_v2), torch in fp32, "),
        ("small_weights", {}, "net.pt (mobilenet_v3_small), torch in fp32, "),
        ("small_weights", {"runtime": "openvino"}, "net.pt (mobilenet_v3_small), openvino in fp32, 3 threads"),
        ("small_graph", {"threads": 2}, "net.onnx (mobilenet_v3_small), openvino in fp32, 2 threads"),
    ],
)
def test_a_landmarker_says_what_it_is(file, arguments, said, request, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    path = None if file is None else request.getfixturevalue(file)
    shown = repr(FaceLandmarker.load(path, device="cpu", **arguments))
    assert said in shown
    assert re.fullmatch(r"FaceLandmarker\(.* \(.*\), .* in .*, \d threads?, detector retinaface\)", shown)


def test_a_landmarker_of_a_model_says_what_it_is(small_model, small_graph, monkeypatch):
    said = r"FaceLandmarker\(mobilenet_v3_small, torch in fp32, \d+ threads?, detector RetinaFace\)"
    assert re.fullmatch(said, repr(FaceLandmarker.from_model(small_model, detector=RetinaFace(threads=1))))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert "all threads" in repr(FaceLandmarker.load(small_graph, device="cpu", runtime="onnxruntime"))
    with pytest.raises(ValueError, match="no runtime 'tensorflow'; there are: auto, torch, onnxruntime, openvino"):
        FaceLandmarker.load(runtime="tensorflow")
    with pytest.raises(ValueError, match="threads must be 0"):
        FaceLandmarker.load(threads=-1)


def test_a_runtime_that_cannot_serve_says_so_and_another_does(small_graph, monkeypatch):
    with pytest.warns(UserWarning, match=r"net\.onnx does not run on torch; .* openvino serves instead"):
        assert FaceLandmarker.load(small_graph, device="cpu", runtime="torch").runtime.name == "openvino"
    with pytest.raises(RuntimeUnavailableError, match=r"net\.onnx does not run on torch"):
        open_runtime(small_graph, "torch")
    with pytest.raises(RuntimeUnavailableError, match="onnxruntime runs on the CPU only"):
        open_runtime(small_graph, "onnxruntime", device="cuda")
    if not torch.cuda.is_available():
        with pytest.warns(UserWarning, match="device 'cuda' is not there.*; the CPU serves instead"):
            FaceLandmarker.load(small_graph, device="cuda")
    installed = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else installed(name))
    assert FaceLandmarker.load(small_graph, device="cpu").runtime.name == "onnxruntime"
    with pytest.warns(UserWarning, match="openvino is not installed; pip install .*; onnxruntime serves instead"):
        assert FaceLandmarker.load(small_graph, device="cpu", runtime="openvino").runtime.name == "onnxruntime"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else installed(name))
    needs = r"a checkpoint, of which onnxruntime needs a graph, .*pipnet\[export\].*; torch serves instead"
    with pytest.warns(UserWarning, match=needs):
        assert FaceLandmarker.load(SHIPPED_WEIGHTS, device="cpu", runtime="onnxruntime").runtime.name == "torch"


def test_a_graph_runs_on_the_cpu_of_a_machine_with_cuda(small_graph, monkeypatch):
    monkeypatch.setattr(landmarker, "usable_device", lambda device: device if device == "cpu" else "cuda")
    assert FaceLandmarker.load(small_graph).runtime.name == "openvino"
    assert FaceLandmarker.load(runtime="onnxruntime").runtime.name == "onnxruntime"
    with pytest.warns(UserWarning, match="graphs run on the CPU only here, not on 'cuda'; the CPU serves instead"):
        assert FaceLandmarker.load(small_graph, device="cuda").runtime.name == "openvino"


def test_an_openvino_that_does_not_work_leaves_it_to_onnx_runtime(small_graph, monkeypatch):
    def fails(error: Exception):
        def refuse(*arguments: object) -> None:
            if arguments[0] != "onnxruntime":
                raise error

        return refuse

    said = "Exception from src/core.cpp:84:\nCheck 'x' failed at y\nno such instruction"
    for module, name, error, complaint in (
        (runtimes, "OpenVinoSession", RuntimeError(said), r"can't compute .*net.onnx here \(no such instruction\)"),
        (importlib, "import_module", ImportError("libopenvino.so"), r"can't be imported \(.*\); install it again"),
        (importlib, "import_module", RuntimeError("no home directory."), r"can't be imported \(no .*\); set HOME"),
    ):
        monkeypatch.setattr(module, name, fails(error))
        with pytest.warns(UserWarning, match=f"openvino {complaint}; onnxruntime serves"):
            assert FaceLandmarker.load(small_graph, device="cpu").runtime.name == "onnxruntime"
        monkeypatch.undo()


def test_weights_of_an_openvino_file_that_are_missing(small_graph, tmp_path):
    export_openvino(small_graph, tmp_path / "net.xml")
    (tmp_path / "net.bin").unlink()
    (tmp_path / "text.bin").touch()
    (tmp_path / "text.xml").write_text("some words")
    with pytest.raises(ValueError, match=r"text\.xml is damaged or not a file for OpenVINO \(no XML\)"):
        FaceLandmarker.load(tmp_path / "text.xml")
    with pytest.raises(FileNotFoundError, match=r"net\.xml lacks its weights, net\.bin; copy both files"):
        FaceLandmarker.load(tmp_path / "net.xml")


def test_whoever_wants_points_on_a_cpu_does_not_pay_for_torch():
    program = """
import sys
from skimage.data import astronaut
from pipnet import FaceLandmarker
assert len(FaceLandmarker.load(device="cpu")(astronaut())) == 1
print(sorted({"torch", "torchvision", "hydra", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=1200)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("now", "later"),
    [(b"\x08\x08", b"\x08\x63"), (b"\x0a\x0aai.onnx.ml\x10\x05", b"\x0a\x0aai.onnx.ml\x10\x63")],
    ids=["format 99", "operators 99"],
)
def test_a_graph_of_a_later_onnx_is_not_called_damaged(now, later, tmp_path):
    """The shipped graph with the stamp of a format, and of operators, that no runtime has yet."""
    content = SHIPPED_GRAPH.read_bytes()
    assert content.startswith(b"\x08\x08")
    assert now in content
    path = tmp_path / "later.onnx"
    path.write_bytes(content.replace(now, later, 1))
    with pytest.raises(RuntimeUnavailableError) as caught:
        OnnxRuntime(path)
    version = importlib.metadata.version("onnxruntime")
    assert str(caught.value) == (
        f"{path} needs a newer onnxruntime than {version}; pip install --upgrade onnxruntime brings it"
    )


def rewritten(graph: Path, path: Path, change) -> Path:
    """The graph with other metadata: None has none."""
    model = onnx.load(graph)
    text = change(model.metadata_props[0].value)
    del model.metadata_props[:]
    if text is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "pipnet", text
    onnx.save(model, path)
    return path


def test_a_graph_of_0_4_is_read(small_graph, tmp_path):
    old = rewritten(small_graph, tmp_path / "old.onnx", lambda text: text.replace('"crop_scale"', '"box_scale"'))
    assert OnnxRuntime(old, threads=1).metadata == OnnxRuntime(small_graph, threads=1).metadata


KNOWN = {"format": 1, "layout": {}, "crop_scale": 1, "input_size": 64}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps(KNOWN | {"format": 99}), "upgrade pipnet"),
        ("{", "can't be read"),
        (json.dumps({"format": 1}), "can't be read"),
        (json.dumps(KNOWN | {"format": "1"}), r"\(format is '1', not a number"),
        (json.dumps(KNOWN | {"crop_scale": [1]}), "can't be read"),
        (json.dumps(KNOWN | {"layout": 3}), "layout, crop_scale or input_size is"),
        (None, "says nothing of its points"),
    ],
)
def test_metadata_that_are_none(text, message, small_graph, tmp_path):
    with pytest.raises(ValueError, match=message):
        FaceLandmarker.load(rewritten(small_graph, tmp_path / "other.onnx", lambda before: text))


def test_files_that_are_no_graph(small_graph, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no network .*gone\.onnx"):
        FaceLandmarker.load(tmp_path / "gone.onnx")
    whole = small_graph.read_bytes()
    for name, content in {"cut": whole[: len(whole) // 2], "text": b"no network at all", "empty": b""}.items():
        broken = tmp_path / f"{name}.onnx"
        broken.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.onnx is (damaged|no network)") as caught:
            FaceLandmarker.load(broken)
        assert "\n" not in str(caught.value)


def test_threads_come_from_the_environment(monkeypatch):
    for text, threads in (("3", 3), ("2,1", 2), ("", 0), ("many", 0)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert threads_from_environment() == threads


def test_ctrl_c_still_arrives_after_openvino_came_and_went():
    """OpenVINO gives the main thread a stack for signal handlers; the process must not be left without one."""
    program = """
import gc, signal
import numpy as np
from pipnet.inference.landmarker import SHIPPED_GRAPH
from pipnet.inference.runtimes import open_runtime
first = open_runtime(SHIPPED_GRAPH, "openvino", threads=1)
second = open_runtime(SHIPPED_GRAPH, "openvino", threads=1)
crops = np.zeros((2, 256, 256, 3), np.uint8)
first(crops), second(crops)
del first
gc.collect()
del second
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("arrived")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=1200)
    assert (done.returncode, done.stdout.strip()) == (0, "arrived"), done.stderr
