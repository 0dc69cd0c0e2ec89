"""All measurements of a run, one kind after the other."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from pipnet.benchmark import machine, peak, results
from pipnet.benchmark.accuracy import Accuracy, measure_accuracy
from pipnet.benchmark.contenders import Contender, Field
from pipnet.benchmark.interleaved import time_interleaved
from pipnet.benchmark.interruption import Interrupt
from pipnet.benchmark.networks import Network
from pipnet.benchmark.starts import measure_starts, one_per_network
from pipnet.benchmark.subject import Subject
from pipnet.console import counted

if TYPE_CHECKING:
    from pipnet.data.sample import Sample
    from pipnet.layouts import PointLayout

    Faces: TypeAlias = tuple[list[Sample], PointLayout]

_QUICK_BLOCK_S, _BLOCK_S = 0.02, 0.1


def measure(
    field: Field,
    subject: Subject,
    options: argparse.Namespace,
    networks: Sequence[Network],
    accuracy: dict[str, Accuracy],
    faces: Faces | None,
    interrupt: Interrupt,
) -> dict[str, Any]:
    """Cold starts, then times, then errors.

    Args:
        field: Who takes part; what fails on the way joins those left out.
        subject: The face of the cold starts.
        options: Of the command line.
        networks: Of ``--models``.
        accuracy: Errors that are known.
        faces: Labelled faces to measure errors on, and their layout; None measures none.
        interrupt: Ends the run between two measurements.

    Returns:
        The content of ``benchmark.json``.
    """
    started = one_per_network(field.contenders)
    starts, failed = measure_starts(
        started,
        subject,
        repeats=options.starts,
        after_each=_progress("start", options.starts * len(started), interrupt),
    )
    field.left_out += failed
    sizes = peak.SIZES[:2] if options.quick else peak.SIZES
    say(f"{counted(len(field.contenders), 'contender')}, {counted(options.rounds, 'round')}")
    products = peak.products([number for number in options.threads if number <= machine.usable_cores()], sizes)
    seconds = time_interleaved(
        [*(contender.timed() for contender in field.contenders), *products],
        rounds=options.rounds,
        block_seconds=_QUICK_BLOCK_S if options.quick else _BLOCK_S,
        after_round=_progress("round", options.rounds, interrupt),
    )
    load = machine.load_average()
    if faces is not None:
        judged = {contender.name for contender in field.contenders if _judged(contender, networks)}
        accuracy, failed = measure_accuracy(
            field.contenders,
            lambda contender: contender.name in judged,
            *faces,
            after_each=_progress("NME", len(judged), interrupt),
        )
        field.left_out += failed
    peaks = peak.peaks(seconds)
    return {
        "format": results.FORMAT,
        "machine": machine.describe(),
        "load_average": load,
        "subject": subject.name,
        "settings": {"command": options.command, "rounds": options.rounds, "starts": options.starts},
        "notes": [*_notes(field.contenders, networks, faces), *_unused(field.contenders, accuracy)],
        "contenders": results.contender_rows(field.contenders, seconds, peaks, accuracy),
        "peaks": [asdict(one) for one in peaks],
        "starts": results.start_rows(starts),
        "left_out": [{"name": name, "reason": reason} for name, reason in field.left_out],
    }


def _judged(contender: Contender, networks: Sequence[Network]) -> bool:
    """Whether its points mean anything: not with random weights, nor where drawn faces calibrated them."""
    network = next((one for one in networks if one.name == contender.model), None)
    return network is None or (network.trained and not network.drawn_calibration(contender.precision))


def _notes(contenders: Sequence[Contender], networks: Sequence[Network], faces: Faces | None) -> list[str]:
    notes = []
    random = [network.name for network in networks if not network.trained]
    int8 = {contender.model for contender in contenders if contender.precision == "int8"}
    drawn = [network.name for network in networks if network.name in int8 and network.drawn_calibration("int8")]
    if random:
        notes.append(f"Random weights: {', '.join(random)}.")
    if drawn:
        notes.append(f"int8 of {', '.join(drawn)} is calibrated on drawn faces here: good for its speed only.")
    if faces is not None:
        notes.append(
            f"NME: mean over the faces found, of {counted(len(faces[0]), 'face')} of 300W Common, label boxes."
        )
    return notes


def _unused(contenders: Sequence[Contender], accuracy: dict[str, Accuracy]) -> list[str]:
    """What ``--nme`` says of somebody who is not there: a slip, or one of those left out."""
    names = {name for one in contenders for name in (one.name, f"{one.model} {one.precision}")}
    unused = [name for name in accuracy if name not in names]
    return [f"Nobody here is called {' or '.join(map(repr, unused))}: that NME is not shown."] if unused else []


def say(text: str) -> None:
    """What is going on, beside the results."""
    print(f"pipnet.benchmark: {text}", file=sys.stderr)


def _progress(what: str, total: int, interrupt: Interrupt) -> Callable[..., None]:
    """A function that counts up in one line of a terminal, and ends the run where Ctrl-C was swallowed."""
    done = 0

    def step(*_: object) -> None:
        nonlocal done
        interrupt.check()
        done += 1
        if sys.stderr.isatty():
            print(f"\r{what} {done} of {total} ", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return step
