"""From photos to faces in a store, whatever the photos are and whoever is killed on the way."""

import errno
import json
import os
import random
import re
import signal
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import cv2
import ingest_worker
import numpy as np
import pytest
import torch
from processes import run_two

from pipnet.data.synthetic.dataset import draw_faces, write_synthetic_photos
from pipnet.inference.detections import Detections
from pipnet.inference.detectors import RetinaFace
from pipnet.self_training import ingest as ingesting
from pipnet.self_training.face_store import FILE, Database, FaceStore, UnlabelledFaces, photo_digest
from pipnet.self_training.ingest import FaceRules, ingest
from pipnet.training.distributed import Processes
from pipnet.training.state import TrainingError

ALONE = Processes(0, 1, torch.device("cpu"))
ANY = FaceRules(min_score=0.5, min_size=8, min_sharpness=0, min_inside=0.5)


class Halves:
    """A detector that sees a face in the left half of every photo, and a small unsure one in the right half."""

    def __init__(self):
        self.looked = 0

    def __call__(self, image):
        self.looked += 1
        height, width = image.shape[:2]
        boxes = [[0.1 * width, 0.2 * height, 0.45 * width, 0.7 * height], [0.7 * width, 5, 0.7 * width + 9, 14]]
        return Detections(np.array(boxes), np.array([0.99, 0.55]))


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(path.suffix, image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image)
    assert done
    path.write_bytes(data.tobytes())


def picture(seed, shape=(60, 80, 3), dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def write_photos(folder, count=3):
    for index in range(count):
        write(folder / f"{index % 2}" / f"{index}.png", picture(index))


def ingested(source, folder, *, rules=ANY, detector=None, **more):
    return ingest(source, folder, processes=ALONE, detector=detector or Halves(), rules=rules, progress=False, **more)


def result(folder):
    """All that must be the same, however an ingest came about."""
    faces = UnlabelledFaces(folder)
    names = [faces.name(index) for index in range(len(faces))]
    crops = [faces.image(index).tobytes() for index in range(len(faces))]
    counts = json.loads((folder / "counts.json").read_text())["counts"]
    detections = Database(folder / FILE).rows("SELECT photo, number, score, box FROM faces ORDER BY photo, number")
    return names, [column.tobytes() for column in faces.found(range(len(faces)))], crops, detections, counts


def left_behind(folder):
    """Hidden files, and notes of an ingest that has ended."""
    query = "SELECT token FROM ingest UNION ALL SELECT photo FROM met UNION ALL SELECT line FROM damaged"
    notes = [note for file in folder.rglob(FILE) for note in Database(file).rows(query)]
    return [path.name for path in folder.rglob(".*")] + notes


def test_every_photo_is_searched_once_whatever_is_asked_later(tmp_path):
    write_photos(tmp_path / "photos")
    (tmp_path / "photos" / "link.png").symlink_to(tmp_path / "photos" / "0" / "0.png")
    write(tmp_path / "photos" / "copy.png", picture(0))
    detector, store = Halves(), tmp_path / "store"
    first = ingested(tmp_path / "photos", store, detector=detector)
    assert detector.looked == 3  # though the next photo is opened while one is searched
    assert str(first) == "5 photos (0 damaged, 2 duplicates, 0 without a face), 6 detections, 6 kept; dropped: none"
    assert len(first.faces) == 6
    before = result(store)
    again = ingested(tmp_path / "photos", store, detector=detector)
    assert (detector.looked, again.counts, result(store)) == (3, first.counts, before)
    assert left_behind(tmp_path) == []
    write(tmp_path / "more" / "new.jpg", picture(9))
    sources, strict = [tmp_path / "photos", tmp_path / "more"], FaceRules(0.8, 8, 0, 0.5)
    both = ingested(sources, store, detector=detector, rules=strict)
    assert (detector.looked, both.counts["kept"], both.counts["dropped"]["unsure"]) == (4, 4, 4)
    assert all(both.faces.found(range(4)).scores > 0.9)
    request = json.loads((store / "counts.json").read_text())["request"]
    assert request["sources"] == [str(source) for source in sources]
    assert request["rules"]["min_score"] == 0.8


def test_how_faces_are_tilted_is_kept(tmp_path):
    """With what the detector does not say as NaN; and its own kind of answer may have no angles at all."""

    def tilted(image):
        return Detections([[5, 5, 35, 45], [45, 5, 75, 45]], [0.9, 0.8], [-31.5, np.nan])

    def silent(image):
        return SimpleNamespace(boxes=np.array([[5.0, 5, 35, 45]]), scores=np.array([0.9]))

    write(tmp_path / "photos" / "a.png", picture(0))
    for detector, angles in ((tilted, [-31.5, np.nan]), (silent, [np.nan])):
        for _ in range(2):  # from the photo, then from the store
            faces = ingested(tmp_path / "photos", tmp_path / detector.__name__, detector=detector).faces
            np.testing.assert_array_equal(faces.found(range(len(angles))).angles, angles)


def test_damaged_files_are_listed_and_not_fatal(tmp_path):
    photos = tmp_path / "photos"
    write(photos / "good.jpg", picture(0))
    (photos / "cut.jpg").write_bytes((photos / "good.jpg").read_bytes()[:700])
    (photos / "empty.png").touch()
    (photos / "text.jpg").write_text("no picture")
    (photos / "loop.jpg").symlink_to(photos / "loop.jpg")
    (photos / "gone.jpg").symlink_to(photos / "nowhere")
    os.mkfifo(photos / "pipe.jpg")
    names = ["photos/good.jpg", "photos/missing.jpg", "photos", "photos/\0.jpg"]
    (tmp_path / "all.txt").write_text("\n".join(names))
    for _ in range(2):  # what is damaged stays damaged
        found = ingested([photos, tmp_path / "all.txt"], tmp_path / "store")
        assert found.counts["photos"] == 11
        assert found.counts["damaged"] == 9
        assert found.counts["duplicates"] == 1
        assert len(found.faces) == 2
        listed = {}
        for line in found.damaged.read_text().splitlines():
            path, _, reason = line.partition(": ")
            listed[path.removeprefix(str(tmp_path) + "/")] = reason
        assert len(listed) == 9
        assert listed["photos/cut.jpg"].startswith("the image is cut off after 700 bytes")
        assert listed["photos/empty.png"].startswith("the image file is empty")
        assert listed["photos/text.jpg"].startswith("not an image, or a damaged one")
        assert listed["photos/gone.jpg"] == "no such photo; put it there, or leave it out"
        assert listed["photos/missing.jpg"] == "no such photo; put it there, or leave it out"
        assert listed["photos/pipe.jpg"].startswith("the image can't be read (not a file)")
        assert listed["photos"].startswith("a folder that can't be listed")


def test_a_photo_that_is_repaired(tmp_path):
    photos = tmp_path / "photos"
    write(photos / "deep_grey.tif", picture(0, (60, 80), np.uint16))
    write(photos / "alpha.png", picture(1, (60, 80, 4)))
    whole = (photos / "alpha.png").read_bytes()
    (photos / "alpha.png").write_bytes(whole[:500])
    assert ingested(photos, tmp_path / "store").counts["damaged"] == 1
    (photos / "alpha.png").write_bytes(whole)
    found = ingested(photos, tmp_path / "store")
    assert (found.counts["damaged"], found.damaged.read_text(), len(found.faces)) == (0, "", 4)
    assert {found.faces.image(index).shape[2] for index in range(4)} == {3}


def test_what_cannot_be_done_is_one_sentence(tmp_path):
    photos, store, other, detector = tmp_path / "photos", tmp_path / "store", tmp_path / "other", Halves()
    photos.mkdir()
    with pytest.raises(ValueError, match=r"photos: no photo there; looked for \.jpg"):
        ingested(photos, store)
    write_photos(photos)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder of photos"):
        ingested([photos, tmp_path / "nowhere"], store, detector=detector)
    assert detector.looked == 0  # said before any work
    with pytest.raises(FileNotFoundError, match=r"nowhere\.onnx: no such YuNet file"):
        ingested(photos, other, detector="yunet:nowhere.onnx")
    assert not other.exists()  # and no store is bound to a detector that is not there
    ingested(photos, store)
    for refused, more in (
        ("holds faces found with face_size=224, now 96; use another folder", {"face_size": 96}),
        ("detector=Halves, now retinaface", {"detector": "retinaface"}),
        ("no face detector 'haar'", {"detector": "haar"}),
        ("face_size must be at least 1 pixel, got None", {"face_size": None}),
        (
            "no face passed the rules: 3 photos .*, 6 detections, 0 kept; dropped: .*;",
            {"rules": FaceRules(0.5, 8, 1e6)},
        ),
    ):
        with pytest.raises(ValueError, match=refused):
            ingested(photos, store, **more)
    with pytest.raises(ValueError, match="no source of photos"):
        ingested([], store)
    with pytest.raises(ValueError, match="at least one face must be drawn, got count=0"):
        write_synthetic_photos(other, count=0, seed=0)
    assert left_behind(tmp_path) == []
    assert ingested(photos, photos / "store").counts["photos"] == 3  # no photo of its own
    write(tmp_path / "mine" / "walk-in-the-alps" / "a.png", picture(0))
    with pytest.raises(ValueError, match="mine holds other files; the faces need a folder of their own"):
        ingested(photos, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").rglob("*")] == ["walk-in-the-alps", "a.png"]


def test_a_detector_that_fails_or_gives_no_box_names_the_photo(tmp_path):
    write_photos(tmp_path / "photos", 1)
    failure = OSError("no model")

    def fails(image):
        raise failure

    with pytest.raises(OSError, match="no model") as refusal:
        ingested(tmp_path / "photos", tmp_path / "store", detector=fails)
    assert refusal.value is failure
    (note,) = failure.__notes__
    assert re.fullmatch(r"the detector failed on .*0\.png; choose another detector, or take the photo out", note)
    for box, score in (([5, 5, 5, 9], 0.9), ([5, 5, 8, 9], np.nan), ([5, 5, np.inf, 9], 0.9)):
        with pytest.raises(ValueError, match=r"0\.png: the detector gave the box \[5\.0, .*\] with score .*; correct"):
            ingested(tmp_path / "photos", tmp_path / "box", detector=lambda _, at=box, p=score: Detections([at], [p]))


def test_a_photo_is_read_once(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos", 1)

    def digest_and_remove(data):
        (tmp_path / "photos" / "0" / "0.png").unlink()
        return photo_digest(data)

    monkeypatch.setattr(ingesting, "photo_digest", digest_and_remove)
    assert ingested(tmp_path / "photos", tmp_path / "store").counts["kept"] == 2


def test_a_store_that_cannot_be_read_is_no_damaged_photo(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos")

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FaceStore, "knows", refuse)
    with pytest.raises(PermissionError):
        ingested(tmp_path / "photos", tmp_path / "store")


def test_asked_to_stop_it_ends_with_a_sentence_and_resumes_later(tmp_path):
    write_photos(tmp_path / "photos", 4)
    expected = result(ingested(tmp_path / "photos", tmp_path / "whole").faces.folder)
    detector = Halves()

    def interrupted(image):
        if detector.looked == 1:
            signal.raise_signal(signal.SIGTERM)
        return detector(image)

    interrupted.__qualname__ = "Halves"
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingError, match=r"stopped on request; the same command resumes from what .*store holds"):
        ingested(tmp_path / "photos", tmp_path / "store", detector=interrupted)
    assert signal.getsignal(signal.SIGTERM) == before
    assert detector.looked == 2
    ingested(tmp_path / "photos", tmp_path / "store", detector=detector)
    assert detector.looked == 4
    assert result(tmp_path / "store") == expected
    assert left_behind(tmp_path / "store") == []


def test_asked_to_stop_while_the_faces_are_chosen(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos")
    choose = FaceStore.choose

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        return choose(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FaceStore, "choose", interrupted)
        with pytest.raises(TrainingError, match="stopped on request"):
            ingested(tmp_path / "photos", tmp_path / "store")
    assert ingested(tmp_path / "photos", tmp_path / "store").counts["kept"] == 6


def test_a_full_disk_is_one_sentence_and_costs_nothing_that_was_found(tmp_path, monkeypatch):
    write_photos(tmp_path / "photos")
    connect, detector = sqlite3.connect, Halves()

    def small(*arguments, **more):
        connection = connect(*arguments, **more)
        connection.execute("PRAGMA max_page_count=16")  # then SQLite says what it says of a full disk
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", small)
        with pytest.raises(OSError, match=rf"{FILE} can't be written: .* is full; free disk space or choose another"):
            ingested(tmp_path / "photos", tmp_path / "store", detector=detector)
    known, detector.looked = len(Database(tmp_path / "store" / FILE).rows("SELECT 1 FROM photos")), 0
    assert known > 0
    assert ingested(tmp_path / "photos", tmp_path / "store", detector=detector).counts["kept"] == 6
    assert detector.looked == 3 - known
    assert left_behind(tmp_path) == []


def test_killed_before_any_statement_it_resumes_to_the_same_faces(tmp_path):
    write_photos(tmp_path / "photos", 1)
    (tmp_path / "photos" / "bad.jpg").write_text("no picture")
    ingested(tmp_path / "photos", tmp_path / "whole")
    expected, killed = result(tmp_path / "whole"), 0
    for statements in range(1, 200):
        store = tmp_path / f"{statements}"
        if not killed_after(statements, lambda store=store: ingested(tmp_path / "photos", store)):
            break
        detector, database = Halves(), Database(store / FILE)
        begun = database.file.is_file() and database.rows("SELECT 1 FROM sqlite_master WHERE name = 'photos'")
        known = len(database.rows("SELECT 1 FROM photos")) if begun else 0
        ingested(tmp_path / "photos", store, detector=detector)
        assert detector.looked == 1 - known
        assert result(store) == expected
        assert left_behind(store) == []
        killed += 1
    assert killed > 30


def killed_after(statements, work):
    """Whether a forked process came to so many statements, before the last of which it was killed."""
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    try:
        ingest_worker.die_after(statements)
        work()
    finally:
        os._exit(0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Drawn photos, one of them twice and one damaged; and what one process makes of them."""
    photos, store = tmp_path_factory.mktemp("photos"), tmp_path_factory.mktemp("store") / "one"
    for sample in draw_faces(10, seed=3, size=160):
        write(photos / f"{sample.name}.png", sample.image)
    for copy in range(4):
        (photos / f"copy_{copy}.png").write_bytes((photos / "drawn_000001.png").read_bytes())
    (photos / "bad.jpg").write_text("no picture")
    return photos, store, ingest(photos, store, processes=ALONE, progress=False)


def test_two_processes_find_what_one_finds(drawn, tmp_path):
    photos, store, alone = drawn
    assert len(alone.faces) >= 5
    done = run_two(ingest_worker.find_faces, photos, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(str(alone)) == 2  # both know
    assert result(tmp_path / "two") == result(store)
    assert left_behind(tmp_path / "two") == []


def test_one_of_two_processes_killed_at_a_random_moment_and_resumed(drawn, tmp_path):
    photos, store, _ = drawn
    done = run_two(ingest_worker.find_faces, photos, tmp_path / "store", random.Random(os.getpid()).randint(15, 40))
    assert done.returncode == -signal.SIGKILL, done.stderr
    ingest(photos, tmp_path / "store", processes=ALONE, progress=False)
    assert result(tmp_path / "store") == result(store)
    assert left_behind(tmp_path / "store") == []


@pytest.mark.data
def test_tight_chips_are_not_lost(tmp_path):
    chips = sorted((Path(os.environ["PIPNET_DATA"]) / "unlabelled" / "utkface").glob("*.jpg"))[::100]
    (tmp_path / "all.txt").write_text("\n".join(map(str, chips)))
    found = ingest(tmp_path / "all.txt", tmp_path / "store", processes=ALONE, detector=RetinaFace(), progress=False)
    assert len(found.faces) >= 0.97 * len(chips)
