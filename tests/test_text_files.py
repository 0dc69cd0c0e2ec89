"""Text files in the encodings that people's programs write, the rows of a CSV, and what is said of the others."""

from __future__ import annotations

import codecs

import pytest

from pipnet.files import csv_rows, read_text
from pipnet.inference.file_boxes import FileBoxes
from pipnet.layouts import load_layout
from pipnet.model.released_weights import read_mean_face

TEXT = "image,x0\r\né.jpg,1\rb.jpg,2\n"
AS_READ = "image,x0\né.jpg,1\nb.jpg,2\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_encodings_that_are_read(tmp_path, encoding):
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    (tmp_path / "a.csv").write_bytes(mark + TEXT.encode(encoding))
    assert read_text(tmp_path / "a.csv") == AS_READ


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("cp1252"), r"a\.csv, line 2: byte 0xE9 is no UTF-8 \(in Windows' own encoding it is 'é'\); save"),
        (b"a\n\n\xff\x00", r"a\.csv, line 3: byte 0xFF is no UTF-8"),
        (b"a\n\x81", r"a\.csv, line 2: byte 0x81 is no UTF-8"),  # no letter of cp1252 either
        (TEXT.encode("utf-16")[:-1], r"a\.csv, line 3: cut off or no text in UTF-16; save it again, as UTF-8"),
        ("a\nb".encode("utf-16-le"), r"a\.csv, line 1: a byte 0, so no text, or UTF-16 without its mark; save it"),
        (b"a\nb\0", r"a\.csv, line 2: a byte 0"),
    ],
)
def test_encodings_that_are_not(tmp_path, content, message):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_text(tmp_path / "a.csv")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("image,x\n\na,1\n", [(1, ["image", "x"]), (3, ["a", "1"])]),
        ("image\tx\na,b\t1", [(1, ["image", "x"]), (2, ["a,b", "1"])]),
        ("image;x\na;1,5", [(1, ["image", "x"]), (2, ["a", "1,5"])]),
        ('image,x\n"a\nb",1\nc,2', [(1, ["image", "x"]), (2, ["a\nb", "1"]), (4, ["c", "2"])]),
        ('image,x\na"b,1', [(1, ["image", "x"]), (2, ['a"b', "1"])]),
        ("", [(1, [])]),
    ],
)
def test_rows(text, rows):
    assert list(csv_rows(text)) == rows


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('image,x\na,1\n"b,2\nc,3\nd,4', [3]),  # closed nowhere
        ('image,x\na,1\n"b,2\nc,3\n"d,4\ne,5', [3, 5]),  # closed by the next one that is open
        ('image,x\na,1\n"b,2\nc,3\nd,4"\ne,5', [3]),  # closed at the end of a later line: too few cells
        ('image,x\na,1\n"b"c,2\nc,3', [3]),
    ],
)
def test_an_open_quote_costs_its_own_line_only(text, wrong):
    rows = list(csv_rows(text))
    assert [number for number, _ in rows] == list(range(1, text.count("\n") + 2))
    assert [number for number, row in rows if isinstance(row, str)] == wrong
    assert all("a quote" in row for _, row in rows if isinstance(row, str))


LAYOUT = "name: mine\nnum_points: 2\nmirror_pairs: [[0, 1]]\n"


def test_boxes_layouts_and_mean_faces_too(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_bytes("image\tx0\ty0\tx1\ty1\né.jpg\t1\t2\t3\t4\n".encode("utf-16"))
    assert FileBoxes(path).of("é.jpg").boxes.tolist() == [[1, 2, 3, 4]]
    path.write_bytes("image,x0,y0,x1,y1\né.jpg,1,2,3,4\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"boxes\.csv, line 2: byte 0xE9"):
        FileBoxes(path)
    path.write_text('image,x0,y0,x1,y1\n"a.jpg,1,2,3,4\nb.jpg,1,2,3,4\n')
    with pytest.raises(ValueError, match=r"boxes\.csv, line 2: a quote"):
        FileBoxes(path)
    layout = tmp_path / "layout.yaml"
    layout.write_bytes(LAYOUT.encode("utf-16"))
    assert load_layout(layout).mirror == (1, 0)
    mean = tmp_path / "meanface.txt"
    mean.write_bytes("0.25 0.5 0.75 0.5\n".encode("utf-16"))
    assert read_mean_face(mean).tolist() == [[0.25, 0.5], [0.75, 0.5]]
