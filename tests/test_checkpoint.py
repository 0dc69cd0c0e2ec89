"""One file that is enough to predict: what comes back, what is refused, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch

from pipnet.files import replacing
from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.layouts import get_layout, layout_from_dict
from pipnet.model import checkpoint
from pipnet.model.checkpoint import FORMAT, CheckpointError, load, read, save
from pipnet.model.pipnet import PIPNet

FIVE = layout_from_dict({"name": "five", "num_points": 5, "mirror_pairs": [[0, 1]], "norm_pair": [0, 1]})


def network(points=5, **options) -> PIPNet:
    torch.manual_seed(1)
    mean_face = np.random.default_rng(0).random((points, 2))
    net = PIPNet(
        mean_face, "mobilenet_v3_small", **{"num_neighbors": 2, "input_size": 64, "merge": "padded", **options}
    )
    torch.nn.init.normal_(net.head.weight, std=0.1)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
    return net.eval()


CROPS = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
TRAINING = {
    "config": {"optim": {"lr": 0.001}},
    "faces": {"train": 3},
    "seed": 0,
    "metrics": {"val_nme": 4.5},
    "licence": "MIT",
}


@pytest.fixture
def path(tmp_path) -> Path:
    save(tmp_path / "best.pt", network(), layout=FIVE, crop_scale=1.25, training=TRAINING)
    return tmp_path / "best.pt"


def change(path: Path, **values) -> None:
    """Write other values into a checkpoint; None takes the key out."""
    content = torch.load(path, weights_only=True)
    content |= values
    torch.save({key: value for key, value in content.items() if value is not None}, path)


@pytest.mark.parametrize("options", [{}, {"net_stride": 16}, {"num_neighbors": 0, "merge": "none"}, {"net_stride": 64}])
def test_a_loaded_network_predicts_the_same_bits(path, options):
    net = network(**options)
    save(path, net, layout=FIVE, crop_scale=1.25, training=TRAINING)
    loaded = load(path)
    expected, got = net.predict(CROPS), loaded.net.predict(CROPS)
    assert torch.equal(got.points_unit, expected.points_unit)
    assert torch.equal(got.scores, expected.scores)
    assert loaded.net.arguments == net.arguments
    assert loaded.layout == FIVE
    assert loaded.crop_scale == 1.25
    assert loaded.training == TRAINING
    assert not loaded.net.training


def test_half_precision_is_half_the_size_and_nearly_the_same(tmp_path, path):
    net = network()
    save(tmp_path / "half.pt", net, layout=FIVE, crop_scale=1.25, training={}, half=True)
    assert (tmp_path / "half.pt").stat().st_size < 0.55 * path.stat().st_size
    loaded = load(tmp_path / "half.pt").net
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    difference = (loaded.predict(CROPS).points_unit - net.predict(CROPS).points_unit).abs().max()
    assert 0 < difference < 0.02
    # Saving the loaded network in half precision again changes nothing more.
    save(tmp_path / "again.pt", loaded, layout=FIVE, crop_scale=1.25, training={}, half=True)
    assert torch.equal(load(tmp_path / "again.pt").net.predict(CROPS).points_unit, loaded.predict(CROPS).points_unit)


def test_what_resumes_is_only_in_files_that_resume(tmp_path, path):
    assert "resume" not in read(path)
    save(tmp_path / "last.pt", network(), layout=FIVE, crop_scale=1.0, training={}, resume={"epoch": 3})
    assert read(tmp_path / "last.pt")["resume"] == {"epoch": 3}
    assert load(tmp_path / "last.pt").net.num_points == 5


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999, b"hello", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(500)])
def test_a_file_that_is_cut_off_or_something_else(path, kept):
    whole = path.read_bytes()
    path.write_bytes(kept if isinstance(kept, bytes) else whole[: int(len(whole) * kept)])
    wanted = r"best\.pt (is damaged or not a checkpoint.*; copy or train it again|holds no pipnet checkpoint)"
    with pytest.raises(CheckpointError, match=wanted):
        load(path)


def test_a_bare_state_dict_points_to_the_loader_for_it(tmp_path):
    torch.save(network().state_dict(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="load_reference_weights"):
        load(tmp_path / "a.pt")


class Bomb:
    """Makes a file when it is unpickled without care."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_opening_a_strangers_file_runs_no_code(tmp_path, path):
    target = tmp_path / "it ran"
    content = torch.load(path, weights_only=True)
    content["training"] = {"note": Bomb(target)}
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"best\.pt is damaged or not a checkpoint"):
        load(path)
    assert not target.exists()
    torch.load(path, weights_only=False)  # the bomb is a real one
    assert target.is_dir()


def test_weights_of_another_layout(path):
    layout = layout_from_dict({"name": "67", "num_points": 67})
    other = network(67)
    change(path, model=other.arguments, layout=layout.to_dict())
    wanted = r"best\.pt: weight 'head\.bias' has shape \(35,\), the network needs \(469,\)"
    with pytest.raises(CheckpointError, match=wanted):
        load(path)


def test_a_layout_of_another_number_of_points(path):
    change(path, layout=get_layout("300w_68").to_dict())
    with pytest.raises(CheckpointError, match=r"best\.pt: layout 300w_68 has 68 points, the network 5"):
        load(path)
    with pytest.raises(ValueError, match="layout 300w_68 has 68 points, the network 5"):
        save(path, network(), layout=get_layout("300w_68"), crop_scale=1.0, training={})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"mean_face": [[0.0, 0.0]], "num_neighbors": 0, "backbone": "vgg16"}}, "no backbone 'vgg16'"),
        ({"model": {"faces": 3}}, "unexpected keyword argument 'faces'"),
        ({"layout": {"name": "five"}}, "a layout needs the field 'num_points'"),
        ({"layout": {"name": "five", "num_points": 5, "groups": [{}]}}, "best.pt: .*'name'"),
        ({"format": FORMAT + 1}, rf"best\.pt has format {FORMAT + 1}, this pipnet reads up to {FORMAT}"),
        ({"format": "one"}, "has format 'one', which is no number"),
        ({"crop_scale": "wide"}, "crop_scale is str"),
        ({"weights": [1.0]}, "weights is list"),
        *(({key: None}, rf"best\.pt lacks '{key}'") for key in ("layout", "crop_scale", "weights", "training")),
    ],
)
def test_arguments_that_cannot_be(path, values, message):
    change(path, **values)
    with pytest.raises(CheckpointError, match=message):
        load(path)


def test_a_weight_is_missing_or_unknown(path):
    weights = torch.load(path, weights_only=True)["weights"]
    del weights["backbone.0.0.weight"]
    change(path, weights=weights)
    with pytest.raises(CheckpointError, match=r"best\.pt: weight 'backbone\.0\.0\.weight' is missing"):
        load(path)
    weights = network().state_dict() | {"extra": torch.zeros(1)}
    change(path, weights=weights)
    with pytest.raises(CheckpointError, match=r"best\.pt: weight 'extra' is not known"):
        load(path)


def test_a_missing_file_lists_its_neighbours(path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*bset\.pt; beside it: best\.pt"):
        load(path.with_name("bset.pt"))
    with pytest.raises(FileNotFoundError, match=r"give the path of a \.pt, \.onnx or \.xml file"):
        load(path.parent / "nowhere" / "best.pt")


@pytest.mark.parametrize(
    ("where", "error", "raised", "message"),
    [
        ("torch.save", KeyboardInterrupt("killed"), KeyboardInterrupt, "killed"),
        # How torch's writer reports a full disk.
        ("torch.save", RuntimeError("PytorchStreamWriter failed"), OSError, "can't be written: PytorchStreamWriter"),
        ("os.fsync", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError, "No space left.*free disk space"),
    ],
)
def test_a_failed_save_leaves_the_old_file(path, monkeypatch, where, error, raised, message):
    before = path.read_bytes()

    def failing(*arguments):
        if where == "torch.save":
            Path(arguments[1]).write_bytes(b"half")
        raise error

    monkeypatch.setattr(where, failing)
    wanted = message if raised is KeyboardInterrupt else rf"best\.pt .*{message}"
    with pytest.raises(raised, match=wanted) as caught:
        save(path, network(), layout=FIVE, crop_scale=1.0, training={})
    if where == "os.fsync":
        assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["best.pt"]


def test_no_folder_to_write_to(tmp_path):
    with pytest.raises(OSError, match=r"nowhere/best\.pt can't be written: No such file.*; check the folder"):
        save(tmp_path / "nowhere" / "best.pt", network(), layout=FIVE, crop_scale=1.0, training={})


def test_replacing_shows_nothing_until_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    ordinary = stat.S_IMODE(path.stat().st_mode)
    with replacing(path) as temporary:
        assert temporary.suffix == ".txt"
        assert temporary.parent == tmp_path
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == ordinary
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError("no number")])
def test_replacing_lets_errors_through(tmp_path, error):
    def write():
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


def test_replacing_survives_a_writer_that_replaces_its_file(tmp_path):
    with replacing(tmp_path / "a.txt") as temporary:
        beside = tmp_path / "beside"
        beside.write_text("new")
        os.replace(beside, temporary)
    assert (tmp_path / "a.txt").read_text() == "new"


def test_weights_by_their_names_of_0_4_are_read():
    """Up to 0.4 the backbone was called trunk and crop_scale box_scale; so it is in the weights that ship."""
    assert "box_scale" in checkpoint.read_tensors(SHIPPED_WEIGHTS)
    content = checkpoint.read(SHIPPED_WEIGHTS)
    assert any(key.startswith("trunk.") for key in content["weights"])
    net = checkpoint.load(SHIPPED_WEIGHTS).net
    first = "0.0.weight"
    np.testing.assert_array_equal(net.state_dict()[f"backbone.{first}"], content["weights"][f"trunk.{first}"].float())
