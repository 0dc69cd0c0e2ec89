"""Photos of a folder or a list, one at a time."""

import os
from itertools import islice
from pathlib import Path

import pytest

from pipnet.data.images import check_source, photo_paths, seen_from


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(source):
    return sorted(seen_from(source, path) for path in photo_paths(source))


def test_a_tree_gives_its_photos_and_nothing_hidden(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "b" / "c" / "d.PNG", tmp_path / "b" / "notes.txt", tmp_path / "e.json")
    touch(tmp_path / ".f.jpg", tmp_path / ".cache" / "g.jpg")
    assert names(tmp_path) == ["a.jpg", "b/c/d.PNG"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "photos" / "deep" / "a.jpg", tmp_path / "other" / "b.jpg")
    (tmp_path / "photos" / "deep" / "up").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "self.jpg").symlink_to(tmp_path / "photos" / "self.jpg")
    (tmp_path / "photos" / "there").symlink_to(tmp_path / "other")
    (tmp_path / "photos" / "b.jpg").symlink_to(tmp_path / "other" / "b.jpg")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "photos")
    # The link to itself is a file that can't be read, which the reader of the photos will say.
    assert names(tmp_path / "photos") == ["b.jpg", "deep/a.jpg", "self.jpg", "there/b.jpg"]


def test_nothing_is_listed_before_it_is_asked_for(tmp_path, monkeypatch):
    for index in range(3):
        touch(tmp_path / f"{index}" / "a.jpg")
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    assert len(list(islice(photo_paths(tmp_path), 1))) == 1
    assert len(listed) == 3  # the source twice: once to see that it can be read


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RecursionError("maximum depth exceeded")])
def test_a_folder_that_cannot_be_listed_comes_out_as_itself(tmp_path, monkeypatch, error):
    touch(tmp_path / "good" / "a.jpg", tmp_path / "locked" / "b.jpg")
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == "locked":
            raise error
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names(tmp_path) == ["good/a.jpg", "locked"]
    with pytest.raises(type(error)):  # a source is another matter
        list(photo_paths(tmp_path / "locked"))


def test_a_list_is_seen_from_its_own_folder_and_missing_files_are_given_all_the_same(tmp_path):
    file = tmp_path / "lists" / "all.txt"
    touch(file)
    file.write_bytes("\ufeffa b.jpg\r\n\n../photos/ü.jpg\n/far/c.jpg\nlast.tif".encode())
    assert [seen_from(file, path) for path in photo_paths(file)] == [
        "a b.jpg",
        "../photos/ü.jpg",
        "/far/c.jpg",
        "last.tif",
    ]
    assert next(photo_paths(file)) == tmp_path / "lists" / "a b.jpg"


def test_a_list_may_hold_names_that_are_no_text(tmp_path):
    file = tmp_path / "all.txt"
    file.write_bytes(b"\xff.jpg\n")
    assert [os.fsencode(path.name) for path in photo_paths(file)] == [b"\xff.jpg"]


def test_a_source_must_be_a_folder_or_a_list(tmp_path):
    touch(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg is no folder and no \.txt list; give"):
        next(photo_paths(tmp_path / "a.jpg"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt: no such folder of photos, and no such list"):
        next(photo_paths(tmp_path / "nowhere.txt"))
    (tmp_path / "windows.txt").write_text("a.jpg\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"windows\.txt is a list in UTF-16; save it as UTF-8"):
        check_source(tmp_path / "windows.txt")
