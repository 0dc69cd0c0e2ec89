"""The check of a GPU, tried on the CPU."""

from __future__ import annotations

import json

import pytest
import torch
from small_training import CPU, config

from pipnet.train import build_training_data
from pipnet.training import gpu_check
from pipnet.training.distributed import Processes
from pipnet.training.gpu_check import check_gpu
from pipnet.training.trainer import TrainingError

SMALL = (
    "experiment=gpu_check",
    "model.backbone=mobilenet_v3_small",
    "model.input_size=64",
    "fit.batch_size=4",
    "gpu_check={steps: 2, seconds: 0, workers: 0}",
    "dataset.splits.train={count: 8, size: 64}",
    "dataset.splits.val={count: 2, size: 64}",
)
ALONE = Processes(0, 1, CPU)


def checked(folder, *arguments, processes=ALONE):
    settings = config(folder, arguments=(*SMALL, "device=cpu", *arguments))
    return check_gpu(settings, build_training_data(settings), processes)


def test_a_cpu_computes_what_a_cpu_does_and_what_fails_is_a_row(tmp_path, monkeypatch, capsys):
    def compile(model):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", compile)
    figures = checked(tmp_path)
    assert figures == json.loads((tmp_path / "gpu_check.json").read_text())
    assert figures["compared"]["float32"] == figures["resumed"] == {"loss": 0, "weights": 0}
    assert 0 < figures["compared"]["bfloat16"]["weights"] < 0.5
    assert figures["speed"]["bfloat16, compiled"] == {"error": "no compiler"}
    measured = [of for of in figures["speed"].values() if "error" not in of]
    assert len(measured) == 4
    assert all(of["images_per_second"] > 0 and of["steps"] == 2 for of in measured)
    assert "no compiler" in capsys.readouterr().out


def test_a_device_that_computes_something_else_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "TOLERANCES", {"float32": -1.0})
    with pytest.raises(TrainingError, match=r"float32 on the CPU is off the CPU by 0\.00 % of the loss, where"):
        checked(tmp_path)


def test_without_a_gpu_or_with_several_processes_one_sentence_says_so(tmp_path):
    with pytest.raises(ValueError, match="there is no GPU here; device=cpu compares the CPU with itself"):
        checked(tmp_path, "device=auto")
    with pytest.raises(ValueError, match="measures one device; start it without torchrun"):
        checked(tmp_path, processes=Processes(0, 2, CPU))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_computes_what_a_cpu_does(tmp_path):
    checked(tmp_path, "device=cuda", processes=Processes(0, 1, torch.device("cuda")))
