"""Networks that improve their heatmaps stage by stage, with a loss a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipnet.model.backbones import Pyramid, build_pyramid
from pipnet.model.heatmaps import Decoder, Shape
from pipnet.model.rivals.maps import STRIDE, HeatmapNet, MeanFace, block, checked_arguments, map_layer

OWN_STEM = "hourglass_stem"  # as a backbone: the first layers of Newell's network, from nothing
_SMALLEST = 4  # cells a side of an hourglass's narrowest maps: 64, 32, 16, 8, 4 at 256 px


class Hourglass(HeatmapNet):
    """Hourglasses in a row, each with a loss, their skips added.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        backbone: ``"hourglass_stem"``, the paper's own first layers, or the features of stride 4 of a network that
            :func:`pipnet.model.backbones.build_pyramid` knows.
        stacks: Hourglasses, 1 to 4.
        width: Channels.
        input_size: Side of the crop in pixels, a multiple of 32. Maps are halved down to 4 cells, or not much below.
        shape: Of the targets, see :class:`pipnet.model.rivals.maps.HeatmapNet`.
        sigma: Of the targets, cells.
        decoder: See :class:`pipnet.model.rivals.maps.HeatmapNet`.
        confidence: Calibration of the scores.
        pretrained: Start the backbone from ImageNet weights, of which the paper's has none.

    Raises:
        ValueError: Not 1 to 4 stacks.

    Reference:
        Newell, Yang, Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016, section 3.
    """

    def __init__(
        self,
        mean_face: MeanFace,
        backbone: str = OWN_STEM,
        stacks: int = 2,
        width: int = 256,
        input_size: int = 256,
        shape: Shape = "gaussian",
        sigma: float = 1.5,
        decoder: Decoder = "dark",
        confidence: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        if not 1 <= stacks <= 4:
            raise ValueError(f"stacks must be 1 to 4, got {stacks}")
        arguments = checked_arguments(locals())
        if backbone == OWN_STEM:
            if pretrained:
                raise ValueError(f"backbone {OWN_STEM} has no ImageNet weights; set model.pretrained=false")
            features = Pyramid(_Stem(width), (width,), (STRIDE,))
        else:
            features = build_pyramid(backbone, (STRIDE,), pretrained=pretrained, input_size=input_size)
        super().__init__(mean_face, features, STRIDE, arguments)
        channels = features.channels[0]
        self.entry = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1)
        depth = max((self.grid // _SMALLEST).bit_length() - 1, 1)
        self.hourglasses = nn.ModuleList(
            nn.Sequential(_HourglassLevel(width, depth), _Residual(width, width), block(width, width))
            for _ in range(stacks)
        )
        self.heads = nn.ModuleList(map_layer(width, self.num_points) for _ in range(stacks))
        self.from_features = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(stacks - 1))
        self.from_maps = nn.ModuleList(nn.Conv2d(self.num_points, width, 1) for _ in range(stacks - 1))

    def forward(self, images: Tensor, pool_factor: Tensor | None = None) -> tuple[Tensor, ...]:
        """Heatmaps ``(B, N, S / 4, S / 4)`` of every stack."""
        current, found = self.entry(self.backbone(images)[-1]), []
        for number, (hourglass, head) in enumerate(zip(self.hourglasses, self.heads, strict=True)):
            features = hourglass(current)
            found.append(head(features))
            if number < len(self.from_maps):
                current = current + self.from_features[number](features) + self.from_maps[number](found[-1])
        return tuple(found)


class _Stem(nn.Sequential):
    """The paper's way from the image to a quarter of its side."""

    def __init__(self, width: int) -> None:
        half = width // 2
        first = [nn.Conv2d(3, width // 4, 7, stride=2, padding=3), nn.BatchNorm2d(width // 4), nn.ReLU(inplace=True)]
        rest = [_Residual(width // 4, half), nn.MaxPool2d(2), _Residual(half, half), _Residual(half, width)]
        super().__init__(*first, *rest)

    def forward(self, input: Tensor) -> list[Tensor]:
        return [super().forward(input)]


class _Residual(nn.Module):
    """Bottleneck with batch norm and ReLU before each convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half, layers = outputs // 2, []
        for before, after, kernel in ((inputs, half, 1), (half, half, 3), (half, outputs, 1)):
            convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2)
            layers += [nn.BatchNorm2d(before), nn.ReLU(), convolution]
        self.layers = nn.Sequential(*layers)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.skip(features) + self.layers(features)


class _HourglassLevel(nn.Module):
    """Half the size, the level within or a residual, twice the size, and a residual of what came in added."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.skip, self.down, self.up = (_Residual(width, width) for _ in range(3))
        self.inner: nn.Module = _HourglassLevel(width, depth - 1) if depth > 1 else _Residual(width, width)

    def forward(self, features: Tensor) -> Tensor:
        inner = self.up(self.inner(self.down(functional.max_pool2d(features, 2))))
        return self.skip(features) + functional.interpolate(inner, scale_factor=2.0, mode="nearest")


class PoseMachine(HeatmapNet):
    """Convolutional pose machine: heatmaps of stride 8, looked at again with a wide view, stage by stage.

    A light one: its image features are a backbone's of stride 8, and the 7x7 convolutions that see far are depthwise
    ones with a 1x1 convolution behind. Image features are shared by all stages, the other layers are a stage's own, and
    there is no map of the background.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        backbone: A name that :func:`pipnet.model.backbones.build_pyramid` knows.
        stages: 1 or more.
        width: Channels.
        input_size: Side of the crop in pixels, a multiple of 32.
        shape: Of the targets, see :class:`pipnet.model.rivals.maps.HeatmapNet`.
        sigma: Of the targets, cells.
        decoder: See :class:`pipnet.model.rivals.maps.HeatmapNet`.
        confidence: Calibration of the scores.
        pretrained: Start the backbone from ImageNet weights.

    Raises:
        ValueError: No stage.

    Reference:
        Wei and others, "Convolutional Pose Machines", CVPR 2016, section 3.
    """

    def __init__(
        self,
        mean_face: MeanFace,
        backbone: str = "resnet18",
        stages: int = 3,
        width: int = 128,
        input_size: int = 256,
        shape: Shape = "gaussian",
        sigma: float = 1.0,
        decoder: Decoder = "dark",
        confidence: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        if stages < 1:
            raise ValueError(f"stages must be 1 or more, got {stages}")
        arguments = checked_arguments(locals())
        features = build_pyramid(backbone, (8,), pretrained=pretrained, input_size=input_size)
        super().__init__(mean_face, features, 8, arguments)
        n = self.num_points
        self.shared = block(features.channels[0], width, 3)
        first = nn.Sequential(block(width, width, 3), block(width, width, 3), block(width, width), map_layer(width, n))
        self.stages = nn.ModuleList([first])
        for _ in range(stages - 1):
            wide = [_separable(width + n if index == 0 else width, width) for index in range(3)]
            self.stages.append(nn.Sequential(*wide, block(width, width), map_layer(width, n)))

    def forward(self, images: Tensor, pool_factor: Tensor | None = None) -> tuple[Tensor, ...]:
        """Heatmaps ``(B, N, S / 8, S / 8)`` of every stage."""
        shared, found = self.shared(self.backbone(images)[-1]), []
        for stage in self.stages:
            found.append(stage(torch.cat([shared, found[-1]], dim=1) if found else shared))
        return tuple(found)


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(block(inputs, inputs, 7, groups=inputs), block(inputs, outputs))
