"""The dataset configs fit their readers; the command prints, draws, names what is wrong, fails where it should."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import OmegaConf

from pipnet.config import config_dir
from pipnet.inspect_dataset import main


@pytest.mark.parametrize("name", ["300w", "wflw", "cofw", "aflw", "own_csv", "own_coco"])
def test_validation_faces_are_kept_from_training(name):
    dataset = OmegaConf.load(Path(config_dir(), "dataset", f"{name}.yaml"))
    assert (dataset.name, dataset.on_bad) == (name, "raise")
    parts = {split: dataset.splits[split].validation for split in ("train", "val", "trainval")}
    assert parts == {"train": "exclude", "val": "only", "trainval": "include"}


@pytest.fixture
def data_root(tmp_path):
    own = tmp_path / "data" / "own"
    own.mkdir(parents=True)
    (own / "layout.yaml").write_text("name: three\nnum_points: 3\nnames: [left_eye, right_eye, nose]\n")
    for name in ("a.jpg", "b.jpg"):
        assert cv2.imwrite(str(own / name), np.full((50, 60, 3), 200, np.uint8))
    (own / "c.jpg").write_bytes((own / "a.jpg").read_bytes()[:-2])
    lines = ["image,x0,y0,x1,y1,x2,y2", "a.jpg,5,5,40,40,70,20", "b.jpg,5,5,x,40,20,20", "c.jpg,5,5,40,40,20,20"]
    (own / "train.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "data"


@pytest.fixture
def inspect_dataset(data_root, tmp_path, monkeypatch, capsys):
    """The command, started from another folder: what it prints, and what it ends with where it fails."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PIPNET_DATA", str(data_root))
        monkeypatch.setattr(sys, "argv", ["inspect_dataset", *arguments])
        failure = ""
        try:
            main()
        except SystemExit as ended:
            failure = str(ended.code)
        return capsys.readouterr().out, failure

    return run


def test_command_reports_and_draws(inspect_dataset, tmp_path):
    printed, failure = inspect_dataset("dataset=own_csv", "split=trainval", f"output={tmp_path / 'out'}")
    assert failure == ""
    assert "faces            2 in 1 photos" in printed
    assert "photo width      60 / 60 / 60 px" in printed
    assert "outside photo    1 points of 1 faces; furthest 0.16 face sizes, a.jpg" in printed  # 10.5 px of 65
    assert "train.csv, line 3, column x1: 'x' is not a number" in printed
    assert "c.jpg: the image is cut off" in printed
    sheet = cv2.imread(str(tmp_path / "out" / "own_csv_trainval.png"))
    blue, green, red = (channel.astype(int) for channel in np.moveaxis(sheet, -1, 0))
    dots = {"left": red - blue > 150, "right": blue - red > 120, "nose": green - np.maximum(red, blue) > 100}
    places = {name: np.argwhere(dot).mean(axis=0) for name, dot in dots.items() if dot.sum() > 5}
    assert places.keys() == dots.keys()  # of the one face that can be drawn
    assert places["left"][1] < places["right"][1] < places["nose"][1]
    assert {path.name for path in tmp_path.iterdir()} == {"data", "out"}  # Hydra leaves no folder of its own


def test_command_fails_where_it_should(inspect_dataset, data_root):
    own = ["dataset=own_csv", "split=trainval", "on_bad=raise"]
    _, failure = inspect_dataset(*own)
    assert failure.startswith("pipnet.inspect_dataset: error: ")
    assert "train.csv, line 3, column x1: 'x' is not a number" in failure
    csv = data_root / "own" / "train.csv"
    csv.write_text(csv.read_text().replace("x,40", "30,40"))
    printed, failure = inspect_dataset(*own)
    assert "faces            3 in 2 photos" in printed
    assert "error: 1 photos can't be read, the first: " in failure
    assert "300W does not exist; set data_root" in inspect_dataset("dataset=300w")[1]
