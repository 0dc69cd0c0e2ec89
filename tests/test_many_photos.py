"""FaceLandmarker with many photos, several threads, and photos of extreme shapes."""

from __future__ import annotations

import resource
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from pipnet.data.images import BadSampleError
from pipnet.geometry import crop_of_square
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import PointLayout

LAYOUT = PointLayout("spot", 1, mirror=(0,))


class BrightSpot:
    """A network whose answer depends on the pixels of its crop, and which remembers how many crops came together."""

    input_size = 32

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, crops):
        self.batches.append(len(crops))
        weights = crops.astype(np.float64).mean(axis=3) + 1e-9
        centres = (np.arange(self.input_size) + 0.5) / self.input_size
        total = weights.sum(axis=(1, 2))
        x = (weights.sum(axis=1) @ centres) / total
        y = (weights.sum(axis=2) @ centres) / total
        return np.stack([x, y], axis=1)[:, None], weights.max(axis=(1, 2))[:, None] / 256, x


def bright_areas(image):
    """A detector: one box for each grey area."""
    count, _, stats, _ = cv2.connectedComponentsWithStats((image[..., 0] > 100).astype(np.uint8))
    boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:count]]
    return Detections(np.reshape(boxes, (-1, 4)), np.linspace(0.9, 0.5, count - 1))


def photo(faces, seed=0, height=90, width=120):
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for i in range(faces):
        x, y = 5 + 30 * (i % 3), 5 + 28 * (i // 3)
        image[y : y + 20, x : x + 20] = rng.integers(110, 255, (20, 20, 1))
    return image


def landmarker_of(net=None):
    return FaceLandmarker(net or BrightSpot(), layout=LAYOUT, crop_scale=1.25, detector=bright_areas)


def assert_same(a: FaceLandmarks, b: FaceLandmarks):
    for name in ("points", "scores", "boxes", "face_scores"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("kind", [list, tuple, np.stack])
def test_many_photos_are_as_one_by_one(kind):
    photos = [photo(count, seed=count) for count in (2, 0, 1, 5, 0)]
    net = BrightSpot()
    together = landmarker_of(net)(kind(photos))
    assert net.batches == [8]
    assert [len(faces) for faces in together] == [2, 0, 1, 5, 0]
    for faces, one in zip(together, photos, strict=True):
        assert isinstance(faces, FaceLandmarks)
        assert_same(faces, landmarker_of()(one))


def test_photos_of_every_kind_at_once(tmp_path):
    image = photo(3, seed=1)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    deep = image.astype(np.uint16) * 257
    found = landmarker_of()([str(tmp_path / "a.png"), tmp_path / "a.png", image[..., 0], deep, photo(1, height=300)])
    assert [len(faces) for faces in found] == [3, 3, 3, 3, 1]
    for faces in found[1:4]:
        assert_same(faces, found[0])


def test_no_photos_and_no_faces():
    net = BrightSpot()
    assert landmarker_of(net)([]) == []
    assert [len(faces) for faces in landmarker_of(net)([photo(0), photo(0)])] == [0, 0]
    assert net.batches == []


def test_own_boxes_of_many_photos():
    photos = [photo(2, seed=3), photo(1, seed=4), photo(4, seed=5)]
    boxes = [[[5, 5, 25, 25], [35, 5, 55, 25]], None, [5, 5, 25, 25]]
    found = landmarker_of()(photos, boxes=boxes)
    assert [len(faces) for faces in found] == [2, 1, 1]
    for faces, image, box in zip(found, photos, boxes, strict=True):
        assert_same(faces, landmarker_of()(image, boxes=box))
    assert [len(faces) for faces in landmarker_of()(photos, boxes=np.tile([5, 5, 25, 25], (3, 1)))] == [1, 1, 1]
    for wrong, count in ((boxes[:2], "2"), (7, "int")):
        with pytest.raises(ValueError, match=f"one entry of boxes each, got 3 photos and {count} for boxes"):
            landmarker_of()(photos, boxes=wrong)


def test_a_crowd_goes_through_in_batches():
    net = BrightSpot()
    found = landmarker_of(net)([photo(6, seed=i) for i in range(30)])
    assert sum(net.batches) == 180
    assert max(net.batches) <= 64
    assert len(net.batches) <= 5
    for i in (0, 10, 11, 29):
        assert_same(found[i], landmarker_of()(photo(6, seed=i)))


def test_the_photo_that_is_wrong_is_named(tmp_path):
    (tmp_path / "b.jpg").write_bytes(b"no photo")
    with pytest.raises(BadSampleError, match=r"photo 1: .*b\.jpg: not an image"):
        landmarker_of()([photo(1), tmp_path / "b.jpg"])
    with pytest.raises(BadSampleError, match="photo 2: an image must be uint8"):
        landmarker_of()([photo(1), photo(1), photo(1).astype(float)])
    with pytest.raises(BadSampleError, match="photo 0: an image must be a path or a NumPy array, got NoneType"):
        landmarker_of()([None])
    with pytest.raises(ValueError, match=r"photo 1: box 0 .* is no box"):
        landmarker_of()([photo(1), photo(1)], boxes=[None, [9, 9, 1, 1]])


@pytest.mark.parametrize(
    "box", [[0, 0, 1e300, 1e300], [-1e308, 0, 1e308, 5], [0, 0, 1e-300, 1e-300], [0, 0, 5e-324, 0], [1e17, 0, 2e17, 64]]
)
def test_boxes_that_overflow_are_no_boxes(box):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r"box 1 .* is no box; .* in pixels of the photo"):
            landmarker_of()(photo(1), boxes=[[5, 5, 25, 25], box])


def test_a_strip_of_a_million_pixels_takes_no_gigabytes():
    for shape in ((1, 10**6, 3), (10**6, 1, 3)):
        image = np.full(shape, 217, dtype=np.uint8)
        box = [-0.5, -0.5, shape[1] - 0.5, shape[0] - 0.5]
        landmarker = landmarker_of()
        crop = crop_of_square(np.array([(shape[1] - 1) / 2, (shape[0] - 1) / 2, 1e6]), 32).warp(image)
        assert crop.max() == 217
        assert min((crop > 0).any(axis=(axis, 2)).sum() for axis in (0, 1)) <= 2  # a line, not an area
        assert np.isfinite(landmarker(image, boxes=box).points).all()


def test_four_threads_get_what_one_gets(shipped):
    image = astronaut()
    photos = [np.ascontiguousarray(np.roll(image, 8 * i, axis=1)[i : 300 + i]) for i in range(3)]
    serial = [shipped(one) for one in photos]
    assert [len(faces) for faces in serial] == [1] * 3
    shared = FaceLandmarker.load(device="cpu", threads=1)
    barrier = threading.Barrier(4)

    def work(thread):
        barrier.wait(timeout=1200)
        order = np.random.default_rng(thread).permutation(3)
        return {int(i): shared(photos[i]) for i in order}

    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(work, range(4)):
            for i, faces in answers.items():
                assert_same(faces, serial[i])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 3000), (3000, 1), (40_000, 40), (40, 40_000)])
def test_photos_of_extreme_shapes(width, height, shipped):
    image = np.full((height, width, 3), 20, dtype=np.uint8)
    assert len(shipped(image)) in (0, 1, 2)  # nothing to see, and no error
    box = np.array([width / 2 - 10, height / 2 - 10, width / 2 + 10, height / 2 + 10])
    faces = shipped(image, boxes=box)
    assert np.isfinite(faces.points).all()
    assert faces.face_scores[0] < 0.5


def test_a_crop_of_a_photo_wider_than_opencv_warps():
    rng = np.random.default_rng(0)
    narrow = rng.integers(0, 256, (60, 200, 3), dtype=np.uint8)
    wide = np.zeros((60, 40_000, 3), dtype=np.uint8)
    wide[:, 30_000:30_200] = narrow
    for size in (16, 64, 200):
        crop = crop_of_square(np.array([100.3, 30.2, 50.0]), size).warp(narrow)
        moved = crop_of_square(np.array([30_100.3, 30.2, 50.0]), size).warp(wide)
        assert np.abs(crop.astype(int) - moved).max() <= 2  # OpenCV rounds coordinates to 1/32 pixel


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_a_photo_of_12000_pixels_is_read_once(tmp_path, shipped):
    image = np.full((3600, 12_000, 3), 90, dtype=np.uint8)
    portrait = cv2.resize(astronaut(), None, fx=6, fy=6, interpolation=cv2.INTER_AREA)
    image[300:3372, 5000:8072] = portrait
    cv2.imwrite(str(tmp_path / "a.jpg"), image[..., ::-1])
    del image
    small = shipped(astronaut())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faces = shipped(tmp_path / "a.jpg")
    assert len(faces) == 1
    expected = small.points[0] * 6 + 2.5 + [5000, 300]
    assert np.abs(faces.points[0] - expected).mean() < 15  # of 550 pixels
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000
