"""Weights that the authors released (github.com/jhb86253817/PIPNet), in the network of this package.

Their files are bare state dicts: which backbone, stride, mean face and layout they belong to has to be said.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipnet.files import read_text
from pipnet.layouts import PointLayout
from pipnet.model.checkpoint import CheckpointError, LoadedModel, check_fit, read_tensors
from pipnet.model.codec import Merge
from pipnet.model.pipnet import PIPNet

# Their five head layers, in the order in which ours are stacked in one convolution.
_HEADS = ("cls_layer", "x_layer", "y_layer", "nb_x_layer", "nb_y_layer")
# Their names of the layers between backbone and head (lib/networks.py), and ours.
_NECKS: dict[int, dict[str, str]] = {
    16: {"deconv1": "neck.0", "bn_deconv1": "neck.1"},
    32: {},
    64: {"layer5": "neck.0", "bn5": "neck.1"},
    128: {"layer5": "neck.0", "bn5": "neck.1", "layer6": "neck.3", "bn6": "neck.4"},
}


def load_reference_weights(
    path: str | Path,
    *,
    backbone: str,
    mean_face: np.ndarray,
    layout: PointLayout,
    net_stride: int = 32,
    num_neighbors: int = 10,
    input_size: int = 256,
    crop_scale: float,
    merge: Merge = "padded",
) -> LoadedModel:
    """Read a weight file of the authors' code, as their ``lib/train.py`` saves it.

    Their networks were trained on crops squeezed to a square, ours keep the aspect of the photo, so that a figure
    measured through this package differs a little from theirs.

    Args:
        path: ``epoch59.pth`` and the like; keys may carry the ``module.`` of ``DataParallel``.
        backbone: The one it was trained with: "resnet18", "resnet50", "resnet101" or "mobilenet_v2".
        mean_face: ``(N, 2)``, the ``meanface.txt`` it was trained with (:func:`read_mean_face`). Another one makes
            wrong points, not an error.
        layout: What its points mean.
        net_stride: Pixels a cell; other than 32 in their code with ResNet-18 only.
        num_neighbors: ``num_nb`` of their experiment file.
        input_size: ``input_size`` of their experiment file.
        crop_scale: Side of the crop over the longer side of the face box: 1.1 for 300W, 1.2 for WFLW, 1.0 for COFW and
            AFLW.
        merge: "padded" is their way of merging votes.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: Not such a file; the message names the key as the file spells it, and both shapes.
        ValueError: The layout and the mean face have different numbers of points.
    """
    if backbone.startswith("mobilenet_v3"):
        raise CheckpointError(
            f"{path}: the authors' MobileNetV3 weights can't be used: their third-party network squeezes and excites"
            " before the activation, torchvision's after it, so the same weights compute something else; train"
            f" backbone={backbone} here (experiment=paper_300w model.backbone={backbone})"
        )
    net = PIPNet(mean_face, backbone, num_neighbors, net_stride, input_size, merge)
    if layout.num_points != net.num_points:
        raise ValueError(f"layout {layout.name} has {layout.num_points} points, the mean face {net.num_points}")
    content = read_tensors(path)
    if isinstance(content, dict) and "format" in content:
        raise CheckpointError(f"{path} is a checkpoint of pipnet; read it with pipnet.model.checkpoint.load")
    if not isinstance(content, Mapping) or not all(isinstance(values, Tensor) for values in content.values()):
        raise CheckpointError(f"{path} is not a state dict: it must map names of weights to tensors")
    theirs = {str(key).removeprefix("module."): values for key, values in content.items()}
    check_fit(_their_names(net), theirs, source=f"{path}, read as {backbone} of net_stride {net_stride}")
    weights = {_our_name(key, net_stride): values for key, values in theirs.items() if key.split(".")[0] not in _HEADS}
    for part in ("weight", "bias"):
        weights[f"head.{part}"] = torch.cat([theirs[f"{head}.{part}"] for head in _HEADS])
    own = net.state_dict()
    net.load_state_dict({key: values.to(own[key].dtype) for key, values in weights.items()})
    training = {
        "source": Path(path).name,
        "code": "github.com/jhb86253817/PIPNet",
        "licence": "not stated by its authors",
    }
    return LoadedModel(net.eval(), layout, float(crop_scale), training)


def read_mean_face(path: str | Path) -> np.ndarray:
    """The authors' ``meanface.txt``: one line, ``x0 y0 x1 y1 ...``, fractions of the crop; as ``(N, 2)`` float64."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no mean face {path}; the authors' code keeps it as data/DATASET/meanface.txt")
    try:
        values = np.array([float(word) for word in read_text(path).split()])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; a mean face is one line of numbers, x0 y0 x1 y1 ...") from error
    if values.size == 0 or values.size % 2 or not np.isfinite(values).all():
        raise ValueError(f"{path}: {values.size} numbers; a mean face is one line of finite numbers, x0 y0 x1 y1 ...")
    return values.reshape(-1, 2)


def _our_name(key: str, net_stride: int) -> str:
    """Our name of a weight of theirs that isn't the head's."""
    layer, _, rest = key.partition(".")
    if layer in _NECKS[net_stride]:
        return f"{_NECKS[net_stride][layer]}.{rest}"
    return f"backbone.{rest}" if layer == "features" else f"backbone.{key}"


def _their_names(net: PIPNet) -> dict[str, tuple[int, ...]]:
    """Every name that a file of theirs for this network has, with its shape."""
    n, c = net.num_points, net.num_neighbors
    layers = {ours: theirs for theirs, ours in _NECKS[net.net_stride].items()}
    in_features = net.arguments["backbone"].startswith("mobilenet")
    names: dict[str, tuple[int, ...]] = {}
    for key, values in net.state_dict().items():
        part, _, rest = key.partition(".")
        shape = tuple(values.shape)
        if part == "head":
            names |= {f"{head}.{rest}": (n * (c if head.startswith("nb") else 1), *shape[1:]) for head in _HEADS}
        elif part == "neck":
            index, _, rest = rest.partition(".")
            names[f"{layers[f'neck.{index}']}.{rest}"] = shape
        else:
            names[f"features.{rest}" if in_features else rest] = shape
    return names
