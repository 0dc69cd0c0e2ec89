"""Weights and coarse tasks in the loss: by hand, and nothing changes where there are none."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipnet.model.codec import PIPOutput, encode
from pipnet.model.loss import PIPLoss, Shrink
from pipnet.model.pipnet import PIPNet

NAN = float("nan")
NEIGHBORS = torch.tensor([[1], [2], [0]])
GRID = 4


def random_output(faces, seed=0, requires_grad=False):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(faces, 3, GRID, GRID)] * 3 + [(faces, 3, 1, GRID, GRID)] * 2
    return PIPOutput(*(torch.randn(shape, generator=generator).requires_grad_(requires_grad) for shape in shapes))


def random_points(faces, seed=1):
    return torch.rand(faces, 3, 2, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.1


def rows(output, index):
    return PIPOutput(*(maps[index] for maps in output[:5]))


def with_coarse(output, pool_factor):
    """Coarse maps that follow from the score map, so that a gradient shows where they came from."""
    factors = sorted(set(pool_factor.tolist()) - {1})
    return output._replace(coarse={p: functional.max_pool2d(output.score_map[pool_factor == p], p) for p in factors})


def terms_of(output, points, *, pool_factor=None, **more):
    output = output if pool_factor is None else with_coarse(output, pool_factor)
    return PIPLoss()(output, encode(points, NEIGHBORS, GRID, pool_factor=pool_factor, **more))


def by_definition(output, points, weight, pool_factor):
    """The terms with loops, for faces whose points are all labelled and inside."""
    squares = cells = 0.0
    local, neighbor, local_weight, neighbor_weight = np.zeros(2), np.zeros(2), 0.0, 0.0
    score, x, y, nx, ny = (maps.detach().double().numpy() for maps in output[:5])
    for face in range(len(points)):
        p = int(pool_factor[face])
        for i in range(3):
            w = float(weight[face, i])
            column, row = np.minimum((points[face, i].double().numpy() * GRID).astype(int), GRID - 1)
            coarse = GRID // p
            pooled = score[face, i].reshape(coarse, p, coarse, p).max(axis=(1, 3))
            wanted = np.zeros((coarse, coarse))
            wanted[row // p, column // p] = 1
            squares += w * ((pooled - wanted) ** 2).sum()
            cells += w * coarse**2
            if p > 1:
                continue
            offset = points[face, i].double().numpy() * GRID - [column, row]
            local += w * np.abs([x[face, i, row, column] - offset[0], y[face, i, row, column] - offset[1]])
            local_weight += w
            j = int(NEIGHBORS[i, 0])
            both = w * float(weight[face, j])
            offset = points[face, j].double().numpy() * GRID - [column, row]
            neighbor += both * np.abs(
                [nx[face, i, 0, row, column] - offset[0], ny[face, i, 0, row, column] - offset[1]]
            )
            neighbor_weight += both
    local, neighbor = local / local_weight, neighbor / neighbor_weight
    return [10 * squares / cells, *local, *neighbor]


def test_terms_are_weighted_means_over_cells_and_points_of_every_task():
    output, pool_factor = random_output(6), torch.tensor([1, 2, 1, 4, 2, 1])
    points = torch.rand(6, 3, 2, generator=torch.Generator().manual_seed(1))
    weight = torch.rand(6, 3, generator=torch.Generator().manual_seed(2))
    terms = terms_of(output, points, weight=weight, pool_factor=pool_factor)
    expected = by_definition(output, points, weight, pool_factor)
    np.testing.assert_allclose([term.item() for term in terms.values()], expected, rtol=1e-5)


def second_by_definition(output, points, weight, shrink):
    """The terms of the second head with loops, for faces that all go to it."""
    squares, own, near, own_weight, near_weight = 0.0, np.zeros(2), np.zeros(2), 0.0, 0.0
    score, x, y, nx, ny = (maps.detach().double().numpy() for maps in output[:5])
    for face in range(len(points)):
        for i in range(3):
            w, place = float(weight[face, i]), points[face, i].double().numpy() * GRID
            column, row = np.minimum(place.astype(int), GRID - 1)
            wanted = np.zeros((GRID, GRID))
            for r in range(GRID):
                for c in range(GRID):
                    wanted[r, c] = np.exp(-((place - [c + 0.5, r + 0.5]) ** 2).sum() / (2 * (shrink.blur * GRID) ** 2))
            squares += w * ((score[face, i] - wanted / wanted.sum()) ** 2).mean()
            j = int(NEIGHBORS[i, 0])
            both = w * float(weight[face, j])
            other = points[face, j].double().numpy() * GRID - [column, row]
            off = np.abs(np.array([x[face, i, row, column], y[face, i, row, column]]) - (place - [column, row])) / GRID
            aside = np.abs(np.array([nx[face, i, 0, row, column], ny[face, i, 0, row, column]]) - other) / GRID
            own += w * off**shrink.power / shrink.power * GRID
            near += both * aside**shrink.power / shrink.power * GRID
            own_weight, near_weight = own_weight + w, near_weight + both
    return [shrink.weight * term for term in (10 * squares / own_weight, *own / own_weight, *near / near_weight)]


@pytest.mark.parametrize("shrink", [Shrink(0.1, 2.4, 0.1), Shrink(0.02, 1, 1)])
def test_the_second_head_learns_softly_from_its_faces_alone(shrink):
    first, second = random_output(4, requires_grad=True), random_output(4, seed=9, requires_grad=True)
    points = torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(1))
    weight = torch.rand(4, 3, generator=torch.Generator().manual_seed(2))
    pool_factor = torch.tensor([0, 1, 0, 1])
    mine = pool_factor == 0
    targets = encode(points, NEIGHBORS, GRID, weight=weight, pool_factor=pool_factor)
    terms = PIPLoss(shrink=shrink)(first._replace(second=second), targets)
    softened = [terms[name].item() for name in terms if name.startswith("second")]
    expected = second_by_definition(rows(second, mine), points[mine], weight[mine], shrink)
    np.testing.assert_allclose(softened, expected, rtol=1e-5)
    labelled = terms_of(rows(first, ~mine), points[~mine], weight=weight[~mine])
    for name, term in labelled.items():
        torch.testing.assert_close(terms[name], term, rtol=1e-6, atol=0)
    sum(terms.values()).backward()
    for maps, of in ((first, ~mine), (second, mine)):
        assert all((part.grad[of] != 0).any() and (part.grad[~of] == 0).all() for part in maps[:5])


def test_a_weak_blur_and_power_1_are_the_labelled_faces_loss():
    output = random_output(3)
    points = (torch.randint(0, GRID, (3, 3, 2), generator=torch.Generator().manual_seed(1)) + 0.4) / GRID
    targets = encode(points, NEIGHBORS, GRID, pool_factor=torch.zeros(3, dtype=torch.int64))
    terms = PIPLoss(shrink=Shrink(0.02, 1, 1))(random_output(3, seed=5)._replace(second=output), targets)
    for name, term in terms_of(output, points).items():
        torch.testing.assert_close(terms[f"second_{name}"], term, rtol=1e-5, atol=1e-6)
        assert terms[name] == 0


def test_ones_change_no_bit():
    points = random_points(5)
    points[2, 1] = NAN
    points[4, 0] = 1.6  # far outside
    plain, full = random_output(5, requires_grad=True), random_output(5, requires_grad=True)
    before = terms_of(plain, points)
    after = terms_of(full, points, weight=torch.ones(5, 3), pool_factor=torch.ones(5, dtype=torch.int64))
    assert {name: term.item() for name, term in before.items()} == {name: term.item() for name, term in after.items()}
    sum(before.values()).backward()
    sum(after.values()).backward()
    for a, b in zip(plain[:5], full[:5], strict=True):
        assert torch.equal(a.grad, b.grad)


def test_a_point_without_weight_is_a_point_without_a_label():
    output, points = random_output(4), random_points(4)
    weight = torch.ones(4, 3)
    weight[1, 2] = weight[3, 0] = 0
    missing = torch.where(weight[..., None] > 0, points, NAN)
    weighted, masked = terms_of(output, points, weight=weight), terms_of(output, missing)
    for name in masked:
        torch.testing.assert_close(weighted[name], masked[name], rtol=1e-6, atol=0)


def test_a_coarse_face_moves_the_score_map_alone_and_one_cell_of_each_pool():
    output, points = random_output(2, requires_grad=True), random_points(2)
    pool_factor = torch.tensor([2, 1])
    sum(terms_of(output, points, pool_factor=pool_factor).values()).backward()
    score, *others = (maps.grad for maps in output[:5])
    assert all((maps[0] == 0).all() and (maps[1] != 0).any() for maps in others)
    moved = (score[0] != 0).unflatten(1, (2, 2)).unflatten(3, (2, 2)).sum(dim=(2, 4))  # of each 2 x 2 cells
    assert (moved == 1).all()
    assert (score[1] != 0).all()


def test_only_coarse_faces_give_a_finite_loss_without_offsets():
    terms = terms_of(random_output(3), random_points(3), pool_factor=torch.full((3,), 4))
    assert terms.pop("score") > 0
    assert all(term == 0 for term in terms.values())


def test_parts_of_a_batch_add_up_to_it():
    """Two processes with unequal weights and tasks: averaged gradients are those of the whole batch."""
    points, pool_factor = random_points(6), torch.tensor([2, 2, 1, 1, 4, 1])
    weight = torch.rand(6, 3, generator=torch.Generator().manual_seed(5)) ** 3
    output = random_output(6, requires_grad=True)
    sum(terms_of(output, points, weight=weight, pool_factor=pool_factor).values()).backward()
    whole = [maps.grad.clone() for maps in output[:5]]
    parts = [torch.tensor([0, 1, 4]), torch.tensor([2, 3, 5])]  # the first has no full face

    counts: list[list[torch.Tensor]] = []
    for part in parts:  # what each process would send to the others
        sent = []
        loss = PIPLoss(total_count=lambda count, sent=sent: sent.append(count.detach()) or count)
        mine = with_coarse(rows(output, part), pool_factor[part])
        loss(mine, encode(points[part], NEIGHBORS, GRID, weight=weight[part], pool_factor=pool_factor[part]))
        counts.append(sent)
    assert len(counts[0]) == len(counts[1])  # or processes would wait for each other for ever
    for maps in output[:5]:
        maps.grad = None
    for part in parts:
        means = iter([sum(pair) / 2 for pair in zip(*counts, strict=True)])
        loss = PIPLoss(total_count=lambda _, means=means: next(means))
        targets = encode(points[part], NEIGHBORS, GRID, weight=weight[part], pool_factor=pool_factor[part])
        (sum(loss(with_coarse(rows(output, part), pool_factor[part]), targets).values()) / 2).backward()
    for maps, gradient in zip(output[:5], whole, strict=True):
        torch.testing.assert_close(maps.grad, gradient, rtol=1e-5, atol=1e-8)


def small_net():
    torch.manual_seed(0)
    return PIPNet(np.random.default_rng(0).random((3, 2)), "mobilenet_v3_small", num_neighbors=1, input_size=128).eval()


def test_coarse_maps_are_the_score_layer_on_pooled_features():
    net, images, pool_factor = small_net(), torch.rand(4, 3, 128, 128), torch.tensor([2, 1, 4, 2])
    with torch.no_grad():
        net.head.weight.normal_(std=0.1)
        output, plain = net(images, pool_factor), net(images)
        pooled = torch.nn.MaxPool2d(2)(net.neck(net.backbone(images)))  # by 2, and by 2 again for 4
        twice = torch.nn.MaxPool2d(2)(pooled)
        torch.testing.assert_close(output.coarse[2], net.head(pooled)[[0, 3], :3])
        torch.testing.assert_close(output.coarse[4], net.head(twice)[[2], :3])
    assert not plain.coarse
    assert all(torch.equal(a, b) for a, b in zip(output[:5], plain[:5], strict=True))


def test_a_pool_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="pool factor 3 does not divide the 4 x 4 cells of the score map"):
        small_net()(torch.zeros(1, 3, 128, 128), torch.tensor([3]))
