"""A training from outside: the loss guard, what it learns, what it shows, and where it runs."""

import math

import numpy as np
import pytest
import torch
from small_training import CPU, LAYOUT, STEPS_AN_EPOCH, batch_of, config, drawn, place, small_net, train_here
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import default_collate

import pipnet.model.pipnet
import pipnet.train
from pipnet.data.dataset import FaceCrops
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.metrics import nme, norm_distances
from pipnet.model import checkpoint
from pipnet.model.codec import mean_shape
from pipnet.model.loss import PIPLoss
from pipnet.model.pipnet import PIPNet
from pipnet.training.distributed import join_processes
from pipnet.training.optimization import Schedule, build_optimizer, train_mode
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


assert STEPS_AN_EPOCH == 6  # the step numbers above count on it
