"""The network: published sizes, every stride on every backbone, loss by hand, golden output."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipnet.model.backbones import BACKBONES, build_backbone
from pipnet.model.codec import PIPOutput, encode
from pipnet.model.loss import PIPLoss
from pipnet.model.pipnet import NET_STRIDES, PIPNet


def face(points: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((points, 2))


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def small(points: int = 5, neighbors: int = 2, *, mean_face: np.ndarray | None = None, **options) -> PIPNet:
    torch.manual_seed(0)
    shape = face(points) if mean_face is None else mean_face
    return PIPNet(shape, "mobilenet_v3_small", neighbors, **{"input_size": 64, **options})


# Published: parameters of the WFLW networks (method of counting: everything that trains, C = 10).
@pytest.mark.parametrize(
    ("backbone", "millions"),
    [("resnet18", 12.333), ("resnet101", 47.119), ("mobilenet_v2", 5.111), ("mobilenet_v3_large", 5.138)],
)
def test_parameter_counts_of_the_published_networks(backbone, millions):
    with torch.device("meta"):
        net = PIPNet(face(98), backbone)
    assert round(parameters(net) / 1e6, 3) == millions


@pytest.mark.parametrize("stride", NET_STRIDES)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_stride_on_every_backbone(backbone, stride):
    """In the authors' code ResNet-50 and 101 can't run at 64 and 128, and the MobileNets ignore the stride."""
    size = 2 * stride if stride > 32 else 64
    with torch.device("meta"):  # shapes without the work
        net = PIPNet(face(4), backbone, num_neighbors=2, net_stride=stride, input_size=size).eval()
        output = net(torch.zeros(1, 3, size, size))
    cells = size // stride
    assert net.grid == cells
    assert [tuple(maps.shape) for maps in output[:5]] == [(1, 4, cells, cells)] * 3 + [(1, 4, 2, cells, cells)] * 2


@pytest.mark.parametrize("stride", NET_STRIDES)
def test_every_stride_computes_and_predicts(stride):
    size = max(64, stride)
    net = small(net_stride=stride, input_size=size).eval()
    points, scores, face_scores = net.predict(torch.full((2, 3, size, size), 128, dtype=torch.uint8))
    assert points.shape == (2, 5, 2)
    assert scores.shape == (2, 5)
    assert face_scores.shape == (2,)
    assert torch.isfinite(points).all()


def test_the_short_mobilenet_keeps_the_papers_grid_at_half_the_size():
    """8 x 8 cells at 128 px, straight from ImageNet's features: no layer of the neck starts at random."""
    net = PIPNet(face(68), "mobilenet_v2_stride16", net_stride=16, input_size=128)
    assert (net.grid, parameters(net.neck), net.head.in_channels) == (8, 0, 96)
    torch.manual_seed(0)
    short = build_backbone("mobilenet_v2_stride16").module
    torch.manual_seed(0)
    whole = build_backbone("mobilenet_v2").module
    assert len(short) == 14
    weights = whole.state_dict()  # torchvision fills it in order, so the same file fits both
    assert all(torch.equal(values, weights[name]) for name, values in short.state_dict().items())
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(short.eval()(image), whole.eval()[:14](image))
    assert tuple(whole[:15](image).shape) == (1, 160, 4, 4)  # the next block is the one that halves the map


@pytest.mark.parametrize(("points", "neighbors"), [(1, 0), (2, 1), (5, 0), (29, 28), (106, 10)])
def test_any_number_of_points_and_neighbours(points, neighbors):
    net = small(points, neighbors).eval()
    prediction = net.predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert prediction.points_unit.shape == (1, points, 2)
    assert net.neighbors.shape == (points, neighbors)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net_stride": 8}, r"net_stride must be one of \(16, 32, 64, 128\), got 8"),
        ({"input_size": 100}, "input_size 100 must be a multiple of 32 at net_stride 32"),
        ({"input_size": 64, "net_stride": 128}, "input_size 64 must be a multiple of 128 at net_stride 128"),
        ({"merge": "mean"}, "merge must be 'exact', 'padded' or 'none', got 'mean'"),
        ({"num_neighbors": 5}, r"num_neighbors must lie in \[0, 4\] for 5 points, got 5"),
        ({"backbone": "resnet34"}, "no backbone 'resnet34'; known: resnet18"),
        ({"mean_face": np.zeros((5, 3))}, r"mean_face must be finite \(N, 2\), got shape \(5, 3\)"),
        ({"mean_face": np.full((5, 2), np.nan)}, "mean_face must be finite"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    arguments = {"mean_face": face(5), "backbone": "mobilenet_v3_small", "num_neighbors": 2, **options}
    with pytest.raises(ValueError, match=message):
        PIPNet(**arguments)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 3, 64, 64), torch.float32), ((1, 3, 32, 64), torch.uint8), ((3, 64, 64), torch.uint8)]
)
def test_crops_that_do_not_fit(shape, dtype):
    with pytest.raises(ValueError, match=r"crops must be uint8 \(B, 3, 64, 64\)"):
        small().eval().predict(torch.zeros(shape, dtype=dtype))


def test_missing_imagenet_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))

    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(OSError, match=r"resnet18.*no route to host.*put resnet18-f37072fd\.pth.*pretrained=false"):
        build_backbone("resnet18", pretrained=True)


# Two points, a grid of 2 x 2 cells, one neighbour each: the other point.
#   face 0: point 0 at (0.25, 0.75) -> (0.5, 1.5) cells: cell 2 (row 1, column 0), offset (0.5, 0.5)
#           point 1 at (0.75, 0.125) -> (1.5, 0.25) cells: cell 1 (row 0, column 1), offset (0.5, 0.25)
#           neighbours: of point 0 (1.5, 0.25) - (0, 1) = (1.5, -0.75); of point 1 (0.5, 1.5) - (1, 0) = (-0.5, 1.5)
#   face 1: point 0 not labelled; point 1 at (0.5, 1.75) -> (1, 3.5) cells: more than one cell outside
#   face 2: point 0 at (-0.25, 0.25) -> (-0.5, 0.5) cells: outside by half a cell, it counts: cell 0, offset (-0.5, 0.5)
#           point 1 not labelled, so that point 0 has no neighbour to predict
NAN = math.nan
POINTS = torch.tensor([[[0.25, 0.75], [0.75, 0.125]], [[NAN, NAN], [0.5, 1.75]], [[-0.25, 0.25], [NAN, NAN]]])
NEIGHBORS = torch.tensor([[1], [0]])


def hand_worked_output() -> PIPOutput:
    """Maps that say 0.5 (score), 0.25 (x, y) and 1 (neighbours) everywhere."""
    return PIPOutput(
        torch.full((3, 2, 2, 2), 0.5),
        torch.full((3, 2, 2, 2), 0.25),
        torch.full((3, 2, 2, 2), 0.25),
        torch.ones(3, 2, 1, 2, 2),
        torch.ones(3, 2, 1, 2, 2),
    )


def test_loss_by_hand():
    targets = encode(POINTS, NEIGHBORS, grid=2)
    assert targets.valid.tolist() == [[True, True], [False, False], [True, False]]
    assert targets.cell[0].tolist() == [2, 1]
    assert targets.neighbor_offset[0].tolist() == [[[1.5, -0.75]], [[-0.5, 1.5]]]
    terms = PIPLoss()(hand_worked_output(), targets)
    assert {name: round(term.item(), 6) for name, term in terms.items()} == {
        "score": 2.5,  # every cell is off by 0.5: 10 * 0.25
        "offset_x": round((0.25 + 0.25 + 0.75) / 3, 6),  # targets 0.5, 0.5, -0.5
        "offset_y": round((0.25 + 0.0 + 0.25) / 3, 6),  # targets 0.5, 0.25, 0.5
        "neighbor_x": (0.5 + 1.5) / 2,  # targets 1.5, -0.5
        "neighbor_y": (1.75 + 0.5) / 2,  # targets -0.75, 1.5
    }


def test_weights_of_the_loss():
    targets = encode(POINTS, NEIGHBORS, grid=2)
    plain = PIPLoss()(hand_worked_output(), targets)
    weighted = PIPLoss(score_weight=1, offset_weight=2, neighbor_weight=3)(hand_worked_output(), targets)
    factors = {"score": 0.1, "offset_x": 2, "offset_y": 2, "neighbor_x": 3, "neighbor_y": 3}
    for name, term in weighted.items():
        assert term.item() == pytest.approx(plain[name].item() * factors[name])


def test_points_that_do_not_count_have_no_influence():
    targets = encode(POINTS, NEIGHBORS, grid=2)
    plain = PIPLoss()(hand_worked_output(), targets)
    output = hand_worked_output()
    for maps in output[:5]:
        maps[1] = 1e6  # both points of face 1
        maps[2, 1] = -1e6
        maps.requires_grad_()
    terms = PIPLoss()(output, targets)
    assert {k: v.item() for k, v in terms.items()} == {k: v.item() for k, v in plain.items()}
    sum(terms.values()).backward()
    for maps in output[:5]:
        assert maps.grad[1].abs().sum() == 0
        assert maps.grad[2, 1].abs().sum() == 0
    assert output.score_map.grad[0].abs().sum() > 0


def test_a_batch_without_a_label_has_a_loss_of_zero():
    output = PIPOutput(*(maps.requires_grad_() for maps in hand_worked_output()[:5]))
    terms = PIPLoss()(output, encode(torch.full((3, 2, 2), NAN), NEIGHBORS, grid=2))
    sum(terms.values()).backward()
    assert [term.item() for term in terms.values()] == [0.0] * 5
    assert all(torch.isfinite(maps.grad).all() for maps in output[:5])


def test_every_parameter_gets_a_gradient():
    for stride in (16, 32, 64):
        net = small(net_stride=stride, input_size=128).train()
        points = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0))
        images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
        sum(PIPLoss()(net(images), encode(points, net.neighbors, net.grid)).values()).backward()
        without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert without == [], f"net_stride {stride}: no gradient for {without}"


def test_loss_at_initialisation():
    """The head starts near zero: one cell of 16 is wrong by 1, offsets are as far off as they are long."""
    net = small(68, 10, mean_face=face(68), input_size=128).train()
    points = torch.rand(4, 68, 2, generator=torch.Generator().manual_seed(0))
    targets = encode(points, net.neighbors, net.grid)
    images = torch.randn(4, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    terms = {name: term.item() for name, term in PIPLoss()(net(images), targets).items()}
    assert terms["score"] == pytest.approx(10 / 16, rel=0.02)
    assert terms["offset_x"] == pytest.approx(targets.offset[..., 0].abs().mean().item(), rel=0.05)
    assert terms["neighbor_y"] == pytest.approx(targets.neighbor_offset[..., 1].abs().mean().item(), rel=0.05)


def test_predict_is_interpret_of_forward_of_normalize():
    net = small().eval()
    crops = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = net.interpret(net(net.normalize(crops)))
    got = net.predict(crops)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, expected, strict=True))
    assert 0 <= got.scores.min() <= got.scores.max() <= 1


def test_normalisation_is_imagenets():
    crops = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    crops[:, 0], crops[:, 1], crops[:, 2] = 255, 0, 51
    values = small().normalize(crops)[0, :, 0, 0]
    assert values.tolist() == pytest.approx([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225], abs=1e-5)


def test_running_statistics_follow_within_a_few_hundred_steps():
    """torchvision's momentum for MobileNetV3 makes the network in eval mode a network of long ago."""
    for backbone in BACKBONES:
        with torch.device("meta"):
            momenta = {
                m.momentum for m in build_backbone(backbone).module.modules() if isinstance(m, torch.nn.BatchNorm2d)
            }
        assert momenta == {0.1}, backbone


def seeded() -> PIPNet:
    """A small network whose weights come from NumPy, so that they are the same in every version of torch."""
    rng = np.random.default_rng(0)
    net = small(4, 2, mean_face=face(4))
    values = {}
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            values[name] = tensor
        elif name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            values[name] = torch.ones_like(tensor)
        else:
            fan_in = max(1, tensor[0].numel())
            values[name] = torch.from_numpy(rng.normal(0, 1 / math.sqrt(fan_in), tuple(tensor.shape))).float()
    values["head.weight"] *= 0.1
    values["head.bias"][:4] += torch.tensor([-0.3, 1.2, 1.4, 1.3])  # brings the peaks of the score maps to about 0.5
    net.load_state_dict(values)
    return net.eval()


def test_golden_output_of_a_seeded_network():
    crops = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64), dtype=np.uint8))
    points, scores, _ = seeded().predict(crops)
    np.testing.assert_allclose(points[0].numpy(), GOLDEN_POINTS, atol=1e-3)
    np.testing.assert_allclose(scores[0].numpy(), GOLDEN_SCORES, atol=1e-3)


GOLDEN_POINTS = [[0.9164, 0.6740], [0.0958, 0.0693], [-0.2297, 0.0381], [0.4075, 0.1247]]
GOLDEN_SCORES = [0.1298, 0.0759, 0.2606, 0.0558]
