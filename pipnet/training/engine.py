"""``fit``: one training loop, resumable, for one process or many.

Everything random follows from ``(seed, epoch, face)`` and the state of an interrupted run is in ``last.pt``, so a training
that was killed at any moment and started again ends with the same numbers as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from pipnet.data.dataset import EpochBatches, FaceCrops
from pipnet.layouts import PointLayout
from pipnet.model import checkpoint
from pipnet.model.codec import encode
from pipnet.model.loss import PIPLoss
from pipnet.model.pipnet import PIPNet
from pipnet.training.monitor import Monitor
from pipnet.training.optimization import Precision, averaged, freeze_trunk, mixed_precision, train_mode
from pipnet.training.processes import Processes
from pipnet.training.validation import Validation


class TrainingError(RuntimeError):
    """A training that can't go on; the message says where it stopped and why."""


@dataclass(frozen=True)
class FitResult:
    """What a training gave.

    Attributes:
        best: ``best.pt``, the checkpoint of the lowest validation NME: small, shareable.
        last: ``last.pt``, the newest state: what resumes.
        history: One record an epoch: losses, learning rate, faces per second, validation figures.
    """

    best: Path
    last: Path
    history: list[dict[str, float]]


@dataclass
class _Progress:
    """Where a training stands; all of it is in ``last.pt``."""

    epoch: int = 0
    batch: int = 0  # done in this epoch
    term_sums: dict[str, float] = field(default_factory=dict)  # over those batches
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    net: PIPNet,
    faces: FaceCrops,
    *,
    validation: Validation,
    layout: PointLayout,
    box_scale: float,
    folder: str | Path,
    build_optimizer: Callable[[PIPNet], Optimizer],
    schedule: Callable[[float, float], float],
    team: Processes,
    loss: PIPLoss | None = None,
    epochs: int = 60,
    batch_size: int = 16,
    seed: int = 0,
    ema_decay: float = 0.0,
    clip_norm: float = 0.0,
    frozen_blocks: int = 0,
    precision: Precision = "auto",
    workers: int = 0,
    validate_every: int = 1,
    save_minutes: float = 5.0,
    record: Mapping[str, Any] | None = None,
    progress_bar: bool = True,
) -> FitResult:
    """Train a network; go on where ``folder/last.pt`` stands if there is one.

    Args:
        net: Starting weights.
        faces: Training faces.
        validation: Measured on the averaged weights (if any) to choose ``best.pt``.
        layout: What the points mean.
        box_scale: Side of the crop over the longer side of the box, as ``faces`` and ``validation`` cut it.
        folder: Where checkpoints and TensorBoard events go.
        build_optimizer: Network to optimiser (:func:`pipnet.training.optimization.build_optimizer`).
        schedule: ``(epoch, epochs)`` to a multiple of the learning rate, asked at every step.
        team: The processes that train together.
        loss: Its ``total_count`` is set for several processes.
        epochs: In all, those before an interruption included.
        batch_size: Over all processes.
        seed: Of the order of faces; ``faces`` has its own for augmentation.
        ema_decay: Of the moving average of the weights; 0 switches it off.
        clip_norm: Largest norm of the gradient; 0 switches it off.
        frozen_blocks: First blocks of the trunk that keep their weights.
        precision: See :func:`pipnet.training.optimization.mixed_precision`.
        workers: Loader processes; 0 loads in the training process.
        validate_every: Epochs between validations; the last epoch always has one.
        save_minutes: ``last.pt`` is also written within an epoch when this much time has passed.
        record: Goes into the checkpoint: config, data counts, versions.
        progress_bar: Whether to show one.

    Raises:
        TrainingError: The loss is not finite, with the step and the value of each term; or ``last.pt`` belongs to another
            network or another number of steps.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    net = team.share_batch_norm(net.to(team.device, memory_format=torch.channels_last))
    freeze_trunk(net, frozen_blocks)
    run = _Run(
        net=net,
        average=averaged(net, ema_decay) if ema_decay else None,
        optimizer=build_optimizer(net),
        layout=layout,
        box_scale=box_scale,
        folder=folder,
        record=dict(record or {}),
    )
    batches = EpochBatches(len(faces), batch_size, seed=seed, rank=team.rank, world_size=team.world_size)
    run.setting = {"seed": seed, "batch_size": batch_size, "faces": len(faces), "epochs": epochs}
    run.restore()
    loss = loss or PIPLoss()
    loss.total_count = team.mean_count
    context = mixed_precision(net, precision, team.device)
    step = _Step(team, net, loss, run.optimizer, context, clip_norm)
    per_epoch = len(faces) // batch_size
    loader = DataLoader(
        faces,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=team.device.type == "cuda",
        multiprocessing_context="spawn" if workers else None,
    )
    state = run.progress
    monitor = Monitor(
        folder if team.is_main else None,
        total=epochs * per_epoch,
        done=state.epoch * per_epoch + state.batch,
        bar=progress_bar and team.is_main,
    )
    saved = time.monotonic()
    with monitor:
        while state.epoch < epochs:
            batches.start(state.epoch, state.batch)
            started, first = time.monotonic(), state.batch
            train_mode(net)
            for batch in loader:
                multiple = schedule(state.epoch + state.batch / per_epoch, epochs)
                run.set_lr(multiple)
                terms = step(batch["image"], batch["points"], where=f"epoch {state.epoch + 1}, batch {state.batch + 1}")
                if run.average is not None:
                    run.average.update_parameters(net)
                state.batch += 1
                for name, value in terms.items():
                    state.term_sums[name] = state.term_sums.get(name, 0.0) + value
                monitor.step(terms, run.optimizer.param_groups[-1]["lr"])
                if team.is_main and time.monotonic() - saved > 60 * save_minutes:
                    run.save_last()
                    saved = time.monotonic()
            seconds = time.monotonic() - started
            figures = {f"loss_{name}": total / state.batch for name, total in state.term_sums.items()}
            figures["loss"] = sum(figures.values())
            figures["lr"] = run.optimizer.param_groups[-1]["lr"]
            figures["faces_per_second"] = (state.batch - first) * batch_size / seconds
            if team.is_main and ((state.epoch + 1) % validate_every == 0 or state.epoch + 1 == epochs):
                figures |= validation(run.chosen, team.device)
                if run.improves(figures["val_nme"]):
                    run.save_best(figures)
                monitor.pictures(validation.sheet(run.chosen, team.device), state.epoch + 1)
            state.epoch, state.batch, state.term_sums = state.epoch + 1, 0, {}
            state.history.append({"epoch": state.epoch, **figures})
            if team.is_main:
                run.save_last()
                saved = time.monotonic()
            monitor.epoch(state.history[-1])
            team.wait()
    return FitResult(run.best_path, run.last_path, state.history)


@dataclass
class _Step:
    """One step of the optimiser on one batch."""

    team: Processes
    net: PIPNet
    loss: PIPLoss
    optimizer: Optimizer
    context: Callable[[], AbstractContextManager[Any]]
    clip_norm: float

    def __post_init__(self) -> None:
        self.parallel = self.team.wrap(self.net)

    def __call__(self, images: Tensor, points: Tensor, *, where: str) -> dict[str, float]:
        """Take a step and return the loss terms, the mean over processes.

        Args:
            images: uint8 ``(B, S, S, 3)``, this process's share.
            points: ``(B, N, 2)``, fractions of the crop.
            where: For the error message.
        """
        device = self.team.device
        # A batch of (B, S, S, 3) seen as (B, 3, S, S) is channels-last already: no copy.
        images = images.to(device, non_blocking=True).permute(0, 3, 1, 2)
        targets = encode(points.to(device, non_blocking=True), self.net.neighbors, self.net.grid)
        with self.context():
            output = self.parallel(self.net.normalize(images))
        terms = self.loss(output, targets)
        values = self.team.mean(torch.stack([term.detach() for term in terms.values()])).tolist()
        named = dict(zip(terms, values, strict=True))
        if not all(value - value == 0 for value in values):  # inf and NaN differ from themselves
            listed = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
            raise TrainingError(
                f"loss is not finite at {where}: {listed}; the last good state is in last.pt: lower the learning rate,"
                " set clip_norm, or use precision=float32"
            )
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        if self.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm)
        self.optimizer.step()
        return named


@dataclass
class _Run:
    """Weights, optimiser and progress of a training, and the files that hold them."""

    net: PIPNet
    average: torch.optim.swa_utils.AveragedModel | None
    optimizer: Optimizer
    layout: PointLayout
    box_scale: float
    folder: Path
    record: dict[str, Any]
    progress: _Progress = field(default_factory=_Progress)
    best_nme: float = float("inf")
    setting: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.best_path = self.folder / "best.pt"
        self.last_path = self.folder / "last.pt"
        self.base_lrs = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def chosen(self) -> PIPNet:
        """The network that is measured and shared: the average where there is one."""
        return self.net if self.average is None else self.average.module

    def set_lr(self, multiple: float) -> None:
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * multiple

    def improves(self, nme: float) -> bool:
        better = nme < self.best_nme
        self.best_nme = min(nme, self.best_nme)
        return better

    def save_best(self, figures: Mapping[str, float]) -> None:
        training = {**self.record, "epoch": self.progress.epoch + 1, "metrics": dict(figures)}
        checkpoint.save(self.best_path, self.chosen, layout=self.layout, box_scale=self.box_scale, training=training)

    def save_last(self) -> None:
        """Everything that the next step depends on."""
        state = self.progress
        resume = {
            "setting": self.setting,
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "averaged": None if self.average is None else int(self.average.n_averaged),
            "torch_rng": torch.get_rng_state(),
            "epoch": state.epoch,
            "batch": state.batch,
            "term_sums": state.term_sums,
            "history": state.history,
            "best_nme": self.best_nme,
        }
        checkpoint.save(
            self.last_path,
            self.chosen,
            layout=self.layout,
            box_scale=self.box_scale,
            training=self.record,
            resume=resume,
        )

    def restore(self) -> None:
        """Go on from ``last.pt`` if there is one."""
        if not self.last_path.is_file():
            return
        content = checkpoint.read(self.last_path)
        resume = content.get("resume")
        if resume is None or content["model"] != self.net.arguments:
            raise TrainingError(f"{self.last_path} belongs to another network; choose another folder or delete it")
        for name, value in self.setting.items():
            if resume["setting"][name] != value:
                raise TrainingError(
                    f"{self.last_path} was trained with {name}={resume['setting'][name]}, now {name}={value};"
                    " keep the setting or choose another folder"
                )
        checkpoint.load_weights(self.net, resume["net"], source=str(self.last_path))
        if self.average is not None:
            checkpoint.load_weights(self.average.module, content["weights"], source=str(self.last_path))
            self.average.n_averaged.fill_(resume["averaged"])
        self.optimizer.load_state_dict(resume["optimizer"])
        torch.set_rng_state(resume["torch_rng"])
        self.best_nme = resume["best_nme"]
        self.progress = _Progress(resume["epoch"], resume["batch"], resume["term_sums"], resume["history"])
        tqdm.write(f"going on from {self.last_path}: epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}")
