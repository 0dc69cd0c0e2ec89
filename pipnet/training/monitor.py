"""What a person watches while a network trains: progress bar and TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

_LOG_EVERY = 10  # steps between points of the loss curves


class Monitor:
    """Shows and logs a training; silent where it is told nothing to do.

    Args:
        folder: Where TensorBoard events go; None logs nothing.
        total: Steps of the whole training.
        done: Steps taken before an interruption; later events of that run are replaced.
        bar: Whether to show a progress bar.
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
