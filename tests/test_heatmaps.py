"""Heatmaps: round trips within each decoder's known error, DARK as its authors wrote it, edges, mirrors, weak maps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from pipnet.model.heatmaps import (
    CAUCHY_WIDTH,
    DECODERS,
    decode_maps,
    draw_maps,
    map_spread,
    outside,
    to_cells,
    to_unit,
)

SIZE = 32


def points(count: int = 400, low: float = 5.0, high: float = 26.0, seed: int = 0) -> torch.Tensor:
    """Real-valued places ``(count / 8, 8, 2)`` in cells."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(low, high, (count // 8, 8, 2))).float()


def error(decoder: str, shape: str, sigma: float, noise: float = 0.0) -> tuple[float, float]:
    """Mean and largest distance of decoded places from those drawn."""
    cells = points()
    maps = draw_maps(cells, SIZE, shape=shape, sigma=sigma)
    maps = maps + noise * torch.randn(maps.shape, generator=torch.Generator().manual_seed(0))
    distance = (decode_maps(maps, decoder, sigma=sigma).cells - cells).norm(dim=-1)
    return distance.mean().item(), distance.max().item()


@pytest.mark.parametrize(
    ("decoder", "shape", "sigma", "mean", "largest"),
    [
        ("argmax", "gaussian", 1.5, 0.40, 0.71),
        ("argmax", "cauchy", 1.5, 0.40, 0.71),
        ("quarter", "gaussian", 1.5, 0.20, 0.36),
        ("quarter", "cauchy", 1.5, 0.20, 0.36),
        ("dark", "gaussian", 1.5, 0.003, 0.005),
        ("dark", "gaussian", 2.0, 0.002, 0.005),
        ("dark", "cauchy", 1.5, 0.015, 0.05),
        ("cauchy", "cauchy", 1.5, 0.001, 0.001),
        ("cauchy", "gaussian", 1.5, 0.02, 0.06),
        ("soft_argmax", "gaussian", 1.5, 0.25, 0.6),
        ("local_mean", "gaussian", 1.5, 0.02, 0.05),
    ],
)
def test_round_trip(decoder, shape, sigma, mean, largest):
    found = error(decoder, shape, sigma)
    assert found[0] <= mean
    assert found[1] <= largest


def test_blur_is_what_dark_needs_of_noisy_maps():
    assert error("dark", "gaussian", 1.5, noise=0.02)[0] < 0.04
    assert 0.04 < error("cauchy", "cauchy", 1.0, noise=0.02)[0] < 0.2


def dark_as_written(heatmap: np.ndarray, kernel: int) -> tuple[float, float]:
    """One map by the letter of the paper, section 3.1, blurred as a whole, a point at a time."""
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    border = kernel // 2
    padded = np.pad(heatmap.astype(np.float64), border)
    blurred = cv2.GaussianBlur(padded, (kernel, kernel), 0.15 * kernel + 0.35)[border:-border, border:-border]
    L = np.log(np.maximum(blurred * heatmap.max() / blurred.max(), 1e-10))
    if not (1 < x < heatmap.shape[1] - 2 and 1 < y < heatmap.shape[0] - 2):
        return float(x), float(y)
    slope = np.array([(L[y, x + 1] - L[y, x - 1]) / 2, (L[y + 1, x] - L[y - 1, x]) / 2])
    xy = (L[y + 1, x + 1] - L[y - 1, x + 1] - L[y + 1, x - 1] + L[y - 1, x - 1]) / 4
    xx = (L[y, x + 2] - 2 * L[y, x] + L[y, x - 2]) / 4
    yy = (L[y + 2, x] - 2 * L[y, x] + L[y - 2, x]) / 4
    step = -np.linalg.inv(np.array([[xx, xy], [xy, yy]])) @ slope
    return float(x + step[0]), float(y + step[1])


@pytest.mark.parametrize(("sigma", "kernel"), [(1.5, 7), (2.0, 11)])
def test_dark_is_the_papers(sigma, kernel):
    cells = points(160, 1.0, 30.0)
    maps = draw_maps(cells, SIZE, sigma=sigma)
    maps = (maps + 0.01 * torch.rand(maps.shape, generator=torch.Generator().manual_seed(0))).flatten(0, 1)
    found = decode_maps(maps[None], "dark", sigma=sigma).cells[0].numpy()
    expected = [dark_as_written(heatmap.numpy(), kernel) for heatmap in maps]
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_mirrored_map_gives_the_mirrored_point(decoder):
    """Half-pixel rule: mirroring needs no shift, in drawing and decoding."""
    unit = to_unit(points(80, -0.4, 31.4), SIZE)
    mirrored = torch.stack([1 - unit[..., 0], unit[..., 1]], dim=-1)
    maps, flipped = (draw_maps(to_cells(where, SIZE), SIZE) for where in (unit, mirrored))
    torch.testing.assert_close(maps.flip(-1), flipped, atol=1e-5, rtol=0)
    back = to_unit(decode_maps(flipped, decoder).cells, SIZE)
    straight = to_unit(decode_maps(maps, decoder).cells, SIZE)
    torch.testing.assert_close(1 - back[..., 0], straight[..., 0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("maps", [torch.zeros(1, 2, 8, 8), -torch.rand(1, 2, 8, 8), torch.full((1, 2, 8, 8), 1e30)])
def test_maps_without_a_peak_give_finite_places(decoder, maps):
    found = decode_maps(maps, decoder)
    assert torch.isfinite(found.cells).all()
    assert -5 <= found.cells.min() <= found.cells.max() <= 12
    if decoder in ("quarter", "dark", "cauchy"):  # a step is at most a cell
        rough = torch.rand(4, 16, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        assert (decode_maps(rough, decoder).cells - decode_maps(rough, "argmax").cells).abs().max() <= 1


@pytest.mark.parametrize("decoder", ["argmax", "quarter", "dark", "cauchy"])
def test_height_does_not_matter(decoder):
    """An MSE map's peak drops where the network is unsure; a fixed softmax would then give the middle of the crop."""
    maps = draw_maps(points(80), SIZE)
    strong, weak = (decode_maps(maps * height, decoder).cells for height in (1.0, 0.1))
    torch.testing.assert_close(strong, weak, atol=1e-3, rtol=0)


def test_both_shapes_are_equally_wide_at_half_their_height():
    line = torch.linspace(0, 8, 8001)
    for shape in ("gaussian", "cauchy"):
        cells = torch.stack([-line, torch.zeros_like(line)], dim=-1)[:, None]
        heights = draw_maps(cells, 1, shape=shape, sigma=1.5)[:, 0, 0, 0]
        assert line[(heights - 0.5).abs().argmin()].item() == pytest.approx(1.1774 * 1.5, abs=0.01)
    assert pytest.approx(1.1774 / 0.7664, abs=0.001) == CAUCHY_WIDTH


def test_points_outside_by_more_than_a_cell():
    inside, beyond = to_cells(torch.tensor([-0.03, 1.03]), SIZE), to_cells(torch.tensor([-0.04, 1.04]), SIZE)
    assert outside(torch.stack([inside, inside], dim=-1), SIZE).tolist() == [False, False]
    assert outside(torch.stack([beyond, inside], dim=-1), SIZE).tolist() == [True, True]


def test_spread_tells_one_peak_from_two():
    one = draw_maps(torch.tensor([[[9.2, 9.7]]]), SIZE)
    weak, noisy = 0.2 * one, one + 0.01 * torch.randn(one.shape, generator=torch.Generator().manual_seed(0))
    two = one + draw_maps(torch.tensor([[[24.0, 9.0]]]), SIZE)
    assert map_spread(one).item() == pytest.approx(1.5 / 2**0.5, rel=0.02)
    assert map_spread(weak).item() == pytest.approx(map_spread(one).item(), rel=1e-3)
    assert map_spread(noisy).item() == pytest.approx(map_spread(one).item(), rel=0.1)
    assert map_spread(two).item() > 1.3 * map_spread(one).item()
