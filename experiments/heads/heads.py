"""What is compared: heads, backbones and numbers of labels, each a set of arguments of ``python -m pipnet.train``."""

from __future__ import annotations

from dataclasses import dataclass

RATES = (0.0005, 0.001, 0.002)  # learning rates that every head tries
EPOCHS, TRIED_EPOCHS = 8, 3  # of all faces; of a try
BATCH, FACES = 16, 1808
SEEDS = (0, 1, 2)
FRACTIONS = (5, 10, 20, 50)  # percent of the training faces
RECIPE = (
    "dataset=300w",
    "model.input_size=128",
    f"fit.batch_size={BATCH}",
    "fit.progress_bar=false",
    "device=cpu",
)
_TRUNK = ("model.backbone=mobilenet_v2", "fit.frozen_blocks=2")
_RIVAL = ("model=rival", *_TRUNK)


@dataclass(frozen=True)
class Head:
    """A head on a trunk.

    Attributes:
        title: For people.
        arguments: Of the training.
        seeds: How many trainings.
        tuned: Whether the learning rate is tried out; backbones take PIP's.
    """

    title: str
    arguments: tuple[str, ...]
    seeds: int = 1
    tuned: bool = True


HEADS: dict[str, Head] = {
    "pip": Head("PIP, 10 neighbours", _TRUNK, 3),
    "alone": Head("PIP without neighbours", (*_TRUNK, "model.num_neighbors=0", "model.merge=none"), 3),
    "l1": Head("coordinates, L1", (*_RIVAL, "model.network=coordinate", "+loss.error=l1"), 3),
    "wing": Head("coordinates, Wing", (*_RIVAL, "model.network=coordinate", "+loss.error=wing"), 3),
    "baseline": Head("heatmaps, SimpleBaseline", (*_RIVAL, "model.network=simple_baseline"), 3),
    "cauchy": Head(
        "the same, Cauchy targets",
        (*_RIVAL, "model.network=simple_baseline", "+model.shape=cauchy", "+model.decoder=cauchy"),
    ),
    "pose_machine": Head("convolutional pose machine, light", (*_RIVAL, "model.network=pose_machine")),
    "coarse_to_fine": Head("coarse to fine", (*_RIVAL, "model.network=coarse_to_fine")),
    "pyramid": Head("cascaded pyramid", (*_RIVAL, "model.network=cascaded_pyramid")),
    "hourglass": Head(
        "2 stacked hourglasses of 128 channels, from nothing",
        (
            "model=rival",
            "model.network=hourglass",
            "model.backbone=hourglass_stem",
            "model.pretrained=false",
            "+model.stacks=2",
            "+model.width=128",
        ),
    ),
    "hrnet": Head(
        "HRNet-W18, from nothing",
        ("model=rival", "model.network=hrnet", "model.backbone=timm/hrnet_w18", "model.pretrained=false"),
    ),
    "lite0": Head(
        "PIP on EfficientNet-Lite0", ("model.backbone=efficientnet_lite0", "fit.frozen_blocks=2"), tuned=False
    ),
    "resnet18": Head(
        "PIP on ResNet-18, from nothing", ("model.backbone=resnet18", "model.pretrained=false"), tuned=False
    ),
    "mobilenet_v4": Head(
        "PIP on MobileNetV4-small, from nothing",
        ("model.backbone=timm/mobilenetv4_conv_small", "model.pretrained=false"),
        tuned=False,
    ),
}
LONG = ("pip", "l1")  # that are also trained on four times the images: coordinates learn slowly
LONGER = 4
FEW_LABELS = ("pip", "l1", "baseline")  # whose error over the number of labels is measured


@dataclass(frozen=True)
class Run:
    """One training: a try of a learning rate, or one that is measured.

    Attributes:
        head: Of :data:`HEADS`.
        seed: Of everything random.
        rate: Learning rate; None takes the best of the tries.
        percent: Of the training faces.
        times: Images over those of the other trainings.
    """

    head: str
    seed: int = 0
    rate: float | None = None
    percent: int = 100
    times: int = 1

    @property
    def name(self) -> str:
        """Of its folder and file."""
        if self.rate is not None:
            return f"{self.head}_try_{self.rate}"
        return f"{self.head}_{self.seed}" + f"_{self.percent}" * (self.percent < 100) + "_long" * (self.times > 1)

    @property
    def epochs(self) -> int:
        """So many that every training sees as many images."""
        an_epoch = round(FACES * self.percent / 100) // BATCH * BATCH
        return TRIED_EPOCHS if self.rate is not None else self.times * round(EPOCHS * FACES / an_epoch)

    def arguments(self, rate: float) -> list[str]:
        """Of ``python -m pipnet.train``, but for folders."""
        length = [f"fit.epochs={self.epochs}", f"fit.validate_every={max(1, self.epochs // EPOCHS)}"]
        if self.percent < 100:  # the rate rises over as many images
            length.append(f"schedule.warmup_epochs={self.epochs / EPOCHS:g}")
        return [*RECIPE, *HEADS[self.head].arguments, *length, f"optim.lr={rate}", f"seed={self.seed}"]


AGAIN = Run("l1", seed=1, percent=20)  # its first seed is far off the curve


def all_runs() -> list[Run]:
    """In the order in which they are made: tries first, then seeds, few labels, and longer ones."""
    tuned = [name for name, head in HEADS.items() if head.tuned]
    tries = [Run(name, rate=rate) for name in tuned for rate in RATES]
    seeds = [Run(name, seed) for seed in SEEDS for name, head in HEADS.items() if seed < head.seeds]
    few = [Run(name, percent=percent) for percent in FRACTIONS for name in FEW_LABELS]
    return tries + seeds + few + [AGAIN] + [Run(name, times=LONGER) for name in LONG]
