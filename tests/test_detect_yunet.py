"""The YuNet adapter on networks of YuNet's form, made here, whose boxes are known: no file of OpenCV's zoo was at hand.

The network looks for pure red. A cell's score is the mean of its red channel, its box is 3 x 3.75 cells around its
middle.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipnet.inference.detections import UNCALIBRATED
from pipnet.inference.detectors import YUNET_CALIBRATION, YuNet, detector_factory
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import get_layout

STRIDES = (8, 16, 32)
HEADS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
RED = (255, 0, 0)


def write_network(path: Path, *, side: int | None = None, heads: dict[str, int] = HEADS, flat: bool = True) -> Path:
    """A network of YuNet's form; ``side`` fixes its input in the file, as in the zoo's file of 2023."""
    nodes, weights, outputs = [], [], []
    for stride in STRIDES:
        for name, values in heads.items():
            kernel = np.zeros((values, 3, stride, stride), np.float32)
            bias = np.zeros(values, np.float32)
            if values == 1:
                kernel[:, 2] = 1 / (255 * stride**2)  # OpenCV's third channel is red
            elif name == "bbox":
                bias[:] = [0.5, 0.5, np.log(3.0), np.log(3.75)]
            key = f"{name}_{stride}"
            weights += [numpy_helper.from_array(kernel, f"w_{key}"), numpy_helper.from_array(bias, f"b_{key}")]
            strides = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
            nodes.append(
                helper.make_node("Conv", ["input", f"w_{key}", f"b_{key}"], [f"c_{key}" if flat else key], **strides)
            )
            if flat:
                weights.append(numpy_helper.from_array(np.array([1, -1, values]), f"s_{key}"))
                nodes.append(helper.make_node("Transpose", [f"c_{key}"], [f"t_{key}"], perm=[0, 2, 3, 1]))
                nodes.append(helper.make_node("Reshape", [f"t_{key}", f"s_{key}"], [key]))
            cells = (side // stride) ** 2 if side else f"cells_{stride}"
            shape = [1, cells, values] if flat else [1, values, f"h_{key}", f"w_{key}"]
            outputs.append(helper.make_tensor_value_info(key, TensorProto.FLOAT, shape))
    size = [1, 3, side or "height", side or "width"]
    graph = helper.make_graph(
        nodes, "form", [helper.make_tensor_value_info("input", TensorProto.FLOAT, size)], outputs, weights
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_network(tmp_path_factory.mktemp("yunet") / "form.onnx")


@pytest.fixture(scope="module")
def raw(model) -> YuNet:
    return YuNet(model, calibration=UNCALIBRATED)


def photo(*cells: tuple[int, int, int], size: tuple[int, int] = (320, 240), colour=RED) -> np.ndarray:
    """Black, with cells ``(column, row, stride)`` painted."""
    image = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    for column, row, stride in cells:
        image[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride] = colour
    return image


def box_of(column: int, row: int, stride: int) -> list[float]:
    """What the network says of a cell, in pixel centres."""
    x, y = (column + 0.5) * stride - 0.5, (row + 0.5) * stride - 0.5
    return [x - 1.5 * stride, y - 1.875 * stride, x + 1.5 * stride, y + 1.875 * stride]


@pytest.mark.parametrize("side", [None, 640])
@pytest.mark.parametrize("size", [(320, 240), (100, 70), (33, 600), (640, 640)])
def test_a_known_cell_gives_its_box(tmp_path, side, size):
    """Any size, also where the file was written for one: OpenCV pads to whole cells and fits the network to it."""
    detector = YuNet(write_network(tmp_path / "form.onnx", side=side), calibration=UNCALIBRATED)
    found = detector(photo((2, 4, 8), size=size))
    assert found.scores == pytest.approx([1.0])
    np.testing.assert_allclose(found.boxes, [box_of(2, 4, 8)], atol=1e-3)


def test_colours_come_in_opencvs_order_and_boxes_are_calibrated(model, raw):
    assert len(raw(photo((2, 4, 8), colour=(0, 0, 255)))) == 0
    found = YuNet(model)(photo((2, 4, 8), colour=RED))
    np.testing.assert_allclose(found.boxes, YUNET_CALIBRATION.apply(np.array([box_of(2, 4, 8)])), atol=1e-3)


def test_several_faces_best_first_and_below_the_threshold_none(model, raw):
    image = photo((2, 4, 8)) + photo((30, 20, 8), colour=(200, 0, 0)) + photo((20, 4, 8), colour=(100, 0, 0))
    found = raw(image)
    assert found.scores == pytest.approx([1.0, 200 / 255], abs=1e-4)
    np.testing.assert_allclose(found.boxes, [box_of(2, 4, 8), box_of(30, 20, 8)], atol=1e-3)
    assert len(YuNet(model, score_threshold=0.9)(image)) == 1
    assert len(YuNet(model, score_threshold=0.3)(image)) == 3
    assert len(raw(photo((2, 4, 8)) + photo((3, 4, 8), colour=(250, 0, 0)))) == 1  # neighbouring cells are one face


def test_a_large_photo_is_reduced_and_boxes_come_back(raw):
    """1,280 px are searched at 640: the cell is 16 px there and 8 in the network, its box that of the photo."""
    found = raw(photo((4, 6, 16), size=(1280, 960)))
    np.testing.assert_allclose(found.boxes, [box_of(4, 6, 16)], atol=1e-2)


def test_faces_beyond_300_pixels_come_from_a_smaller_photo(model, raw):
    """A red square of 128 px: cells of 32 px would give boxes of 96; at a quarter of 640 px it is one cell of 32."""
    square = photo((1, 1, 128), size=(640, 640))
    boxes = raw(square).boxes
    assert np.abs(boxes - np.array(box_of(1, 1, 128))).max(axis=1).min() < 0.1
    assert (boxes[:, 2] - boxes[:, 0]).max() == pytest.approx(384, abs=0.1)
    reduced = YuNet(model, max_side=160, calibration=UNCALIBRATED)(square).boxes
    assert np.abs(reduced - np.array(box_of(1, 1, 128))).max(axis=1).min() < 0.1


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 2), (240, 320)])
def test_pictures_without_a_face(raw, shape):
    found = raw(np.zeros((*shape, 3), dtype=np.uint8))
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)


def test_same_result_from_several_threads(raw):
    """OpenCV's object keeps the input size; photos of several sizes at once would trip over each other."""
    pictures = [photo((2 + i % 3, 4, 8), size=(160 + 32 * (i % 4), 120 + 8 * (i % 5))) for i in range(24)]
    alone = [raw(picture).boxes for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = [found.boxes for found in pool.map(raw, pictures)]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "kind", ["text", "empty", "cut off", "old heads", "heads of another shape", "half the heads", "picture"]
)
def test_a_foreign_file_is_one_sentence(tmp_path, model, capfd, kind):
    path = tmp_path / "face.onnx"
    if kind == "text":
        path.write_text("not a model")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut off":
        path.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    elif kind == "old heads":  # the names of the zoo's file of 2022
        write_network(path, heads={"loc": 14, "conf": 2, "iou": 1})
    elif kind == "heads of another shape":  # OpenCV would read past their end
        write_network(path, flat=False)
    elif kind == "half the heads":
        write_network(path, heads={"cls": 1, "bbox": 4})
    else:
        path.write_bytes(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    with pytest.raises(ValueError, match="not a YuNet of 2023 or later, or a damaged file; get ") as caught:
        YuNet(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # OpenCV's own complaints are kept off the terminal


def test_no_file(tmp_path):
    with pytest.raises(ValueError, match="can't be read"):
        YuNet(tmp_path)
    path = tmp_path / "face.onnx"
    with pytest.raises(FileNotFoundError, match=re.escape(f"{path}: no such YuNet file; get face_detection")):
        YuNet(path)


def test_by_name_whatever_the_file_is_called(tmp_path, model):
    path = tmp_path / "gesichter é.model"
    path.write_bytes(model.read_bytes())
    layout = get_layout("300w_68")
    network = SimpleNamespace(input_size=32)
    landmarker = FaceLandmarker(network, layout=layout, crop_scale=1.2, detector=f"yunet:{path}")
    found = landmarker.detector(photo((2, 4, 8)))
    np.testing.assert_allclose(found.boxes, YUNET_CALIBRATION.apply(np.array([box_of(2, 4, 8)])), atol=1e-3)
    with pytest.raises(ValueError, match="'yunet' needs its model file: write 'yunet:FILE'"):
        detector_factory("yunet")
    with pytest.raises(ValueError, match="there are: retinaface, yunet:FILE"):
        detector_factory("retinaface:file")
    with pytest.raises(FileNotFoundError, match="no such YuNet file"):
        detector_factory("yunet:nowhere.onnx")()
