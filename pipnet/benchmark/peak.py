"""What this machine can compute at most: the largest rate of a matrix product, of each precision.

Timed as contenders among the others, in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pipnet.benchmark.interleaved import Timed, rates

PRECISIONS = ("fp32", "bf16", "int8")
SIZES = (512, 1024, 2048)
_CALLED = "matrix product"


@dataclass(frozen=True)
class Peak:
    """The largest rate of one precision and number of threads.

    Attributes:
        precision: Of :data:`PRECISIONS`.
        threads: Of torch.
        gflops: 10⁹ operations a second, two for each multiply-accumulate.
        size: Side of the square matrices that reached it.
    """

    precision: str
    threads: int
    gflops: float
    size: int


def products(threads: Sequence[int], sizes: Sequence[int] = SIZES) -> list[Timed]:
    """Matrix products to time, of every precision, size and number of threads that torch has here."""
    return [
        Timed((_CALLED, precision, number, size), product, lambda number=number: torch.set_num_threads(number))
        for precision in PRECISIONS
        for size in sizes
        if (product := _product(precision, size)) is not None
        for number in threads
    ]


def peaks(seconds: Mapping[Hashable, np.ndarray]) -> list[Peak]:
    """The best of :func:`products`, from the times of a run that also holds others' times."""
    keys = [key for key in seconds if isinstance(key, tuple) and key[0] == _CALLED]
    best: dict[tuple[str, int], Peak] = {}
    for key, rate in rates(seconds, {key: 2e-9 * key[3] ** 3 for key in keys}).items():
        _, precision, threads, size = key
        known = best.get((precision, threads))
        if known is None or rate > known.gflops:
            best[precision, threads] = Peak(precision, threads, rate, size)
    return sorted(best.values(), key=lambda peak: (peak.threads, PRECISIONS.index(peak.precision)))


def _product(precision: str, size: int) -> Callable[[], object] | None:
    random = torch.Generator().manual_seed(0)
    if precision == "int8":
        a = torch.randint(-100, 100, (size, size), dtype=torch.int8, generator=random)
        call: Callable[[], object] = lambda: torch._int_mm(a, a)  # noqa: E731
    else:
        a = torch.randn(size, size, generator=random).to(torch.bfloat16 if precision == "bf16" else torch.float32)
        call = lambda: a @ a  # noqa: E731
    try:
        call()
    except (RuntimeError, AttributeError):  # `_int_mm` is young, and not there for every processor
        return None
    return call
