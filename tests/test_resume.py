"""A training that was killed, stopped or ran out of disk goes on to the numbers of one that was not."""

import os
import random
import resource
import signal
import time

import numpy as np
import pytest
import torch
from processes import run, start
from small_training import ARGUMENTS, EPOCHS, STEPS_AN_EPOCH, assert_same, outcome, place, train_here

from pipnet.model import checkpoint
from pipnet.model.checkpoint import CheckpointError
from pipnet.training.optimization import Schedule
from pipnet.training.state import TrainingError, TrainingState


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train_here(folder)
    return folder


def stop_at(monkeypatch, step, number=signal.SIGTERM):
    """Let a signal arrive in the middle of step ``step`` (from 0) of this process's training."""
    asked, multiple = [], Schedule.multiple

    def signalling(schedule, epoch):
        if len(asked) == step:
            signal.raise_signal(number)
        asked.append(epoch)
        return multiple(schedule, epoch)

    monkeypatch.setattr(Schedule, "multiple", signalling)


def changes(path, count):
    """Wait until a file was written ``count`` times."""
    seen, deadline = os.stat(path).st_mtime_ns if path.exists() else None, time.monotonic() + 600
    while count:
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.001)
        now = os.stat(path).st_mtime_ns if path.exists() else None
        if now != seen:
            seen, count = now, count - 1


def test_same_command_same_numbers_and_another_seed_others(whole, tmp_path):
    train_here(tmp_path / "again")
    assert_same(outcome(whole), outcome(tmp_path / "again"))
    assert len(outcome(whole)["history"]) == EPOCHS
    train_here(tmp_path / "other", "seed=1")
    assert not torch.equal(outcome(whole)["net"]["head.weight"], outcome(tmp_path / "other")["net"]["head.weight"])


def test_killed_at_any_moment_and_started_again(whole, tmp_path):
    moments, places = random.Random(0), []
    for writes in (0, 2, 1):
        process = start(train_here, tmp_path, "fit.save_minutes=0")
        if writes:
            changes(tmp_path / "last.pt", writes)
        time.sleep(moments.uniform(0, 0.06))  # while it computes, or while it writes
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        if (tmp_path / "last.pt").exists():
            places.append(place(tmp_path))
    assert any(0 < batch < STEPS_AN_EPOCH for _, batch in places), places
    assert places == sorted(places)
    done = run("pipnet.train", *ARGUMENTS, f"folder={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "resumes at epoch" in done.stdout
    assert_same(outcome(whole), outcome(tmp_path))
    assert not list(tmp_path.glob(".*.pt")), "what a kill left half written is swept up"


def test_a_stop_signal_finishes_the_step_and_saves(whole, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        stop_at(patch, step=8, number=signal.SIGINT)
        with pytest.raises(TrainingError, match=r"stopped on request after epoch 2, batch 3; the same command resumes"):
            train_here(tmp_path)
    assert place(tmp_path) == (1, 3)
    assert signal.getsignal(signal.SIGINT) is before
    train_here(tmp_path)
    assert_same(outcome(whole), outcome(tmp_path))


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    # A script's background job ignores Ctrl-C, and so would everything it starts, this test included.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        from pipnet.console import StopRequest

        with StopRequest(alone=True) as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        with StopRequest(alone=False) as stop:  # torchrun repeats what the terminal sent
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        assert stop.asked
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_finished_training_does_nothing_and_says_so(whole, capfd):
    before = {path: path.stat().st_mtime_ns for path in whole.iterdir()}
    result = train_here(whole)
    assert "is finished, nothing to do" in capfd.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.iterdir()} == before
    assert len(result.history) == EPOCHS


def small_disk(folder, log):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))  # bytes a file may have
    try:
        train_here(folder, "fit.save_minutes=0")
    except OSError as error:
        log.write_text(str(error))


def test_a_full_disk_leaves_the_older_state(whole, tmp_path, monkeypatch):
    folder, log = tmp_path / "run", tmp_path / "log"
    with monkeypatch.context() as patch:
        stop_at(patch, step=3)
        with pytest.raises(TrainingError):
            train_here(folder)
    before = (folder / "last.pt").read_bytes()
    process = start(small_disk, folder, log)
    process.join()
    assert f"{folder / 'last.pt'} can't be written" in log.read_text()
    assert "\n" not in log.read_text()
    assert (folder / "last.pt").read_bytes() == before
    assert not list(folder.glob(".*.pt"))
    train_here(folder)
    assert_same(outcome(whole), outcome(folder))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_a_cut_off_state_is_refused_in_one_sentence(whole, tmp_path, keep):
    data = (whole / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CheckpointError, match=rf"^.*{tmp_path / 'last.pt'}.*$") as refusal:
        train_here(tmp_path) if keep == 0.5 else checkpoint.read(tmp_path / "last.pt")
    assert "\n" not in str(refusal.value)


def test_a_flipped_byte_is_never_taken_for_a_weight(whole, tmp_path):
    last, whole = tmp_path / "last.pt", (whole / "last.pt").read_bytes()
    for at in np.random.default_rng(0).random(8):
        data = bytearray(whole)
        data[int(at * len(data))] ^= 0x40
        last.write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"{last} is damaged"):
            checkpoint.read(last)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("model.num_neighbors=4", "belongs to another network"),
        ("fit.epochs=3", "epochs=2, now epochs=3"),
        ("fit.ema_decay=0", "ema_decay=0.998, now ema_decay=0"),
        ("optim.lr=0.5", "optim.lr=0.001, now optim.lr=0.5"),
        ("transform=none", "transform.mirror_p=0.5, now transform.mirror_p=0"),
        ("loss.score_weight=1", "loss.score_weight=10, now loss.score_weight=1"),
    ],
)
def test_another_setting_is_refused_by_name(whole, tmp_path, changed, message):
    (tmp_path / "last.pt").write_bytes((whole / "last.pt").read_bytes())
    with pytest.raises(TrainingError, match=message) as refusal:
        train_here(tmp_path, changed)
    assert "choose another folder" in str(refusal.value)


def test_shared_weights_are_no_state_to_go_on_from(whole, tmp_path):
    (tmp_path / "last.pt").write_bytes((whole / "best.pt").read_bytes())
    with pytest.raises(TrainingError, match="belongs to another network"):
        train_here(tmp_path)


def test_a_run_of_0_4_resumes(whole, tmp_path):
    content = torch.load(whole / "last.pt", weights_only=True)
    config = content["training"]["config"]
    config["box_scale"] = config.pop("crop_scale")
    config["optim"]["trunk_lr"] = config["optim"].pop("backbone_lr")
    config["transform"]["box_scale"] = config["transform"].pop("box_scale_jitter")
    content["box_scale"] = content.pop("crop_scale")
    torch.save(content, tmp_path / "last.pt")
    (tmp_path / "best.pt").write_bytes((whole / "best.pt").read_bytes())
    assert len(train_here(tmp_path).history) == EPOCHS


def test_a_nan_is_never_the_best():
    state = TrainingState.__new__(TrainingState)
    state.best_nme = float("inf")
    assert [state.improves(nme) for nme in (5.0, float("nan"), 4.0, 4.5)] == [True, False, True, False]
    assert state.best_nme == 4.0
