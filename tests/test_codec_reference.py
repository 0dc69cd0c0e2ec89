"""The codec against a second, deliberately slow implementation of it.

The reference below is plain Python loops written from the description of the method alone (targets, neighbours, reverse
index, decoding and both ways of merging), before the codec was read. It knows no tensors and shares no code.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipnet.model.codec import PIPOutput, decode, encode, merge, nearest_neighbors, read_at, voting_table

Points = list[tuple[float, float]]


def reference_neighbors(mean_face: Points, count: int) -> list[list[int]]:
    """For each landmark the ``count`` nearest others on the mean face, nearest first."""
    table = []
    for i, (x, y) in enumerate(mean_face):
        others = [(math.hypot(x - u, y - v), j) for j, (u, v) in enumerate(mean_face) if j != i]
        table.append([j for _, j in sorted(others)[:count]])
    return table


def reference_reverse(table: list[list[int]]) -> list[list[tuple[int, int]]]:
    """For each landmark every (predictor, slot) that predicts it, in the order the authors' loop meets them."""
    reverse: list[list[tuple[int, int]]] = [[] for _ in table]
    for predictor, slots in enumerate(table):
        for slot, landmark in enumerate(slots):
            reverse[landmark].append((predictor, slot))
    return reverse


def reference_padded(reverse: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """The authors' rectangle: every list repeats itself until it is as long as the longest."""
    longest = max(len(voters) for voters in reverse)
    padded = []
    for voters in reverse:
        rows = list(voters)
        while voters and len(rows) < longest:
            rows.extend(voters)
        padded.append(rows[:longest])
    return padded


def reference_encode(points: Points, table: list[list[int]], grid: int) -> dict[str, list]:
    """Cell, offset in it, and neighbours' offsets from that same cell's top left corner, all in cells."""
    cells, offsets, neighbors = [], [], []
    for i, (x, y) in enumerate(points):
        column = min(max(math.floor(x * grid), 0), grid - 1)
        row = min(max(math.floor(y * grid), 0), grid - 1)
        cells.append((column, row))
        offsets.append((x * grid - column, y * grid - row))
        neighbors.append([(points[j][0] * grid - column, points[j][1] * grid - row) for j in table[i]])
    return {"cells": cells, "offsets": offsets, "neighbors": neighbors}


def reference_decode(maps: dict[str, list], grid: int, slots: int) -> tuple[Points, list[Points], list[float]]:
    """One face's maps as nested lists to own predictions, neighbour predictions and the best scores.

    ``score``, ``x`` and ``y`` are ``[landmark][row][column]``; ``neighbor_x`` and ``neighbor_y`` have landmark-major
    channels: ``[slots * landmark + slot][row][column]``.
    """
    own, neighbors, scores = [], [], []
    for i, score in enumerate(maps["score"]):
        best, row, column = -math.inf, 0, 0
        for r in range(grid):
            for c in range(grid):
                if score[r][c] > best:  # the first of equals wins
                    best, row, column = score[r][c], r, c
        own.append(((column + maps["x"][i][row][column]) / grid, (row + maps["y"][i][row][column]) / grid))
        neighbors.append(
            [
                (
                    (column + maps["neighbor_x"][slots * i + j][row][column]) / grid,
                    (row + maps["neighbor_y"][slots * i + j][row][column]) / grid,
                )
                for j in range(slots)
            ]
        )
        scores.append(best)
    return own, neighbors, scores


def reference_merge(own: Points, neighbors: list[Points], voters: list[list[tuple[int, int]]]) -> Points:
    """Plain mean of a landmark's own prediction and every listed vote for it."""
    merged = []
    for landmark, mine in enumerate(own):
        votes = [mine] + [neighbors[predictor][slot] for predictor, slot in voters[landmark]]
        merged.append((sum(v[0] for v in votes) / len(votes), sum(v[1] for v in votes) / len(votes)))
    return merged


def reference_spread(own: Points, neighbors: list[Points], voters: list[list[tuple[int, int]]]) -> list[float]:
    """Root mean square distance of a landmark's votes, its own included, from their mean."""
    spread = []
    for landmark, (x, y) in enumerate(reference_merge(own, neighbors, voters)):
        votes = [own[landmark]] + [neighbors[predictor][slot] for predictor, slot in voters[landmark]]
        spread.append(math.sqrt(sum((u - x) ** 2 + (v - y) ** 2 for u, v in votes) / len(votes)))
    return spread


CASES = [
    pytest.param(3, 1, 4, id="three landmarks, one neighbour: nobody predicts the third"),
    pytest.param(3, 2, 8, id="three landmarks, every other is a neighbour"),
    pytest.param(7, 0, 8, id="no neighbours"),
    pytest.param(19, 5, 8, id="AFLW size"),
    pytest.param(20, 19, 2, id="C as large as it gets, coarse grid"),
    pytest.param(68, 10, 16, id="the paper's C, stride 16"),
]


def random_face(points: int, seed: int) -> Points:
    rng = np.random.default_rng([seed, points])
    return [tuple(p) for p in rng.uniform(0, 1, (points, 2)).tolist()]


def random_maps(points: int, slots: int, grid: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, points, slots, grid])
    return {
        "score": rng.normal(0, 1, (points, grid, grid)),
        "x": rng.normal(0.5, 1, (points, grid, grid)),
        "y": rng.normal(0.5, 1, (points, grid, grid)),
        "neighbor_x": rng.normal(0, 2, (points * slots, grid, grid)),
        "neighbor_y": rng.normal(0, 2, (points * slots, grid, grid)),
    }


def as_output(maps: list[dict[str, np.ndarray]], points: int, slots: int, grid: int) -> PIPOutput:
    """A batch of reference maps in the codec's shapes, in double precision so that nothing hides in rounding."""
    stacked = {name: torch.from_numpy(np.stack([face[name] for face in maps])) for name in maps[0]}
    grouped = (len(maps), points, slots, grid, grid)
    return PIPOutput(
        stacked["score"],
        stacked["x"],
        stacked["y"],
        stacked["neighbor_x"].reshape(grouped),
        stacked["neighbor_y"].reshape(grouped),
    )


@pytest.mark.parametrize(("points", "slots", "grid"), CASES)
def test_neighbors(points, slots, grid):
    for seed in range(5):
        face = random_face(points, seed)
        assert nearest_neighbors(np.array(face), slots).tolist() == reference_neighbors(face, slots)


def test_neighbors_at_equal_distances_and_on_top_of_each_other():
    square: Points = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (1.0, 1.0)]
    for slots in range(5):
        assert nearest_neighbors(np.array(square), slots).tolist() == reference_neighbors(square, slots)
    assert nearest_neighbors(np.array(square), 1)[:, 0].tolist() == [1, 0, 0, 4, 3]  # never itself


@pytest.mark.parametrize(("points", "slots", "grid"), CASES)
def test_decode_and_every_way_of_merging(points, slots, grid):
    table = reference_neighbors(random_face(points, 0), slots)
    reverse = reference_reverse(table)
    batch = [random_maps(points, slots, grid, seed) for seed in range(3)]
    decoded = decode(as_output(batch, points, slots, grid))
    ways = {"exact": reverse, "padded": reference_padded(reverse), "none": [[] for _ in table]}
    merged = {}
    for way in ways:
        index, weight = voting_table(np.array(table, dtype=np.int64).reshape(points, slots), way)
        assert index.shape == weight.shape
        assert set(np.unique(weight)) <= {0.0, 1.0}
        merged[way] = merge(decoded, torch.from_numpy(index), torch.from_numpy(weight))
    for b, maps in enumerate(batch):
        own, neighbors, scores = reference_decode({k: v.tolist() for k, v in maps.items()}, grid, slots)
        np.testing.assert_allclose(decoded.own[b], own, atol=1e-12)
        np.testing.assert_allclose(decoded.neighbors[b].reshape(-1, 2), np.reshape(neighbors, (-1, 2)), atol=1e-12)
        np.testing.assert_allclose(decoded.peak[b], scores, atol=0)
        np.testing.assert_allclose(merged["exact"].spread[b], reference_spread(own, neighbors, reverse), atol=1e-12)
        for way, voters in ways.items():
            expected = reference_merge(own, neighbors, voters)
            np.testing.assert_allclose(merged[way].points[b], expected, atol=1e-12, err_msg=way)


COORDINATES = st.floats(-0.25, 1.25, width=32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(COORDINATES, COORDINATES), min_size=3, max_size=8),
    st.integers(0, 7),
    st.sampled_from([1, 2, 4, 8, 16]),
)
def test_encode_and_its_round_trip(points, slots, grid):
    slots = min(slots, len(points) - 1)
    table = reference_neighbors(points, slots)
    expected = reference_encode(points, table, grid)
    neighbors = torch.tensor(table, dtype=torch.int64).reshape(len(points), slots)
    faces = torch.tensor([points], dtype=torch.float64)
    targets = encode(faces, neighbors, grid)
    assert targets.cell[0].tolist() == [row * grid + column for column, row in expected["cells"]]
    np.testing.assert_allclose(targets.offset[0], expected["offsets"], atol=1e-12)
    np.testing.assert_allclose(
        targets.neighbor_offset[0].reshape(-1, 2), np.reshape(expected["neighbors"], (-1, 2)), atol=1e-12
    )
    for i, (x, y) in enumerate(points):
        inside = all(-1 <= v * grid <= grid + 1 for v in (x, y))
        assert bool(targets.valid[0, i]) == inside

    # Maps that say what the targets ask for at the owning cells, and nonsense everywhere else, decode to the points.
    n = len(points)
    score = torch.zeros(1, n, grid * grid, dtype=torch.float64).scatter(2, targets.cell[..., None], 1.0)
    here = score > 0

    def at_cell(values: torch.Tensor) -> torch.Tensor:
        return torch.where(here, values[..., None], torch.tensor(77.0, dtype=torch.float64)).reshape(1, n, grid, grid)

    neighbor_maps = [
        torch.stack([at_cell(targets.neighbor_offset[:, :, j, axis]) for j in range(slots)], dim=2)
        if slots
        else torch.zeros(1, n, 0, grid, grid, dtype=torch.float64)
        for axis in (0, 1)
    ]
    x_map, y_map = at_cell(targets.offset[..., 0]), at_cell(targets.offset[..., 1])
    decoded = decode(PIPOutput(score.reshape(1, n, grid, grid), x_map, y_map, *neighbor_maps))
    np.testing.assert_allclose(decoded.own[0], points, atol=1e-12)
    np.testing.assert_allclose(read_at(x_map, targets.cell), targets.offset[..., 0])
    for way in ("exact", "padded", "none"):
        index, weight = voting_table(neighbors.numpy(), way)
        merged = merge(decoded, torch.from_numpy(index), torch.from_numpy(weight))
        np.testing.assert_allclose(merged.points[0], points, atol=1e-9)
        np.testing.assert_allclose(merged.spread[0], 0, atol=1e-9)


def test_unlabelled_points_are_masked_and_touch_no_other_target():
    points = torch.tensor([[[0.3, 0.3], [float("nan"), float("nan")], [0.8, 0.6]]])
    neighbors = torch.tensor([[1, 2], [0, 2], [1, 0]])
    targets = encode(points, neighbors, 4)
    assert targets.valid.tolist() == [[True, False, True]]
    assert targets.neighbor_valid.tolist() == [[[False, True], [False, False], [False, True]]]
    for name, values in targets._asdict().items():
        assert values is None or torch.isfinite(values.double()).all(), name
    np.testing.assert_allclose(targets.neighbor_offset[0, 2, 1], [1.2 - 3, 1.2 - 2], atol=1e-6)
