"""The weights that ship: their size, their card, what they see, and the figures that are claimed for them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pipnet.data.datasets import read_dataset
from pipnet.data.sample import Sample
from pipnet.evaluation.evaluate import evaluate
from pipnet.geometry import crop_of_square
from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.layouts import PointLayout, get_layout
from pipnet.metrics import mean_error
from pipnet.model import checkpoint

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "experiments" / "300w_mobilenet_v2"
DATA = os.environ.get("PIPNET_DATA", "")


@pytest.fixture(scope="module")
def record() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shipped_record", RECORD / "measure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    """In 32 bits."""
    return FaceLandmarker.load(SHIPPED_WEIGHTS, device="cpu")


def test_the_files_are_small_and_have_a_card():
    assert SHIPPED_WEIGHTS.stat().st_size < 10e6
    assert SHIPPED_GRAPH.stat().st_size < 6e6
    card = SHIPPED_WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    assert FaceLandmarker.load(SHIPPED_GRAPH).runtime.metadata["card"] == card
    for word in ("research", "1,808", "python -m pipnet.train", "bad at"):
        assert word in card


def test_the_file_says_how_it_was_trained():
    loaded = checkpoint.load(SHIPPED_WEIGHTS)
    assert loaded.layout.name == "300w_68"
    assert loaded.training["faces"] == {"train": 1808, "val": 202}
    assert loaded.training["licence"] == "research only"
    assert "resume" not in checkpoint.read(SHIPPED_WEIGHTS)


def test_the_portrait_has_its_points_in_place(shipped: FaceLandmarker):
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the portrait")
    faces = shipped(data.astronaut())
    assert len(faces) == 1
    eye_left, eye_right, nose, mouth, chin = (
        faces.points[0, i].mean(axis=0) for i in ([*range(36, 42)], [*range(42, 48)], [30], [*range(48, 60)], [8])
    )
    # Read off the photo by eye, to about 2 pixels.
    for found, seen in ((eye_left, (204, 101)), (eye_right, (247, 103)), (chin, (221, 178))):
        np.testing.assert_allclose(found, seen, atol=4)
    assert eye_left[1] < nose[1] < mouth[1] < chin[1]
    assert faces.scores.min() >= 0
    assert faces.scores.max() <= 1


def test_docs_and_card_say_what_was_measured():
    metrics = json.loads((RECORD / "metrics.json").read_text(encoding="utf-8"))
    root = RECORD.parent.parent
    start, page = ((root / "docs" / name).read_text(encoding="utf-8") for name in ("index.md", "accuracy.md"))
    card = SHIPPED_WEIGHTS.with_suffix(".md").read_text(encoding="utf-8")
    main, _, others, *_ = re.findall(r"^\|[^<]+\|$", (RECORD / "README.md").read_text("utf-8"), re.MULTILINE)
    assert main in page
    assert others in page
    assert main in card
    mean = metrics["common"]["all"]["outer_eye"]["mean"]["value"]
    assert f"Mean error {mean:.2f} % of the outer-eye distance" in " ".join(start.split())
    weakness = [
        metrics["wflw"]["subsets"]["pose"]["box"]["mean"]["value"],
        metrics["wflw"]["subsets"]["blur"]["box"]["mean"]["value"],
        metrics["common"]["all"]["box"]["mean"]["value"],
        metrics["common"]["parts"]["jaw"]["outer_eye"]["value"],
        metrics["common"]["parts"]["eye"]["outer_eye"]["value"],
    ]
    for text in (page, card):
        section = " ".join(text.partition("bad at.**")[2].split("\n\n")[0].split())
        assert [f"{value:.2f} %" for value in weakness] == re.findall(r"[\d.]+ %", section)


@pytest.fixture(scope="module")
def faces(record: ModuleType) -> Callable[[str], tuple[list[Sample], PointLayout, str]]:
    """Faces of a set of the record, read once, their layout, and where their boxes come from."""

    @cache
    def read(reader: str, folder: str, layout: str, options: str) -> list[Sample]:
        return read_dataset(reader, root=Path(DATA) / folder, layout=get_layout(layout), **json.loads(options))[0]

    def of(key: str) -> tuple[list[Sample], PointLayout, str]:
        reader, folder, layout, options, boxes = record.SETS[key]
        return read(reader, folder, layout, json.dumps(options)), get_layout(layout), boxes

    return of


def claimed_for(key: str) -> dict[str, Any]:
    return json.loads((RECORD / "metrics.json").read_text(encoding="utf-8"))[key]


@pytest.mark.data
@pytest.mark.parametrize("key", ["common", "common_detector", "wflw", "wflw_detector"])
def test_the_claimed_figures_are_reproduced(key: str, faces: Callable, landmarker: FaceLandmarker):
    samples, layout, boxes = faces(key)
    result = evaluate(landmarker, samples, layout=layout, boxes=boxes)
    claimed = claimed_for(key)
    assert len(result) == claimed["faces"]
    assert int(result.missed.sum()) == claimed["missed"]
    for norm in ("outer_eye", "box"):
        measured = 100 * float(mean_error(result.errors(norm)))
        assert measured == pytest.approx(claimed["all"][norm]["mean"]["value"], abs=0.02)


POINTS_OF_CROPS = """
import sys
import numpy as np
from pipnet.inference.sessions import onnx_session
graph, crops, result = sys.argv[1:]
with open(graph, "rb") as file:
    np.save(result, onnx_session(file.read(), threads=1).run(["points_unit"], {"crops": np.load(crops)})[0])
"""


def test_a_cpu_without_vnni_has_the_same_points(tmp_path: Path):
    """Emulated one, with ONNX Runtime's code for such CPUs, against this one, whichever it is."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("there is no qemu-x86_64 to emulate another CPU (Debian: apt install qemu-user)")
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the portrait")
    crop = crop_of_square(np.array([225.0, 134.0, 126.0]), 256).warp(data.astronaut())
    np.save(tmp_path / "crops.npy", crop[None])
    found = []
    for name, command in (("here", []), ("there", [emulator, "-cpu", "Haswell"])):
        result = tmp_path / f"{name}.npy"
        program = [*command, sys.executable, "-c", POINTS_OF_CROPS, SHIPPED_GRAPH, tmp_path / "crops.npy", result]
        done = subprocess.run(list(map(str, program)), capture_output=True, text=True, cwd=ROOT, timeout=280)
        assert done.returncode == 0, done.stderr
        found.append(np.load(result) * 256)
    # What computes in 32 bits behind the heads rounds differently; a sum that was cut off moves points by pixels.
    assert np.linalg.norm(found[0] - found[1], axis=-1).max() < 0.01


@pytest.mark.data
@pytest.mark.parametrize(("key", "bar"), [("common", 0.03), ("wflw", 0.10)])
def test_the_claimed_figures_of_the_8_bit_graph_are_reproduced(key: str, bar: float, faces: Callable):
    """On any CPU: int8 costs no more than it may, and what was measured; on each runtime, whole or every third face."""
    exact = claimed_for(key)["all"]["outer_eye"]["mean"]["value"]
    metrics = json.loads((RECORD.parent / "efficiency" / "accuracy.json").read_text(encoding="utf-8"))
    samples, layout, boxes = faces(key)
    result, part = (
        evaluate(FaceLandmarker.load(SHIPPED_GRAPH, runtime=runtime), some, layout=layout, boxes=boxes)
        for runtime, some in (("onnxruntime", samples), ("openvino", samples[::3]))
    )
    errors = result.errors("outer_eye")
    measured = 100 * float(mean_error(errors))
    assert measured <= exact + bar
    assert measured == pytest.approx(metrics["sets"][key]["shipped onnxruntime int8"]["68"]["mean"]["value"], abs=bar)
    on_openvino, here = (100 * float(mean_error(some)) for some in (part.errors("outer_eye"), errors[::3]))
    assert on_openvino == pytest.approx(here, abs=bar)
