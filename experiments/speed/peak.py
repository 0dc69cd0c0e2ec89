"""What the processor can compute at most: the largest rate of a matrix product in torch, of each precision.

Products are timed among the networks, in the same rounds. Beside it the work of a network, counted by torch: two
operations for each multiply-accumulate of convolutions and matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipnet.benchmark.timing import Seconds, Timed

if TYPE_CHECKING:
    from pipnet.model.pipnet import PIPNet

PRECISIONS = ("fp32", "bf16", "int8")
SIZES = (512, 1024, 2048)
_CALLED = "matrix product"


@dataclass(frozen=True)
class Peak:
    """The largest rate of one precision and number of threads.

    Attributes:
        precision: Of :data:`PRECISIONS`.
        threads: Of torch.
        gflops: 10⁹ operations a second.
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


def peaks(seconds: Seconds) -> list[Peak]:
    """The best call of :func:`products`, from the times of a run that also holds others' times."""
    best: dict[tuple[str, int], Peak] = {}
    for key, times in seconds.items():
        if not isinstance(key, tuple) or key[0] != _CALLED:
            continue
        _, precision, threads, size = key
        found = Peak(precision, threads, 2e-9 * size**3 / float(times.min()), size)
        best[precision, threads] = max(best.get((precision, threads), found), found, key=lambda peak: peak.gflops)
    return sorted(best.values(), key=lambda peak: (peak.threads, PRECISIONS.index(peak.precision)))


def network_work(net: PIPNet) -> tuple[float, float]:
    """GFLOP of one face: in a graph, with offsets at one cell a point; and with all maps at every cell, as in torch."""
    from pipnet.model.predictor import Predictor

    crops = torch.zeros(1, net.input_size, net.input_size, 3, dtype=torch.uint8)
    predictor = Predictor(net)
    return _gflop(lambda: predictor(crops)), _gflop(lambda: net(net.normalize(crops.permute(0, 3, 1, 2))))


def _gflop(call: Callable[[], object]) -> float:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops() / 1e9


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
