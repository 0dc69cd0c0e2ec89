"""Models × precisions × runtimes × threads × batches, and other detectors, as calls to time."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipnet.benchmark.interleaved import Timed
from pipnet.benchmark.machine import usable_cores
from pipnet.benchmark.networks import Network
from pipnet.benchmark.subject import Subject
from pipnet.benchmark.work import Work, gflop_of

if TYPE_CHECKING:
    from pipnet.benchmark.others import OtherDetector, PointsOnCrop

OTHERS_RUNTIME = "own"  # what stands in the place of a runtime


@dataclass(frozen=True, eq=False)
class Contender:
    """Something that finds points on crops.

    Attributes:
        model: Its network, or the name of another detector.
        runtime: What computes it; :data:`OTHERS_RUNTIME` for other detectors.
        precision: ``fp32`` or ``int8``; empty for other detectors, which don't say.
        threads: Of a call.
        batch: Crops of a call.
        input_size: Side of the crops in pixels.
        work: Of one crop.
        call: One call.
        file: Of the network; None for other detectors.
        other: Another detector, opened: what it is, and one crop to points in its pixels or None.
    """

    model: str
    runtime: str
    precision: str
    threads: int
    batch: int
    input_size: int
    work: Work
    call: Callable[[], object]
    file: Path | None = None
    other: tuple[OtherDetector, PointsOnCrop] | None = None

    @property
    def name(self) -> str:
        """Without threads and batch: what has one accuracy."""
        return called(self.model, self.runtime, self.precision)

    @property
    def key(self) -> tuple[str, int, int]:
        """Of its times."""
        return self.name, self.threads, self.batch

    def timed(self) -> Timed:
        """For :func:`pipnet.benchmark.interleaved.time_interleaved`."""
        return Timed(self.key, self.call, partial(_set_torch_threads, self.threads))


@dataclass
class Field:
    """Who takes part, and who does not.

    Attributes:
        contenders: In the order of a round.
        left_out: Name and reason, a sentence.
    """

    contenders: list[Contender] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def called(model: str, runtime: str, precision: str) -> str:
    """Name of a contender.

    Example:
        >>> called("shipped", "onnxruntime", "int8"), called("dlib-68", "own", "")
        ('shipped onnxruntime int8', 'dlib-68')
    """
    return model if runtime == OTHERS_RUNTIME else f"{model} {runtime} {precision}"


def line_up(
    networks: Sequence[Network],
    others: Mapping[str, OtherDetector],
    subject: Subject,
    *,
    runtimes: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
    between: Callable[[], object] = lambda: None,
) -> Field:
    """Build all contenders; each is called once, so that what can't run shows here.

    Args:
        networks: Of ``--models``.
        others: Other detectors by name, each gets its own crop of the same face, one at a time, and one thread.
        subject: Whose crops.
        runtimes: Names.
        precisions: Of :class:`Network` files; a file that has just one is taken as it is.
        threads: Numbers of threads.
        batches: Numbers of crops a call.
        between: Called after each attempt; may raise, to end it.
    """
    found = Field()
    for network in networks:
        crops = subject.crops(max(batches), size=network.input_size, box_scale=network.box_scale)
        for precision in tuple(network.given) if network.fixed else precisions:
            for runtime in runtimes:
                _enter_network(found, network, runtime, precision, threads, batches, crops)
                between()
    for other in others.values():
        _enter_other(found, other, subject)
        between()
    return found


def _enter_network(
    found: Field,
    network: Network,
    runtime: str,
    precision: str,
    threads: Sequence[int],
    batches: Sequence[int],
    crops: np.ndarray,
) -> None:
    from pipnet.inference.runtimes import open_runtime

    name = called(network.name, runtime, precision)
    for number in threads:
        if number > usable_cores():
            found.left_out.append((f"{name}, {number} threads", f"there are {usable_cores()} cores to use"))
            continue
        try:
            path = network.file(runtime, precision)
            _set_torch_threads(number)
            network_call = open_runtime(path, runtime, threads=number)
            calls = {batch: partial(network_call, crops[:batch]) for batch in batches}
            for call in calls.values():
                call()
            work = network.work
            if runtime == "torch":
                work = replace(work, gflop=gflop_of(partial(network_call, crops[:1])))
        except (ValueError, OSError, ImportError, RuntimeError) as error:
            reason = sentence(error).replace(f"{network.folder}{os.sep}", "")  # a folder that is gone soon
            found.left_out.append((name, reason))
            return  # what fails with one number of threads fails with all
        found.contenders += [
            Contender(network.name, runtime, precision, number, batch, network.input_size, work, call, file=path)
            for batch, call in calls.items()
        ]


def _enter_other(found: Field, other: OtherDetector, subject: Subject) -> None:
    crop = other.crop(subject.box).warp(subject.image)
    try:
        _set_torch_threads(1)
        find = other.open()
        points = find(crop)
    except Exception as error:  # other people's code, which may fail in any way
        found.left_out.append((other.name, sentence(error)))
        return
    if points is None:
        found.left_out.append((other.name, "it finds no face on the crop"))
        return
    call = partial(find, crop)
    found.contenders.append(
        Contender(other.name, OTHERS_RUNTIME, "", 1, 1, len(crop), Work(None, None), call, other=(other, find))
    )


def sentence(error: BaseException) -> str:
    """The first line of an error.

    Example:
        >>> sentence(ValueError("no such thing\\nand more")), sentence(KeyError())
        ('no such thing', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


@cache
def _torch() -> Any:
    import torch

    return torch


def _set_torch_threads(threads: int) -> None:
    # One setting for the whole process, so it is set again before each block of calls; other runtimes have their own.
    _torch().set_num_threads(threads)
