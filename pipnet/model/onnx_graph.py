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

import numpy as np
import torch

from pipnet.files import replacing
from pipnet.model.checkpoint import FORMAT, LoadedModel
from pipnet.model.network import Prediction
from pipnet.model.networks import network_name
from pipnet.model.pipnet import PIPNet
from pipnet.model.predictor import PlainPredictor, Predictor, build_predictor

METADATA_KEY = "pipnet"
INPUT = "crops"
OUTPUTS = Prediction._fields
_OPSET = 18


def export_onnx(
    loaded: LoadedModel, path: str | Path, *, calibration: np.ndarray | None = None, card: str = ""
) -> None:
    """Write a network as an ONNX file, whole or not at all.

    Needs the package ``onnx`` (extra ``export``).

    ``calibration`` are training faces as crops, uint8 ``(K, S, S, 3)``. With them the graph computes in int8
    (:func:`pipnet.model.quantization.quantize`): four times smaller, faster, and slightly less accurate. ``card`` is
    text about the weights for whoever gets the file. The graph takes ``crops``, uint8 ``(B, S, S, 3)``, and gives the
    fields of :class:`pipnet.model.network.Prediction`.

    Raises:
        ValueError: The calibration faces are no such crops, or ONNX can't hold the network.
        OSError: The file can't be written.
    """
    content = onnx_graph(loaded, calibration=calibration, card=card)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def onnx_graph(loaded: LoadedModel, *, calibration: np.ndarray | None = None, card: str = "") -> bytes:
    """Content of the file that :func:`export_onnx` writes."""
    import onnx

    size = loaded.net.input_size
    predictor = build_predictor(loaded.net, uint8_input=calibration is not None)
    if calibration is not None:
        if calibration.dtype != np.uint8 or calibration.shape[1:] != (size, size, 3) or not len(calibration):
            raise ValueError(
                f"calibration faces must be uint8 (K, {size}, {size}, 3) with K above 0, got {calibration.dtype}"
                f" {calibration.shape}"
            )
        if isinstance(predictor, Predictor):
            predictor.spread_offsets(calibration)
    try:
        traced = _traced(predictor, size)
    except RuntimeError as error:  # how the exporter speaks of operators that it does not know, over many lines
        reason = str(error).strip().splitlines()[0][:200]
        name = loaded.net.arguments["backbone"]
        raise ValueError(
            f"the network can't be exported: ONNX does not hold what {name} computes ({reason})"
        ) from error
    model = onnx.load_from_string(traced)
    if calibration is not None:
        from pipnet.model.quantization import quantize

        model = quantize(model, calibration, INPUT)
    entry = model.metadata_props.add()
    about = metadata_of(loaded, calibration_faces=0 if calibration is None else len(calibration), card=card)
    entry.key, entry.value = METADATA_KEY, json.dumps(about)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _traced(predictor: PlainPredictor, size: int) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter that needs no second package; deprecated for one that did not cover this network's operators.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # pyright: ignore[reportPrivateImportUsage]
        warnings.filterwarnings("ignore", category=UserWarning)
        torch.onnx.export(
            predictor.eval(),
            (torch.zeros(1, size, size, 3, dtype=torch.uint8),),
            buffer,  # pyright: ignore[reportArgumentType]  # of which only the other exporter knows nothing
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "B"} for name in (INPUT, *OUTPUTS)},
        )
    return buffer.getvalue()


def metadata_of(loaded: LoadedModel, *, calibration_faces: int = 0, card: str = "") -> dict[str, Any]:
    """What a graph of a network says of itself, plain types only."""
    return {
        "format": FORMAT,
        "layout": loaded.layout.to_dict(),
        "crop_scale": loaded.crop_scale,
        "mean_face": np.round(loaded.net.arguments["mean_face"], 4).tolist(),
        "input_size": loaded.net.input_size,
        "backbone": loaded.net.arguments["backbone"],
        **({} if loaded.net.ranks_faces else {"ranks_faces": False}),
        **({} if isinstance(loaded.net, PIPNet) else {"network": network_name(loaded.net)}),
        "precision": "int8" if calibration_faces else "fp32",
        "calibration_faces": calibration_faces,
        "training": loaded.training,
        "card": card,
    }
