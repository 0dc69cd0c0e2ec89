"""The cases of a benchmark: networks × precisions × runtimes × threads × batches, each one call on sample images."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pipnet.benchmark.machine import usable_cores
from pipnet.benchmark.networks import Network, sample_images
from pipnet.benchmark.timing import Timed


@dataclass(frozen=True, eq=False)
class Case:
    """A network (its name) in a precision on a runtime, as one call with so many threads and so many crops."""

    model: str
    runtime: str
    precision: str
    threads: int
    batch: int
    call: Callable[[], object]
    file: Path
    measurable: bool = True  # whether its points mean anything

    @property
    def name(self) -> str:
        """Without threads and batch, which change no accuracy: ``shipped onnxruntime int8``."""
        return f"{self.model} {self.runtime} {self.precision}"

    @property
    def key(self) -> tuple[str, int, int]:
        """Of its times: name, threads, batch."""
        return self.name, self.threads, self.batch

    def timed(self) -> Timed:
        """For :func:`pipnet.benchmark.timing.time_interleaved`."""
        return Timed(self.key, self.call, partial(_set_torch_threads, self.threads))


@dataclass
class Suite:
    """What is timed, in the order of a round, and what is skipped: name and reason, a sentence."""

    cases: list[Case] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)


def build_cases(
    networks: Sequence[Network],
    *,
    runtimes: Sequence[str],
    precisions: Sequence[str],
    threads: Sequence[int],
    batches: Sequence[int],
    say: Callable[[str], object] = lambda text: None,
    stop: Callable[[], bool] = lambda: False,
) -> Suite:
    """Build all cases, the product of the arguments; each is called once, so that what can't run shows here.

    Args:
        networks: Of ``--models``.
        runtimes: ``torch``, ``onnxruntime``, ``openvino``.
        precisions: ``fp32``, ``int8``; a graph has just its own.
        threads: Numbers of threads.
        batches: Numbers of crops a call.
        say: Told what is built next.
        stop: Asked before each; true ends the building.
    """
    from pipnet.inference.runtimes import open_runtime

    cores = usable_cores()
    suite = Suite(skipped=[(f"threads={n}", f"there are {cores} cores to use") for n in threads if n > cores])
    for network in networks:
        crops = sample_images(max(batches), network.input_size)
        for precision in tuple(network.files) if network.load is None else precisions:
            for runtime in runtimes:
                name = f"{network.name} {runtime} {precision}"
                if stop():
                    return suite
                say(f"building {name}")
                try:
                    path = network.file(runtime, precision)
                    measurable = network.trained and precision in network.files  # int8 made here is for its speed
                    for number in (n for n in threads if n <= cores):
                        _set_torch_threads(number)
                        opened = open_runtime(path, runtime, threads=number)
                        for batch in batches:
                            call = partial(opened, crops[:batch])
                            call()
                            case = Case(network.name, runtime, precision, number, batch, call, path, measurable)
                            suite.cases.append(case)
                except (ValueError, OSError, ImportError, RuntimeError) as error:
                    reason = str(error).strip().partition("\n")[0]
                    suite.skipped.append((name, reason.replace(f"{network.folder}{os.sep}", "")))  # it is gone soon
    return suite


def _set_torch_threads(threads: int) -> None:
    # One setting for the whole process, so it is set again before each block of calls; other runtimes have their own.
    if sys.modules.get("torch") is not None:
        sys.modules["torch"].set_num_threads(threads)
