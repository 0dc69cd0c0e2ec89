"""The store of faces: what is in it, who shares it, what it refuses, and that memory does not grow with it."""

import hashlib
import multiprocessing
import os
import pickle
import sqlite3
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipnet.self_training.face_store import (
    FILE,
    Database,
    FaceStore,
    FoundFace,
    FoundPhoto,
    UnlabelledFaces,
)

SETTINGS = {"detector": "retinaface", "face_size": 224}
LIMITS = {"unsure": ("score", 0.85), "small": ("size", 32.0), "blurred": ("sharpness", 3.0)}
CROP = np.full((20, 30, 3), 200, np.uint8)


def digest_of(number):
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def found(number=0, **changes):
    box = tuple(float(side) for side in range(number, number + 4))
    return FoundFace(
        **{"box": box, "score": 0.9, "size": 80.0, "sharpness": 12.0, "inside": 1.0, "crop_box": box, **changes}
    )


def choose(store, photos, known=()):
    """Add photos, a digest with its faces each, and choose among the faces of these and of the known ones."""
    token = store.begin()
    for digest, faces in photos:
        store.add(digest, FoundPhoto("a.jpg", (9, 9), faces), [CROP] * len(faces))
    store.meet(token, [*(digest for digest, _ in photos), *known])
    return store.choose(token, LIMITS, store.folder / "damaged.txt")


def test_what_is_written_is_read_back(tmp_path):
    store, digest = FaceStore(tmp_path, SETTINGS), digest_of(0)
    assert not store.knows(digest)
    faces = [found(3, crop_box=(1.0, 2.0, 3.0, 4.0), angle=-31.5), found(1)]
    store.add(digest, FoundPhoto("ü\udcff.jpg", (640, 480), faces), [CROP, CROP // 2])
    store.add(digest, FoundPhoto("again.jpg", (640, 480), faces), [CROP // 2, CROP])  # another process was faster
    assert FaceStore(tmp_path, SETTINGS).knows(digest)
    choose(store, [], [digest])
    faces = UnlabelledFaces(tmp_path)
    assert [faces.name(index) for index in range(len(faces))] == [f"{digest}-0", f"{digest}-1"]
    boxes, angles, scores = faces.found(range(2))
    assert boxes.tolist() == [[1, 2, 3, 4], [1, 2, 3, 4]]
    np.testing.assert_array_equal(angles, np.array([-31.5, np.nan], np.float32))
    assert scores.tolist() == [np.float32(0.9)] * 2
    assert (faces.image(0) == 200).all()
    assert (faces.image(1) == 100).all()
    name, points = faces.in_photo(0, np.array([[1.0, 2.0], [2.0, 3.0]]))
    assert name == "ü\udcff.jpg"
    assert points.tolist() == [[3, 4], [4, 5]]
    with pytest.raises(IndexError):
        faces.name(2)


def test_a_store_of_other_settings_is_refused(tmp_path):
    FaceStore(tmp_path / "new", SETTINGS)
    with pytest.raises(ValueError, match=r"holds faces found with face_size=224, now 112; use another folder"):
        FaceStore(tmp_path / "new", {**SETTINGS, "face_size": 112})
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "store.json").write_text('{"format": 1}')
    with pytest.raises(ValueError, match=r"old holds faces that an earlier pipnet kept in another way; the faces"):
        FaceStore(tmp_path / "old", SETTINGS)
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file can't be made: File exists; choose another folder"):
        FaceStore(tmp_path / "file", SETTINGS)


@pytest.mark.parametrize("damage", ["no database" * 500, "cut"])
def test_a_damaged_file_is_named(tmp_path, damage):
    choose(FaceStore(tmp_path, SETTINGS), [(digest_of(0), [found()])])
    file = tmp_path / FILE
    file.write_bytes(damage.encode() if damage != "cut" else file.read_bytes()[:9000])
    for refused in (lambda: FaceStore(tmp_path, SETTINGS), lambda: UnlabelledFaces(tmp_path)):
        with pytest.raises(ValueError, match=rf"{FILE} is damaged, or not of a store of faces \(.*\); use another"):
            refused()


def test_where_a_write_ahead_log_cannot_work_writers_take_turns(tmp_path, monkeypatch):
    """A file system without memory that processes share, as this way of locking has none; and several machines."""
    connect = sqlite3.connect

    def without_shared_memory(file, **more):
        return connect(f"file:{file}?vfs=unix-dotfile", uri=True, **more)

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", without_shared_memory)
        store = FaceStore(tmp_path / "odd", SETTINGS)
        assert store.database.rows("PRAGMA journal_mode") == [("delete",)]
        assert store.database.rows("PRAGMA synchronous") == [(2,)]
        assert choose(store, [(digest_of(0), [found()])])[0]["kept"] == 1
    for one_machine, mode in ((True, "wal"), (False, "delete"), (True, "wal")):
        store = FaceStore(tmp_path / "store", SETTINGS, one_machine=one_machine)
        assert store.database.rows("PRAGMA journal_mode") == [(mode,)]
        del store  # which closes it


@pytest.mark.parametrize("one_machine", [True, False])
def test_threads_and_forked_processes_write_and_read_at_the_same_time(tmp_path, one_machine):
    store = FaceStore(tmp_path, SETTINGS, one_machine=one_machine)

    def add(number):
        store.add(digest_of(number % 10), FoundPhoto("a.jpg", (9, 9), [found()]), [CROP])
        return store.knows(digest_of(number % 10))

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(add, range(40)))
    fork = multiprocessing.get_context("fork")
    children = [fork.Process(target=lambda part=part: [add(number) for number in range(part)]) for part in (8, 10)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert choose(store, [], map(digest_of, range(10)))[0]["detections"] == 10


def test_a_transaction_that_fails_leaves_nothing(tmp_path):
    store = FaceStore(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match="zip"):
        store.add(digest_of(0), FoundPhoto("a.jpg", (9, 9), [found(), found()]), [CROP])
    assert not store.knows(digest_of(0))
    assert (
        store.database.rows("SELECT count(*) FROM faces") == store.database.rows("SELECT count(*) FROM crops") == [(0,)]
    )


def test_faces_are_sorted_and_each_appears_once_in_whatever_order_photos_were_met(tmp_path):
    photos = [(digest_of(number), [found(number + n) for n in range(number % 4)]) for number in range(100)]
    names = sorted(f"{digest}-{n}" for digest, faces in photos for n in range(len(faces)))
    one, other = FaceStore(tmp_path / "one", SETTINGS), FaceStore(tmp_path / "other", SETTINGS)
    counts, digest = choose(one, photos)
    again = choose(other, photos[::-1], [digest for digest, _ in photos[:5]])
    figures = {"photos": 100, "damaged": 0, "duplicates": 0, "without_face": 25, "detections": 150, "kept": 150}
    assert counts == {**figures, "dropped": {"unsure": 0, "small": 0, "blurred": 0}}
    assert again == ({**counts, "photos": 105, "duplicates": 5}, digest)
    for store in (one, other):
        faces = UnlabelledFaces(store.folder, digest)
        assert [faces.name(index) for index in range(len(faces))] == names
        by_name = {f"{digest}-{n}": face for digest, found_there in photos for n, face in enumerate(found_there)}
        assert faces.found(range(150)).boxes.tolist() == [list(by_name[name].crop_box) for name in names]
    sent = pickle.dumps(faces)  # to a worker that loads faces
    assert len(sent) < 1000
    assert pickle.loads(sent).name(149) == names[149]


def test_every_choice_of_faces_stays_while_other_runs_make_their_own(tmp_path):
    store = FaceStore(tmp_path, SETTINGS)
    _, first = choose(store, [(digest_of(number), [found(), found(1, score=0.5)]) for number in range(9)])
    _, second = choose(store, [], [digest_of(0)])
    assert (len(UnlabelledFaces(tmp_path)), len(UnlabelledFaces(tmp_path, first))) == (1, 9)
    assert choose(store, [], map(digest_of, range(9)))[1] == first != second
    assert len(UnlabelledFaces(tmp_path)) == 9  # the last one, again
    assert store.database.rows("SELECT count(*) FROM selected") == [(10,)]  # and not kept twice
    with pytest.raises(FileNotFoundError, match="holds no such faces; ingest the photos first"):
        UnlabelledFaces(tmp_path, "another")
    with pytest.raises(FileNotFoundError, match="holds no such faces; ingest the photos first"):
        UnlabelledFaces(tmp_path / "nowhere")


def test_an_ingest_that_another_one_displaced_is_an_error_and_not_fewer_faces(tmp_path):
    store = FaceStore(tmp_path, SETTINGS)
    token = store.begin()
    store.meet(token, [digest_of(0)], ["a.jpg: no picture"])
    FaceStore(tmp_path, SETTINGS).begin()
    for what in (lambda: store.meet(token, []), lambda: store.choose(token, LIMITS, tmp_path / "damaged.txt")):
        with pytest.raises(ValueError, match="was taken by another ingest meanwhile; run one at a time"):
            what()
    assert not (tmp_path / "damaged.txt").exists()


def test_a_file_that_others_hold_is_one_sentence(tmp_path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda file, **more: connect(file, **{**more, "timeout": 0.1}))
    store = FaceStore(tmp_path, SETTINGS)
    with Database(tmp_path / FILE).writing(), pytest.raises(OSError, match="is locked by another process; end it"):
        store.begin()
    store.begin()


def test_memory_does_not_grow_with_the_faces(tmp_path):
    """Eight times as many faces may take an eighth more, in Python's own memory and in SQLite's, which is resident."""

    def peak(count):
        store = FaceStore(tmp_path / str(count), SETTINGS)
        tracemalloc.start()
        token = store.begin()
        for first in range(0, count, 500):
            digests = [digest_of(number) for number in range(first, first + 500)]
            for digest in digests:
                store.add(digest, FoundPhoto("a.jpg", (9, 9), [found()]), [CROP])
            store.meet(token, digests)
        assert store.choose(token, LIMITS, tmp_path / "damaged.txt")[0]["kept"] == count
        faces = UnlabelledFaces(store.folder)
        assert faces.image(count // 2).shape == CROP.shape
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(500)  # what is imported late
    few = peak(1000)
    before = resident()
    assert peak(8000) < 1.15 * few
    assert resident() - before < 12_000_000, "SQLite's cache of pages is 2 MB a connection"


def resident():
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
