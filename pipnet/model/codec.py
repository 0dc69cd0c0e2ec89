"""Points to maps and back: the part of PIPNet that is PIPNet.

A face is cut into a grid of ``H x W`` cells. For each of N points the network says which cell owns it (score map),
where in that cell it lies (x and y offsets), and where its C nearest neighbours lie as seen from that cell (neighbour
offsets).
At prediction every point is the mean of what it says about itself and of what others say about it: the Neighbor
Regression Module.

Shape letters used throughout ``pipnet.model``: B batch, N points, C neighbours, H W cells, K votes.

Reference:
    Jin, Liao, Shao, "Pixel-in-Pixel Net: Towards Efficient Facial Landmark Detection in the Wild", IJCV 2021,
    arXiv:2003.03771, sections 3.2 (PIP regression) and 3.3 (neighbour regression).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle, islice
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Merge = Literal["exact", "padded", "none"]
SECOND_HEAD_TASK = 0  # as a pool factor: the face trains the maps of the second head


class PIPOutput(NamedTuple):
    """Maps of a batch as the head gives them; offsets in cells, from the top-left corner of the cell they stand in.

    Two parts are there in self-training only. ``coarse``: for each pool factor p > 1 of the batch, the score maps of
    the faces with that factor, in their order, made from features max-pooled by p cells a side. ``second``: the maps of
    the second head, for all faces.
    """

    score_map: Tensor  # (B, N, H, W)
    offset_x: Tensor  # (B, N, H, W)
    offset_y: Tensor  # (B, N, H, W)
    neighbor_x: Tensor  # (B, N, C, H, W)
    neighbor_y: Tensor  # (B, N, C, H, W)
    coarse: Mapping[int, Tensor] = MappingProxyType({})  # p to (B_p, N, H / p, W / p)
    second: PIPOutput | None = None

    def float(self) -> PIPOutput:
        """All maps in float32, whatever precision the network ran in."""
        coarse = {pool_factor: maps.float() for pool_factor, maps in self.coarse.items()}
        score, x, y, neighbor_x, neighbor_y = (maps.float() for maps in self[:5])
        second = None if self.second is None else self.second.float()
        return PIPOutput(score, x, y, neighbor_x, neighbor_y, coarse, second)


class PIPTargets(NamedTuple):
    """What the maps should say at the cell that owns each point, and which of them count.

    A point that is not labelled, or lies outside the crop by more than one cell, has ``valid`` False: no map of it is
    trained. A neighbour that is not labelled has ``neighbor_valid`` False.

    ``weight`` and ``neighbor_weight`` in [0, 1] say how much the valid ones count; None is 1. ``pool_factor`` says what
    a face is trained on: 1 is everything; p > 1 is the score map alone, of features max-pooled by p cells a side; 0 is
    everything in the maps of the second head. None is 1. It decides which kernels run, so it stays in host memory,
    where reading it waits for nothing.
    """

    cell: Tensor  # (B, N) int64, row * W + column
    offset: Tensor  # (B, N, 2)
    neighbor_offset: Tensor  # (B, N, C, 2)
    valid: Tensor  # (B, N) bool
    neighbor_valid: Tensor  # (B, N, C) bool
    weight: Tensor | None = None  # (B, N) float32
    neighbor_weight: Tensor | None = None  # (B, N, C) float32
    pool_factor: Tensor | None = None  # (B,) int64, on the CPU


class Decoded(NamedTuple):
    """What each point says before merging, as fractions of the crop."""

    own: Tensor  # (B, N, 2)
    neighbors: Tensor  # (B, N, C, 2): entry [i, j] is point i's prediction of its j-th neighbour
    peak: Tensor  # (B, N): the largest value of the score map


class Merged(NamedTuple):
    """Points after merging, and how much the votes disagree."""

    points: Tensor  # (B, N, 2), fractions of the crop
    spread: Tensor  # (B, N): root mean square distance of the votes from their mean, fraction of the crop


def mean_shape(points_unit: np.ndarray) -> np.ndarray:
    """Mean face of the training labels, ``(F, N, 2)`` to ``(N, 2)``, as fractions of the crop.

    A plain mean without alignment, as in the authors' ``lib/tools.py``. Points that are not labelled (NaN) are left
    out.

    Raises:
        ValueError: If a point is labelled on no face; the message names it.
    """
    labelled = ~np.isnan(points_unit).any(axis=2)  # (F, N)
    missing = np.flatnonzero(~labelled.any(axis=0))
    if missing.size:
        raise ValueError(
            f"point {missing[0]} is labelled on none of {len(points_unit)} training faces; drop it from the layout"
        )
    return np.nanmean(points_unit, axis=0)


def nearest_neighbors(mean_face: np.ndarray, num_neighbors: int) -> np.ndarray:
    """The C points nearest to each point on the mean face, ``(N, C)`` int64, nearest first.

    Equal distances are taken in the order of the points.

    Raises:
        ValueError: If a point has fewer than C others.

    Example:
        >>> nearest_neighbors(np.array([[0.0, 0], [1, 0], [3, 0]]), 2).tolist()
        [[1, 2], [0, 2], [1, 0]]
    """
    mean_face = np.asarray(mean_face, dtype=np.float64)
    n = len(mean_face)
    if not 0 <= num_neighbors <= n - 1:
        raise ValueError(f"num_neighbors must lie in [0, {n - 1}] for {n} points, got {num_neighbors}")
    distance = np.linalg.norm(mean_face[:, None] - mean_face[None], axis=-1)  # (N, N)
    np.fill_diagonal(distance, -1.0)  # a point that coincides with another is still its own first
    return np.argsort(distance, axis=1, kind="stable")[:, 1 : num_neighbors + 1].astype(np.int64)


def voting_table(neighbors: np.ndarray, merge: Merge) -> tuple[np.ndarray, np.ndarray]:
    """Who votes for each point, turned round from ``neighbors`` into a rectangle.

    Args:
        neighbors: ``(N, C)``: row i lists the points that i predicts.
        merge: ``"exact"``: every prediction of a point counts once. ``"padded"``: the authors' way (``lib/tools.py``):
            each list of votes is repeated until it is as long as the longest, so that some votes count several times
            and the own prediction loses weight. ``"none"``: no neighbour votes.

    Returns:
        ``index`` ``(N, K)`` int64 into the flattened ``(N * C)`` predictions, and ``weight`` ``(N, K)`` float32, zero
        where a list is shorter than K. A point that nobody predicts has weights of zero and keeps its own prediction;
        the authors' padding fails on such a point.

    Example:
        >>> index, weight = voting_table(np.array([[1, 2], [0, 2], [1, 0]]), "exact")
        >>> index.tolist(), weight.sum(axis=1).tolist()
        ([[2, 5], [0, 4], [1, 3]], [2.0, 2.0, 2.0])
    """
    n = len(neighbors)
    flat = neighbors.reshape(-1)
    voters = [np.flatnonzero(flat == point).tolist() if merge != "none" else [] for point in range(n)]
    longest = max((len(v) for v in voters), default=0)
    index = np.zeros((n, longest), dtype=np.int64)
    weight = np.zeros((n, longest), dtype=np.float32)
    for point, votes in enumerate(voters):
        row = list(islice(cycle(votes), longest)) if merge == "padded" else votes
        index[point, : len(row)] = row
        weight[point, : len(row)] = 1.0
    return index, weight


def encode(
    points_unit: Tensor,
    neighbors: Tensor,
    grid: int,
    *,
    weight: Tensor | None = None,
    pool_factor: Tensor | None = None,
) -> PIPTargets:
    """Split each point into the cell that owns it, its offset in that cell, and its neighbours seen from that cell.

    Args:
        points_unit: ``(B, N, 2)``, fractions of the crop. NaN for points that are not labelled. Points outside the crop
            are legal: the border cell owns them and the offset is not clamped (clamping both would move the label).
        neighbors: ``(N, C)`` int64 from :func:`nearest_neighbors`.
        grid: Cells per side.
        weight: ``(B, N)``, how much each point counts. What a point says of a neighbour counts by the product of both.
        pool_factor: ``(B,)``; see :class:`PIPTargets`.

    Reference:
        The authors' ``lib/data_utils.py:gen_target_pip``; theirs has no mask.

    Example:
        >>> targets = encode(torch.tensor([[[0.5, 0.3125], [0.0, 1.0]]]), torch.tensor([[1], [0]]), grid=8)
        >>> targets.cell.tolist(), targets.offset.tolist()
        ([[20, 56]], [[[0.0, 0.5], [0.0, 1.0]]])
    """
    labelled = ~points_unit.isnan().any(dim=-1)  # (B, N)
    scaled = points_unit.nan_to_num(0.0) * grid  # cells
    cell_xy = scaled.floor().clamp(0, grid - 1)
    outside = ((scaled < -1) | (scaled > grid + 1)).any(dim=-1)
    column, row = cell_xy.long().unbind(-1)
    valid = labelled & ~outside
    return PIPTargets(
        cell=row * grid + column,
        offset=scaled - cell_xy,
        neighbor_offset=scaled[:, neighbors] - cell_xy[:, :, None],  # (B, N, C, 2)
        valid=valid,
        neighbor_valid=valid[:, :, None] & labelled[:, neighbors],
        weight=weight,
        neighbor_weight=None if weight is None else weight[:, :, None] * weight[:, neighbors],
        pool_factor=pool_factor,
    )


def read_at(maps: Tensor, cell: Tensor) -> Tensor:
    """Values of maps ``(B, N, [C,] H, W)`` at one flat cell of each point: ``(B, N, [C])``."""
    flat = maps.flatten(-2)  # (B, N, [C,] HW)
    index = cell.reshape(*cell.shape, *[1] * (flat.dim() - cell.dim())).expand(*flat.shape[:-1], 1)
    return flat.gather(-1, index).squeeze(-1)


def decode(output: PIPOutput) -> Decoded:
    """Read each point and its neighbours where its score map peaks."""
    height, width = output.score_map.shape[-2:]
    peak, cell = output.score_map.flatten(-2).max(dim=-1)  # (B, N)
    corner_x = (cell % width).to(output.offset_x.dtype)
    corner_y = torch.div(cell, width, rounding_mode="floor").to(output.offset_y.dtype)
    own = torch.stack(
        [(corner_x + read_at(output.offset_x, cell)) / width, (corner_y + read_at(output.offset_y, cell)) / height],
        dim=-1,
    )
    neighbor_x = (corner_x[..., None] + read_at(output.neighbor_x, cell)) / width
    neighbor_y = (corner_y[..., None] + read_at(output.neighbor_y, cell)) / height
    neighbors = torch.stack([neighbor_x, neighbor_y], dim=-1)
    return Decoded(own, neighbors, peak)


def merge(decoded: Decoded, vote_index: Tensor, vote_weight: Tensor) -> Merged:
    """Mean of a point's own prediction and of the votes for it.

    ``vote_index`` and ``vote_weight`` are of :func:`voting_table`. Points and the spread of the votes (own prediction
    included) are fractions of the crop.

    Reference:
        Paper section 3.3; the authors' ``test.py`` takes the mean over padded lists (``merge="padded"``).
    """
    if vote_index.shape[1] == 0:  # sums over nothing become whole numbers in an ONNX graph
        return Merged(decoded.own, 0 * decoded.own[..., 0])
    votes = decoded.neighbors.flatten(1, 2)[:, vote_index]  # (B, N, K, 2)
    weight = vote_weight[..., None]  # (N, K, 1)
    total = 1 + vote_weight.sum(dim=1)  # (N,)
    points = (decoded.own + (votes * weight).sum(dim=2)) / total[:, None]
    squared = ((votes - points[:, :, None]).square() * weight).sum(dim=(2, 3))
    squared = squared + (decoded.own - points).square().sum(dim=-1)
    return Merged(points, (squared / total).sqrt())
