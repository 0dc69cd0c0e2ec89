"""Coordinate regression: 2N numbers from pooled features."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from pipnet.model.backbones import build_backbone
from pipnet.model.loss import TotalCount, one_process, weighted_mean
from pipnet.model.network import LandmarkNet, PointTargets, Votes, checked_mean_face

CoordinateError = Literal["wing", "l1"]


class CoordinateNet(LandmarkNet):
    """A linear layer from the mean of the features to all coordinates; it starts as the mean face.

    Without ``flips`` its scores tell no face from another: tilted faces are not searched for, and in a video a face is
    followed until it leaves the picture.

    Args:
        mean_face: ``(N, 2)``, mean shape of the training labels as fractions of the crop.
        backbone: A name that :func:`pipnet.model.backbones.build_backbone` knows.
        input_size: Side of the crop in pixels.
        confidence: Calibration of the scores.
        pretrained: Start the backbone from ImageNet weights.
        flips: ``(N,)``, which point each becomes in a mirror image: then the trained network looks at the crop and at
            its mirror image, which takes twice the time and gives every point two votes, and so a score of its own.

    Reference:
        Toshev, Szegedy, "DeepPose", CVPR 2014, section 3.1 (the first stage).
    """

    def __init__(
        self,
        mean_face: Sequence[Sequence[float]] | np.ndarray,
        backbone: str = "resnet18",
        input_size: int = 256,
        confidence: Mapping[str, Any] | None = None,
        pretrained: bool = False,
        flips: Sequence[int] | None = None,
    ) -> None:
        mean_face = checked_mean_face(mean_face)
        built = build_backbone(backbone, pretrained=pretrained, input_size=input_size)
        grid = max(input_size // built.stride, 1)
        arguments: dict[str, Any] = {"backbone": backbone}
        if flips is not None:
            arguments["flips"] = list(flips)
        super().__init__(mean_face, input_size, grid, arguments, built.pixel_mean, built.pixel_std)
        self.flips = arguments.get("flips")
        self.backbone = built.module
        self.head = nn.Linear(built.channels, 2 * self.num_points)
        # From 0: the mean of 1,280 features, times what is small for one, lies a quarter of the crop off.
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(torch.from_numpy(mean_face).flatten())
        self.calibrate(confidence)

    @property
    def ranks_faces(self) -> bool:
        """With flips only: one vote for each point is as sure as any other."""
        return self.flips is not None

    def forward(self, images: Tensor, pool_factor: Tensor | None = None) -> Tensor:
        """Points ``(V, B, N, 2)``, fractions of the crop, of :meth:`normalize`'s images ``(B, 3, S, S)``.

        There is one vote a point; with flips, and not in training, there are two.
        """
        if self.flips is None or self.training:
            return self._points(images)[None]
        straight, mirrored = self._points(torch.cat([images, images.flip(-1)])).chunk(2)
        x, y = mirrored[:, self.flips].unbind(dim=-1)
        return torch.stack([straight, torch.stack([1 - x, y], dim=-1)])

    def _points(self, images: Tensor) -> Tensor:
        features = self.backbone(images).mean(dim=(2, 3))
        return self.head(features).unflatten(1, (self.num_points, 2))

    def loss_class(self) -> Callable[..., nn.Module]:
        """See :class:`CoordinateLoss`."""
        return partial(CoordinateLoss, self.input_size)

    def count_votes(self, output: Tensor) -> Votes:
        """The mean of the votes; the spread is their distance from it. There is no map: the peak is 1.

        The spread of one vote is 0: a calibrated score then says how often this point is right on validation faces, and
        tells no face from another.
        """
        votes = output.float()
        points = votes.mean(dim=0)
        spread = (votes - points).square().sum(dim=-1).mean(dim=0).sqrt() * self.grid
        return Votes(points, spread, 0 * spread + 1)  # computed, since a graph's output can't be a constant


class CoordinateLoss(nn.Module):
    """Error of coordinates in pixels of the crop.

    Args:
        input_size: Side of the crop in pixels.
        error: ``"wing"``: ``w ln(1 + |d| / c)`` up to ``|d| = w``, linear beyond; or ``"l1"``: ``|d|``.
        width: w of Wing loss, pixels.
        curvature: c of Wing loss (the paper's epsilon), pixels.
        total_count: See :class:`pipnet.model.loss.PIPLoss`.

    Raises:
        ValueError: No such error.

    Reference:
        Feng and others, "Wing Loss for Robust Facial Landmark Localisation with Convolutional Neural Networks",
        CVPR 2018, sections 4 and 5: w 10 and c 2 for errors in pixels. Some implementations feed it fractions of the
        crop, where it is an L1 loss.
    """

    def __init__(
        self,
        input_size: int,
        error: CoordinateError = "wing",
        width: float = 10.0,
        curvature: float = 2.0,
        total_count: TotalCount = one_process,
    ) -> None:
        super().__init__()
        if error not in get_args(CoordinateError):
            raise ValueError(f"loss.error must be wing or l1, got {error!r}")
        self.input_size, self.error, self.width, self.curvature = input_size, error, width, curvature
        self.total_count = total_count

    def forward(self, output: Tensor, targets: PointTargets) -> dict[str, Tensor]:
        """One term, the mean over points and both axes."""
        distance = (output[0].float() - targets.points_unit).abs() * self.input_size
        if self.error == "wing":
            beyond = self.width * (1 - math.log1p(self.width / self.curvature))
            curved = self.width * torch.log1p(distance / self.curvature)
            distance = torch.where(distance < self.width, curved, distance - beyond)
        return {"points": weighted_mean(distance.mean(dim=-1), targets.weight, self.total_count)}
