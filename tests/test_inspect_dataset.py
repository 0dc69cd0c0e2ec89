"""The dataset configs fit their readers; the command prints, draws, names what is wrong, fails where it should."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from pipnet.config import config_dir
from pipnet.data.datasets import READERS
from pipnet.layouts import LAYOUTS

CONFIGS = sorted((Path(config_dir()) / "dataset").glob("*.yaml"))
OWN_READERS = ("300w", "wflw", "cofw", "cofw68", "aflw", "own_csv", "own_coco")


def test_there_is_a_config_for_every_set():
    assert set(OWN_READERS) <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize("name", OWN_READERS)
def test_config_fits_its_reader(name):
    config = OmegaConf.create(
        {"data_root": "/d", "dataset": OmegaConf.load(Path(config_dir(), "dataset", f"{name}.yaml"))}
    )
    dataset = OmegaConf.to_container(config, resolve=True)["dataset"]
    assert set(dataset) - {"licence", "label_shift"} == {"name", "reader", "root", "layout", "on_bad", "splits"}
    assert dataset["name"] == name
    assert dataset["root"].startswith("/d/")
    assert dataset["on_bad"] == "raise"
    assert dataset["layout"] in LAYOUTS or dataset["layout"] == f"{dataset['root']}/layout.yaml"
    known = inspect.signature(READERS[dataset["reader"]]).parameters
    for split, options in dataset["splits"].items():
        assert set(options) <= set(known), split
    if "train" in dataset["splits"]:
        parts = {split: dataset["splits"][split]["validation"] for split in ("train", "val", "trainval")}
        assert parts == {"train": "exclude", "val": "only", "trainval": "include"}


def run(data_root: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """The command in a fresh process, started from a folder outside the checkout."""
    environment = {**os.environ, "PIPNET_DATA": str(data_root), "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "pipnet.inspect_dataset", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def data_root(tmp_path):
    own = tmp_path / "data" / "own"
    own.mkdir(parents=True)
    (own / "layout.yaml").write_text("name: three\nnum_points: 3\n")
    for name in ("a.jpg", "b.jpg"):
        assert cv2.imwrite(str(own / name), np.full((50, 60, 3), 200, np.uint8))
    (own / "c.jpg").write_bytes((own / "a.jpg").read_bytes()[:-2])
    lines = ["image,x0,y0,x1,y1,x2,y2", "a.jpg,5,5,40,40,70,20", "b.jpg,5,5,x,40,20,20", "c.jpg,5,5,40,40,20,20"]
    (own / "train.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


def test_command_reports_and_draws(data_root, tmp_path):
    result = run(data_root, "dataset=own_csv", "split=trainval", f"output={tmp_path / 'out'}", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "faces            2 in 1 photos" in result.stdout
    assert "photo width      60 / 60 / 60 px" in result.stdout
    assert "outside photo    1 points of 1 faces; furthest 0.16 face sizes, a.jpg" in result.stdout  # 10.5 px of 65
    assert "train.csv, line 3, column x1: 'x' is not a number" in result.stdout
    assert "c.jpg: the image is cut off" in result.stdout
    sheet = cv2.imread(str(tmp_path / "out" / "own_csv_trainval.png"))
    green = (sheet[..., 1] > 200) & (sheet[..., 2] < 120)
    assert green.sum() > 20  # dots on the one face that can be drawn
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}  # Hydra leaves no folder of its own


def test_command_fails_on_a_bad_item_when_asked_to(data_root, tmp_path):
    result = run(data_root, "dataset=own_csv", "split=trainval", "on_bad=raise", cwd=tmp_path)
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "train.csv, line 3, column x1: 'x' is not a number" in result.stderr
    assert "Traceback" not in result.stderr


def test_unreadable_photo_fails_when_asked_to(data_root, tmp_path):
    csv = data_root / "own" / "train.csv"
    csv.write_text(csv.read_text().replace("x,40", "30,40"))
    result = run(data_root, "dataset=own_csv", "split=trainval", "on_bad=raise", cwd=tmp_path)
    assert result.returncode == 1
    assert "faces            3 in 2 photos" in result.stdout
    assert "error: 1 photos can't be read, the first: " in result.stderr


def test_command_without_the_set(tmp_path):
    result = run(tmp_path, "dataset=300w", cwd=tmp_path)
    assert result.returncode == 1
    assert "300W does not exist; set data_root" in result.stderr
