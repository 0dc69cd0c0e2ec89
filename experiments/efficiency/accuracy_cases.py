"""The cases of ``accuracy.py``: the network that ships on every runtime, and others that are installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from experiments.efficiency.peers import INNER_OF_68, PeerUnavailableError, installed_peers
from pipnet.geometry import Crop, crop_of_square, crop_squares

# Name: title, runtime, and which of the shipped files.
OURS: dict[str, tuple[str, str, str]] = {
    "shipped eager fp32": ("pipnet, PyTorch eager", "eager", "fp32"),
    "shipped torch fp32": ("pipnet, torch", "torch", "fp32"),
    "shipped onnxruntime fp32": ("pipnet, ONNX Runtime", "onnxruntime", "fp32"),
    "shipped openvino fp32": ("pipnet, OpenVINO", "openvino", "fp32"),
    "shipped onnxruntime int8": ("pipnet, ONNX Runtime, int8", "onnxruntime", "int8"),
    "shipped openvino int8": ("pipnet, OpenVINO, int8", "openvino", "int8"),
}
PEERS = {
    "dlib-68": "dlib 68",
    "mediapipe-mesh": "MediaPipe mesh + detector",
    "mediapipe-attention": "MediaPipe attention + detector",
    "mediapipe-attention-box": "MediaPipe attention alone",
}
TITLES = {name: title for name, (title, *_) in OURS.items()} | PEERS


@dataclass(frozen=True)
class Case:
    """A detector on one given box.

    Attributes:
        crop: Tight box ``(4,)`` to the crop it wants.
        find: Crop, uint8 ``(S, S, 3)``, to points on it ``(K, 2)``, or None.
        inner: Which of them are the 51 inner points.
    """

    crop: Callable[[np.ndarray], Crop]
    find: Callable[[np.ndarray], np.ndarray | None]
    inner: tuple[int, ...]


def build_cases() -> tuple[dict[str, Case], dict[str, str], dict[str, str]]:
    """All that can be loaded, why the rest can't, and versions of the packages."""
    found, skipped = {}, {}
    for name, (_, runtime, precision) in OURS.items():
        try:
            found[name] = ours(runtime, precision)
        except (ValueError, OSError) as error:
            skipped[name] = str(error).splitlines()[0]
    installed = installed_peers()
    versions = {name: version(name) for name in ("torch", "onnxruntime", "openvino", "numpy", "opencv-python")}
    for name in PEERS:
        if name not in installed:
            skipped[name] = "it is not installed"
            continue
        other = installed[name]
        try:
            found[name] = Case(other.crop, other.open(), other.inner)
        except PeerUnavailableError as error:
            skipped[name] = str(error)
        versions[other.distribution] = other.version
    return found, skipped, versions


def ours(runtime: str, precision: str) -> Case:
    """The network that ships, on one thread."""
    import torch

    from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS
    from pipnet.inference.runtimes import open_runtime
    from pipnet.model import checkpoint

    loaded = checkpoint.load(SHIPPED_WEIGHTS)
    size = loaded.net.input_size
    if runtime == "eager":
        net = loaded.net.eval()

        def call(crops: np.ndarray) -> Any:
            return [part.numpy() for part in net.predict(torch.from_numpy(crops).permute(0, 3, 1, 2))]

    else:
        call = open_runtime(SHIPPED_GRAPH if precision == "int8" else SHIPPED_WEIGHTS, runtime, threads=1)

    def crop(box: np.ndarray) -> Crop:
        return crop_of_square(crop_squares(box, loaded.crop_scale)[0], size)

    def find(image: np.ndarray) -> np.ndarray:
        return call(image[None])[0][0] * float(size) - 0.5

    return Case(crop, find, INNER_OF_68)
