"""``python -m pipnet.evaluate`` in a process of its own: what it writes, and how it fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipnet.data.synthetic.dataset import draw_faces
from pipnet.evaluation.evaluate import evaluate
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.pipnet import PIPNet

LAYOUT = get_layout("300w_68")
FEW = ("dataset=drawn", "dataset.splits.test.count=6", "dataset.splits.test.size=96", "resamples=100")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained network as a checkpoint: bad at faces, but the same each time."""
    torch.manual_seed(0)
    mean_face = np.mean([(face.points + 0.5) / 256 for face in draw_faces(5, seed=9)], axis=0)
    net = PIPNet(mean_face, backbone="mobilenet_v3_small", input_size=64)
    path = tmp_path_factory.mktemp("weights") / "untrained.pt"
    checkpoint.save(path, net, layout=LAYOUT, crop_scale=1.2, training={})
    return path


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """The command in a fresh process, started from a folder outside the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "pipnet.evaluate", "device=cpu", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_command_writes_what_evaluate_measures(weights, tmp_path):
    done = run(f"checkpoint={weights}", *FEW, "box_noise=[0,0.1]", "crop_space=true", "output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.rglob("*")} == {
        "out",
        "metrics.json",
        "per_face.csv",
        "ced.png",
        "worst_faces.png",
        "box_noise.png",
    }
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    landmarker = FaceLandmarker.load(weights, device="cpu")
    expected = evaluate(landmarker, draw_faces(6, seed=2, size=96), layout=LAYOUT).errors()
    mean = metrics["all"]["outer_eye"]["mean"]["value"]
    assert mean == pytest.approx(100 * expected.mean(), abs=1e-3)
    assert metrics["box_noise"][0]["mean"]["value"] == mean  # no noise: the label boxes
    assert metrics["box_noise"][1]["mean"]["value"] != mean
    assert (metrics["dataset"], metrics["split"], metrics["checkpoint"]) == ("drawn", "test", str(weights))
    assert f"{mean:.2f} [" in done.stdout
    assert "authors' crop space" in done.stdout


def test_what_the_user_can_mend_is_one_sentence(weights, tmp_path):
    done = run(f"checkpoint={weights}", "split=tset", *FEW, cwd=tmp_path)
    assert done.returncode == 1
    assert "no split 'tset'" in done.stderr
    assert done.stderr.startswith("pipnet.evaluate: error: ")
    assert len(done.stderr.strip().splitlines()) == 1
