"""Readers of text labels (300W, WFLW), on small files written here, and on the real sets where they are at hand."""

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipnet.data.datasets import read_dataset
from pipnet.data.images import BadSampleError
from pipnet.data.sample import in_validation
from pipnet.layouts import get_layout

L68 = get_layout("300w_68")
L98 = get_layout("wflw_98")
FOLDERS = ("afw", "helen/trainset", "lfpw/trainset", "helen/testset", "lfpw/testset", "ibug")


def write_photo(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((100, 120, 3), 128, np.uint8))


def bare_pts(points):
    return "\n".join(f"{x:.3f} {y:.3f}" for x, y in points) + "\n"


def pts_text(points):
    return f"version: 1\nn_points: {len(points)}\n{{\n{bare_pts(points)}}}\n"


def points_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(10, 90, (count, 2)).round(3)


def with_point_3(x, y):
    return np.concatenate([points_of(0, 68)[:3], [[x, y]], points_of(0, 68)[4:]])


def write_300w(root: Path, folder: str, stem: str, *, text: str | bytes | None = None, seed=0, suffix=".jpg"):
    write_photo(root / folder / f"{stem}{suffix}")
    text = pts_text(points_of(seed, 68)) if text is None else text
    (root / folder / f"{stem}.pts").write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def tree_300w(tmp_path):
    for seed, folder in enumerate(FOLDERS):
        # face_8 trains and face_9 validates: crc32 of the stem decides
        write_300w(tmp_path, folder, "face_8", seed=seed)
        write_300w(tmp_path, folder, "face_9", seed=seed + 10, suffix=".png")
    return tmp_path


def read_300w(root, on_bad="raise", **options):
    return read_dataset("300w", root=root, layout=L68, on_bad=on_bad, **options)


def test_300w_points_are_counted_from_zero(tree_300w):
    samples, bad = read_300w(tree_300w, part="train")
    assert [s.name for s in samples] == [f"{folder}/{stem}" for folder in FOLDERS[:3] for stem in ("face_8", "face_9")]
    np.testing.assert_allclose(samples[0].points, points_of(0, 68) - 1, atol=1e-9)
    np.testing.assert_allclose(samples[0].box[:2], points_of(0, 68).min(axis=0) - 1, atol=1e-9)
    assert samples[0].image == tree_300w / "afw" / "face_8.jpg"
    assert samples[1].image == tree_300w / "afw" / "face_9.png"
    assert samples[0].occluded is None
    assert len(bad) == 0


@pytest.mark.parametrize(
    ("part", "subsets"),
    [
        ("train", [("afw",), ("helen",), ("lfpw",)]),
        ("test", [("helen", "common"), ("lfpw", "common"), ("ibug", "challenge")]),
        ("common", [("helen", "common"), ("lfpw", "common")]),
        ("challenge", [("ibug", "challenge")]),
    ],
)
def test_300w_parts_and_subsets(tree_300w, part, subsets):
    samples, _ = read_300w(tree_300w, part=part)
    assert [s.subsets for s in samples[::2]] == subsets


def test_300w_validation_split(tree_300w):
    kept = {v: {s.name for s in read_300w(tree_300w, validation=v)[0]} for v in ("exclude", "only", "include")}
    assert kept["exclude"] == {f"{folder}/face_8" for folder in FOLDERS[:3]}
    assert kept["only"] == {f"{folder}/face_9" for folder in FOLDERS[:3]}
    assert kept["include"] == kept["exclude"] | kept["only"]
    with pytest.raises(ValueError, match="validation faces come from training data only"):
        read_300w(tree_300w, part="test", validation="only")
    assert 900 < sum(in_validation(f"photo_{i}") for i in range(10_000)) < 1100


def test_300w_without_ibug_is_common_and_says_so(tree_300w, caplog):
    for path in (tree_300w / "ibug").iterdir():
        path.unlink()
    (tree_300w / "ibug").rmdir()
    with caplog.at_level(logging.WARNING):
        assert len(read_300w(tree_300w, part="test")[0]) == 4
    assert "no folder ibug" in caplog.text
    with pytest.raises(FileNotFoundError, match=r"ibug does not exist; expected the iBUG folders .*data/README.md"):
        read_300w(tree_300w, part="challenge")


@pytest.mark.parametrize(
    "text",
    [
        bare_pts(points_of(5, 68)),
        pts_text(points_of(5, 68)).replace("\n", "\r\n").encode("utf-16"),
        pts_text(points_of(5, 68)).encode("utf-8-sig"),
    ],
)
def test_forms_and_encodings_of_pts_beside_photos_that_are_not_decoded(tree_300w, text):
    write_300w(tree_300w, "afw", "face_8", text=text)
    (tree_300w / "afw" / "face_8.jpg").write_bytes(b"")
    write_300w(tree_300w, "afw", "face_9", text=pts_text(with_point_3(480, -250)))  # the photo cuts this face
    for suffix in (".jpg", ".pts"):  # hidden files of macOS are no photos
        (tree_300w / "afw" / f"._face_8{suffix}").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    samples, bad = read_300w(tree_300w)
    assert ([s.name for s in samples[:2]], len(samples), len(bad)) == (["afw/face_8", "afw/face_9"], 6, 0)
    np.testing.assert_allclose(samples[0].points, points_of(5, 68) - 1, atol=1e-9)


LINES = pts_text(points_of(0, 68)).splitlines()
BAD_PTS = {
    "67 points": (pts_text(points_of(0, 67)), r"face_8\.pts, lines 4-70: 67 points, expected 68"),
    "69 bare points": (bare_pts(points_of(0, 69)), r"face_8\.pts, lines 1-69: 69 points, expected 68"),
    "a word": ("\n".join([*LINES[:10], "12.0 abc", *LINES[11:]]), r"face_8\.pts, line 11: .*'12.0 abc'"),
    "one number": ("\n".join([*LINES[:10], "12.0", *LINES[11:]]), r"face_8\.pts, line 11: expected two numbers"),
    "three numbers": ("\n".join([*LINES[:3], "1 2 3", *LINES[4:]]), r"face_8\.pts, line 4: expected two numbers"),
    "nan": ("\n".join([*LINES[:70], "nan 4.0", *LINES[71:]]), r"face_8\.pts, line 71: .*'nan 4.0'"),
    "inf": ("\n".join([*LINES[:70], "4.0 inf", *LINES[71:]]), r"face_8\.pts, line 71: .*'4.0 inf'"),
    "cut off": ("\n".join(LINES[:-1]), r"face_8\.pts, line 71: the closing brace is missing"),
    "no points": ("version: 1\nn_points: 0\n{\n}\n", r"face_8\.pts: holds no points, expected 68"),
    "empty": ("", r"face_8\.pts: holds no points, expected 68"),
    "one spot": (pts_text(np.full((68, 2), 5.0)), r"face_8\.pts: .*has no extent"),
    "binary": (b"\xff\x00\x81", r"face_8\.pts, line 1: byte 0xFF is no UTF-8"),
    "two faces": ("\n".join([*LINES, *LINES]), r"line 73: goes on behind the closing brace; a \.pts file holds one f"),
    "two braces": ("\n".join([*LINES, *LINES[2:]]), r"face_8\.pts, line 73: goes on behind the closing brace"),
    "136 points": (pts_text(points_of(0, 136)), r"lines 4-139: 136 points, expected 68, which makes 2 faces, and a"),
    "far outside the photo": (
        pts_text(with_point_3(1e9, 5)),
        r"point 3, 999999999, 4, lies more than 3 times the size",
    ),
}


@pytest.mark.parametrize("case", BAD_PTS)
def test_bad_pts_is_named_or_skipped(tree_300w, case):
    text, message = BAD_PTS[case]
    write_300w(tree_300w, "helen/trainset", "face_8", text=text)
    with pytest.raises(BadSampleError, match=message):
        read_300w(tree_300w)
    samples, bad = read_300w(tree_300w, on_bad="skip")
    assert len(samples) == 5
    assert "helen/trainset/face_8" not in {s.name for s in samples}
    assert len(bad) == 1
    assert "face_8.pts" in bad.reasons[0]
    # The bad face is not in the validation part, so reading that part must not stumble over it.
    assert len(read_300w(tree_300w, validation="only")[0]) == 3


def test_300w_missing_partner_files(tree_300w):
    (tree_300w / "afw" / "face_8.jpg").unlink()
    (tree_300w / "lfpw/trainset" / "face_9.pts").unlink()
    with pytest.raises(BadSampleError, match=r"face_8\.pts: no face_8\.jpg or \.png beside it; add the photo"):
        read_300w(tree_300w)
    samples, bad = read_300w(tree_300w, on_bad="skip")
    assert len(samples) == 4
    assert "face_9.png: no face_9.pts beside it" in bad.reasons[1]


def test_missing_root_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; set data_root .*data/README\.md"):
        read_300w(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"afw does not exist; expected the iBUG folders"):
        read_300w(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"attr_test\.txt does not exist; expected WFLW_images/"):
        read_wflw(tmp_path)
    with pytest.raises(ValueError, match="'300w' needs root"):
        read_300w(None)


def test_unknown_reader_option_and_part(tree_300w):
    with pytest.raises(ValueError, match="no reader 'lapa'; there are: 300w, wflw"):
        read_dataset("lapa", root=tree_300w, layout=L68)
    with pytest.raises(ValueError, match="no option 'split'; it has: part, validation"):
        read_300w(tree_300w, split="train")
    with pytest.raises(ValueError, match=r"part must be one of train, .*got 'val'"):
        read_300w(tree_300w, part="val")
    with pytest.raises(ValueError, match="on_bad must be 'raise' or 'skip'"):
        read_300w(tree_300w, on_bad="ignore")
    for path in (tree_300w / "ibug").glob("*.pts"):
        path.write_text("")
    with pytest.raises(ValueError, match=r"part=challenge\): no face to use; 2 items were skipped, the first: .*\.pts"):
        read_300w(tree_300w, on_bad="skip", part="challenge")


def wflw_line(points, rectangle=(5, 6, 95, 96), attributes=(0, 0, 0, 0, 0, 0), photo="0--Parade/a_8.jpg"):
    return " ".join(str(v) for v in [*points.ravel().tolist(), *rectangle, *attributes, photo])


def write_wflw(root: Path, lines, part="test"):
    folder = root / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"list_98pt_rect_attr_{part}.txt").write_text("\n".join(lines) + "\n")
    for line in lines:
        write_photo(root / "WFLW_images" / line.split()[-1])


def read_wflw(root, on_bad="raise", part="test", **options):
    return read_dataset("wflw", root=root, layout=L98, on_bad=on_bad, part=part, **options)


def test_wflw_values(tmp_path):
    first, second = points_of(1, 98), points_of(2, 98)
    write_wflw(tmp_path, [wflw_line(first, attributes=(1, 0, 0, 0, 1, 0)), wflw_line(second)])
    samples, bad = read_wflw(tmp_path)
    np.testing.assert_array_equal(samples[0].points, first)  # 0-based as they stand
    np.testing.assert_array_equal(samples[1].points, second)
    assert [s.name for s in samples] == ["0--Parade/a_8#1", "0--Parade/a_8#2"]
    assert samples[0].subsets == ("pose", "occlusion")
    assert samples[1].subsets == ()
    assert samples[0].image == tmp_path / "WFLW_images" / "0--Parade" / "a_8.jpg"
    np.testing.assert_array_equal(samples[0].box, [*first.min(axis=0), *first.max(axis=0)])
    np.testing.assert_array_equal(read_wflw(tmp_path, box="rectangle")[0][0].box, [5, 6, 95, 96])
    assert len(bad) == 0
    write_wflw(tmp_path, [wflw_line(first, rectangle=(5, 6, 5, 6))])
    path = next((tmp_path / "WFLW_annotations").rglob("*_test.txt"))
    text = path.read_text()
    path.write_bytes(text.encode("utf-16"))
    assert len(read_wflw(tmp_path)[0]) == 1  # the rectangle is not used
    with pytest.raises(BadSampleError, match=r"test\.txt, line 1: .*no extent"):
        read_wflw(tmp_path, box="rectangle")
    path.write_bytes((text + text.replace("a_8", "é")).encode("cp1252"))
    with pytest.raises(ValueError, match=r"test\.txt, line 2: byte 0xE9 is no UTF-8"):
        read_wflw(tmp_path, on_bad="skip")


def test_wflw_validation_keeps_a_photo_together(tmp_path):
    photos = ["x/face_8.jpg", "x/face_9.jpg", "x/face_9.jpg"]
    write_wflw(tmp_path, [wflw_line(points_of(i, 98), photo=p) for i, p in enumerate(photos)], part="train")
    only = read_wflw(tmp_path, part="train", validation="only")[0]
    assert [s.name for s in only] == ["x/face_9#1", "x/face_9#2"]
    assert [s.name for s in read_wflw(tmp_path, part="train", validation="exclude")[0]] == ["x/face_8#1"]


GOOD = wflw_line(points_of(0, 98)).split()
BAD_WFLW = {
    "one coordinate less": (GOOD[1:], r"line 2: 206 fields, expected 207"),
    "a word": ([*GOOD[:20], "abc", *GOOD[21:]], r"line 2, field 21: 'abc' is not a number"),
    "nan": ([*GOOD[:20], "nan", *GOOD[21:]], r"line 2, field 21: 'nan' is not a number"),
    "attribute 2": ([*GOOD[:200], "2", *GOOD[201:]], r"line 2: attributes 2 0 0 0 0 0 are not 0 or 1"),
    "no photo": ([*GOOD[:-1], "0--Parade/none.jpg"], r"line 2: no photo .*none\.jpg; put it there"),
}


@pytest.mark.parametrize("case", BAD_WFLW)
def test_bad_wflw_line(tmp_path, case):
    tokens, message = BAD_WFLW[case]
    lines = [wflw_line(points_of(0, 98)), " ".join(tokens), wflw_line(points_of(1, 98))]
    write_wflw(tmp_path, lines)
    (tmp_path / "WFLW_images/0--Parade/none.jpg").unlink(missing_ok=True)
    with pytest.raises(BadSampleError, match=message):
        read_wflw(tmp_path)
    samples, bad = read_wflw(tmp_path, on_bad="skip")
    assert len(samples) == 2
    assert len(bad) == 1
    # Names do not depend on what was skipped: the third line is its photo's third face, or its second.
    assert samples[1].name == ("0--Parade/a_8#2" if case == "no photo" else "0--Parade/a_8#3")


def real(folder: str) -> Path:
    path = Path(os.environ["PIPNET_DATA"]) / folder
    if not path.is_dir():
        pytest.skip(f"PIPNET_DATA has no {folder}")
    return path


@pytest.mark.data
def test_counts_of_the_real_300w():
    root = real("300W")
    counts = {v: len(read_300w(root, validation=v)[0]) for v in ("exclude", "only", "include")}
    assert counts == {"exclude": 1808, "only": 202, "include": 2010}
    samples = read_300w(root, part="test")[0]
    assert len(samples) == 554
    assert sum("helen" in s.subsets for s in samples) == 330
    assert len({s.name for s in samples}) == 554


@pytest.mark.data
def test_counts_of_the_real_wflw():
    samples = read_wflw(real("WFLW"))[0]
    assert len(samples) == 108
    counts = {name: sum(name in s.subsets for s in samples) for name in ("pose", "illumination", "blur")}
    assert counts == {"pose": 16, "illumination": 46, "blur": 29}
    rectangles = read_wflw(real("WFLW"), box="rectangle")[0]
    # In this copy the rectangles are the tight boxes of the points.
    np.testing.assert_allclose([s.box for s in samples], [s.box for s in rectangles], atol=1.0)
