"""``python -m pipnet.export``: one file that is enough, checked before it gets its name, or one sentence."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import pipnet.model.onnx_graph
from pipnet.data.dataset import FaceCrops
from pipnet.data.datasets import read_dataset
from pipnet.data.images import BadSampleError
from pipnet.data.sample import BadItems, Sample
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.export import export, main
from pipnet.export.command import parse
from pipnet.export.faces import calibration_crops, find_faces, spread_choice
from pipnet.export.writing import Difference
from pipnet.inference.landmarker import SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.inference.runtimes import open_fastest, open_runtime
from pipnet.layouts import get_layout, layout_from_dict
from pipnet.model import checkpoint
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.pipnet import PIPNet

DATA = os.environ.get("PIPNET_DATA", "")
CROPS = calibration_crops(draw_faces(16, seed=9, size=96), crop_scale=1.25, size=64)
FIVE = {"name": "five", "num_points": 5, "mirror_pairs": [[0, 1], [3, 4]]}
DRAWN = {
    "name": "drawn",
    "reader": "drawn",
    "root": None,
    "layout": "300w_68",
    "on_bad": "raise",
    "splits": {"train": {"count": 12, "seed": 0, "size": 96, "style": "cartoon"}},
}
OWN = {
    "name": "own",
    "reader": "csv",
    "root": "/home/ann/data/own",
    "layout": "/home/ann/data/own/layout.yaml",
    "on_bad": "raise",
    "splits": {
        "train": {"file": "train.csv", "images": ".", "validation": "exclude"},
        "val": {"file": "train.csv", "images": ".", "validation": "only"},
    },
}


def small_model(layout=None, dataset=None) -> LoadedModel:
    """Untrained, but with maps as uneven as those of a trained network, so that no two cells tie."""
    layout = get_layout("300w_68") if layout is None else layout
    torch.manual_seed(0)
    mean_face = np.random.default_rng(0).uniform(0.2, 0.8, (layout.num_points, 2))
    net = PIPNet(mean_face, "timm/test_efficientnet", num_neighbors=3, input_size=64)
    crops = torch.from_numpy(CROPS).permute(0, 3, 1, 2)
    with torch.no_grad():  # an untrained backbone gives numbers near 0
        features = net.eval().neck(net.backbone(net.normalize(crops)))
        torch.nn.init.normal_(net.head.weight, std=0.02 / float(features.std()))
    config = {"dataset": dataset, "splits": {"train": "train", "val": "val"}, "data_root": "/home/ann/data", "seed": 7}
    training = {"config": config, "licence": "research only", "faces": {"train": 12}} if dataset else {}
    return LoadedModel(net, layout, 1.25, training)


def save(path: Path, model: LoadedModel) -> Path:
    checkpoint.save(path, model.net, layout=model.layout, crop_scale=model.crop_scale, training=model.training)
    return path


@pytest.fixture
def best(tmp_path) -> Path:
    """A checkpoint that says it was trained on synthetic faces, alone in a folder."""
    (tmp_path / "run").mkdir()
    return save(tmp_path / "run" / "best.pt", small_model(dataset=DRAWN))


@pytest.fixture
def five(tmp_path) -> Path:
    """A checkpoint of another layout with a record of a set that is not here, alone in a folder."""
    (tmp_path / "run").mkdir()
    return save(tmp_path / "run" / "best.pt", small_model(layout_from_dict(FIVE), OWN))


def run(*arguments: object) -> int:
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def refused(capsys, *arguments: object) -> str:
    """The sentence with which the command refuses."""
    assert run(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("pipnet.export: error: ")
    assert said.count("\n") == 1
    return said


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_same_points(ours: FaceLandmarker, reference: LoadedModel) -> None:
    torch_landmarker = FaceLandmarker.from_model(reference)
    assert ours.layout == reference.layout
    assert ours.crop_scale == reference.crop_scale
    # Upright and a quarter turned. A face that is cut again by untrained points drifts with the last digit of each cut.
    for face in draw_faces(2, seed=5, size=120):
        expected = torch_landmarker(face.image, boxes=face.box)
        np.testing.assert_allclose(ours(face.image, boxes=face.box).points, expected.points, atol=2e-3)
        np.testing.assert_allclose(ours(face.image, boxes=face.box).scores, expected.scores, atol=1e-4)


def test_an_onnx_file_is_enough_to_predict_and_says_what_it_is(best, tmp_path, capsys):
    assert run(best) == 0
    said = capsys.readouterr().out
    assert names(best.parent) == ["best.onnx", "best.pt"]
    assert "compared with PyTorch on 12 faces of drawn (train)" in said
    assert "onnxruntime  largest " in said
    assert "openvino     largest " in said
    card = open_runtime(best.with_suffix(".onnx"), "onnxruntime").metadata["card"]
    for fact in ("# best.pt", "Dataset: drawn", "Faces: 12 train", "Licence of the data: research only", "Seed: 7"):
        assert fact in card
    assert "/home/ann" not in card
    alone = shutil.move(best.with_suffix(".onnx"), tmp_path / "alone.onnx")
    assert_same_points(FaceLandmarker.load(alone), small_model())
    assert run("--show", alone) == 0
    said = capsys.readouterr().out
    for line in (
        "network    timm/test_efficientnet, 64 px, fp32",
        "layout     300w_68, 68 points",
        "crop scale 1.25: side",
        "input      crops: uint8 (B, 64, 64, 3)",
        "output     points_unit: float (B, 68, 2)",
        "output     scores: float (B, 68)",
        "output     face_scores: float (B,)",
        "data       licence: research only",
    ):
        assert line in said


def test_an_openvino_pair_is_enough_to_predict(best, tmp_path, capsys):
    pytest.importorskip("openvino")
    card = best.with_suffix(".md")
    card.write_text("# My network\n\nBad at hats.\n", encoding="utf-8")
    assert run(best, "--format", "openvino", "--output", tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["best.bin", "best.xml"]
    assert "out/best.xml and " in capsys.readouterr().out
    assert names(best.parent) == ["best.md", "best.pt"]
    assert_same_points(FaceLandmarker.load(tmp_path / "out" / "best.xml"), small_model())
    for file in (tmp_path / "out" / "best.xml", best):
        assert run("--show", file) == 0
        assert "# My network\n\nBad at hats." in capsys.readouterr().out
    card.write_bytes(b"\xff\xfe\x00")
    assert "best.md, the card of the network, is no text in UTF-8" in refused(capsys, best)


@pytest.mark.parametrize("format_", ["onnx", "openvino"])
def test_int8_is_calibrated_on_the_faces_of_the_training(best, format_, capsys):
    if format_ == "openvino":
        pytest.importorskip("openvino")
    assert run(best, "--precision", "int8", "--format", format_, "--calibration-faces", 10) == 0
    said = capsys.readouterr().out
    assert "int8, calibrated on 10 faces of drawn (train)" in said
    written = best.with_name("best_int8.onnx" if format_ == "onnx" else "best_int8.xml")
    runtime = open_fastest(written)
    assert runtime.metadata["precision"] == "int8"
    crops = calibration_crops(draw_faces(9, seed=3, size=96), crop_scale=1.25, size=64)
    points = runtime(crops)[0]
    expected = open_runtime(best, "torch")(crops)[0]
    # Close, and not the 32-bit graph under another name.
    distance = np.linalg.norm(points - expected, axis=-1)
    assert 1e-5 < np.median(distance) < 0.05
    assert run("--show", written) == 0
    said = capsys.readouterr().out
    assert "timm/test_efficientnet, 64 px, int8, calibrated on 10 faces" in said
    assert "input      crops: uint8 (B, 64, 64, 3)" in said
    assert f"output     points_unit: {'float' if format_ == 'onnx' else 'float32'} (B, 68, 2)" in said


def test_int8_is_calibrated_on_boxes_that_are_off_too(best):
    given = [str(best), "--calibration-faces", "12"]
    off, plain = (
        find_faces(small_model(dataset=DRAWN), parse([*given, "--precision", precision])[1]).crops
        for precision in ("int8", "fp32")
    )
    assert [bool((one == other).all()) for one, other in zip(off, plain, strict=True)] == [True, False] * 6


def test_int8_that_moves_points_too_far_is_warned_of(best, monkeypatch, capsys):
    found = [Difference("onnxruntime", 9.0, 0.0031 * 64, 0.1), Difference("openvino", 9.0, 0.0029 * 64, 0.1)]
    monkeypatch.setattr("pipnet.export.writing.compare", lambda *_: found)
    assert run(best, "--precision", "int8") == 0
    said = capsys.readouterr().out
    assert "warning: on onnxruntime int8 moves points by 0.31 % of the crop's side on average, more than 0.3 %" in said
    assert "--calibration-faces" in said
    assert "--precision fp32" in said
    assert said.count("warning") == 1
    assert best.with_name("best_int8.onnx").is_file()  # it is a warning
    # NaN is no agreement.
    assert not Difference("onnxruntime", float("nan"), float("nan"), 0.0).within(1, 1)
    assert not Difference("onnxruntime", 0.0, 0.0, 0.5).within(1, 0.1)
    assert Difference("openvino", not_compared="not installed").within(1, 1)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_graph_that_differs_is_not_kept(best, suffix, monkeypatch, capsys):
    if suffix == ".xml":
        pytest.importorskip("openvino")
    output = best.with_suffix(suffix)
    before = {output: b"older", output.with_suffix(".bin"): b"older still"}
    for path, content in before.items():
        path.write_bytes(content)
    there = names(best.parent)
    true_export = pipnet.model.onnx_graph.export_onnx

    def shifted(loaded, path, **more):
        net = PIPNet(**loaded.net.arguments)
        net.load_state_dict(loaded.net.state_dict())
        with torch.no_grad():
            net.head.bias[68:136] += 0.001  # offsets x, in cells of 32 px
        true_export(LoadedModel(net.eval(), loaded.layout, loaded.crop_scale, loaded.training), path, **more)

    monkeypatch.setattr(pipnet.model.onnx_graph, "export_onnx", shifted)
    assert run(best, "--output", output) == 1
    said = capsys.readouterr().err
    assert f"{output} was not kept: on " in said
    assert said.count("\n") == 1
    assert names(best.parent) == there
    assert {path: path.read_bytes() for path in before} == before


def test_a_graph_for_one_face_only_is_not_kept(best, monkeypatch):
    """A traced batch size passes with the batch that it was traced with."""
    import onnx

    true_export = pipnet.model.onnx_graph.export_onnx

    def fixed(loaded, path, **more):
        true_export(loaded, path, **more)
        model = onnx.load(path)
        for node in model.graph.node:  # every face is told the points of the first
            if "points_unit" in node.output:
                node.output[0] = "all"
        model.graph.initializer.append(onnx.helper.make_tensor("zero", onnx.TensorProto.INT64, [1], [0]))
        for kind, inputs, output, attributes in (
            ("Gather", ["all", "zero"], "first", {"axis": 0}),
            ("Shape", ["all"], "shape", {}),
            ("Expand", ["first", "shape"], "points_unit", {}),
        ):
            model.graph.node.append(onnx.helper.make_node(kind, inputs, [output], **attributes))
        onnx.save(model, path)

    monkeypatch.setattr(pipnet.model.onnx_graph, "export_onnx", fixed)
    assert run(best) == 1
    assert names(best.parent) == ["best.pt"]


def test_int8_without_faces_says_what_to_give(five, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PIPNET_DATA", raising=False)
    said = refused(capsys, five, "--precision", "int8")
    assert "/home/ann/data/own does not exist" in said
    assert "Give --data-root DIR" in said
    assert "--faces DIR" in said
    bare = save(tmp_path / "bare.pt", small_model())
    assert "the checkpoint does not say what it was trained on" in refused(capsys, bare, "--precision", "int8")
    assert names(five.parent) == ["best.pt"]
    assert run(five) == 0  # 32 bits need none
    assert "on 32 faces drawn by pipnet" in capsys.readouterr().out


def own_set(folder: Path, count: int = 12) -> Path:
    """Synthetic faces as a set of one's own with five points, in folder ``own``."""
    root = folder / "own"
    root.mkdir(parents=True)
    rows = ["image," + ",".join(f"x{i},y{i}" for i in range(5))]
    for number, face in enumerate(draw_faces(count, seed=1, size=96)):
        cv2.imwrite(str(root / f"face_{number}.png"), face.image[:, :, ::-1])
        points = face.points[[36, 45, 30, 48, 54]]
        rows.append(f"face_{number}.png," + ",".join(f"{value:.2f}" for value in points.ravel()))
    (root / "train.csv").write_text("\n".join(rows) + "\n")
    (root / "layout.yaml").write_text(yaml.safe_dump(FIVE))
    return root


def test_the_set_of_the_training_is_found_where_it_lies_now(five, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("PIPNET_DATA", raising=False)
    own_set(tmp_path / "sets")
    kept = sum(Path(f"face_{i}.png").stem != "face_9" for i in range(12))  # face_9 is for validation, splits.py
    assert run(five, "--data-root", tmp_path / "sets") == 0
    assert f"on {kept} faces of own (train)" in capsys.readouterr().out
    monkeypatch.setenv("PIPNET_DATA", str(tmp_path / "sets"))
    assert run(five) == 0
    assert f"on {kept} faces of own (train)" in capsys.readouterr().out
    assert "no-such/own does not exist" in refused(capsys, five, "--data-root", tmp_path / "no-such")


def test_another_dataset_by_name_or_file(best, tmp_path, capsys):
    own_set(tmp_path)
    config = {**OWN, "root": "${data_root}/own", "layout": "${.root}/layout.yaml"}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    given = ("--dataset", tmp_path / "mine.yaml", "--data-root", tmp_path, "--calibration-faces", 5)
    assert run(best, *given) == 0
    assert "on 5 faces of own (train)" in capsys.readouterr().out
    assert "no dataset 'mine'; there are: 300w, aflw, cofw" in refused(capsys, best, "--dataset", "mine")
    (tmp_path / "other.yaml").write_text("[1, 2")
    assert "other.yaml is no YAML" in refused(capsys, best, "--dataset", tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text("name: other\n")
    assert "other.yaml describes no dataset" in refused(capsys, best, "--dataset", tmp_path / "other.yaml")
    assert "dataset cofw68 has no split 'train'" in refused(capsys, best, "--dataset", "cofw68")


def test_photos_without_labels(five, tmp_path, capsys):
    data = pytest.importorskip("skimage.data", reason="scikit-image ships the portrait")
    photos = tmp_path / "photos"
    (photos / "inside").mkdir(parents=True)
    assert "no photo in this folder" in refused(capsys, five, "--faces", photos)
    cv2.imwrite(str(photos / "blank.png"), np.zeros((80, 80, 3), np.uint8))
    assert "no face found in 1 photos" in refused(capsys, five, "--faces", photos)
    cv2.imwrite(str(photos / "inside" / "portrait.png"), data.astronaut()[:, :, ::-1])
    (photos / "broken.jpg").write_bytes(b"no photo")
    assert run(five, "--faces", photos) == 0
    said = capsys.readouterr().out
    assert f"on 1 face found in {photos}" in said
    assert "skipped: " in said
    assert "broken.jpg" in said
    assert "no-such is no folder" in refused(capsys, five, "--faces", tmp_path / "no-such")


@pytest.mark.parametrize(
    ("package", "arguments", "extra"),
    [
        ("onnx", (), 'pip install "pipnet[export]"'),
        ("openvino", ("--format", "openvino"), 'pip install "pipnet[openvino]"'),
    ],
)
def test_a_missing_package_is_named_with_its_extra(best, package, arguments, extra, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    assert run(best, *arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"can't be written: {package} is not installed; {extra} brings it" in line
    assert names(best.parent) == ["best.pt"]
    if package == "openvino":  # an ONNX file is compared on the other runtime
        assert run(best) == 0
        said = capsys.readouterr().out
        assert "onnxruntime  largest " in said
        assert "openvino     not compared: " in said


def test_what_is_no_checkpoint(best, tmp_path, capsys):
    content = best.read_bytes()
    best.write_bytes(content[: len(content) // 2])
    assert "best.pt is damaged" in refused(capsys, best)
    best.write_bytes(b"text")
    assert "best.pt is damaged or not a checkpoint" in refused(capsys, best)
    assert "no checkpoint " in refused(capsys, best.with_name("last.pt"))
    assert "net.onnx is an exported graph already" in refused(capsys, tmp_path / "net.onnx")
    assert names(best.parent) == ["best.pt"]


def test_arguments_that_are_wrong(best, capsys):
    for arguments, message in (
        (("--precision", "int4"), "invalid choice: 'int4'"),
        (("--output", "a.onnx", "--format", "openvino"), "--output a.onnx: the name must end in .xml"),
        (("--output", "a.pb"), "--output a.pb: the name must end in .onnx or .xml"),
        (("--output", ""), "needs the name of a file"),
        (("--seed", "-1"), "must be a whole number from 0, got '-1'"),
        (("--faces", ".", "--dataset", "300w"), "leave out --dataset"),
        (("--show", "a.onnx"), "--show a.onnx only reads that file; leave out the checkpoint"),
    ):
        assert message in refused(capsys, best, *arguments)
    best.with_name("file").write_text("")
    assert "file" in refused(capsys, best, "--output", best.with_name("file") / "best.onnx")
    assert "can't be written" in refused(capsys, best, "--output", "/proc/best.onnx")
    assert "leave out --seed" in refused(capsys, "--show", "a.onnx", "--seed", "0")
    assert "a.onnx" in refused(capsys, "--show", "a.onnx")
    text = best.with_name("text.onnx")
    text.write_text("no network")
    assert "text.onnx is damaged" in refused(capsys, "--show", text)


def test_where_a_file_goes(tmp_path):
    for arguments, expected in (
        ((), "300w_mobilenet_v2.onnx"),
        (("shipped", "--precision", "int8"), "300w_mobilenet_v2_int8.onnx"),
        (("a/best.pt", "--precision", "int8", "--format", "openvino"), "a/best_int8.xml"),
        (("a/best.pt", "--output", "b/c.xml"), "b/c.xml"),
        (("a/best.pt", "--output", str(tmp_path)), str(tmp_path / "best.onnx")),
    ):
        _, options = parse(arguments)
        assert options.output == Path(expected)
        assert options.format == ("openvino" if expected.endswith(".xml") else "onnx")
    assert SHIPPED_WEIGHTS.stem == "300w_mobilenet_v2"


@contextmanager
def full_disk():
    """Files can't grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("format_", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_a_full_disk_leaves_what_was_there(best, format_, suffix, capsys):
    pytest.importorskip(format_)
    for older in (".onnx", ".xml", ".bin"):
        best.with_suffix(older).write_text("older")
    before = {path.name: path.read_bytes() for path in best.parent.iterdir()}
    with full_disk():
        said = refused(capsys, best, "--format", format_)
    assert f"{best.with_suffix(suffix)} can't be written" in said
    assert {path.name: path.read_bytes() for path in best.parent.iterdir()} == before


def test_a_pair_is_never_of_two_networks(best, monkeypatch):
    """Killed between the two renames: no .xml stands beside a .bin that is not its own."""
    pytest.importorskip("openvino")
    xml = best.with_suffix(".xml")
    assert run(best, "--format", "openvino") == 0
    before = {path: path.read_bytes() for path in (xml, xml.with_suffix(".bin"))}
    torch.manual_seed(1)
    model = small_model()
    torch.nn.init.normal_(model.net.head.weight, std=0.3)
    true_replace = os.replace

    for suffix in (".bin", ".xml"):
        for path, content in before.items():
            path.write_bytes(content)

        def killed(source, target, suffix=suffix):
            if Path(target) == xml.with_suffix(suffix):
                raise KeyboardInterrupt
            true_replace(source, target)

        monkeypatch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            export(model, xml)
        monkeypatch.undo()
        if xml.exists():
            assert {path: path.read_bytes() for path in before} == before
        assert not [path for path in best.parent.iterdir() if path.is_dir()]


def test_interrupted_it_leaves_nothing(best, monkeypatch, capsys):
    monkeypatch.setattr(pipnet.model.onnx_graph, "export_onnx", lambda *_, **more: signal.raise_signal(signal.SIGINT))
    assert run(best) == 1
    assert capsys.readouterr().err == "pipnet.export: interrupted; nothing was written\n"
    assert names(best.parent) == ["best.pt"]


def test_three_lines_for_developers(best, tmp_path):
    crops = calibration_crops(draw_faces(8, seed=0, size=96), crop_scale=1.25, size=64)
    differences = export(best, tmp_path / "net.onnx", crops=crops, card="mine")
    assert differences[0].runtime == "onnxruntime"
    assert open_runtime(tmp_path / "net.onnx", "onnxruntime").metadata["card"] == "mine"
    with pytest.raises(ValueError, match="give crops"):
        export(best, tmp_path / "net.onnx", precision="int8")
    with pytest.raises(ValueError, match=r"must end in \.onnx or \.xml"):
        export(best, tmp_path / "net.pb")
    with pytest.raises(ValueError, match="no precision 'int4'"):
        export(best, tmp_path / "net.onnx", precision="int4")


def test_the_faces_of_a_calibration():
    samples = draw_faces(20, seed=2, size=96)
    crops = calibration_crops(samples, crop_scale=1.3, size=48, count=10, seed=4)
    chosen = spread_choice(20, 10, seed=4)
    assert (chosen // 2).tolist() == list(range(10))  # one of each pair
    assert not np.array_equal(chosen, spread_choice(20, 10, seed=5))
    assert np.array_equal(chosen, spread_choice(20, 10, seed=4))
    faces = FaceCrops(samples, get_layout("300w_68"), input_size=48, crop_scale=1.3)
    for crop, index in zip(crops, chosen, strict=True):  # the training's own crop
        np.testing.assert_array_equal(crop, faces[0, index]["image"].numpy())
    np.testing.assert_array_equal(spread_choice(7, 300, seed=0), range(7))
    with pytest.raises(ValueError, match="can't choose 0 of 7"):
        spread_choice(7, 0, seed=0)


def test_a_photo_that_can_not_be_read_is_named(tmp_path):
    points = np.array([[1.0, 1.0], [9.0, 9.0]])
    (tmp_path / "a.png").write_text("no photo")
    samples = [Sample(tmp_path / "a.png", points, "a"), Sample(np.zeros((12, 12, 3), np.uint8), points, "b")]
    with pytest.raises(BadSampleError, match=r"a: .*a\.png"):
        calibration_crops(samples, crop_scale=1.0, size=8)
    bad = BadItems("skip")
    assert len(calibration_crops(samples, crop_scale=1.0, size=8, bad=bad)) == 1
    assert len(bad) == 1
    with pytest.raises(ValueError, match="no face to calibrate on"):
        calibration_crops(samples[:1], crop_scale=1.0, size=8, bad=BadItems("skip"))


@pytest.mark.data
def test_the_weights_that_ship_are_the_same_in_every_runtime_on_real_faces(tmp_path):
    layout = get_layout("300w_68")
    samples, _ = read_dataset("300w", root=Path(DATA) / "300W", layout=layout, part="train", validation="only")
    crops = calibration_crops(samples, crop_scale=1.25, size=256, count=25)
    assert len(crops) == 25  # in batches of 1, 7, 16 and 1
    for name in ("net.onnx", "net.xml"):
        for difference in export(SHIPPED_WEIGHTS, tmp_path / name, crops=crops):
            assert difference.not_compared == ""
            assert difference.largest_px < 1e-3
            assert difference.largest_score < 1e-4
