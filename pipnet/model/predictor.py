"""The network arranged for prediction: same points, less work.

The scaling of pixels goes into the first convolution. Training PIPNet wants maps of everything at every cell; a
prediction reads one cell a point. So its offsets are computed at that cell only: for 68 points with 10 neighbours on
MobileNetV2 that is a fifth of the network's multiplications.
"""

from __future__ import annotations

import copy
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipnet.model.backbones import exportable
from pipnet.model.codec import Decoded, merge
from pipnet.model.network import LandmarkNet, Prediction
from pipnet.model.pipnet import PIPNet

_BATCH = 32  # crops at a time when ranges are measured


class PlainPredictor(nn.Module):
    """A trained network as one function from uint8 crops to points and scores.

    Equal to :meth:`LandmarkNet.predict` up to the rounding of 32-bit numbers (below 0.001 px).

    Args:
        net: Copied, not changed.
        uint8_input: Let the first convolution read pixels as they are, 0 to 255, instead of pixels less their mean.
            A runtime that computes in int8 then takes the crop itself as its input. Around the crop the network sees
            the one grey level nearest to the mean instead of the mean of each colour: points move by some 0.02 px.
    """

    row_mean: Tensor

    def __init__(self, net: LandmarkNet, *, uint8_input: bool = False) -> None:
        super().__init__()
        net = copy.deepcopy(net).eval()
        self.input_size = net.input_size
        net.backbone = exportable(net.backbone)
        mean, std = net.pixel_mean.flatten(), net.pixel_std.flatten()
        name, first = next((n, m) for n, m in net.backbone.named_modules() if isinstance(m, nn.Conv2d))
        self.margin = _margin(first, self.input_size) if uint8_input else None
        self.grey = round(float(mean.mean()))
        net.backbone.set_submodule(name, _on_pixels(first, mean, std, uint8_input=uint8_input))
        # A row of the crop at a time: runtimes subtract three numbers in turn a hundred times slower than 768.
        self.register_buffer("row_mean", mean.repeat(self.input_size))
        self.arrange(net)
        self.requires_grad_(False)

    def arrange(self, net: LandmarkNet) -> None:
        """Take what is needed of a network whose backbone reads pixels by now."""
        self.net = net

    def forward(self, crops: Tensor) -> Prediction:
        """Points on uint8 RGB crops with channels last, as images lie in memory: ``(B, S, S, 3)``."""
        return self.net.interpret(self.net(self.pixels(crops)))

    def pixels(self, crops: Tensor) -> Tensor:
        """What the backbone is given: ``(B, 3, S, S)``, with a margin for a first convolution that pads nothing."""
        if self.margin is not None:
            crops = functional.pad(crops, (0, 0, *self.margin, *self.margin), value=self.grey)
            return crops.permute(0, 3, 1, 2).float() / 255
        centred = crops.flatten(2).float() - self.row_mean
        return centred.unflatten(2, (self.input_size, 3)).permute(0, 3, 1, 2)


class Predictor(PlainPredictor):
    """A trained :class:`~pipnet.model.pipnet.PIPNet`, whose offsets are computed where they are read."""

    vote_index: Tensor
    vote_weight: Tensor
    offset_scale: Tensor | None
    offset_shift: Tensor | None

    def arrange(self, net: LandmarkNet) -> None:
        """See :meth:`PlainPredictor.arrange`."""
        assert isinstance(net, PIPNet)
        self.num_points, self.votes_each, self.grid = net.num_points, 1 + net.num_neighbors, net.grid
        self.backbone, self.neck, self.confidence = net.backbone, net.neck, net.confidence
        self.score_head, self.offset_head = _split_head(net)
        self.register_buffer("offset_scale", None)
        self.register_buffer("offset_shift", None)
        for buffer in ("vote_index", "vote_weight"):
            self.register_buffer(buffer, getattr(net, buffer))

    def forward(self, crops: Tensor) -> Prediction:
        """See :meth:`PlainPredictor.forward`."""
        n, grid = self.num_points, self.grid
        features = self.neck(self.backbone(self.pixels(crops)))  # (B, D, H, W)
        channels = features.shape[1]
        peak, cell = self.score_head(features).reshape(-1, n, grid * grid).max(dim=-1)  # (B, N)
        rows = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (B * H * W, D)
        # Counted from the cells themselves. Where it is made from a tensor's shape, ONNX's exporter may take it for a
        # constant, and OpenVINO 2026.4 computes the whole 8-bit graph wrongly.
        cells = grid * grid
        first_row = torch.cumsum(cell[:, :1] * 0 + cells, dim=0) - cells  # (B, 1)
        # As many groups of channels as points: a grouped convolution is a product of each point's features with its
        # own weights, and the form of it that runtimes compute well in int8.
        read = rows[cell + first_row].reshape(-1, n * channels, 1, 1)
        offsets = self.offset_head(read).reshape(-1, n, self.votes_each, 2)
        if self.offset_scale is not None and self.offset_shift is not None:
            offsets = offsets * self.offset_scale + self.offset_shift
        corner = torch.stack([cell % grid, torch.div(cell, grid, rounding_mode="floor")], dim=-1).to(offsets.dtype)
        places = (corner[:, :, None] + offsets) / grid  # (B, N, 1 + C, 2)
        merged = merge(Decoded(places[:, :, 0], places[:, :, 1:], peak), self.vote_index, self.vote_weight)
        return Prediction(merged.points, *self.confidence(merged.spread * grid, peak))

    @torch.no_grad()
    def spread_offsets(self, crops: np.ndarray) -> None:
        """Stretch every offset over the same range, and undo it behind the head: nothing changes in 32 bits.

        In int8 all outputs of a layer share one step. A far neighbour's offset spans several cells and a near one's a
        fraction of a cell, so without this the near ones would be rounded to a few levels.
        """
        seen: list[Tensor] = []
        hook = self.offset_head.register_forward_hook(lambda _module, _inputs, output: seen.append(output.flatten(1)))
        for batch in torch.from_numpy(crops).split(_BATCH):
            self(batch)
        hook.remove()
        # A face in five hundred may lie outside; it should not cost the others their precision.
        low, high = torch.quantile(torch.cat(seen), torch.tensor([0.002, 0.998]), dim=0)  # (N * (1 + C) * 2,)
        shift, scale = (low + high) / 2, ((high - low) / 2 * 1.1).clamp_min(1e-3)
        head = self.offset_head
        assert head.bias is not None
        head.weight.copy_(head.weight / scale[:, None, None, None])
        head.bias.copy_((head.bias - shift) / scale)
        shape = (self.num_points, self.votes_each, 2)
        self.offset_scale, self.offset_shift = scale.reshape(shape), shift.reshape(shape)


def build_predictor(net: LandmarkNet, *, uint8_input: bool = False) -> PlainPredictor:
    """A :class:`Predictor` of a PIPNet, a :class:`PlainPredictor` of any other network."""
    kind = Predictor if isinstance(net, PIPNet) else PlainPredictor
    return kind(net, uint8_input=uint8_input)


def _margin(convolution: nn.Conv2d, size: int) -> tuple[int, int]:
    """Pixels that a convolution reads before the first and after the last of an image."""
    before, stride, kernel = int(convolution.padding[0]), convolution.stride[0], convolution.kernel_size[0]
    last_window = (size + 2 * before - kernel) // stride * stride
    return before, max(last_window + kernel - before - size, 0)


def _on_pixels(convolution: nn.Conv2d, mean: Tensor, std: Tensor, *, uint8_input: bool) -> nn.Conv2d:
    """The convolution of an image in units of ``std`` as one of pixels less ``mean``, or of uint8 pixels / 255."""
    weight = convolution.weight / std[:, None, None]
    bias = convolution.bias if convolution.bias is not None else torch.zeros(len(weight))
    padding = convolution.padding
    if uint8_input:
        bias = bias - (weight * mean[:, None, None]).sum(dim=(1, 2, 3))
        weight, padding = weight * 255, (0, 0)  # the margin is there already
    kernel, stride = (cast("tuple[int, int]", pair) for pair in (convolution.kernel_size, convolution.stride))
    folded = nn.Conv2d(
        convolution.in_channels, convolution.out_channels, kernel, stride, cast("tuple[int, int]", padding)
    )
    folded.weight, folded.bias = nn.Parameter(weight.detach()), nn.Parameter(bias.detach())
    return folded


def _split_head(net: PIPNet) -> tuple[nn.Conv2d, nn.Conv2d]:
    """The head as a convolution for score maps, and a grouped one with the offsets of one point a group.

    Outputs of a group: x and y of the point itself, then of each neighbour.
    """
    n, c = net.num_points, net.num_neighbors
    assert net.head.bias is not None
    weight, bias = net.head.weight.detach(), net.head.bias.detach()
    channels = weight.shape[1]
    score = nn.Conv2d(channels, n, 1)
    score.weight, score.bias = nn.Parameter(weight[:n]), nn.Parameter(bias[:n])
    point = torch.arange(n)[:, None]
    neighbor = 3 * n + point * c + torch.arange(c)  # (N, C), rows of the head as PIPNet.forward splits it
    x = torch.cat([n + point, neighbor], dim=1)
    y = torch.cat([2 * n + point, neighbor + n * c], dim=1)
    order = torch.stack([x, y], dim=2).flatten()  # (N * (1 + C) * 2,)
    offset = nn.Conv2d(n * channels, len(order), 1, groups=n)
    offset.weight, offset.bias = nn.Parameter(weight[order]), nn.Parameter(bias[order])
    return score, offset
