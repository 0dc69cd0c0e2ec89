"""The figures and files of a report, worked by hand from known mistakes; and the command that writes them."""

import csv
import importlib
import json
import sys

import cv2
import numpy as np
import pytest
import torch
from known_faces import L68, FakeLandmarker, detector_of, face_68, faces, number, photo, shifted

from pipnet.data.sample import Sample
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.evaluation.evaluate import evaluate
from pipnet.evaluation.report import format_table, measure, write_report
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import layout_from_dict
from pipnet.model import checkpoint
from pipnet.model.pipnet import PIPNet


def test_figures_by_hand():
    samples = faces(4)
    result = evaluate(shifted(samples, (2, 0), (0, 3.6), (-4, 0), (8, 0)), samples, layout=L68)  # 5, 9, 10, 20 %
    figures = measure(result)["all"]["outer_eye"]
    got = {name: figures[name]["value"] for name in ("mean", "median", "fr_8", "fr_10", "auc_8", "auc_10")}
    # Exactly 10 % is no failure at 10 %. AUC@8: (1 - 5 / 8) / 4. AUC@10: (0.5 + 0.1) / 4.
    by_hand = {"mean": 11.0, "median": 9.5, "fr_8": 75.0, "fr_10": 25.0, "auc_8": 9.375, "auc_10": 15.0}
    assert got == pytest.approx(by_hand, abs=1e-3)
    assert figures["mean"]["low"] < 11 < figures["mean"]["high"]


def test_parts_and_inner_points():
    samples = faces(2)

    def jaw_off_by_four(face, box):
        points = samples[face].points.copy()
        points[:17, 0] += 4.0
        return points

    metrics = measure(evaluate(FakeLandmarker(L68, jaw_off_by_four), samples, layout=L68))
    assert {part: norms["outer_eye"]["value"] for part, norms in metrics["parts"].items()} == pytest.approx(
        {"jaw": 10.0, "brow": 0.0, "nose": 0.0, "eye": 0.0, "mouth": 0.0}, abs=1e-3
    )
    assert metrics["parts"]["jaw"]["box"]["value"] == pytest.approx(100 * 4 / 48, abs=1e-3)
    assert metrics["all"]["inner"]["mean"]["value"] == pytest.approx(0, abs=1e-3)
    assert metrics["all"]["outer_eye"]["mean"]["value"] == pytest.approx(10 * 17 / 68, abs=1e-3)


def test_profile_without_eye_distance_is_counted_apart():
    profile = face_68()
    profile[36] = profile[45]
    samples = [*faces(1), Sample(photo(1), profile, "profile")]
    figures = measure(evaluate(shifted(samples, (4, 0)), samples, layout=L68))["all"]
    assert figures["outer_eye"]["mean"]["value"] == pytest.approx(10, abs=1e-3)
    assert {norm: (figures[norm]["faces"], figures[norm]["unmeasurable"]) for norm in ("outer_eye", "box")} == {
        "outer_eye": (1, 1),
        "box": (2, 0),
    }


def test_a_lost_half_pixel_shows_as_bias():
    samples = faces(30)
    noise = np.random.default_rng(0).normal(0, 1, (30, 2))
    noise -= noise.mean(axis=0)
    biased = measure(evaluate(shifted(samples, *(noise - [0.5, 0])), samples, layout=L68))["bias"]
    assert biased["x"]["value"] == pytest.approx(-0.5 / 40 * 100, abs=1e-3)
    assert biased["y"]["value"] == pytest.approx(0, abs=1e-3)
    assert biased["x"]["high"] < 0 < biased["y"]["high"]


def test_subsets_are_counted_separately():
    samples = faces(4, subsets=lambda i: ("helen",) if i < 2 else ("lfpw", "dark") if i == 2 else ("lfpw",))
    result = evaluate(shifted(samples, (2, 0), (4, 0), (6, 0), (8, 0)), samples, layout=L68)
    subsets = measure(result)["subsets"]
    got = {
        name: (figures["outer_eye"]["faces"], figures["outer_eye"]["mean"]["value"])
        for name, figures in subsets.items()
    }
    assert got == {
        "helen": (2, pytest.approx(7.5, abs=1e-3)),
        "lfpw": (2, pytest.approx(17.5, abs=1e-3)),
        "dark": (1, pytest.approx(15.0, abs=1e-3)),
    }
    assert subsets["dark"]["box"]["mean"]["value"] == pytest.approx(100 * 6 / 48, abs=1e-3)


def test_table_shows_the_figures():
    samples = faces(6, subsets=lambda i: ("everyone", "helen") if i else ("everyone",))
    table = format_table(measure(evaluate(shifted(samples, (4, 0)), samples, layout=L68)))
    header, *lines = table.splitlines()
    assert header.split() == ["NME", "%,", "by", "faces", "mean", "median", "FR@8", "FR@10", "AUC@8", "AUC@10"]
    assert next(line for line in lines if line.startswith("outer eyes")).split()[2:4] == ["6", "10.00"]
    starts = {line.split(",")[0] for line in lines}
    assert {"helen", "mouth"} <= starts
    assert "everyone" not in starts  # the whole set stands at the top
    assert "bias: x 10.00" in table


def test_all_faces_missed_still_makes_a_report(tmp_path):
    samples = faces(3)
    landmarker = FakeLandmarker(L68, None, detector_of(lambda i: []))
    metrics = write_report(evaluate(landmarker, samples, layout=L68, boxes="detector"), tmp_path)
    figures = metrics["all"]["outer_eye"]
    assert figures["mean"] == {"value": None, "low": None, "high": None}
    assert figures["fr_10"] == {"value": 100, "low": 100, "high": 100}
    assert landmarker.batches == []
    assert "100.00" in format_table(metrics)


def test_report_files(tmp_path):
    samples = faces(5, subsets=lambda i: ("even",) if i % 2 == 0 else ("odd", "some"))
    offsets = [(2, 0), (20, 0), (4, 0), (0, 0), (-1, 0)]
    boxes = [[] if i == 3 else [samples[i].box] for i in range(5)]
    landmarker = shifted(samples, *offsets)
    landmarker.detector = detector_of(lambda i: boxes[i])
    for sample in samples:
        sample.image[1:] = 30 + 40 * number(sample.image)  # a grey of its own
    result = evaluate(landmarker, samples, layout=L68, boxes="detector", crop_space=True)
    returned = write_report(result, str(tmp_path / "deep" / "report"), about={"checkpoint": "fake.pt"}, worst=4)
    folder = tmp_path / "deep" / "report"

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == returned
    assert metrics["checkpoint"] == "fake.pt"
    assert metrics["protocol"]["boxes"] == "detector"

    with (folder / "per_face.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"face{i}" for i in range(5)]
    assert [row["found"] for row in rows] == ["1", "1", "1", "0", "1"]
    assert rows[1]["subsets"] == "odd+some"
    assert rows[3]["nme_outer_eye"] == rows[3]["bias_x"] == rows[3]["box_iou"] == ""
    errors = [float(row["nme_outer_eye"]) for row in rows if row["found"] == "1"]
    assert errors == pytest.approx([5, 50, 10, 2.5], abs=1e-3)
    assert metrics["all"]["outer_eye"]["mean"]["value"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert float(rows[4]["bias_x"]) == pytest.approx(-2.5, abs=1e-3)
    assert float(rows[1]["part_mouth"]) == pytest.approx(50, abs=1e-3)
    assert float(rows[0]["outer_eye_px"]) == 40
    assert float(rows[0]["nme_crop_space"]) == pytest.approx(5, abs=1e-3)

    assert cv2.imread(str(folder / "ced.png")) is not None
    sheet = cv2.imread(str(folder / "worst_faces.png"))
    greys = [int(np.median(sheet[200:220, 256 * column + 5 : 256 * column + 250])) for column in range(4)]
    assert sheet.shape[1] == 4 * 256
    assert greys == [30 + 40 * face for face in (3, 1, 2, 0)]  # missed, then 50, 10 and 5 %
    assert not (folder / "box_noise.png").exists()


def test_dots_on_the_worst_faces_lie_on_the_points(tmp_path):
    """One true point far from the others: its green dot must be where the crop's own map puts it."""
    layout = layout_from_dict({"name": "three", "num_points": 3})
    image = np.zeros((200, 200, 3), np.uint8)
    sample = Sample(image, np.array([[60.0, 60.0], [140.0, 140.0], [140.0, 60.0]]), "three")
    landmarker = FakeLandmarker(layout, lambda face, box: np.add(sample.points, [0, 20]))
    write_report(evaluate(landmarker, [sample], layout=layout), tmp_path)
    tile = cv2.imread(str(tmp_path / "worst_faces.png"))[:256].astype(int)
    green = (tile[..., 1] > 150) & (tile[..., 2] < 100)
    red = (tile[..., 2] > 150) & (tile[..., 1] < 100)
    # The square is centred on (100, 100) with a side of 160: (60, 60) lies a quarter in, pixel 64 - 0.5 of 256.
    ys, xs = np.nonzero(green[:100, :100])
    assert (xs.mean(), ys.mean()) == pytest.approx((63.5, 63.5), abs=0.6)
    ys, xs = np.nonzero(red[:120, :100])
    assert (xs.mean(), ys.mean()) == pytest.approx((63.5, 95.5), abs=0.6)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs ``pipnet.evaluate`` on six faces with an untrained network, in a folder outside the checkout."""
    torch.manual_seed(0)
    mean_face = np.mean([(face.points + 0.5) / 256 for face in draw_faces(5, seed=9)], axis=0)
    net = PIPNet(mean_face, backbone="mobilenet_v3_small", input_size=64)
    checkpoint.save(tmp_path / "untrained.pt", net, layout=L68, crop_scale=1.2, training={})
    few = ["dataset=drawn", "dataset.splits.test.count=6", "dataset.splits.test.size=96", "resamples=100"]
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        words = ["evaluate", "device=cpu", "checkpoint=untrained.pt", *few, *arguments]
        monkeypatch.setattr(sys, "argv", words)
        importlib.import_module("pipnet.evaluate").main()

    return run


def test_command_writes_what_evaluate_measures(command, tmp_path, capsys):
    command("box_noise=[0,0.1]", "crop_space=true", "output=out")
    written = {path.name for path in tmp_path.rglob("*")} - {"untrained.pt"}
    assert written == {"out", "metrics.json", "per_face.csv", "ced.png", "worst_faces.png", "box_noise.png"}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    landmarker = FaceLandmarker.load(tmp_path / "untrained.pt", device="cpu")
    expected = evaluate(landmarker, draw_faces(6, seed=2, size=96), layout=L68).errors()
    mean = metrics["all"]["outer_eye"]["mean"]["value"]
    assert mean == pytest.approx(100 * expected.mean(), abs=1e-3)
    assert metrics["box_noise"][0]["mean"]["value"] == mean  # no noise: the label boxes
    assert metrics["box_noise"][1]["mean"]["value"] != mean
    assert (metrics["dataset"], metrics["split"], metrics["checkpoint"]) == ("drawn", "test", "untrained.pt")
    printed = capsys.readouterr().out
    assert f"{mean:.2f} [" in printed
    assert "authors' crop space" in printed


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_measures_what_a_cpu_does(command, tmp_path):
    for device in ("cpu", "cuda"):
        command(f"device={device}", f"output={device}")
    cpu, cuda = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("cpu", "cuda"))
    mean, same = (of["all"]["outer_eye"]["mean"]["value"] for of in (cpu, cuda))
    assert same == pytest.approx(mean, rel=1e-2)


def test_what_the_user_can_mend_is_one_sentence(command):
    with pytest.raises(SystemExit, match=r"^pipnet\.evaluate: error: .*no split 'tset'.*$") as caught:
        command("split=tset")
    assert "\n" not in str(caught.value)
