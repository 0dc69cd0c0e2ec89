"""Weights of an 8-bit graph, rounded so that every CPU computes the same with them, and so that rounding shows least.

CPUs without VNNI (x86 of before 2020, AMD before Zen 4) multiply unsigned activations by signed weights with
``vpmaddubsw``. It adds two neighbouring products in 16 bits and cuts the sum off at their ends, in ONNX Runtime and in
OpenVINO, and points move. Here no two weights of an output channel that have one sign add up to more than 128, and 128
times the largest activation, 255, is 32,640 of the 32,767 that fit. So whichever two a kernel puts side by side, all
CPUs compute the same whole numbers. That costs up to half of the steps. It is won back in two ways:

* Weights are rounded one after another, and those to come make up for the error that the rounded ones leave on the
  calibration faces (GPTQ, Frantar and others, arXiv:2210.17323, a convolution at a time).
* What rounding adds to the mean of an output is taken off its bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

LARGEST_SUM = 128  # of two weights of one output channel and one sign
_LARGEST = 127
_POSITIONS = 64  # of a feature map that count for the statistics, a face
_BLOCK = 512  # inputs of a convolution that make up for each other; the work grows with its square
_AT_ONCE = 32  # of these, after which the errors are handed on to all the others in one product
_OWN = 64  # inputs of a group, up to which it has statistics of its own; larger groups share theirs
_DAMPING = 0.01  # of the mean variance, so that inputs that vary together on few faces aren't played off against others
_EXACT = 1e-5  # of the mean square: what sums in 32 bits are good for, where nothing varies, as with a single face


def round_weights(quantized: Any, model: Any, crops: np.ndarray, input_name: str) -> None:
    """Replace weights and biases of an 8-bit graph, in place.

    Args:
        quantized: An ``onnx.ModelProto`` with ``QuantizeLinear`` and ``DequantizeLinear`` nodes, weights int8.
        model: The graph in 32 bits that it was made of; its nodes have the same names.
        crops: uint8 ``(K, S, S, 3)``, the faces that it was calibrated on.
        input_name: Of the crops.
    """
    from onnx import numpy_helper

    exact = {tensor.name: tensor for tensor in model.graph.initializer}
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    maker = {output: node for node in quantized.graph.node for output in node.output}
    weighted = [node for node in quantized.graph.node if _scaled(node, 1, maker, known, np.int8)]
    originals = {node.name: node for node in model.graph.node}
    convolutions = [originals[node.name] for node in weighted if node.op_type == "Conv"]
    statistics = _statistics(model, convolutions, crops, input_name)
    for node in weighted:
        scaled, original = maker[node.input[1]], originals[node.name]
        weight = numpy_helper.to_array(exact[original.input[1]])
        axis = _attribute(scaled, "axis", 1) if known[scaled.input[1]].ndim else None
        channels_first = np.moveaxis(weight, axis, 0) if axis is not None else weight[None]
        groups = _attribute(node, "group", 1) if node.name in statistics else 1
        rows = channels_first.reshape(groups, len(channels_first) // groups, -1).astype(np.float64)  # (G, O / G, K)
        step = step_sizes(rows)
        mean, covariances = statistics.get(node.name, (None, None))
        rounded = round_rows(rows, step, covariances)
        stored = rounded.astype(np.int8).reshape(channels_first.shape)
        stored = np.moveaxis(stored, 0, axis) if axis is not None else stored[0]
        steps = step.ravel() if axis is not None else step[0, 0]
        _give(quantized, node, 1, scaled, stored, steps)
        if not _scaled(node, 2, maker, known, np.int32):
            continue
        bias = numpy_helper.to_array(exact[original.input[2]]).astype(np.float64)
        if mean is not None:
            bias = bias + np.einsum("gok,gk->go", rows - rounded * step[..., None], mean).ravel()
        steps = steps * known[maker[node.input[0]].input[1]]
        limit = np.iinfo(np.int32).max
        _give(quantized, node, 2, maker[node.input[2]], np.clip(np.rint(bias / steps), -limit, limit), steps)
    _forget_unused(quantized.graph)


def _scaled(node: Any, index: int, maker: dict[str, Any], known: dict[str, np.ndarray], kind: Any) -> bool:
    """Whether an input is a stored tensor of whole numbers of a kind, multiplied by a scale."""
    source = maker.get(node.input[index]) if len(node.input) > index else None
    if source is None or source.op_type != "DequantizeLinear" or source.input[0] not in known:
        return False
    return bool(known[source.input[0]].dtype == kind)


def step_sizes(rows: np.ndarray) -> np.ndarray:
    """Size of a step of each row ``(G, O, K)``, as small as the two rules allow: ``(G, O)``."""
    largest = np.abs(rows).max(axis=2) / _LARGEST
    two = np.sort(np.concatenate([rows, -rows], axis=0).clip(0), axis=2)[:, :, -2:].sum(axis=2)
    pair = np.maximum(*np.split(two, 2)) / (LARGEST_SUM - 1)  # less one: both may be rounded up
    return np.maximum(np.maximum(largest, pair), 1e-12).astype(np.float32).astype(np.float64)


def _bounds(rows: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The range of each weight in steps: the largest goes as far as it has to, the others as far as that leaves."""

    def upper(rows: np.ndarray) -> np.ndarray:
        place = rows.argmax(axis=2)[..., None]
        top = np.rint(np.take_along_axis(rows, place, axis=2) / step[..., None]).clip(LARGEST_SUM // 2, _LARGEST)
        bound = np.broadcast_to(LARGEST_SUM - top, rows.shape).copy()
        np.put_along_axis(bound, place, top, axis=2)
        return bound

    return -upper(-rows), upper(rows)


def round_rows(rows: np.ndarray, step: np.ndarray, covariances: Sequence[np.ndarray] | None) -> np.ndarray:
    """Whole numbers for weights ``(G, O, K)`` in units of ``step`` ``(G, O)``.

    ``covariances`` are of the inputs, block after block of them, each ``(G or 1, k, k)``; None rounds to the nearest.
    """
    low, high = _bounds(rows, step)
    if covariances is None:
        return np.clip(np.rint(rows / step[..., None]), low, high)
    result, start = [], 0
    for covariance in covariances:
        variance = np.einsum("gkk->gk", covariance)
        # Those that vary most first: their errors have most others to make up for them.
        order = np.argsort(-variance.mean(axis=0), kind="stable")
        share = _shares(covariance[:, order][:, :, order])
        # Inputs come first in memory, since they are gone through one by one: (k, G, O).
        rest, smallest, largest = (np.moveaxis(values[..., start + order], 2, 0).copy() for values in (rows, low, high))
        block, errors = np.empty_like(rest), np.empty_like(rest)
        for begin in range(0, len(order), _AT_ONCE):
            end = min(begin + _AT_ONCE, len(order))
            for index in range(begin, end):
                block[index] = np.clip(np.rint(rest[index] / step), smallest[index], largest[index])
                errors[index] = (rest[index] - block[index] * step) / share[:, index, index, None]
                rest[index:end] -= share[:, index, index:end].T[..., None] * errors[index]
            handed_on = share[:, begin:end, end:].transpose(0, 2, 1) @ errors[begin:end].transpose(1, 0, 2)
            rest[end:] -= handed_on.transpose(1, 0, 2)
        result.append(np.moveaxis(block[np.argsort(order)], 0, 2))
        start += len(order)
    return np.concatenate(result, axis=2)


def _shares(covariance: np.ndarray) -> np.ndarray:
    """How the error of an input is shared among those after it: upper triangles ``(G, k, k)``."""
    try:
        return np.linalg.cholesky(np.linalg.inv(covariance)).transpose(0, 2, 1)
    except np.linalg.LinAlgError:
        # Where next to nothing varies, sums in 32 bits leave numbers below 0; lifted to as much above it.
        lowest = np.linalg.eigvalsh(covariance)[:, 0]
        lifted = covariance + (1e-9 + 2 * np.maximum(-lowest, 0))[:, None, None] * np.eye(covariance.shape[1])
        return np.linalg.cholesky(np.linalg.inv(lifted)).transpose(0, 2, 1)


def _statistics(
    model: Any, convolutions: list[Any], crops: np.ndarray, input_name: str
) -> dict[str, tuple[np.ndarray, list[np.ndarray]]]:
    """Of what each convolution multiplies by its weights: mean ``(G, K)`` and covariances as for :func:`round_rows`."""
    import onnx
    import onnxruntime

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    names = sorted({node.input[0] for node in convolutions})
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    sums: dict[str, _Sums] = {node.name: _Sums() for node in convolutions}
    for crop in crops:
        computed = cast("list[np.ndarray]", session.run(names, {input_name: crop[None]}))  # sparse ones: none
        values = dict(zip(names, computed, strict=True))
        for node in convolutions:
            sums[node.name].add(_patches(values[node.input[0]][0], node, rng))
    return {name: of.figures() for name, of in sums.items()}


def _patches(features: np.ndarray, node: Any, rng: np.random.Generator) -> np.ndarray:
    """What a convolution multiplies by its weights at some places of ``(C, H, W)``: ``(P, G, K)``."""
    top, left, bottom, right = _attribute(node, "pads", [0, 0, 0, 0])
    (rows, columns), (down, across) = _attribute(node, "dilations", [1, 1]), _attribute(node, "strides", [1, 1])
    height, width = _attribute(node, "kernel_shape", [1, 1])
    padded = np.pad(features, ((0, 0), (top, bottom), (left, right)))
    window = ((height - 1) * rows + 1, (width - 1) * columns + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(1, 2))[
        :, ::down, ::across, ::rows, ::columns
    ]
    _, tall, wide, *_ = windows.shape
    places = rng.permutation(tall * wide)[:_POSITIONS]
    chosen = windows[:, places // wide, places % wide]  # (C, P, kernel height, kernel width)
    return np.moveaxis(chosen, 1, 0).reshape(len(places), _attribute(node, "group", 1), -1)


class _Sums:
    """What mean and covariances of patches are made of, added up face by face."""

    def __init__(self) -> None:
        self.count = 0
        self.first: Any = 0.0  # (G, K)
        self.second: list[Any] = []  # block after block, (G or 1, k, k)

    def add(self, patches: np.ndarray) -> None:
        count, groups, size = patches.shape
        self.count += count
        self.first = self.first + patches.sum(axis=0, dtype=np.float64)
        self.second = self.second or [0.0] * len(range(0, size, _BLOCK))
        by_group = np.moveaxis(patches, 1, 0)
        if size > _OWN:
            by_group = by_group.reshape(1, groups * count, size)
        for index, start in enumerate(range(0, size, _BLOCK)):
            part = by_group[:, :, start : start + _BLOCK]
            self.second[index] = self.second[index] + (part.transpose(0, 2, 1) @ part).astype(np.float64)

    def figures(self) -> tuple[np.ndarray, list[np.ndarray]]:
        mean = self.first / self.count
        covariances = []
        for index, second in enumerate(self.second):
            part = mean[:, index * _BLOCK : (index + 1) * _BLOCK]
            squares = part[:, :, None] * part[:, None, :]
            if len(second) < len(part):
                second, squares = second / len(part), squares.mean(axis=0, keepdims=True)
            covariance = second / self.count - squares
            damping = _DAMPING * np.einsum("gkk->g", covariance), _EXACT * np.einsum("gkk->g", second) / self.count
            damping = np.maximum(np.maximum(*damping) / covariance.shape[1], 1e-9)
            covariances.append(covariance + damping[:, None, None] * np.eye(covariance.shape[1]))
        return mean, covariances


def _attribute(node: Any, name: str, default: Any) -> Any:
    import onnx

    return next((onnx.helper.get_attribute_value(found) for found in node.attribute if found.name == name), default)


def _give(quantized: Any, node: Any, index: int, before: Any, values: np.ndarray, steps: np.ndarray) -> None:
    """Let a node read new whole numbers and steps in place of those of ``before``, which others may go on reading."""
    import onnx
    from onnx import numpy_helper

    name = f"{node.name}_{index}"
    kind = np.int8 if index == 1 else np.int32
    zero = np.zeros(np.shape(steps), kind)
    tensors = {"whole": values.astype(kind), "step": np.float32(steps), "zero": zero}
    for part, tensor in tensors.items():
        quantized.graph.initializer.append(numpy_helper.from_array(np.asarray(tensor), f"{name}_{part}"))
    scaled = onnx.NodeProto()
    scaled.CopyFrom(before)
    scaled.name = name
    del scaled.input[:], scaled.output[:]
    scaled.input.extend(f"{name}_{part}" for part in tensors)
    scaled.output.append(f"{name}_scaled")
    node.input[index] = f"{name}_scaled"
    quantized.graph.node.insert(0, scaled)


def _forget_unused(graph: Any) -> None:
    """Leave out what no node reads any more."""
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in [node for node in graph.node if not read & set(node.output)]:
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
