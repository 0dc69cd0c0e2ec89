"""``python -m pipnet.benchmark`` as a person runs it, on networks of a millisecond; no time is judged."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from pipnet.benchmark import main
from pipnet.benchmark.contenders import Contender, line_up
from pipnet.benchmark.networks import find_network
from pipnet.benchmark.one_start import peak_memory_mib
from pipnet.benchmark.options import parse
from pipnet.benchmark.others import INNER_OF_68, OtherDetector
from pipnet.benchmark.starts import measure_starts, one_per_network
from pipnet.benchmark.subject import find_subject
from pipnet.benchmark.work import Work
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.onnx_graph import export_onnx
from pipnet.model.pipnet import PIPNet

ROOT = Path(__file__).resolve().parent.parent
TINY = "mobilenet_v2@64"


@pytest.fixture(scope="module")
def small() -> LoadedModel:
    mean_face = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=4, input_size=64).eval()
    return LoadedModel(net, get_layout("300w_68"), 1.25, {})


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "pipnet.benchmark", *map(str, arguments)]


def test_a_run_from_the_command_line_writes_table_json_and_picture(tmp_path):
    """Two runtimes, two batches, cold starts; what can't be had is listed with its reason."""
    arguments = ["--quick", "--models", TINY, "--runtimes", "torch,onnxruntime", "--threads", 1, "--batch", "1,3"]
    done = subprocess.run(
        command(*arguments, "--no-others", "--output", tmp_path / "out"),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"benchmark.json", "report.md", "speed.png"}
    results = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    rows = {(row["runtime"], row["precision"], row["batch"]): row for row in results["contenders"]}
    runs = [("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8")]
    assert set(rows) == {(*run, batch) for run in runs for batch in (1, 3)}
    for row in rows.values():
        assert row["model"] == TINY
        assert row["input_size"] == 64
        assert 0 < row["ms"]["best"] <= row["ms"]["median"] <= row["ms"]["high"]
        assert row["ratio_to"] == f"{TINY} torch fp32"
        assert 0 < row["gflop"] <= row["gflop_dense"]
        assert 0 < row["share"] <= row["share_best"]
        assert row["accuracy"] is None
    assert rows["onnxruntime", "int8", 1]["gflop"] == rows["onnxruntime", "fp32", 3]["gflop"] < row["gflop_dense"]
    assert {(peak["precision"], peak["threads"]) for peak in results["peaks"]} >= {("fp32", 1), ("bf16", 1)}
    assert results["left_out"] == [
        {"name": f"{TINY} torch int8", "reason": "PyTorch computes these networks in fp32, not in int8"}
    ]
    starts = {start["name"].split(" ", 1)[1]: start for start in results["starts"]}
    assert {name: start["torch"] for name, start in starts.items()} == {
        "torch fp32": True,
        "onnxruntime fp32": False,
        "onnxruntime int8": False,
    }
    for start in starts.values():
        assert len(start["cold_s"]) == len(start["warm_s"]) == 1
        assert start["cold_s"][0] > start["warm_s"][0] > 0
    assert starts["torch fp32"]["peak_mib"][0] > starts["onnxruntime fp32"]["peak_mib"][0]
    assert results["notes"] == [
        f"Random weights: {TINY}.",
        f"int8 of {TINY} is calibrated on drawn faces here: good for its speed only.",
    ]
    report = (tmp_path / "out" / "report.md").read_text()
    assert str(tmp_path) in report.splitlines()[4]  # the command
    assert report.count(TINY) > 8
    assert "/tmp/pipnet-benchmark" not in report
    assert "| network | runtime | precision |" in done.stdout


def test_a_given_graph_is_taken_as_it_is(small, tmp_path):
    path = tmp_path / "mine.onnx"
    export_onnx(small, path)
    network = find_network(str(path), tmp_path)
    assert (network.name, network.input_size, network.box_scale, network.trained) == ("mine", 64, 1.25, True)
    field = line_up(
        [network],
        {},
        find_subject(),
        runtimes=["torch", "onnxruntime"],
        precisions=["int8"],
        threads=[1, 10_000],
        batches=[1, 2],
    )
    assert [one.key for one in field.contenders] == [("mine onnxruntime fp32", 1, 1), ("mine onnxruntime fp32", 1, 2)]
    assert [name for name, _ in field.left_out] == ["mine torch fp32", "mine onnxruntime fp32, 10000 threads"]
    assert "mine.onnx" in field.left_out[0][1]
    points, _, _ = field.contenders[1].call()
    assert points.shape == (2, 68, 2)


def test_a_checkpoint_is_exported_where_a_runtime_needs_a_graph(small, tmp_path):
    path = tmp_path / "mine.pt"
    checkpoint.save(path, small.net, layout=small.layout, box_scale=1.25, training={})
    network = find_network(str(path), tmp_path)
    assert network.file("torch", "fp32") == path
    graph = network.file("onnxruntime", "fp32")
    assert graph.suffix == ".onnx"
    assert network.file("openvino", "fp32") == graph  # made once
    assert network.file("onnxruntime", "int8") != graph
    assert network.drawn_calibration("int8")
    assert not network.drawn_calibration("fp32")


def test_what_ships_is_timed_with_the_files_that_ship(tmp_path):
    from pipnet.inference.landmarker import SHIPPED_GRAPH, SHIPPED_WEIGHTS

    network = find_network("shipped", tmp_path)
    assert network.file("torch", "fp32") == SHIPPED_WEIGHTS
    assert network.file("onnxruntime", "int8") == network.file("openvino", "int8") == SHIPPED_GRAPH
    assert not network.drawn_calibration("int8")
    assert network.input_size == 256


def other(name, find):
    return OtherDetector(name, "", 68, INNER_OF_68, lambda: find, box_scale=1.5, box_shift=0.0, crop_size=96)


def test_other_detectors_get_a_face_and_are_left_out_with_a_reason(tmp_path):
    seen = []

    def sees(crop):
        seen.append(crop)
        return np.zeros((68, 2))

    def fails(_crop):
        raise OSError("no weights here\nand a long story")

    others = {one.name: one for one in (other("sees", sees), other("blind", lambda _: None), other("fails", fails))}
    field = line_up([], others, find_subject(), runtimes=[], precisions=[], threads=[2], batches=[4])
    assert [one.key for one in field.contenders] == [("sees", 1, 1)]
    assert field.left_out == [("blind", "it finds no face on the crop"), ("fails", "no weights here")]
    assert seen[0].shape == (96, 96, 3)
    astronaut_face = astronaut()[100:170, 190:260]
    assert abs(seen[0][24:72, 24:72].mean() - astronaut_face.mean()) < 25


def test_crops_of_a_batch_differ_a_little():
    crops = find_subject().crops(5, size=64, box_scale=1.25).astype(int)
    steps = np.abs(np.diff(crops, axis=0)).mean(axis=(1, 2, 3))
    assert (steps > 0.5).all()
    assert (steps < 25).all()


def test_the_peak_memory_of_a_start_is_not_that_of_the_process_which_asks(small, tmp_path):
    """Linux hands the largest resident set of the parent down to what it starts; that figure would be no start's."""
    path = tmp_path / "net.onnx"
    export_onnx(small, path)
    starter = contender_of(path)
    ballast = np.ones(400 * 2**17)  # 400 MiB
    (start,), failed = measure_starts([starter], find_subject(), repeats=1)
    assert failed == []
    assert not start.torch
    assert start.peak_mib[0] < peak_memory_mib() - ballast.nbytes / 2**20 / 2


def contender_of(path: Path, runtime: str = "onnxruntime") -> Contender:
    return Contender("net", runtime, "fp32", 1, 1, 64, Work(None, None), int, file=path)


def test_a_start_that_fails_is_said_and_the_others_go_on(small, tmp_path):
    good, broken = tmp_path / "net.onnx", tmp_path / "broken.onnx"
    export_onnx(small, good)
    broken.write_bytes(b"nothing")
    wrong = Contender("broken", "onnxruntime", "fp32", 1, 1, 64, Work(None, None), int, file=broken)
    done = []
    starts, failed = measure_starts(
        [wrong, contender_of(good)], find_subject(), repeats=2, after_each=lambda: done.append(1)
    )
    assert [(start.name, len(start.cold_s)) for start in starts] == [("net onnxruntime fp32", 2)]
    assert failed[0][0] == "broken onnxruntime fp32, start"
    assert "broken.onnx" in failed[0][1]
    assert len(done) == 4


def test_threads_and_batches_of_a_network_start_alike():
    first, again, second = contender_of(Path("a")), contender_of(Path("a")), contender_of(Path("a"), "openvino")
    without_file = Contender("dlib-68", "own", "", 1, 1, 64, Work(None, None), int)
    assert one_per_network([first, without_file, again, second]) == [first, second]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "resnet19"], "--models: no model 'resnet19'; there are: shipped"),
        (["--models", "resnet18@x"], "no model 'resnet18@x'"),
        (["--models", "resnet18@100"], "input_size 100 must be a multiple of 32"),
        (["--models", "gone.onnx"], "--models: no network gone.onnx"),
        (["--models", "gone.pt"], "--models: no checkpoint gone.pt"),
        (["--runtimes", "torch,tensorflow"], "--runtimes: no 'tensorflow'; there are: torch, onnxruntime, openvino"),
        (["--precisions", "fp16"], "--precisions: no 'fp16'"),
        (["--threads", "0"], "--threads takes whole numbers from 1, got '0'"),
        (["--batch", "1,many"], "--batch takes whole numbers from 1, got 'many'"),
        (["--rounds", "0"], "must be a whole number from 1"),
        (["--starts", "-1"], "must be a whole number from 0"),
        (["--nme", "gone.json"], "no file gone.json for --nme"),
        (["--data", "gone"], "--data gone is no folder; give the one that holds 300W"),
        (["--data", ".", "--nme", "a.json"], "leave one out"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.startswith("pipnet.benchmark: error: ")
    assert message in said
    assert said.count("\n") == 1


def test_data_without_faces_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["--models", TINY, "--data", str(tmp_path)])
    assert "300W does not exist" in capsys.readouterr().err


def test_an_output_that_is_a_file(tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").write_text("")
    with pytest.raises(SystemExit) as caught:
        main(["--output", str(tmp_path / "taken")])
    assert caught.value.code == 2
    assert "taken can't be a folder" in capsys.readouterr().err


def test_lists_take_commas_and_spaces():
    _, options = parse(["--threads", "1,2", "4", "2", "--batch", "1", "--models", "shipped,resnet18", "--rounds", "7"])
    assert options.threads == [1, 2, 4]
    assert options.models == ["shipped", "resnet18"]
    assert options.runtimes == ["torch", "onnxruntime", "openvino"]
    assert (options.rounds, options.batch) == (7, [1])
    _, quick = parse(["--quick"])
    assert (quick.batch, quick.starts) == ([1], 1)
    assert quick.rounds < parse([])[1].rounds


def test_nothing_to_time_is_status_1(tmp_path, capsys):
    arguments = ["--models", TINY, "--runtimes", "torch", "--precisions", "int8", "--no-others", "--output"]
    assert main([*arguments, str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "left out: mobilenet_v2@64 torch int8: PyTorch computes" in said
    assert said.endswith("pipnet.benchmark: nothing could be timed; the reasons are above\n")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(tmp_path):
    arguments = ["--models", TINY, "--runtimes", "torch", "--precisions", "fp32", "--threads", 1, "--batch", 1]
    process = subprocess.Popen(
        command(*arguments, "--rounds", 100_000, "--starts", 0, "--no-others", "--output", tmp_path / "out"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert "building the contenders" in process.stderr.readline()
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=1200)
    assert process.returncode == 1
    assert said.endswith("pipnet.benchmark: interrupted; nothing is written\n")
    assert "Traceback" not in said
    assert out == ""
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


def test_a_ctrl_c_that_a_library_swallows_still_ends_it(tmp_path, monkeypatch, capsys):
    """As ONNX Runtime does, which makes an error of its own of a KeyboardInterrupt."""

    def swallows(*_arguments, between, **_more):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            between()

    monkeypatch.setattr("pipnet.benchmark.contenders.line_up", swallows)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert main(["--models", TINY, "--no-others", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("pipnet.benchmark: interrupted; nothing is written\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_importing_the_command_loads_nothing_heavy():
    program = (
        "import sys; from pipnet.benchmark.options import parse; import pipnet.benchmark.one_start; parse([]); "
        "print(sorted({'torch', 'numpy', 'cv2', 'matplotlib', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=1200)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.data
def test_errors_are_measured_on_real_faces(tmp_path):
    data = os.environ["PIPNET_DATA"]
    arguments = ["--quick", "--runtimes", "onnxruntime", "--precisions", "int8", "--threads", "1", "--starts", "0"]
    assert main([*arguments, "--data", data, "--no-others", "--output", str(tmp_path)]) == 0
    (row,) = json.loads((tmp_path / "benchmark.json").read_text())["contenders"]
    assert 2.5 < row["accuracy"]["nme"] < 3.5
    assert 1.8 < row["accuracy"]["inner"] < row["accuracy"]["nme"]
    assert (row["accuracy"]["faces"], row["accuracy"]["missed"]) == (50, 0)
