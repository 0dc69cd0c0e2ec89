"""The authors' weight files: a network with their attribute names, saved as their code saves it, read by ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from pipnet.layouts import get_layout, layout_from_dict
from pipnet.model import checkpoint
from pipnet.model.checkpoint import CheckpointError
from pipnet.model.released_weights import load_reference_weights, read_mean_face

MEAN_FACE = np.random.default_rng(3).random((68, 2))
LAYOUT = get_layout("300w_68")


class AuthorsForm(nn.Module):
    """What ``lib/networks.py`` calls its layers, for any backbone; there every backbone has a class."""

    def __init__(self, backbone: str, points: int, neighbors: int, stride: int) -> None:
        super().__init__()
        whole = getattr(models, backbone)()
        self.layers: list[str] = []
        if backbone.startswith("resnet"):
            self.layers = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
            channels = whole.fc.in_features
        else:
            self.layers = ["features"]
            channels = 1280
        for name in self.layers:
            setattr(self, name, getattr(whole, name))
        if stride == 16:
            self.deconv1 = nn.ConvTranspose2d(512, 512, 4, stride=2, padding=1, bias=False)
            self.bn_deconv1 = nn.BatchNorm2d(512)
            self.layers += ["deconv1", "bn_deconv1", "relu"]
        if stride >= 64:
            self.layer5 = nn.Conv2d(512, 512, 3, stride=2, padding=1)
            self.bn5 = nn.BatchNorm2d(512)
            self.layers += ["layer5", "bn5", "relu"]
        if stride == 128:
            self.layer6 = nn.Conv2d(512, 512, 3, stride=2, padding=1)
            self.bn6 = nn.BatchNorm2d(512)
            self.layers += ["layer6", "bn6", "relu"]
        self.cls_layer = nn.Conv2d(channels, points, 1)
        self.x_layer = nn.Conv2d(channels, points, 1)
        self.y_layer = nn.Conv2d(channels, points, 1)
        self.nb_x_layer = nn.Conv2d(channels, points * neighbors, 1)
        self.nb_y_layer = nn.Conv2d(channels, points * neighbors, 1)

    def forward(self, x):
        for name in self.layers:
            x = getattr(self, name)(x)
        return self.cls_layer(x), self.x_layer(x), self.y_layer(x), self.nb_x_layer(x), self.nb_y_layer(x)


def authors_form(backbone="resnet18", *, points=68, neighbors=10, stride=32, seed=0):
    """A network of that form with weights and batch-norm statistics of no special value."""
    torch.manual_seed(seed)
    net = AuthorsForm(backbone, points, neighbors, stride)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.1, 0.4)  # 33 blocks add up
    return net.eval()


def written(tmp_path, net, prefix=""):
    path = tmp_path / "epoch59.pth"
    torch.save({prefix + key: values for key, values in net.state_dict().items()}, path)
    return path


def authors_points(maps, mean_face, neighbors, size, stride):
    """Own and merged points of one face as ``lib/test.py`` computes them, by plain loops; fractions of the crop."""
    score, x, y, nb_x, nb_y = (m[0].double().numpy() for m in maps)
    grid = size / stride
    order = [np.argsort(((mean_face - point) ** 2).sum(axis=1))[1 : 1 + neighbors] for point in mean_face]
    own, slots = [], []
    for i in range(len(mean_face)):
        row, column = np.unravel_index(score[i].argmax(), score[i].shape)
        own.append([(column + x[i, row, column]) / grid, (row + y[i, row, column]) / grid])
        channels = range(neighbors * i, neighbors * (i + 1))
        slots.append([[(column + nb_x[c, row, column]) / grid, (row + nb_y[c, row, column]) / grid] for c in channels])
    votes = [
        [slots[p][s] for p in range(len(order)) for s in range(neighbors) if order[p][s] == i] for i in range(len(own))
    ]
    longest = max(len(v) for v in votes)
    merged = [np.mean([mine, *(v * 11)[:longest]], axis=0) for mine, v in zip(own, votes, strict=True)]
    return np.array(own), np.array(merged)


@pytest.mark.parametrize(
    ("backbone", "stride", "size"),
    [
        *(("resnet18", stride, size) for stride, size in ((16, 64), (32, 128), (64, 128), (128, 256))),
        *(("resnet50", 32, 64), ("mobilenet_v2", 32, 96)),
    ],
)
def test_maps_and_points_are_those_of_the_authors_network(tmp_path, backbone, stride, size):
    theirs = authors_form(backbone, stride=stride)
    options = {"net_stride": stride, "input_size": size, "crop_scale": 1.1}
    path = written(tmp_path, theirs)
    loaded = load_reference_weights(path, backbone=backbone, mean_face=MEAN_FACE, layout=LAYOUT, **options)
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, size, size), dtype=np.uint8))
    images = loaded.net.normalize(crops)
    with torch.inference_mode():
        expected, output = theirs(images), loaded.net(images)
    for ours, maps in zip(output[:5], expected, strict=True):
        torch.testing.assert_close(ours.reshape(maps.shape), maps, rtol=1e-6, atol=1e-6)
    assert not loaded.net.training
    assert loaded.crop_scale == 1.1
    own, merged = authors_points(expected, MEAN_FACE, 10, size, stride)
    assert np.abs(own - merged).max() > 1e-3  # the merge does something
    np.testing.assert_allclose(loaded.net.predict(crops).points_unit[0].numpy(), merged, atol=2e-6)


def test_a_prefix_of_data_parallel_and_the_exact_merge(tmp_path):
    theirs = authors_form(points=5, neighbors=2)
    path = written(tmp_path, theirs, prefix="module.")
    padded = load_reference_weights(path, **SMALL)
    exact = load_reference_weights(path, **SMALL, merge="exact")
    crops = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    a, b = padded.net.predict(crops).points_unit, exact.net.predict(crops).points_unit
    assert (a - b).abs().max() > 1e-4
    # What was read can be kept as a checkpoint of this package.
    kept = tmp_path / "kept.pt"
    checkpoint.save(kept, padded.net, layout=FIVE, crop_scale=padded.crop_scale, training=padded.training)
    assert torch.equal(checkpoint.load(kept).net.predict(crops).points_unit, a)


FIVE = layout_from_dict({"name": "five", "num_points": 5})
SMALL = {"backbone": "resnet18", "mean_face": np.random.default_rng(0).random((5, 2)), "layout": FIVE}
SMALL |= {"num_neighbors": 2, "input_size": 64, "crop_scale": 1.0}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda w: w.pop("x_layer.bias"), {}, "'x_layer.bias' is missing"),
        (
            lambda w: w.update(extra=torch.zeros(1)),
            {},
            "read as resnet18 of net_stride 32: weight 'extra' is not known",
        ),
        (lambda w: None, {"num_neighbors": 3}, r"'nb_x_layer.bias' has shape \(10,\), the network needs \(15,\)"),
        (lambda w: None, {"net_stride": 64}, "'bn5.bias' is missing"),
        (lambda w: None, {"backbone": "mobilenet_v2"}, "read as mobilenet_v2 .* 'bn1.bias' is not known"),
        (lambda w: w.update({"conv1.weight": "text"}), {}, "is not a state dict"),
        (lambda w: w.update(format=1), {}, "is a checkpoint of pipnet"),
    ],
    ids=["missing", "unknown", "neighbours", "stride", "mobilenet", "no tensor", "pipnet"],
)
def test_a_file_that_does_not_fit_names_the_key(tmp_path, change, options, message):
    weights = dict(authors_form(points=5, neighbors=2).state_dict())
    change(weights)
    torch.save(weights, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=message) as caught:
        load_reference_weights(tmp_path / "a.pth", **SMALL | options)
    assert "a.pth" in str(caught.value)


def test_another_number_of_points_is_an_error(tmp_path):
    path = written(tmp_path, authors_form(points=5, neighbors=2))
    with pytest.raises(ValueError, match="layout 300w_68 has 68 points, the mean face 5"):
        load_reference_weights(path, **SMALL | {"layout": LAYOUT})
    with pytest.raises(CheckpointError, match=r"'cls_layer.bias' has shape \(5,\), the network needs \(68,\)"):
        load_reference_weights(path, **SMALL | {"layout": LAYOUT, "mean_face": MEAN_FACE})


def test_a_file_that_can_not_be_used(tmp_path):
    with pytest.raises(CheckpointError, match="before the activation, torchvision's after"):
        load_reference_weights(tmp_path / "a.pth", **SMALL | {"backbone": "mobilenet_v3_large"})
    path = written(tmp_path, authors_form(points=5, neighbors=2))
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*b\.pth; beside it: epoch59\.pth"):
        load_reference_weights(tmp_path / "b.pth", **SMALL)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"epoch59\.pth is damaged"):
        load_reference_weights(path, **SMALL)


@pytest.mark.parametrize("text", ["", "0.1 0.2 0.3", "0.1 x", "0.1 nan", "0.5,0.5"])
def test_a_file_that_is_no_mean_face(tmp_path, text):
    with pytest.raises(FileNotFoundError, match="no mean face"):
        read_mean_face(tmp_path / "meanface.txt")
    (tmp_path / "meanface.txt").write_text(text)
    with pytest.raises(ValueError, match=r"meanface\.txt: .*x0 y0 x1 y1"):
        read_mean_face(tmp_path / "meanface.txt")
