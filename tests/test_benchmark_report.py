"""The benchmark's rows, tables, files, and its NME, on contenders whose times and points the test makes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pipnet.benchmark.accuracy import Accuracy, measure_accuracy, read_accuracy
from pipnet.benchmark.contenders import OTHERS_RUNTIME, Contender
from pipnet.benchmark.others import INNER_OF_68, INNER_OF_MESH, OtherDetector
from pipnet.benchmark.peak import Peak
from pipnet.benchmark.report import write_report
from pipnet.benchmark.results import contender_rows
from pipnet.benchmark.tables import left_out_table, start_table, timing_table
from pipnet.benchmark.work import Work
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.layouts import get_layout


def contender(model="shipped", runtime="torch", precision="fp32", threads=1, batch=1, gflop=1.0, **more):
    return Contender(model, runtime, precision, threads, batch, 256, Work(gflop, gflop and 1.25 * gflop), int, **more)


CONTENDERS = [
    contender(),
    contender(runtime="onnxruntime", precision="int8"),
    contender(batch=16),
    contender(runtime="onnxruntime", precision="int8", batch=16),
    contender("graph", "openvino", "int8", gflop=None),
    contender("dlib-68", OTHERS_RUNTIME, "", gflop=None),
]
MS = [20.0, 4.0, 160.0, 32.0, 5.0, 2.0]
SECONDS = {one.key: np.full((4, 3), ms / 1000) for one, ms in zip(CONTENDERS, MS, strict=True)}
PEAKS = [Peak("fp32", 1, 100.0, 512), Peak("int8", 1, 500.0, 1024)]
ACCURACY = {
    "shipped torch fp32": Accuracy(2.95, 2.20, 554),
    "shipped int8": Accuracy(2.97),
    "dlib-68": Accuracy(3.54, 3.17, 554, missed=3),
}


@pytest.fixture
def results():
    start = {"name": "shipped torch fp32", "threads": 1, "cold_s": (2.0, 3.0, 2.5), "warm_s": (0.5,), "torch": True}
    return {
        "machine": {
            "processor": "a processor",
            "cores": 2,
            "system": "Linux",
            "python": "3.11",
            "pipnet": "0",
            "environment": {"OMP_NUM_THREADS": "1"},
            "versions": {"torch": "2"},
        },
        "settings": {"command": "--quick", "rounds": 4, "starts": 3},
        "load_average": 1.5,
        "subject": "a drawn face",
        "notes": ["A note."],
        "contenders": contender_rows(CONTENDERS, SECONDS, PEAKS, ACCURACY),
        "peaks": [{"precision": "fp32", "threads": 1, "gflops": 100.0, "size": 512}],
        "starts": [{**start, "peak_mib": (300.0, 310.0, 305.0)}],
        "left_out": [{"name": "shipped torch int8", "reason": "there is none"}],
    }


def test_rows_hold_times_ratios_and_shares(results):
    torch, quick, torch16, quick16, graph, dlib = results["contenders"]
    assert torch["ms"] == pytest.approx({"median": 20, "low": 20, "high": 20, "best": 20})
    assert torch["ratio_to"] == "shipped torch fp32"
    assert (quick["ratio"]["median"], quick["ratio_to"]) == (pytest.approx(5), "shipped torch fp32")
    assert (torch16["ms_a_face"], quick16["ms_a_face"]) == pytest.approx((10, 2))
    assert quick16["ratio"]["median"] == pytest.approx(5)  # against PyTorch with the same batch
    assert torch["share"] == pytest.approx(0.5)  # 1 GFLOP in 20 ms, of 100 a second
    assert quick16["share"] == pytest.approx(1.0)  # 16 in 32 ms, of 500
    assert graph["share"] is None
    assert graph["ratio_to"] == "graph openvino int8"  # nothing else runs that file
    assert (dlib["ratio"]["median"], dlib["ratio_to"]) == (pytest.approx(10), "shipped torch fp32")
    assert [row["accuracy"] and row["accuracy"]["nme"] for row in results["contenders"]] == [
        2.95,
        2.97,
        2.95,
        2.97,
        None,
        3.54,
    ]


def test_the_share_of_the_fastest_call_is_beside_that_of_the_median():
    one = contender()
    seconds = {one.key: np.array([[0.020, 0.025, 0.030], [0.025, 0.025, 0.030]])}
    (row,) = contender_rows([one], seconds, PEAKS, {})
    assert (row["share"], row["share_best"]) == (pytest.approx(0.4), pytest.approx(0.5))


def test_tables(results):
    lines = timing_table(results).splitlines()
    assert len(lines) == 2 + len(CONTENDERS)
    assert lines[3].startswith(
        "| shipped | onnxruntime | int8 | 1 | 1 | 4.00 (4.00 … 4.00) | 4.00 | 5.00 (5.00 … 5.00)"
    )
    assert lines[-1].startswith("| dlib-68 | own | – |")
    assert lines[-1].endswith("| 3.54 (3 missed) | 3.17 (3 missed) |")
    assert "2.50 (2.00 … 3.00) | 0.50 | 310 | yes |" in start_table(results)
    assert "| shipped torch int8 | there is none |" in left_out_table(results)
    assert start_table({"starts": []}) == ""


@pytest.mark.parametrize("known", [True, False])
def test_the_files_of_a_report(results, tmp_path, known):
    if not known:
        for row in results["contenders"]:
            row["accuracy"] = None
    paths = write_report(results, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["benchmark.json", "report.md", "speed.png"]
    assert json.loads(paths[0].read_text())["contenders"][0]["model"] == "shipped"
    text = paths[1].read_text()
    for part in ("a processor", "OMP_NUM_THREADS=1", "A note.", timing_table(results), "there is none"):
        assert part in text
    picture = cv2.imread(str(paths[2]))
    width = picture.shape[1]
    panels = 1300 < width < 1600, 700 < width < 900
    assert panels == (known, not known)  # speed against NME stands beside the bars where it is known
    assert picture.std() > 10


def test_a_report_that_cannot_be_written_leaves_no_half_file(results, tmp_path):
    with pytest.raises(OSError, match=r"gone/benchmark\.json can't be written"):
        write_report(results, tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "must hold one object of names and percent"),
        ('{"a": "2"}', "'a' must have a number of percent, got '2'"),
        ('{"a": NaN}', "'a' must have a number of percent"),
        ('{"a": true}', "'a' must have a number of percent"),
        ('{"a": -1}', "'a' must have a number of percent"),
    ],
)
def test_a_file_of_errors_that_is_none(tmp_path, content, message):
    path = tmp_path / "nme.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_accuracy(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_errors(tmp_path):
    path = tmp_path / "nme.json"
    path.write_text('{"shipped int8": 3, "dlib-68": 3.54}')
    assert read_accuracy(path) == {"shipped int8": Accuracy(3.0), "dlib-68": Accuracy(3.54)}
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.json for --nme"):
        read_accuracy(tmp_path / "gone.json")


def test_the_error_of_other_detectors_is_measured_in_pixels_of_the_photo():
    """One that knows the truth but for a shift of its crop's pixels, and misses the second face."""
    faces, layout = draw_faces(4, seed=3), get_layout("300w_68")

    def opened(other, chosen):
        crops = [other.crop(face.box).warp(face.image) for face in faces]

        def find(crop):
            index = next(i for i, known in enumerate(crops) if np.array_equal(known, crop))
            points = other.crop(faces[index].box).to_crop(faces[index].points) + np.array([2.0, 0.0])
            return None if index == 1 else chosen(points)

        return find

    def mesh_of(points):
        mesh = np.full((478, 2), np.nan)
        mesh[list(INNER_OF_MESH)] = points[list(INNER_OF_68)]
        return mesh

    whole = OtherDetector("whole", "", 68, INNER_OF_68, int, box_scale=1.5, box_shift=0.1)
    mesh = OtherDetector("mesh", "", 478, INNER_OF_MESH, int, box_scale=1.5, box_shift=0.0)
    contenders = [
        contender(other.name, OTHERS_RUNTIME, "", gflop=None, other=(other, opened(other, chosen)))
        for other, chosen in ((whole, lambda points: points), (mesh, mesh_of))
    ]
    found, failed = measure_accuracy(contenders, lambda _: True, faces, layout)
    assert failed == []
    sides = [1.5 * (face.box[2:] - face.box[:2]).max() for face in faces]
    eyes = [np.linalg.norm(face.points[36] - face.points[45]) for face in faces]
    # the crop is 256 pixels: two of them are this much of the outer-eye distance
    expected = 100 * np.mean(
        [2 * side / 256 / eye for i, (side, eye) in enumerate(zip(sides, eyes, strict=True)) if i != 1]
    )
    assert found["whole"] == Accuracy(pytest.approx(expected), pytest.approx(expected), faces=4, missed=1)
    assert found["mesh"] == Accuracy(None, pytest.approx(expected), faces=4, missed=1)


def test_who_is_not_judged_or_fails_is_not_measured():
    faces, layout = draw_faces(1, seed=3), get_layout("300w_68")

    def broken(_crop):
        raise RuntimeError("out of order\nwith details")

    other = OtherDetector("broken", "", 68, INNER_OF_68, int, box_scale=1.5, box_shift=0.0)
    failing = contender("broken", OTHERS_RUNTIME, "", other=(other, broken))
    random = contender("random", OTHERS_RUNTIME, "", other=(other, broken))
    found, failed = measure_accuracy([failing, random], lambda one: one is failing, faces, layout)
    assert found == {}
    assert failed == [("broken, NME", "out of order")]
