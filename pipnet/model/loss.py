"""The loss: maps against targets, as named terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipnet.model.codec import SECOND_HEAD_TASK, PIPOutput, PIPTargets, read_at

TotalCount = Callable[[Tensor], Tensor]


def one_process(count: Tensor) -> Tensor:
    """The count of all processes where there is one."""
    return count


@dataclass(frozen=True)
class Shrink:
    """How softly the second head is told what unlabelled faces look like: shrink regression.

    Attributes:
        blur: Fraction of the crop: deviation of the Gaussian that a score map should be, over the cells, with a sum
            of 1; towards 0 it is the one cell of a labelled face.
        power: p of ``|e|^p / p``, the loss of an offset that is off by e, a fraction of the crop: small errors, of
            which pseudo-labels are full, hardly count where p is large; 1 is the loss of labelled faces.
        weight: Of all its terms.

    Raises:
        ValueError: A value is not a positive number, or the power is below 1.

    Reference:
        Jin, Li, Jin and others, "STLD", arXiv 2404.04556, and its code: there the second head has heatmaps (Gaussians
        of 2.2, 1.8 and 1.5 cells of 4 pixels at 256) or coordinates (p 2.4, 1.6 and 1); PIPNet's maps are both.
    """

    blur: float
    power: float
    weight: float

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ValueError(f"{name} must be a number above 0, got {value!r}")
        if self.power < 1:
            raise ValueError(f"power must be at least 1, got {self.power}")


class PIPLoss(nn.Module):
    """Squared error of the score maps, absolute error of the offsets at the cell that owns each point.

    Every error counts by the weight of its point, a neighbour's by the product of both points' weights. A face with
    pool factor p > 1 trains its coarse score map alone: the coarse tasks of self-training. All score maps of a batch,
    coarse and full, share one mean over their cells. One with pool factor 0 trains the second head alone, whose terms
    are means of their own.

    Args:
        score_weight: Of the score term.
        offset_weight: Of the x and the y term.
        neighbor_weight: Of the neighbour x and y terms.
        total_count: Turns the weight of the entries that a term sums over in this process into the number to divide by.
            With several processes it is the mean weight a process has, so that averaging gradients over processes gives
            exactly the gradient of one process with the whole batch.
        shrink: How the second head learns, where there is one.

    Reference:
        Paper section 3.2, equation 3; the authors' ``lib/functions.py:compute_loss_pip`` (10, 1 and 1, mean squared
        error over all cells, L1 at one cell). Theirs also trains the maps of points far outside the crop. Coarse tasks:
        paper section 3.4; ``lib/functions_gssl.py:compute_loss_pip``.
    """

    def __init__(
        self,
        score_weight: float = 10.0,
        offset_weight: float = 1.0,
        neighbor_weight: float = 1.0,
        total_count: TotalCount = one_process,
        shrink: Shrink | None = None,
    ) -> None:
        super().__init__()
        self.shrink = shrink
        self.score_weight = score_weight
        self.offset_weight = offset_weight
        self.neighbor_weight = neighbor_weight
        self.total_count = total_count

    def forward(self, output: PIPOutput, targets: PIPTargets) -> dict[str, Tensor]:
        """Weighted terms; their sum is what is minimised."""
        output = output.float()
        weight = _counting(targets.valid, targets.weight)  # (B, N)
        neighbor_weight = _counting(targets.neighbor_valid, targets.neighbor_weight)  # (B, N, C)
        factors = [1] if targets.pool_factor is None else sorted(set(targets.pool_factor.tolist()))
        terms = {"score": self.score_weight * self._score(output, targets, weight, factors)}
        if output.second is not None and self.shrink is not None:
            terms |= self._second(output.second, targets, weight, neighbor_weight, self.shrink)
        if factors != [1]:
            full = (targets.pool_factor == 1).to(weight.device)
            weight, neighbor_weight = weight * full[:, None], neighbor_weight * full[:, None, None]
        points = self.total_count(weight.sum())
        for axis, name, maps in ((0, "x", output.offset_x), (1, "y", output.offset_y)):
            error = (read_at(maps, targets.cell) - targets.offset[..., axis]).abs()
            terms[f"offset_{name}"] = self.offset_weight * _mean(_sum(error, weight), points)
        neighbors = self.total_count(neighbor_weight.sum())
        for axis, name, maps in ((0, "x", output.neighbor_x), (1, "y", output.neighbor_y)):
            error = (read_at(maps, targets.cell) - targets.neighbor_offset[..., axis]).abs()
            terms[f"neighbor_{name}"] = self.neighbor_weight * _mean(_sum(error, neighbor_weight), neighbors)
        return terms

    def _score(self, output: PIPOutput, targets: PIPTargets, weight: Tensor, factors: list[int]) -> Tensor:
        """One mean over the cells of all maps, in maps of the full size: a map of a quarter of the cells counts 1/4."""
        width = output.score_map.shape[-1]
        total, count = output.score_map.new_zeros(()), weight.new_zeros(())
        for p in (p for p in factors if p != SECOND_HEAD_TASK):
            maps, cell, weights = output.score_map, targets.cell, weight
            if factors != [1]:
                rows = (targets.pool_factor == p).nonzero()[:, 0].to(maps.device)
                maps = maps[rows] if p == 1 else output.coarse[p]
                cell, weights = cell[rows], weights[rows]
            if p > 1:
                cell = cell // width // p * (width // p) + cell % width // p
            flat = maps.flatten(-2)  # (B, N, HW)
            wanted = functional.one_hot(cell, flat.shape[-1]).to(flat.dtype)
            error = (flat - wanted).square().mean(dim=-1)  # (B, N)
            total = total + _sum(error, weights) / p**2
            count = count + weights.sum() / p**2
        return _mean(total, self.total_count(count))

    def _second(
        self, output: PIPOutput, targets: PIPTargets, weight: Tensor, neighbor_weight: Tensor, shrink: Shrink
    ) -> dict[str, Tensor]:
        """Terms of the second head, on the faces with pool factor 0."""
        width = output.score_map.shape[-1]
        pool_factor = torch.ones(len(weight)) if targets.pool_factor is None else targets.pool_factor
        mine = (pool_factor == SECOND_HEAD_TASK).to(weight.device)
        weight, neighbor_weight = weight * mine[:, None], neighbor_weight * mine[:, None, None]
        wanted = _blurred(targets, width, shrink.blur)  # (B, N, HW)
        error = (output.score_map.flatten(-2) - wanted).square().mean(dim=-1)
        points, neighbors = self.total_count(weight.sum()), self.total_count(neighbor_weight.sum())
        terms = {"second_score": self.score_weight * shrink.weight * _mean(_sum(error, weight), points)}
        own, near = targets.offset, targets.neighbor_offset
        for axis, name, maps in ((0, "x", output.offset_x), (1, "y", output.offset_y)):
            error = _powered(read_at(maps, targets.cell) - own[..., axis], width, shrink.power)
            terms[f"second_offset_{name}"] = self.offset_weight * shrink.weight * _mean(_sum(error, weight), points)
        for axis, name, maps in ((0, "x", output.neighbor_x), (1, "y", output.neighbor_y)):
            error = _powered(read_at(maps, targets.cell) - near[..., axis], width, shrink.power)
            total = _mean(_sum(error, neighbor_weight), neighbors)
            terms[f"second_neighbor_{name}"] = self.neighbor_weight * shrink.weight * total
        return terms


def _blurred(targets: PIPTargets, width: int, blur: float) -> Tensor:
    """Gaussians round the points as shares of the cells, ``(B, N, HW)``."""
    corner = torch.stack([targets.cell % width, targets.cell // width], dim=-1)
    centres = torch.arange(width, device=corner.device) + 0.5
    apart = (corner + targets.offset)[..., None] - centres  # (B, N, 2, W), cells
    squares = apart[..., 1, :, None].square() + apart[..., 0, None, :].square()  # (B, N, H, W)
    return (-squares.flatten(-2) / (2 * (blur * width) ** 2)).softmax(dim=-1)


def _powered(error: Tensor, width: int, power: float) -> Tensor:
    """``|e|^p / p`` with e a fraction of the crop; in cells again, so that power 1 is the error itself."""
    return (error.abs() / width).pow(power) * (width / power)


def _counting(valid: Tensor, weight: Tensor | None) -> Tensor:
    return valid.float() if weight is None else torch.where(valid, weight, 0.0)


def weighted_mean(error: Tensor, weight: Tensor, total_count: TotalCount) -> Tensor:
    """Mean of errors by weight; ``total_count`` as in :class:`PIPLoss`. What has no weight may be anything."""
    return _mean(_sum(error, weight), total_count(weight.sum()))


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp(min=1e-6)


def _sum(error: Tensor, weight: Tensor) -> Tensor:
    return torch.where(weight > 0, error * weight, 0.0).sum()  # what does not count may be anything, even NaN
