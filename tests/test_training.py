"""The training stack, part by part: loss guard, averaging, schedules, optimiser, freezing, precision, batches."""

import math
import subprocess
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training import STEPS_AN_EPOCH, command, config, place, train_here
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pipnet.train
from pipnet.config import called
from pipnet.data.dataset import EpochBatches, FaceCrops
from pipnet.data.synthetic import draw_faces
from pipnet.data.transforms import Augment
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.codec import encode, mean_shape
from pipnet.model.loss import PIPLoss
from pipnet.model.pipnet import PIPNet
from pipnet.training.engine import fit
from pipnet.training.optimization import (
    averaged,
    build_optimizer,
    freeze_trunk,
    lr_schedule,
    mixed_precision,
    train_mode,
)
from pipnet.training.processes import processes
from pipnet.training.state import TrainingError
from pipnet.training.validation import Validation

LAYOUT = get_layout("300w_68")
CPU = torch.device("cpu")


def small_net(num_neighbors=3, backbone="mobilenet_v3_small"):
    torch.manual_seed(0)
    mean_face = np.random.default_rng(0).random((68, 2))
    return PIPNet(mean_face, backbone, num_neighbors=num_neighbors, input_size=64)


def drawn(count, seed=0, **more):
    return FaceCrops(draw_faces(count, seed=seed, size=96), LAYOUT, input_size=64, box_scale=1.25, **more)


def batch_of(faces, count):
    crops = [faces[0, index] for index in range(count)]
    return torch.stack([c["image"] for c in crops]).permute(0, 3, 1, 2), torch.stack([c["points"] for c in crops])


# --- the loss guard


def fail_at(monkeypatch, step, value=float("nan")):
    calls = []

    class Failing(PIPLoss):
        def forward(self, output, targets):
            terms = super().forward(output, targets)
            calls.append(0)
            return {**terms, "offset_y": terms["offset_y"] * value} if len(calls) == step + 1 else terms

    monkeypatch.setattr(pipnet.train, "PIPLoss", Failing)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_its_terms(tmp_path, monkeypatch, value):
    fail_at(monkeypatch, step=7, value=value)
    with pytest.raises(TrainingError) as stop:
        train_here(tmp_path)
    text = str(stop.value)
    assert "not finite at epoch 2, batch 2: score " in text
    assert f"offset_y {value:.4g}" in text
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

    monkeypatch.setattr(pipnet.train, "PIPLoss", Failing)
    with pytest.raises(
        TrainingError, match=r"epoch 1, batch 1: score [\d.]+.* gradient nan; no state was saved before"
    ):
        train_here(tmp_path, "fit.clip_norm=0")
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.slow
def test_the_command_ends_with_exit_code_1_and_one_sentence(tmp_path):
    done = subprocess.run(
        command(tmp_path, "optim.name=sgd", "optim.lr=1e30", "fit.clip_norm=0"), capture_output=True, text=True
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "not finite" in lines[0]
    if (tmp_path / "last.pt").exists():  # whatever was saved before is whole and finite
        weights = checkpoint.read(tmp_path / "last.pt")["resume"]["net"]
        assert all(values.isfinite().all() for values in weights.values())


# --- it learns


def test_one_batch_is_learnt_by_heart(tmp_path):
    faces = drawn(8)
    validation = Validation(faces, LAYOUT)
    torch.manual_seed(0)
    net = PIPNet(mean_shape(faces.plain_points()), "mobilenet_v3_small", num_neighbors=3, input_size=64)
    with processes("cpu") as team:
        result = fit(
            net,
            faces,
            validation=validation,
            layout=LAYOUT,
            box_scale=1.25,
            folder=tmp_path,
            build_optimizer=partial(build_optimizer, lr=0.002),
            schedule=lr_schedule(name="cosine", warmup_epochs=5),
            team=team,
            epochs=150,
            batch_size=8,
            ema_decay=0.9,
            validate_every=50,
            progress_bar=False,
        )
    first, last = result.history[0], result.history[-1]
    assert last["loss"] < 0.05 * first["loss"]
    assert last["val_nme"] < 2.5  # percent; the mean face scores more than 20
    assert validation.mean_face_nme(mean_shape(faces.plain_points())) > 20
    assert last["val_nme"] == pytest.approx(validation(checkpoint.load(result.last).net, CPU)["val_nme"])


# --- averaging


def test_the_average_follows_its_formula():
    torch.manual_seed(0)
    net = small_net()
    average = averaged(net, decay=0.5)
    expected = {}
    for n in range(12):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_()
                    module.num_batches_tracked += 1
        average.update_parameters(net)
        decay = 0.0 if n == 0 else min(0.5, (1 + n) / (10 + n))
        for key, values in net.state_dict().items():
            if values.is_floating_point():
                expected[key] = decay * expected.get(key, torch.zeros_like(values)) + (1 - decay) * values
    assert [min(0.5, (1 + n) / (10 + n)) for n in (1, 4, 8, 9)] == [2 / 11, 5 / 14, 0.5, 0.5]
    for key, values in average.module.state_dict().items():
        if values.is_floating_point():
            torch.testing.assert_close(values, expected[key], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(values, net.state_dict()[key]), key
    for key, values in average.module.named_buffers():  # index tables above all
        if not key.endswith(("running_mean", "running_var")):
            assert torch.equal(values, dict(net.named_buffers())[key]), key
            assert values.dtype == dict(net.named_buffers())[key].dtype


# --- learning rate and groups


def test_the_paper_s_steps():
    schedule = lr_schedule(name="steps", milestones=[30, 50], gamma=0.1)
    values = [schedule(epoch, 60) for epoch in (0, 29.999, 30, 49.999, 50, 59.999)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_and_cosine():
    schedule = lr_schedule(name="cosine", warmup_epochs=2, final=0.02)
    assert schedule(0, 22) == pytest.approx(0.01)
    assert schedule(1, 22) == pytest.approx(0.01 + 0.99 / 2)
    assert schedule(2, 22) == pytest.approx(1.0)
    assert schedule(12, 22) == pytest.approx(0.02 + 0.98 / 2)
    assert schedule(7, 22) == pytest.approx(0.02 + 0.98 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule(22, 22) == pytest.approx(0.02)
    with pytest.raises(ValueError, match="no schedule 'linear'; known: steps, cosine"):
        lr_schedule(name="linear")


def test_only_weights_of_convolutions_decay_and_the_trunk_has_its_own_rate():
    net = small_net()
    optimizer = build_optimizer(net, name="adamw", lr=0.01, weight_decay=0.1, trunk_lr=0.5)
    settings_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(settings_of) == len(list(net.parameters())), "every parameter trains, once"
    kinds = set()
    for key, parameter in net.named_parameters():
        group = settings_of[id(parameter)]
        assert group["weight_decay"] == (0.1 if parameter.dim() == 4 else 0.0), key
        assert group["lr"] == pytest.approx(0.005 if key.startswith("trunk.") else 0.01), key
        kinds.add((key.startswith("trunk."), parameter.dim() == 4))
    assert len(kinds) == 4
    biases = [key for key, p in net.named_parameters() if key.endswith("bias") and settings_of[id(p)]["weight_decay"]]
    assert not biases


def test_wrong_options_of_the_optimizer_are_one_sentence():
    with pytest.raises(ValueError, match="no optimizer 'adagrad'; known: adam, adamw, sgd"):
        build_optimizer(small_net(), name="adagrad")
    with pytest.raises(ValueError, match=r"optimizer adamw: .*momentum"):
        build_optimizer(small_net(), name="adamw", momentum=0.9)


def test_a_wrong_key_names_its_group_but_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match=r"config group 'transform': .*'tilt'"):
        called(Augment, "transform", {"tilt": 1})

    def faulty(number):
        return number + "1"

    with pytest.raises(TypeError):
        called(faulty, "fit", {"number": 1})


# --- freezing


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet18"])
def test_frozen_blocks_keep_weights_and_statistics_and_all_else_moves(backbone):
    net, frozen = small_net(backbone=backbone), 5
    freeze_trunk(net, frozen)
    train_mode(net)
    assert net.training
    assert net.head.training
    optimizer = build_optimizer(net, name="adamw", lr=0.01, weight_decay=0.1)
    before = {key: values.clone() for key, values in net.state_dict().items()}
    images, points = batch_of(drawn(4), 4)
    for _ in range(2):
        terms = PIPLoss()(net(net.normalize(images)), encode(points, net.neighbors, net.grid))
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    names = [name for name, _ in net.trunk.named_children()][:frozen]
    kept = tuple(f"trunk.{name}." for name in names)
    assert any(key.startswith(kept) for key in before)
    for key, values in net.state_dict().items():
        same = torch.equal(values, before[key])
        assert same == key.startswith(kept), f"{key} {'kept' if same else 'changed'}"


# --- precision


@pytest.mark.parametrize("precision", ["hybrid", "bfloat16"])
def test_mixed_precision_gives_nearly_the_same_gradient(precision):
    images, points = batch_of(drawn(16), 16)
    gradients, keys = {}, {}
    for name in ("float32", precision):
        net = small_net().train()
        with torch.no_grad():
            net.head.weight.mul_(30)  # as after some training: at the start hardly any gradient reaches the trunk
        context = mixed_precision(net, name, CPU)
        with context():
            output = net(net.normalize(images))
        assert output.score_map.dtype == (torch.float32 if name == "float32" else torch.bfloat16)
        sum(PIPLoss()(output, encode(points, net.neighbors, net.grid)).values()).backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in net.parameters()])
        keys[name] = list(net.state_dict())
        assert gradients[name].dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(gradients["float32"], gradients[precision], dim=0)
    assert cosine > 0.99
    assert not torch.equal(gradients["float32"], gradients[precision])
    assert keys["float32"] == keys[precision]


def test_auto_is_float32_on_a_cpu_and_a_wrong_name_is_refused():
    net = small_net()
    with mixed_precision(net, "auto", CPU)():
        assert net(torch.zeros(1, 3, 64, 64)).score_map.dtype == torch.float32
    with pytest.raises(ValueError, match="got 'float16'"):
        mixed_precision(net, "float16", CPU)


# --- batches


@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 60), st.integers(0, 2**31), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_processes_share_out_each_batch_and_no_face_comes_twice(world_size, share, extra, seed, epoch):
    size = world_size * share
    count = size + extra
    ranks = [EpochBatches(count, size, seed=seed, rank=rank, world_size=world_size) for rank in range(world_size)]
    one = EpochBatches(count, size, seed=seed)
    for batches in (one, *ranks):
        batches.start(epoch)
    whole = list(one)
    assert len(whole) == len(one) == count // size
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert [len(part) for part in parts] == [share] * world_size
        assert sorted(key for part in parts for key in part) == sorted(batch)
    seen = [index for batch in whole for _, index in batch]
    assert len(set(seen)) == len(seen) == count // size * size
    assert set(seen) <= set(range(count))
    assert {e for batch in whole for e, _ in batch} == {epoch}
    middle = len(whole) // 2
    one.start(epoch, middle)
    assert list(one) == whole[middle:]


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        batches = EpochBatches(100, 10, seed=seed)
        batches.start(epoch)
        orders.append(tuple(index for batch in batches for _, index in batch))
    assert len(set(orders)) == 3
    with pytest.raises(ValueError, match=r"4 faces are fewer than one batch of 8; lower fit\.batch_size"):
        EpochBatches(4, 8, seed=0)


# --- what a person watches


def test_tensorboard_has_every_term_nme_throughput_and_pictures(tmp_path):
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


def test_a_resumed_run_replaces_the_curve_of_lost_steps_only(tmp_path, monkeypatch):
    fail_at(monkeypatch, step=11)
    with pytest.raises(TrainingError):
        train_here(tmp_path, "fit.save_minutes=1000")  # 11 steps taken, 6 saved: 10 was logged and is lost
    monkeypatch.undo()
    assert place(tmp_path) == (1, 0)
    train_here(tmp_path, "fit.save_minutes=1000")
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    assert [event.step for event in events.Scalars("loss/total")] == [10]
    assert [event.step for event in events.Scalars("epoch/val_nme")] == [1, 2]


# --- validation


def test_a_validation_set_that_measures_nothing_is_refused():
    samples = draw_faces(3, seed=0, size=96)
    with pytest.raises(ValueError, match="no face to validate on"):
        Validation(FaceCrops([], LAYOUT, input_size=64, box_scale=1.25), LAYOUT)
    for sample in samples:
        sample.points[36] = np.nan  # an outer eye corner
    with pytest.raises(ValueError, match="no validation face has both points of norm_pair"):
        Validation(FaceCrops(samples, LAYOUT, input_size=64, box_scale=1.25), LAYOUT)


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


def test_loader_processes_change_nothing(tmp_path):
    train_here(tmp_path / "none")
    train_here(tmp_path / "two", "fit.workers=2")
    a, b = (checkpoint.read(tmp_path / name / "last.pt") for name in ("none", "two"))
    assert all(torch.equal(a["weights"][key], b["weights"][key]) for key in a["weights"])
    assert torch.equal(a["resume"]["torch_rng"], b["resume"]["torch_rng"])


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_command_trains_on_cuda(tmp_path):
    settings = config(tmp_path, "device=auto")
    with processes(settings["device"]) as team:
        assert team.device.type == "cuda"
        result = pipnet.train.train(settings, team)
    assert all(math.isfinite(record["loss"]) for record in result.history)
    assert place(tmp_path) == (2, 0)
    loaded = checkpoint.load(result.best, device="cuda")
    assert loaded.net.predict(torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device="cuda")).points_unit.is_cuda
    assert next(checkpoint.load(result.best).net.parameters()).device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_card_says_so():
    with pytest.raises(ValueError, match="device=cuda, but torch sees no CUDA device"), processes("cuda"):
        pass


assert STEPS_AN_EPOCH == 6  # the step numbers above count on it
