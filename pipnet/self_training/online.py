"""A teacher that never rests: the moving average of the weights labels faces while the network learns from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipnet.layouts import PointLayout
from pipnet.model.confidence import Confidence
from pipnet.model.network import LandmarkNet
from pipnet.self_training.pseudo_labels import Selection


class OnlineTeacher:
    """Gives the unlabelled faces of a batch new labels: what a network sees on their plain crops.

    The network that learns gets the same faces augmented: an easy view teaches a hard one. What the teacher sees on
    the plain crop is moved to where it lies on the augmented one.

    Args:
        layout: Of the network.
        confidence: Calibration of its scores, :func:`pipnet.model.confidence.fit_confidence`; None ranks only.
        select: How much labels count.

    Reference:
        Xie and others, "An Empirical Study of the Collapsing Problem in Semi-Supervised 2D Human Pose Estimation",
        ICCV 2021: without an easier view for the teacher, heatmaps collapse. The average as a teacher: Tarvainen,
        Valpola, "Mean teachers are better role models", NeurIPS 2017.
    """

    def __init__(self, layout: PointLayout, confidence: Mapping[str, Any] | None, select: Selection) -> None:
        self.mirror = torch.tensor(layout.mirror)
        self.confidence, self.select = Confidence(layout.num_points, confidence), select

    @torch.no_grad()
    def __call__(self, net: LandmarkNet, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of :class:`pipnet.data.dataset.FaceCrops` with other points and weights on its unlabelled faces.

        ``net`` is put into eval mode; the batch may be anywhere, what is new lies on the device of the network.
        """
        rows = batch["taught"].nonzero()[:, 0]
        if not len(rows):
            return dict(batch)
        net.eval()
        device = net.device
        self.confidence.to(device)
        plain = batch["plain"][rows].to(device).permute(0, 3, 1, 2)
        votes = net.count_votes(net(net.normalize(plain)))
        scores, face_scores = self.confidence(votes.spread.float(), votes.peak.float())
        to_crop = batch["to_crop"][rows].to(device)
        points = votes.points_unit.float() @ to_crop[:, :, :2].mT + to_crop[:, None, :, 2]  # (R, N, 2)
        weight = scores if self.select.weighted else torch.ones_like(scores)
        weight = weight * (face_scores >= self.select.min_face)[:, None]
        swapped = batch["mirrored"][rows].to(device)
        mirror = self.mirror.to(device)
        points = torch.where(swapped[:, None, None], points[:, mirror], points)
        weight = torch.where(swapped[:, None], weight[:, mirror], weight)
        changed = {}
        for name, values in (("points", points), ("weight", weight)):
            changed[name] = batch[name].to(device, copy=True)
            changed[name][rows.to(device)] = values
        return {**batch, **changed}
