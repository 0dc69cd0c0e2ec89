"""The dataset report and the contact sheet, in numbers and pixels."""

import cv2
import numpy as np
import pytest

from pipnet.data.report import contact_sheet, dataset_report, draw_points, face_tile
from pipnet.data.sample import BadItems, Sample


def grey(height, width, value=128):
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def samples(tmp_path):
    small, large, broken = tmp_path / "small.png", tmp_path / "large.png", tmp_path / "broken.jpg"
    assert cv2.imwrite(str(small), grey(50, 40))
    assert cv2.imwrite(str(large), grey(100, 300))
    broken.write_bytes(b"\xff\xd8\xff")
    return [
        Sample(small, np.array([[0.0, 0], [30, 10]]), "inside", ("a", "b"), occluded=np.array([True, False])),
        Sample(small, np.array([[-0.5, 0], [39.5, 49.5]]), "on the edge", ("a",)),
        Sample(large, np.array([[310.0, 5], [290, 15]]), "outside", ("b",)),
        Sample(large, np.array([[np.nan, np.nan], [290, -10]]), "partly", box=np.array([250.0, 0, 290, 10])),
        Sample(broken, np.array([[1.0, 1], [2, 2]]), "broken"),
    ]


def test_report(samples):
    text, unreadable = dataset_report(samples, BadItems("skip", ["x.pts: 67 points"]))
    assert text.splitlines() == [
        "faces            5 in 2 photos",
        "subsets          a 2, b 2",
        "photo width      40 / 170 / 300 px (min / median / max)",
        "photo height     50 / 75 / 100 px",
        "face size        1 / 30 / 50 px (longer side of the box)",
        "labelled points  9, of them 1 marked as hidden; 1 not labelled",
        # A photo ends half a pixel beyond its last pixel centre: the face on the edge is not outside.
        "outside photo    2 points of 2 faces; furthest 0.53 face sizes, outside",  # 10.5 / 20
        *("skipped          1", "  x.pts: 67 points"),
        *("unreadable       1", f"  {unreadable[0]}"),
    ]
    assert "broken.jpg" in unreadable[0]
    image = grey(20, 30)
    in_memory, _ = dataset_report([Sample(image, np.eye(2), str(i)) for i in range(3)], BadItems())
    assert in_memory.startswith("faces            3 in 1 photos\nsubsets          none\n")
    assert "outside photo    0 points of 0 faces\n" in in_memory


def test_dots_sit_on_their_points():
    image = grey(21, 31, 0)
    tile = draw_points(image, np.array([[10.0, 5.0], [np.nan, 3.0], [1e9, 4.0]]), color=(255, 0, 0), radius=2)
    ys, xs = np.nonzero(tile[..., 0] > 127)
    assert (xs.mean(), ys.mean()) == (10.0, 5.0)
    assert tile[..., 1:].max() == image.max() == 0
    half = draw_points(grey(21, 31, 0), np.array([[10.5, 5.0]]), color=(255, 0, 0), radius=2)[..., 0].astype(float)
    assert (half.sum(axis=0) @ np.arange(31)) / half.sum() == pytest.approx(10.5, abs=0.05)


def test_face_tile_shows_the_point_where_the_face_is():
    image = grey(100, 100, 0)
    image[40:61, 30:51] = (0, 0, 255)  # centre (40, 50)
    points = np.array([[30.0, 40.0], [50.0, 60.0], [40.0, 50.0]])
    plain = face_tile(image, np.full((1, 2), np.nan), box=np.array([30.0, 40, 50, 60]), size=80, crop_scale=2.0)
    ys, xs = np.nonzero(plain[..., 2] > 127)
    assert (xs.mean(), ys.mean()) == pytest.approx((39.5, 39.5), abs=0.51)
    assert len(xs) == pytest.approx(42**2, rel=0.03)  # 21 px of 40 in a tile of 80
    tile = face_tile(image, points[2:], box=np.array([30.0, 40, 50, 60]), size=80, crop_scale=2.0, color=(255, 0, 0))
    ys, xs = np.nonzero(tile[..., 0] > 100)
    assert (xs.mean(), ys.mean()) == pytest.approx((39.5, 39.5), abs=0.51)
    assert face_tile(image, points, size=64).shape == (64, 64, 3)
    red, blue = (255, 0, 0), (0, 0, 255)  # other points are drawn below
    both = face_tile(image * 0, points[:1], color=red, others=[(points, blue)], box=np.array([30.0, 40, 50, 60]))
    assert (both[..., 0].max(), both[..., 2].max()) == (255, 255)
    assert both[np.unravel_index(both[..., 0].argmax(), both.shape[:2])].tolist() == [255, 0, 0]


def test_contact_sheet_places_pictures_in_rows():
    tiles = [grey(10, 10, value) for value in (50, 100, 150, 200, 250)]
    sheet = contact_sheet(tiles, columns=2, gap=3)
    assert sheet.shape == (3 * 13 + 3, 2 * 13 + 3, 3)
    for index, value in enumerate((50, 100, 150, 200, 250)):
        row, column = divmod(index, 2)
        assert (sheet[3 + row * 13 : 13 + row * 13, 3 + column * 13 : 13 + column * 13] == value).all()
    assert (sheet[:3] == 32).all()
    wide = contact_sheet([grey(10, 40, 200)], tile=20, gap=0)  # fitted in the middle
    assert wide.shape == (20, 20, 3)
    assert np.nonzero((wide == 200).all(axis=(1, 2)))[0].tolist() == [7, 8, 9, 10, 11]  # 5 rows of 20
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([])
    with pytest.raises(ValueError, match="1 captions for 2 pictures"):
        contact_sheet(tiles[:2], captions=["a"])


def test_captions_are_written_and_shortened():
    tiles = [grey(60, 60, 0)] * 2
    sheet = contact_sheet(tiles, captions=["ab", "a very long name that can't fit under its picture"], gap=4)
    assert sheet.shape == (60 + 18 + 8, 2 * 64 + 4, 3)
    band = sheet[64:82].max(axis=2) > 100
    assert band[:, 4:64].any()
    assert band[:, 68:128].any()
    assert not band[:, 129:].any()  # nothing runs over the edge
