"""How much a network computes: GFLOP, two for each multiply-accumulate of convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipnet.model.pipnet import PIPNet


@dataclass(frozen=True)
class Work:
    """Of one face.

    Attributes:
        gflop: What is computed for a prediction, offsets at one cell a point; None where it can't be told.
        dense: The network as the authors compute it, all maps at every cell; None where only a graph is known.
    """

    gflop: float | None
    dense: float | None


def network_work(net: PIPNet) -> Work:
    """Of a network, on the CPU; ``gflop`` is that of its graphs.

    Example:
        >>> import numpy as np
        >>> from pipnet.model.pipnet import PIPNet
        >>> mean_face = np.random.default_rng(0).random((5, 2))
        >>> work = network_work(PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=2, input_size=64).eval())
        >>> work.gflop <= work.dense < 0.02
        True
    """
    import torch

    from pipnet.model.predictor import Predictor

    size = net.input_size
    crops = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    predictor = Predictor(net)
    with torch.inference_mode():
        done = gflop_of(lambda: predictor(crops))
        dense = gflop_of(lambda: net(net.normalize(crops.permute(0, 3, 1, 2))))
    return Work(done, dense)


def gflop_of(call: Callable[[], object]) -> float:
    """Of a call of PyTorch, as it comes: what its runtime computes is the runtime's business."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops()) / 1e9


def graph_work(path: str | Path) -> Work:
    """Of an ``.onnx`` or ``.xml`` file, read with OpenVINO, or an ``.onnx`` with ``onnx``; else unknown."""
    path = Path(path)
    for count in (_of_openvino, _of_onnx) if path.suffix.lower() == ".onnx" else (_of_openvino,):
        try:
            return Work(count(path), None)
        except Exception:  # not installed, or a graph that one of them can't read: then this figure is missing
            continue
    return Work(None, None)


def _of_openvino(path: Path) -> float:
    from pipnet.inference.sessions import read_openvino

    model, _ = read_openvino(path)
    size = model.input(0).get_partial_shape()[1].get_length()
    model.reshape([1, size, size, 3])
    total = 0
    for operation in model.get_ops():
        kind = operation.get_type_name()
        if kind in ("Convolution", "GroupConvolution"):
            weight = list(operation.input(1).get_shape())
            inputs_each = prod(weight[1:] if kind == "Convolution" else weight[2:])
            total += prod(operation.output(0).get_shape()) * inputs_each
        elif kind in ("ConvolutionBackpropData", "GroupConvolutionBackpropData"):
            weight = list(operation.input(1).get_shape())
            outputs_each = prod(weight[1:] if kind == "ConvolutionBackpropData" else weight[2:])
            total += prod(operation.input(0).get_shape()) * outputs_each
        elif kind == "MatMul":
            attributes = operation.get_attributes()
            a = list(operation.input(0).get_shape())
            total += prod(operation.output(0).get_shape()) * a[-2 if attributes["transpose_a"] else -1]
    return 2 * total / 1e9


def _of_onnx(path: Path) -> float:
    import numpy as np
    import onnx

    from pipnet.inference.sessions import onnx_session

    model = onnx.load(path)
    graph = model.graph
    size = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    products = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm")]
    # Some shapes are known only when the graph runs, so it runs once and shows them.
    known = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    there = {value.name for value in graph.output}
    names = {name for node in products for name in (*node.input[:2], node.output[0])} - set(known) - there
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(names))
    session = onnx_session(model.SerializeToString(), 1)
    shown = [value.name for value in graph.output]
    values = session.run(shown, {graph.input[0].name: np.zeros((1, size, size, 3), dtype=np.uint8)})
    known |= {name: list(value.shape) for name, value in zip(shown, values, strict=True)}
    return 2 * sum(_multiplications(node, known) for node in products) / 1e9


def _multiplications(node: Any, shapes: dict[str, list[int]]) -> int:
    """Of an ONNX node."""
    first, second, out = (shapes[name] for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "Conv":
        return prod(out) * prod(second[1:])
    if node.op_type == "ConvTranspose":
        return prod(first) * prod(second[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(out) * first[0 if transposed else -1]
