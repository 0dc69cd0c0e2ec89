"""What ``--models`` names, as files that a runtime opens: given ones, those that ship, or ones made for the purpose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pipnet.model.checkpoint import LoadedModel

_GRAPHS = (".onnx", ".xml")
_CALIBRATION_FACES = 4  # more would make int8 better, not faster
_NEIGHBORS = 10


@dataclass(eq=False)
class Network:
    """One of ``--models``.

    Attributes:
        name: As the user gave it; of a file its name without suffix.
        folder: Where files made for the benchmark go.
        input_size: S, side of the crops in pixels.
        files: By precision; those that are made join them as ``fp32.onnx`` and ``int8.onnx``.
        load: Gives the network, where more files can be made of it; None for a graph.
        trained: Whether its weights are not random.
    """

    name: str
    folder: Path
    input_size: int
    files: dict[str, Path]
    load: Callable[[], LoadedModel] | None = None
    trained: bool = True

    def file(self, runtime: str, precision: str) -> Path:
        """The file for a runtime and precision; made when it is first asked for.

        Raises:
            ValueError: PyTorch has no other precision than fp32.
            ImportError: Making it needs a package that isn't installed.
        """
        if runtime == "torch" and precision != "fp32":
            raise ValueError(f"PyTorch computes these networks in fp32, not in {precision}")
        given, made = self.files.get(precision), f"{precision}.onnx"
        if given and (self.load is None or (runtime == "torch") == (given.suffix.lower() not in _GRAPHS)):
            return given  # whether a lone graph fits, the runtime says
        if made not in self.files:
            from pipnet.model.onnx_graph import export_onnx

            assert self.load is not None
            path = self.folder / f"{self.name}_{made}"
            crops = sample_images(_CALIBRATION_FACES, self.input_size) if precision == "int8" else None
            export_onnx(self.load(), path, calibration=crops)
            self.files[made] = path
        return self.files[made]


def sample_images(count: int, size: int) -> np.ndarray:
    """The portrait that ships as crops, each shifted by a pixel more, RGB uint8 ``(count, size, size, 3)``.

    Example:
        >>> sample_images(2, 64).shape
        (2, 64, 64, 3)
    """
    import cv2

    from pipnet.data.images import portrait

    face = cv2.resize(portrait()[20:230, 110:320], (size, size), interpolation=cv2.INTER_AREA)
    return np.stack([np.roll(face, number, axis=1) for number in range(count)])


def find_network(text: str, folder: Path) -> Network:
    """What an entry of ``--models`` means: ``shipped``, a file, or a backbone, as ``resnet18`` or ``resnet18@128``.

    Files that have to be made go to ``folder``.

    Raises:
        ValueError: It means nothing; the message says what there is.
        FileNotFoundError: No such file.
        ImportError: It needs PyTorch, which isn't installed.
    """
    from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS

    path = Path(text)
    if text == "shipped":
        network = _of_graph(SHIPPED_GRAPH, folder)  # the int8 graph needs no PyTorch
        network.name, network.load = text, cache(lambda: _load(SHIPPED_WEIGHTS))
        network.files["fp32"] = SHIPPED_WEIGHTS
        return network
    if path.suffix.lower() in _GRAPHS:
        return _of_graph(path, folder)
    if path.suffix.lower() != ".pt" and not path.is_file():
        path = _random_weights(text, folder)
    loaded = _load(path)
    trained = loaded.training.get("weights") != "random"
    return Network(path.stem, folder, loaded.net.input_size, {"fp32": path}, lambda: loaded, trained)


def _of_graph(path: Path, folder: Path) -> Network:
    from pipnet.inference.runtimes import open_fastest

    if not path.is_file():
        raise FileNotFoundError(f"no network {path}; give the path of a .pt, .onnx or .xml file of pipnet")
    opened = open_fastest(path, "onnxruntime" if path.suffix.lower() == ".onnx" else "openvino", threads=1)
    return Network(path.stem, folder, opened.input_size, {str(opened.metadata.get("precision", "fp32")): path})


def _load(path: Path) -> LoadedModel:
    from pipnet.model import checkpoint

    return checkpoint.load(path)


def _random_weights(text: str, folder: Path) -> Path:
    """A checkpoint of a backbone's name, as ``resnet18@128``."""
    import torch

    from pipnet.inference.landmarker import SHIPPED_WEIGHTS
    from pipnet.model import checkpoint
    from pipnet.model.backbones import BACKBONES
    from pipnet.model.pipnet import PIPNet

    backbone, at, size = text.partition("@")
    if backbone not in BACKBONES or (at and not size.isdecimal()):
        there = f"shipped, a .pt, .onnx or .xml file, and {', '.join(BACKBONES)}, with @128 behind for crops of 128 px"
        raise ValueError(f"--models: no {text!r}; there are: {there}")
    shipped, path = _load(SHIPPED_WEIGHTS), folder / f"{text}.pt"
    torch.manual_seed(0)
    mean_face = shipped.net.arguments["mean_face"]
    net = PIPNet(mean_face, backbone, num_neighbors=_NEIGHBORS, input_size=int(size or 256)).eval()
    checkpoint.save(path, net, layout=shipped.layout, crop_scale=shipped.crop_scale, training={"weights": "random"})
    return path
