"""The records of ``experiments/efficiency`` keep what was promised; the report is what its numbers say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipnet.benchmark.cases import Case
from pipnet.inference.landmarker import SHIPPED_GRAPH
from pipnet.model.pipnet import PIPNet

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "experiments" / "efficiency"


def script(name: str) -> ModuleType:
    """One of the record's scripts, which is not installed."""
    spec = importlib.util.spec_from_file_location(f"efficiency_{Path(name).stem}", RECORD / name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its own
    spec.loader.exec_module(module)
    return module


REPORT = script("speed/report.py")


def read(name: str) -> dict[str, Any]:
    return json.loads((RECORD / name).read_text(encoding="utf-8"))


def speed() -> dict[str, Any]:
    return REPORT.read_results(RECORD / "speed" / "benchmark.json")


def cases(model: str) -> dict[str, dict[str, Any]]:
    """What was timed of a network with one crop on one thread, by runtime and precision."""
    rows = speed()["cases"]
    return {
        f"{row['runtime']} {row['precision']}": row
        for row in rows
        if (row["model"], row["threads"], row["batch"]) == (model, 1, 1)
    }


def test_the_report_is_what_its_numbers_say():
    assert (RECORD / "speed" / "report.md").read_text(encoding="utf-8") == REPORT.markdown(speed())


def test_the_best_runtime_is_many_times_faster_than_pytorch():
    """Medians of ratios within the same rounds, one crop of 256 px on one thread."""
    for model, bar in (("resnet18", 5.5), ("shipped", 4.5)):
        timed = cases(model)
        assert timed["torch fp32"]["ratio"]["median"] == 1
        assert {row["input_size"] for row in timed.values()} == {256}
        best = max(timed.values(), key=lambda row: row["ratio"]["median"])
        assert best["ratio"]["median"] >= bar, model


def test_the_best_runtime_is_close_to_what_the_machine_can_do():
    assert max(row["share"] for row in cases("resnet18").values() if row["precision"] == "int8") >= 0.8


def test_a_cold_start_takes_less_than_a_second_and_no_torch():
    starts = {start["name"]: start for start in speed()["starts"]}
    ours, torch = starts["shipped onnxruntime int8"], starts["shipped torch fp32"]
    assert sorted(ours["cold_s"])[len(ours["cold_s"]) // 2] < 1
    assert not ours["torch"]
    assert torch["torch"]
    assert max(ours["peak_mib"]) < min(torch["peak_mib"])


def test_the_head_costs_what_coordinate_regression_costs():
    for name, runtime in read("heads.json")["runtimes"].items():
        assert runtime["over_coordinate"]["pip"]["median"] <= 1.08, name
        # PyTorch eager is at the bar, give or take its spread; what ships runs on the others.
        assert runtime["heatmap_over_pip"]["high" if name == "torch" else "median"] >= 1.5, name


def test_the_landmarker_adds_little_to_its_network():
    metrics = read("frame.json")
    for name, figures in metrics["runtimes"].items():
        assert figures["ratio"]["median"] <= 1.35, name
    for width, figures in metrics["crop_ms"].items():
        assert figures["repeated"]["median"] < 0.6, width
        assert figures["in_place"]["median"] < 0.6, width


def test_8_bits_keep_the_accuracy():
    """0.02 points of Common-554 and 0.10 of WFLW-108 at most, on a CPU without VNNI; others compute the same."""
    metrics = read("accuracy.json")
    assert metrics["processor"].endswith("(no VNNI)")
    for runtime in ("onnxruntime", "openvino"):
        for key, bar in (("common", 0.02), ("wflw", 0.10)):
            assert metrics["paired"][key][f"shipped {runtime} int8"]["68"]["value"] <= bar, (runtime, key)


def test_the_rounding_that_ships_is_the_one_that_was_best():
    """Over boxes that are good and boxes that are off; and it gives back most of what an overflow costs."""
    metrics = read("rounding.json")
    for runtime in ("onnxruntime", "openvino"):
        moved = {
            way: sum(figures[runtime]["moved_px"])
            for way, figures in metrics.items()
            if isinstance(figures, dict) and way != "times"
        }
        assert min(moved, key=moved.__getitem__) == "shipped"
        assert moved["shipped"] < moved["nearest"] / 3
        for times in metrics["times"].values():
            assert times[runtime]["median"] >= 0.97  # as fast as before, up to 3 percent


def test_with_vnni_int8_costs_next_to_nothing():
    """The graph that ships, less 32 bits on the same faces; ``accuracy_vnni.json``."""
    metrics = read("accuracy_vnni.json")
    assert metrics["processor"].endswith("(VNNI)")
    assert script("accuracy.py").paired_table(metrics) in (RECORD / "README.md").read_text(encoding="utf-8")
    for runtime in ("onnxruntime", "openvino"):
        for key, bar in (("common", 0.02), ("wflw", 0.10)):
            assert metrics["paired"][key][f"shipped {runtime} int8"]["68"]["value"] <= bar, (runtime, key)


def test_the_record_keeps_the_times_of_a_cpu_with_vnni():
    accuracy = script("accuracy.py")
    page, before = (RECORD / "README.md").read_text(encoding="utf-8"), read("accuracy_0.4.0.json")
    assert accuracy.table(before) in page
    assert accuracy.paired_table(before) in page


def test_the_docs_say_what_was_measured():
    page = " ".join((ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8").split())
    accuracy, frame = read("accuracy.json"), read("frame.json")
    names = ("torch fp32", "onnxruntime fp32", "openvino fp32", "onnxruntime int8", "openvino int8")
    for kind, file in (("without", "accuracy.json"), ("with", "accuracy_0.4.0.json")):
        row = re.search(rf"\| milliseconds a face {kind} VNNI \|" + r" ([^|]+)\|" * 5, page)
        assert row
        times = read(file)["speed"]
        for cell, name in zip(row.groups(), names, strict=True):
            assert cell.strip() == f"{times[f'shipped {name}']['ms']['median']:.1f}"
    row = re.search(r"\| NME on Common-554, % \| ([^|]+)\|([^|]+)\|([^|]+)\|([^|]+)\|([^|]+)\|", page)
    assert row
    for cell, name in zip(row.groups(), names, strict=True):
        assert cell.strip() == f"{accuracy['nme'][f'shipped {name}']:.3f}"
    said = re.search(r"takes ([\d.]+) times as long as the bare network \(OpenVINO ([\d.]+)\)", page)
    assert said
    for text, name in zip(said.groups(), ("onnxruntime", "openvino"), strict=True):
        assert text == f"{frame['runtimes'][name]['ratio']['median']:.2f}"
    said = re.search(r"([\d.]+) times as fast as PyTorch, ResNet-18 ([\d.]+) times, at (\d+) % of", page)
    assert said
    best = [max(cases(model).values(), key=lambda row: row["ratio"]["median"]) for model in ("shipped", "resnet18")]
    assert said.groups() == (
        f"{best[0]['ratio']['median']:.1f}",
        f"{best[1]['ratio']['median']:.1f}",
        f"{100 * best[1]['share']:.0f}",
    )
    starts = {start["name"]: start for start in speed()["starts"]}
    said = re.search(
        r"first points come ([\d.]+) s after Python starts .*? (\d+) MiB .*? PyTorch ([\d.]+) s and (\d+) MiB", page
    )
    assert said
    expected = []
    for name in ("shipped onnxruntime int8", "shipped torch fp32"):
        expected += [f"{sorted(starts[name]['cold_s'])[len(starts[name]['cold_s']) // 2]:.1f}"]
        expected += [f"{max(starts[name]['peak_mib']):.0f}"]
    assert list(said.groups()) == expected


def test_the_record_shows_one_crop_on_one_thread():
    one = [row for row in speed()["cases"] if (row["threads"], row["batch"]) == (1, 1)]
    assert REPORT.timing_table(one) in (RECORD / "README.md").read_text(encoding="utf-8")


def test_an_upright_face_pays_at_most_3_percent_for_those_that_are_not():
    metrics = read("roll_cost.json")
    assert metrics["bar"] == 1.03
    for name, figures in metrics["runtimes"].items():
        assert figures["ratio"]["median"] <= metrics["bar"], name


def test_results_of_0_4_and_of_today_are_read_alike(tmp_path):
    old, new = (
        {"format": 1, "contenders": [1], "left_out": [2], "subject": "a"},
        {"cases": [1], "skipped": [2], "image": "a"},
    )
    for content in (old, new):
        (tmp_path / "benchmark.json").write_text(json.dumps(content))
        found = REPORT.read_results(tmp_path / "benchmark.json")
        assert {key: found[key] for key in new} == new


def test_the_peak_is_the_best_rate_of_any_size_and_call():
    called = "matrix product"
    seconds = {
        (called, "fp32", 1, 1000): np.array([[0.020, 0.040], [0.025, 0.030]]),  # 2 GFLOP in 20 ms
        (called, "fp32", 1, 500): np.array([[0.005, 0.002]]),  # 0.25 GFLOP in 2 ms
        (called, "int8", 2, 500): np.array([[0.001]]),
        ("shipped torch fp32", 1, 1): np.array([[1e-9]]),  # not a product
    }
    found = script("speed/peak.py").peaks(seconds)
    assert [(one.precision, one.threads, one.size) for one in found] == [("fp32", 1, 500), ("int8", 2, 500)]
    assert [one.gflops for one in found] == pytest.approx([125, 250])


def test_work_counts_two_for_each_multiply_accumulate():
    """The dense form of a head is a product over all its channels at every cell; the rest is the backbone's."""
    mean_face = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=4, input_size=64).eval()
    in_graph, dense = script("speed/peak.py").network_work(net)
    head = 2 * 576 * 68 * (3 + 2 * 4) * 2 * 2 / 1e9  # channels, points, maps of a point, cells
    with torch.inference_mode(), FlopCounterMode(display=False) as backbone:
        net.backbone(torch.zeros(1, 3, 64, 64))
    assert dense == pytest.approx(backbone.get_total_flops() / 1e9 + head)
    assert backbone.get_total_flops() / 1e9 < in_graph < dense


def test_cold_starts_are_those_of_a_fresh_process_and_a_failure_is_said(tmp_path):
    """Linux hands the largest resident set of the parent down to what it starts; that figure would be no start's."""
    starts = script("speed/starts.py")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    broken, good, again = (
        Case(name, "onnxruntime", "int8", 1, batch, int, file)
        for name, file, batch in (
            ("broken", tmp_path / "broken.onnx", 1),
            ("good", SHIPPED_GRAPH, 1),
            ("good", SHIPPED_GRAPH, 16),
        )
    )
    assert starts.one_per_network([broken, good, again]) == [broken, good]
    ballast = np.ones(600 * 2**17)  # 600 MiB
    (start,), failed = starts.measure_starts([broken, good], repeats=2)
    assert (start.name, len(start.cold_s), start.torch) == ("good onnxruntime int8", 2, False)
    assert max(start.peak_mib) < ballast.nbytes / 2**20
    assert start.cold_s[0] > start.warm_s[0] > 0
    assert failed[0][0] == "broken onnxruntime int8, start"
    assert "broken.onnx" in failed[0][1]
