"""Networks that answer twice, from coarse features and from fine ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipnet.model.backbones import build_pyramid
from pipnet.model.heatmaps import Decoder, Shape, map_spread, to_unit
from pipnet.model.loss import TotalCount, one_process, weighted_mean
from pipnet.model.network import PointTargets, Votes
from pipnet.model.rivals.maps import (
    STRIDE,
    HeatmapNet,
    MapLoss,
    MeanFace,
    block,
    checked_arguments,
    map_layer,
    resized,
)

_STRIDES = (4, 8, 16, 32)


class CascadedPyramid(HeatmapNet):
    """A global network of feature pyramid levels, and a refining one that trains on the harder points.

    The paper's has a 1x1 convolution before each sum of the pyramid, and targets that are wider on coarser levels.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        backbone: A name that :func:`pipnet.model.backbones.build_pyramid` knows.
        width: Channels of the pyramid.
        input_size: Side of the crop in pixels, a multiple of 32.
        shape: Of the targets, see :class:`pipnet.model.rivals.maps.HeatmapNet`.
        sigma: Of the targets, cells.
        decoder: See :class:`pipnet.model.rivals.maps.HeatmapNet`.
        confidence: Calibration of the scores.
        pretrained: Start the backbone from ImageNet weights.

    Reference:
        Chen and others, "Cascaded Pyramid Network for Multi-Person Pose Estimation", CVPR 2018, section 3: GlobalNet
        (3.2.1) and RefineNet (3.2.2), with half of the points mined online as the paper's 8 of 17.
    """

    def __init__(
        self,
        mean_face: MeanFace,
        backbone: str = "resnet18",
        width: int = 256,
        input_size: int = 256,
        shape: Shape = "gaussian",
        sigma: float = 1.5,
        decoder: Decoder = "dark",
        confidence: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        arguments = checked_arguments(locals())
        features = build_pyramid(backbone, _STRIDES, pretrained=pretrained, input_size=input_size)
        super().__init__(mean_face, features, STRIDE, arguments)
        n, levels = self.num_points, range(len(_STRIDES))
        self.laterals = nn.ModuleList(block(channels, width) for channels in features.channels)
        self.heads = nn.ModuleList(nn.Sequential(block(width, width), map_layer(width, n, 3)) for _ in levels)
        # The coarser a level, the more bottlenecks.
        self.refining = nn.ModuleList(nn.Sequential(*(_Bottleneck(width) for _ in range(level))) for level in levels)
        self.fusion = nn.Sequential(block(len(_STRIDES) * width, width), _Bottleneck(width))
        self.refined = map_layer(width, n, 3)

    def forward(self, images: Tensor, pool_factor: Tensor | None = None) -> tuple[Tensor, ...]:
        """Heatmaps ``(B, N, S / 4, S / 4)``: four of the global network, coarse to fine, and the refined ones."""
        level: Tensor | None = None
        global_maps, refined = [], []
        parts = zip(self.backbone(images), self.laterals, self.heads, self.refining, strict=True)
        for features, lateral, head, refining in reversed(list(parts)):
            inward = lateral(features)
            level = inward if level is None else inward + resized(level, inward.shape[-1])
            global_maps.append(resized(head(level), self.grid))
            refined.append(resized(refining(level), self.grid))
        return (*global_maps, self.refined(self.fusion(torch.cat(refined, dim=1))))

    def loss_class(self) -> Callable[..., nn.Module]:
        """Mean of the four levels' errors, and the refined maps' on the half of a face's points that is worst."""
        return partial(MapLoss, self.shape, self.sigma, weights=(0.25,) * 4 + (1.0,), hardest=0.5)


class _Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        last = nn.Sequential(nn.Conv2d(half, width, 1, bias=False), nn.BatchNorm2d(width))
        self.layers = nn.Sequential(block(width, half), block(half, half, 3), last)

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(features + self.layers(features))


class CoarseToFineOutput(NamedTuple):
    """Heatmaps of the whole crop, and of a window around each point's coarse answer."""

    coarse: Tensor  # (B, N, S / 8, S / 8)
    fine: Tensor  # (B, N, W, W), cells of 4 pixels
    centre: Tensor  # (B, N, 2), of the window, fractions of the crop


class CoarseToFine(HeatmapNet):
    """A coarse heatmap, and a fine one of the features around each coarse answer, by a network that all points share.

    Windows lie around the network's own coarse answers, in training as at prediction, where the paper's lie around
    labels with noise of the coarse errors' size; a label outside its window trains the coarse maps only.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        backbone: A name that :func:`pipnet.model.backbones.build_pyramid` knows.
        window: Cells a side of the fine maps, of 4 pixels each; odd.
        width: Channels.
        input_size: Side of the crop in pixels, a multiple of 32.
        shape: Of the targets, see :class:`pipnet.model.rivals.maps.HeatmapNet`.
        sigma: Of the targets, cells of either map.
        decoder: See :class:`pipnet.model.rivals.maps.HeatmapNet`.
        confidence: Calibration of the scores.
        pretrained: Start the backbone from ImageNet weights.

    Raises:
        ValueError: The window is even or below 7 cells.

    Reference:
        Tompson and others, "Efficient Object Localization Using Convolutional Networks", CVPR 2015, section 4.
    """

    def __init__(
        self,
        mean_face: MeanFace,
        backbone: str = "resnet18",
        window: int = 9,
        width: int = 64,
        input_size: int = 256,
        shape: Shape = "gaussian",
        sigma: float = 1.5,
        decoder: Decoder = "dark",
        confidence: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        if window % 2 == 0 or window < 7:
            raise ValueError(f"window must be an odd number of cells from 7, got {window}")
        arguments = checked_arguments(locals())
        features = build_pyramid(backbone, _STRIDES, pretrained=pretrained, input_size=input_size)
        super().__init__(mean_face, features, 8, arguments)
        self.window = window
        self.laterals = nn.ModuleList(block(channels, 2 * width) for channels in features.channels[1:])
        self.coarse = nn.Sequential(block(2 * width, 2 * width, 3), map_layer(2 * width, self.num_points))
        self.fine = nn.Sequential(block(sum(features.channels[:2]), width, 3), block(width, width, 3))
        self.fine_weight = nn.Parameter(torch.randn(self.num_points, width) * 0.001)
        self.fine_bias = nn.Parameter(torch.zeros(self.num_points))

    def forward(self, images: Tensor, pool_factor: Tensor | None = None) -> CoarseToFineOutput:
        """See :class:`CoarseToFineOutput`."""
        levels = self.backbone(images)
        coarse = self.coarse(
            sum(resized(lateral(level), self.grid) for lateral, level in zip(self.laterals, levels[1:], strict=True))
        )
        centre = to_unit(self.decoded(coarse.detach()).cells, self.grid)
        n, window = self.num_points, self.window
        banks = torch.cat([self._around(level, centre) for level in levels[:2]], dim=1)  # (B, D, N, W * W)
        windows = banks.transpose(1, 2).reshape(-1, banks.shape[1], window, window)  # (B * N, D, W, W)
        features = self.fine(windows).reshape(-1, n, len(self.fine_weight[0]), window, window)
        fine = (features * self.fine_weight[:, :, None, None]).sum(dim=2) + self.fine_bias[:, None, None]
        return CoarseToFineOutput(coarse, fine, centre)

    def _around(self, features: Tensor, centre: Tensor) -> Tensor:
        """Features ``(B, D, H, W)`` at the cells of each window, bilinear, 0 outside: ``(B, D, N, W * W)``."""
        steps = (torch.arange(self.window, device=centre.device) - self.window // 2) * (STRIDE / self.input_size)
        x, y = steps.expand(self.window, -1), steps[:, None].expand(-1, self.window)
        places = centre[:, :, None] + torch.stack([x, y], dim=-1).reshape(-1, 2)  # (B, N, W * W, 2)
        return functional.grid_sample(features.float(), 2 * places - 1, mode="bilinear", align_corners=False)

    def in_window(self, points_unit: Tensor, centre: Tensor) -> Tensor:
        """Points as cells of their windows, ``(B, N, 2)``."""
        return (points_unit - centre) * (self.input_size / STRIDE) + self.window // 2

    def loss_class(self) -> Callable[..., nn.Module]:
        """Error of the coarse maps, and a tenth of that of the fine ones, :class:`CoarseToFineLoss`."""
        return partial(CoarseToFineLoss, self)

    def count_votes(self, output: CoarseToFineOutput) -> Votes:
        """The fine maps decoded; peak of the fine maps, spread of the coarse ones, in coarse cells."""
        found = self.decoded(output.fine)
        moved = (found.cells - self.window // 2) * (STRIDE / self.input_size)
        return Votes(output.centre + moved, map_spread(output.coarse.float()), found.peak)


class CoarseToFineLoss(nn.Module):
    """Error of coarse and fine maps.

    Args:
        net: Says where windows lie.
        fine_weight: Of the fine maps' error, which counts a tenth in the paper.
        total_count: See :class:`pipnet.model.loss.PIPLoss`.
    """

    def __init__(self, net: CoarseToFine, fine_weight: float = 0.1, total_count: TotalCount = one_process) -> None:
        super().__init__()
        self.maps = MapLoss(net.shape, net.sigma, total_count=total_count)
        self.in_window, self.fine_weight, self.total_count = net.in_window, fine_weight, total_count

    def forward(self, output: CoarseToFineOutput, targets: PointTargets) -> dict[str, Tensor]:
        """Weighted terms; their sum is what is minimised."""
        (coarse,) = self.maps([output.coarse], targets).values()
        cells = self.in_window(targets.points_unit, output.centre)
        inside = ((cells > -0.5) & (cells < output.fine.shape[-1] - 0.5)).all(dim=-1)
        fine = weighted_mean(self.maps.error(output.fine, cells), targets.weight * inside, self.total_count)
        return {"coarse": coarse, "fine": self.fine_weight * fine}
