"""The training loop: resumable, for one process or several.

Everything random follows from ``(seed, epoch, face)`` and the state of an interrupted run is in ``last.pt``, so a
training that was killed at any moment and started again ends with the same numbers as one that was not.
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from pipnet.console import StopRequest
from pipnet.data.dataset import EpochBatches, FaceCrops, MixedFaces
from pipnet.model.network import LandmarkNet
from pipnet.training.distributed import Processes
from pipnet.training.optimization import Precision, Schedule, averaged, keep_memory, train_mode, use_precision
from pipnet.training.state import TrainingError, TrainingState
from pipnet.training.validation import Validation

_LOG_EVERY = 10  # steps between points of the loss curves

Relabel = Callable[[LandmarkNet, Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class FitSettings:
    """How long and in what portions a network trains: the config group ``fit``.

    Attributes:
        epochs: In all, those before an interruption included.
        batch_size: Over all processes.
        ema_decay: Of the moving average of the weights; 0 switches it off.
        clip_norm: Largest norm of the gradient; 0 switches it off.
        frozen_blocks: First blocks of the backbone that keep their weights.
        precision: See :func:`pipnet.training.optimization.use_precision`.
        compile: Whether ``torch.compile`` makes one program of the network: a minute at the start, for a GPU.
        workers: Loader processes; 0 loads in the training process.
        validate_every: Epochs between validations; the last epoch always has one.
        save_minutes: ``last.pt`` is also written within an epoch when this much time has passed.
        progress_bar: Whether to show one.
    """

    epochs: int = 60
    batch_size: int = 16
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    frozen_blocks: int = 0
    precision: Precision = "auto"
    compile: bool = False
    workers: int = 0
    validate_every: int = 1
    save_minutes: float = 5.0
    progress_bar: bool = True


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


class Monitor:
    """Shows and logs a training; silent where it is told nothing to do.

    ``total`` steps are of the whole training, ``done`` ones of before an interruption: later events of that run are
    replaced. Without a folder nothing is logged.
    """

    def __init__(self, folder: Path | None, *, total: int, done: int, bar: bool) -> None:
        self._writer = None if folder is None else SummaryWriter(str(folder), purge_step=done + 1)
        self._steps = done
        live = sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            disable=not bar,
            unit="step",
            mininterval=0.5 if live else 60.0,  # a log file wants a line a minute
            smoothing=0.02,
            dynamic_ncols=live,
        )

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._writer is not None:
            self._writer.close()

    def step(self, terms: Mapping[str, float], lr: float) -> None:
        """After a step: loss terms and learning rate."""
        self._steps += 1
        self._bar.update()
        if self._writer is not None and self._steps % _LOG_EVERY == 0:
            for name, value in terms.items():
                self._writer.add_scalar(f"loss/{name}", value, self._steps)
            self._writer.add_scalar("loss/total", sum(terms.values()), self._steps)
            self._writer.add_scalar("lr", lr, self._steps)

    def epoch(self, figures: Mapping[str, float]) -> None:
        """After an epoch: its figures, to the terminal and as curves over epochs."""
        epoch = int(figures["epoch"])
        if self._writer is not None:
            shown = {"loss": ".3f", "val_nme": ".3f", "faces_per_second": ".1f"}
            line = "  ".join(f"{name} {figures[name]:{form}}" for name, form in shown.items() if name in figures)
            self._bar.write(f"epoch {epoch:3d}  {line}", file=sys.stderr)
            for name, value in figures.items():
                if name != "epoch":
                    self._writer.add_scalar(f"epoch/{name}", value, epoch)
            self._writer.flush()

    def pictures(self, sheet: np.ndarray, epoch: int) -> None:
        """Predictions on validation faces, RGB uint8 ``(H, W, 3)``."""
        if self._writer is not None:
            self._writer.add_image("validation", sheet, epoch, dataformats="HWC")


def fit(
    net: LandmarkNet,
    faces: FaceCrops | MixedFaces,
    settings: FitSettings,
    *,
    optimizer: Optimizer,
    schedule: Schedule,
    loss: nn.Module,
    validation: Validation,
    processes: Processes,
    folder: str | Path,
    seed: int = 0,
    record: Mapping[str, Any] | None = None,
    relabel: Relabel | None = None,
) -> FitResult:
    """Train a network; go on where ``folder/last.pt`` stands if there is one.

    Args:
        net: Starting weights, as :meth:`pipnet.training.distributed.Processes.place` gives it.
        faces: Training faces; a mixture of labelled and pseudo-labelled ones is a set like any other.
        settings: How long and in what portions.
        optimizer: Of the weights that train (:func:`pipnet.training.optimization.build_optimizer`).
        schedule: Says the multiple of the learning rate, and is asked at every step.
        loss: Output and targets of the network to named terms.
        validation: Measured on the averaged weights (if any) to choose ``best.pt``.
        processes: The processes that train together.
        folder: Where checkpoints and TensorBoard events go.
        seed: Of the order of faces; ``faces`` has its own for augmentation.
        record: Goes into the checkpoint: config, data counts, versions.
        relabel: Makes of the averaged network and a batch the batch that is trained on; the average then begins as the
            starting weights, without a warm-up.

    Raises:
        TrainingError: The loss is not finite, with the step and the value of each term; ``last.pt`` belongs to another
            network or another setting; or SIGINT or SIGTERM asked for an end (the state is then in ``last.pt``).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    epochs, batch_size = settings.epochs, settings.batch_size
    run = TrainingState(
        net=net,
        average=averaged(net, settings.ema_decay, settled=relabel is not None) if settings.ema_decay else None,
        optimizer=optimizer,
        layout=validation.layout,
        crop_scale=validation.crop_scale,
        folder=folder,
        record=dict(record or {}),
        setting={
            "seed": seed,
            "batch_size": batch_size,
            "faces": len(faces),
            "epochs": epochs,
            "ema_decay": settings.ema_decay,
            "clip_norm": settings.clip_norm,
            "frozen_blocks": settings.frozen_blocks,
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
    if processes.device.type == "cpu":
        keep_memory()
    bfloat16 = use_precision(net, settings.precision, processes.device)
    model: Any = torch.compile(processes.wrap(net)) if settings.compile else processes.wrap(net)
    per_epoch = len(faces) // batch_size
    loader = DataLoader(
        faces,
        batch_sampler=batches,
        num_workers=settings.workers,
        pin_memory=processes.device.type == "cuda",
        multiprocessing_context="spawn" if settings.workers else None,
        persistent_workers=settings.workers > 0,  # a spawned worker imports everything: seconds, once is enough
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else every start of an epoch draws from the state that last.pt keeps
    )
    monitor = Monitor(
        folder if processes.is_main else None,
        total=epochs * per_epoch,
        done=state.epoch * per_epoch + state.batch,
        bar=settings.progress_bar and processes.is_main,
    )
    saved = time.monotonic()
    with monitor, StopRequest(alone=processes.world_size == 1) as stop:
        while state.epoch < epochs:
            batches.start(state.epoch, state.batch)
            started, first = time.monotonic(), state.batch
            train_mode(net)
            for loaded in loader:
                batch = loaded if relabel is None else relabel(run.chosen, loaded)
                run.set_lr(schedule.multiple(state.epoch + state.batch / per_epoch))
                terms, stopping = train_step(
                    run, model, batch, loss, processes, bfloat16=bfloat16, clip_norm=settings.clip_norm, stop=stop.asked
                )
                monitor.step(terms, run.lr)
                if processes.is_main and (stopping or time.monotonic() - saved > 60 * settings.save_minutes):
                    run.save_last()
                    saved = time.monotonic()
                if stopping:
                    raise TrainingError(
                        f"stopped on request after epoch {state.epoch + 1}, batch {state.batch}; the same command"
                        f" resumes from {run.last_path}"
                    )
            seconds = time.monotonic() - started
            figures = {f"loss_{name}": total / state.batch for name, total in state.term_sums.items()}
            figures["loss"] = sum(figures.values())
            figures["lr"] = run.lr
            figures["faces_per_second"] = (state.batch - first) * batch_size / max(seconds, 1e-9)
            if processes.is_main and ((state.epoch + 1) % settings.validate_every == 0 or state.epoch + 1 == epochs):
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


def train_step(
    run: TrainingState,
    model: nn.Module,
    batch: Mapping[str, Tensor],
    loss: nn.Module,
    processes: Processes,
    *,
    bfloat16: bool = False,
    clip_norm: float = 0.0,
    stop: bool = False,
) -> tuple[dict[str, float], bool]:
    """Take one step of the optimiser on one batch.

    Args:
        run: Network, moving average, optimiser and progress; all of them move on.
        model: The network, wrapped where several processes share the batch.
        batch: This process's share, its fields stacked: images uint8 ``(B, S, S, 3)``, points ``(B, N, 2)`` as
            fractions of the crop, weights ``(B, N)``, pool_factors ``(B,)``.
        loss: Output and targets of the network to named terms.
        processes: Those that share the batch.
        bfloat16: Whether the forward pass runs under autocast.
        clip_norm: Largest norm of the gradient; 0 is no limit.
        stop: Whether this process was asked to stop.

    Returns:
        The loss terms, the mean over processes, and whether any process was asked to stop.

    Raises:
        TrainingError: The loss or its gradient is not finite; no weight was changed.
    """
    net, device, pool_factor = run.net, processes.device, batch["pool_factor"]
    # A batch of (B, S, S, 3) seen as (B, 3, S, S) is channels-last already: no copy.
    images = batch["image"].to(device, non_blocking=True).permute(0, 3, 1, 2)
    points, weight = (batch[name].to(device, non_blocking=True) for name in ("points", "weight"))
    targets = net.targets(points, weight=weight, pool_factor=pool_factor)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
        output = model(net.normalize(images), pool_factor)
    terms = loss(output, targets)
    run.optimizer.zero_grad(set_to_none=True)
    sum(terms.values(), torch.zeros((), device=device)).backward()
    # Without a limit this only measures: every gradient is multiplied by exactly 1.
    norm = nn.utils.clip_grad_norm_(net.parameters(), clip_norm or float("inf"))
    figures = [*(term.detach() for term in terms.values()), norm.detach(), norm.new_tensor(float(stop))]
    *values, norm_value, asked = processes.mean(torch.stack(figures)).tolist()
    named = dict(zip(terms, values, strict=True))
    if not all(map(math.isfinite, [*values, norm_value])):
        listed = ", ".join(f"{name} {value:.4g}" for name, value in named.items())
        raise TrainingError(
            f"loss is not finite at epoch {run.progress.epoch + 1}, batch {run.progress.batch + 1}: {listed}, gradient"
            f" {norm_value:.4g}; {run.kept()}: lower the learning rate, set clip_norm, or use precision=float32"
        )
    run.optimizer.step()
    if run.average is not None:
        run.average.update_parameters(net)
    run.progress.add(named)
    return named, asked > 0


def _start_worker(number: int) -> None:
    """In a loader process: Ctrl-C is the training's to answer, and the cores are shared with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
