"""Optimiser, learning-rate schedule, weight averaging and precision: how a step is taken."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from pipnet.model.network import LandmarkNet

_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
Weights = tuple[Tensor, ...] | list[Tensor]
Precision = Literal["auto", "float32", "bfloat16", "hybrid"]


def freeze_backbone(net: LandmarkNet, blocks: int) -> None:
    """Stop training the first blocks of the backbone; :func:`train_mode` keeps their batch-norm statistics.

    The first blocks see the most pixels: with 4 of MobileNetV2's 19 frozen an image trains 1.5 times as fast.
    """
    for block in _blocks(net.backbone)[:blocks]:
        block.requires_grad_(False)


def _blocks(backbone: nn.Module) -> list[nn.Module]:
    """The parts of a backbone in order; a network of timm lies in wrappers."""
    parts = list(backbone.children())
    while len(parts) == 1 and list(parts[0].children()):
        parts = list(parts[0].children())
    return parts


def train_mode(net: LandmarkNet) -> None:
    """Training mode, except for frozen blocks, which stay as they were trained."""
    net.train()
    for block in _blocks(net.backbone):
        parameters = list(block.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            block.eval()


def build_optimizer(
    net: LandmarkNet,
    *,
    name: str = "adam",
    lr: float = 1e-4,
    weight_decay: float = 0.0,
    backbone_lr: float = 1.0,
    **options: Any,
) -> Optimizer:
    """Optimiser over the parameters that train.

    Args:
        net: Network.
        name: "adam", "adamw" or "sgd".
        lr: Learning rate of neck and head.
        weight_decay: For weights of convolutions; biases and batch-norm parameters are never decayed.
        backbone_lr: Learning rate of the backbone as a multiple of ``lr``.
        **options: Of the optimiser (``betas``, ``momentum``).
    """
    if name not in _OPTIMIZERS:
        raise ValueError(f"no optimizer {name!r}; known: {', '.join(_OPTIMIZERS)}")
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for key, parameter in net.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((key.startswith("backbone."), parameter.dim() > 1), []).append(parameter)
    members = [
        {
            "params": group,
            "lr": lr * (backbone_lr if in_backbone else 1),
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (in_backbone, decayed), group in groups.items()
    ]
    try:
        return _OPTIMIZERS[name](members, lr=lr, **options)
    except TypeError as error:
        raise ValueError(f"optimizer {name}: {error}") from error


@dataclass(frozen=True)
class Schedule:
    """How the learning rate falls over a training; epochs are fractional. The config group ``schedule``, and when."""

    epochs: float  # of the whole schedule
    begin: float = 0.0  # epochs of the schedule before this training
    name: Literal["steps", "cosine"] = "steps"
    warmup_epochs: float = 0.0  # linear rise from a hundredth at the start
    milestones: Sequence[float] = (30, 50)  # of "steps", the paper's: times gamma at each
    gamma: float = 0.1
    final: float = 0.01  # multiple at the end of "cosine"

    def __post_init__(self) -> None:
        if self.name not in ("steps", "cosine"):
            raise ValueError(f"no schedule {self.name!r}; known: steps, cosine")

    def multiple(self, epoch: float) -> float:
        """What the learning rate is multiplied by at an epoch of this training."""
        epoch += self.begin
        if epoch < self.warmup_epochs:
            return 0.01 + 0.99 * epoch / self.warmup_epochs
        if self.name == "steps":
            return self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        progress = (epoch - self.warmup_epochs) / max(self.epochs - self.warmup_epochs, 1e-9)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def averaged(net: LandmarkNet, decay: float, *, settled: bool = False) -> AveragedModel:
    """Exponential moving average of the weights and batch-norm statistics, with a warm-up.

    After n updates the decay is ``min(decay, (1 + n) / (10 + n))``, so that the first weights are soon forgotten. With
    ``settled`` these are an average already, and there is no warm-up.
    """

    def update(average: Weights, current: Weights, updates: Tensor | int) -> None:
        if average[0].is_floating_point():
            n = int(updates)
            weight = 1 - min(decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(average, current, weight)  # pyright: ignore[reportPrivateImportUsage]  # as torch
        else:  # counters and index tables have no average
            torch._foreach_copy_(average, current)  # pyright: ignore[reportPrivateImportUsage]  # as torch

    average = AveragedModel(net, multi_avg_fn=update, use_buffers=True)
    if settled:
        average.n_averaged.fill_(math.ceil(10 / (1 - decay)))
    return average


class _Float32Conv2d(nn.Conv2d):
    """A convolution that leaves mixed precision: grouped ones are slow in bfloat16 on a CPU, backwards above all."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def keep_memory() -> None:
    """Let the C library keep freed memory for the next step of a training on a CPU, where it can.

    Otherwise each step gives the pages of its large tensors back to the system and asks for them again, filled with
    zeros, which takes a part of a small network's step that is worth saving. The call is glibc's ``mallopt(3)``.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library, another system
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28)):
            mallopt(option, value)


_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def use_precision(net: LandmarkNet, precision: Precision, device: torch.device) -> bool:
    """Whether the forward pass is to run under bfloat16 autocast.

    "auto" is bfloat16 on CUDA and float32 elsewhere. "hybrid" is bfloat16 except for grouped convolutions, which are
    marked here to stay in float32: the fastest on some CPUs, slower than float32 on others, so measure.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be auto, float32, bfloat16 or hybrid, got {precision!r}")
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    if precision == "hybrid":
        for module in net.modules():
            if type(module) is nn.Conv2d and module.groups > 1:
                module.__class__ = _Float32Conv2d  # same parameters, same state dict
    return precision != "float32"
