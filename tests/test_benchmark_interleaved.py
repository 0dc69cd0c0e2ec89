"""Timing in turn, with a clock that the test turns; work and peaks; no time of this machine is judged."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipnet.benchmark import peak
from pipnet.benchmark.interleaved import Timed, of_rounds, ratio, spread, time_interleaved
from pipnet.benchmark.work import graph_work, network_work
from pipnet.layouts import get_layout
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.onnx_graph import export_onnx
from pipnet.model.pipnet import PIPNet


class Clock:
    """Calls that take known time, on a machine that slows down for a while."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slow = 1.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, name: str, seconds: float):
        def call() -> None:
            self.log.append(name)
            self.now += seconds * self.slow

        return call


def test_everybody_is_timed_in_every_round_after_being_prepared():
    clock = Clock()
    timed = [
        Timed(name, clock.takes(name, seconds), lambda name=name: clock.log.append(f"prepare {name}"))
        for name, seconds in (("a", 1.0), ("b", 2.0))
    ]
    rounds = []
    found = time_interleaved(timed, rounds=2, min_calls=2, clock=clock, after_round=rounds.append)
    a, b = ["prepare a", "a", "a", "a"], ["prepare b", "b", "b", "b"]  # one call that no clock sees, two that it does
    assert clock.log == [*a[:3], *b[:3], *a, *b, *a, *b]  # the first time round the number of calls is chosen
    assert rounds == [1, 2]
    np.testing.assert_array_equal(found["a"], np.full((2, 2), 1.0))
    np.testing.assert_array_equal(found["b"], np.full((2, 2), 2.0))


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, 20), (0.01, 10), (0.05, 4)])
def test_the_number_of_calls_follows_from_the_first(seconds, calls):
    clock = Clock()
    found = time_interleaved(
        [Timed("a", clock.takes("a", seconds))],
        rounds=1,
        block_seconds=0.1001,
        min_calls=4,
        max_calls=20,
        clock=clock,
    )
    assert found["a"].shape == (1, calls)


def test_ratios_do_not_see_a_machine_that_slows_down():
    clock = Clock()

    def after_round(number: int) -> None:
        clock.slow = 3.0 if number % 2 else 1.0

    timed = [Timed("slow", clock.takes("slow", 0.5)), Timed("fast", clock.takes("fast", 0.1))]
    found = time_interleaved(timed, rounds=8, clock=clock, after_round=after_round)
    times = of_rounds(found["fast"])
    assert times.high / times.low == pytest.approx(3)
    compared = ratio(found["slow"], found["fast"])
    assert (compared.low, compared.median, compared.high) == pytest.approx((5, 5, 5))


def test_the_median_of_a_round_ignores_a_hiccup():
    seconds = np.full((5, 7), 0.002)
    seconds[3, 2] = 9.0
    assert of_rounds(seconds) == spread(np.full(5, 0.002))


def test_the_garbage_collector_is_off_while_a_clock_runs_and_as_before_afterwards():
    seen = []
    clock = Clock()

    def call() -> None:
        seen.append(gc.isenabled())
        clock.now += 1

    assert gc.isenabled()
    time_interleaved([Timed("a", call)], rounds=1, clock=clock)
    assert not any(seen[2:])  # the first two choose the number of calls
    assert gc.isenabled()
    gc.disable()
    try:
        time_interleaved([Timed("a", call)], rounds=1, clock=clock)
        assert not gc.isenabled()
    finally:
        gc.enable()

    def broken() -> None:
        if not gc.isenabled():
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        time_interleaved([Timed("a", broken)], rounds=1, clock=clock)
    assert gc.isenabled()


def test_wrong_arguments_of_the_timing():
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        time_interleaved([], rounds=0)
    with pytest.raises(ValueError, match="two things to time are called 'a'"):
        time_interleaved([Timed("a", int), Timed("b", int), Timed("a", int)], rounds=1)


def test_the_peak_is_the_best_rate_of_any_size_and_call():
    called = "matrix product"
    seconds = {
        (called, "fp32", 1, 1000): np.array([[0.020, 0.040], [0.025, 0.030]]),  # 2 GFLOP in 20 ms
        (called, "fp32", 1, 500): np.array([[0.005, 0.002]]),  # 0.25 GFLOP in 2 ms
        (called, "int8", 2, 500): np.array([[0.001]]),
        ("shipped torch fp32", 1, 1): np.array([[1e-9]]),  # not a product
    }
    found = peak.peaks(seconds)
    assert [(one.precision, one.threads, one.size) for one in found] == [("fp32", 1, 500), ("int8", 2, 500)]
    assert [one.gflops for one in found] == pytest.approx([125, 250])


def test_products_run_on_the_threads_they_are_named_after():
    before = torch.get_num_threads()
    try:
        products = peak.products([1, 2], sizes=[32])
        assert {product.key[1] for product in products} >= {"fp32", "bf16"}
        for product in products:
            product.prepare()
            assert torch.get_num_threads() == product.key[2]
            assert product.call().shape == (32, 32)
    finally:
        torch.set_num_threads(before)


def network(**more) -> PIPNet:
    mean_face = np.random.default_rng(0).uniform(0.2, 0.8, (68, 2))
    return PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=4, input_size=64, **more).eval()


def test_work_counts_two_for_each_multiply_accumulate():
    """The dense form of a head is a product over all its channels at every cell; the rest is the trunk's."""
    net = network()
    work = network_work(net)
    head = 2 * 576 * 68 * (3 + 2 * 4) * 2 * 2 / 1e9  # channels, points, maps of a point, cells
    with torch.inference_mode(), FlopCounterMode(display=False) as trunk:
        net.trunk(torch.zeros(1, 3, 64, 64))
    assert work.dense == pytest.approx(trunk.get_total_flops() / 1e9 + head)
    assert trunk.get_total_flops() / 1e9 < work.gflop < work.dense


@pytest.mark.parametrize("reader", ["openvino", "onnx"])
def test_work_of_a_graph_is_that_of_its_network(tmp_path, monkeypatch, reader):
    pytest.importorskip(reader)
    if reader == "onnx":
        monkeypatch.setitem(sys.modules, "openvino", None)
    net = network()
    path = tmp_path / "net.onnx"
    export_onnx(LoadedModel(net, get_layout("300w_68"), 1.25, {}), path)
    work = graph_work(path)
    assert work.dense is None
    assert work.gflop == pytest.approx(network_work(net).gflop, rel=0.02)


def test_work_of_a_graph_that_nobody_reads_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    path = tmp_path / "net.onnx"
    path.write_bytes(b"")
    assert graph_work(path).gflop is None
