"""The demo on photos, as a person runs it: a command, pictures, an exit status. The network's answer is known."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage.data import astronaut

from pipnet.data.images import portrait
from pipnet.demo import command, main, output
from pipnet.demo import photos as photos_module
from pipnet.demo.command import parse
from pipnet.geometry import box_iou, turned
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.landmarks import FaceLandmarks
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
    checkpoint.save(path, net, layout=get_layout("300w_68"), crop_scale=BOX_SCALE, training={})
    return path


@pytest.fixture
def demo(weights):
    """The demo with that network."""
    return lambda *arguments: main([*map(str, arguments), "--weights", str(weights), "--device", "cpu"])


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
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2]) + turned((MEAN_FACE - 0.5) * side, face["angle"])


def test_default_portrait_as_a_command(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    run = subprocess.run(
        [sys.executable, "-m", "pipnet.demo", "--json", "--device", "cpu", "--runtime", "onnxruntime"],
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
    expected = FaceLandmarker.load(device="cpu", runtime="onnxruntime")(portrait()).to_dict()
    assert record == {"image": "astronaut", "width": 512, "height": 512, **expected}
    (face,) = record["faces"]
    assert box_iou(ASTRONAUT_FACE, np.array([face["box"]]))[0, 0] > 0.85

    picture = read(tmp_path / "astronaut_landmarks.png")
    changed = (picture != portrait()).any(axis=2)
    x0, y0, x1, y1 = face["box"]
    assert changed[int(y0) : int(y1), int(x0) : int(x1)].mean() > 0.05
    changed[int(y0) - 30 : int(y1) + 30, int(x0) - 30 : int(x1) + 30] = False
    assert not changed.any()


def test_bad_photos_are_named_and_the_others_done(demo, tmp_path, capsys):
    good = write_photo(tmp_path / "in" / "good.jpg", astronaut())
    text, cut, missing = (tmp_path / "in" / f"{name}.jpg" for name in ("text", "cut", "missing"))
    text.write_text("no photo")
    cut.write_bytes(good.read_bytes()[:5000])
    output = tmp_path / "new" / "folder"
    assert demo("--image", text, missing, good, cut, "--output", output) == 1
    printed, complaints = capsys.readouterr()
    assert printed.count("\n") == 2
    assert "good.jpg: 1 face" in printed
    assert "1 of 4 photos done, 1 face, 0 photos without a face; " in printed
    lines = complaints.strip().splitlines()
    assert len(lines) == 3
    for name, line in zip(("text.jpg", "missing.jpg", "cut.jpg"), lines, strict=True):
        assert line.startswith("pipnet.demo: ")
        assert name in line
    assert [path.name for path in output.iterdir()] == ["good_landmarks.png"]


def test_no_face_is_said_and_is_no_failure(demo, tmp_path, capsys):
    blank = np.full((40, 50, 3), 200, dtype=np.uint8)
    photo = write_photo(tmp_path / "blank.png", blank)
    assert demo("--image", photo, "--output", tmp_path, "--json") == 0
    assert "blank.png: no face in " in capsys.readouterr().out
    np.testing.assert_array_equal(read(tmp_path / "blank_landmarks.png"), blank)
    assert json.loads((tmp_path / "blank_landmarks.json").read_text())["faces"] == []


def test_photos_of_one_name_and_inputs_are_never_overwritten(demo, tmp_path):
    small = astronaut()[:200, 120:320]
    # The last has the name of the first one's picture.
    images = [write_photo(tmp_path / name, small) for name in ("a/x.png", "b/x.png", "a/x_landmarks.png")]
    assert demo("--image", *images, "--output", tmp_path / "a") == 0
    np.testing.assert_array_equal(read(images[2]), small)
    expected = ["x.png", "x_landmarks.png", "x_landmarks_2.png", "x_landmarks_3.png", "x_landmarks_landmarks.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == expected


def test_folder_with_subfolders(demo, tmp_path, capsys):
    folder = tmp_path / "photos"
    small = astronaut()[:200, 120:320]
    for name in ("b.jpg", "a/x.png", "a/deep/y.PNG", ".hidden.png", ".cache/z.png"):
        write_photo(folder / name, small)
    (folder / "notes.txt").write_text("no photo")
    (folder / "broken.jpg").write_bytes(b"no photo either")
    expected = ["a/deep/y_landmarks.png", "a/x_landmarks.png", "b_landmarks.png", "landmarks.csv"]
    for _ in range(2):  # the second time the results of the first are there
        assert demo("--folder", folder, "--output", folder, "--csv") == 1
        printed, complaints = capsys.readouterr()
        lines = printed.splitlines()
        assert [line.split(":")[0] for line in lines[:3]] == [
            str(folder / n) for n in ("b.jpg", "a/x.png", "a/deep/y.PNG")
        ]
        assert "3 of 4 photos done, 3 faces" in lines[-1]
        assert complaints.splitlines()[0] == "pipnet.demo: skipped, as no photos by their names: 1 .txt"
        assert complaints.count("\n") == 2
        assert "broken.jpg" in complaints
        written = {path.relative_to(folder).as_posix() for path in folder.rglob("*landmarks*")}
        assert sorted(written) == expected

    with (folder / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["source"]).name for row in rows] == ["b.jpg", "x.png", "y.PNG"]
    face = {"box": [float(rows[0][f"box_{corner}"]) for corner in ("x0", "y0", "x1", "y1")]}
    face["angle"] = float(rows[0]["angle"])
    places = [[float(rows[0][f"{axis}_{i}"]) for axis in "xy"] for i in range(68)]
    np.testing.assert_allclose(places, points_in(face), atol=0.01)
    assert (rows[0]["frame"], rows[0]["time_s"], rows[0]["face"], rows[0]["id"]) == ("0", "0.0", "0", "")


def test_folder_that_holds_the_working_folder(demo, tmp_path, monkeypatch, capsys):
    small = astronaut()[:200, 120:320]
    for name in ("a.jpg", "a.png", "here/b.jpg"):
        write_photo(tmp_path / name, small)
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        assert demo("--folder", "..") == 0
        assert "3 of 3 photos done" in capsys.readouterr().out
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*landmarks*")}
    assert written == {f"here/{name}_landmarks.png" for name in ("a", "here/b")} | {"here/a_landmarks_2.png"}


def test_a_table_that_is_read_is_not_replaced(demo, tmp_path, capsys):
    photos = [write_photo(tmp_path / name, astronaut()[:200, 120:320]) for name in ("a.png", "b.png")]
    assert demo("--image", *photos, "--output", tmp_path, "--csv") == 0
    table = tmp_path / "landmarks.csv"
    table.write_text(before := table.read_text().replace(",0.0,", ",0.00,"))  # the same to whoever reads it
    assert demo("--image", *photos, "--output", tmp_path, "--csv", "--detector", "boxes", table) == 0
    assert table.read_text() == before
    assert (tmp_path / "landmarks_2.csv").read_text().count("\n") == 3
    with pytest.raises(SystemExit):
        demo("--image", photos[0], "--output", tmp_path / "landmarks.png", "--csv", "--detector", "boxes", table)
    assert "landmarks.png would replace what is read" in capsys.readouterr().err
    assert table.read_text() == before


def test_output_may_be_a_file_name(demo, tmp_path, capsys):
    photo = write_photo(tmp_path / "a.png", astronaut()[:200, 120:320])
    assert demo("--image", photo, "--json", "--csv", "--output", tmp_path / "new" / "found.jpg") == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["found.csv", "found.jpg", "found.json"]
    assert read(tmp_path / "new" / "found.jpg").shape == (200, 200, 3)
    assert "found.jpg, found.json and found.csv" in capsys.readouterr().out


def test_boxes_from_a_file(demo, tmp_path, capsys):
    photos = [write_photo(tmp_path / name, astronaut()[:200, 120:320]) for name in ("a.png", "b.png")]
    (tmp_path / "boxes.csv").write_text("image,x0,y0,x1,y1\na.png,10,20,50,60\n")
    boxes = "--image", *photos, "--output", tmp_path, "--json", "--detector", "boxes", tmp_path / "boxes.csv"
    assert demo(*boxes) == 1
    (face,) = json.loads((tmp_path / "a_landmarks.json").read_text())["faces"]
    assert face["box"] == [10, 20, 50, 60]
    np.testing.assert_allclose(face["points"], points_in(face), atol=0.01)
    (line,) = capsys.readouterr().err.splitlines()
    assert "no boxes for" in line
    assert "b.png" in line


def test_nothing_half_written_stays(demo, tmp_path, monkeypatch, capsys):
    photo = write_photo(tmp_path / "in" / "good.png", astronaut())
    old = tmp_path / "good_landmarks.png"
    old.write_bytes(b"old")
    before = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        before(path, data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    assert demo("--image", photo, "--output", tmp_path) == 1
    assert "good_landmarks.png can't be written: No space left" in capsys.readouterr().err
    assert old.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good_landmarks.png", "in"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-faces", "0"], "whole number from 1"),
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
        (["--web", "--json"], "--json does not go with --web"),
        (["--web", "--mirror"], "--mirror is for --webcam"),
        (["--web", "80000"], "port from 0"),
        (["--no-smoothing"], "--no-smoothing is for --video and --webcam"),
        (["--video", "a.mp4", "--camera-size", "640x480"], "--camera-size is for --webcam"),
        (["--webcam", "--camera-size", "large"], "as 1280x720"),
        (["--webcam", "--seconds", "0"], "larger than 0"),
        (["--detector", "haar"], "no face detector 'haar'; there are: retinaface, yunet MODEL, and boxes FILE"),
        (["--output", ""], "needs the name of a file or folder"),
        (["--video", "a.mp4", "--output", "points.pdf"], "a video can be .mp4"),
        (["--min-score", "1.5"], "from 0 to 1, got '1.5'"),
        (["--min-score", "much"], "from 0 to 1, got 'much'"),
        (["--video", "a.mp4", "--min-score", "0"], "in videos and cameras the tracking leaves doubtful faces out"),
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
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pipnet.demo: error: ")
    assert message in line
    assert line.endswith(" (--help lists the options)")


def test_help_needs_no_torch():
    code = "import sys, pipnet.demo, pipnet.demo.command as o; o.parse([]); print({'torch', 'cv2'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "set()"


class KnownScores:
    """In the place of a landmarker: three faces, of which the surest box has the worst score."""

    layout = get_layout("300w_68")
    boxes = np.array([[10.0, 10, 60, 60], [70, 10, 120, 60], [10, 70, 60, 120]])

    def detector(self, image: np.ndarray) -> Detections:
        return Detections(self.boxes, np.array([0.99, 0.9, 0.8]))

    def __call__(self, image: np.ndarray, boxes, angles=None) -> FaceLandmarks:
        boxes = getattr(boxes, "boxes", boxes)
        points = np.repeat(boxes[:, None, :2] + 20, 68, axis=1)
        scores = {10.0: {10.0: 0.01, 70.0: 0.6}, 70.0: {10.0: 0.05}}
        return FaceLandmarks(
            points, np.ones((len(boxes), 68)), boxes, self.layout, [scores[x][y] for x, y in boxes[:, :2].tolist()]
        )


@pytest.fixture
def known(monkeypatch, tmp_path):
    """The demo with :class:`KnownScores` on blank photos of these names; results go beside them."""

    def run(names: list[str], *arguments: str, landmarker: KnownScores | None = None) -> int:
        found = landmarker or KnownScores()
        monkeypatch.setattr(command, "load_landmarker", lambda parser, options, boxes=None: found)
        photos = [write_photo(tmp_path / name, np.full((130, 130, 3), 200, np.uint8)) for name in names]
        return main(["--image", *map(str, photos), "--output", str(tmp_path), *arguments])

    return run


@pytest.mark.parametrize(
    ("extra", "kept", "said"),
    [
        ([], [1, 2], "2 faces (and 1 doubtful one skipped; --min-score 0 keeps it) in "),
        (["--max-faces", "1"], [1], "1 face (and 1 doubtful one skipped; --min-score 0 keeps it) in "),
        (["--min-score", "0"], [0, 1, 2], "3 faces in "),
        (["--min-score", "0", "--max-faces", "1"], [0], "1 face in "),
        (["--min-score", "0.5"], [2], "1 face (and 2 doubtful ones skipped; --min-score 0 keeps them) in "),
        (["--min-score", "1"], [], "no face (and 3 doubtful ones skipped; --min-score 0 keeps them) in "),
    ],
)
def test_doubtful_faces_are_skipped(extra, kept, said, known, tmp_path, capsys):
    assert known(["a.png"], "--json", "--csv", *extra) == 0
    assert f"a.png: {said}" in capsys.readouterr().out
    faces = json.loads((tmp_path / "a_landmarks.json").read_text())["faces"]
    np.testing.assert_array_equal([face["box"] for face in faces], KnownScores.boxes[kept] if kept else [])
    assert (tmp_path / "a_landmarks.csv").read_text().count("\n") == 1 + len(kept)
    drawn = (read(tmp_path / "a_landmarks.png") != 200).any(axis=2)
    for number, (x0, y0, x1, y1) in enumerate(KnownScores.boxes.astype(int)):
        assert drawn[y0:y1, x0:x1].any() == (number in kept)


def test_boxes_that_the_user_brings_are_all_kept_unless_he_says_so():
    boxes = ["--image", "a.png", "--detector", "boxes", "a.csv"]
    assert parse([])[1].min_score == parse(["--web"])[1].min_score == 0.05
    assert parse(boxes)[1].min_score == 0
    assert parse([*boxes, "--min-score", "0.2"])[1].min_score == 0.2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_photos_that_are_stopped_say_so(number, known, tmp_path, capsys):
    class Stopped(KnownScores):
        def __call__(self, image: np.ndarray, boxes, angles=None) -> FaceLandmarks:
            signal.raise_signal(number)
            return super().__call__(image, boxes)

    names = ["a.png", "b.png", "c.png"]
    assert known(names, "--csv", "--min-score", "0.5", landmarker=Stopped()) == 0
    *_, table, last = capsys.readouterr().out.splitlines()
    assert table.startswith("1 row written to ")
    assert last.startswith("1 of 3 photos done, interrupted, 1 face (and 2 doubtful ones skipped), 0 photos without")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "a_landmarks.png", "landmarks.csv"])


def test_of_several_results_those_that_could_be_written_are_named(known, tmp_path, monkeypatch, capsys):
    def full_disk(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output.Table, "write", full_disk)
    assert known(["a.png"], "--json", "--csv") == 1
    assert capsys.readouterr().err.endswith("a_landmarks.png and a_landmarks.json were kept, whole\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_landmarks.json", "a_landmarks.png"]


@pytest.mark.parametrize(
    ("option", "name", "content", "message"),
    [
        ("--image", "clip.jpg", b"\0\0\0\x18ftypmp42" + bytes(50), "{} is a video, not a photo; use --video"),
        ("--image", "clip.mpg", b"some words", "{} is a video, not a photo; use --video"),
        ("--image", "some.jpg", b"some words", "{}: not an image, or a damaged one; replace"),
        ("--image", "folder.jpg", None, "{} is a folder; use --folder"),
        ("--folder", "empty", None, "{}: no photo in this folder; looked for .jpg"),
        ("--folder", "missing", b"", "{}: no such folder"),
    ],
)
def test_what_holds_no_photo_is_one_sentence(option, name, content, message, demo, tmp_path, capsys):
    path = tmp_path / name
    if content is None:
        path.mkdir()
    elif content:
        path.write_bytes(content)
    assert demo(option, path, "--output", tmp_path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.removeprefix("pipnet.demo: ").removeprefix("error: ").startswith(message.format(path))


@pytest.mark.parametrize("text", ["some words", "hello"])  # a KeyError of 101 is what torch says of the second
def test_weights_that_are_none_are_said_without_a_bare_number(text, tmp_path, capsys):
    path = tmp_path / "text.pt"
    path.write_text(text)
    with pytest.raises(SystemExit):
        main(["--weights", str(path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{path} is damaged or not a checkpoint; copy or train it again" in line


def test_errors_of_the_system_have_no_numbers(known, tmp_path, monkeypatch, capsys):
    def refuse(*arguments: object, **settings: object) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "sub"))

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkstemp", refuse)
        assert known(["a.png"]) == 1
    written = tmp_path / "a_landmarks.png"
    assert capsys.readouterr().err == f"pipnet.demo: {written} can't be written: Permission denied; check the folder\n"
    monkeypatch.setattr(photos_module, "write_image", refuse)
    assert known(["a.png"]) == 1
    line = capsys.readouterr().err
    assert line == f"pipnet.demo: {tmp_path / 'sub'}: Permission denied; check the rights, or choose another folder\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_while_the_network_is_loaded_is_one_line(tmp_path):
    """In the middle of an import; the stand-in turns it into an error of its own, as compiled modules do."""
    code = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt as error:\n"
    (tmp_path / "onnxruntime.py").write_text(code + "    raise ImportError('initialization failed') from error\n")
    photo = write_photo(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    run = subprocess.run(
        [sys.executable, "-m", "pipnet.demo", "--image", str(photo), "--device", "cpu"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout, run.stderr) == (1, "", "pipnet.demo: interrupted\n")
