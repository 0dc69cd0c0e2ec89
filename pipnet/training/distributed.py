"""Several processes that train as one, started by ``torchrun``."""

from __future__ import annotations

import os
import pickle
import socket
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pipnet.console import StopRequest
from pipnet.model.network import LandmarkNet

T = TypeVar("T")

# While the main process writes a table of millions of faces the others wait, and torch's 10 minutes on GPUs and 30
# elsewhere are not enough. When a process dies, torchrun ends the others: nobody waits so long for a dead one.
_PATIENCE = timedelta(days=1)
_BETWEEN_S = 1.0  # in which a process works without hearing of the others


class TrainingError(RuntimeError):
    """A training that can't go on; the message says where it stopped and why."""


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: 0 is the one that validates, writes and prints.
        world_size: How many there are.
        device: Where this one computes.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def place(self, net: LandmarkNet) -> LandmarkNet:
        """The network on this process's device, its batch norm over the batch of all: n compute what one would.

        To be called before an optimiser takes the weights.
        """
        net.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # not in the stubs
        if self.world_size == 1:
            return net
        if self.device.type == "cuda":
            return cast("LandmarkNet", nn.SyncBatchNorm.convert_sync_batchnorm(net))
        for module in net.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _SharedBatchNorm2d  # torch's own SyncBatchNorm refuses CPU tensors
        return net

    def wrap(self, net: LandmarkNet) -> nn.Module:
        """The network to call in training: gradients are averaged over processes."""
        if self.world_size == 1:
            return net
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(net, device_ids=ids, broadcast_buffers=False)

    def mean_count(self, count: Tensor) -> Tensor:
        """Mean of a count over processes: what a sum must be divided by for averaged gradients to be exact."""
        if self.world_size == 1:
            return count
        count = count.detach().to(torch.float32, copy=True)  # it is changed in place, the caller's must not be
        dist.all_reduce(count)
        return count / self.world_size

    def mean(self, values: Tensor) -> Tensor:
        """Mean over processes, for reporting."""
        if self.world_size > 1:
            dist.all_reduce(values)
            values = values / self.world_size
        return values

    def from_main(self, make: Callable[[], T]) -> T:
        """What ``make`` gives or raises on the main process, on all; the others may be machines without its files.

        Whatever it raises is raised on all at once: nobody waits for a main process that has failed.
        """
        if self.world_size == 1:
            return make()
        value: Any = None
        failed: Exception | None = None
        message: list[Any] = [None]
        if self.is_main:
            try:
                value = make()
                message = [(False, pickle.dumps(value))]  # here, where a failure can still be told
            except Exception as error:
                failed, message = error, [(True, pickle.dumps(_portable(error)))]
        dist.broadcast_object_list(message)
        has_failed, content = message[0]
        if has_failed:
            dist.barrier()  # torchrun ends the others as soon as one ends: first everybody knows why
            raise failed if failed is not None else pickle.loads(content)
        return value if self.is_main else pickle.loads(content)

    def gathered(self, value: T) -> list[T]:
        """The value of every process, on every process; in the order of their ranks."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    @property
    def on_one_machine(self) -> bool:
        """Whether all processes run on one machine; every process must ask."""
        return len(set(self.gathered((socket.gethostname(), uuid.getnode())))) == 1

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world_size > 1:
            dist.barrier()


def in_step(work: Iterator[None], processes: Processes, stop: StopRequest, stopped: str) -> None:
    """Do this process's share of some work, a piece at a time, and tell the others how it goes once a second.

    Nobody waits in a barrier for hours, deaf to Ctrl-C, or for a process that has failed: all end together.

    Raises:
        TrainingError: A process was asked to stop, with the sentence ``stopped``; or another one has failed. The one
            that failed raises its own error.
    """
    end = object()
    done, failed = False, None
    try:
        while True:
            until = time.monotonic() + _BETWEEN_S
            try:
                while not (done or stop.asked or time.monotonic() > until):
                    done = next(work, end) is end
            except Exception as error:
                failed = error
            reason = failed and (str(failed) or type(failed).__name__)
            told = processes.gathered((done, stop.asked, reason))
            if failed is not None:
                raise failed
            if reasons := [reason for _, _, reason in told if reason]:
                raise TrainingError(f"another process has ended: {reasons[0]}")
            if any(asked for _, asked, _ in told):
                raise TrainingError(stopped)
            if all(done for done, _, _ in told):
                return
    finally:
        if isinstance(work, Generator):
            work.close()


@contextmanager
def join_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started, or be the only one.

    "auto" is CUDA where there is one; with several processes each takes its own card. ValueError where there is none.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("device=cuda, but torch sees no CUDA device here; use device=cpu or device=auto")
        chosen = torch.device("cuda", chosen.index if chosen.index is not None else local_rank)
        torch.cuda.set_device(chosen)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), world_size, chosen)
    finally:
        dist.destroy_process_group()


def _portable(error: Exception) -> Exception:
    """The error, or what it says in one that other processes can be sent."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an exception with arguments of its own, or with an open file among them
        kind = next((kind for kind in (OSError, ValueError) if isinstance(error, kind)), RuntimeError)
        return kind(str(error) if kind is not RuntimeError else f"{type(error).__name__}: {error}")
    return error


class _Sum(torch.autograd.Function):
    """Sum over processes; each process's loss depends on every process's addend, so gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


class _SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm over the batch of all processes, on a CPU; in float32 whatever the precision, as torch's own."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = (0, 2, 3)
        values, size = input.float(), dist.get_world_size()
        mean = _Sum.apply(values.mean(axes)) / size  # equal shares, so means may be averaged
        # Centred first: the difference of E[x^2] and E[x]^2 would lose all digits where the mean is large.
        centred = values - mean[:, None, None]
        variance = _Sum.apply(centred.square().mean(axes)) / size
        count = input.numel() / input.shape[1] * size
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)
