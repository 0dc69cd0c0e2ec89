"""Drawing: the right place, the right colour, the same look at every size, and nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest

from pipnet.faces import FaceLandmarks
from pipnet.inference.draw import OTHER_COLOURS, PART_COLOURS, draw_faces, part_colours, point_colours
from pipnet.layouts import LAYOUTS, PointGroup, PointLayout, get_layout

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


def test_photo_stays_as_it_was_and_strokes_stay_near_the_points():
    photo = grey()
    drawn = draw_faces(photo, faces_of(SQUARE, square_layout()))
    assert (photo == 90).all()
    ys, xs = np.nonzero(changed(drawn, photo))
    on_line = (np.abs(ys - 20) <= 3) | (np.abs(ys - 80) <= 3) | (np.abs(xs - 80) <= 3)
    at_corner = (np.abs(xs - 20) <= 3) & ((np.abs(ys - 20) <= 3) | (np.abs(ys - 80) <= 3))
    assert (on_line | at_corner).all()


def test_dot_has_the_colour_of_its_part_and_sits_on_its_pixel():
    photo = grey()
    drawn = draw_faces(photo, faces_of(SQUARE, square_layout()), contours=False).astype(int)
    for x, y in SQUARE.astype(int):
        expected = 0.9 * np.array(PART_COLOURS["mouth"]) + 0.1 * 90
        # The dot is a little larger than a pixel: its own pixel is covered whole.
        assert np.abs(drawn[y, x] - expected).max() <= 6
    weight = np.abs(drawn - 90).sum(axis=2)[:50, :50].astype(float)
    ys, xs = np.mgrid[:50, :50]
    assert (weight * xs).sum() / weight.sum() == pytest.approx(20, abs=0.05)
    assert (weight * ys).sum() / weight.sum() == pytest.approx(20, abs=0.05)


@pytest.mark.parametrize("closed", [False, True])
def test_only_closed_lines_return_to_their_start(closed):
    photo = grey()
    drawn = changed(draw_faces(photo, faces_of(SQUARE, square_layout(closed)), points=False), photo)
    assert drawn[20, 50]  # top side
    assert drawn[50, 20] == closed  # from the last point to the first


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


def test_scores_go_from_red_to_green():
    scores = np.array([[0.0, 1.0, 0.5, 0.5]])
    drawn = draw_faces(grey(), faces_of(SQUARE, square_layout(), scores), contours=False, scores=True).astype(int)
    red, green = drawn[20, 20], drawn[20, 80]
    assert red[0] > red[1] + 100
    assert green[1] > green[0] + 100


@pytest.mark.parametrize("factor", [2, 5, 10])
def test_look_does_not_depend_on_the_picture_size(factor):
    """The same share of the picture is painted when photo and face grow together: 200 pixels to 2,000."""
    layout = get_layout("300w_68")
    points = np.random.default_rng(0).uniform(40, 160, (68, 2))
    small, large = grey(200, 200), grey(200 * factor, 200 * factor)
    few = changed(draw_faces(small, faces_of(points, layout), contours=False), small).mean()
    many = changed(draw_faces(large, faces_of((points + 0.5) * factor - 0.5, layout), contours=False), large).mean()
    # Antialiased borders count as painted, and weigh more in the small picture.
    assert 0.4 < many / few <= 1.0


def test_tiny_face_is_still_visible():
    photo = grey(40, 40)
    drawn = draw_faces(photo, faces_of(SQUARE / 10 + 10, square_layout()))
    assert np.abs(drawn.astype(int) - 90).max() > 60


def test_strokes_are_antialiased():
    photo = np.zeros((100, 100, 3), dtype=np.uint8)
    slanted = np.array([[10.0, 12], [90, 31], [70, 88], [15, 60]])
    drawn = draw_faces(photo, faces_of(slanted, square_layout(part="eye")), points=False)
    assert len(np.unique(drawn)) > 30


@pytest.mark.parametrize(
    "shift", [(-50, 0), (50, 50), (-1000, 0), (0, 5000), (30000, 30000)], ids=["left", "corner", "far", "below", "away"]
)
def test_faces_outside_are_cut_off(shift):
    photo = grey()
    faces = faces_of(SQUARE + shift, square_layout(closed=True))
    drawn = draw_faces(photo, faces, boxes=True, scores=True)
    assert drawn.shape == photo.shape
    assert changed(drawn, photo).any() == (abs(shift[0]) < 100 and shift[1] < 100)


def test_points_that_are_not_labelled_are_left_out():
    photo = grey()
    points = SQUARE.copy()
    points[1] = np.nan
    drawn = changed(draw_faces(photo, faces_of(points, square_layout()), scores=True), photo)
    assert drawn[20, 20]
    assert not drawn[20, 80]
    nothing = FaceLandmarks(np.full((1, 4, 2), np.nan), np.ones((1, 4)), np.ones((1, 4)), square_layout())
    assert not changed(draw_faces(photo, nothing), photo).any()


def test_wrong_box_does_not_blow_up_the_canvas():
    """Points in one spot and a box over the whole of a large photo: memory stays bounded, the box is drawn."""
    photo = grey(1200, 1600)
    faces = FaceLandmarks(np.full((1, 4, 2), 800.0), np.ones((1, 4)), [[10, 10, 1500, 1100]], square_layout())
    drawn = changed(draw_faces(photo, faces, boxes=True), photo)
    assert drawn[10, 800]
    assert drawn[600, 1500]


def test_several_faces_and_photos_that_are_not_contiguous():
    photo = np.zeros((100, 220, 3), dtype=np.uint8)
    faces = faces_of(np.stack([SQUARE, np.add(SQUARE, [110, 0])]), square_layout())
    drawn = draw_faces(photo[:, ::-1], faces)
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
