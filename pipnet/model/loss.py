"""The loss: maps against targets, as named terms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipnet.model.codec import PIPOutput, PIPTargets, read_at


def _local(count: Tensor) -> Tensor:
    return count


class PIPLoss(nn.Module):
    """Squared error of the score maps, absolute error of the offsets at the cell that owns each point.

    Args:
        score_weight: Of the score term.
        offset_weight: Of the x and the y term.
        neighbor_weight: Of the neighbour x and y terms.
        total_count: Turns the number of entries that a term sums over in this process into the number to divide by.
            With several processes it is the mean count a process has, so that averaging gradients over processes gives
            exactly the gradient of one process with the whole batch.

    Reference:
        Paper section 3.2, equation 3; the authors' ``lib/functions.py:compute_loss_pip`` (10, 1 and 1, mean squared
        error over all cells, L1 at one cell). Theirs also trains the maps of points far outside the crop.

    Example:
        >>> zeros = torch.zeros(1, 1, 2, 2)
        >>> nothing = torch.zeros(1, 1, 0, 2, 2)
        >>> targets = PIPTargets(torch.tensor([[3]]), torch.tensor([[[0.5, 0.25]]]), torch.zeros(1, 1, 0, 2),
        ...                      torch.tensor([[True]]), torch.zeros(1, 1, 0, dtype=torch.bool))
        >>> terms = PIPLoss()(PIPOutput(zeros, zeros, zeros, nothing, nothing), targets)
        >>> {name: term.item() for name, term in terms.items()}  # one of four cells is wrong by 1: 10 * 1 / 4
        {'score': 2.5, 'offset_x': 0.5, 'offset_y': 0.25, 'neighbor_x': 0.0, 'neighbor_y': 0.0}
    """

    def __init__(
        self,
        score_weight: float = 10.0,
        offset_weight: float = 1.0,
        neighbor_weight: float = 1.0,
        total_count: Callable[[Tensor], Tensor] = _local,
    ) -> None:
        super().__init__()
        self.score_weight = score_weight
        self.offset_weight = offset_weight
        self.neighbor_weight = neighbor_weight
        self.total_count = total_count

    def forward(self, output: PIPOutput, targets: PIPTargets) -> dict[str, Tensor]:
        """Weighted terms; their sum is what is minimised."""
        output = PIPOutput(*(maps.float() for maps in output))
        terms = {"score": self.score_weight * self._score(output.score_map, targets)}
        points = targets.valid.sum()
        for axis, name, maps in ((0, "x", output.offset_x), (1, "y", output.offset_y)):
            error = (read_at(maps, targets.cell) - targets.offset[..., axis]).abs()
            terms[f"offset_{name}"] = self.offset_weight * self._mean(error, targets.valid, points)
        neighbors = targets.neighbor_valid.sum()
        for axis, name, maps in ((0, "x", output.neighbor_x), (1, "y", output.neighbor_y)):
            error = (read_at(maps, targets.cell) - targets.neighbor_offset[..., axis]).abs()
            terms[f"neighbor_{name}"] = self.neighbor_weight * self._mean(error, targets.neighbor_valid, neighbors)
        return terms

    def _score(self, score_map: Tensor, targets: PIPTargets) -> Tensor:
        flat = score_map.flatten(-2)  # (B, N, HW)
        wanted = functional.one_hot(targets.cell, flat.shape[-1]).to(flat.dtype)
        error = (flat - wanted).square().mean(dim=-1)  # (B, N)
        return self._mean(error, targets.valid, targets.valid.sum())

    def _mean(self, error: Tensor, valid: Tensor, count: Tensor) -> Tensor:
        total = torch.where(valid, error, 0.0).sum()
        return total / self.total_count(count).clamp(min=1e-6)
