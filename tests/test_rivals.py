"""Each network that PIPNet is compared with learns, travels in a checkpoint, and becomes a graph that says the same."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_self_training import ARGUMENTS as SELF_TRAINING
from small_self_training import stages
from small_training import CPU, config, run_here

from pipnet.data.synthetic.dataset import draw_faces
from pipnet.evaluation.evaluate import evaluate
from pipnet.export.faces import calibration_crops
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.runtimes import open_runtime
from pipnet.inference.sessions import export_openvino
from pipnet.layouts import PointLayout, get_layout
from pipnet.model import checkpoint
from pipnet.model.checkpoint import CheckpointError
from pipnet.model.heatmaps import DECODERS, draw_maps, to_cells
from pipnet.model.networks import NETWORKS
from pipnet.model.onnx_graph import export_onnx
from pipnet.model.rivals.coordinate import CoordinateLoss
from pipnet.model.rivals.maps import MapLoss
from pipnet.model.rivals.pyramids import CoarseToFine, CoarseToFineOutput
from pipnet.self_train import self_train
from pipnet.train import build_training_data, train

SMALL = {  # arguments that make them so
    "coordinate": {},
    "simple_baseline": {"width": 32},
    "hourglass": {"stacks": 2, "width": 16, "backbone": "hourglass_stem"},
    "hrnet": {},
    "pose_machine": {"width": 32},
    "coarse_to_fine": {"width": 8, "window": 7, "backbone": "mobilenet_v3_small"},
    "cascaded_pyramid": {"width": 16},
}
EPOCHS = {
    "coordinate": 6,
    "hourglass": 6,
    "hrnet": 2,
    "pose_machine": 3,
    "cascaded_pyramid": 3,
}  # that are enough; for the others 4
LAYOUT = get_layout("300w_68")
SEVEN = PointLayout("seven", 7, mirror=tuple(range(7)))
MEAN_FACE = np.random.default_rng(0).uniform(0.2, 0.8, (7, 2))
CROPS = calibration_crops(draw_faces(8, seed=9, size=96), crop_scale=1.25, size=64)
ARGUMENTS = (
    "experiment=heads",
    "model.input_size=64",
    "model.backbone=timm/test_efficientnet",  # the smallest with four strides
    "dataset.splits.train={count: 200, size: 96}",
    "dataset.splits.val={count: 16, size: 96}",
    "transform.rotate_p=0",
    "optim.lr=0.006",
    "schedule.warmup_epochs=0.5",
    "fit.batch_size=8",
    "fit.validate_every=${fit.epochs}",
    "fit.progress_bar=false",
    "device=cpu",
)


def overrides(name: str) -> list[str]:
    return [f"model.network={name}", *(f"++model.{key}={value}" for key, value in SMALL[name].items())]


def small(name: str, **more):
    """An untrained network of seven points."""
    torch.manual_seed(0)
    return NETWORKS[name](MEAN_FACE, **({"backbone": "mobilenet_v3_small", "input_size": 64} | SMALL[name] | more))


@cache
def faces():
    """Drawn once: they are the same for all networks."""
    return build_training_data(config("nowhere", *overrides("coordinate"), arguments=ARGUMENTS))


@cache
def trained(name: str, folder: Path):
    """Result and data of a training of seconds; a network is trained once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipnet.train.build_training_data", lambda settings: faces())
        more = (f"fit.epochs={EPOCHS.get(name, 4)}", *overrides(name))
        return run_here(train, config(folder / name, *more, arguments=ARGUMENTS)), faces()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("rivals")


def test_all_are_tested():
    assert NETWORKS.keys() - {"pipnet"} == SMALL.keys()


def test_coordinates_start_as_the_mean_face():
    mean_face = np.random.default_rng(0).random((68, 2), np.float32)
    net = NETWORKS["coordinate"](mean_face, "mobilenet_v3_small", input_size=64)
    points = net(torch.rand(2, 3, 64, 64))[0]
    torch.testing.assert_close(points, torch.from_numpy(mean_face).expand(2, -1, -1))


@pytest.mark.parametrize("name", SMALL)
def test_it_learns_and_its_scores_are_calibrated(name, runs):
    result, data = trained(name, runs)
    assert result.history[-1]["loss"] < 0.8 * result.history[0]["loss"]
    loaded = checkpoint.load(result.best)
    assert type(loaded.net) is NETWORKS[name]
    assert loaded.net.confidence.calibrated
    figures = data.validation(loaded.net, CPU)
    assert figures["val_nme"] == pytest.approx(result.history[-1]["val_nme"])
    assert figures["val_nme"] < 0.85 * data.validation.mean_face_nme(data.mean_face)


@pytest.mark.parametrize("name", SMALL)
def test_every_runtime_gives_the_same_points_and_scores(name, runs, tmp_path):
    loaded = checkpoint.load(trained(name, runs)[0].best)
    expected = loaded.net.predict(torch.from_numpy(CROPS).permute(0, 3, 1, 2))
    export_onnx(loaded, tmp_path / "best.onnx")
    export_openvino(tmp_path / "best.onnx", tmp_path / "best.xml")
    for file, runtime in (("best.onnx", "onnxruntime"), ("best.xml", "openvino")):
        got = open_runtime(tmp_path / file, runtime)(CROPS)
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)
    export_onnx(loaded, tmp_path / "int8.onnx", calibration=CROPS)
    moved = open_runtime(tmp_path / "int8.onnx", "onnxruntime")(CROPS)[0] - expected.points_unit.numpy()
    assert np.median(np.linalg.norm(moved, axis=-1)) * 64 < 1
    weights = [onnx.numpy_helper.to_array(values) for values in onnx.load(tmp_path / "int8.onnx").graph.initializer]
    assert sum(w.size for w in weights if w.dtype == np.int8) > 0.7 * sum(w.size for w in weights)


@pytest.mark.parametrize("name", SMALL)
def test_a_landmarker_and_the_evaluation_use_it(name, runs):
    result, data = trained(name, runs)
    landmarker = FaceLandmarker.load(result.best)
    upright = FaceLandmarker(landmarker.runtime, layout=landmarker.layout, crop_scale=landmarker.crop_scale)
    not_lying = [n for n, sample in enumerate(data.held_out) if not sample.angle]
    assert 0 < len(not_lying) < len(data.held_out)
    measured = evaluate(upright, [data.held_out[n] for n in not_lying], layout=LAYOUT)
    of_faces, _ = data.validation.by_face(checkpoint.load(result.best).net, CPU)
    assert of_faces.mean() == pytest.approx(result.history[-1]["val_nme"] / 100)
    assert measured.errors().mean() == pytest.approx(of_faces[not_lying].mean(), abs=5e-4)
    measured = evaluate(landmarker, data.held_out[:4], layout=LAYOUT)  # how the face is tilted is found
    assert ((measured.point_scores >= 0) & (measured.point_scores <= 1)).all()


@pytest.mark.parametrize(
    ("name", "arguments", "millions"),
    [
        ("hourglass", {"stacks": 1}, 3.44),
        ("hourglass", {"stacks": 4}, 12.95),
        ("hrnet", {"backbone": "timm/hrnet_w18"}, 9.65),
        ("simple_baseline", {"backbone": "resnet18"}, 15.39),
        ("coordinate", {"backbone": "mobilenet_v2"}, 2.40),
    ],
)
def test_it_has_the_published_parameters(name, arguments, millions):
    net = NETWORKS[name](np.full((68, 2), 0.5), input_size=256, **arguments)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_the_dilated_baseline_gives_maps_of_the_same_size():
    for output_stride in (8, 16, 32):
        net = small("simple_baseline", output_stride=output_stride)
        assert net(torch.zeros(2, 3, 64, 64))[-1].shape == (2, 7, 16, 16)
        assert (
            sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in net.upward)
            == {8: 1, 16: 2, 32: 3}[output_stride]
        )


@pytest.mark.parametrize("name", SMALL)
def test_labels_outside_or_missing_train_nothing(name):
    """Whatever stands there; and a point counts by its weight."""
    net = small(name)
    output = net(torch.rand(3, 3, 64, 64))
    loss = net.loss_class()()
    points = torch.from_numpy(MEAN_FACE[::-1].copy()).float().expand(3, -1, -1).clone()
    points[0] *= 0.9
    weight = torch.ones(3, 7)

    def total(points, weight):
        with torch.no_grad():
            return float(sum(loss(output, net.targets(points, weight=weight)).values()))

    plain, counted = total(points, weight), weight.clone()
    counted[0, :4] = 0
    expected = total(points, counted)
    assert expected != pytest.approx(plain, rel=1e-6) or name in ("simple_baseline", "hrnet", "pose_machine")
    for anywhere in (float("nan"), 1.9, -0.8):
        moved = points.clone()
        moved[0, :4] = anywhere
        assert total(moved, weight) == pytest.approx(expected, rel=1e-6)
    assert total(points, torch.zeros(3, 7)) == 0


def test_perfect_maps_have_no_error_and_give_the_points():
    points = torch.from_numpy(MEAN_FACE).float()[None]
    for name in ("simple_baseline", "hourglass", "pose_machine", "cascaded_pyramid"):
        net = small(name, input_size=128)
        maps = draw_maps(to_cells(points, net.grid), net.grid, sigma=net.sigma)
        terms = net.loss_class()()([maps] * len(net(torch.zeros(2, 3, 128, 128))), net.targets(points))
        assert sum(terms.values()) == 0
        votes = net.count_votes((torch.zeros_like(maps), maps))
        np.testing.assert_allclose(votes.points_unit, points, atol=0.01)
        assert votes.peak.min() > 0.6


def test_the_hardest_points_alone_train_the_last_stage():
    points = torch.full((1, 4, 2), 0.5)
    maps = draw_maps(to_cells(points, 16), 16)
    maps[0, 1:3] *= torch.tensor([0.5, 0.0])[:, None, None]
    targets = small("simple_baseline").targets(points)
    every = MapLoss("gaussian", 1.5)([maps, maps], targets)
    hardest = MapLoss("gaussian", 1.5, weights=(0.25, 1), hardest=0.5)([maps, maps], targets)
    assert float(hardest["stage_2"]) == pytest.approx(2 * float(every["stage_2"]))
    assert float(hardest["stage_1"]) == pytest.approx(0.25 * float(every["stage_1"]))


def test_fine_windows_lie_around_the_coarse_answers():
    net = small("coarse_to_fine")
    assert isinstance(net, CoarseToFine)
    points = torch.from_numpy(MEAN_FACE).float()[None]
    centre = points + torch.linspace(-0.05, 0.05, 14).reshape(1, 7, 2)
    coarse = draw_maps(to_cells(points, net.grid), net.grid, sigma=net.sigma)
    fine = draw_maps(net.in_window(points, centre), net.window, sigma=net.sigma)
    output = CoarseToFineOutput(coarse, fine, centre)
    np.testing.assert_allclose(net.count_votes(output).points_unit, points, atol=0.005)
    assert sum(net.loss_class()()(output, net.targets(points)).values()) == 0
    # A label outside its window can't be drawn there: it trains the coarse maps alone.
    far = CoarseToFineOutput(coarse, fine, centre + 0.4)
    assert sum(net.loss_class()()(far, net.targets(points)).values()) == 0


def test_wing_loss_is_steep_below_its_width_and_then_l1():
    targets = small("coordinate").targets(torch.zeros(1, 1, 2))

    def loss(pixels: float, **options) -> float:
        return float(CoordinateLoss(64, **options)(torch.full((1, 1, 1, 2), pixels / 64), targets)["points"])

    assert loss(3) == pytest.approx(10 * np.log(1 + 3 / 2))
    assert loss(10 + 1e-3) == pytest.approx(loss(10 - 1e-3), abs=5e-3)
    assert loss(14) - loss(12) == pytest.approx(2, rel=1e-4)
    assert loss(3, error="l1") == pytest.approx(3)
    with pytest.raises(ValueError, match=r"loss.error must be wing or l1, got 'l2'"):
        CoordinateLoss(64, error="l2")


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("hourglass", {"stacks": 5}, "stacks must be 1 to 4, got 5"),
        ("hourglass", {"pretrained": True}, "hourglass_stem has no ImageNet weights"),
        ("pose_machine", {"stages": 0}, "stages must be 1 or more"),
        ("simple_baseline", {"output_stride": 4}, "output_stride must be 8, 16 or 32"),
        ("simple_baseline", {"decoder": "best"}, r"decoder must be one of argmax, .*, got 'best'"),
        ("hrnet", {"shape": "box"}, r"shape must be one of gaussian, cauchy, got 'box'"),
        ("hrnet", {"input_size": 72}, "input_size 72 must be a multiple of 32"),
        ("coarse_to_fine", {"window": 8}, "window must be an odd number of cells from 7"),
    ],
)
def test_wrong_arguments_are_one_sentence(name, arguments, said):
    with pytest.raises(ValueError, match=said):
        small(name, **arguments)


def test_a_checkpoint_names_its_network_unless_it_is_pipnet(tmp_path):
    net = small("pose_machine", stages=2)
    path = tmp_path / "best.pt"
    checkpoint.save(path, net, layout=SEVEN, crop_scale=1.2, training={})
    content = checkpoint.read(path)
    assert content["network"] == "pose_machine"
    assert checkpoint.holds(content, net)
    assert not checkpoint.holds(content | {"network": "hrnet"}, net)
    loaded = checkpoint.load(path)
    assert loaded.net.arguments == net.arguments
    images = torch.from_numpy(CROPS).permute(0, 3, 1, 2)
    assert torch.equal(loaded.net.predict(images).points_unit, net.eval().predict(images).points_unit)
    pipnet = NETWORKS["pipnet"](MEAN_FACE, "mobilenet_v3_small", num_neighbors=2, input_size=64)
    checkpoint.save(path, pipnet, layout=SEVEN, crop_scale=1.2, training={})
    assert "network" not in checkpoint.read(path)
    torch.save(content | {"network": "unknown"}, path)
    with pytest.raises(CheckpointError, match=r"best.pt: no network 'unknown'; known: pipnet, coordinate"):
        checkpoint.load(path)


def test_coordinates_of_a_crop_and_its_mirror_image_vote(tmp_path):
    net = small("coordinate", flips=[1, 0, 2, 3, 4, 5, 6])
    torch.nn.init.normal_(net.head.weight, std=0.1)
    crops = torch.from_numpy(CROPS).permute(0, 3, 1, 2)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # that is, what it has seen, here the crops once
    with torch.no_grad():
        assert net(net.normalize(crops)).shape == (1, 8, 7, 2)
        net.eval()
        votes = net.count_votes(net(net.normalize(crops)))
        points = net.predict(crops).points_unit
        mirrored = net.predict(crops.flip(-1)).points_unit[:, net.flips]
    torch.testing.assert_close(points, torch.stack([1 - mirrored[..., 0], mirrored[..., 1]], dim=-1))
    assert (votes.spread.std(dim=0) > 0.01).all()  # tells one face from another
    export_onnx(checkpoint.LoadedModel(net, SEVEN, 1.25, {}), tmp_path / "net.onnx")
    export_openvino(tmp_path / "net.onnx", tmp_path / "net.xml")
    for file, runtime in (("net.onnx", "onnxruntime"), ("net.xml", "openvino")):
        np.testing.assert_allclose(open_runtime(tmp_path / file, runtime)(CROPS)[0], points, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("file", ["net.pt", "net.onnx"])
def test_faces_whose_scores_are_all_alike_are_looked_at_once(file, tmp_path, monkeypatch):
    """Nothing would say which of two views is better."""
    for name in ("coordinate", "simple_baseline"):
        net = small(name).eval()
        checkpoint.save(tmp_path / "net.pt", net, layout=SEVEN, crop_scale=1.25, training={})
        export_onnx(checkpoint.load(tmp_path / "net.pt"), tmp_path / "net.onnx")
        landmarker = FaceLandmarker.load(tmp_path / file)
        looked, views = landmarker._view, []
        monkeypatch.setattr(
            landmarker, "_view", lambda *asked, of=looked, to=views, **more: to.append(0) or of(*asked, **more)
        )
        landmarker(np.zeros((64, 64, 3), np.uint8), boxes=np.array([[10.0, 10, 50, 50]]))
        assert (len(views) == 1) == (name == "coordinate")


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_is_the_same_in_a_graph(decoder, tmp_path):
    net = small("simple_baseline", decoder=decoder).eval()
    last, crops = net.head, torch.from_numpy(CROPS).permute(0, 3, 1, 2)
    with torch.no_grad():  # maps that are not flat
        last.weight.mul_(5 / net(net.normalize(crops))[-1].std())
    expected = net.predict(crops)
    assert expected.points_unit.std() > 0.05
    export_onnx(checkpoint.LoadedModel(net, SEVEN, 1.25, {}), tmp_path / "net.onnx")
    export_openvino(tmp_path / "net.onnx", tmp_path / "net.xml")
    for file, runtime in (("net.onnx", "onnxruntime"), ("net.xml", "openvino")):
        for ours, theirs in zip(open_runtime(tmp_path / file, runtime)(CROPS), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("name", SMALL)
def test_it_self_trains(name, tmp_path):
    full = {"name": "full", "epochs": 1, "views": 2, "start": "teacher", "labelled_share": 0.5}
    listed = stages({"name": "labels", "epochs": 1, "pseudo": False}, full | {"select": {"weighted": True}})
    arguments = [argument for argument in SELF_TRAINING if "num_neighbors" not in argument]
    own = [*arguments, "model=rival", "~model.net_stride", "model.backbone=timm/test_efficientnet", *overrides(name)]
    settings = config(tmp_path / "run", listed, primary="self_train", arguments=own)
    loaded = checkpoint.load(run_here(self_train, settings))
    assert type(loaded.net) is NETWORKS[name]
    selected = stages({"name": "labels", "epochs": 1, "pseudo": False}, full | {"select": {"min_face": 0.3}})
    if name == "coordinate":
        with pytest.raises(ValueError, match="stage full selects faces by their scores"):
            run_here(self_train, config(tmp_path / "selected", selected, primary="self_train", arguments=own))
    coarse = stages({"name": "labels", "epochs": 1, "pseudo": False}, {"name": "coarse", "epochs": 1, "pool_factor": 2})
    with pytest.raises(ValueError, match="stage coarse has pool_factor: 2, a coarse task that only PIPNet has"):
        run_here(self_train, config(tmp_path / "coarse", coarse, primary="self_train", arguments=own))
