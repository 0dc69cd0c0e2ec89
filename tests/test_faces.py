"""FaceLandmarks itself: shapes, indexing, scores and ids, plain types."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import PointLayout, get_layout, map_points

LAYOUT = PointLayout("two", 2, mirror=(1, 0))


def three_faces(**more):
    points = np.arange(12.0).reshape(3, 2, 2)
    scores = np.array([[0.2, 0.4], [0.5, 0.5], [1.0, 0.0]])
    return FaceLandmarks(points, scores, np.arange(12.0).reshape(3, 4), LAYOUT, **more)


def test_face_scores_are_the_mean_of_the_points_unless_given():
    np.testing.assert_allclose(three_faces().face_scores, [0.3, 0.5, 0.5], atol=1e-7)
    given = three_faces(face_scores=[0.1, 0.2, 0.3])
    np.testing.assert_allclose(given.face_scores, [0.1, 0.2, 0.3], atol=1e-7)
    assert given.face_scores.dtype == np.float32
    assert three_faces().ids is None


def test_its_arrays_are_its_own():
    given = {
        "points": np.zeros((1, 2, 2), np.float32),
        "scores": np.zeros((1, 2), np.float32),
        "boxes": np.zeros((1, 4), np.float32),
        "face_scores": np.zeros(1, np.float32),
        "ids": np.zeros(1, np.int64),
    }
    faces = FaceLandmarks(layout=LAYOUT, **given)
    one = faces[:1]
    for name, array in given.items():
        array += 1
        getattr(faces, name)[...] += 2
        assert (getattr(faces, name) == 2).all()
        assert (getattr(one, name) == 0).all()


def test_indexing_keeps_scores_and_ids():
    faces = three_faces(face_scores=[0.1, 0.2, 0.3], ids=[5, 2**40, 6])
    assert faces.ids.dtype == np.int64
    for part, rows in (
        (faces[1], [1]),
        (faces[-1], [2]),
        (faces[::2], [0, 2]),
        (faces[np.array([False, True, True])], [1, 2]),
    ):
        np.testing.assert_array_equal(part.points, faces.points[rows])
        np.testing.assert_array_equal(part.scores, faces.scores[rows])
        np.testing.assert_array_equal(part.boxes, faces.boxes[rows])
        np.testing.assert_array_equal(part.face_scores, faces.face_scores[rows])
        np.testing.assert_array_equal(part.ids, faces.ids[rows])
        assert part.layout is LAYOUT
    assert [face.ids.tolist() for face in faces] == [[5], [2**40], [6]]
    assert three_faces()[0].ids is None
    for index in (3, -4):
        with pytest.raises(IndexError, match=rf"face {index} of 3"):
            faces[index]


def test_shapes_that_disagree_are_named():
    with pytest.raises(ValueError, match=r"scores must have shape \(3, 2\), got \(3, 3\)"):
        FaceLandmarks(np.zeros((3, 2, 2)), np.zeros((3, 3)), np.zeros((3, 4)), LAYOUT)
    with pytest.raises(ValueError, match=r"face_scores must have shape \(3,\), got \(2,\)"):
        three_faces(face_scores=[1, 2])
    with pytest.raises(ValueError, match=r"ids must have shape \(3,\), got \(3, 1\)"):
        three_faces(ids=[[1], [2], [3]])


def test_to_dict_is_json():
    faces = three_faces(face_scores=[0.1, 0.2, 0.3], ids=[5, 4, 6])
    back = json.loads(json.dumps(faces.to_dict()))
    assert back["layout"] == "two"
    assert back["faces"][0] == {
        "id": 5,
        "box": [0, 1, 2, 3],
        "angle": 0.0,
        "score": 0.1,
        "points": [[0, 1], [2, 3]],
        "scores": [0.2, 0.4],
    }
    assert "id" not in three_faces().to_dict()["faces"][0]
    assert FaceLandmarks.empty(LAYOUT).to_dict() == {"layout": "two", "faces": []}


def test_no_face_answers_everything():
    none = FaceLandmarks.empty(get_layout("300w_68"))
    assert none.face_scores.shape == (0,)
    assert none.ids is None
    assert list(none) == []
    assert none.to_rows() == []
    assert none.to_coco("a.jpg", (4, 4))["annotations"] == []
    assert none.align(np.zeros((4, 4, 3), np.uint8), 8).shape == (0, 8, 8, 3)
    assert none.head_pose((4, 4)).shape == (0, 3)
    assert none.eye_opening().shape == (0, 2)
    assert none.mouth_opening().shape == (0,)


@pytest.mark.parametrize("what", ["head_pose", "eye_opening", "mouth_opening"])
def test_a_layout_without_the_points_is_said(what):
    arguments = [(640, 480)] if what == "head_pose" else []
    with pytest.raises(ValueError, match=rf"{what} needs the 68 points of 300W, and layout 'two' has no mapping"):
        getattr(three_faces(), what)(*arguments)
    with pytest.raises(ValueError, match="layout 'two' has no eyes to align"):
        three_faces().align(np.zeros((4, 4, 3), np.uint8), 8)


def test_wflw_faces_answer_as_their_68_points_do():
    wflw, l68 = get_layout("wflw_98"), get_layout("300w_68")
    points = np.random.default_rng(0).uniform(100, 300, (1, 98, 2))
    around = 15 * np.stack([-np.cos(np.arange(8) * np.pi / 4), -np.sin(np.arange(8) * np.pi / 4)], axis=1)
    points[0, 60:68] = np.add(around, [160, 180])  # eyes, with pupils in their middle
    points[0, 68:76] = np.add(around, [250, 200])
    faces = FaceLandmarks(points, np.ones((1, 98)), np.ones((1, 4)), wflw)
    mapped = FaceLandmarks(map_points(points, wflw, l68), np.ones((1, 68)), np.ones((1, 4)), l68)
    np.testing.assert_allclose(faces.head_pose((640, 480)), mapped.head_pose((640, 480)), atol=1e-2)
    np.testing.assert_allclose(faces.eye_opening(), mapped.eye_opening(), atol=1e-5)
    np.testing.assert_allclose(faces.mouth_opening(), mapped.mouth_opening(), atol=1e-5)
    np.testing.assert_allclose(faces.upright_crops(64)[0].matrix, mapped.upright_crops(64)[0].matrix, atol=1e-4)


@pytest.mark.parametrize("open_by", [0.0, 0.3, 0.7])
def test_openings_follow_a_drawn_face(open_by):
    from pipnet.data.synthetic.face import SyntheticFace

    def of(**more):
        face = SyntheticFace(centre=(320, 240), extent=200, **more)
        return FaceLandmarks(face.points()[None], np.ones((1, 68)), np.ones((1, 4)), get_layout("300w_68"))

    small, large = of(mouth_open=open_by), of(mouth_open=open_by + 0.3)
    assert large.mouth_opening()[0] > small.mouth_opening()[0] + 0.1
    wink = of(eye_open=(open_by, open_by + 0.3))
    assert wink.eye_opening()[0, 1] > wink.eye_opening()[0, 0] + 0.03
    turned = of(eye_open=(open_by, open_by + 0.3), mouth_open=open_by, roll=35)
    np.testing.assert_allclose(turned.eye_opening(), wink.eye_opening(), atol=1e-5)
    np.testing.assert_allclose(turned.mouth_opening(), small.mouth_opening(), atol=1e-5)
