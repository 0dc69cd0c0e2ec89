"""Backbones: name to a network without its classifier, with its channels and stride."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torchvision import models


@dataclass(frozen=True)
class Backbone:
    """A backbone and what it gives.

    Attributes:
        module: Image ``(B, 3, S, S)`` to features ``(B, channels, S / stride, S / stride)``.
        channels: Channels of the features.
        stride: Pixels of the image per cell of the features.
    """

    module: nn.Module
    channels: int
    stride: int


def _resnet(build: Callable[..., models.ResNet], weights: object) -> Backbone:
    net = build(weights=weights)
    channels = net.fc.in_features
    layers = {name: layer for name, layer in net.named_children() if name not in ("avgpool", "fc")}
    backbone = nn.Sequential()
    for name, layer in layers.items():
        backbone.add_module(name, layer)
    return Backbone(backbone, channels, stride=32)


def _mobilenet(build: Callable[..., nn.Module], weights: object) -> Backbone:
    # `features` ends in the 1x1 convolution (320 to 1280 in V2, 160 to 960 in V3 large), as in the authors' networks.
    features = build(weights=weights).features
    for module in features.modules():
        if isinstance(module, nn.BatchNorm2d):
            # V3 comes with 0.01, for the half million steps of ImageNet: after a few hundred steps its running
            # statistics lag so far behind that a well-trained network fails in eval mode (synthetic faces: NME 12.7
            # instead of 4.5).
            module.momentum = 0.1
    return Backbone(features, features[-1].out_channels, stride=32)


def _mobilenet_v2_stride16(build: Callable[..., nn.Module], weights: object) -> Backbone:
    # Block 14 halves the map. Without it and what follows, a crop of 128 px has the 8 x 8 cells that the paper's 256 px
    # have, from trained weights; a backbone of stride 32 gets there by a transposed convolution that starts at random.
    features = _mobilenet(build, weights).module[:14]
    return Backbone(features, features[-1].out_channels, stride=16)


# name: (how the backbone is cut out, torchvision's builder, its ImageNet weights)
_BACKBONES: dict[str, tuple[Callable[..., Backbone], Callable[..., nn.Module], object]] = {
    "resnet18": (_resnet, models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1),
    "resnet50": (_resnet, models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1),
    "resnet101": (_resnet, models.resnet101, models.ResNet101_Weights.IMAGENET1K_V1),
    "mobilenet_v2": (_mobilenet, models.mobilenet_v2, models.MobileNet_V2_Weights.IMAGENET1K_V1),
    "mobilenet_v2_stride16": (
        _mobilenet_v2_stride16,
        models.mobilenet_v2,
        models.MobileNet_V2_Weights.IMAGENET1K_V1,
    ),
    "mobilenet_v3_large": (_mobilenet, models.mobilenet_v3_large, models.MobileNet_V3_Large_Weights.IMAGENET1K_V1),
    "mobilenet_v3_small": (_mobilenet, models.mobilenet_v3_small, models.MobileNet_V3_Small_Weights.IMAGENET1K_V1),
}

BACKBONES = tuple(_BACKBONES)


def build_backbone(name: str, *, pretrained: bool = False) -> Backbone:
    """Build a backbone by name.

    Args:
        name: One of :data:`BACKBONES`.
        pretrained: Start from torchvision's ImageNet weights (downloaded once into ``TORCH_HOME``).

    Raises:
        ValueError: Unknown name; the message lists the known ones.
        OSError: The ImageNet weights can't be had; the message says what to do.

    Example:
        >>> backbone = build_backbone("mobilenet_v3_small")
        >>> backbone.channels, backbone.stride
        (576, 32)
    """
    if name not in _BACKBONES:
        raise ValueError(f"no backbone {name!r}; known: {', '.join(_BACKBONES)}")
    cut, build, weights = _BACKBONES[name]
    if not pretrained:
        return cut(build, None)
    try:
        return cut(build, weights)
    except OSError as error:  # URLError of the download among them
        raise OSError(
            f"ImageNet weights of {name} could not be loaded ({error}); put {weights.url.rsplit('/', 1)[-1]} into"
            " $TORCH_HOME/hub/checkpoints, or train from nothing with model.pretrained=false"
        ) from error
