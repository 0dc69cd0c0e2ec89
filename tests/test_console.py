"""Names that are no text or that a terminal can't show, and readers that leave: no command ends by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from processes import run
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


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8"])
def test_every_photo_is_done_whatever_its_name(encoding, folder, tmp_path):
    out = tmp_path / "out"
    command = ("pipnet.demo", "--folder", folder, "--csv")
    line = [sys.executable, "-m", *command, "--json", "--output", out]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(line, env=environment, capture_output=True, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(": 1 face in ") == 4
    assert "b\\xe9.jpg: 1 face" in done.stdout
    assert ("b顔.jpg: 1 face" if encoding == "utf-8" else "b\\u9854.jpg: 1 face") in done.stdout
    table = (out / "landmarks.csv").read_text(encoding="utf-8")
    assert table.count("\n") == 5
    assert "b\\xe9.jpg" in table
    assert "b顔.jpg" in table
    record = json.loads((out / os.fsdecode(b"b\xe9_landmarks.json")).read_text(encoding="utf-8"))
    assert record["image"].endswith("b\\xe9.jpg")
    assert is_utf8(record["image"])
    if encoding == "utf-8":  # what was written of such names can be given back
        done = run(*command, "--output", tmp_path / "again", "--detector", "boxes", out / "landmarks.csv")
        assert (done.stderr, done.returncode) == ("", 0)


def test_a_reader_that_leaves_ends_nothing(folder, tmp_path):
    command = [sys.executable, "-m", "pipnet.demo", "--folder", folder, "--csv", "--output", tmp_path]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
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
