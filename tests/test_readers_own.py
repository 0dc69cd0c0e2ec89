"""Readers of a user's own set (CSV, COCO-keypoints JSON) with a YAML layout."""

import json

import cv2
import numpy as np
import pytest

from pipnet.data.readers import read_dataset
from pipnet.data.sample import BadSampleError
from pipnet.layouts import get_layout

HEADER = "image,x0,y0,x1,y1,x2,y2"


@pytest.fixture
def layout(tmp_path):
    path = tmp_path / "layout.yaml"
    path.write_text("name: three\nnum_points: 3\nmirror_pairs: [[0, 1]]\nnorm_pair: [0, 1]\n")
    return get_layout(path)


@pytest.fixture
def own(tmp_path):
    for name in ("a.jpg", "face_8.jpg", "face_9.jpg"):
        assert cv2.imwrite(str(tmp_path / name), np.zeros((50, 50, 3), np.uint8))
    return tmp_path


def read_csv(root, layout, lines, on_bad="raise", **options):
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_dataset("csv", root=root, layout=layout, on_bad=on_bad, **options)


def test_csv_values(own, layout):
    samples, bad = read_csv(
        own, layout, [HEADER, "a.jpg,1,2,30.5,4,5,6", "face_8.jpg,1,2,,,5,6", "a.jpg,7,8,9,10,11,12"]
    )
    assert [s.name for s in samples] == ["a.jpg", "face_8.jpg", "a.jpg#2"]
    np.testing.assert_array_equal(samples[0].points, [[1, 2], [30.5, 4], [5, 6]])
    np.testing.assert_array_equal(samples[1].points, [[1, 2], [np.nan, np.nan], [5, 6]])
    np.testing.assert_array_equal(samples[1].box, [1, 2, 5, 6])
    assert samples[0].image == own / "a.jpg"
    assert len(bad) == 0


def test_csv_optional_columns_in_any_order_with_bom(own, layout):
    lines = [
        "\ufeffname,subset,box_x0,box_y0,box_x1,box_y1,y0,x0,x1,y1,x2,y2,image",
        "first,smile; night,0,0,40,40,2,1,3,4,5,6,a.jpg",
        ",,,,,,2,1,3,4,5,6,face_8.jpg",
    ]
    first, second = read_csv(own, layout, lines)[0]
    assert (first.name, first.subsets) == ("first", ("smile", "night"))
    assert (second.name, second.subsets) == ("face_8.jpg", ())
    np.testing.assert_array_equal(first.points[0], [1, 2])
    np.testing.assert_array_equal(first.box, [0, 0, 40, 40])
    np.testing.assert_array_equal(second.box, [1, 2, 5, 6])


def test_csv_validation_by_photo(own, layout):
    lines = [HEADER, *(f"{name},1,2,3,4,5,6" for name in ("face_8.jpg", "face_9.jpg", "face_9.jpg"))]
    assert [s.name for s in read_csv(own, layout, lines, validation="only")[0]] == ["face_9.jpg", "face_9.jpg#2"]
    assert [s.name for s in read_csv(own, layout, lines, validation="exclude")[0]] == ["face_8.jpg"]


BAD_LINES = {
    "a.jpg,1,2,abc,4,5,6": r"labels\.csv, line 3, column x1: 'abc' is not a number",
    "a.jpg,1,2,nan,4,5,6": r"line 3, column x1: 'nan' is not a number",
    "a.jpg,1,2,,4,5,6": r"line 3: point 1 has only one coordinate",
    "a.jpg,,,,,,": r"line 3: no point is labelled",
    "a.jpg,1,2,3,4,5": r"line 3: the line has not as many cells as the header",
    "a.jpg,1,2,3,4,5,6,7": r"line 3: the line has not as many cells as the header",
    "none.jpg,1,2,3,4,5,6": r"line 3: no photo .*none\.jpg; correct the image column",
    ",1,2,3,4,5,6": r"line 3: no photo",
    "a.jpg,5,5,5,5,5,5": r"line 3: .*has no extent",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_csv_line(own, layout, line):
    lines = [HEADER, "face_8.jpg,1,2,3,4,5,6", line, "face_9.jpg,1,2,3,4,5,6"]
    with pytest.raises(BadSampleError, match=BAD_LINES[line]):
        read_csv(own, layout, lines)
    samples, bad = read_csv(own, layout, lines, on_bad="skip")
    assert [s.name for s in samples] == ["face_8.jpg", "face_9.jpg"]
    assert len(bad) == 1


def test_csv_name_twice_and_half_a_box(own, layout):
    header = f"{HEADER},name,box_x0,box_y0,box_x1,box_y1"
    lines = [header, "a.jpg,1,2,3,4,5,6,one,,,,", "a.jpg,1,2,3,4,5,6,one,,,,", "a.jpg,1,2,3,4,5,6,two,1,2,3,"]
    _, bad = read_csv(own, layout, lines, on_bad="skip")
    assert "line 3: the name 'one' stands on an earlier line too" in bad.reasons[0]
    assert "line 4: some of the four box cells are empty" in bad.reasons[1]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("image,x0,y0,x1,y1,x2", r"line 1: the header has no column 'y2'; layout 'three' needs image,x0,y0,...,x2,y2"),
        ("a.jpg,1,2,3,4,5,6", "the header has no column 'image'"),
        ("", "the header has no column 'image'"),
        (f"{HEADER},x3,y3", "column 'x3' is not known"),
        (f"{HEADER},x2", "a column stands twice"),
        (f"{HEADER},box_x0", "a box needs four columns"),
    ],
)
def test_csv_header(own, layout, header, message):
    with pytest.raises(ValueError, match=message):
        read_csv(own, layout, [header, "a.jpg,1,2,3,4,5,6"])


def test_csv_file_and_images_elsewhere(own, layout):
    (own / "lists").mkdir()
    (own / "labels.csv").write_text(f"{HEADER}\na.jpg,1,2,3,4,5,6\n")
    (own / "labels.csv").rename(own / "lists" / "train.csv")
    (own / "photos").mkdir()
    (own / "a.jpg").rename(own / "photos" / "a.jpg")
    samples, _ = read_dataset("csv", root=own, layout=layout, file="lists/train.csv", images="photos")
    assert samples[0].image == own / "photos" / "a.jpg"
    with pytest.raises(FileNotFoundError, match=r"labels\.csv does not exist; expected a CSV file with the columns"):
        read_dataset("csv", root=own, layout=layout)


KEYPOINTS = [1, 2, 2, 30, 4, 1, 0, 0, 0]


def coco(annotations, images=({"id": 5, "file_name": "face_8.jpg"}, {"id": 6, "file_name": "face_9.jpg"})):
    return {"images": list(images), "annotations": annotations}


def read_coco(root, layout, content, on_bad="raise", **options):
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "annotations.json").write_text(text)
    return read_dataset("coco", root=root, layout=layout, on_bad=on_bad, images=".", **options)


def test_coco_values(own, layout):
    annotations = [
        {"id": 17, "image_id": 5, "keypoints": KEYPOINTS, "bbox": [0, 1, 40, 20]},
        {"id": 18, "image_id": 6, "keypoints": KEYPOINTS},
    ]
    samples, bad = read_coco(own, layout, coco(annotations))
    assert [s.name for s in samples] == ["face_8.jpg#17", "face_9.jpg#18"]
    np.testing.assert_array_equal(samples[0].points, [[1, 2], [30, 4], [np.nan, np.nan]])
    assert samples[0].occluded.tolist() == [False, True, False]
    np.testing.assert_array_equal(samples[0].box, [1, 2, 30, 4])
    assert samples[0].image == own / "face_8.jpg"
    assert len(bad) == 0
    samples, bad = read_coco(own, layout, coco(annotations), on_bad="skip", box="rectangle")
    np.testing.assert_array_equal(samples[0].box, [0, 1, 40, 21])
    assert "annotation 18: bbox None is not x, y, width, height" in bad.reasons[0]
    assert [s.name for s in read_coco(own, layout, coco(annotations), validation="only")[0]] == ["face_9.jpg#18"]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"keypoints": KEYPOINTS[:-1]}, r"annotation 1: keypoints must be 9 finite numbers .*got 8"),
        ({"keypoints": [*KEYPOINTS[:-1], "x"]}, r"annotation 1: its keypoints are not all numbers"),
        ({"keypoints": [*KEYPOINTS[:-1], 3]}, r"annotation 1: visibility must be 0, 1 or 2"),
        ({"keypoints": [0] * 9}, r"annotation 1: no point is labelled"),
        ({}, r"annotation 1: keypoints must be 9 finite numbers .*got 0"),
        ({"keypoints": KEYPOINTS, "image_id": 7}, r"annotation 1: image_id 7 is not in images"),
        ({"keypoints": KEYPOINTS, "image_id": 8}, r"annotation 1: no photo .*none\.jpg"),
    ],
)
def test_bad_coco_annotation(own, layout, annotation, message):
    good = {"id": 2, "image_id": 5, "keypoints": KEYPOINTS}
    images = [{"id": 5, "file_name": "face_8.jpg"}, {"id": 8, "file_name": "none.jpg"}]
    content = coco([{"id": 1, "image_id": 5, **annotation}, good], images)
    with pytest.raises(BadSampleError, match=rf"annotations\.json, {message}"):
        read_coco(own, layout, content)
    samples, bad = read_coco(own, layout, content, on_bad="skip")
    assert [s.name for s in samples] == ["face_8.jpg#2"]
    assert len(bad) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"images": [', r"annotations\.json: not JSON \(Expecting value: line 1"),
        ("[]", "not COCO keypoints; needs 'images'"),
        ('{"images": [{"id": 1}], "annotations": []}', "not COCO keypoints"),
        ('{"images": [], "annotations": [3]}', "not COCO keypoints"),
    ],
)
def test_no_coco_file(own, layout, content, message):
    with pytest.raises(ValueError, match=message):
        read_coco(own, layout, content)
