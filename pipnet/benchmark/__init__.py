"""How fast the networks run on this machine, side by side: ``python -m pipnet.benchmark``.

Everything is timed in turn, A B A B, many rounds over, in one process; a ratio compares what was timed in the same
round, so that a machine that slows down for a while slows both. CPU only.

* ``--models``: ``shipped`` (the default), a file (``.pt``, ``.onnx``, ``.xml``), or a backbone with random weights, as
  ``resnet18`` or ``resnet18@128`` for crops of 128 px; 68 points, 10 neighbours.
* ``--runtimes torch,onnxruntime,openvino``, ``--precisions fp32,int8``, ``--threads 1,2``, ``--batch 1,16``: every
  combination is a contender. One that can't be had is listed with the reason. What pipnet makes int8 of here is
  calibrated on drawn faces: good for its speed only.
* Other landmark detectors that are installed are timed on the same face, each on the crop that suits it, on one thread
  (``--no-others`` leaves them).
* ``--data ROOT`` measures the NME of trained networks on ``ROOT/300W`` (its part ``common``), ``--nme FILE.json`` takes
  it from a file: ``{"shipped onnxruntime int8": 2.93, "shipped fp32": 2.92, "dlib-68": 3.54}``, percent, by contender
  or by network and precision.
* ``--quick``: few rounds, to see that everything runs; ``--rounds N`` and ``--starts N`` say how many.

Written to ``--output`` (default ``benchmark/``): ``report.md``, ``benchmark.json``, ``speed.png``. What is in them:

* Milliseconds of a call: the median over rounds of each round's median, with the quartiles of the rounds; the ratio to
  PyTorch in the same way. Garbage collection is off while a clock runs.
* GFLOP: 2 for each multiply-accumulate of convolutions and matrix products, of one face, as that runtime computes it.
  Graphs compute offsets at one cell a point (:mod:`pipnet.model.predictor`); the work of the network as the authors
  compute it, all maps at every cell, stands beside it.
* Share of the peak: that work over the time, beside the largest rate of a square matrix product in torch, of the same
  precision and number of threads, timed in the same rounds.
* Cold start: a fresh process that imports pipnet, loads the network and finds the points of one given box, from before
  it starts until it has the points; the files lie in the system's cache. Warm: a second load in that process, with its
  first points. Memory: the largest resident set of that process up to its first points.

Exit status: 0; 1 when nothing could be timed, a result not be written, or it was interrupted (then nothing is written);
2 for wrong arguments.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: Of the command line, without the program's name; None takes the process's own.

    Returns:
        The exit status.
    """
    from pipnet import console

    def work() -> int:
        with console.needs("train"):
            from pipnet.benchmark.command import run

            console.started()  # it listens for Ctrl-C itself
            return run(arguments)

    try:
        return console.run("benchmark", work, alone=arguments is None, unfinished="nothing is written")
    except console.MissingExtraError as error:
        return console.complain("benchmark", error)
