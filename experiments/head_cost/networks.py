"""Heads on one backbone, as files that runtimes open: what measure.py times.

Weights are random: stand-ins of the right shape, to be timed and not to be believed.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipnet.model.pipnet import PIPNet
from pipnet.model.predictor import Predictor


class OnBackbone(nn.Module):
    """A head and its decoding on the backbone of a :class:`Predictor`, which all heads share."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.predictor = predictor

    def features(self, crops: Tensor) -> Tensor:
        """uint8 ``(B, S, S, 3)`` to ``(B, 512, 8, 8)``."""
        return self.predictor.backbone(self.predictor._pixels(crops))


class Coordinate(OnBackbone):
    """Pooled regression: 2 N numbers a face."""

    def __init__(self, predictor: Predictor, channels: int, points: int) -> None:
        super().__init__(predictor)
        self.linear = nn.Linear(channels, 2 * points)

    def forward(self, crops: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.features(crops), 1).flatten(1)
        return self.linear(pooled).unflatten(1, (-1, 2))


class DensePIP(OnBackbone):
    """The paper's head: every map at every cell."""

    def __init__(self, predictor: Predictor, net: PIPNet) -> None:
        super().__init__(predictor)
        self.net = net
        self.net.backbone = nn.Identity()  # the shared one is used

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        return self.net.interpret(self.net(self.features(crops)))


class Heatmap(OnBackbone):
    """Three deconvolutions, a map a point, its peak with a quarter pixel towards the higher neighbour."""

    def __init__(self, predictor: Predictor, channels: int, points: int) -> None:
        super().__init__(predictor)
        layers: list[nn.Module] = []
        for inputs in (channels, 256, 256):
            layers += [nn.ConvTranspose2d(inputs, 256, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(256)]
            layers += [nn.ReLU(inplace=True)]
        self.up = nn.Sequential(*layers)
        self.maps = nn.Conv2d(256, points, 1)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.maps(self.up(self.features(crops)))
        side = maps.shape[-1]
        flat = maps.flatten(2)  # (B, N, side * side)
        peak, cell = flat.max(dim=-1)
        x, y = cell % side, torch.div(cell, side, rounding_mode="floor")

        def at(dx: int, dy: int) -> Tensor:
            where = (y + dy).clamp(0, side - 1) * side + (x + dx).clamp(0, side - 1)
            return flat.gather(2, where[..., None])[..., 0]

        shift = torch.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], dim=-1).sign() / 4
        return (torch.stack([x, y], dim=-1) + 0.5 + shift) / side, peak


def build_heads(*, points: int, neighbors: int, size: int) -> dict[str, nn.Module]:
    """The four on one ResNet-18."""
    torch.manual_seed(0)
    mean_face = np.random.default_rng(0).random((points, 2))
    net = PIPNet(mean_face, "resnet18", num_neighbors=neighbors, input_size=size).eval()
    predictor = Predictor(net)
    channels = net.head.in_channels
    heads: dict[str, nn.Module] = {
        "coordinate": Coordinate(predictor, channels, points),
        "pip": predictor,
        "pip_dense": DensePIP(predictor, net),
        "heatmap": Heatmap(predictor, channels, points),
    }
    return {name: head.eval().requires_grad_(False) for name, head in heads.items()}


def write_graph(head: nn.Module, crops: Tensor, path: Path) -> None:
    """One head with its backbone and decoding as an ONNX file, batch 1."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter is deprecated, and the tracer doubts constants
        torch.onnx.export(head, (crops,), path, dynamo=False, opset_version=18, input_names=["crops"])


def write_8_bits(graph: Path, crops: np.ndarray, target: Path) -> None:
    """Convolutions, deconvolutions and linear layers, and what lies between them, in int8."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Crops(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(crops)

        def get_next(self) -> dict[str, np.ndarray] | None:
            crop = next(self.left, None)
            return None if crop is None else {"crops": crop[None]}

    prepared = graph.with_suffix(".prepared.onnx")
    logging.disable(logging.WARNING)
    try:
        quant_pre_process(graph, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            Crops(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "ConvTranspose", "Gemm", "Relu", "MaxPool", "Add", "GlobalAveragePool"],
            nodes_to_exclude=_decoding(prepared),
        )
    finally:
        logging.disable(logging.NOTSET)


def _decoding(graph: Path) -> list[str]:
    """Additions behind the last layer with weights: sums of coordinates, for which a step of int8 is too coarse."""
    import onnx

    nodes = onnx.load(graph).graph.node
    last = max(i for i, node in enumerate(nodes) if node.op_type in ("Conv", "ConvTranspose", "Gemm"))
    picks = [i for i, node in enumerate(nodes) if node.op_type in ("Mod", "ArgMax", "TopK")]
    first = min([last, *picks])
    return [node.name for i, node in enumerate(nodes) if i > first and node.op_type in ("Add", "Relu")]
