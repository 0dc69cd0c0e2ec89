"""Networks of one heatmap a point: what they share, and the two that are a backbone and a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipnet.model.backbones import Pyramid, build_pyramid
from pipnet.model.heatmaps import (
    DECODERS,
    SHAPES,
    DecodedMaps,
    Decoder,
    Shape,
    decode_maps,
    draw_maps,
    map_spread,
    to_cells,
    to_unit,
)
from pipnet.model.loss import TotalCount, one_process, weighted_mean
from pipnet.model.network import LandmarkNet, PointTargets, Votes

STRIDE = 4  # pixels a cell of the finest maps, of all but the pose machine
MeanFace = Sequence[Sequence[float]] | np.ndarray


class HeatmapNet(LandmarkNet):
    """A network whose output is heatmaps ``(B, N, W, W)``, one or several stages of them; the last stage answers.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        features: The backbone.
        stride: Pixels a cell of the last maps.
        arguments: What the network is built from, with ``backbone``, ``input_size``, ``shape``, ``sigma``, ``decoder``
            and ``confidence`` among it:

            * ``shape`` and ``sigma`` of the targets, sigma in cells, see :func:`pipnet.model.heatmaps.draw_maps`;
            * ``decoder``, see :func:`pipnet.model.heatmaps.decode_maps`.
    """

    shape: Shape
    sigma: float
    decoder: Decoder

    def __init__(self, mean_face: MeanFace, features: Pyramid, stride: int, arguments: Mapping[str, Any]) -> None:
        given = dict(arguments)
        input_size, confidence = given.pop("input_size"), given.pop("confidence")
        grid = input_size // stride
        super().__init__(mean_face, input_size, grid, given, features.pixel_mean, features.pixel_std)
        self.shape, self.sigma, self.decoder = given["shape"], given["sigma"], given["decoder"]
        self.backbone = features.module
        self.calibrate(confidence)

    def loss_class(self) -> Callable[..., nn.Module]:
        """Squared error of every stage, :class:`MapLoss`."""
        return partial(MapLoss, self.shape, self.sigma)

    def decoded(self, maps: Tensor) -> DecodedMaps:
        """Where maps peak, by the network's decoder."""
        return decode_maps(maps.float(), self.decoder, sigma=self.sigma)

    def count_votes(self, output: Any) -> Votes:
        """The last maps decoded. The spread is that of the map (:func:`pipnet.model.heatmaps.map_spread`)."""
        maps = output[-1].float()
        found = self.decoded(maps)
        return Votes(to_unit(found.cells, maps.shape[-1]), map_spread(maps), found.peak)


class MapLoss(nn.Module):
    """Half the squared error of heatmaps, summed over cells, mean over points; a term a stage.

    Args:
        shape: Of the targets.
        sigma: Cells, of maps of every size.
        weights: Of the stages; None is 1 each.
        hardest: Share of a face's points that train the last stage, those with the largest error.
        total_count: See :class:`pipnet.model.loss.PIPLoss`.
    """

    def __init__(
        self,
        shape: Shape,
        sigma: float,
        weights: Sequence[float] | None = None,
        hardest: float = 1.0,
        total_count: TotalCount = one_process,
    ) -> None:
        super().__init__()
        self.shape: Shape = shape
        self.sigma, self.weights, self.hardest = sigma, weights, hardest
        self.total_count = total_count

    def error(self, maps: Tensor, cells: Tensor) -> Tensor:
        """Error ``(B, N)`` of maps ``(B, N, W, W)`` that should peak at cells ``(B, N, 2)``."""
        wanted = draw_maps(cells, maps.shape[-1], shape=self.shape, sigma=self.sigma)
        return (maps.float() - wanted).square().sum(dim=(2, 3)) / 2

    def forward(self, output: Sequence[Tensor], targets: PointTargets) -> dict[str, Tensor]:
        """Weighted terms; their sum is what is minimised."""
        terms = {}
        for number, maps in enumerate(output):
            error, weight = self.error(maps, to_cells(targets.points_unit, maps.shape[-1])), targets.weight
            if number == len(output) - 1 and self.hardest < 1:
                worst = (error * weight).topk(round(self.hardest * error.shape[1]), dim=1).indices
                weight = weight * torch.zeros_like(weight).scatter(1, worst, 1.0)
            factor = 1.0 if self.weights is None else self.weights[number]
            terms[f"stage_{number + 1}"] = factor * weighted_mean(error, weight, self.total_count)
        return terms


def block(inputs: int, outputs: int, kernel: int = 1, *, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; the size stays."""
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def map_layer(channels: int, num_points: int, kernel: int = 1) -> nn.Conv2d:
    """The convolution that gives the maps; nearly zero at the start, as SimpleBaseline's and HRNet's."""
    layer = nn.Conv2d(channels, num_points, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=0.001)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def resized(maps: Tensor, size: int) -> Tensor:
    """Bilinear, by half pixels, to ``size`` cells a side."""
    if maps.shape[-1] == size:
        return maps
    return functional.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)


class SimpleBaseline(HeatmapNet):
    """Transposed convolutions from the backbone's last block to heatmaps of stride 4.

    Of a MobileNet that leaves out the 1x1 convolution to 1280 channels, which makes two thirds of the head's work.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        backbone: A name that :func:`pipnet.model.backbones.build_pyramid` knows.
        output_stride: Of the backbone: 32 and three transposed convolutions as in the paper, or 16 or 8, where it is
            dilated instead, and two or one of them.
        width: Channels of the transposed convolutions.
        input_size: Side of the crop in pixels, a multiple of 32.
        shape: Of the targets, see :class:`HeatmapNet`.
        sigma: Of the targets, cells.
        decoder: See :class:`HeatmapNet`.
        confidence: Calibration of the scores.
        pretrained: Start the backbone from ImageNet weights.

    Reference:
        Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, section 2.
    """

    def __init__(
        self,
        mean_face: MeanFace,
        backbone: str = "resnet18",
        output_stride: int = 32,
        width: int = 256,
        input_size: int = 256,
        shape: Shape = "gaussian",
        sigma: float = 1.5,
        decoder: Decoder = "dark",
        confidence: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
        arguments = checked_arguments(locals())
        options = {"pretrained": pretrained, "input_size": input_size, "output_stride": output_stride}
        features = build_pyramid(backbone, (output_stride,), **options)
        super().__init__(mean_face, features, STRIDE, arguments)
        layers: list[nn.Module] = []
        channels, stride = features.channels[-1], output_stride
        while stride > STRIDE:
            upward = nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False)
            nn.init.normal_(upward.weight, std=0.001)
            layers += [upward, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels, stride = width, stride // 2
        self.upward = nn.Sequential(*layers)
        self.head = map_layer(width, self.num_points)

    def forward(self, images: Tensor, pool_factor: Tensor | None = None) -> tuple[Tensor]:
        """Heatmaps ``(B, N, S / 4, S / 4)``, one stage."""
        return (self.head(self.upward(self.backbone(images)[-1])),)


class HRNet(HeatmapNet):
    """Features of all resolutions side by side at stride 4, and heatmaps from them by 1x1 convolutions.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        backbone: HRNet-W18 of timm; other backbones with features of strides 4 to 32 serve as well.
        input_size: Side of the crop in pixels, a multiple of 32.
        shape: Of the targets, see :class:`HeatmapNet`.
        sigma: Of the targets, cells.
        decoder: See :class:`HeatmapNet`.
        confidence: Calibration of the scores.
        pretrained: Start the backbone from ImageNet weights.

    Reference:
        Sun and others, "High-Resolution Representations for Labeling Pixels and Regions", arXiv:1904.04514, section 3
        (HRNetV2).
    """

    def __init__(
        self,
        mean_face: MeanFace,
        backbone: str = "timm/hrnet_w18",
        input_size: int = 256,
        shape: Shape = "gaussian",
        sigma: float = 1.5,
        decoder: Decoder = "dark",
        confidence: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        arguments = checked_arguments(locals())
        features = build_pyramid(backbone, (4, 8, 16, 32), pretrained=pretrained, input_size=input_size)
        super().__init__(mean_face, features, STRIDE, arguments)
        channels = sum(features.channels)
        self.fusion = block(channels, channels)
        self.head = map_layer(channels, self.num_points)

    def forward(self, images: Tensor, pool_factor: Tensor | None = None) -> tuple[Tensor]:
        """Heatmaps ``(B, N, S / 4, S / 4)``, one stage."""
        levels = self.backbone(images)
        together = torch.cat([resized(level, self.grid) for level in levels], dim=1)
        return (self.head(self.fusion(together)),)


def checked_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a network's constructor, from its ``locals()``, without what a checkpoint stores elsewhere.

    Raises:
        ValueError: No such shape or decoder, or ``input_size`` is no multiple of 32.
    """
    for name, known in {"shape": SHAPES, "decoder": DECODERS}.items():
        if given[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {given[name]!r}")
    if given["input_size"] <= 0 or given["input_size"] % 32:
        raise ValueError(f"input_size {given['input_size']} must be a multiple of 32 for a network of heatmaps")
    return {key: value for key, value in given.items() if key not in ("self", "mean_face", "pretrained", "__class__")}
