"""How a step is taken: averaging, learning rates, optimiser groups, freezing, precision."""

import math

import pytest
import torch
from small_training import CPU, batch_of, drawn, small_net

from pipnet.data.transforms import Augment
from pipnet.model.codec import encode
from pipnet.model.loss import PIPLoss
from pipnet.training.optimization import (
    Schedule,
    averaged,
    build_optimizer,
    freeze_backbone,
    train_mode,
    use_precision,
)
from pipnet.training.setup import called


def test_the_average_follows_its_formula():
    torch.manual_seed(0)
    net = small_net()
    average = averaged(net, decay=0.5)
    expected = {}
    for n in range(12):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(torch.randn_like(parameter))
            for module in net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_()
                    module.num_batches_tracked += 1
        average.update_parameters(net)
        decay = 0.0 if n == 0 else min(0.5, (1 + n) / (10 + n))
        for key, values in net.state_dict().items():
            if values.is_floating_point():
                expected[key] = decay * expected.get(key, torch.zeros_like(values)) + (1 - decay) * values
    for key, values in average.module.state_dict().items():
        if values.is_floating_point():
            torch.testing.assert_close(values, expected[key], rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(values, net.state_dict()[key]), key
    for key, values in average.module.named_buffers():  # index tables above all
        if not key.endswith(("running_mean", "running_var")):
            assert torch.equal(values, dict(net.named_buffers())[key]), key
            assert values.dtype == dict(net.named_buffers())[key].dtype


def test_the_paper_s_steps():
    schedule = Schedule(60, name="steps", milestones=[30, 50], gamma=0.1)
    values = [schedule.multiple(epoch) for epoch in (0, 29.999, 30, 49.999, 50, 59.999)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_warm_up_and_cosine():
    schedule = Schedule(22, name="cosine", warmup_epochs=2, final=0.02)
    assert schedule.multiple(0) == pytest.approx(0.01)
    assert schedule.multiple(1) == pytest.approx(0.01 + 0.99 / 2)
    assert schedule.multiple(2) == pytest.approx(1.0)
    assert schedule.multiple(12) == pytest.approx(0.02 + 0.98 / 2)
    assert schedule.multiple(7) == pytest.approx(0.02 + 0.98 * (1 + math.cos(math.pi / 4)) / 2)
    assert schedule.multiple(22) == pytest.approx(0.02)
    assert Schedule(22, begin=5, name="cosine", warmup_epochs=2, final=0.02).multiple(2) == schedule.multiple(7)
    with pytest.raises(ValueError, match="no schedule 'linear'; known: steps, cosine"):
        Schedule(22, name="linear")


def test_only_weights_of_convolutions_decay_and_the_backbone_has_its_own_rate():
    net = small_net()
    optimizer = build_optimizer(net, name="adamw", lr=0.01, weight_decay=0.1, backbone_lr=0.5)
    settings_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(settings_of) == len(list(net.parameters())), "every parameter trains, once"
    kinds = set()
    for key, parameter in net.named_parameters():
        group = settings_of[id(parameter)]
        assert group["weight_decay"] == (0.1 if parameter.dim() == 4 else 0.0), key
        assert group["lr"] == pytest.approx(0.005 if key.startswith("backbone.") else 0.01), key
        kinds.add((key.startswith("backbone."), parameter.dim() == 4))
    assert len(kinds) == 4
    biases = [key for key, p in net.named_parameters() if key.endswith("bias") and settings_of[id(p)]["weight_decay"]]
    assert not biases


def test_wrong_options_of_the_optimizer_are_one_sentence():
    with pytest.raises(ValueError, match="no optimizer 'adagrad'; known: adam, adamw, sgd"):
        build_optimizer(small_net(), name="adagrad")
    with pytest.raises(ValueError, match=r"optimizer adamw: .*momentum"):
        build_optimizer(small_net(), name="adamw", momentum=0.9)


def test_a_wrong_key_names_its_group_but_a_bug_keeps_its_traceback():
    with pytest.raises(ValueError, match=r"config group 'transform': .*'tilt'"):
        called(Augment, "transform", {"tilt": 1})

    def faulty(number):
        return number + "1"

    with pytest.raises(TypeError):
        called(faulty, "fit", {"number": 1})


@pytest.mark.parametrize("backbone", ["mobilenet_v3_small", "resnet18"])
def test_frozen_blocks_keep_weights_and_statistics_and_all_else_moves(backbone):
    net, frozen = small_net(backbone=backbone), 5
    freeze_backbone(net, frozen)
    train_mode(net)
    assert net.training
    assert net.head.training
    optimizer = build_optimizer(net, name="adamw", lr=0.01, weight_decay=0.1)
    before = {key: values.clone() for key, values in net.state_dict().items()}
    images, points = batch_of(drawn(4), 4)
    for _ in range(2):
        terms = PIPLoss()(net(net.normalize(images)), encode(points, net.neighbors, net.grid))
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    names = [name for name, _ in net.backbone.named_children()][:frozen]
    kept = tuple(f"backbone.{name}." for name in names)
    assert any(key.startswith(kept) for key in before)
    for key, values in net.state_dict().items():
        same = torch.equal(values, before[key])
        assert same == key.startswith(kept), f"{key} {'kept' if same else 'changed'}"


@pytest.mark.parametrize("precision", ["hybrid", "bfloat16"])
def test_mixed_precision_gives_nearly_the_same_gradient(precision):
    images, points = batch_of(drawn(16), 16)
    gradients, keys = {}, {}
    for name in ("float32", precision):
        net = small_net().train()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_precision(net, name, CPU)):
            output = net(net.normalize(images))
        assert output.score_map.dtype == (torch.float32 if name == "float32" else torch.bfloat16)
        sum(PIPLoss()(output, encode(points, net.neighbors, net.grid)).values()).backward()
        gradients[name] = torch.cat([p.grad.flatten() for p in net.parameters()])
        keys[name] = list(net.state_dict())
        assert gradients[name].dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(gradients["float32"], gradients[precision], dim=0)
    assert cosine > 0.99
    assert not torch.equal(gradients["float32"], gradients[precision])
    assert keys["float32"] == keys[precision]


def test_auto_is_float32_on_a_cpu_and_a_wrong_name_is_refused():
    net = small_net()
    assert not use_precision(net, "auto", CPU)
    with pytest.raises(ValueError, match="got 'float16'"):
        use_precision(net, "float16", CPU)
