"""``python -m pipnet.benchmark`` as a person runs it, on networks of a millisecond; and its timing."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipnet.benchmark import main
from pipnet.benchmark.cases import Case, Suite, build_cases, find_network, measure_accuracy, sample_images
from pipnet.benchmark.command import parse
from pipnet.benchmark.report import collect, summary, write_report
from pipnet.benchmark.timing import Timed, of_rounds, ratio, spread, time_interleaved
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS
from pipnet.layouts import get_layout

ROOT = Path(__file__).resolve().parent.parent
TINY = "mobilenet_v2@64"
ONE = ("--models", TINY, "--runtimes", "torch", "--precisions", "fp32", "--threads", "1")


def test_a_run_from_the_command_line_writes_table_and_figures(tmp_path, capsys):
    """Two runtimes, two batches; what can't be had is skipped with its reason, options of 0.4 are known."""
    arguments = ["--quick", "--models", TINY, "--runtimes", "torch,onnxruntime", "--threads", "1", "--batch", "1,3"]
    assert main([*arguments, "--no-others", "--starts", "0", "--output", str(tmp_path / "out")]) == 0
    shown, said = capsys.readouterr()
    assert "--no-others, --starts and --nme do nothing any more; --data measures NME" in said
    assert f"building {TINY} onnxruntime int8" in said
    assert "round 3 of 3" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"benchmark.json", "report.md"}
    results = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    rows = {(row["runtime"], row["precision"], row["batch"]): row for row in results["cases"]}
    runs = [("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    assert set(rows) == {(*run, batch) for run in runs for batch in (1, 3)}
    for row in rows.values():
        assert row["model"] == TINY
        assert 0 < row["ms"]["best"] <= row["ms"]["median"] <= row["ms"]["high"]
        assert row["ratio_to"] == f"{TINY} torch fp32"
        assert row["nme"] is None
    reason = "PyTorch computes these networks in fp32, not in int8"
    assert results["skipped"] == [{"name": f"{TINY} torch int8", "reason": reason}]
    assert results["notes"] == [
        f"Random weights: {TINY}.",
        f"int8 of {TINY} is calibrated on copies of one portrait: good for its speed only.",
    ]
    with pytest.raises(OSError, match=r"gone/benchmark\.json can't be written"):
        write_report(results, tmp_path / "gone")
    assert not (tmp_path / "gone").exists()
    assert {"processor", "vnni", "cores", "versions", "environment"} <= set(results["machine"])
    report = (tmp_path / "out" / "report.md").read_text()
    assert str(tmp_path) in report.splitlines()[2]  # the command
    assert report.rstrip().endswith(summary(results))
    assert summary(results) in shown


def test_a_kill_leaves_what_was_measured(tmp_path):
    """A first table comes long before the end; then a signal, even two, gives the last one."""
    command = [sys.executable, "-m", "pipnet.benchmark", *ONE, "--rounds", "1000000", "--output", str(tmp_path / "out")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **pipes, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)})
    try:
        first = []
        while "more rounds follow" not in "".join(first):
            first.append(process.stdout.readline())
            assert first[-1], process.stderr.read()
        assert any(line.startswith(f"| {TINY} | torch   | fp32 ") for line in first)
        assert (tmp_path / "out" / "benchmark.json").is_file()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        shown, said = process.communicate(timeout=1200)
    finally:
        process.kill()
    assert process.returncode == 1
    assert said.endswith("pipnet.benchmark: interrupted; what was measured is written\n")
    assert "Traceback" not in said
    results = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert 3 <= results["rounds_done"] < results["rounds"] == 1_000_000
    assert results["notes"][0] == "Interrupted."
    assert f"{results['rounds_done']} of 1000000 rounds" in shown
    assert summary(results) in shown
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["benchmark.json", "out", "report.md"]


def test_a_kill_before_anything_is_timed_leaves_nothing(tmp_path, monkeypatch, capsys):
    def killed(*arguments, **more):
        signal.raise_signal(signal.SIGTERM)
        return build_cases(*arguments, **more)

    monkeypatch.setattr("pipnet.benchmark.cases.build_cases", killed)
    assert main([*ONE, "--output", str(tmp_path / "out")]) == 1
    shown, said = capsys.readouterr()
    assert said.endswith("pipnet.benchmark: interrupted before anything was timed; nothing is written\n")
    assert shown == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def case(model="shipped", runtime="torch", precision="fp32", threads=1, batch=1, **more) -> Case:
    return Case(model, runtime, precision, threads, batch, int, Path("net.onnx"), **more)


def results_of(cases: list[Case], milliseconds: list[float], nme: dict[str, float], skipped=(), rounds=4) -> dict:
    seconds = {one.key: np.full((4, 3), ms / 1000) for one, ms in zip(cases, milliseconds, strict=False)}
    run = {"command": "--quick", "rounds": rounds, "notes": ["A note."]}
    return collect(Suite(cases, list(skipped)), seconds, nme, run)


def test_rows_compare_with_pytorch_on_the_same_network_threads_and_batch():
    int8 = {"runtime": "onnxruntime", "precision": "int8"}
    cases = [
        *(case(threads=2), case(**int8, threads=2), case(batch=16), case(**int8, batch=16)),
        *(case("graph", "onnxruntime", "int8"), case("graph", "openvino", "int8")),
    ]
    results = results_of(cases, [20, 4, 160, 32, 5, 2.5], {"shipped onnxruntime int8": 2.97})
    torch, quick, torch16, quick16, graph, other = results["cases"]
    assert torch["ms"] == pytest.approx({"median": 20, "low": 20, "high": 20, "best": 20})
    assert (quick["ratio"]["median"], quick["ratio_to"]) == (pytest.approx(5), "shipped torch fp32")
    assert (torch16["ms_a_face"], quick16["ms_a_face"]) == pytest.approx((10, 2))
    assert quick16["ratio"]["median"] == pytest.approx(5)
    assert graph["ratio_to"] == "graph onnxruntime int8"  # PyTorch does not run that file
    assert (other["ratio"]["median"], other["ratio_to"]) == (pytest.approx(2), "graph onnxruntime int8")
    assert [row["nme"] for row in results["cases"]] == [None, 2.97, None, 2.97, None, None]


def test_the_text_says_machine_table_fastest_notes_and_what_is_skipped(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    cases = [case(), case(runtime="openvino", batch=16), case(runtime="openvino", batch=4)]
    results = results_of(cases, [20, 32], {"shipped torch fp32": 2.917}, [("shipped torch int8", "there | is none")], 9)
    for vnni, said in ((True, " (VNNI), "), (False, " (no VNNI), "), (None, ", ")):
        results["machine"] |= {"processor": "A processor", "cores": 3, "vnni": vnni}
        assert summary(results).startswith(f"A processor{said}3 cores to use, python 3.")
    text = summary(results)
    assert "OMP_NUM_THREADS=7" in text
    lines = text.splitlines()
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| shipped ")]
    assert table[:2] == [
        ["shipped", "torch", "fp32", "1", "1", "20.00 (20.00 … 20.00)", "1", "2.92"],
        ["shipped", "openvino", "fp32", "1", "16", "2.00 (2.00 … 2.00)", "1", "–"],
    ]
    assert table[2:] == [
        ["shipped torch int8", "there / is none"],
        ["shipped openvino fp32, threads=1, batch=4", "it was not reached"],
    ]
    for part in ("of 4 of 9 rounds", "Fastest: shipped openvino fp32, threads=1, batch=16.", "A note."):
        assert part in text
    assert len({len(line) for line in lines if line.startswith("| shipped ") and "fp32 " in line and "…" in line}) == 1


def test_a_given_graph_is_taken_as_it_is(small_graph):
    network = find_network(str(small_graph), small_graph.parent)
    assert (network.name, network.input_size, network.trained) == ("net", 64, True)
    suite = build_cases(
        [network], runtimes=["torch", "onnxruntime"], precisions=["int8"], threads=[1, 10_000], batches=[1, 2]
    )
    assert [one.key for one in suite.cases] == [("net onnxruntime fp32", 1, 1), ("net onnxruntime fp32", 1, 2)]
    assert [name for name, _ in suite.skipped] == ["threads=10000", "net torch fp32"]
    assert suite.skipped[1][1].startswith("net.onnx does not run on torch")
    points, _, _ = suite.cases[1].call()
    assert points.shape == (2, 68, 2)


def test_a_checkpoint_is_exported_where_a_runtime_needs_a_graph(small_weights, tmp_path):
    network = find_network(str(small_weights), tmp_path)
    assert network.file("torch", "fp32") == small_weights
    graph = network.file("onnxruntime", "fp32")
    assert graph.suffix == ".onnx"
    assert network.file("openvino", "fp32") == graph  # made once
    suite = build_cases([network], runtimes=["onnxruntime"], precisions=["fp32", "int8"], threads=[1], batches=[1])
    assert [one.file == graph for one in suite.cases] == [True, False]
    assert [one.measurable for one in suite.cases] == [True, False]  # calibrated here: good for its speed only


def test_what_ships_is_timed_with_the_files_that_ship(tmp_path):
    network = find_network("shipped", tmp_path)
    assert network.file("torch", "fp32") == SHIPPED_WEIGHTS
    assert network.file("onnxruntime", "int8") == network.file("openvino", "int8") == SHIPPED_GRAPH
    assert network.input_size == 256
    crops = sample_images(3, 64)
    assert (crops.shape, crops.dtype) == ((3, 64, 64, 3), np.uint8)
    assert (np.abs(np.diff(crops.astype(int), axis=0)).mean(axis=(1, 2, 3)) > 1).all()  # those of a batch differ


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "resnet19"], "--models: no 'resnet19'; there are: shipped"),
        (["--models", "resnet18@x"], "no 'resnet18@x'"),
        (["--models", "resnet18@100"], "input_size 100 must be a multiple of 32"),
        (["--models", "gone.onnx"], "no network gone.onnx"),
        (["--models", "gone.pt"], "no checkpoint gone.pt"),
        (["--runtimes", "torch,tensorflow"], "--runtimes: no 'tensorflow'; there are: torch, onnxruntime, openvino"),
        (["--precisions", "fp16"], "--precisions: no 'fp16'"),
        (["--threads", "0"], "--threads: must be a whole number from 1, got '0'"),
        (["--batch", "1,many"], "--batch: must be a whole number from 1, got 'many'"),
        (["--rounds", "0"], "must be a whole number from 1"),
        (["--data", "gone"], "--data gone is no folder; give the one that holds 300W"),
        (["--models", TINY, "--data", "."], "300W does not exist"),
        (["--output", "taken"], "--output taken can't be a folder"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.startswith("pipnet.benchmark: error: ")
    assert message in said
    assert said.count("\n") == 1


def test_two_networks_of_one_name(small_weights, small_graph, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--models", str(small_weights), str(small_graph), "--output", str(tmp_path / "out")])
    assert "two networks are called 'net'; rename a file" in capsys.readouterr().err


def test_lists_take_commas_and_spaces(tmp_path):
    odd = tmp_path / "a,b.pt"
    odd.touch()
    _, options = parse(["--threads", "1,2", "4", "2", "--models", "shipped,resnet18", str(odd), "--rounds", "7"])
    assert options.threads == [1, 2, 4]
    assert options.models == ["shipped", "resnet18", str(odd)]
    assert options.runtimes == ["torch", "onnxruntime", "openvino"]
    assert (options.rounds, options.batch) == (7, [1])
    assert parse(["--quick"])[1].rounds < parse([])[1].rounds


def test_nothing_to_time_is_status_1(tmp_path, capsys):
    arguments = ["--models", TINY, "--runtimes", "torch", "--precisions", "int8", "--output"]
    assert main([*arguments, str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "skipped: mobilenet_v2@64 torch int8: PyTorch computes" in said
    assert said.endswith("pipnet.benchmark: error: nothing could be timed; the reasons are above\n")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_command_loads_nothing_heavy():
    program = (
        "import sys; from pipnet.benchmark.command import parse; parse([]); "
        "print(sorted({'torch', 'numpy', 'cv2', 'matplotlib', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=1200)
    assert done.stdout.strip() == "[]", done.stderr


def test_accuracy_is_that_of_evaluate_for_each_case_once_and_failures_are_said(tmp_path):
    from pipnet.evaluation.evaluate import evaluate
    from pipnet.inference.landmarker import FaceLandmarker

    faces, layout = draw_faces(70, seed=3, size=96), get_layout("300w_68")  # more than are measured at once
    shipped = Case("shipped", "onnxruntime", "int8", 1, 1, int, SHIPPED_GRAPH)
    random = Case("random", "onnxruntime", "fp32", 1, 1, int, SHIPPED_GRAPH, measurable=False)
    cases = [shipped, case("gone", "onnxruntime"), random, shipped]
    said = []
    found, failed = measure_accuracy(cases, faces, said.append)
    landmarker = FaceLandmarker.load(SHIPPED_GRAPH, device="cpu", runtime="onnxruntime", threads=1)
    expected = 100 * evaluate(landmarker, faces, layout=layout).errors().mean()
    assert found == {"shipped onnxruntime int8": pytest.approx(expected)}
    assert said == ["NME of shipped onnxruntime int8", "NME of gone onnxruntime fp32"]
    assert [name for name, _ in failed] == ["gone onnxruntime fp32, NME"]
    assert "net.onnx" in failed[0][1]
    looks = iter([False, True])
    assert measure_accuracy([shipped], faces, stop=lambda: next(looks)) == ({}, [])
    assert measure_accuracy([shipped], []) == ({}, [])


@pytest.mark.data
def test_errors_are_measured_on_real_faces(tmp_path, capsys):
    arguments = ["--quick", "--runtimes", "onnxruntime", "--precisions", "int8", "--threads", "1"]
    assert main([*arguments, "--data", os.environ["PIPNET_DATA"], "--output", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())["cases"]
    assert 2.5 < row["nme"] < 3.5
    assert "NME: of 50 faces of 300W Common" in capsys.readouterr().out


# Timing in turn, with a clock that the test turns.


class Clock:
    """Calls that take known time, on a machine that slows down for a while."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slow = 1.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, name: str, seconds: float):
        def call() -> None:
            self.log.append(name)
            self.now += seconds * self.slow

        return call

    def timed(self, name: str, seconds: float) -> Timed:
        return Timed(name, self.takes(name, seconds), lambda: self.log.append(f"prepare {name}"))


def test_all_are_timed_in_every_round_after_being_prepared_and_warmed_up():
    clock, rounds = Clock(), []
    found = time_interleaved(
        [clock.timed("a", 1.0), clock.timed("b", 2.0)],
        rounds=2,
        min_calls=2,
        clock=clock,
        after_round=lambda number, seconds: rounds.append((number, seconds["b"].shape)),
    )
    a, b = ["prepare a", "a", "a", "a"], ["prepare b", "b", "b", "b"]  # one call that no clock sees, two that it does
    assert clock.log == [*a[:3], *a, *b[:3], *b, *a, *b]  # the first time round the number of calls is chosen
    assert rounds == [(1, (1, 2)), (2, (2, 2))]
    np.testing.assert_array_equal(found["a"], np.full((2, 2), 1.0))
    np.testing.assert_array_equal(found["b"], np.full((2, 2), 2.0))


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, 50), (0.01, 10), (0.05, 4), (3.0, 4)])
def test_the_number_of_calls_follows_from_the_first(seconds, calls):
    clock = Clock()
    found = time_interleaved([clock.timed("a", seconds)], rounds=1, block_seconds=0.1001, min_calls=4, clock=clock)
    assert found["a"].shape == (1, calls)
    clock = Clock()
    found = time_interleaved([clock.timed("a", 3.0)], rounds=1, min_calls=1, clock=clock)
    assert clock.log == ["prepare a", "a", "a"]  # a slow call is not made again to choose the number
    assert found["a"].tolist() == [[3.0]]


def test_ratios_do_not_see_a_machine_that_slows_down():
    clock = Clock()

    def after_round(number: int, _seconds: object) -> None:
        clock.slow = 3.0 if number % 2 else 1.0

    timed = [clock.timed("slow", 0.5), clock.timed("fast", 0.1)]
    found = time_interleaved(timed, rounds=8, clock=clock, after_round=after_round)
    hiccup = np.full((5, 7), 0.002)
    hiccup[3, 2] = 9.0
    assert of_rounds(hiccup) == spread(np.full(5, 0.002))  # the median of a round ignores it
    times = of_rounds(found["fast"])
    assert times.high / times.low == pytest.approx(3)
    compared = ratio(found["slow"], found["fast"])
    assert (compared.low, compared.median, compared.high) == pytest.approx((5, 5, 5))


@pytest.mark.parametrize(
    ("visits", "rounds"),
    [
        (0, {}),
        (1, {"a": 1}),
        (2, {"a": 1, "b": 1}),
        (3, {"a": 1, "b": 1}),
        (5, {"a": 2, "b": 2}),
        (6, {"a": 3, "b": 3}),
    ],
)
def test_a_timing_that_is_stopped_keeps_whole_rounds_or_what_there_is_of_the_first(visits, rounds):
    clock, asked = Clock(), []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > visits

    found = time_interleaved([clock.timed("a", 1.0), clock.timed("b", 2.0)], rounds=3, clock=clock, stop=stop)
    assert {key: len(times) for key, times in found.items()} == rounds


def test_the_garbage_collector_is_off_while_a_clock_runs_and_as_before_afterwards():
    seen = []

    def call() -> None:
        seen.append(gc.isenabled())
        if len(seen) > 8:
            raise RuntimeError("broken")

    assert gc.isenabled()
    time_interleaved([Timed("a", call)], rounds=1, block_seconds=0)
    assert seen == [False] * 6
    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="broken"):
        time_interleaved([Timed("a", call)], rounds=1)
    assert gc.isenabled()
    gc.disable()
    try:
        time_interleaved([Timed("a", int)], rounds=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_wrong_arguments_of_the_timing():
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        time_interleaved([], rounds=0)
    with pytest.raises(ValueError, match="two things to time are called 'a'"):
        time_interleaved([Timed("b", int), Timed("a", int), Timed("a", int)], rounds=1)
