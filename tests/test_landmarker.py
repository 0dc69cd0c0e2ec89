"""FaceLandmarker with networks whose answer is known, so that every returned pixel can be checked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from test_many_photos import LAYOUT as SPOT
from test_many_photos import BrightSpot

from pipnet.geometry import crop_of_square, crop_squares, turned
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.inference.runtimes import choose_device
from pipnet.layouts import PointLayout, get_layout
from pipnet.model import checkpoint

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = PointLayout("three", 3, mirror=(1, 0, 2), norm_pair=(0, 1))
POINTS_UNIT = np.array([[0.25, 0.5], [0.75, 0.5], [0.5, 1.25]])  # the last one lies below the crop


class Fixed:
    """A network that answers the same points on every crop, and keeps what it was shown."""

    input_size = 32

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.seen.append(crops.copy())
        count = len(crops)
        return np.tile(POINTS_UNIT, (count, 1, 1)), np.tile([0.1, 0.5, 0.9], (count, 1)), np.full(count, 0.7)


def never(image: np.ndarray) -> Detections:
    raise AssertionError("the detector ran although boxes were given")


def landmarker_of(net: object, detector: object = never, layout: PointLayout = LAYOUT, crop_scale: float = 1.25):
    return FaceLandmarker(net, layout=layout, crop_scale=crop_scale, detector=detector)


def spot_landmarker(crop_scale: float = 1.25) -> FaceLandmarker:
    """Finds the centre of what is bright in a crop: its answer depends on the pixels, as a real network's does."""
    net = BrightSpot()
    net.input_size = 64
    return landmarker_of(net, layout=SPOT, crop_scale=crop_scale)


@pytest.fixture
def net() -> Fixed:
    return Fixed()


@pytest.fixture
def landmarker(net) -> FaceLandmarker:
    return landmarker_of(net)


@pytest.fixture
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        # Box 40 x 20 around (50, 40): square of side 50, from (25, 15).
        ([30, 30, 70, 50], [[37.5, 40], [62.5, 40], [50, 77.5]]),
        # Taller than wide: the longer side counts.
        ([40, 20, 60, 60], [[37.5, 40], [62.5, 40], [50, 77.5]]),
        # Partly outside the photo, top left: square of side 50 around (0, 0).
        ([-20, -20, 20, 20], [[-12.5, 0], [12.5, 0], [0, 37.5]]),
        # Around the last pixel, bottom right.
        ([79, 49, 159, 129], [[94, 89], [144, 89], [119, 164]]),
        # Larger than the photo.
        ([-100, -100, 300, 300], [[-25, 100], [225, 100], [100, 475]]),
    ],
)
def test_points_by_hand(landmarker, photo, box, expected):
    faces = landmarker(photo, boxes=np.array(box))
    assert faces.points.dtype == np.float32
    np.testing.assert_allclose(faces.points, [expected], atol=1e-4)
    np.testing.assert_allclose(faces.scores, [[0.1, 0.5, 0.9]], atol=1e-7)
    np.testing.assert_array_equal(faces.boxes, [box])
    assert faces.layout is LAYOUT


@pytest.mark.parametrize("side", [12, 25.6, 50, 51.2, 100, 203, 411])
def test_a_spot_in_the_photo_is_named_by_its_own_pixel(side):
    landmarker = spot_landmarker(crop_scale=1.0)
    rng = np.random.default_rng(0)
    reach = max(round(side / 16), 2)
    errors = []
    for _ in range(30):
        x, y = rng.integers(70, 130, size=2)
        photo = np.zeros((240, 300, 3), dtype=np.uint8)
        photo[y - reach : y + reach + 1, x - reach : x + reach + 1] = 200
        centre = np.add([x, y], rng.uniform(-side / 9, side / 9, size=2))
        faces = landmarker(photo, boxes=np.concatenate([centre - side / 2, centre + side / 2]))
        errors.append((faces.points[0, 0] - [x, y]) / side * 64)  # crop pixels
    # A hard-edged spot is sampled a little unevenly, to one side or the other; a lost half pixel is 0.5 to one side.
    assert np.abs(errors).max() < 0.2
    assert np.abs(np.mean(errors, axis=0)).max() < 0.03


def test_network_sees_rgb_crops_in_one_batch(landmarker, net, photo):
    boxes = np.array([[10, 10, 40, 40], [-10, 20, 30, 60], [60.5, 30.25, 100, 80]])
    landmarker(photo, boxes=boxes)
    assert len(net.seen) == 1
    crops = net.seen[0]
    assert crops.dtype == np.uint8
    assert crops.shape == (3, 32, 32, 3)
    for crop, square in zip(crops, crop_squares(boxes, 1.25), strict=True):
        np.testing.assert_array_equal(crop, crop_of_square(square, 32).warp(photo))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 32])
def test_predict_batch_is_the_same_as_one_by_one(photo, batch_size):
    landmarker = spot_landmarker()
    images = [photo, photo[::-1], photo[:50, :70], np.roll(photo, 9, axis=1), photo[:, ::-1]]
    boxes = [np.array([5.0 * i, 3.0, 5.0 * i + 40, 50]) for i in range(5)]
    faces = landmarker.predict_batch(images, boxes, batch_size=batch_size)
    assert faces.points.shape == (5, 1, 2)
    assert faces.scores.shape == (5, 1)
    for i in range(5):
        alone = landmarker(np.ascontiguousarray(images[i]), boxes=boxes[i])
        np.testing.assert_allclose(faces.points[i], alone.points[0], atol=1e-4)


def test_predict_batch_of_nothing_and_of_wrong_lengths(landmarker, photo):
    nothing = landmarker.predict_batch([], [])
    assert nothing.points.shape == (0, 3, 2)
    assert nothing.scores.shape == (0, 3)
    with pytest.raises(ValueError, match="1 photos and 2 boxes"):
        landmarker.predict_batch([photo], np.ones((2, 4)))
    with pytest.raises(ValueError, match="batch_size"):
        landmarker.predict_batch([photo], np.array([[1, 1, 2, 2]]), batch_size=0)


@pytest.mark.parametrize("boxes", [np.zeros((0, 4)), [], np.zeros(0)])
def test_no_box_is_an_empty_result(landmarker, net, photo, boxes):
    faces = landmarker(photo, boxes=boxes)
    assert len(faces) == 0
    assert faces.points.shape == (0, 3, 2)
    assert net.seen == []


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 2, 3]], r"shape \(F, 4\) or \(4,\), got \(1, 3\)"),
        (np.ones((2, 2, 4)), "got"),
        ([[10, 10, 20, 20], [10, 10, np.nan, 20]], r"box 1 .*nan"),
        ([10, 10, 10, 10], "box 0"),
        ([20, 10, 10, 40], "x0 < x1"),
        ([20, 10, 20, 40], "box 0 .* is no box; .* x0 < x1 and y0 < y1"),  # no width
        ([[0, 0, 9, 9], [20, 40, 30, 40]], "box 1 .* is no box; .* x0 < x1 and y0 < y1"),  # no height
        ("face", "must be numbers"),
        ([[1, 2, 3, 4], [1, 2]], "must be numbers"),
    ],
)
def test_wrong_boxes_are_named(landmarker, photo, boxes, message):
    with pytest.raises(ValueError, match=message):
        landmarker(photo, boxes=boxes)


def test_detector_is_built_once_and_only_when_needed(net, photo, monkeypatch):
    built = []

    def build():
        built.append(1)
        return lambda image: Detections([[10, 10, 20, 20], [30, 30, 50, 50]], [0.7, 0.9])

    monkeypatch.setitem(sys.modules["pipnet.inference.detectors"].DETECTORS, "counted", build)
    landmarker = landmarker_of(net, detector="counted")
    landmarker(photo, boxes=[1, 1, 9, 9])
    landmarker.predict_batch([photo], [np.array([1, 1, 9, 9])])
    assert built == []
    faces = landmarker(photo)
    landmarker(photo)
    assert built == [1]
    np.testing.assert_array_equal(faces.boxes, [[30, 30, 50, 50], [10, 10, 20, 20]])  # best first
    np.testing.assert_allclose(faces.points[:, 2], [[40, 40 + 0.75 * 25], [15, 15 + 0.75 * 12.5]], atol=1e-4)
    with pytest.raises(ValueError, match="no face detector 'haar'"):
        landmarker_of(net, detector="haar")


def test_a_detectors_box_without_width_is_refused_and_labels_on_a_line_are_not(net, photo):
    flat = landmarker_of(net, detector=lambda image: Detections([[20, 10, 20, 40]], [0.9]))
    with pytest.raises(ValueError, match=r"box 0 .* is no box"):
        flat(photo)
    assert len(flat.predict_batch([photo], [np.array([20.0, 10.0, 20.0, 40.0])])) == 1


def test_an_error_of_ones_own_detector_arrives_as_itself(net, photo):
    """With its type and its traceback, of one photo and of many; a ValueError of two arguments among them."""

    def decodes(image):
        b"\xff".decode("ascii")

    def stops(image):
        raise LookupError("no model")

    for detector, kind in ((decodes, UnicodeDecodeError), (stops, LookupError)):
        landmarker = landmarker_of(net, detector=detector)
        for images, notes in ((photo, []), ([photo, photo], ["photo 0"])):
            with pytest.raises(kind) as caught:
                landmarker(images)
            assert type(caught.value) is kind
            assert caught.traceback[-1].name == detector.__name__
            assert getattr(caught.value, "__notes__", []) == notes


def test_real_detector_feeds_the_network_and_says_whose_points_it_is_fitted_to(net):
    landmarker = landmarker_of(net, detector="retinaface")
    with pytest.warns(UserWarning, match=r"fitted to the points of 300w_68 and wflw_98, not of 'three'"):
        faces, none = landmarker(astronaut()), landmarker(np.zeros((100, 100, 3), dtype=np.uint8))
    assert (len(faces), len(none), none.points.shape) == (1, 0, (0, 3, 2))
    x0, y0, x1, y1 = faces.boxes[0]
    aside = turned(np.array([-0.25 * 1.25 * (x1 - x0), 0.0]), faces.angles[0])  # this box is wider than tall
    middle = np.array([x0 + x1, y0 + y1]) / 2
    np.testing.assert_allclose(faces.points[0, 0], middle + aside, atol=1e-3)
    assert 1 < abs(faces.angles[0]) < 15  # the portrait's head is tilted a little


def test_load_rebuilds_what_was_saved(small_model, small_weights, photo):
    landmarker = FaceLandmarker.load(small_weights, device="cpu")
    assert landmarker.layout == get_layout("300w_68")
    box = np.array([30.0, 20, 90, 70])
    faces = landmarker(photo, boxes=box, angles=0)  # this network has learnt nothing, and would be asked again
    crop = crop_of_square(crop_squares(box[None], 1.25)[0], 64)
    predicted = small_model.net.predict(torch.from_numpy(crop.warp(photo)).permute(2, 0, 1)[None].contiguous())
    np.testing.assert_allclose(faces.points[0], crop.from_unit(predicted.points_unit[0].double().numpy()), atol=1e-2)
    np.testing.assert_allclose(faces.scores, predicted.scores, atol=1e-4)
    again = FaceLandmarker.from_model(checkpoint.load(small_weights))(photo, boxes=box, angles=0)
    np.testing.assert_array_equal(again.points, faces.points)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match="no device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(ValueError, match="CUDA devices; use 'cpu'"):
        choose_device("cuda:99")
    with pytest.raises(ValueError, match=r"device 'meta' can't be used here \(.+\); use 'auto', 'cpu' or 'cuda'"):
        choose_device("meta")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_points(small_weights, photo):
    boxes = np.array([[30.0, 20, 90, 70], [0, 0, 50, 50]])
    cpu, cuda = (FaceLandmarker.load(small_weights, device=name)(photo, boxes=boxes) for name in ("cpu", "cuda"))
    np.testing.assert_allclose(cpu.points, cuda.points, atol=0.05)


def test_a_box_far_larger_than_the_photo_is_answered(landmarker):
    faces = landmarker(np.zeros((40, 50, 3), dtype=np.uint8), boxes=[-1e9, -1e9, 1e9, 1e9])
    assert np.isfinite(faces.points).all()
