"""The network: a backbone, and a head of 1x1 convolutions that gives all maps at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipnet.model.backbones import build_backbone
from pipnet.model.codec import (
    SECOND_HEAD_TASK,
    Merge,
    PIPOutput,
    PIPTargets,
    decode,
    encode,
    merge,
    nearest_neighbors,
    voting_table,
)
from pipnet.model.loss import PIPLoss
from pipnet.model.network import LandmarkNet, Votes, checked_mean_face, take

NECK_CHANNELS = 512  # of the layers that change the stride, as in the authors' lib/networks.py
NET_STRIDES = (16, 32, 64, 128)


class PIPNet(LandmarkNet):
    """Pixel-in-Pixel Net with its Neighbor Regression Module.

    The five outputs of the paper are computed by one convolution: same weights, same parameter count, one pass over the
    features.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop
            (:func:`pipnet.model.codec.mean_shape`). It fixes N and who a point's neighbours are.
        backbone: A name of :data:`pipnet.model.backbones.BACKBONES`.
        num_neighbors: C, the neighbours that each point predicts; 0 switches the Neighbor Regression Module off.
        net_stride: 16, 32, 64 or 128 pixels a cell. 32 is the backbone's own; 16 adds a transposed convolution, 64 and
            128 one and two strided ones.
        input_size: Side of the crop in pixels, a multiple of ``net_stride`` and of the backbone's 32.
        merge: ``"exact"``, the authors' ``"padded"``, or ``"none"``; see :func:`pipnet.model.codec.voting_table`.
        confidence: Calibration of the scores (:func:`pipnet.model.confidence.fit_confidence`); None ranks only.
        pretrained: Start the backbone from ImageNet weights. Not part of :attr:`arguments`: a checkpoint brings its
            own.

    Raises:
        ValueError: An argument does not fit another; the message names both.

    Reference:
        Paper section 3; the authors' ``lib/networks.py``. There the layers for strides 64 and 128 fit ResNet-18 only.

    Example:
        >>> net = PIPNet(np.random.default_rng(0).random((5, 2)), "mobilenet_v3_small", num_neighbors=2, input_size=64)
        >>> output = net(torch.zeros(3, 3, 64, 64))
        >>> output.score_map.shape, output.neighbor_x.shape
        (torch.Size([3, 5, 2, 2]), torch.Size([3, 5, 2, 2, 2]))
    """

    neighbors: Tensor
    vote_index: Tensor
    vote_weight: Tensor

    def __init__(
        self,
        mean_face: Sequence[Sequence[float]] | np.ndarray,
        backbone: str = "resnet18",
        num_neighbors: int = 10,
        net_stride: int = 32,
        input_size: int = 256,
        merge: Merge = "exact",
        confidence: Mapping[str, Any] | None = None,
        pretrained: bool = False,
    ) -> None:
        mean_face = checked_mean_face(mean_face)
        if net_stride not in NET_STRIDES:
            raise ValueError(f"net_stride must be one of {NET_STRIDES}, got {net_stride}")
        if input_size <= 0 or input_size % max(net_stride, 32):
            raise ValueError(
                f"input_size {input_size} must be a multiple of {max(net_stride, 32)} at net_stride {net_stride}"
            )
        if merge not in ("exact", "padded", "none"):
            raise ValueError(f"merge must be 'exact', 'padded' or 'none', got {merge!r}")
        neighbors = nearest_neighbors(mean_face, num_neighbors)
        built = build_backbone(backbone, pretrained=pretrained, input_size=input_size)
        arguments = {"backbone": backbone, "num_neighbors": num_neighbors, "net_stride": net_stride}
        super().__init__(mean_face, input_size, input_size // net_stride, arguments, built.pixel_mean, built.pixel_std)
        self.arguments["merge"] = merge
        self.num_neighbors = num_neighbors
        self.net_stride = net_stride
        self.backbone = built.module
        self.neck, channels = _neck(built.channels, built.stride, net_stride)
        self.head = _head(channels, self.num_points * (3 + 2 * num_neighbors))
        self.second_head: nn.Conv2d | None = None
        self.calibrate(confidence)

        # Everything below follows from the arguments, so it is not stored with the weights.
        vote_index, vote_weight = voting_table(neighbors, merge)
        for name, values in {
            "neighbors": torch.from_numpy(neighbors),
            "vote_index": torch.from_numpy(vote_index),
            "vote_weight": torch.from_numpy(vote_weight),
        }.items():
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor, pool_factor: Tensor | None = None) -> PIPOutput:
        """Maps of a batch.

        Args:
            images: ``(B, 3, S, S)`` float, from :meth:`normalize`.
            pool_factor: ``(B,)`` int64 on the CPU, in self-training: faces with p > 1 get a coarse score map as well,
                by the same score layer on features max-pooled by p cells a side. If there is a second head, all faces
                get its maps.

        Raises:
            ValueError: A pool factor does not divide the grid.

        Reference:
            Coarse maps: paper section 3.4; the authors' ``lib/networks_gssl.py``, which pools by 2 and by 2 again.
        """
        features = self.neck(self.backbone(images))
        output = self._maps(self.head(features))
        if pool_factor is None:
            return output
        second = None if self.second_head is None else self._maps(self.second_head(features))
        return output._replace(coarse=self._coarse_scores(features, pool_factor), second=second)

    def add_second_head(self) -> None:
        """Give faces with pool factor 0 a head of their own, with random weights.

        Training alone has it: no checkpoint of the network keeps it.
        """
        self.second_head = _head(self.head.in_channels, self.head.out_channels).to(self.device)

    def _maps(self, channels: Tensor) -> PIPOutput:
        n, c = self.num_points, self.num_neighbors
        score, x, y, neighbor_x, neighbor_y = channels.split([n, n, n, n * c, n * c], dim=1)
        grouped = (n, c)  # landmark-major, as the authors order their channels
        return PIPOutput(score, x, y, neighbor_x.unflatten(1, grouped), neighbor_y.unflatten(1, grouped))

    def _coarse_scores(self, features: Tensor, pool_factor: Tensor) -> dict[int, Tensor]:
        scores = {}
        assert self.head.bias is not None
        for p in sorted(set(pool_factor.tolist()) - {1, SECOND_HEAD_TASK}):
            if self.grid % p:
                raise ValueError(
                    f"pool factor {p} does not divide the {self.grid} x {self.grid} cells of the score map"
                )
            rows = (pool_factor == p).nonzero()[:, 0].to(features.device)
            score_layer = (self.head.weight[: self.num_points], self.head.bias[: self.num_points])
            scores[p] = functional.conv2d(functional.max_pool2d(features[rows], p), *score_layer)
        return scores

    def targets(
        self, points_unit: Tensor, *, weight: Tensor | None = None, pool_factor: Tensor | None = None
    ) -> PIPTargets:
        """Cells and offsets, :func:`pipnet.model.codec.encode`."""
        return encode(points_unit, self.neighbors, self.grid, weight=weight, pool_factor=pool_factor)

    def take_layers(self, other: LandmarkNet, points: Mapping[int, int] | None) -> tuple[str, list[str]]:
        """The neck whole, and where it fits of the head what is about points that both have.

        That is score and offsets of each, and those of its neighbours that the other predicts from it too, in whatever
        order. A point that lies between several of the other's starts anew: a score map is trained to be 1 in one cell,
        so the mean of two has two peaks, of which one is read, and offsets count from their own point's cell.
        """
        if not isinstance(other, PIPNet):
            return super().take_layers(other, points)
        same_neck = self.neck.state_dict().keys() == other.neck.state_dict().keys()
        neck = points is not None and same_neck and take(self.neck, other.neck)
        known = points if points is not None and neck else {}
        rows = self._rows_in(other, known)
        here, there = (torch.tensor(list(channels), dtype=torch.long) for channels in (rows.keys(), rows.values()))
        own, theirs = self.head.state_dict(), other.head.state_dict()  # which share their memory with the weights
        for name in own if rows else ():
            own[name][here] = theirs[name][there]
        n, slots = self.num_points, self.num_points * self.num_neighbors
        points_left, slots_left = n - len(known), slots - (len(rows) - 3 * len(known)) // 2
        new = ["neck"] * (not neck and bool(self.neck.state_dict()))
        new += [f"{points_left} points"] * bool(points_left) + [f"{slots_left} of {slots} neighbours"] * bool(
            slots_left
        )
        return f"{' and neck' if neck else ''} taken, of the head {len(known)} of {n} points", new

    def _rows_in(self, other: PIPNet, points: Mapping[int, int]) -> dict[int, int]:
        """Channels of the head that mean the same in another network's: own number to the other's."""
        n, c, m, d = self.num_points, self.num_neighbors, other.num_points, other.num_neighbors
        own, theirs = self.neighbors.tolist(), other.neighbors.tolist()
        rows = {part * n + i: part * m + k for part in range(3) for i, k in points.items()}  # score, x, y
        for i, k in points.items():
            for slot, neighbor in enumerate(own[i]):
                if points.get(neighbor) in theirs[k]:
                    there = theirs[k].index(points[neighbor])
                    rows |= {(3 + part * c) * n + i * c + slot: (3 + part * d) * m + k * d + there for part in (0, 1)}
        return rows

    def loss_class(self) -> Callable[..., nn.Module]:
        """Loss of the paper, :class:`pipnet.model.loss.PIPLoss`."""
        return PIPLoss

    def count_votes(self, output: PIPOutput) -> Votes:
        """Maps to merged points, and how far their votes agree."""
        decoded = decode(output.float())
        merged = merge(decoded, self.vote_index, self.vote_weight)
        return Votes(merged.points, merged.spread * self.grid, decoded.peak)


def _head(channels: int, outputs: int) -> nn.Conv2d:
    head = nn.Conv2d(channels, outputs, kernel_size=1)
    nn.init.normal_(head.weight, std=0.001)
    assert head.bias is not None
    nn.init.zeros_(head.bias)
    return head


def _neck(channels: int, stride: int, net_stride: int) -> tuple[nn.Module, int]:
    """Layers between backbone and head that bring the backbone's stride to ``net_stride``, and their channels."""
    if net_stride == stride:
        return nn.Identity(), channels
    layers: list[nn.Module] = []
    if net_stride < stride:
        convolution: nn.Module = nn.ConvTranspose2d(channels, NECK_CHANNELS, 4, stride=2, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(NECK_CHANNELS), nn.ReLU(inplace=True)]
    while stride < net_stride:
        convolution = nn.Conv2d(channels, NECK_CHANNELS, 3, stride=2, padding=1)
        layers += [convolution, nn.BatchNorm2d(NECK_CHANNELS), nn.ReLU(inplace=True)]
        channels, stride = NECK_CHANNELS, stride * 2
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.001)
    return nn.Sequential(*layers), NECK_CHANNELS
