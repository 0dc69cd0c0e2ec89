"""Boxes from files: which photo they are of, both formats, the demo's own, and what is said about bad ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pipnet.inference.detections import Calibration
from pipnet.inference.file_boxes import FileBoxes
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import get_layout

CSV = """image,frame,x0,y0,x1,y1,score
party/a.jpg,,104.5,62,180,151,0.5
party/a.jpg,,310,70,371.5,142,0.9
empty.jpg,,,,,,
clip.mp4,0,1,2,3,4,
clip.mp4,2,5,6,7,8,
"""
JSON = {
    "party/a.jpg": [[104.5, 62, 180, 151, 0.5], [310, 70, 371.5, 142, 0.9]],
    "empty.jpg": [],
    "clip.mp4": {"0": [[1, 2, 3, 4]], "2": [[5, 6, 7, 8]]},
}


def boxes_of(tmp_path: Path, content: str | dict | list, **options: object) -> FileBoxes:
    path = tmp_path / "boxes.txt"  # the content tells the format, not the name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return FileBoxes(path, **options)


def faces_of(boxes: list[list[float]], **options: object) -> FaceLandmarks:
    layout = get_layout("300w_68")
    count = len(boxes)
    return FaceLandmarks(
        np.zeros((count, 68, 2)), np.full((count, 68), 0.25), np.array(boxes).reshape(-1, 4), layout, **options
    )


@pytest.mark.parametrize("content", [CSV, JSON])
def test_both_formats_say_the_same(tmp_path, content):
    boxes = boxes_of(tmp_path, content)
    assert len(boxes) == 3
    found = boxes.of("party/a.jpg")
    assert found.boxes.tolist() == [[310, 70, 371.5, 142], [104.5, 62, 180, 151]]  # best first
    assert found.scores == pytest.approx([0.9, 0.5])
    assert len(boxes.of("empty.jpg")) == 0
    assert boxes.of("clip.mp4", 2).boxes.tolist() == [[5, 6, 7, 8]]
    assert boxes.of("clip.mp4", 2).scores.tolist() == [1.0]
    assert len(boxes.of("clip.mp4", 1)) == 0


def test_columns_in_any_order_and_others_ignored(tmp_path):
    content = "\ufeffnote, x1 ,y1,image,x0,y0\r\nhello,30,60,a.jpg,10,20\r\n"  # as a spreadsheet writes it
    assert boxes_of(tmp_path, content).of("a.jpg").boxes.tolist() == [[10, 20, 30, 60]]


def test_names_fit_by_their_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    boxes = boxes_of(
        tmp_path, {"x/a.jpg": [[0, 0, 1, 1]], "y/a.jpg": [[0, 0, 2, 2]], "/far/away/c.jpg": [[0, 0, 3, 3]]}
    )

    def side(name: str | Path) -> float:
        return float(boxes.of(name).boxes[0, 2])

    assert side("x/a.jpg") == side(tmp_path / "x" / "a.jpg") == side("./x/../x/a.jpg") == side("x\\a.jpg") == 1
    assert side("/elsewhere/y/a.jpg") == 2
    assert side("c.jpg") == side("away/c.jpg") == 3
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path / "x")
    assert side("a.jpg") == 1  # the folder we are in counts
    assert side("../y/a.jpg") == 2
    with pytest.raises(
        ValueError, match=r"no boxes for ax/a.jpg; the file has 'x/a.jpg', 'y/a.jpg', '/far/away/c.jpg'"
    ):
        boxes.of("ax/a.jpg")  # not the end of a folder's name


def test_the_longest_name_wins_and_a_tie_is_an_error(tmp_path):
    boxes = boxes_of(tmp_path, {"a.jpg": [[0, 0, 1, 1]], "x/a.jpg": [[0, 0, 2, 2]]})
    assert boxes.of("/d/x/a.jpg").boxes[0, 2] == 2
    assert boxes.of("/d/y/a.jpg").boxes[0, 2] == 1
    boxes = boxes_of(tmp_path, {"/1/x/a.jpg": [[0, 0, 1, 1]], "/2/x/a.jpg": [[0, 0, 2, 2]]})
    with pytest.raises(ValueError, match=r"a.jpg could be '/1/x/a.jpg' or '/2/x/a.jpg'; give the longer path"):
        boxes.of("a.jpg")


def test_a_video_asked_as_a_photo_and_the_reverse(tmp_path):
    boxes = boxes_of(tmp_path, CSV)
    with pytest.raises(ValueError, match=r"'clip.mp4' has boxes by frame, and clip.mp4 is a photo"):
        boxes.of("clip.mp4")
    with pytest.raises(ValueError, match=r"has boxes without frames, and party/a.jpg is a video"):
        boxes.of("party/a.jpg", 0)


def test_as_a_detector(tmp_path):
    detector = boxes_of(tmp_path, CSV)
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match=r"which photo\? call seek"):
        detector(image)
    detector.seek("clip.mp4", 0)
    assert detector(image).boxes.tolist() == [[1, 2, 3, 4]]
    detector.seek("clip.mp4", frame=2)
    assert detector(image).boxes.tolist() == [[5, 6, 7, 8]]
    with pytest.raises(ValueError, match=r"no boxes for other.mp4.*: its name, the other columns empty \(JSON: "):
        detector.seek("other.mp4", 0)


def test_what_the_demo_writes_of_photos(tmp_path):
    record = {"image": "in/a.jpg", "width": 9, "height": 9, **faces_of([[1, 2, 3, 4], [5, 6, 7, 8]]).to_dict()}
    empty = {"image": "in/b.jpg", "width": 9, "height": 9, **faces_of([]).to_dict()}
    for content in (record, [record, empty], json.dumps(record) + "\n" + json.dumps(empty) + "\n"):
        found = boxes_of(tmp_path, content).of("in/a.jpg")
        assert found.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
        assert found.scores.tolist() == [0.25, 0.25]
    assert len(boxes_of(tmp_path, [record, empty]).of("in/b.jpg")) == 0


def test_what_the_demo_writes_of_a_video(tmp_path):
    frames = [
        {"frame": 0, "time": 0.0, "faces": faces_of([[1, 2, 3, 4]], ids=[7]).to_dict()["faces"]},
        {"frame": 1, "time": 0.1, "faces": []},
    ]
    boxes = boxes_of(tmp_path, {"video": "clip.mp4", "width": 9, "height": 9, "layout": "300w_68", "frames": frames})
    assert boxes.of("clip.mp4", 0).boxes.tolist() == [[1, 2, 3, 4]]
    assert len(boxes.of("clip.mp4", 1)) == len(boxes.of("clip.mp4", 5)) == 0


def test_tables_of_the_package(tmp_path):
    rows = faces_of([[1, 2, 3, 4], [5, 6, 7, 8]]).to_rows(source="a.jpg", frame=0, time_s=0.0)
    rows += faces_of([[2, 2, 3, 4]]).to_rows(source="clip.mp4", frame=3, time_s=0.1)
    path = tmp_path / "landmarks.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    boxes = FileBoxes(path)
    assert boxes.of("a.jpg").boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert boxes.of("clip.mp4", 3).boxes.tolist() == [[2, 2, 3, 4]]


HEADER = "image,frame,x0,y0,x1,y1,score\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: no column 'image' in the header (nothing); boxes need image,x0,y0,x1,y1"),
        ("image,x0,y0,x1\na.jpg,1,2,3\n", "line 1: no column 'y1' in the header (image, x0, y0, x1)"),
        (HEADER, "no boxes in it; a CSV has the columns image,x0,y0,x1,y1"),
        (HEADER + "a.jpg,,1,2,3,4,\nb.jpg,,1,two,3,4,\n", "line 3: y0 must be a number, got 'two'"),
        (HEADER + "a.jpg,,1,2,nan,4,\n", "line 2: x1 must be a number, got 'nan'"),
        (HEADER + "a.jpg,,3,2,1,4,\n", "line 2: [3.0, 2.0, 1.0, 4.0] is no box; boxes are x0, y0, x1, y1"),
        (HEADER + "a.jpg,-1,1,2,3,4,\n", "line 2: frame must be a whole number from 0, got '-1'"),
        (HEADER + "a.jpg,,1,2,3,4,7\n", "line 2: the score must lie in [0, 1], got '7'"),
        (HEADER + ",,1,2,3,4,\n", "line 2: no image; every row names the photo or video"),
        (HEADER + "a.mp4,1,1,2,3,4,\na.mp4,,1,2,3,4,\n", "line 3: 'a.mp4' has boxes with a frame and without"),
        ('{"a.jpg": [[1, 2, 3, 4]],\n "b.jpg": [[1, 2]', "line 2: not JSON ("),
        ({"a.jpg": [[1, 2, 3, 4], [1, 2, 3]]}, "'a.jpg', box 1: [x0, y0, x1, y1] or"),
        ({"a.jpg": [[1, 2, 3, True]]}, "'a.jpg', box 0: y1 must be a number, got True"),
        ({"a.jpg": 7}, "'a.jpg': a list of boxes [x0, y0, x1, y1] is expected, got 7"),
        ({"a.mp4": {"first": [[1, 2, 3, 4]]}}, "'a.mp4', frame first, box 0: frame must be a number, got 'first'"),
        ({"a.mp4": {"0": 3}}, "'a.mp4', frame 0: a list of boxes"),
        ([1, 2], "entry 0: an object with 'image' and 'faces' is expected"),
        ({"faces": []}, "no 'image': the photo or video of the faces must be named"),
        ({"image": "a.jpg", "faces": [{"points": []}]}, "'a.jpg': 'faces' must be a list of objects with a 'box'"),
        ({"image": "a.jpg", "faces": [{"box": [1, 2]}]}, "'a.jpg', face 0: a box is [x0, y0, x1, y1]"),
        ({"video": "a.mp4", "frames": [{"time": 0}]}, "frame 0: an object with 'frame' and 'faces' is expected"),
        ('{"a.jpg": []}\n{"b.jpg": [[1, 2, 3]]}', "line 2, 'b.jpg', box 0: [x0, y0, x1, y1] or"),
        ('{"a.jpg": [[1, 2, 3, ' + "9" * 5000 + "]]}", "neither a CSV nor a JSON of boxes ("),
        ("[" * 100_000, "neither a CSV nor a JSON of boxes"),
        (HEADER + '"' + "a" * 200_000 + '",,1,2,3,4,\n', "line 2: no row of a table (field larger"),
        ({"a.jpg": [[1, 2, 3, 10**400]]}, "'a.jpg', box 0: y1 must be a number"),
        (HEADER + '"a\nb.jpg",,1,2,3,4,\nc.jpg,,1,2,3,x,\n', "line 4: y1 must be a number, got 'x'"),
    ],
)
def test_a_bad_file_is_one_sentence_with_its_place(tmp_path, content, message):
    with pytest.raises(ValueError, match="boxes") as caught:
        boxes_of(tmp_path, content)
    said = str(caught.value)
    assert message in said
    assert said.startswith(str(tmp_path / "boxes.txt"))
    assert "\n" not in said


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file of boxes"):
        FileBoxes(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="the boxes can't be read"):
        FileBoxes(tmp_path)
    path = tmp_path / "boxes.csv"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="line 1: byte 0x"):
        FileBoxes(path)


def test_angles_of_both_formats(tmp_path):
    """As the demo writes them, or a hand; where there is none the tilt is not known."""
    rows = "image,x0,y0,x1,y1,score,angle\na.jpg,1,2,3,4,0.5,-30.5\na.jpg,5,6,7,8,0.9,\n"
    record = {"image": "a.jpg", "faces": [{"box": [1, 2, 3, 4], "score": 0.5, "angle": -30.5}]}
    record["faces"].append({"box": [5, 6, 7, 8], "score": 0.9})
    for content in (rows, record):
        found = boxes_of(tmp_path, content).of("a.jpg")
        np.testing.assert_array_equal(found.angles, [np.nan, -30.5])
        assert found.boxes[1].tolist() == [1, 2, 3, 4]
    for value in ("nan", "inf", "left"):
        with pytest.raises(ValueError, match=r"line 2: angle must be a number, got"):
            boxes_of(tmp_path, f"image,x0,y0,x1,y1,angle\na.jpg,1,2,3,4,{value}\n")


def test_a_detectors_own_boxes_are_calibrated_along_the_face(tmp_path):
    rows = "image,x0,y0,x1,y1,angle\na.jpg,0,0,20,10,90\nb.jpg,0,0,10,20,\n"
    boxes = boxes_of(tmp_path, rows, calibration=Calibration(shift=(0.0, 0.25), scale=(1.0, 0.5)))
    np.testing.assert_allclose(boxes.of("a.jpg").boxes, [[0, 0, 10, 10]], atol=1e-9)
    assert boxes.of("a.jpg").angles.tolist() == [90]
    assert boxes.of("b.jpg").boxes.tolist() == [[0, 10, 10, 20]]
