"""The demo on photos, as a person runs it: a command, pictures, an exit status. The network's answer is known."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from pipnet.demo import main
from pipnet.geometry import box_iou
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.pipnet import PIPNet

ROOT = Path(__file__).resolve().parent.parent
BOX_SCALE = 1.25
MEAN_FACE = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))
ASTRONAUT_FACE = np.array([[179.0, 88.0, 270.0, 178.0]])


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A small PIPNet whose head sees nothing and says the mean face, whatever the crop."""
    net = PIPNet(MEAN_FACE, "mobilenet_v3_small", num_neighbors=4, input_size=64)
    with torch.no_grad():
        net.head.weight.zero_()
        # Equal scores: the first cell wins everywhere, and offsets count from its corner.
        own = torch.tensor(MEAN_FACE * net.grid, dtype=torch.float32)
        near = own[net.neighbors]  # (N, C, 2)
        net.head.bias.copy_(
            torch.cat([torch.full((68,), 0.8), own[:, 0], own[:, 1], near[..., 0].flatten(), near[..., 1].flatten()])
        )
    path = tmp_path_factory.mktemp("weights") / "mean_face.pt"
    checkpoint.save(path, net, layout=get_layout("300w_68"), box_scale=BOX_SCALE, training={})
    return path


def write_photo(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image[..., ::-1])[1].tobytes())
    return path


def read(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def points_in(face: dict) -> np.ndarray:
    """Where the mean face lies in the crop of a face's box."""
    x0, y0, x1, y1 = face["box"]
    side = BOX_SCALE * max(x1 - x0, y1 - y0)
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + (MEAN_FACE - 0.5) * side


def test_default_portrait_as_a_command(weights, tmp_path):
    """In an empty folder, without a display: one line printed, picture and points written there, nothing else."""
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    run = subprocess.run(
        [sys.executable, "-m", "pipnet.demo", "--json", "--weights", str(weights), "--device", "cpu"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    line = run.stdout.strip()
    assert line.startswith("astronaut: 1 face in ")
    assert line.endswith(" ms, written to astronaut_landmarks.png and astronaut_landmarks.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["astronaut_landmarks.json", "astronaut_landmarks.png"]

    record = json.loads((tmp_path / "astronaut_landmarks.json").read_text())
    assert {key: record[key] for key in ("image", "width", "height", "layout")} == {
        "image": "astronaut",
        "width": 512,
        "height": 512,
        "layout": "300w_68",
    }
    (face,) = record["faces"]
    assert box_iou(ASTRONAUT_FACE, np.array([face["box"]]))[0, 0] > 0.85
    np.testing.assert_allclose(face["points"], points_in(face), atol=0.01)
    assert len(face["scores"]) == 68

    picture = read(tmp_path / "astronaut_landmarks.png")
    changed = (picture != astronaut()).any(axis=2)
    x0, y0, x1, y1 = face["box"]
    assert changed[int(y0) : int(y1), int(x0) : int(x1)].mean() > 0.05
    changed[int(y0) - 30 : int(y1) + 30, int(x0) - 30 : int(x1) + 30] = False
    assert not changed.any()


def test_bad_photos_are_named_and_the_others_done(weights, tmp_path, capsys):
    good = write_photo(tmp_path / "in" / "good.jpg", astronaut())
    text = tmp_path / "in" / "text.jpg"
    text.write_text("no photo")
    cut = tmp_path / "in" / "cut.jpg"
    cut.write_bytes(good.read_bytes()[:5000])
    missing = tmp_path / "in" / "missing.jpg"
    output = tmp_path / "new" / "folder"
    images = [str(path) for path in (text, missing, good, cut)]
    status = main(["--image", *images, "--output", str(output), "--weights", str(weights), "--device", "cpu"])
    printed, complaints = capsys.readouterr()
    assert status == 1
    assert printed.count("\n") == 2
    assert "good.jpg: 1 face" in printed
    assert "1 of 4 photos done, 1 face, 0 photos without a face" in printed
    lines = complaints.strip().splitlines()
    assert len(lines) == 3
    for name, line in zip(("text.jpg", "missing.jpg", "cut.jpg"), lines, strict=True):
        assert line.startswith("pipnet.demo: ")
        assert name in line
    assert [path.name for path in output.iterdir()] == ["good_landmarks.png"]


def test_no_face_is_said_and_is_no_failure(weights, tmp_path, capsys):
    blank = np.full((40, 50, 3), 200, dtype=np.uint8)
    photo = write_photo(tmp_path / "blank.png", blank)
    arguments = ["--image", str(photo), "--output", str(tmp_path), "--json", "--weights", str(weights)]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "blank.png: no face in " in capsys.readouterr().out
    np.testing.assert_array_equal(read(tmp_path / "blank_landmarks.png"), blank)
    assert json.loads((tmp_path / "blank_landmarks.json").read_text())["faces"] == []


def test_max_faces_keeps_the_surest(weights, tmp_path, capsys):
    portrait = astronaut()[:256, 100:356]
    pair = write_photo(tmp_path / "pair.png", np.hstack([portrait // 5, portrait]))
    found = {}
    for most in (None, 1):
        extra = [] if most is None else ["--max-faces", str(most)]
        arguments = ["--image", str(pair), "--output", str(tmp_path), "--json", "--weights", str(weights)]
        assert main([*arguments, "--device", "cpu", *extra]) == 0
        found[most] = json.loads((tmp_path / "pair_landmarks.json").read_text())["faces"]
    assert [len(faces) for faces in found.values()] == [2, 1]
    assert found[1][0] == found[None][0]
    assert "2 faces in" in capsys.readouterr().out


def test_photos_of_one_name_and_inputs_are_never_overwritten(weights, tmp_path, capsys):
    small = astronaut()[:200, 120:320]
    folder = tmp_path / "a"
    images = [
        write_photo(folder / "x.png", small),
        write_photo(tmp_path / "b" / "x.png", small[:, ::-1]),
        write_photo(folder / "x_landmarks.png", small),  # has the name of the first one's picture
    ]
    arguments = ["--image", *map(str, images), "--output", str(folder), "--weights", str(weights), "--device", "cpu"]
    assert main(arguments) == 0
    np.testing.assert_array_equal(read(images[2]), small)
    expected = ["x.png", "x_landmarks.png", "x_landmarks_2.png", "x_landmarks_3.png", "x_landmarks_landmarks.png"]
    assert sorted(path.name for path in folder.iterdir()) == expected


def test_folder_with_subfolders(weights, tmp_path, capsys):
    """Sorted, subfolders kept, hidden and foreign files left out, what an earlier run wrote too; a bad one is named."""
    folder = tmp_path / "photos"
    small = astronaut()[:200, 120:320]
    for name in ("b.jpg", "a/x.png", "a/deep/y.PNG", ".hidden.png", ".cache/z.png"):
        write_photo(folder / name, small)
    (folder / "notes.txt").write_text("no photo")
    (folder / "broken.jpg").write_bytes(b"no photo either")
    arguments = ["--folder", str(folder), "--output", str(folder), "--csv", "--weights", str(weights)]
    expected = ["a/deep/y_landmarks.png", "a/x_landmarks.png", "b_landmarks.png", "landmarks.csv"]
    for _ in range(2):  # the second time the results of the first are there
        assert main([*arguments, "--device", "cpu"]) == 1
        printed, complaints = capsys.readouterr()
        lines = printed.splitlines()
        assert [line.split(":")[0] for line in lines[:3]] == [
            str(folder / n) for n in ("b.jpg", "a/x.png", "a/deep/y.PNG")
        ]
        assert "3 of 4 photos done, 3 faces" in lines[-1]
        assert complaints.count("\n") == 1
        assert "broken.jpg" in complaints
        written = {path.relative_to(folder).as_posix() for path in folder.rglob("*landmarks*")}
        assert sorted(written) == expected

    with (folder / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["source"]).name for row in rows] == ["b.jpg", "x.png", "y.PNG"]
    face = {"box": [float(rows[0][f"box_{corner}"]) for corner in ("x0", "y0", "x1", "y1")]}
    places = [[float(rows[0][f"{axis}_{i}"]) for axis in "xy"] for i in range(68)]
    np.testing.assert_allclose(places, points_in(face), atol=0.01)
    assert (rows[0]["frame"], rows[0]["time_s"], rows[0]["face"], rows[0]["id"]) == ("0", "0.0", "0", "")


def test_folder_that_holds_the_working_folder(weights, tmp_path, monkeypatch, capsys):
    """Results go to the working folder, which is searched all the same; they are no photos, numbered ones neither."""
    small = astronaut()[:200, 120:320]
    for name in ("a.jpg", "a.png", "here/b.jpg"):
        write_photo(tmp_path / name, small)
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        assert main(["--folder", "..", "--weights", str(weights), "--device", "cpu"]) == 0
        assert "3 of 3 photos done" in capsys.readouterr().out
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*landmarks*")}
    assert written == {f"here/{name}_landmarks.png" for name in ("a", "here/b")} | {"here/a_landmarks_2.png"}


def test_a_table_that_is_read_is_not_replaced(weights, tmp_path, capsys):
    """The table of a first run, given back as boxes."""
    photos = [write_photo(tmp_path / name, astronaut()[:200, 120:320]) for name in ("a.png", "b.png")]
    arguments = ["--image", *map(str, photos), "--output", str(tmp_path), "--csv", "--weights", str(weights)]
    assert main([*arguments, "--device", "cpu"]) == 0
    table = tmp_path / "landmarks.csv"
    table.write_text(before := table.read_text().replace(",0.0,", ",0.00,"))  # the same to whoever reads it
    assert main([*arguments, "--device", "cpu", "--detector", "boxes", str(table)]) == 0
    assert table.read_text() == before
    assert (tmp_path / "landmarks_2.csv").read_text().count("\n") == 3
    arguments[1:5] = [str(photos[0]), "--output", str(tmp_path / "landmarks.png")]
    with pytest.raises(SystemExit):
        main([*arguments, "--detector", "boxes", str(table)])
    assert "landmarks.png would replace what is read" in capsys.readouterr().err
    assert table.read_text() == before


@pytest.mark.parametrize("what", ["missing", "empty"])
def test_a_folder_without_photos_ends_with_1(what, tmp_path, capsys):
    if what == "empty":
        (tmp_path / what).mkdir()
    assert main(["--folder", str(tmp_path / what)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert {"missing": "no such folder", "empty": "no photo in this folder; looked for .jpg"}[what] in line


def test_output_may_be_a_file_name(weights, tmp_path, capsys):
    photo = write_photo(tmp_path / "a.png", astronaut()[:200, 120:320])
    arguments = ["--image", str(photo), "--weights", str(weights), "--device", "cpu", "--json", "--csv"]
    assert main([*arguments, "--output", str(tmp_path / "new" / "found.jpg")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["found.csv", "found.jpg", "found.json"]
    assert read(tmp_path / "new" / "found.jpg").shape == (200, 200, 3)
    assert "found.jpg, found.json and found.csv" in capsys.readouterr().out


def test_boxes_from_a_file(weights, tmp_path, capsys):
    """The file's boxes are taken as they are; a photo that it leaves out is named and the others done."""
    photos = [write_photo(tmp_path / name, astronaut()[:200, 120:320]) for name in ("a.png", "b.png")]
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\na.png,10,20,50,60\n")
    arguments = ["--image", *map(str, photos), "--output", str(tmp_path), "--json", "--weights", str(weights)]
    assert main([*arguments, "--device", "cpu", "--detector", "boxes", str(tmp_path / "boxes.csv")]) == 1
    (face,) = json.loads((tmp_path / "a_landmarks.json").read_text())["faces"]
    assert face["box"] == [10, 20, 50, 60]
    np.testing.assert_allclose(face["points"], points_in(face), atol=0.01)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no boxes for" in line
    assert "b.png" in line


def test_nothing_half_written_stays(weights, tmp_path, monkeypatch, capsys):
    photo = write_photo(tmp_path / "in" / "good.png", astronaut())
    old = tmp_path / "good_landmarks.png"
    old.write_bytes(b"old")
    before = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        before(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    arguments = ["--image", str(photo), "--output", str(tmp_path), "--weights", str(weights), "--device", "cpu"]
    assert main(arguments) == 1
    assert "good_landmarks.png can't be written: No space left" in capsys.readouterr().err
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good_landmarks.png", "in"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-faces", "0"], "whole number from 1"),
        (["--max-faces", "two"], "whole number from 1"),
        (["--image"], "expected at least one argument"),
        (["--picture", "a.png"], "unrecognized arguments"),
        (["--weights", "nowhere.pt"], "no checkpoint nowhere.pt"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--device", "meta"], "device 'meta' can't be used here"),
        (["--output", __file__], "can't be a folder"),
        (["--output", "points.json"], "--json and --csv choose their own names"),
        (["--output", "film.mp4"], "pictures can be .png"),
        (["--image", "a.png", "b.png", "--output", "c.png"], "one file; for several photos give a folder"),
        (["--image", "a.png", "--output", "a.png"], "would replace what is read"),
        (["--video", "a.mp4", "--output", "a.mp4"], "would replace what is read"),
        (["--video", "a.mp4", "--output", "a.png"], "a video can be .mp4"),
        (["--video", "a.mp4", "--image", "a.png"], "not allowed with argument"),
        (["--webcam", "a.mp4"], "for a file use --video"),
        (["--webcam", "-1"], "for a file use --video"),
        (["--web", "--json"], "--json does not go with --web"),
        (["--web", "--mirror"], "--mirror is for --webcam"),
        (["--web", "80000"], "port from 0"),
        (["--no-smoothing"], "--no-smoothing is for --video and --webcam"),
        (["--video", "a.mp4", "--camera-size", "640x480"], "--camera-size is for --webcam"),
        (["--webcam", "--camera-size", "large"], "as 1280x720"),
        (["--webcam", "--seconds", "0"], "larger than 0"),
        (["--webcam", "--detect-every", "0"], "whole number from 1"),
        (["--detector", "haar"], "no face detector 'haar'"),
        (["--detector", "yunet"], "--detector yunet needs one file"),
        (["--detector", "retinaface", "x.onnx"], "takes no file"),
        (["--detector", "yunet", "nowhere.onnx"], "nowhere.onnx: no such YuNet file"),
        (["--detector", "boxes", "boxes.csv"], "is for --image, --folder and --video"),
        (["--image", "a.png", "--detector", "boxes", "nowhere.csv"], "nowhere.csv: no such file of boxes"),
        (["--runtime", "abacus"], "no runtime 'abacus'"),
    ],
)
def test_wrong_arguments_end_with_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_missing_scikit_image_names_the_command(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "skimage.data", None)  # importing it now fails as if it were not installed
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "pip install scikit-image" in capsys.readouterr().err


def test_help_needs_no_torch():
    code = "import sys, pipnet.demo, pipnet.demo.options as o; o.parse([]); print({'torch', 'cv2'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "set()"
