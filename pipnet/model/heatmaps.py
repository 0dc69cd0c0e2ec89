"""Heatmaps: points to maps of one peak each, and maps to points.

Cells are heatmap pixels, counted from 0 and named by their centres. A point at the fraction ``f`` of the crop lies at
``f * W - 0.5`` cells, so that mirroring a crop mirrors its maps: ``u -> W - 1 - u``, no shift. Everything here is
vectorised over faces and points, and exports to ONNX.

Reference:
    Zhang and others, "Distribution-Aware Coordinate Representation for Human Pose Estimation" (DARK), CVPR 2020,
    sections 3.1 (decoding) and 3.2 (targets at real-valued centres); Newell, Yang, Deng, ECCV 2016, section 3.1 (the
    quarter of a cell).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

Shape = Literal["gaussian", "cauchy"]
Decoder = Literal["argmax", "quarter", "dark", "cauchy", "soft_argmax", "local_mean"]
SHAPES, DECODERS = get_args(Shape), get_args(Decoder)

CAUCHY_WIDTH = 1.537  # gamma over sigma of the Gaussian that is as wide at half of its height
_BETA = 25.0  # of soft-argmax, on maps divided by their peak
_LEAST = 1e-10  # what logarithms and powers of maps start from, as in DARK


class DecodedMaps(NamedTuple):
    """Where maps peak."""

    cells: Tensor  # (B, N, 2), x and y in cells
    peak: Tensor  # (B, N), the largest value of the map


def to_cells(points_unit: Tensor, size: int) -> Tensor:
    """Fractions of the crop to cells of a map of ``size`` cells a side."""
    return points_unit * size - 0.5


def to_unit(cells: Tensor, size: int) -> Tensor:
    """Cells to fractions of the crop: the inverse of :func:`to_cells`."""
    return (cells + 0.5) / size


def outside(cells: Tensor, size: int) -> Tensor:
    """Whether points ``(..., 2)`` lie outside a map by more than one cell: ``(...)`` bool."""
    return ((cells < -1.5) | (cells > size + 0.5)).any(dim=-1)


def draw_maps(cells: Tensor, size: int, *, shape: Shape = "gaussian", sigma: float = 1.5) -> Tensor:
    """Maps with a peak of 1 at each point, drawn at its real-valued place and over the whole map.

    Args:
        cells: ``(B, N, 2)``, x and y; NaN gives NaN.
        size: W, cells a side.
        shape: ``"gaussian"``: ``exp(-r^2 / 2 sigma^2)``; ``"cauchy"``: ``(1 + r^2 / gamma^2)^(-3/2)``, the bivariate
            Cauchy density up to its height, with the gamma that makes both equally wide at half of their height
            (1.177 sigma).
        sigma: Cells.

    Returns:
        ``(B, N, W, W)``.
    """
    squared = (torch.arange(size, device=cells.device, dtype=cells.dtype) - cells[..., None]).square()  # (B, N, 2, W)
    x, y = squared.unbind(dim=2)
    distance = x[:, :, None, :] + y[:, :, :, None]
    if shape == "gaussian":
        return torch.exp(-distance / (2 * sigma**2))
    return (1 + distance / (CAUCHY_WIDTH * sigma) ** 2) ** -1.5


def decode_maps(maps: Tensor, decoder: Decoder = "dark", *, sigma: float = 1.5) -> DecodedMaps:
    """Where maps peak, more finely than in whole cells.

    Args:
        maps: ``(B, N, W, W)`` float32.
        decoder: With p the largest cell,

            * ``"argmax"``: p.
            * ``"quarter"``: p and a quarter of a cell towards the higher neighbour on each axis; none at an edge.
            * ``"dark"``: the maximum of a Taylor series of the logarithm of the blurred map, exact for a Gaussian.
            * ``"cauchy"``: the same of the map to the power of -2/3, not blurred, exact for a Cauchy.
            * ``"soft_argmax"``: the mean cell under a softmax of the map over its peak. Its sharpness is fixed, so it
              fits maps of one peak without a background.
            * ``"local_mean"``: the mean cell, by the map's positive values, within three sigma of p.
        sigma: Of the target in cells; it sets the width of DARK's blur.

    The steps of ``dark`` and ``cauchy`` are at most one cell an axis, are taken only where the curvature is that of a
    maximum, and not in the outermost two cells (one for ``cauchy``), which lack neighbours.

    Example:
        >>> maps = draw_maps(torch.tensor([[[5.3, 6.1]]]), 12)
        >>> for decoder in ("argmax", "quarter", "dark"):
        ...     [round(value, 2) for value in decode_maps(maps, decoder).cells[0, 0].tolist()]
        [5.0, 6.0]
        [5.25, 6.25]
        [5.3, 6.1]
    """
    width = maps.shape[-1]
    flat = maps.flatten(-2)
    peak, cell = flat.max(dim=-1)
    x, y = cell % width, torch.div(cell, width, rounding_mode="floor")
    place = torch.stack([x, y], dim=-1)  # (B, N, 2)
    whole = place.to(maps.dtype)
    if decoder == "argmax":
        return DecodedMaps(whole, peak)
    if decoder == "soft_argmax":
        share = torch.softmax(_BETA * flat / peak[..., None].clamp_min(1e-6), dim=-1).unflatten(-1, (width, width))
        cells = torch.arange(width, device=maps.device, dtype=maps.dtype)
        return DecodedMaps(torch.stack([(share.sum(2) * cells).sum(-1), (share.sum(3) * cells).sum(-1)], dim=-1), peak)
    if decoder == "local_mean":
        reach = math.ceil(3 * sigma)
        around = _around(flat, place, width, reach).clamp_min(0)
        step = torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype)
        mean = torch.stack([(around.sum(2) * step).sum(-1), (around.sum(3) * step).sum(-1)], dim=-1)
        return DecodedMaps(whole + mean / around.sum((2, 3)).clamp_min(_LEAST)[..., None], peak)
    margin = {"quarter": 1, "cauchy": 1, "dark": 2}[decoder]
    inside = (place >= margin) & (place <= width - 1 - margin)  # (B, N, 2)
    if decoder == "quarter":
        around = _around(flat, place, width, 1)
        slope = torch.stack([around[..., 1, 2] - around[..., 1, 0], around[..., 2, 1] - around[..., 0, 1]], dim=-1)
        return DecodedMaps(whole + torch.where(inside, 0.25 * torch.sign(slope), 0.0), peak)
    if decoder == "cauchy":
        surface = -(_around(flat, place, width, 1).clamp_min(_LEAST) ** (-2 / 3))
        step = _newton(surface, 1, 1, maps.dtype)
    else:
        kernel = torch.from_numpy(_blur(sigma)).to(maps)  # (5, 5 + k - 1)
        # A map's height, to which DARK scales the blurred map, adds a constant to the logarithm and moves no maximum.
        blurred = kernel @ _around(flat, place, width, 1 + kernel.shape[1] // 2 - 1) @ kernel.T
        step = _newton(blurred.clamp_min(_LEAST).log(), 1, 2, maps.dtype)
    return DecodedMaps(whole + torch.where(inside.all(dim=-1, keepdim=True), step, 0.0), peak)


def map_spread(maps: Tensor) -> Tensor:
    """How widely maps ``(B, N, W, W)`` are spread, ``(B, N)``, in cells.

    That is the deviation of the Gaussian that has the entropy of a map's square.
    Squared, because the background of a map that was trained by squared error is small but everywhere. A single clean
    peak of ``sigma`` has a spread of ``sigma / sqrt(2)``; two far apart have a wider one, whichever is the higher.
    """
    share = maps.flatten(-2).clamp_min(0).square()
    share = share / share.sum(dim=-1, keepdim=True).clamp_min(_LEAST)
    entropy = -(share * share.clamp_min(_LEAST).log()).sum(dim=-1)
    return torch.exp(entropy / 2) / math.sqrt(2 * math.pi * math.e)


def _around(flat: Tensor, place: Tensor, width: int, reach: int) -> Tensor:
    """Values around a cell of each map, 0 outside of it: ``(B, N, 2 * reach + 1, 2 * reach + 1)``."""
    steps = torch.arange(-reach, reach + 1, device=flat.device)
    columns, rows = (place[..., axis, None] + steps for axis in (0, 1))  # (B, N, K)
    index = rows.clamp(0, width - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    shown = ((columns >= 0) & (columns < width))[..., None, :] & ((rows >= 0) & (rows < width))[..., :, None]
    values = flat.gather(-1, index.flatten(-2)).unflatten(-1, (len(steps), len(steps)))
    return values * shown


def _blur(sigma: float) -> np.ndarray:
    """Matrix that blurs a line of cells and keeps the five in the middle: ``(5, 5 + k - 1)``.

    The kernel has the k that DARK's authors use for a target of this sigma (7 for 1.5, 11 for 2, 17 for 3) and the
    deviation that OpenCV gives a kernel of k.
    """
    k = max(3, 2 * round(3 * sigma) - 1)
    deviation = 0.3 * ((k - 1) / 2 - 1) + 0.8
    line = np.exp(-((np.arange(k) - k // 2) ** 2) / (2 * deviation**2))
    matrix = np.zeros((5, 4 + k))
    for row in range(5):
        matrix[row, row : row + k] = line / line.sum()
    return matrix


def _newton(surface: Tensor, first: int, step: int, dtype: torch.dtype) -> Tensor:
    """Step from the middle of ``(B, N, K, K)`` to the maximum of the parabola there: ``(B, N, 2)``, at most one cell.

    Slopes and the mixed curvature are of differences of ``first`` cells, curvatures of ``step`` cells.
    """
    c = surface.shape[-1] // 2
    middle = surface[..., c, c]
    left, right, up, down = (
        surface[..., c + row * step, c + column * step] for row, column in ((0, -1), (0, 1), (-1, 0), (1, 0))
    )
    slope_x = (surface[..., c, c + first] - surface[..., c, c - first]) / (2 * first)
    slope_y = (surface[..., c + first, c] - surface[..., c - first, c]) / (2 * first)
    xx, yy = (left - 2 * middle + right) / step**2, (up - 2 * middle + down) / step**2
    diagonal = surface[..., c + first, c + first] + surface[..., c - first, c - first]
    xy = (diagonal - surface[..., c - first, c + first] - surface[..., c + first, c - first]) / (4 * first**2)
    determinant = xx * yy - xy.square()
    maximum = (determinant > 0) & (xx < 0)
    safe = torch.where(maximum, determinant, torch.ones((), dtype=dtype, device=surface.device))
    moved = torch.stack([xy * slope_y - yy * slope_x, xy * slope_x - xx * slope_y], dim=-1) / safe[..., None]
    return torch.where(maximum[..., None], moved.clamp(-1, 1), 0.0)
