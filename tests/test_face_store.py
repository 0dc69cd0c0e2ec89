"""The store of photos and faces, and the sorted file of faces."""

import hashlib
import json
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipnet.data.images import read_image
from pipnet.self_training.face_store import (
    FaceRules,
    FaceStore,
    FoundFace,
    Notes,
    PhotoRecord,
    UnlabelledFaces,
    assemble,
    crop_path,
    given_up,
    new_walk,
    photo_digest,
)

SETTINGS = {"detector": "retinaface", "face_size": 224}


def digest_of(number):
    return hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest()


def found(number=0, **changes):
    box = tuple(float(side) for side in range(number, number + 4))
    return FoundFace(
        **{"box": box, "score": 0.9, "size": 80.0, "sharpness": 12.0, "inside": 1.0, "crop_box": box, **changes}
    )


def note(walk, rank, photos):
    notes = Notes(walk, rank, FaceRules())
    for digest, faces in photos:
        notes.photo(digest, PhotoRecord("a.jpg", (9, 9), faces))
    notes.finish()


def test_what_is_written_is_read_back(tmp_path):
    store = FaceStore(tmp_path, SETTINGS)
    digest = digest_of(0)
    assert store.read(digest) is None
    record = PhotoRecord("ü\udcff.jpg", (640, 480), [found(), found(1, score=0.3)])
    crops = [np.full((20, 30, 3), value, np.uint8) for value in (50, 200)]
    store.write(digest, record, crops)
    assert FaceStore(tmp_path, SETTINGS).read(digest) == record
    assert read_image(crop_path(tmp_path, digest, 1))[5, 5].tolist() == [200, 200, 200]
    assert sorted(path.name for path in tmp_path.rglob("*.j*")) == sorted(
        ["store.json", f"{digest}.json", f"{digest}-0.jpg", f"{digest}-1.jpg"]
    )


def test_a_record_that_was_damaged_by_hand_is_as_if_it_were_not_there(tmp_path):
    store = FaceStore(tmp_path, SETTINGS)
    store.write(digest_of(0), PhotoRecord("a.jpg", (9, 9)), [])
    file = next((tmp_path / "photos").rglob("*.json"))
    for text in ("", "[]", "7", '{"faces": [{}]}', '{"source": 1'):
        file.write_text(text)
        assert store.read(digest_of(0)) is None


def test_a_store_of_other_settings_is_refused(tmp_path):
    FaceStore(tmp_path, SETTINGS)
    with pytest.raises(ValueError, match=r"holds faces gathered with face_size=224, now 112; use another folder"):
        FaceStore(tmp_path, {**SETTINGS, "face_size": 112})
    (tmp_path / "store.json").write_text(json.dumps({"format": 1, **SETTINGS}))  # of 0.4, which knew no angles
    with pytest.raises(ValueError, match=r"holds faces gathered with format=1, now 2; use another folder"):
        FaceStore(tmp_path, SETTINGS)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(ValueError, match=r"store\.json is damaged, or not of a store of faces; use another folder"):
        FaceStore(tmp_path, SETTINGS)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; the faces need a folder of their own"):
        FaceStore(tmp_path / "file", SETTINGS)
    with pytest.raises(OSError, match="inside can't be made: Not a directory; choose another folder"):
        FaceStore(tmp_path / "file" / "inside", SETTINGS)


def test_a_folder_with_other_files_is_no_store(tmp_path):
    (tmp_path / ".DS_Store").touch()
    FaceStore(tmp_path / "new", SETTINGS)
    with pytest.raises(ValueError, match="holds other files; the faces need a folder of their own"):
        FaceStore(tmp_path, SETTINGS)
    (tmp_path / "new" / "store.json").rename(tmp_path / "new" / ".store-1.json")  # as a kill leaves it
    FaceStore(tmp_path / "new", SETTINGS)
    assert (tmp_path / "new" / "store.json").is_file()


def test_two_that_meet_the_same_photo_at_the_same_moment(tmp_path):
    store, record = FaceStore(tmp_path, SETTINGS), PhotoRecord("a.jpg", (9, 9), [found()])
    crop = np.zeros((9, 9, 3), np.uint8)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: store.write(digest_of(0), record, [crop]), range(40)))
    assert store.read(digest_of(0)) == record
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 3  # and nothing half-written


def test_faces_are_sorted_and_each_appears_once_however_the_photos_were_shared_out(tmp_path):
    photos = [(digest_of(number), [found(number + n) for n in range(number % 4)]) for number in range(300)]
    names = sorted(f"{digest}-{n}" for digest, faces in photos for n in range(len(faces)))
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    many.mkdir()
    walk = new_walk(one)
    note(walk, 0, photos)
    counts = assemble(walk, one, 1)
    walk = new_walk(many)
    for rank in range(3):
        note(walk, rank, photos[::-1][rank::3] + photos[:5])
    again = assemble(walk, many, 3)
    assert (one / "faces.npy").read_bytes() == (many / "faces.npy").read_bytes()
    assert counts == {
        "photos": 300,
        "damaged": 0,
        "duplicates": 0,
        "without_face": 75,
        "detections": 450,
        "kept": 450,
        "dropped": {"unsure": 0, "small": 0, "cut off": 0, "blurred": 0},
    }
    assert again == {**counts, "photos": 315, "duplicates": 15}
    faces = UnlabelledFaces(one)
    assert [faces.name(index) for index in range(len(faces))] == names
    by_name = {f"{digest}-{n}": face for digest, found_there in photos for n, face in enumerate(found_there)}
    assert faces.boxes.tolist() == [list(by_name[name].crop_box) for name in names]
    assert faces.scores.shape == (450,)
    assert faces.path(7).name == f"{names[7]}.jpg"
    sent = pickle.dumps(faces)  # to a worker that loads faces
    assert len(sent) < 1000
    assert pickle.loads(sent).name(449) == names[449]


def test_dropped_faces_are_counted_and_not_there(tmp_path):
    faces = [found(), found(size=9.0), found(score=0.5), found(sharpness=0.1), found(inside=0.2), found(3)]
    walk = new_walk(tmp_path)
    note(walk, 0, [(digest_of(0), faces)])
    counts = assemble(walk, tmp_path, 1)
    assert counts["kept"] == 2
    assert counts["dropped"] == {"unsure": 1, "small": 1, "cut off": 1, "blurred": 1}
    assert [UnlabelledFaces(tmp_path).name(index)[-2:] for index in range(2)] == ["-0", "-5"]


def test_memory_does_not_grow_with_the_faces(tmp_path, monkeypatch):
    """Eight times as many faces may take an eighth more: one part in 256 is all that is held."""

    def peak(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        walk = new_walk(folder)
        tracemalloc.start()
        note(walk, 0, ((digest_of(number), [found()]) for number in range(count)))
        assemble(walk, folder, 1)
        faces = UnlabelledFaces(folder)
        assert len(faces) == count
        assert faces.boxes[count // 2].shape == (4,)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    monkeypatch.setattr("pipnet.self_training.face_store._ROWS_IN_MEMORY", 2000)
    few = peak(3000)  # enough for the notes to be full once
    # Twice: Python's table of interned strings, to which paths add, may grow by megabytes in one of them.
    assert min(peak(24_000), peak(24_001)) < 1.15 * few


def test_notes_that_are_missing_are_an_error_and_not_fewer_faces(tmp_path):
    walk = new_walk(tmp_path)
    note(walk, 0, [(digest_of(0), [found()]), (digest_of(1), [found()])])
    next(walk.glob("*.rows")).unlink()
    with pytest.raises(ValueError, match="was taken by another gathering meanwhile; run one at a time"):
        assemble(walk, tmp_path, 1)
    assert not (tmp_path / "faces.npy").exists()
    late = Notes(walk, 1, FaceRules())
    other = new_walk(tmp_path)
    assert not walk.exists()
    assert other.is_dir()
    for what in (late.finish, lambda: late.damaged(tmp_path / "a.jpg", "no picture")):
        with pytest.raises(ValueError, match="was taken by another gathering meanwhile; run one at a time"):
            what()
    assert not walk.exists()


def test_the_first_reason_to_give_up_is_kept(tmp_path):
    walk = new_walk(tmp_path)
    assert given_up(walk) == ""
    Notes(walk, 1, FaceRules()).give_up("the disk of \udcff is full")
    Notes(walk, 0, FaceRules()).give_up("another process has ended")
    assert given_up(walk) == "the disk of ? is full"


def test_faces_that_cannot_be_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"faces\.npy is not there; gather the faces first"):
        UnlabelledFaces(tmp_path)
    (tmp_path / "faces.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match=r"faces\.npy is damaged \(.*\); delete it and gather again"):
        UnlabelledFaces(tmp_path)
    np.save(tmp_path / "faces.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"faces\.npy holds no faces; delete it and gather again"):
        UnlabelledFaces(tmp_path)


def test_the_source_of_a_face_can_be_asked(tmp_path):
    store = FaceStore(tmp_path, SETTINGS)
    store.write(digest_of(0), PhotoRecord("wedding/7.jpg", (9, 9), [found()]), [np.zeros((9, 9, 3), np.uint8)])
    walk = new_walk(tmp_path)
    note(walk, 0, [(digest_of(0), [found()])])
    assemble(walk, tmp_path, 1)
    assert UnlabelledFaces(tmp_path).in_photo(0, np.zeros(2))[0] == "wedding/7.jpg"


def test_the_digest_is_that_of_the_bytes():
    assert photo_digest(b"photo") == hashlib.blake2b(b"photo", digest_size=16).hexdigest()
