"""The pairs of ``experiments/cross_domain``, on synthetic faces in files of the published forms; unlabelled photos."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from cross_domain_files import L19, L68, L98, errors_on, save, wflw_points, write_300w, write_aflw, write_wflw
from test_readers_mat import write_cofw

from experiments.cross_domain import pairs, photos
from pipnet.data.images import read_image
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import AFLW_19_IN_300W_68, map_points


def test_wflw_to_300w(tmp_path):
    faces = draw_faces(5, seed=2, size=96)
    write_300w(tmp_path, faces[:2])
    write_300w(tmp_path, faces[2:3], "ibug")
    write_wflw(tmp_path, faces[3:])
    sets, errors = errors_on("wflw_300w", tmp_path, save(tmp_path / "best.pt", 0, L98))
    assert (sets["source"].title, sets["target"].title) == ("WFLW-2", "300W-3")
    assert {name: int(chosen.sum()) for name, chosen in sets["target"].subsets().items()} == {
        "all": 3,
        "common": 2,
        "helen": 2,
        "challenge": 1,
        "ibug": 1,
    }
    assert errors["source"].keys() == {"outer_eye", "box"}  # of 98 points
    assert errors["target"].keys() == {"outer_eye", "box", "nose_eyes", "without_offsets"}
    assert all(np.isfinite(values).all() for norms in errors.values() for values in norms.values())


def test_300w_to_cofw68(tmp_path):
    faces = draw_faces(4, seed=3, size=96)
    write_300w(tmp_path, faces[:2])
    (tmp_path / "COFW").mkdir()
    points = np.zeros((2, 29, 2))  # of the 29-point labels, which this set does not use
    keys = ("IsT", "phisT", "bboxesT")
    write_cofw(tmp_path / "COFW" / "COFW_test_color.mat", [face.image for face in faces[2:]], points, keys=keys)
    labels = tmp_path / "COFW68_Data" / "test_annotations"
    labels.mkdir(parents=True)
    for number, face in enumerate(faces[2:], start=1):
        scipy.io.savemat(labels / f"{number}_points.mat", {"Points": face.points + 1, "Occ": np.zeros((68, 1))})
    path = save(tmp_path / "best.pt", 0)
    sets, errors = errors_on("300w_cofw68", tmp_path, path)
    assert sets["target"].title == "COFW-68-2"
    assert list(sets["target"].subsets()) == ["all"]
    write_wflw(tmp_path, faces[2:])  # the same faces as another set
    _, expected = errors_on("300w_wflw", tmp_path, path)
    np.testing.assert_allclose(errors["target"]["outer_eye"], expected["target"]["outer_eye"], rtol=1e-3)


def test_300w_to_aflw(tmp_path):
    """Cut by the detector's boxes, measured on the points that both sets label; a face not found is a missed one."""
    faces = draw_faces(6, seed=4, size=96)
    write_300w(tmp_path, faces[:2])
    write_aflw(tmp_path, faces[2:])
    found = {read_image(face.image).tobytes(): face.box for face in faces[:5]}
    asked = []

    def detector(image):
        asked.append(image)
        boxes = [found[image.tobytes()]] if image.tobytes() in found else np.zeros((0, 4))
        return Detections(boxes, np.ones(len(boxes)))

    path = save(tmp_path / "best.pt", 0)
    sets, errors = errors_on("300w_aflw", tmp_path, path, pairs.remembered(lambda: detector))
    assert len(asked) == 2  # Common is cut by its labels
    assert sets["target"].title == "AFLW-2"
    assert set(errors["target"]) == {"label_box", "box"}  # there is no pair of outer eyes in this layout
    by_box = errors["target"]["box"]
    assert np.isinf(by_box).tolist() == [False, True]
    predicted = FaceLandmarker.load(path, runtime="torch")(faces[4].image, boxes=faces[4].box).points[0]
    shared = list(AFLW_19_IN_300W_68.values())
    distances = np.linalg.norm(predicted[shared] - faces[4].points[shared], axis=-1)
    tight = map_points(faces[4].points, L68, L19)
    size = np.sqrt(np.prod(np.ptp(tight, axis=0)))
    assert by_box[0] == pytest.approx(distances.mean() / size, rel=1e-4)


# Mapping to AFLW's points.


def test_68_points_as_19_keep_left_left():
    faces = draw_faces(20, seed=5, size=96)
    for face in faces[:3]:
        np.testing.assert_allclose(map_points(wflw_points(face.points), L98, L68), face.points, atol=1e-9)
    points = np.stack([face.points for face in faces])
    mapped = map_points(points, L68, L19)
    mirrored = map_points(points[:, list(L68.mirror)] * (-1, 1), L68, L19)
    np.testing.assert_allclose(mirrored, mapped[:, list(L19.mirror)] * (-1, 1), atol=1e-9)
    np.testing.assert_allclose(mapped[:, 7], points[:, 36:42].mean(axis=1))
    for own, theirs in AFLW_19_IN_300W_68.items():
        np.testing.assert_array_equal(mapped[:, own], points[:, theirs])
    assert (mapped[:, 18, 1] >= mapped[..., 1].max(axis=1) - 8).all()  # the chin is low


# Photos without labels.


def test_photos_of_cofw(tmp_path):
    faces = draw_faces(3, seed=6, size=48)
    (tmp_path / "COFW").mkdir()
    points = np.random.default_rng(0).uniform(1, 40, (3, 29, 2))
    write_cofw(tmp_path / "COFW" / "COFW_train_color.mat", [face.image for face in faces], points)
    path, count = photos.write_photos("cofw", tmp_path)
    assert (path, count) == (tmp_path / "unlabelled" / "cofw", 3)
    for number, face in enumerate(faces, start=1):
        np.testing.assert_array_equal(read_image(path / f"cofw_train_{number:04d}.png"), face.image)


def test_photos_of_wflw_leave_out_those_with_a_test_face(tmp_path):
    faces = draw_faces(3, seed=7, size=48)
    write_wflw(tmp_path, faces, part="train")
    write_wflw(tmp_path, faces[:1], part="test")
    lists = tmp_path / "WFLW" / "WFLW_annotations" / "list_98pt_rect_attr_train_test"
    shared = (lists / "list_98pt_rect_attr_train.txt").read_text().splitlines()[1]
    with (lists / "list_98pt_rect_attr_test.txt").open("a") as file:
        file.write(shared + "\n")
    path, count = photos.write_photos("wflw", tmp_path)
    listed = [(path.parent / line).resolve() for line in path.read_text().splitlines()]
    expected = [faces[0].name, faces[2].name]
    assert [photo.name for photo in listed] == [f"train_{name}.png" for name in expected]
    assert all(photo.is_file() for photo in listed)
    assert count == 2


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(ValueError, match="no pair 'a_b'; there are: 300w_wflw, wflw_300w, 300w_cofw68, 300w_aflw"):
        pairs.pair_named("a_b")
    with pytest.raises(SystemExit, match="error: no set '300w'; there are: cofw, aflw, wflw"):
        photos.main(["300w", "/nowhere"])
