"""Which detections are kept, how sharp a face is, and how it is cut out."""

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from pipnet.self_training.face_store import FaceStore, FoundFace, FoundPhoto
from pipnet.self_training.ingest import FaceRules, cut_face, share_inside, sharpness

FACE = np.array([175.3, 86.9, 274.5, 177.1])
GOOD = {"score": 0.95, "size": 60.0, "inside": 0.9, "sharpness": 12.0}


def test_a_good_face_is_kept_and_each_rule_drops_for_its_own_reason(tmp_path):
    bad = {"score": 0.7, "size": 31.9, "inside": 0.6, "sharpness": 2.0}
    box, store = (0.0, 0.0, 9.0, 9.0), FaceStore(tmp_path, {})

    def counted(number, figures, rules):
        photo = FoundPhoto("a.jpg", (99, 99), [FoundFace(box, crop_box=box, **figures)])
        store.add(f"{number:032x}", photo, [np.zeros((9, 9, 3), np.uint8)])
        token = store.begin()
        store.meet(token, [f"{number:032x}"])
        counts, _ = store.choose(token, rules.limits, tmp_path / "damaged.txt")
        return [reason for reason, count in {"": counts["kept"], **counts["dropped"]}.items() if count]

    assert counted(0, GOOD, FaceRules()) == [""]
    for number, (name, reason) in enumerate(zip(bad, FaceRules().limits, strict=True), 1):
        assert counted(number, {**GOOD, name: bad[name]}, FaceRules()) == [reason]
    assert counted(5, bad, FaceRules()) == ["unsure"]  # the first counts, so that the counts add up
    assert counted(6, dict.fromkeys(bad, 0.0), FaceRules(0, 0, 0, 0)) == [""]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_score", 1.1),
        ("min_inside", -0.1),
        ("min_size", -1),
        ("min_sharpness", float("nan")),
        ("min_size", "large"),
        ("min_score", None),
    ],
)
def test_a_rule_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"rules\.{name} must be .*, got"):
        FaceRules(**{name: value})


def test_sharpness_compares_across_sizes_of_the_photo():
    """The same face twice as large has the same detail for its size; enlarged from a smear it has none."""
    photo = astronaut()
    double = cv2.resize(photo, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert sharpness(double, FACE * 2 + 0.5) == pytest.approx(sharpness(photo, FACE), rel=0.15)
    small = cv2.resize(photo, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA)
    enlarged = cv2.resize(small, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    assert sharpness(enlarged, FACE) < sharpness(photo, FACE) / 4


def test_the_default_tells_a_face_from_a_smear_and_from_the_dark():
    photo = astronaut()
    least = FaceRules().min_sharpness
    assert sharpness(photo, FACE) > 3 * least
    assert sharpness(cv2.GaussianBlur(photo, (0, 0), 8), FACE) < least
    assert sharpness((photo * 0.03).astype(np.uint8), FACE) < least


def test_boxes_at_the_border():
    photo = astronaut()
    assert sharpness(photo, np.array([-50.0, -50, 40, 40])) > 0
    assert sharpness(photo, np.array([600.0, 10, 700, 90])) == 0
    whole = np.array([-0.5, -0.5, 9.5, 4.5])
    assert [share_inside(box, width, 5) for box, width in ((whole, 10), (whole, 5), (whole + 100, 10))] == [1, 0.5, 0]


@pytest.mark.parametrize("at", [(100.0, 90.0), (3.2, 5.7), (198.6, 150.1)])
@pytest.mark.parametrize("face_size", [20, 50, 224])
def test_the_box_marks_the_same_spot_in_the_crop(at, face_size):
    height, width = 180, 240
    y, x = np.mgrid[:height, :width]
    spot = 250 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 4.0**2))
    image = np.repeat(spot.round().astype(np.uint8)[..., None], 3, axis=2)
    box = np.array([at[0] - 36, at[1] - 29, at[0] + 36, at[1] + 29])
    crop, crop_box = cut_face(image, box, face_size)
    expected = (np.array(crop_box)[:2] + np.array(crop_box)[2:]) / 2
    columns, rows = crop[..., 0].sum(axis=0).astype(float), crop[..., 0].sum(axis=1).astype(float)
    found = [
        (columns * np.arange(len(columns))).sum() / columns.sum(),
        (rows * np.arange(len(rows))).sum() / rows.sum(),
    ]
    if min(at[0], at[1]) > 20 and at[0] < 220:  # where the spot itself is not cut
        assert found == pytest.approx(expected.tolist(), abs=0.1)
    peak = np.unravel_index(crop[..., 0].argmax(), crop.shape[:2])
    assert abs(peak[1] - expected[0]) <= 1
    assert abs(peak[0] - expected[1]) <= 1
    longer = crop_box[2] - crop_box[0]
    assert longer == pytest.approx(min(72, face_size), rel=0.03)


def test_a_crop_holds_the_surroundings_and_ends_at_the_border():
    image = np.zeros((400, 400, 3), np.uint8)
    crop, _ = cut_face(image, np.array([150.0, 150, 250, 240]), 224)
    assert crop.shape[:2] == (191, 191)
    crop, box = cut_face(image, np.array([-20.0, 350, 60, 430]), 224)
    assert crop.shape[:2] == (86, 97)
    assert box == pytest.approx((-20, 350 - 314, 60, 430 - 314))
    crop, _ = cut_face(image, np.array([900.0, 900, 950, 950]), 224)  # nothing of it in the photo: still a picture
    assert crop.size > 0
