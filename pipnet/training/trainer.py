"""``fit``: one training loop, resumable, for one process or many.

Everything random follows from ``(seed, epoch, face)`` and the state of an interrupted run is in ``last.pt``, so a
training that was killed at any moment and started again ends with the same numbers as one that was not.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from pipnet.console import StopRequest
from pipnet.data.dataset import EpochBatches, FaceCrop, FaceCrops, MixedFaces
from pipnet.layouts import PointLayout
from pipnet.model.codec import encode
from pipnet.model.loss import PIPLoss
from pipnet.model.pipnet import PIPNet
from pipnet.training.distributed import Processes
from pipnet.training.monitor import Monitor
from pipnet.training.optimization import Precision, averaged, freeze_backbone, mixed_precision, train_mode
from pipnet.training.state import TrainingError, TrainingState
from pipnet.training.validation import Validation


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


def fit(
    net: PIPNet,
    faces: FaceCrops | MixedFaces,
    *,
    validation: Validation,
    layout: PointLayout,
    crop_scale: float,
    folder: str | Path,
    build_optimizer: Callable[[PIPNet], Optimizer],
    schedule: Callable[[float, float], float],
    processes: Processes,
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
        faces: Training faces; a mixture of labelled and pseudo-labelled ones is a set like any other.
        validation: Measured on the averaged weights (if any) to choose ``best.pt``.
        layout: What the points mean.
        crop_scale: Side of the crop over the longer side of the box, as ``faces`` and ``validation`` cut it.
        folder: Where checkpoints and TensorBoard events go.
        build_optimizer: Network to optimiser (:func:`pipnet.training.optimization.build_optimizer`).
        schedule: ``(epoch, epochs)`` to a multiple of the learning rate, asked at every step.
        processes: The processes that train together.
        loss: Its ``total_count`` is set for several processes.
        epochs: In all, those before an interruption included.
        batch_size: Over all processes.
        seed: Of the order of faces; ``faces`` has its own for augmentation.
        ema_decay: Of the moving average of the weights; 0 switches it off.
        clip_norm: Largest norm of the gradient; 0 switches it off.
        frozen_blocks: First blocks of the backbone that keep their weights.
        precision: See :func:`pipnet.training.optimization.mixed_precision`.
        workers: Loader processes; 0 loads in the training process.
        validate_every: Epochs between validations; the last epoch always has one.
        save_minutes: ``last.pt`` is also written within an epoch when this much time has passed.
        record: Goes into the checkpoint: config, data counts, versions.
        progress_bar: Whether to show one.

    Raises:
        TrainingError: The loss is not finite, with the step and the value of each term; ``last.pt`` belongs to another
            network or another setting; or SIGINT or SIGTERM asked for an end (the state is then in ``last.pt``).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    net = processes.share_batch_norm(net.to(processes.device, memory_format=torch.channels_last))
    freeze_backbone(net, frozen_blocks)
    run = TrainingState(
        net=net,
        average=averaged(net, ema_decay) if ema_decay else None,
        optimizer=build_optimizer(net),
        layout=layout,
        crop_scale=crop_scale,
        folder=folder,
        record=dict(record or {}),
        setting={
            "seed": seed,
            "batch_size": batch_size,
            "faces": len(faces),
            "epochs": epochs,
            "ema_decay": ema_decay,
            "clip_norm": clip_norm,
            "frozen_blocks": frozen_blocks,
        },
    )
    batches = EpochBatches(len(faces), batch_size, seed=seed, rank=processes.rank, world_size=processes.world_size)
    found = run.restore(processes)
    state = run.progress
    if found and processes.is_main:
        done = state.epoch >= epochs
        what = "is finished, nothing to do" if done else f"resumes at epoch {state.epoch + 1}, batch {state.batch + 1}"
        tqdm.write(f"the training of {run.last_path} {what}")
    if state.epoch >= epochs:
        return FitResult(run.best_path, run.last_path, state.history)
    loss = loss or PIPLoss()
    loss.total_count = processes.mean_count
    context = mixed_precision(net, precision, processes.device)
    step = _Step(processes, net, loss, run.optimizer, context, clip_norm, run.kept)
    per_epoch = len(faces) // batch_size
    loader = DataLoader(
        faces,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=processes.device.type == "cuda",
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,  # a spawned worker imports everything: seconds, once a training is enough
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else every start of an epoch draws from the state that last.pt keeps
    )
    monitor = Monitor(
        folder if processes.is_main else None,
        total=epochs * per_epoch,
        done=state.epoch * per_epoch + state.batch,
        bar=progress_bar and processes.is_main,
    )
    saved = time.monotonic()
    with monitor, StopRequest(alone=processes.world_size == 1) as stop:
        while state.epoch < epochs:
            batches.start(state.epoch, state.batch)
            started, first = time.monotonic(), state.batch
            train_mode(net)
            for batch in loader:
                multiple = schedule(state.epoch + state.batch / per_epoch, epochs)
                run.set_lr(multiple)
                where = f"epoch {state.epoch + 1}, batch {state.batch + 1}"
                terms, stopping = step(batch, where=where, stop=stop.asked)
                if run.average is not None:
                    run.average.update_parameters(net)
                state.batch += 1
                for name, value in terms.items():
                    state.term_sums[name] = state.term_sums.get(name, 0.0) + value
                monitor.step(terms, run.optimizer.param_groups[-1]["lr"])
                if processes.is_main and (stopping or time.monotonic() - saved > 60 * save_minutes):
                    run.save_last()
                    saved = time.monotonic()
                if stopping:
                    raise TrainingError(
                        f"stopped on request after {where}; the same command resumes from {run.last_path}"
                    )
            seconds = time.monotonic() - started
            figures = {f"loss_{name}": total / state.batch for name, total in state.term_sums.items()}
            figures["loss"] = sum(figures.values())
            figures["lr"] = run.optimizer.param_groups[-1]["lr"]
            figures["faces_per_second"] = (state.batch - first) * batch_size / max(seconds, 1e-9)
            if processes.is_main and ((state.epoch + 1) % validate_every == 0 or state.epoch + 1 == epochs):
                figures |= validation(run.chosen, processes.device)
                if run.improves(figures["val_nme"]):
                    run.save_best(figures)
                monitor.pictures(validation.contact_sheet(run.chosen, processes.device), state.epoch + 1)
            state.epoch, state.batch, state.term_sums = state.epoch + 1, 0, {}
            state.history.append({"epoch": state.epoch, **figures})
            if processes.is_main:
                run.save_last()
                saved = time.monotonic()
            monitor.epoch(state.history[-1])
            processes.wait()
        # Asked in the last validation, when no step was left to hear it: what follows must not begin.
        if processes.mean(torch.tensor(float(stop.asked), device=processes.device)) > 0:
            raise TrainingError(
                f"stopped on request after epoch {epochs}; the same command resumes from {run.last_path}"
            )
    return FitResult(run.best_path, run.last_path, state.history)


def _start_worker(number: int) -> None:
    """In a loader process: Ctrl-C is the training's to answer, and the cores are shared with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


@dataclass
class _Step:
    """One step of the optimiser on one batch."""

    processes: Processes
    net: PIPNet
    loss: PIPLoss
    optimizer: Optimizer
    context: Callable[[], AbstractContextManager[Any]]
    clip_norm: float
    kept: Callable[[], str]

    def __post_init__(self) -> None:
        self.parallel = self.processes.wrap(self.net)

    def __call__(self, batch: FaceCrop, *, where: str, stop: bool) -> tuple[dict[str, float], bool]:
        """Take a step.

        Args:
            batch: This process's share, its fields stacked: images uint8 ``(B, S, S, 3)``, points ``(B, N, 2)`` as
                fractions of the crop, weights ``(B, N)``, pool_factors ``(B,)``.
            where: For the error message.
            stop: Whether this process was asked to stop.

        Returns:
            The loss terms, the mean over processes, and whether any process was asked to stop.

        Raises:
            TrainingError: The loss or its gradient is not finite; no weight was changed.
        """
        device = self.processes.device
        # A batch of (B, S, S, 3) seen as (B, 3, S, S) is channels-last already: no copy.
        images = batch["image"].to(device, non_blocking=True).permute(0, 3, 1, 2)
        points, weight = (batch[name].to(device, non_blocking=True) for name in ("points", "weight"))
        targets = encode(points, self.net.neighbors, self.net.grid, weight=weight, pool_factor=batch["pool_factor"])
        with self.context():
            output = self.parallel(self.net.normalize(images), batch["pool_factor"])
        terms = self.loss(output, targets)
        self.optimizer.zero_grad(set_to_none=True)
        sum(terms.values()).backward()
        # Without a limit this only measures: every gradient is multiplied by exactly 1.
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm or float("inf"))
        asked = norm.new_tensor(float(stop))
        *values, norm_value, asked_value = self.processes.mean(
            torch.stack([*(term.detach() for term in terms.values()), norm.detach(), asked])
        ).tolist()
        named = dict(zip(terms, values, strict=True))
        if not all(map(math.isfinite, [*values, norm_value])):
            listed = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
            raise TrainingError(
                f"loss is not finite at {where}: {listed}, gradient {norm_value:.4g}; {self.kept()}: lower the learning"
                " rate, set clip_norm, or use precision=float32"
            )
        self.optimizer.step()
        return named, asked_value > 0
