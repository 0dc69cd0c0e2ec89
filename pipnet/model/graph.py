"""One ONNX graph that is enough to predict: uint8 crops in, points and scores out.

Normalisation, decoding, neighbour merging and the calibration of the scores are inside, so that a runtime needs no code
of pipnet's. What the points mean and how to cut the crop travel in the file's metadata.
"""

from __future__ import annotations

import json
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipnet.atomic import replacing
from pipnet.model.checkpoint import FORMAT, LoadedModel
from pipnet.model.pipnet import PIPNet, Prediction

METADATA_KEY = "pipnet"
INPUT = "crops"
OUTPUTS = Prediction._fields
_OPSET = 18


class _Predictor(nn.Module):
    def __init__(self, net: PIPNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, crops: Tensor) -> Prediction:
        """Crops with channels last, as images lie in memory."""
        images = self.net.normalize(crops.permute(0, 3, 1, 2))
        return self.net.interpret(self.net(images))


def export_onnx(loaded: LoadedModel, path: str | Path, *, half: bool = False) -> None:
    """Write a network as an ONNX file, whole or not at all.

    Needs the package ``onnx`` (extra ``export``).

    Args:
        loaded: On the CPU.
        path: Target; an older file of that name is replaced.
        half: Store weights in 16 bits, half the size; they are read back as 32 bits and computed with as such.

    The graph takes ``crops``, uint8 ``(B, S, S, 3)``, and gives the fields of
    :class:`pipnet.model.pipnet.Prediction`.
    """
    import onnx

    size = loaded.net.input_size
    buffer = BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter that needs no second package; deprecated for one that did not cover this network's operators.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", category=UserWarning)
        torch.onnx.export(
            _Predictor(loaded.net).eval(),
            (torch.zeros(1, size, size, 3, dtype=torch.uint8),),
            buffer,
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "B"} for name in (INPUT, *OUTPUTS)},
            # Batch normalisation stays a layer of its own, which runtimes fold when they load the file. Folded here,
            # the weights would be new numbers that 16 bits do not hold.
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    model = onnx.load_from_string(buffer.getvalue())
    if half:
        _halve(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(_metadata(loaded))
    onnx.checker.check_model(model)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _metadata(loaded: LoadedModel) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "layout": loaded.layout.to_dict(),
        "box_scale": loaded.box_scale,
        "input_size": loaded.net.input_size,
        "training": loaded.training,
    }


def _halve(model: Any) -> None:
    """Store large weights in 16 bits and cast them back where they are used; loading folds the casts away."""
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.raw_data) < 4096:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float16"), f"{name}_half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)
