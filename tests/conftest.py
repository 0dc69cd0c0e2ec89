"""What holds for all tests."""

import contextlib
import os
import sys

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

# TensorBoard brings absl, whose log handler keeps the first stderr that it meets and closes it when Hydra sets up
# logging. It must not meet pytest's.
with contextlib.redirect_stderr(sys.__stderr__):
    import absl.logging  # noqa: F401


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked ``data`` skip by themselves where no real faces are at hand."""
    if item.get_closest_marker("data") and not os.environ.get("PIPNET_DATA"):
        pytest.skip("needs the real faces: PIPNET_DATA is not set")


@pytest.fixture(scope="session")
def shipped():
    """The landmarker with the weights that ship, loaded once."""
    from pipnet.inference.landmarker import FaceLandmarker

    return FaceLandmarker.load(device="cpu", threads=1)


@pytest.fixture(scope="session")
def small_model():
    """The smallest network, untrained, with calibrated scores."""
    from pipnet.layouts import get_layout
    from pipnet.model.checkpoint import LoadedModel
    from pipnet.model.pipnet import PIPNet

    mean_face = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))
    scores = {"point_bias": [0.25] * 68, "log_spread": -1.0, "peak": 0.5, "face_bias": 0.0, "face_weight": 1.0}
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=4, input_size=64, confidence=scores).eval()
    return LoadedModel(net, get_layout("300w_68"), 1.25, {"licence": "none"})


@pytest.fixture(scope="session")
def small_graph(small_model, tmp_path_factory):
    """Its graph, ``net.onnx``."""
    from pipnet.model.onnx_graph import export_onnx

    path = tmp_path_factory.mktemp("small") / "net.onnx"
    export_onnx(small_model, path, card="for tests")
    return path


@pytest.fixture(scope="session")
def small_weights(small_model, small_graph):
    """Its checkpoint, ``net.pt``, beside the graph."""
    from pipnet.model import checkpoint

    path = small_graph.with_name("net.pt")
    checkpoint.save(path, small_model.net, layout=small_model.layout, crop_scale=1.25, training={})
    return path
