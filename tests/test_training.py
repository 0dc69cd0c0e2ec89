"""A training from outside: the loss guard, what it learns, what it shows, and where it runs."""

import csv
import math
import re

import numpy as np
import pytest
import torch
from small_self_training import config as self_training_config
from small_training import ARGUMENTS, CPU, LAYOUT, STEPS_AN_EPOCH, batch_of, config, drawn, place, small_net, train_here
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import default_collate

import pipnet.model.pipnet
import pipnet.train
from pipnet.data.dataset import FaceCrops
from pipnet.data.images import write_image
from pipnet.data.sample import tilts
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.geometry import roll_angles
from pipnet.layouts import get_layout, same_points
from pipnet.metrics import nme, norm_distances
from pipnet.model import checkpoint
from pipnet.model.codec import mean_shape
from pipnet.model.loss import PIPLoss
from pipnet.model.networks import network_class
from pipnet.model.pipnet import PIPNet
from pipnet.self_train import self_train
from pipnet.train import build_training_data
from pipnet.training.distributed import join_processes
from pipnet.training.optimization import Schedule, build_optimizer, train_mode
from pipnet.training.setup import build_network, check_settings, start_from
from pipnet.training.state import TrainingError, TrainingState
from pipnet.training.trainer import FitSettings, fit, train_step
from pipnet.training.validation import Validation


def fail_at(monkeypatch, step):
    calls = []

    class Failing(PIPLoss):
        def forward(self, output, targets):
            terms = super().forward(output, targets)
            calls.append(0)
            return {**terms, "offset_y": terms["offset_y"] * float("inf")} if len(calls) == step + 1 else terms

    monkeypatch.setattr(pipnet.model.pipnet, "PIPLoss", Failing)


def test_a_loss_that_is_not_finite_stops_with_its_terms(tmp_path, monkeypatch):
    fail_at(monkeypatch, step=7)
    with pytest.raises(TrainingError) as stop:
        train_here(tmp_path, "fit.save_minutes=0")
    text = str(stop.value)
    assert "not finite at epoch 2, batch 2: score " in text
    assert "offset_y inf" in text
    assert all(name in text for name in ("offset_x", "neighbor_x", "neighbor_y", "gradient", "last.pt holds"))
    assert "\n" not in text
    assert place(tmp_path) == (1, 1)
    weights = checkpoint.read(tmp_path / "last.pt")["resume"]["net"]
    assert all(values.isfinite().all() for values in weights.values())
    monkeypatch.undo()
    assert len(train_here(tmp_path).history) == 2  # the state is good: without the fault it goes on


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path, monkeypatch):
    class Poison(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values):
            return values.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    class Failing(PIPLoss):
        def forward(self, output, targets):
            return {name: Poison.apply(term) for name, term in super().forward(output, targets).items()}

    monkeypatch.setattr(pipnet.model.pipnet, "PIPLoss", Failing)
    with pytest.raises(
        TrainingError, match=r"epoch 1, batch 1: score [\d.]+.* gradient nan; no state was saved before"
    ):
        train_here(tmp_path, "fit.clip_norm=0")
    assert not (tmp_path / "last.pt").exists()


def test_one_batch_is_learnt_by_heart(tmp_path):
    faces = drawn(8)
    validation, batch = Validation(faces, LAYOUT), default_collate([faces[0, index] for index in range(8)])
    torch.manual_seed(0)
    net = PIPNet(mean_shape(faces.plain_points()), "mobilenet_v3_small", num_neighbors=3, input_size=64)
    schedule, losses = Schedule(60, name="cosine", warmup_epochs=5), []
    with join_processes("cpu") as processes:
        net = processes.place(net)
        optimizer = build_optimizer(net, lr=0.003)
        run = TrainingState(net, None, optimizer, LAYOUT, 1.25, tmp_path, {})
        train_mode(net)
        for step in range(60):
            run.set_lr(schedule.multiple(step))
            terms, asked = train_step(run, net, batch, PIPLoss(), processes)
            losses.append(sum(terms.values()))
            assert not asked
        assert losses[-1] < 0.02 * losses[0]
        # Of this very batch, as in training: statistics of 8 faces on 2 x 2 cells are too rough to predict others with.
        images, points = batch_of(faces, 8)
        with torch.no_grad():
            predicted = net.interpret(net(net.normalize(images))).points_unit
        errors = 100 * nme(predicted.numpy(), points.numpy(), norm_distances(points.numpy(), LAYOUT)["outer_eye"])
        assert errors.max() < 1  # percent; the mean face scores more than 15
        assert validation.mean_face_nme(mean_shape(faces.plain_points())) > 15
        result = fit(
            net,
            faces,
            FitSettings(epochs=1, batch_size=8, ema_decay=0.9, progress_bar=False),
            optimizer=optimizer,
            schedule=schedule,
            loss=PIPLoss(),
            validation=validation,
            processes=processes,
            folder=tmp_path,
        )
    (last,) = result.history
    assert last["val_nme"] == pytest.approx(validation(checkpoint.load(result.last).net, CPU)["val_nme"])


def test_tensorboard_has_all_figures_and_a_resumed_run_replaces_lost_steps_only(tmp_path, monkeypatch):
    fail_at(monkeypatch, step=11)
    with pytest.raises(TrainingError):
        train_here(tmp_path)  # 11 steps taken, 6 saved: 10 was logged and is lost
    monkeypatch.undo()
    assert place(tmp_path) == (1, 0)
    result = train_here(tmp_path)
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    terms = {"score", "offset_x", "offset_y", "neighbor_x", "neighbor_y"}
    scalars = set(events.Tags()["scalars"])
    assert {f"loss/{term}" for term in terms} | {"loss/total", "lr"} <= scalars
    assert {f"epoch/loss_{term}" for term in terms} <= scalars
    assert {"epoch/val_nme", "epoch/val_nme_box", "epoch/faces_per_second", "epoch/loss"} <= scalars
    for name in ("val_nme", "faces_per_second", "loss_score"):
        logged = [(event.step, event.value) for event in events.Scalars(f"epoch/{name}")]
        assert logged == [(record["epoch"], pytest.approx(record[name], rel=1e-5)) for record in result.history]
    assert [event.step for event in events.Scalars("loss/total")] == [10]  # every tenth of 2 x 6 steps
    assert [event.step for event in events.Images("validation")] == [1, 2]
    assert min(events.Images("validation")[0].width, events.Images("validation")[0].height) >= 64


def test_a_validation_set_that_measures_nothing_is_refused():
    samples = draw_faces(3, seed=0, size=96)
    with pytest.raises(ValueError, match="no face to validate on"):
        Validation(FaceCrops([], LAYOUT, input_size=64, crop_scale=1.25), LAYOUT)
    for sample in samples:
        sample.points[36] = np.nan  # an outer eye corner
    with pytest.raises(ValueError, match="no validation face has both points of norm_pair"):
        Validation(FaceCrops(samples, LAYOUT, input_size=64, crop_scale=1.25), LAYOUT)


def test_validation_equals_the_error_in_source_pixels():
    faces = drawn(4)
    net = small_net().eval()
    validation = Validation(faces, LAYOUT)
    guess = validation.predict(net, CPU)
    errors = []
    for sample, square, unit in zip(faces.samples, faces.squares, guess, strict=True):
        x, y, side = square
        predicted_px = unit * side + [x - side / 2, y - side / 2]
        eyes = np.linalg.norm(sample.points[36] - sample.points[45])
        errors.append(np.linalg.norm(predicted_px - sample.points, axis=1).mean() / eyes)
    assert validation(net, CPU)["val_nme"] == pytest.approx(100 * np.mean(errors), rel=1e-5)


@pytest.mark.slow
def test_a_loader_process_changes_nothing(tmp_path):
    train_here(tmp_path / "none")
    train_here(tmp_path / "one", "fit.workers=1")
    a, b = (checkpoint.read(tmp_path / name / "last.pt") for name in ("none", "one"))
    assert all(torch.equal(a["weights"][key], b["weights"][key]) for key in a["weights"])
    assert torch.equal(a["resume"]["torch_rng"], b["resume"]["torch_rng"])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_command_trains_on_cuda(tmp_path):
    settings = config(tmp_path, "device=auto")
    with join_processes(settings["device"]) as processes:
        assert processes.device.type == "cuda"
        result = pipnet.train.train(settings, processes)
    assert all(math.isfinite(record["loss"]) for record in result.history)
    assert place(tmp_path) == (2, 0)
    loaded = checkpoint.load(result.best, device="cuda")
    assert loaded.net.predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device="cuda")).points_unit.is_cuda
    assert next(checkpoint.load(result.best).net.parameters()).device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_card_says_so():
    with pytest.raises(ValueError, match="device=cuda, but torch sees no CUDA device"), join_processes("cuda"):
        pass


# What a training starts from.

SMALL = {"backbone": "mobilenet_v3_small", "input_size": 64}


def network(layout, seed, name="pipnet", mean_face=None, **more):
    """One with every weight random, so that none are equal by accident."""
    torch.manual_seed(seed)
    if mean_face is None:
        mean_face = np.random.default_rng(seed).random((get_layout(layout).num_points, 2))
    net = network_class(name)(mean_face, **{**SMALL, **more})
    for values in net.parameters():
        torch.nn.init.normal_(values, std=0.1)
    return net.eval()


def saved(path, net, layout):
    checkpoint.save(path, net, layout=get_layout(layout), crop_scale=1.25, training={})
    return str(path)


@pytest.mark.parametrize(
    ("source", "target", "neighbors"),
    [
        ("wflw_98", "300w_68", (10, 10)),
        ("300w_68", "wflw_98", (3, 8)),
        ("300w_68", "aflw_19", (10, 4)),
        ("300w_68", "300w_68", (10, 6)),
        ("300w_68", "300w_68", (0, 2)),
        ("300w_68", "cofw_29", (2, 2)),
    ],
)
def test_a_start_predicts_the_points_that_both_layouts_have(tmp_path, source, target, neighbors):
    """The maps of a point and of its neighbours are what they were, whatever their place; the rest is new."""
    start, net = network(source, 1, num_neighbors=neighbors[0]), network(target, 2, num_neighbors=neighbors[1])
    images = torch.rand(2, 3, 64, 64)
    net.backbone.load_state_dict(start.backbone.state_dict())
    before, weights = net(images), {name: values.clone() for name, values in net.head.state_dict().items()}
    said = start_from(net, get_layout(target), saved(tmp_path / "start.pt", start, source))
    expected, output = start(images), net(images)
    same = same_points(get_layout(source), get_layout(target))
    new, slots = [], 0
    for point in range(net.num_points):
        there = same.get(point)
        for maps in ("score_map", "offset_x", "offset_y"):
            wanted = getattr(before, maps)[:, point] if there is None else getattr(expected, maps)[:, there]
            torch.testing.assert_close(getattr(output, maps)[:, point], wanted, rtol=1e-5, atol=1e-6)
        new += [point] * (there is None)
        for slot, neighbor in enumerate(net.neighbors[point].tolist()):
            known = [] if there is None else start.neighbors[there].tolist()
            known = known.index(same[neighbor]) if same.get(neighbor) in known else None
            slots += known is not None
            for maps in ("neighbor_x", "neighbor_y"):
                wanted = getattr(before, maps)[:, point, slot]
                wanted = wanted if known is None else getattr(expected, maps)[:, there, known]
                torch.testing.assert_close(getattr(output, maps)[:, point, slot], wanted, rtol=1e-5, atol=1e-6)
    n, left = net.num_points, net.num_points * net.num_neighbors - slots
    all_slots = n * net.num_neighbors
    parts = [f"{len(new)} points"] * bool(new) + [f"{left} of {all_slots} neighbours"] * bool(left)
    taken = f"backbone and neck taken, of the head {n - len(new)} of {n} points"
    assert said == f"init_from {tmp_path}/start.pt: {taken}; new: {', '.join(parts) or 'nothing'}"
    rows = [row for part in range(3) for row in (part * n + np.array(new, dtype=int))]
    assert all(torch.equal(net.head.state_dict()[name][rows], weights[name][rows]) for name in weights)


def test_the_same_points_and_neighbours_are_the_same_start_to_the_last_bit(tmp_path, monkeypatch):
    """No ImageNet weights are asked for, though the config would have them."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))

    def download(*arguments, **more):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    faces = drawn(4)
    data = pipnet.train.TrainingData(
        LAYOUT, faces, faces.samples, Validation(faces, LAYOUT), mean_shape(faces.plain_points()), []
    )
    start = network("300w_68", 1, num_neighbors=3, mean_face=data.mean_face)
    settings = config(tmp_path, "model.pretrained=true", f"init_from={saved(tmp_path / 'start.pt', start, '300w_68')}")
    said: list[str] = []
    net = build_network(settings, data, seed=0, say=said.append)
    check_settings(settings, LAYOUT)
    own, theirs = net.state_dict(), start.state_dict()
    assert all(torch.equal(own[key], theirs[key]) for key in own | theirs)
    assert said == [
        f"init_from {settings['init_from']}: backbone and neck taken, of the head 68 of 68 points; new: nothing"
    ]
    assert not build_network(settings, data, seed=0, blank=True).state_dict()["head.bias"].any()
    with pytest.raises(OSError, match="ImageNet weights of mobilenet_v3_small could not be loaded"):
        build_network(settings | {"init_from": None}, data, seed=0)


NO_HEAD = "of the head 0 of 68 points; new: {}68 points, 680 of 680 neighbours"
COARSE = {"name": "coarse_to_fine"}


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ({"net_stride": 64}, {}, f"backbone taken, {NO_HEAD.format('')}"),
        ({}, {"net_stride": 64}, f"backbone taken, {NO_HEAD.format('neck, ')}"),
        ({"net_stride": 64}, {"net_stride": 64}, "backbone and neck taken, of the head 68 of 68 points; new: nothing"),
        ({}, {"name": "coordinate"}, "backbone taken; new: all other layers"),
        (
            {"name": "simple_baseline"},
            {},
            "12 of 13 blocks of the backbone taken; new: 1 of 13 blocks of the backbone, all other layers",
        ),
        (COARSE, COARSE, r"backbone taken, and (\d+) of \1 other weights; new: nothing"),
        ({"width": 16, **COARSE}, COARSE, r"backbone taken, and \d+ of \d+ other weights; new: \d+ weights"),
    ],
)
def test_what_is_built_otherwise_starts_anew(tmp_path, source, target, said):
    mean_face = np.random.default_rng(0).random((68, 2))
    start = network("300w_68", 1, mean_face=mean_face, **source)
    path, net = saved(tmp_path / "start.pt", start, "300w_68"), network("300w_68", 2, mean_face=mean_face, **target)
    assert re.fullmatch(f"init_from {path}: {said}", start_from(net, LAYOUT, path))
    own, theirs = net.state_dict(), start.state_dict()
    key = next(key for key in own if key.startswith("backbone."))
    assert torch.equal(own[key], theirs[key])
    if "new: nothing" in said:
        assert all(torch.equal(own[key], theirs[key]) for key in own)


def test_a_rival_of_other_points_takes_the_backbone_alone(tmp_path):
    path = saved(tmp_path / "start.pt", network("wflw_98", 1, "coordinate"), "wflw_98")
    assert start_from(network("300w_68", 2, "coordinate"), LAYOUT, path).endswith(
        ": backbone taken; new: all other layers"
    )


def test_a_start_of_another_backbone_is_refused(tmp_path):
    path = saved(tmp_path / "start.pt", network("300w_68", 1), "300w_68")
    choose = "set model.backbone=mobilenet_v3_small, or leave out init_from to start from ImageNet weights"
    with pytest.raises(
        ValueError, match=f"^init_from {path} has the backbone mobilenet_v3_small, .*resnet18; {choose}$"
    ):
        start_from(network("300w_68", 2, backbone="resnet18"), LAYOUT, path)
    hourglasses = {"name": "hourglass", "backbone": "hourglass_stem", "stacks": 1}
    path = saved(tmp_path / "start.pt", network("300w_68", 1, width=16, **hourglasses), "300w_68")
    with pytest.raises(ValueError, match="hourglass_stem in another size than the config"):
        start_from(network("300w_68", 2, width=32, **hourglasses), LAYOUT, path)


@pytest.mark.parametrize(
    ("group", "key"),
    [
        *[("optim", "lrr"), ("fit", "epoch"), ("model", "num_neighbours"), ("loss", "foo"), ("schedule", "bar")],
        *[("transform", "zoom"), ("rules", "min_scor"), ("self_training", "newest"), ("curriculum", "stage")],
    ],
)
def test_a_wrong_key_shows_before_a_face_is_read(tmp_path, monkeypatch, group, key):
    """As a config file of one's own can have it; on the command line Hydra knows better."""

    def read(*arguments):
        raise AssertionError("faces are read")

    monkeypatch.setattr(pipnet.train, "read_split", read)
    for run, made in ((pipnet.train.train, config), (self_train, self_training_config)):
        settings = made(tmp_path, "model.pretrained=true")
        with join_processes("cpu") as processes:
            with pytest.raises(AssertionError, match="faces are read"):
                run(settings, processes)
            if group in settings:
                settings[group] = settings[group] | {key: 1}
                with pytest.raises(ValueError, match=f"'{key}'"):
                    run(settings, processes)


def test_a_start_that_does_not_fit_shows_before_a_face_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pipnet.train, "read_split", lambda *_: pytest.fail("faces are read"))
    wrong = (("shipped", "init_from shipped has the backbone mobilenet_v2"), (tmp_path / "none.pt", "no checkpoint"))
    for named, error in wrong:
        with pytest.raises((ValueError, OSError), match=error):
            train_here(tmp_path, f"init_from={named}")


assert STEPS_AN_EPOCH == 6  # the step numbers above count on it


def test_faces_that_lie_are_trained_and_validated_upright(tmp_path):
    """The photo and the points of each third face are turned by a quarter; the crops show that nowhere."""
    for part, count in (("train", 12), ("val", 5)):
        with (tmp_path / f"{part}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["image", *(f"{axis}{point}" for point in range(68) for axis in "xy")])
            for number, sample in enumerate(draw_faces(count, seed=0, size=96)):
                image, points = sample.image, sample.points
                if number % 3 == 2:
                    image = np.rot90(image, -1)  # clockwise
                    points = np.column_stack([len(sample.image) - 1 - points[:, 1], points[:, 0]])
                write_image(tmp_path / f"{part}_{number}.png", np.ascontiguousarray(image))
                rows.writerow([f"{part}_{number}.png", *points.ravel()])
    faces = (
        "dataset=own_csv",
        f"dataset.root={tmp_path}",
        "dataset.layout=300w_68",
        "dataset.splits.train={file: train.csv, validation: include}",
        "dataset.splits.val={file: val.csv, validation: include}",
    )
    settings = config(tmp_path, *faces, arguments=[a for a in ARGUMENTS if not a.startswith("dataset")])
    training_data = build_training_data(settings)
    wanted = tilts(draw_faces(12, seed=0, size=96), training_data.mean_face) + np.array([0, 0, 90] * 4)
    angles = np.array([sample.angle for sample in training_data.faces.samples])
    cut_upright = angles != 0
    assert cut_upright[2::3].all()
    assert np.allclose(angles[cut_upright], wanted[cut_upright], atol=5)
    assert abs(wanted[~cut_upright]).max() < 35
    for points in (training_data.faces.plain_points(), training_data.validation.points):
        assert abs(roll_angles(points, training_data.mean_face)).max() < 30
        assert np.ptp(points, axis=1).min() > 0.3
