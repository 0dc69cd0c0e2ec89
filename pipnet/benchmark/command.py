"""What ``python -m pipnet.benchmark`` does, from its arguments to its exit status."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipnet.benchmark.interruption import Interrupt, remembered_interrupt
from pipnet.benchmark.options import parse
from pipnet.console import careful_output, said

if TYPE_CHECKING:
    from pipnet.benchmark.measuring import Faces
    from pipnet.benchmark.networks import Network
    from pipnet.benchmark.others import OtherDetector

_INTERRUPTED = "interrupted; nothing is written"
_QUICK_FACES = 50


def run(arguments: Sequence[str] | None = None) -> int:
    """See :func:`pipnet.benchmark.main`."""
    careful_output()
    parser, options = parse(arguments)
    options.command = shlex.join(sys.argv[1:] if arguments is None else arguments)
    with remembered_interrupt() as interrupt:
        try:
            return _run(parser, options, interrupt)
        except KeyboardInterrupt:
            return complain(_INTERRUPTED)
        except (ValueError, OSError) as error:
            return complain(_INTERRUPTED if interrupt.came else error)


def complain(error: Exception | str) -> int:
    """Say what went wrong; returns the exit status."""
    print(f"pipnet.benchmark: {said(error)}", file=sys.stderr)
    return 1


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace, interrupt: Interrupt) -> int:
    import cv2

    from pipnet.benchmark.accuracy import read_accuracy
    from pipnet.benchmark.contenders import line_up
    from pipnet.benchmark.measuring import measure, say
    from pipnet.benchmark.report import write_report
    from pipnet.benchmark.subject import find_subject

    cv2.setNumThreads(1)  # OpenCV's threads would fight those of the networks for the cores
    _make_folder(parser, options.output)
    subject = find_subject()
    with tempfile.TemporaryDirectory(prefix="pipnet-benchmark-") as made:
        networks = _networks(parser, options.models, Path(made))
        try:
            accuracy = read_accuracy(options.nme) if options.nme else {}
            faces = _faces(options)
        except (ValueError, OSError) as error:
            parser.error(said(error))
        interrupt.check()
        say("building the contenders")
        field = line_up(
            networks,
            _others(options),
            subject,
            runtimes=options.runtimes,
            precisions=options.precisions,
            threads=options.threads,
            batches=options.batch,
            between=interrupt.check,
        )
        for name, reason in field.left_out:
            say(f"left out: {name}: {reason}")
        if not field.contenders:
            return complain("nothing could be timed; the reasons are above")
        results = measure(field, subject, options, networks, accuracy, faces, interrupt)
    paths = write_report(results, options.output)
    print(_shown(results))
    print(f"\n{', '.join(str(path) for path in paths)}")
    return 0


def _networks(parser: argparse.ArgumentParser, models: Sequence[str], folder: Path) -> list[Network]:
    from pipnet.benchmark.networks import find_network

    networks: list[Network] = []
    for text in models:
        try:
            network = find_network(text, folder)
        except (ValueError, OSError, ImportError) as error:
            parser.error(f"--models: {said(error)}")
        if network.name in {other.name for other in networks}:
            parser.error(f"--models: two networks are called {network.name!r}; rename a file")
        networks.append(network)
    return networks


def _others(options: argparse.Namespace) -> dict[str, OtherDetector]:
    if options.no_others:
        return {}
    from pipnet.benchmark.others import installed_others

    return installed_others()


def _faces(options: argparse.Namespace) -> Faces | None:
    if options.data is None:
        return None
    from pipnet.benchmark.accuracy import read_faces

    return read_faces(options.data, _QUICK_FACES if options.quick else None)


def _make_folder(parser: argparse.ArgumentParser, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {folder} can't be a folder: {error.strerror}; choose another")


def _shown(results: dict[str, Any]) -> str:
    from pipnet.benchmark.tables import peak_table, start_table, timing_table

    return "\n\n".join(filter(None, (timing_table(results), start_table(results), peak_table(results))))
