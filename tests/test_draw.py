"""Drawing: the right place, the right colour, the same look at every size, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipnet.geometry import box_corners
from pipnet.inference.drawing import ID_COLOURS, OTHER_COLOURS, PART_COLOURS, draw_faces, part_colours, point_colours
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import LAYOUTS, PointGroup, PointLayout, get_layout
from pipnet.measurements import TEMPLATE_MM, TEMPLATE_POINTS, rotation_of

# What a broken prediction holds, and more.
WILD = [0.0, 1e9, -1e9, 3e38, float("nan"), float("inf"), -float("inf"), 1e-30]
SQUARE = np.array([[20.0, 20], [80, 20], [80, 80], [20, 80]])


def square_layout(closed: bool = False, part: str = "mouth") -> PointLayout:
    group = PointGroup("line", part, (0, 1, 2, 3), closed=closed)
    return PointLayout("square", 4, mirror=(1, 0, 3, 2), groups=(group,))


def faces_of(points: np.ndarray, layout: PointLayout, scores: float | np.ndarray = 0.5) -> FaceLandmarks:
    points = np.asarray(points, dtype=float).reshape(-1, layout.num_points, 2)
    boxes = np.concatenate([np.nanmin(points, axis=1), np.nanmax(points, axis=1)], axis=1)
    return FaceLandmarks(points, np.broadcast_to(scores, points.shape[:2]), boxes, layout)


def grey(height: int = 100, width: int = 100) -> np.ndarray:
    return np.full((height, width, 3), 90, dtype=np.uint8)


def changed(drawn: np.ndarray, photo: np.ndarray) -> np.ndarray:
    return (drawn != photo).any(axis=2)


@pytest.mark.parametrize("closed", [False, True])
def test_strokes_stay_near_the_points_and_only_closed_lines_return(closed):
    photo = grey()
    drawn = changed(draw_faces(photo, faces_of(SQUARE, square_layout(closed))), photo)
    assert (photo == 90).all()
    assert drawn[20, 50]  # top side
    assert drawn[50, 20] == closed  # from the last point to the first
    ys, xs = np.nonzero(drawn)
    on_line = (np.abs(ys - 20) <= 3) | (np.abs(ys - 80) <= 3) | (np.abs(xs - 80) <= 3)
    on_left = (np.abs(xs - 20) <= 3) & (closed | (np.abs(ys - 20) <= 3) | (np.abs(ys - 80) <= 3))
    assert (on_line | on_left).all()


def test_dot_has_the_colour_of_its_part_and_sits_on_its_pixel():
    photo = grey()
    drawn = draw_faces(photo, faces_of(SQUARE, square_layout()), contours=False).astype(int)
    for x, y in SQUARE.astype(int):
        # The dot is a little larger than a pixel: its own pixel is covered whole.
        assert np.abs(drawn[y, x] - PART_COLOURS["mouth"]).max() <= 6
    weight = np.abs(drawn - 90).sum(axis=2)[:50, :50].astype(float)
    ys, xs = np.mgrid[:50, :50]
    assert (weight * xs).sum() / weight.sum() == pytest.approx(20, abs=0.05)
    assert (weight * ys).sum() / weight.sum() == pytest.approx(20, abs=0.05)


def test_every_switch_draws_its_own():
    photo = grey()
    faces = faces_of(SQUARE, square_layout())
    none = {"points": False, "contours": False}
    assert not changed(draw_faces(photo, faces, **none), photo).any()
    amounts = {
        "points": changed(draw_faces(photo, faces, points=True, contours=False), photo).sum(),
        "contours": changed(draw_faces(photo, faces, points=False, contours=True), photo).sum(),
        "boxes": changed(draw_faces(photo, faces, **none, boxes=True), photo).sum(),
        "scores": changed(draw_faces(photo, faces, **none, scores=True), photo).sum(),
    }
    assert all(amounts.values()), amounts
    assert amounts["boxes"] > amounts["contours"]  # four sides against three


def big_face(scores: np.ndarray) -> tuple[np.ndarray, FaceLandmarks]:
    photo = grey(500, 500)
    return photo, faces_of(SQUARE * 5, square_layout(), scores)


def test_scores_go_from_red_to_green():
    scores = np.array([[0.0, 1.0, 0.5, 0.5]])
    drawn = draw_faces(*big_face(scores), contours=False, scores=True).astype(int)
    at_zero, at_one, at_half = (drawn[y - 4 : y + 5, x - 4 : x + 5] for x, y in ((100, 100), (400, 100), (400, 400)))
    assert (at_zero[..., 0] - at_zero[..., 1]).max() > 100
    assert (at_one[..., 1] - at_one[..., 0]).max() > 100
    assert at_half[..., :2].min(axis=2).max() > 200  # yellow


def test_points_of_low_score_are_hollow():
    photo, faces = big_face(np.array([[0.9, 0.5, 0.3, 0.0]]))
    drawn = draw_faces(photo, faces, contours=False).astype(int)
    full, half, more, ring = (drawn[y, x].sum() for x, y in SQUARE.astype(int) * 5)
    assert full == half == sum(PART_COLOURS["mouth"])
    assert more < 150  # the middle is dark
    assert ring < 150
    # The core grows with the doubt, so nothing blinks: each dot is a little darker than the one before.
    light = [drawn[y - 9 : y + 10, x - 9 : x + 10].sum() for x, y in SQUARE.astype(int) * 5]
    assert light[0] == light[1] > light[2] > light[3]


def test_lines_at_points_of_low_score_are_thin_and_dim():
    photo, sure = big_face(np.array([[0.9, 0.9, 0.9, 0.9]]))
    _, unsure = big_face(np.array([[0.9, 0.9, 0.0, 0.9]]))
    before = draw_faces(photo, sure, points=False)
    after = draw_faces(photo, unsure, points=False)
    np.testing.assert_array_equal(before[80:120, 150:350], after[80:120, 150:350])  # top: both ends are sure
    right = np.s_[150:350, 380:420]
    assert changed(after[right], photo[right]).sum() < 0.8 * changed(before[right], photo[right]).sum()
    assert after[250, 400].sum() < before[250, 400].sum() - 100


def test_ids_are_written_on_a_colour_of_their_own():
    photo = grey(200, 300)
    points = SQUARE + np.array([[[10, 80]], [[160, 80]]])
    plain = faces_of(points, square_layout())
    one = FaceLandmarks(plain.points, plain.scores, plain.boxes, plain.layout, ids=[0, 1])
    other = FaceLandmarks(plain.points, plain.scores, plain.boxes, plain.layout, ids=[7, 1])
    none = {"points": False, "contours": False}
    np.testing.assert_array_equal(draw_faces(photo, plain, **none, ids=True), photo)  # nobody is followed
    np.testing.assert_array_equal(draw_faces(photo, one, **none), photo)
    first, second = draw_faces(photo, one, **none, ids=True), draw_faces(photo, other, **none, ids=True)
    assert (first[:, 150:] == second[:, 150:]).all()
    assert not (first[:, :150] == second[:, :150]).all()
    assert (first == ID_COLOURS[0]).all(axis=2).any()
    assert (first[:, 150:] == ID_COLOURS[1]).all(axis=2).any()
    ys, _ = np.nonzero(changed(first, photo))
    assert ys.max() < 100  # over the faces
    framed = draw_faces(photo, one, **none, ids=True, boxes=True)
    assert np.abs(framed[130, 238:243].astype(int) - ID_COLOURS[1]).sum(axis=1).min() < 60


def test_out_saves_a_copy():
    photo = grey()
    faces = faces_of(SQUARE, square_layout())
    expected = draw_faces(photo, faces, scores=True, boxes=True)
    out = np.full_like(photo, 3)
    assert draw_faces(photo, faces, scores=True, boxes=True, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert (photo == 90).all()
    assert draw_faces(photo, faces, scores=True, boxes=True, out=photo) is photo
    np.testing.assert_array_equal(photo, expected)


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((9, 10, 3), np.uint8),
        np.zeros((10, 10, 3)),
        np.zeros((10, 20, 3), np.uint8)[:, ::2],
        np.frombuffer(bytes(300), np.uint8).reshape(10, 10, 3),
    ],
    ids=["shape", "type", "steps", "read_only"],
)
def test_out_that_does_not_fit_is_named(out):
    with pytest.raises(ValueError, match=r"out must be contiguous and writable uint8 \(10, 10, 3\)"):
        draw_faces(grey(10, 10), FaceLandmarks.empty(square_layout()), out=out)


@pytest.mark.parametrize("factor", [2, 10])
def test_look_does_not_depend_on_the_picture_size(factor):
    layout = get_layout("300w_68")
    points = np.random.default_rng(0).uniform(40, 160, (68, 2))
    small, large = grey(200, 200), grey(200 * factor, 200 * factor)
    few = changed(draw_faces(small, faces_of(points, layout), contours=False), small).mean()
    many = changed(draw_faces(large, faces_of((points + 0.5) * factor - 0.5, layout), contours=False), large).mean()
    # Antialiased borders count as painted, and weigh more in the small picture.
    assert 0.4 < many / few <= 1.0


def test_tiny_faces_are_visible_and_strokes_antialiased():
    drawn = draw_faces(grey(40, 40), faces_of(SQUARE / 10 + 10, square_layout()))
    assert np.abs(drawn.astype(int) - 90).max() > 60
    slanted = np.array([[10.0, 12], [90, 31], [70, 88], [15, 60]])
    drawn = draw_faces(grey(), faces_of(slanted, square_layout(part="eye")), points=False)
    assert len(np.unique(drawn)) > 30


@pytest.mark.parametrize(
    ("factor", "shift", "visible"),
    [
        (1, (-50, 0), True),
        (1, (50, 50), True),
        (1, (-1000, 0), False),
        (1, (30000, 30000), False),
        (400, (0, 0), False),  # larger than the picture: its border lies outside
        ((400, 0.5), (0, 0), True),
    ],
)
def test_faces_outside_are_cut_off(factor, shift, visible):
    photo = grey()
    faces = faces_of((SQUARE - 50) * factor + 50 + shift, square_layout(closed=True))
    drawn = draw_faces(photo, faces, boxes=factor == 1, scores=factor == 1)
    assert drawn.shape == photo.shape
    assert changed(drawn, photo).any() == visible


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    points=arrays(np.float32, (2, 5, 2), elements=st.one_of(st.sampled_from(WILD), st.floats(-50, 90, width=32))),
    boxes=arrays(np.float32, (2, 4), elements=st.one_of(st.sampled_from(WILD), st.floats(-50, 90, width=32))),
    scores=arrays(np.float32, (2, 5), elements=st.sampled_from([0.0, 0.3, 1.0, -5.0, 7.0, float("nan")])),
)
@settings(max_examples=60, deadline=None)
def test_nothing_that_a_network_can_say_stops_the_drawing(size, points, boxes, scores):
    groups = (PointGroup("a", "eye", (0, 1, 2), closed=True), PointGroup("b", "jaw", (3, 4)))
    layout = PointLayout("five", 5, mirror=(0, 1, 2, 3, 4), groups=groups)
    faces = FaceLandmarks(points, scores, boxes, layout, face_scores=scores[:, 0], ids=[-3, 2**60])
    photo = grey(*size)
    drawn = draw_faces(photo, faces, boxes=True, scores=True, ids=True)
    assert drawn.shape == photo.shape
    assert (photo == 90).all()


@given(
    points=arrays(np.float32, (1, 68, 2), elements=st.one_of(st.sampled_from(WILD[:3]), st.floats(-50, 90, width=32))),
    spread=st.sampled_from([0.0, 1e-6, 1.0, 1e5]),
)
@settings(max_examples=30, deadline=None)
def test_axes_of_points_that_are_no_head_stop_nothing(points, spread):
    layout = get_layout("300w_68")
    faces = FaceLandmarks(points * spread, np.ones((1, 68)), [[10, 10, 50, 50]], layout)
    assert draw_faces(grey(60, 60), faces, pose=True).shape == (60, 60, 3)


def test_axes_turn_with_the_head():
    layout = get_layout("300w_68")
    none = {"points": False, "contours": False}
    photo = grey(400, 400)
    seen = {}
    for name, angles in {"front": (0, 0, 0), "right": (40, 0, 0), "tilted": (0, 0, 30)}.items():
        points = np.full((68, 2), 200.0)
        points[TEMPLATE_POINTS] += (TEMPLATE_MM @ rotation_of(*angles).T)[:, :2]
        drawn = draw_faces(photo, faces_of(points, layout), **none, pose=True).astype(int)
        nose = points[30]
        strong = {
            "red": drawn[..., 0] - drawn[..., 1:].max(axis=2),
            "green": drawn[..., 1] - drawn[..., ::2].max(axis=2),
            "blue": drawn[..., 2] - drawn[..., :2].max(axis=2),
        }
        far = {}
        for colour, excess in strong.items():
            ys, xs = np.nonzero(excess > 40)
            away = np.column_stack([xs, ys]) - nose
            far[colour] = away[np.argmax(np.linalg.norm(away, axis=1))]
        seen[name] = far
    assert seen["front"]["red"][0] > 30 > 5 > abs(seen["front"]["red"][1])
    assert seen["front"]["green"][1] > 30 > 5 > abs(seen["front"]["green"][0])
    assert np.linalg.norm(seen["front"]["blue"]) < 8  # it points at the camera
    assert seen["right"]["blue"][0] > 20
    assert seen["right"]["red"][0] < seen["front"]["red"][0] - 5
    x, y = seen["tilted"]["red"]
    assert np.degrees(np.arctan2(y, x)) == pytest.approx(30, abs=4)


def test_axes_need_the_points_of_a_head():
    with pytest.raises(ValueError, match="head_pose needs the 68 points"):
        draw_faces(grey(), FaceLandmarks.empty(square_layout()), pose=True)
    points = np.random.default_rng(0).uniform(10, 90, (68, 2))
    points[3] = np.nan  # no head is drawn where a point is missing, and the rest is
    faces = faces_of(points, get_layout("300w_68"))
    np.testing.assert_array_equal(draw_faces(grey(), faces, pose=True), draw_faces(grey(), faces))


def test_a_line_to_a_point_far_away_keeps_its_direction():
    photo = grey()
    points = np.array([[50.0, 50.0], [50.0 + 1e9, 50.0 + 0.5e9], [50.0, 50.0], [-1e9, 50.0]])
    faces = FaceLandmarks(points[None], np.ones((1, 4)), [[40, 40, 60, 60]], square_layout())
    drawn = changed(draw_faces(photo, faces), photo)
    assert drawn[60, 70]  # half as steep
    assert drawn[50, 3]
    assert not drawn[70:, :60].any()  # and strokes in proportion to the box: one wrong point makes none thick
    assert not drawn[:40].any()


def test_points_that_are_not_labelled_are_skipped_and_a_wrong_box_needs_no_large_canvas():
    photo = grey(1200, 1600)
    nothing = FaceLandmarks(np.full((1, 4, 2), np.nan), np.ones((1, 4)), np.ones((1, 4)), square_layout())
    assert not changed(draw_faces(photo, nothing), photo).any()
    points = SQUARE.copy()
    points[1] = np.nan
    faces = FaceLandmarks(points[None], np.ones((1, 4)), [[10, 10, 1500, 1100]], square_layout())
    drawn = changed(draw_faces(photo, faces, scores=True, boxes=True), photo)
    assert drawn[20, 20]
    assert not drawn[20, 80]
    assert drawn[10, 800]
    assert drawn[600, 1500]


def test_several_faces_and_photos_that_are_not_contiguous():
    photo = np.zeros((100, 220, 3), dtype=np.uint8)
    drawn = draw_faces(photo[:, ::-1], faces_of(np.stack([SQUARE, np.add(SQUARE, [110, 0])]), square_layout()))
    np.testing.assert_array_equal(drawn[:, :110], drawn[:, 110:])
    assert drawn.any()


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_layout_has_colours_and_draws(name):
    layout = get_layout(name)
    assert list(part_colours(layout)) == list(layout.parts())
    assert len(point_colours(layout)) == layout.num_points
    photo = grey()
    points = np.random.default_rng(0).uniform(10, 90, (layout.num_points, 2))
    assert changed(draw_faces(photo, faces_of(points, layout), boxes=True, scores=True), photo).any()


def test_unknown_parts_get_colours_of_their_own():
    groups = (PointGroup("a", "ear", (0, 1)), PointGroup("b", "horn", (2, 3)))
    layout = PointLayout("own", 5, mirror=(0, 1, 2, 3, 4), groups=groups)
    assert part_colours(layout) == {"ear": OTHER_COLOURS[0], "horn": OTHER_COLOURS[1]}
    assert point_colours(layout)[4] == OTHER_COLOURS[0]  # a point of no group


@pytest.mark.parametrize("image", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3))])
def test_wrong_image_is_named(image):
    with pytest.raises(ValueError, match=r"RGB uint8 \(H, W, 3\), got"):
        draw_faces(image, FaceLandmarks.empty(square_layout()))


def test_a_turned_box_is_drawn_turned():
    layout, photo = square_layout(), grey()
    box = np.array([[30.0, 30.0, 70.0, 70.0]])
    faces = FaceLandmarks(np.array([SQUARE]), np.ones((1, len(SQUARE))), box, layout, angles=[45.0])
    drawn = changed(draw_faces(photo, faces, points=False, contours=False, boxes=True), photo)
    corners = np.rint(box_corners(box[0], 45.0)).astype(int)
    assert all(drawn[y - 1 : y + 2, x - 1 : x + 2].any() for x, y in corners)
    before = np.rint(box_corners(box[0], 0.0)).astype(int)
    assert not any(drawn[y - 1 : y + 2, x - 1 : x + 2].any() for x, y in before)
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert not np.delete(drawn, np.s_[low[1] - 4 : high[1] + 5], axis=0).any()
