"""No 8-bit graph that pipnet writes can overflow the 16 bits in which CPUs without VNNI add: from the file alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipnet.inference.landmarker import SHIPPED_GRAPH
from pipnet.model.rounding import round_rows, step_sizes

LARGEST_ACTIVATION = 255  # what a byte can hold; runtimes shift signed ones to this range
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def channels_of(node: onnx.NodeProto, weight: np.ndarray) -> np.ndarray:
    """Weights ``(output channels, weights of each)``; groups of a transposed convolution together, which asks more."""
    axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": weight.ndim - 1, "Gemm": 1}[node.op_type]
    if node.op_type == "Gemm" and any(found.name == "transB" and found.i for found in node.attribute):
        axis = 0
    return np.moveaxis(weight.astype(np.int64), axis, 0).reshape(weight.shape[axis], -1)


def overflowing(model: onnx.ModelProto) -> tuple[int, list[str]]:
    """How many products with 8-bit weights there are, and in which of them two can add up to more than 16 bits hold."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    scaled = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    assert not [
        node.name for node in model.graph.node if node.op_type.startswith(("QLinear", "ConvInteger", "MatMulI"))
    ]
    found, wrong = 0, []
    for node in model.graph.node:
        if node.op_type not in PRODUCTS or node.input[1] not in scaled:
            continue
        weight = tensors[scaled[node.input[1]].input[0]]
        assert weight.dtype == np.int8, node.name
        assert not tensors[scaled[node.input[1]].input[2]].any(), node.name  # symmetric: the numbers are what is summed
        found += 1
        ordered = np.sort(channels_of(node, weight), axis=1)
        most = LARGEST_ACTIVATION * ordered[:, -2:].clip(0).sum(axis=1).max()
        least = LARGEST_ACTIVATION * ordered[:, :2].clip(max=0).sum(axis=1).min()
        if most > 32767 or least < -32768:
            wrong.append(f"{node.name}: {least} … {most}")
    return found, wrong


def assert_16_bits_hold(model: onnx.ModelProto) -> None:
    """tests/test_predictor.py asks this of what is exported."""
    found, wrong = overflowing(model)
    assert wrong == []
    # All of them: none is skipped, and none stays in 32 bits.
    assert found == sum(node.op_type in ("Conv", "ConvTranspose") for node in model.graph.node)


def test_no_two_products_of_the_graph_that_ships_leave_16_bits():
    assert overflowing(onnx.load(SHIPPED_GRAPH)) == (54, [])


@pytest.mark.parametrize(
    "make",
    [
        lambda rng: rng.normal(size=(3, 5, 40)),
        lambda rng: rng.standard_cauchy((3, 5, 40)),
        lambda rng: np.ones((1, 2, 9)),
        lambda rng: -np.eye(4)[None],
        lambda rng: np.zeros((1, 2, 3)),
        lambda rng: rng.normal(size=(2, 4, 1)),
    ],
    ids=["normal", "outliers", "equal", "one each", "nothing", "single"],
)
def test_rounded_weights_keep_the_bounds(make: Callable[[np.random.Generator], np.ndarray]):
    rng = np.random.default_rng(0)
    rows = make(rng)
    step = step_sizes(rows)
    inputs = rng.normal(size=(len(rows), 64, rows.shape[2])) + rng.normal(size=(1, 64, 1))
    for covariances in (None, [inputs.transpose(0, 2, 1) @ inputs / 64]):
        rounded = round_rows(rows, step, covariances)
        assert np.abs(rounded).max() <= 127
        for sign in (1, -1):
            assert np.sort(sign * rounded, axis=2)[:, :, -2:].clip(0).sum(axis=2).max() <= 128
    nearest = round_rows(rows, step, None) * step[..., None]
    assert np.abs(nearest - rows).max() <= step.max() * 1.01  # and no weight is cut off


def test_later_weights_make_up_for_the_rounding_of_earlier_ones():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1, 8, 60))
    inputs = rng.normal(size=(500, 60)) + 2 * rng.normal(size=(500, 1))  # all rise and fall together
    covariance = inputs.T @ inputs / len(inputs)
    step = step_sizes(rows)

    def error(covariances: list[np.ndarray] | None) -> float:
        difference = round_rows(rows, step, covariances)[0] * step[0, :, None] - rows[0]
        return float(np.square(difference @ inputs.T).mean())

    assert error([covariance[None]]) < error(None) / 2
    # Also in two blocks that know nothing of each other.
    halves = [covariance[None, :30, :30], covariance[None, 30:, 30:]]
    assert error(halves) < error(None)


def test_a_covariance_that_rounding_left_below_zero():
    """As of inputs that hardly vary, in sums of 32 bits."""
    rows = np.random.default_rng(0).normal(size=(1, 3, 6))
    step = step_sizes(rows)
    inexact = np.full((1, 6, 6), 1e-6) - 2e-7 * np.eye(6)
    rounded = round_rows(rows, step, [inexact])
    assert np.isfinite(rounded).all()
    assert np.abs(rounded * step[..., None] - rows).max() < 3 * step.max()  # near to what it was
