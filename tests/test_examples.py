"""The scripts of ``examples/`` do what they say, each in a process of its own, on small inputs made here."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import processes
import pytest

from pipnet import FaceLandmarker, FaceLandmarks
from pipnet.data.images import read_image, write_image
from pipnet.geometry import affine_crop
from pipnet.inference.landmarker import SHIPPED_GRAPH
from pipnet.model import checkpoint
from pipnet.model.onnx_graph import export_onnx

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*command: object, cwd: Path) -> str:
    """What an example prints."""
    if str(command[0]).endswith(".py"):  # in a fork of a Python whose imports are done
        done = processes.run(*command, cwd=cwd, PYTHONPATH=ROOT)
    else:
        words = [*map(str, command)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=ENVIRONMENT, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return pytest.importorskip("skimage.data", reason="scikit-image ships the portrait").astronaut()


@pytest.fixture(scope="module")
def photo(portrait: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "photo.png"
    write_image(path, portrait)
    return path


def test_every_example_is_tested():
    tested = Path(__file__).read_text(encoding="utf-8")
    for script in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("javascript/*.mjs")]:
        assert f'"{script.name}"' in tested, script


def test_photo(photo: Path, tmp_path: Path):
    said = run(sys.executable, EXAMPLES / "photo.py", photo, "drawn.png", cwd=tmp_path)
    assert "FaceLandmarks(1 face, 300w_68" in said
    assert re.search(r"nose at [\d.]+, [\d.]+ px", said)
    assert (read_image(tmp_path / "drawn.png") != read_image(photo)).any()


def test_a_folder_to_csv(portrait: np.ndarray, tmp_path: Path):
    for name in ("a.png", "below/b.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(tmp_path / "photos" / name, portrait)
    write_image(tmp_path / "photos" / "nobody.png", np.zeros((60, 80, 3), dtype=np.uint8))
    run(EXAMPLES / "folder_to_csv.py", "photos", "points.csv", cwd=tmp_path)
    with (tmp_path / "points.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["source"] for row in rows] == ["a.png", str(Path("below/b.jpg"))]
    assert 240 < float(rows[0]["x_45"]) < 275


def test_video(portrait: np.ndarray, tmp_path: Path):
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (512, 512))
    for _ in range(5):
        video.write(np.ascontiguousarray(portrait[:, :, ::-1]))
    video.release()
    said = run(EXAMPLES / "video.py", "clip.avi", cwd=tmp_path)
    assert len(re.findall(r"^frame \d: face 0, eyes open 0\.\d\d", said, re.MULTILINE)) == 5


def test_the_web_service_answers_several_requests_at_once(photo: Path, tmp_path: Path):
    command = [sys.executable, str(EXAMPLES / "web_service.py"), "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=ENVIRONMENT)
    try:
        watchdog = threading.Timer(300, server.kill)
        watchdog.start()
        address = re.search(r"http://\S+", server.stdout.readline())[0]

        def ask(_: int) -> dict:
            with urllib.request.urlopen(address, data=photo.read_bytes()) as answer:
                return json.load(answer)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, range(8)))
        assert all(answer == answers[0] for answer in answers)
        assert len(answers[0]["faces"]) == 1
        with pytest.raises(urllib.error.HTTPError, match="400") as refused:
            urllib.request.urlopen(address, data=b"no photo")
        assert "no photo" in json.load(refused.value)["error"]
    finally:
        watchdog.cancel()
        server.kill()
        server.wait()
        server.stdout.close()


def test_own_layout(tmp_path: Path):
    said = run(EXAMPLES / "own_layout.py", "cats", "quick", cwd=tmp_path)
    assert re.search(r"20 new cats: mean error [\d.]+ %", said)
    assert checkpoint.load(tmp_path / "cats" / "run" / "best.pt").layout.names[8] == "nose"


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that ship in 32 bits: int8 rounds, so that a grey level here or there moves points by more."""
    path = tmp_path_factory.mktemp("graph") / "fp32.onnx"
    export_onnx(checkpoint.load(SHIPPED_GRAPH.with_name("300w_mobilenet_v2.pt")), path)
    return path


def differences(command: list[object], graph: Path, image: np.ndarray, folder: Path) -> np.ndarray:
    """How far the points of an example are from pipnet's, ``(N,)``, in % of the box's longer side."""
    write_image(folder / "face.png", image)
    landmarker = FaceLandmarker.load(graph, runtime="onnxruntime", threads=1)
    found = landmarker(image)
    box, angle = np.round(found.boxes[0].astype(float), 2), round(float(found.angles[0]), 2)
    expected: FaceLandmarks = landmarker(image, boxes=box, angles=angle)
    answer = json.loads(run(*command, graph, "face.png", *box, angle, cwd=folder))
    np.testing.assert_allclose(answer["scores"], expected.scores[0], atol=0.05)
    distances = np.linalg.norm(np.array(answer["points"]) - expected.points[0], axis=1)
    return 100 * distances / (box[2:] - box[:2]).max()


def onnx_examples() -> list[object]:
    node, modules = shutil.which("node"), EXAMPLES / "javascript" / "node_modules"
    absent = "needs node, and npm install in examples/javascript"
    there = node is not None and modules.is_dir()
    return [
        pytest.param([sys.executable, EXAMPLES / "onnx_without_pipnet.py"], id="python"),
        pytest.param(
            [node, EXAMPLES / "javascript" / "landmarks.mjs"],
            id="javascript",
            marks=pytest.mark.skipif(not there, reason=absent),
        ),
    ]


@pytest.mark.parametrize("command", onnx_examples())
@pytest.mark.parametrize("angle", [0, 40])
def test_a_graph_without_pipnet_gives_the_same_points(command, angle, graph, portrait, tmp_path):
    image = affine_crop(np.array([256.0, 256.0]), (512.0, 512.0), 512, angle=angle).warp(portrait)
    assert differences(command, graph, image, tmp_path).max() < 0.05
    if (
        angle == 0
    ):  # A large face is averaged down; which pixels share a block may differ, so the points are less equal.
        large = cv2.resize(portrait, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
        assert differences(command, graph, large, tmp_path).mean() < 0.2
