"""Readers of a user's own set (CSV, COCO-keypoints JSON) with a YAML layout."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from pipnet.data.datasets import read_dataset
from pipnet.data.images import BadSampleError
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
    with pytest.raises(ValueError, match=r"no face to use; .*splits.val=trainval splits.train=trainval"):
        read_csv(own, layout, [HEADER, "a.jpg,1,2,3,4,5,6", "a.jpg,1,2,3,4,5,6"], validation="only")


BOX = "name,box_x0,box_y0,box_x1,box_y1"
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
    "a.jpg,1,2,3,4,5,6,one,,,,": r"line 3: the name 'one' stands on an earlier line too",
    "a.jpg,1,2,3,4,5,6,two,1,2,3,": r"line 3: some of the four box cells are empty",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_bad_csv_line(own, layout, line):
    lines = [HEADER, "face_8.jpg,1,2,3,4,5,6", line, "face_9.jpg,1,2,3,4,5,6"]
    if line.count(",") > 10:
        lines = [f"{HEADER},{BOX}", f"{lines[1]},one,,,,", line, f"{lines[3]},three,,,,"]
    with pytest.raises(BadSampleError, match=BAD_LINES[line]):
        read_csv(own, layout, lines)
    samples, bad = read_csv(own, layout, lines, on_bad="skip")
    assert [s.image.name for s in samples] == ["face_8.jpg", "face_9.jpg"]
    assert len(bad) == 1


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
    for folder in ("lists", "photos"):
        (own / folder).mkdir()
    (own / "lists" / "train.csv").write_text(f"{HEADER}\na.jpg,1,2,3,4,5,6\n")
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
        *(
            (text, "not COCO keypoints; needs 'images'")
            for text in ("[]", '{"images": [{"id": 1}], "annotations": []}')
        ),
        ('{"images": [], "annotations": [3]}', "not COCO keypoints"),
    ],
)
def test_no_coco_file(own, layout, content, message):
    with pytest.raises(ValueError, match=message):
        read_coco(own, layout, content)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_of_spreadsheets(own, layout, delimiter):
    """What Excel writes in half of Europe, and as "Unicode text"."""
    text = f"{HEADER},subset\r\na.jpg,1,2,3.5,4,5,6,indoor\r\n".replace(",", delimiter)
    (own / "labels.csv").write_bytes(text.encode("utf-16"))
    samples, bad = read_dataset("csv", root=own, layout=layout)
    assert (samples[0].points[1].tolist(), samples[0].subsets, len(bad)) == ([3.5, 4.0], ("indoor",), 0)
    (own / "labels.csv").write_text(text.replace("3.5", "3,5"))
    with pytest.raises(BadSampleError, match=r"line 2, column x1: '3,5' is not a number, a decimal comma must be a p"):
        read_dataset("csv", root=own, layout=layout)
    (own / "labels.csv").write_bytes(f"{HEADER}\na.jpg,1,2,3,4,5,6\né.jpg,1,2,3,4,5,6\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"labels\.csv, line 3: byte 0xE9 is no UTF-8"):
        read_dataset("csv", root=own, layout=layout, on_bad="skip")


def test_csv_loses_one_line_to_an_open_quote(own, layout):
    lines = [HEADER, *(f"{name},1,2,3,4,5,6" for name in ("a.jpg", '"face_8.jpg', "face_9.jpg", "a.jpg"))]
    samples, bad = read_csv(own, layout, lines, on_bad="skip")
    assert [sample.name for sample in samples] == ["a.jpg", "face_9.jpg", "a.jpg#2"]
    assert len(bad) == 1
    assert "labels.csv, line 3: a quote" in bad.reasons[0]
    for part in ("only", "exclude"):  # nobody knows which photo the line is of
        assert "line 3" in read_csv(own, layout, lines, on_bad="skip", validation=part)[1].reasons[0]


@pytest.mark.parametrize("point", ["1e9,2", "1,-1e9", "-200,2", "1,250"])
def test_a_point_far_outside_its_photo(own, layout, point):
    """The photos have 50 pixels a side."""
    lines = [HEADER, f"a.jpg,{point},3,4,5,6", "face_8.jpg,-20,2,3,70,5,6"]
    samples, bad = read_csv(own, layout, lines, on_bad="skip")
    assert [sample.name for sample in samples] == ["face_8.jpg"]
    assert "line 2: point 0, " in bad.reasons[0]
    assert "lies more than 3 times the size of the photo (50 x 50) outside it; correct it" in bad.reasons[0]
    content = coco([{"id": 1, "image_id": 5, "keypoints": [*map(float, point.split(",")), 2, *KEYPOINTS[3:]]}])
    with pytest.raises(BadSampleError, match=r"annotation 1: point 0, .* outside it"):
        read_coco(own, layout, content)
    content = coco([{"id": 1, "image_id": 5, "keypoints": KEYPOINTS, "bbox": [0, 0, 1e9, 1]}])
    with pytest.raises(BadSampleError, match=r"annotation 1: a corner of the face box, 1000000000, 1, .* outside it"):
        read_coco(own, layout, content, box="rectangle")


def test_coco_triples_and_file_names_with_their_folder(own, layout):
    (own / "images").mkdir()
    (own / "face_8.jpg").rename(own / "images" / "face_8.jpg")
    for name in ("images/face_8.jpg", "images\\face_8.jpg", "face_8.jpg"):
        triples = np.reshape(KEYPOINTS, (3, 3)).tolist()
        content = coco([{"id": 1, "image_id": 5, "keypoints": triples}], [{"id": 5, "file_name": name}])
        (own / "annotations.json").write_text(json.dumps(content))
        samples, _ = read_dataset("coco", root=own, layout=layout)
        assert samples[0].image.samefile(own / "images" / "face_8.jpg")
        np.testing.assert_array_equal(samples[0].points, [[1, 2], [30, 4], [np.nan, np.nan]])
    samples, _ = read_csv(own, layout, [HEADER, "images\\face_8.jpg,1,2,3,4,5,6"])
    assert samples[0].image.samefile(own / "images" / "face_8.jpg")


def faces(*ids, **more):
    return [{"id": number, "image_id": 5, "keypoints": KEYPOINTS, **more} for number in ids]


def test_coco_ids_that_stand_twice(own, layout):
    named = ((5, "face_8.jpg"), (5, "face_9.jpg"), (6, "a.jpg"))
    twice = [{"id": number, "file_name": name} for number, name in named]
    content = coco([*faces(1, 2), *faces(3, image_id=6)], twice)
    with pytest.raises(BadSampleError, match=r"annotation 1: image_id 5 stands twice in images, for face_8.jpg and fa"):
        read_coco(own, layout, content)
    samples, bad = read_coco(own, layout, content, on_bad="skip")
    assert ([sample.name for sample in samples], len(bad)) == (["a.jpg#3"], 2)
    assert len(read_coco(own, layout, coco(faces(1), [twice[0], twice[0]]))[0]) == 1  # the same photo, said twice
    with pytest.raises(BadSampleError, match=r"annotation 7: the id stands on an earlier annotation too"):
        read_coco(own, layout, coco(faces(7, 8, 7)))
    for odd in ([5], {"id": 5}, None, True):
        with pytest.raises(BadSampleError, match=r"annotation 1: image_id .* is not in images"):
            read_coco(own, layout, coco(faces(1, image_id=odd)))


@pytest.fixture
def named(tmp_path):
    path = tmp_path / "named.yaml"
    path.write_text("name: three\nnum_points: 3\nmirror_pairs: [[0, 1]]\nnames: [left, right, nose]\n")
    return get_layout(path)


def category(*names, number=1, name="face"):
    return {"id": number, "name": name, "keypoints": list(names)}


def test_coco_points_go_by_their_names(own, layout, named, caplog):
    content = coco(faces(1, category_id=1)) | {"categories": [category("nose", "left", "right")]}
    samples, _ = read_coco(own, named, content)
    np.testing.assert_array_equal(samples[0].points, [[30, 4], [np.nan, np.nan], [1, 2]])
    assert samples[0].occluded.tolist() == [True, False, False]
    assert "in another order than in layout three, read by name: left 0 from 1, right 1 from 2, nose 2 from 0" in (
        caplog.text
    )
    caplog.clear()
    for categories in ([category("left", "right", "nose")], [category()], [], None):
        samples, _ = read_coco(own, named, content | {"categories": categories})
        np.testing.assert_array_equal(samples[0].points[0], [1, 2])
    assert caplog.text == ""
    for names in (("left", "right", "mouth"), ("left", "left", "nose"), ("left", "right")):
        with pytest.raises(ValueError, match=r"annotations.json: its keypoints are called left, .*three has other"):
            read_coco(own, named, content | {"categories": [category(*names)]})
    # A layout without names of its own can't contradict those of the file.
    assert len(read_coco(own, layout, content)[0]) == 1


def test_coco_other_categories_are_counted_and_left_aside(own, layout, named, caplog):
    annotations = [*faces(1, category_id=1), *faces(2, 3, category_id=2), *faces(4, category_id=3)]
    kinds = [category(*"abc"), category(*"xyz", number=2, name="dog"), category(number=3, name="hat")]
    content = coco(annotations) | {"categories": kinds}
    samples, bad = read_coco(own, layout, content)
    assert ([sample.name for sample in samples], len(bad)) == (["face_8.jpg#1"], 0)
    assert "other categories than face are left aside: 2 of dog, 1 of hat" in caplog.text
    dogs, _ = read_coco(own, layout, content, category="dog")
    assert [sample.name for sample in dogs] == ["face_8.jpg#2", "face_8.jpg#3"]
    with pytest.raises(ValueError, match=r"are the faces\? There are: face, dog, hat; set category: NAME"):
        read_coco(own, layout, content, category="cat")
    kinds[0]["name"] = "kid"
    with pytest.raises(ValueError, match=r"which category are the faces\? There are: kid, dog, hat"):
        read_coco(own, layout, content)
    kinds[1]["keypoints"] = ["right", "left", "nose"]  # the names decide
    assert [sample.name for sample in read_coco(own, named, content)[0]] == ["face_8.jpg#2", "face_8.jpg#3"]
    with pytest.raises(BadSampleError, match=r"annotation 9: category_id 4 is not in categories"):
        read_coco(own, layout, coco(faces(9, category_id=4)) | {"categories": kinds[:1]})
    with pytest.raises(BadSampleError, match=r"annotation 9: category_id None is not in categories"):
        read_coco(own, layout, coco(faces(9)) | {"categories": kinds}, category="kid")
    with pytest.raises(ValueError, match=r"category id 1 stands twice"):
        read_coco(own, layout, coco(faces(9)) | {"categories": [kinds[0], {**kinds[1], "id": 1}]})


def test_coco_photos_of_another_size(own, layout):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (60, 40)).save(own / "face_9.jpg", exif=turned)

    def read(width, height):
        images = [{"id": 5, "file_name": "face_9.jpg", "width": width, "height": height}]
        return read_coco(own, layout, coco(faces(1), images), on_bad="skip")

    assert len(read(40, 60)[0]) == len(read(None, 60)[0]) == len(read(0, 0)[0]) == 1
    with pytest.raises(ValueError, match=r"annotation 1: images says 100 x 100, .*face_9.jpg has 40 x 60 px: resized"):
        read(100, 100)
    with pytest.raises(
        ValueError, match=r"images says 60 x 40, .* has 40 x 60 px when its EXIF orientation has turned"
    ):
        read(60, 40)
    Image.new("RGB", (60, 40)).save(own / "face_9.jpg")
    with pytest.raises(ValueError, match=r"images says 40 x 60, .*face_9.jpg has 60 x 40 px: resized or replaced"):
        read(40, 60)


@pytest.mark.parametrize("names", [["a.jpg", "face_8.jpg"], ["face_9.jpg", "face_9b.jpg"], ["a.jpg", "face_9.jpg"]])
def test_neither_part_of_a_small_set_is_empty(own, layout, names):
    (own / "face_9b.jpg").write_bytes((own / "a.jpg").read_bytes())
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, 5)]
    content = coco([*faces(1), *faces(2, image_id=6)], images)
    for read, what in ((read_csv, [HEADER, *(f"{name},1,2,3,4,5,6" for name in names)]), (read_coco, content)):
        parts = [read(own, layout, what, validation=part)[0] for part in ("exclude", "only")]
        assert [len(part) for part in parts] == [1, 1]
        assert {sample.image.name for part in parts for sample in part} == set(names)
