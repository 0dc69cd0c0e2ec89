"""Names that are no text or that a terminal can't show, and readers that leave: no command ends by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from skimage.data import astronaut

from pipnet.console import as_text
from pipnet.data.images import photos_below
from pipnet.files import is_utf8

LATIN = os.fsdecode(b"b\xe9.jpg")


@pytest.fixture
def folder(tmp_path) -> Path:
    photo = cv2.imencode(".jpg", astronaut()[:200, 120:320, ::-1])[1].tobytes()
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", LATIN, "b顔.jpg", "c.jpg"):
        (folder / name).write_bytes(photo)
    return folder


def demo(*arguments: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pipnet.demo", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment})


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_every_photo_is_done_whatever_its_name(encoding, folder, tmp_path):
    out = tmp_path / "out"
    done = demo("--folder", str(folder), "--csv", "--json", "--output", str(out), PYTHONIOENCODING=encoding)
    printed, complaints = done.communicate(timeout=240)
    assert (done.returncode, complaints) == (0, b"")
    assert printed.count(b": 1 face in ") == 4
    assert b"b\\xe9.jpg: 1 face" in printed
    assert ("b顔.jpg: 1 face".encode() if encoding == "utf-8" else b"b\\u9854.jpg: 1 face") in printed
    table = (out / "landmarks.csv").read_text(encoding="utf-8")
    assert table.count("\n") == 5
    assert "b\\xe9.jpg" in table
    assert "b顔.jpg" in table
    record = json.loads((out / os.fsdecode(b"b\xe9_landmarks.json")).read_text(encoding="utf-8"))
    assert record["image"].endswith("b\\xe9.jpg")
    assert is_utf8(record["image"])
    if encoding == "utf-8":  # what was written of such names can be given back
        boxes = ("--detector", "boxes", str(out / "landmarks.csv"))
        done = demo("--folder", str(folder), "--csv", "--output", str(tmp_path / "again"), *boxes)
        assert (done.communicate(timeout=240)[1], done.returncode) == (b"", 0)


def test_a_reader_that_leaves_ends_nothing(folder, tmp_path):
    done = demo("--folder", str(folder), "--csv", "--output", str(tmp_path), PYTHONUNBUFFERED="1")
    assert done.stdout is not None
    assert b"a.jpg" in done.stdout.readline()
    done.stdout.close()
    assert done.stderr is not None
    assert done.stderr.read() == b""
    assert done.wait(240) == 0
    assert (tmp_path / "landmarks.csv").read_text(encoding="utf-8").count("\n") == 5


def test_names_as_text():
    assert as_text("a\\顔.jpg") == "a\\顔.jpg"
    assert as_text(LATIN) == "b\\xe9.jpg"
    assert as_text("\ud800") == "\\ud800"  # no byte of a name, but no text either


def test_a_folder_gives_all_that_a_photo_can_be_called(tmp_path):
    """Linked folders too, none without an end; hidden files nowhere; a link that leads nowhere and HEIC come out."""
    album, folder = tmp_path / "album", tmp_path / "photos"
    album.mkdir()
    folder.mkdir()
    for name in ("x.jfif", "m.AVIF", "g.gif", "p.pgm", "o.mpo", "i.HEIC", "._x.jfif", "notes.txt", "clip.mp4"):
        (folder / name).write_bytes(b"")
    (album / "b.jpg").write_bytes(b"")
    (folder / "album").symlink_to(album)
    (folder / "again").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(tmp_path / "nowhere")
    found = [path.relative_to(folder).as_posix() for path in photos_below(folder, in_order=True)]
    assert found == ["g.gif", "gone.jpg", "i.HEIC", "m.AVIF", "o.mpo", "p.pgm", "x.jfif", "album/b.jpg"]
