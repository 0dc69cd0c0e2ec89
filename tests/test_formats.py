"""FaceLandmarks in other programs' forms: what is written reads back with the project's own readers."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from pipnet.data.readers_custom import read_coco
from pipnet.data.readers_text import read_pts
from pipnet.data.sample import BadItems
from pipnet.formats import coco_category, merge_coco, row_columns, write_coco
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import LAYOUTS, get_layout

L68 = get_layout("300w_68")


def some_faces(count=2, layout=L68, seed=0, **more):
    rng = np.random.default_rng(seed)
    n = layout.num_points
    points = rng.uniform(5, 90, (count, n, 2))
    boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
    return FaceLandmarks(points, rng.uniform(0, 1, (count, n)), boxes, layout, **more)


def test_rows_hold_every_number_under_its_name():
    faces = some_faces(2, face_scores=[0.9, 0.25], ids=[7, 3])
    rows = faces.to_rows(time_s=1.5, source="a.mp4", frame=45)
    assert list(rows[0]) == row_columns(L68, ["source", "frame", "time_s"]) == list(rows[1])
    assert [(row["source"], row["frame"], row["time_s"]) for row in rows] == [("a.mp4", 45, 1.5)] * 2
    assert [(row["face"], row["id"], row["score"]) for row in rows] == [(0, 7, 0.9), (1, 3, 0.25)]
    for face, row in enumerate(rows):
        box = [row[f"box_{corner}"] for corner in ("x0", "y0", "x1", "y1")]
        np.testing.assert_allclose(box, faces.boxes[face], atol=6e-4)
        for point in (0, 30, 67):
            got = [row[f"{what}_{point}"] for what in "xys"]
            np.testing.assert_allclose(got, [*faces.points[face, point], faces.scores[face, point]], atol=6e-4)


def test_rows_without_ids_and_without_faces():
    rows = some_faces(3).to_rows(frame=0)
    assert {type(value) for row in rows for value in row.values()} == {int, float, type(None)}
    assert [(row["id"], row["frame"]) for row in rows] == [(None, 0)] * 3  # zero is given, not missing
    assert FaceLandmarks.empty(L68).to_rows(source="a") == []
    assert row_columns(L68)[0] == "face"


def test_rows_are_a_data_frame():
    import pandas

    table = pandas.DataFrame(some_faces(2, ids=[4, 5]).to_rows(source="a, b.jpg"))
    assert table.shape == (2, len(row_columns(L68, ["source"])))
    assert str(table["x_0"].dtype) == "float64"
    assert str(table["id"].dtype) == "int64"


def test_coco_reads_back(tmp_path):
    (tmp_path / "images").mkdir()
    faces = {"a.png": some_faces(2, seed=1), "b.png": some_faces(1, seed=2, ids=[9]), "c.png": FaceLandmarks.empty(L68)}
    for name in faces:
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((100, 120, 3), np.uint8))
    write_coco(tmp_path / "annotations.json", [of.to_coco(name, (120, 100)) for name, of in faces.items()])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations.json", "images"]
    samples = read_coco(tmp_path, L68, BadItems("raise"), box="rectangle")
    assert [sample.name for sample in samples] == ["a.png#1", "a.png#2", "b.png#3"]
    points = np.concatenate([of.points for of in faces.values()])
    boxes = np.concatenate([of.boxes for of in faces.values()])
    np.testing.assert_allclose([sample.points for sample in samples], points, atol=6e-4)
    np.testing.assert_allclose([sample.box for sample in samples], boxes, atol=2e-3)
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["id"] for image in content["images"]] == [1, 2, 3]
    assert [one["id"] for one in content["annotations"]] == [1, 2, 3]
    assert [one.get("track_id") for one in content["annotations"]] == [None, None, 9]
    one = content["annotations"][0]
    assert one["num_keypoints"] == 68
    assert set(one["keypoints"][2::3]) == {2}
    assert one["area"] == pytest.approx(one["bbox"][2] * one["bbox"][3], rel=1e-3)
    assert one["score"] == pytest.approx(faces["a.png"].face_scores[0], abs=6e-4)


def test_coco_leaves_out_points_that_are_not_finite():
    faces = some_faces(1)
    faces.points[0, 5] = np.nan
    document = faces.to_coco("a.jpg", (640, 480))
    assert document["annotations"][0]["keypoints"][15:18] == [0, 0, 0]
    assert document["annotations"][0]["num_keypoints"] == 67
    json.dumps(document, allow_nan=False)


def test_coco_has_an_upright_box_around_a_turned_one():
    faces = FaceLandmarks(np.zeros((1, 68, 2)), np.ones((1, 68)), [[10.0, 20, 50, 60]], L68, angles=[45.0])
    x, y, width, height = faces.to_coco("a.jpg", (99, 99))["annotations"][0]["bbox"]
    np.testing.assert_allclose(
        [x + width / 2, y + height / 2, width, height], [30, 40, 3200**0.5, 3200**0.5], atol=1e-2
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_coco_skeletons_join_points_of_the_layout(name):
    layout = get_layout(name)
    category = coco_category(layout)
    assert len(category["keypoints"]) == len(set(category["keypoints"])) == layout.num_points
    assert {index for line in category["skeleton"] for index in line} <= set(range(1, layout.num_points + 1))
    if name == "300w_68":
        assert [42, 37] in category["skeleton"]  # eyes are closed lines, counted from 1
        assert [17, 1] not in category["skeleton"]  # the jaw is open


def test_merging_documents():
    first, second = some_faces(1, seed=1), some_faces(2, seed=2)
    merged = merge_coco([first.to_coco("a.jpg", (9, 9)), second.to_coco("a.jpg", (9, 9))])
    assert len(merged["images"]) == 1
    assert [(one["id"], one["image_id"]) for one in merged["annotations"]] == [(1, 1), (2, 1), (3, 1)]
    with pytest.raises(ValueError, match=r"a\.jpg comes with two sizes, 9 x 9 and 9 x 8"):
        merge_coco([first.to_coco("a.jpg", (9, 9)), second.to_coco("a.jpg", (9, 8))])
    other = some_faces(1, get_layout("wflw_98"))
    with pytest.raises(ValueError, match=r"b\.jpg has other keypoints"):
        merge_coco([first.to_coco("a.jpg", (9, 9)), other.to_coco("b.jpg", (9, 9))])
    with pytest.raises(ValueError, match="no documents to merge"):
        merge_coco([])
    with pytest.raises(ValueError, match="larger than 0"):
        first.to_coco("a.jpg", (0, 9))


def test_pts_reads_back_and_counts_from_one(tmp_path):
    face = some_faces(1)
    face.save_pts(tmp_path / "a.pts")
    np.testing.assert_allclose(read_pts(tmp_path / "a.pts", 68) - 1, face.points[0], atol=6e-4)
    lines = (tmp_path / "a.pts").read_text().splitlines()
    assert lines[:3] == ["version: 1", "n_points: 68", "{"]
    assert lines[-1] == "}"
    assert float(lines[3].split()[0]) == pytest.approx(face.points[0, 0, 0] + 1, abs=1e-3)


def test_pts_holds_one_finite_face(tmp_path):
    for faces, count in ((some_faces(2), "2 faces"), (FaceLandmarks.empty(L68), "no face")):
        with pytest.raises(ValueError, match=rf"a\.pts: a \.pts file holds one face, here is {count}"):
            faces.save_pts(tmp_path / "a.pts")
    lost = FaceLandmarks(np.full((1, 68, 2), np.inf), np.ones((1, 68)), np.ones((1, 4)), L68)
    with pytest.raises(ValueError, match="point 0 is not finite"):
        lost.save_pts(tmp_path / "a.pts")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=r"a\.pts can't be written"):
        some_faces(1).save_pts(tmp_path / "missing" / "a.pts")
    with pytest.raises(OSError, match=r"a\.json can't be written"):
        write_coco(tmp_path / "missing" / "a.json", [some_faces(1).to_coco("a.jpg", (9, 9))])


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    document = some_faces(1).to_coco("a.jpg", (9, 9))
    document["annotations"][0]["score"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        write_coco(path, [document])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
