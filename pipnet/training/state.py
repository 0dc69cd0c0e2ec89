"""What a training knows at any moment, and the files that hold it: ``last.pt`` to go on from, ``best.pt`` to share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from pipnet.layouts import PointLayout
from pipnet.model import checkpoint
from pipnet.model.network import LandmarkNet
from pipnet.training.distributed import Processes, TrainingError

# Parts of the config that may differ between the runs of one training: where it runs, not what it computes.
FREE_SETTINGS = frozenset(
    {"name", "folder", "data_root", "device", "fit.workers", "fit.save_minutes", "fit.progress_bar"}
    | {f"dataset.{key}" for key in ("name", "root", "layout", "licence", "on_bad")}
)


@dataclass
class Progress:
    """Where a training stands."""

    epoch: int = 0
    batch: int = 0  # done in this epoch
    term_sums: dict[str, float] = field(default_factory=dict)  # over those batches
    history: list[dict[str, float]] = field(default_factory=list)

    def add(self, terms: Mapping[str, float]) -> None:
        """A batch is done."""
        self.batch += 1
        for name, value in terms.items():
            self.term_sums[name] = self.term_sums.get(name, 0.0) + value


@dataclass
class TrainingState:
    """Weights, optimiser and progress of a training; all that its next step depends on."""

    net: LandmarkNet  # that takes the steps
    average: AveragedModel | None
    optimizer: Optimizer  # as built: its learning rates are what the schedule multiplies
    layout: PointLayout
    crop_scale: float  # side of the crop over the longer side of the box
    folder: Path  # of last.pt and best.pt
    record: dict[str, Any]  # of the training; its "config" is compared when a training resumes
    setting: dict[str, Any] = field(default_factory=dict)  # further arguments that must not change in the middle
    progress: Progress = field(default_factory=Progress)
    best_nme: float = float("inf")

    def __post_init__(self) -> None:
        self.best_path = self.folder / "best.pt"
        self.last_path = self.folder / "last.pt"
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def chosen(self) -> LandmarkNet:
        """The network that is measured and shared: the average where there is one."""
        return self.net if self.average is None else cast("LandmarkNet", self.average.module)

    def set_lr(self, multiple: float) -> None:
        """Learning rates as multiples of those that the optimiser was built with."""
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * multiple

    @property
    def lr(self) -> float:
        """Learning rate of the last group, which is the head's."""
        return self.optimizer.param_groups[-1]["lr"]

    def improves(self, nme: float) -> bool:
        """Whether this is the lowest validation NME so far; a NaN is not."""
        better = nme < self.best_nme
        if better:
            self.best_nme = nme
        return better

    def save_best(self, figures: Mapping[str, float]) -> None:
        """Write ``best.pt``."""
        training = {**self.record, "epoch": self.progress.epoch + 1, "metrics": dict(figures)}
        checkpoint.save(self.best_path, self.chosen, layout=self.layout, crop_scale=self.crop_scale, training=training)

    def save_last(self) -> None:
        """Write ``last.pt``; a TrainingError keeps a weight that is not finite from replacing a good state."""
        state = self.progress
        for key, values in self.net.state_dict().items():
            if values.is_floating_point() and not values.isfinite().all():
                raise TrainingError(
                    f"weight {key!r} is not finite after epoch {state.epoch + 1}, batch {state.batch}; {self.kept()};"
                    " lower the learning rate or set clip_norm"
                )
        resume = {
            "setting": self.setting,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": None if self.average is None else int(self.average.n_averaged),
            "second_head": _second_head(self.chosen),
            "torch_rng": torch.get_rng_state(),
            "epoch": state.epoch,
            "batch": state.batch,
            "term_sums": state.term_sums,
            "history": state.history,
            "best_nme": self.best_nme,
        }
        about = {"layout": self.layout, "crop_scale": self.crop_scale, "training": self.record}
        checkpoint.save(self.last_path, self.chosen, **about, resume=resume)

    def kept(self) -> str:
        """For error messages: what is on the disk."""
        return f"{self.last_path} holds an earlier state" if self.last_path.is_file() else "no state was saved before"

    def restore(self, processes: Processes) -> bool:
        """Go on from ``last.pt`` if there is one, and say so; only the main process needs to see it.

        Raises:
            TrainingError: It belongs to another network or was trained with another setting; the message names it.
            CheckpointError: It is damaged.
        """
        content = processes.from_main(self._read_last)
        if content is None:
            return False
        resume = content.get("resume")
        if resume is None or not checkpoint.holds(content, self.net):
            raise TrainingError(f"{self.last_path} belongs to another network; choose another folder or delete it")
        refuse_another_setting(resume["setting"], self.setting, source=self.last_path)
        config = content["training"].get("config", {})
        refuse_another_setting(config, self.record.get("config", {}), source=self.last_path)
        checkpoint.load_weights(self.net, resume["net"], source=str(self.last_path))
        if self.average is not None:
            weights = content["weights"] | resume.get("second_head", {})
            checkpoint.load_weights(self.chosen, weights, source=str(self.last_path))
            self.average.n_averaged.fill_(resume["averaged"])
        self.optimizer.load_state_dict(resume["optimizer"])
        torch.set_rng_state(resume["torch_rng"])
        self.best_nme = resume["best_nme"]
        self.progress = Progress(resume["epoch"], resume["batch"], resume["term_sums"], resume["history"])
        return True

    def _read_last(self) -> dict[str, Any] | None:
        # A kill in the middle of writing leaves a temporary file of `replacing`; here is where it goes.
        for name in ("last", "best"):
            for leftover in self.folder.glob(f".{name}-*.pt"):
                leftover.unlink(missing_ok=True)
        return checkpoint.read(self.last_path) if self.last_path.is_file() else None


def _second_head(net: LandmarkNet) -> dict[str, torch.Tensor]:
    """Weights that the checkpoint of a network leaves out."""
    return {name: values for name, values in net.state_dict().items() if name.startswith(checkpoint.SECOND_HEAD)}


def refuse_another_setting(before: Mapping[str, Any], now: Mapping[str, Any], *, source: Path) -> None:
    """Compare two configs, but for what only says where a training runs; the TrainingError names the first difference.

    What is new in ``now`` is not compared: an older pipnet did not know it. ``source`` is the file that holds
    ``before``.
    """
    known = dict(_leaves(before))
    for name, value in _leaves(now):
        if name not in FREE_SETTINGS and known.get(name, value) != value:
            raise TrainingError(
                f"{source} was trained with {name}={known[name]}, now {name}={value};"
                " keep the setting or choose another folder"
            )


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"optim": {"lr": 1}}`` to ``("optim.lr", 1)``."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
