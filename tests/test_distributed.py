"""Two processes train as one, and share out the faces of each batch."""

from pathlib import Path

import pytest
import torch
from distributed_worker import fail, train, train_twice
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run, run_two
from small_training import ARGUMENTS, place, train_here
from test_resume import stop_at

from pipnet.console import StopRequest
from pipnet.data.dataset import EpochBatches
from pipnet.model import checkpoint
from pipnet.training.distributed import Processes, TrainingError, in_step, join_processes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folders of the same training by one process, by two, and by two in bfloat16."""
    one, two, hybrid = map(tmp_path_factory.mktemp, ("one", "two", "hybrid"))
    with join_processes("cpu") as alone:
        train(one, alone)
    done = run_two(train_twice, two, hybrid)
    assert done.returncode == 0, done.stderr
    return one, two, hybrid


def test_weights_and_batch_norm_statistics_are_those_of_one_process(trained):
    one, two = (checkpoint.read(folder / "last.pt") for folder in trained[:2])
    start = one["resume"]["net"]
    for a, b in ((start, two["resume"]["net"]), (one["weights"], two["weights"])):
        assert list(a) == list(b)
        for key in a:
            torch.testing.assert_close(b[key], a[key], rtol=1e-4, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")
    assert int(start["backbone.0.1.num_batches_tracked"]) == 6
    assert start["backbone.0.1.running_mean"].abs().max() > 0.01  # it did learn them


def test_losses_and_validation_are_those_of_one_process_which_writes(trained):
    one, two, rough = (checkpoint.read(folder / "last.pt")["resume"]["history"] for folder in trained)
    for a, b in zip(one, two, strict=True):
        assert a.pop("faces_per_second") > 0
        assert b.pop("faces_per_second") > 0
        assert b == pytest.approx(a, rel=1e-4)
        assert b["val_nme"] == pytest.approx(a["val_nme"], abs=1e-4 * a["val_nme"])
    assert rough[-1]["loss"] == pytest.approx(one[-1]["loss"], rel=0.05)
    for folder in trained:
        assert sorted(path.name.split(".")[0] for path in folder.iterdir()) == ["best", "events", "last"]


@pytest.mark.timeout(300)
def test_what_fails_on_the_main_process_fails_on_all(tmp_path):
    done = run_two(fail, tmp_path)
    lines = [(tmp_path / rank).read_text().splitlines() for rank in "01"]
    assert "KeyError 'a bug'" in lines[0]
    assert "TrainingError a training" in lines[0]
    assert "in step 10" in lines[0]
    assert "TwoWordsError two words" in lines[0]
    assert [line.replace("TwoWordsError", "ValueError") for line in lines[0]] == lines[1]
    assert len(lines[0]) == 7
    assert done.returncode == 1
    assert done.stderr.count("pipnet.model.checkpoint.CheckpointError: the end") == 2


@pytest.mark.slow
@pytest.mark.timeout(1500)  # many starts of Python, on a machine that may be busy
def test_the_command_under_torchrun_resumes_together(tmp_path, monkeypatch):
    stop_at(monkeypatch, step=3)
    with pytest.raises(TrainingError):
        train_here(tmp_path)
    # On this machine's loopback, on a free port.
    options = ("--nnodes=1", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0")
    options += ("--local-addr=localhost", "-m", "pipnet.train")
    more = {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = run("torch.distributed.run", *options, *ARGUMENTS, f"folder={tmp_path}", **more)
    assert done.returncode == 0, done.stderr
    assert place(tmp_path) == (2, 0)
    assert done.stdout.count("resumes at epoch 1, batch 5") == 1  # one process speaks


@pytest.mark.parametrize(
    ("heard", "work", "error", "message"),
    [
        ((True, False, "the disk is full"), [], TrainingError, "another process has ended: the disk is full"),
        ((False, True, None), [1, 2], TrainingError, "stopped on request"),
        ((False, False, None), [1, 0], ZeroDivisionError, "division by zero"),
    ],
)
def test_nobody_waits_for_a_process_that_has_ended_or_was_asked_to_stop(heard, work, error, message):
    told = []

    class OneOfTwo(Processes):
        def gathered(self, value):
            told.append(value)
            return [heard, value]

    pieces = (1 / piece for piece in work)
    with StopRequest(alone=False) as stop, pytest.raises(error, match=message):
        in_step(pieces, OneOfTwo(1, 2, torch.device("cpu")), stop, "stopped on request")
    assert told == [(error is TrainingError, False, message if error is ZeroDivisionError else None)]


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
    with pytest.raises(ValueError, match="batch size 9 can't be shared by 2 processes; choose a multiple"):
        EpochBatches(20, 9, seed=0, world_size=2)
