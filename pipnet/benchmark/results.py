"""What was measured as plain types: the content of ``benchmark.json``, which table and picture are made from."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pipnet.benchmark.accuracy import Accuracy, accuracy_of
from pipnet.benchmark.contenders import OTHERS_RUNTIME, Contender
from pipnet.benchmark.interleaved import Spread, of_rounds, ratio
from pipnet.benchmark.peak import Peak
from pipnet.benchmark.starts import Start

FORMAT = 1


def contender_rows(
    contenders: Sequence[Contender],
    seconds: Mapping[Hashable, np.ndarray],
    peaks: Sequence[Peak],
    accuracy: Mapping[str, Accuracy],
) -> list[dict[str, Any]]:
    """One row a contender.

    ``ms`` is of a call, ``ms_a_face`` the median by the faces in it; ``ratio`` says how many times faster than the
    contender named in ``ratio_to`` it is; ``share`` is the part of the peak it reaches at its median, ``share_best`` in
    its fastest call.
    """
    highest = {(peak.precision, peak.threads): peak.gflops for peak in peaks}
    rows = []
    for contender in contenders:
        times = seconds[contender.key]
        base = _base(contender, contenders)
        found = accuracy_of(contender, accuracy)
        milliseconds = of_rounds(times).scaled(1000)
        rows.append(
            {
                "name": contender.name,
                "model": contender.model,
                "runtime": contender.runtime,
                "precision": contender.precision,
                "threads": contender.threads,
                "batch": contender.batch,
                "input_size": contender.input_size,
                "ms": {**asdict(milliseconds), "best": 1000 * float(times.min())},
                "ms_a_face": milliseconds.median / contender.batch,
                "ratio": None if base is None else asdict(ratio(_a_face(base, seconds), _a_face(contender, seconds))),
                "ratio_to": None if base is None else base.name,
                "gflop": contender.work.gflop,
                "gflop_dense": contender.work.dense,
                **_shares(contender, milliseconds, times, highest.get((contender.precision, contender.threads))),
                "accuracy": None if found is None else asdict(found),
            }
        )
    return rows


def start_rows(starts: Sequence[Start]) -> list[dict[str, Any]]:
    """One row a start; the numbers of all measurements."""
    return [asdict(start) for start in starts]


def _base(contender: Contender, contenders: Sequence[Contender]) -> Contender | None:
    """Who it is compared with: PyTorch on the same network, threads and batch; else the first of these.

    Other detectors are compared with the first network's, on one thread and one face.
    """
    networks = [one for one in contenders if one.runtime != OTHERS_RUNTIME]
    model = networks[0].model if contender.runtime == OTHERS_RUNTIME and networks else contender.model
    like = [
        one for one in networks if (one.model, one.threads, one.batch) == (model, contender.threads, contender.batch)
    ]
    return next((one for one in like if one.runtime == "torch"), like[0] if like else None)


def _a_face(contender: Contender, seconds: Mapping[Hashable, np.ndarray]) -> np.ndarray:
    return np.asarray(seconds[contender.key]) / contender.batch


def _shares(
    contender: Contender, milliseconds: Spread, times: np.ndarray, peak: float | None
) -> dict[str, float | None]:
    if peak is None or contender.work.gflop is None:
        return {"share": None, "share_best": None}
    work = contender.work.gflop * contender.batch
    return {"share": work / (milliseconds.median / 1000) / peak, "share_best": work / float(times.min()) / peak}
