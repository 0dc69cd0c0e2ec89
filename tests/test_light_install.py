"""What `pip install pipnet` brings is enough for points on faces; what needs more says which extra brings it."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

import pipnet
from pipnet.console import EXTRAS

PACKAGE = Path(pipnet.__file__).resolve().parent
ROOT = PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = {package for packages in EXTRAS.values() for package in packages} | {"pandas", "skimage", "networkx", "sympy"}


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


@cache
def light() -> set[str]:
    """Names of the distributions that the light install brings, as their metadata have it here."""
    found, open_ = set(), [name_of(requirement) for requirement in PROJECT["dependencies"]]
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            with suppress(PackageNotFoundError):  # of another system
                open_ += [name_of(needed) for needed in requires(name) or [] if "extra ==" not in needed]
    return found


@cache
def refused() -> set[str]:
    """Every package that is installed here, by its metadata, and that the light install lacks; and the heavy ones."""
    brought = light()
    others = {
        package
        for package, distributions in packages_distributions().items()
        if package.isidentifier() and not {name_of(name) for name in distributions} & {*brought, "pipnet"}
    }
    return others | HEAVY


@pytest.fixture
def run_light(tmp_path_factory, tmp_path):
    """Runs Python where nothing but the light install can be imported: the rest is as if it were not there."""
    start = tmp_path_factory.mktemp("start")
    refusal = f"import sys\nfor name in {sorted(refused())!r}:\n    sys.modules[name] = None\n"
    (start / "sitecustomize.py").write_text(refusal, encoding="utf-8")  # Python runs it when it starts
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(start), str(ROOT)]), "OMP_NUM_THREADS": "1"}

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600)

    return run


def test_the_landmarker_on_a_photo(run_light):
    program = """
from pipnet import FaceLandmarker
from pipnet.data.images import portrait
landmarker = FaceLandmarker.load()
(face,) = landmarker(portrait())
face.to_dict(), face.align(portrait(), 64), face.head_pose((512, 512)), face.eye_opening(), face.mouth_opening()
face.to_rows(source="a"), face.to_coco("a", (512, 512)), face.save_pts("a.pts")
print(face.points.shape)
"""
    done = run_light("-c", program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(1, 68, 2)\n", "")


def test_the_demo_on_the_portrait_and_on_a_folder_with_boxes(run_light, tmp_path):
    done = run_light("-m", "pipnet.demo", "--json", "--csv", "--output", "a")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.suffix for path in (tmp_path / "a").iterdir()) == [".csv", ".json", ".png"]
    (tmp_path / "photos").mkdir()
    photo = (PACKAGE / "data" / "astronaut.jpg").read_bytes()
    for name in ("astronaut", "b.jpg", "c.jpg"):
        (tmp_path / "photos" / name).write_bytes(photo)
    done = run_light("-m", "pipnet", "demo", "--folder", "photos", "--csv", "--output", "b")
    assert done.returncode == 0, done.stderr
    table = tmp_path / "b" / "landmarks.csv"
    assert table.read_text(encoding="utf-8").count("\n") == 3
    done = run_light("-m", "pipnet.demo", "--folder", "photos", "--detector", "boxes", table, "--output", "c")
    assert done.returncode == 0, done.stderr


def test_the_demo_on_a_video(run_light, tmp_path):
    program = """
import cv2, numpy as np
from pipnet.data.images import portrait
photo = cv2.resize(portrait()[..., ::-1], (320, 320))
film = cv2.VideoWriter("film.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (640, 320))
for number in range(6):
    film.write(np.hstack([np.roll(photo, number, axis=1), np.roll(photo[:, ::-1], 2 * number, axis=1)]))
film.release()
"""
    assert run_light("-c", program).stderr == ""
    arguments = ("--video", "film.avi", "--no-window", "--json", "--csv", "--detect-every", "2", "--output", "out")
    done = run_light("-m", "pipnet.demo", *arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "6 frames, 6 with a face, up to 2" in done.stdout
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".csv", ".json", ".mp4"]


@pytest.mark.parametrize(
    ("command", "arguments", "package", "extra"),
    [
        ("train", [], "omegaconf", "train"),
        ("evaluate", [], "omegaconf", "train"),
        ("self-train", [], "omegaconf", "train"),
        ("inspect", [], "omegaconf", "train"),
        ("export", [], "scipy", "export"),
        ("benchmark", ["--models", "mobilenet_v2@64"], "torch", "train"),
        ("benchmark", ["--data", "."], "scipy", "train"),
        ("demo", ["--web", "0"], "aiohttp", "web"),
        ("demo", ["--runtime", "torch"], "torch", "train"),
    ],
)
@pytest.mark.parametrize("way", ["pipnet", "module"])
def test_a_command_without_its_extra_is_one_sentence(run_light, command, arguments, package, extra, way, tmp_path):
    module = {"self-train": "self_train", "inspect": "inspect_dataset"}.get(command, command)
    done = run_light("-m", *(["pipnet", command] if way == "pipnet" else [f"pipnet.{module}"]), *arguments)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"pipnet.{module}: error: ")
    assert f'{package} is not installed; pip install "pipnet[{extra}]" brings it' in line
    assert done.returncode in (1, 2)
    assert not [*tmp_path.iterdir()]


def test_a_runtime_or_device_that_is_not_installed_is_replaced_with_a_sentence(run_light):
    program = """
import warnings
from pipnet import FaceLandmarker
for options in ({"runtime": "openvino"}, {"device": "cuda"}):
    with warnings.catch_warnings(record=True) as caught:
        FaceLandmarker.load(**options)
    print(*(warning.message for warning in caught), sep="|")
"""
    done = run_light("-c", program)
    assert done.returncode == 0, done.stderr
    openvino, cuda = done.stdout.splitlines()
    assert openvino == 'openvino is not installed; pip install "pipnet[openvino]" brings it; onnxruntime serves instead'
    assert cuda == 'torch is not installed; pip install "pipnet[train]" brings it; the CPU serves instead'


def test_a_driver_without_torch_is_no_reason_to_fail(run_light, tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\n")
    fake.chmod(0o755)
    program = f"import os\nos.environ['PATH'] = {str(tmp_path)!r}\nfrom pipnet import FaceLandmarker\n"
    done = run_light("-c", program + "print(FaceLandmarker.load())")
    assert "onnxruntime in int8" in done.stdout, done.stderr


def test_every_import_of_the_package_is_declared():
    distributions = packages_distributions()
    brought = light()
    # Other detectors, which the benchmark compares with where they are installed, and a table for who has pandas.
    optional = {"dlib", "mediapipe", "face_alignment", "pandas", "skimage", "retinaface"}
    known = optional | {package for packages in EXTRAS.values() for package in packages} | {"pipnet"}
    unknown = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            for package in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - known:
                if not {name_of(name) for name in distributions.get(package, [])} & brought:
                    unknown.append(f"{path.relative_to(ROOT)}: {package}")
    assert not unknown


def test_the_extras_bring_what_the_sentences_promise():
    declared = {extra: {name_of(line) for line in lines} for extra, lines in PROJECT["optional-dependencies"].items()}
    called = {"hydra": "hydra-core", "omegaconf": "hydra-core", "yaml": "pyyaml"}
    for extra, packages in EXTRAS.items():
        assert {called.get(package, package) for package in packages} <= declared[extra]
    assert any(line.startswith("pipnet[train]") for line in PROJECT["optional-dependencies"]["export"])
    assert PROJECT["optional-dependencies"]["all"] == [f"pipnet[{','.join(EXTRAS)}]"]


def test_the_benchmark_times_what_is_there(run_light, tmp_path):
    arguments = ("--quick", "--threads", "1", "--precisions", "int8", "--output", "out")
    done = run_light("-m", "pipnet.benchmark", *arguments)
    assert done.returncode == 0, done.stderr
    assert "onnxruntime" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
