"""Time networks and runtimes side by side on this machine's CPU: ``python -m pipnet.benchmark``.

    python -m pipnet.benchmark                                            # the network that ships, every runtime
    python -m pipnet.benchmark --models shipped mine.pt mine_int8.onnx    # yours beside it
    python -m pipnet.benchmark --models resnet18@128 --threads 1,4 --batch 1,16
    python -m pipnet.benchmark --data DIR                                 # and the error of each, on DIR/300W

A case is a network on a runtime, in a precision, with a number of threads and of faces a call. Cases are timed in turn,
A B A B, for many rounds in one process, each after a call without a clock. Milliseconds are the median over rounds of
each round's median, with the quartiles of the rounds; "times faster" compares with PyTorch on the same network, threads
and batch, round by round, so that other work on the machine changes it little. What can't be had here is skipped.

``--models`` takes ``shipped`` (the default), ``.pt``, ``.onnx`` and ``.xml`` files, and backbones with random weights:
``resnet18``, or ``resnet18@128`` for crops of 128 px; 68 points, 10 neighbours. An int8 graph that is made here is
calibrated on copies of one portrait: good for its speed only. ``--data DIR`` measures the NME on the part ``common`` of
``DIR/300W``, in the boxes of the labels.

A first table comes early. Ctrl-C and SIGTERM (``timeout 60 python -m pipnet.benchmark``) end the measuring; what was
measured is printed and written to ``--output`` (default ``benchmark/``): ``report.md``, and all in ``benchmark.json``.

Exit status: 0; 1 when nothing was timed, a file could not be written, or it was interrupted; 2 for wrong arguments.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark with arguments of the command line (None: the process's own); returns the exit status."""
    from pipnet import console

    def work() -> int:
        from pipnet.benchmark.command import run

        console.started()  # it listens for Ctrl-C itself
        return run(arguments)

    try:
        return console.run("benchmark", work, alone=arguments is None, unfinished="nothing is written")
    except console.MissingExtraError as error:
        return console.complain("benchmark", error)
