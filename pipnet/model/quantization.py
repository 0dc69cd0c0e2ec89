"""An ONNX graph in int8: static quantisation, calibrated on training faces.

ONNX Runtime's own tool does the work, except for the rounding of weights. What is decided here: what stays in 32 bits
(everything behind the head, where a step of int8 would be pixels), how ranges are measured, and that the crop, 8 bits
already, is not converted twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.model.rounding import round_weights

_WEIGHTED = ("Conv", "ConvTranspose")  # not a linear layer that gives coordinates, of which 8 bits are pixels
_PICKING = ("Gather", "GridSample", "Reshape", "Transpose")  # along the first input; the second says how, or which


def quantize(model: Any, crops: np.ndarray, input_name: str) -> Any:
    """A graph of :func:`pipnet.model.predictor.build_predictor` with ``uint8_input`` in int8.

    Activations are unsigned with one range a tensor, weights signed with one a channel: the form that both ONNX
    Runtime and OpenVINO compute with 8-bit instructions. A range is the mean over faces of each face's smallest and
    largest value: the extremes over all faces cost more precision than they save outliers
    (``experiments/int8/ranges.py``). Weights are rounded by :mod:`pipnet.model.rounding`.

    ``crops`` are uint8 ``(K, S, S, 3)``, faces like those that it will see; ``model`` and result ``onnx.ModelProto``.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class _Crops(CalibrationDataReader):
        def __init__(self) -> None:
            self._crops = iter(crops)

        def get_next(self) -> dict[str, np.ndarray]:
            crop = next(self._crops, None)
            return {} if crop is None else {input_name: crop[None]}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(model, prepared, skip_symbolic_shape=True)
        model = onnx.load(prepared)
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"prepared_{index}"  # nodes are chosen by name, and fused ones have none
        exact = onnx.ModelProto()
        exact.CopyFrom(model)  # the tool moves the weights of what it is given to a file of its own
        _, scaled = _float_pixels(model, input_name)
        target = Path(folder) / "quantized.onnx"
        quantize_static(
            model,
            target,
            _Crops(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=sorted(_kept_in_32_bits(model)),
            extra_options={
                "CalibMovingAverage": True,
                # A byte is a step, so that the quantised pixels are the crop's bytes.
                "TensorQuantOverrides": {
                    scaled.output[0]: [{"scale": np.array(1 / 255, np.float32), "zero_point": np.array(0, np.uint8)}]
                },
            },
        )
        quantized = onnx.load(target)
        round_weights(quantized, exact, crops, input_name)
    del quantized.metadata_props[:]  # of the tools
    _feed_pixels(quantized, input_name)
    return quantized


def _kept_in_32_bits(model: Any) -> set[str]:
    """Names of the nodes that no convolution depends on: decoding and scores."""
    nodes = list(model.graph.node)
    maker = {output: node for node in nodes for output in node.output}
    network: set[str] = set()
    waiting = [node for node in nodes if node.op_type in _WEIGHTED]
    while waiting:
        node = waiting.pop()
        if node.name in network:
            continue
        network.add(node.name)
        inputs = node.input[:1] if node.op_type in _PICKING else node.input
        waiting += [maker[name] for name in inputs if name in maker]
    return {node.name for node in nodes if node.name not in network}


def _float_pixels(model: Any, input_name: str) -> tuple[Any, Any]:
    """The node that makes the crop's bytes floating-point numbers, and the one that divides them by 255."""
    users = {name: node for node in model.graph.node for name in node.input[:1] if node.op_type != "Shape"}
    node = users[input_name]
    while node.op_type in ("Pad", "Transpose"):
        node = users[node.output[0]]
    return node, users[node.output[0]]


def _feed_pixels(model: Any, input_name: str) -> None:
    """Let the first convolution take the crop's bytes, instead of bytes made float, scaled and quantised again."""
    cast, scaled = _float_pixels(model, input_name)
    (quantized,) = (node for node in model.graph.node if scaled.output[0] in node.input)
    (back,) = (node for node in model.graph.node if quantized.output[0] in node.input)
    back.input[0] = cast.input[0]
    for node in (cast, scaled, quantized):
        model.graph.node.remove(node)


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tool advises on standard output and through the root logger to prepare graphs that need it."""
    import logging

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
