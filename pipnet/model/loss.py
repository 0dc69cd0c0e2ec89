"""The loss: maps against targets, as named terms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipnet.model.codec import PIPOutput, PIPTargets, read_at

TotalCount = Callable[[Tensor], Tensor]


def one_process(count: Tensor) -> Tensor:
    """The count of all processes where there is one."""
    return count


class PIPLoss(nn.Module):
    """Squared error of the score maps, absolute error of the offsets at the cell that owns each point.

    Every error counts by the weight of its point, a neighbour's by the product of both points' weights. A face with
    pool factor p > 1 trains its coarse score map alone: the coarse tasks of self-training. All score maps of a batch,
    coarse and full, share one mean over their cells.

    Args:
        score_weight: Of the score term.
        offset_weight: Of the x and the y term.
        neighbor_weight: Of the neighbour x and y terms.
        total_count: Turns the weight of the entries that a term sums over in this process into the number to divide by.
            With several processes it is the mean weight a process has, so that averaging gradients over processes gives
            exactly the gradient of one process with the whole batch.

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
    ) -> None:
        super().__init__()
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
        for p in factors:
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


def _counting(valid: Tensor, weight: Tensor | None) -> Tensor:
    return valid.float() if weight is None else torch.where(valid, weight, 0.0)


def weighted_mean(error: Tensor, weight: Tensor, total_count: TotalCount) -> Tensor:
    """Mean of errors by weight; ``total_count`` as in :class:`PIPLoss`. What has no weight may be anything."""
    return _mean(_sum(error, weight), total_count(weight.sum()))


def _mean(total: Tensor, count: Tensor) -> Tensor:
    return total / count.clamp(min=1e-6)


def _sum(error: Tensor, weight: Tensor) -> Tensor:
    return torch.where(weight > 0, error * weight, 0.0).sum()  # what does not count may be anything, even NaN
