"""Readers of MATLAB labels (COFW, COFW-68, AFLW), on small files written here in the published form."""

import cv2
import h5py
import numpy as np
import pytest
import scipy.io

from pipnet.data.datasets import read_dataset
from pipnet.data.images import BadSampleError
from pipnet.layouts import get_layout

L29, L68, L19 = get_layout("cofw_29"), get_layout("300w_68"), get_layout("aflw_19")


def points_of(seed, count):
    return np.random.default_rng(seed).uniform(10, 50, (count, 2)).round(2)


def colour_photo():
    """Height 30, width 40, and a different number in every channel and pixel, so that a transposition shows."""
    return (np.arange(30 * 40 * 3) % 251).astype(np.uint8).reshape(30, 40, 3)


def write_cofw(path, photos, points, *, occluded=None, keys=("IsTr", "phisTr", "bboxesTr"), boxes=None):
    """MATLAB 7.3 keeps columns first, so HDF5 sees every array transposed."""
    count = len(photos)
    occluded = np.zeros((count, points.shape[1])) if occluded is None else occluded
    phis = np.concatenate([points[..., 0], points[..., 1], occluded], axis=1)  # (F, 3N)
    boxes = np.tile([11.0, 21.0, 40.0, 30.0], (count, 1)) if boxes is None else boxes
    with h5py.File(path, "w") as file:
        references = file.create_dataset(keys[0], (1, count), dtype=h5py.ref_dtype)
        for i, photo in enumerate(photos):
            references[0, i] = file.create_dataset(f"#refs#/{i}", data=photo.T).ref
        file[keys[1]] = phis.T
        file[keys[2]] = boxes.T


@pytest.fixture
def cofw(tmp_path):
    photos = [colour_photo(), colour_photo()[..., 0], colour_photo()[:20]]
    points = np.stack([points_of(i, 29) for i in range(3)])
    occluded = np.zeros((3, 29))
    occluded[1, [2, 5]] = 1
    write_cofw(tmp_path / "COFW_train_color.mat", photos, points, occluded=occluded)
    keys = ("IsT", "phisT", "bboxesT")
    write_cofw(tmp_path / "COFW_test_color.mat", photos[:2], points[:2] + 1, keys=keys)
    return tmp_path


def read_cofw(root, on_bad="raise", **options):
    return read_dataset("cofw", root=root, layout=L29, on_bad=on_bad, **options)


def test_cofw_values(cofw):
    samples, bad = read_cofw(cofw)
    assert [s.name for s in samples] == ["cofw_train_0001", "cofw_train_0002", "cofw_train_0003"]
    np.testing.assert_array_equal(samples[0].image, colour_photo())
    np.testing.assert_array_equal(samples[1].image, np.stack([colour_photo()[..., 0]] * 3, axis=-1))  # grey
    assert samples[2].image.shape == (20, 40, 3)
    np.testing.assert_allclose(samples[0].points, points_of(0, 29) - 1)
    assert np.flatnonzero(samples[1].occluded).tolist() == [2, 5]
    np.testing.assert_allclose(samples[2].box, [*samples[2].points.min(axis=0), *samples[2].points.max(axis=0)])
    assert len(bad) == 0
    # x = 11, width = 40 counted from 1 are the columns 11..50, which are 10..49 counted from 0.
    np.testing.assert_array_equal(read_cofw(cofw, box="rectangle")[0][0].box, [10, 20, 49, 49])
    test = read_cofw(cofw, part="test")[0]
    assert [s.name for s in test] == ["cofw_test_0001", "cofw_test_0002"]
    np.testing.assert_allclose(test[0].points, points_of(0, 29))


def test_cofw_validation(tmp_path):
    count = 40
    points = np.stack([points_of(i, 29) for i in range(count)])
    write_cofw(tmp_path / "COFW_train_color.mat", [np.zeros((60, 60), np.uint8)] * count, points)
    only, exclude = ({s.name for s in read_cofw(tmp_path, validation=v)[0]} for v in ("only", "exclude"))
    assert len(only) + len(exclude) == count
    assert 0 < len(only) < 10
    assert not only & exclude


def test_cofw_bad_record(cofw):
    points = np.stack([points_of(i, 29) for i in range(3)])
    points[1, 7] = np.nan
    photos = [colour_photo()] * 2 + [np.zeros((5, 5, 2), np.uint8)]
    write_cofw(cofw / "COFW_train_color.mat", photos, points)
    with pytest.raises(BadSampleError, match=r"COFW_train_color\.mat, record 2: point 7 is \[nan, nan\]"):
        read_cofw(cofw)
    samples, bad = read_cofw(cofw, on_bad="skip")
    assert [s.name for s in samples] == ["cofw_train_0001"]
    assert "record 3: the photo can't be read" in bad.reasons[1]
    points[1, 7] = 1e9, 5
    write_cofw(cofw / "COFW_train_color.mat", photos, points)
    with pytest.raises(BadSampleError, match=r"mat, record 2: point 7, 999999999, 4, lies more than 3"):
        read_cofw(cofw)


def test_cofw_wrong_files(tmp_path, cofw):
    with pytest.raises(ValueError, match=r"labels \(3, 87\) for 3 photos, expected 204 values"):
        read_dataset("cofw", root=cofw, layout=L68)
    whole = (cofw / "COFW_test_color.mat").read_bytes()
    (cofw / "COFW_test_color.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"COFW_test_color\.mat: not a whole MATLAB 7\.3"):
        read_cofw(cofw, part="test")
    write_cofw(cofw / "COFW_test_color.mat", [colour_photo()], points_of(0, 29)[None])
    with pytest.raises(ValueError, match=r"no 'IsT' in it, only #refs#, IsTr, bboxesTr, phisTr"):
        read_cofw(cofw, part="test")
    (cofw / "COFW_test_color.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"COFW_test_color\.mat does not exist; expected COFW_train_color\.mat"):
        read_cofw(cofw, part="test")


@pytest.fixture
def cofw68(tmp_path):
    points = np.stack([points_of(i, 29) for i in range(2)])
    (tmp_path / "COFW").mkdir()
    keys = ("IsT", "phisT", "bboxesT")
    write_cofw(tmp_path / "COFW" / "COFW_test_color.mat", [colour_photo()] * 2, points, keys=keys)
    root = tmp_path / "COFW68_Data"
    (root / "test_annotations").mkdir(parents=True)
    occluded = np.zeros((68, 1), np.uint8)
    occluded[3] = 1
    for i in range(2):
        label = {"Points": points_of(i + 10, 68), "Occ": occluded}
        scipy.io.savemat(root / "test_annotations" / f"{i + 1}_points.mat", label)
    scipy.io.savemat(root / "cofw68_test_bboxes.mat", {"bboxes": np.array([[1.0, 1, 10, 20], [3, 4, 10, 20]])})
    return root


def read_cofw68(root, on_bad="raise", **options):
    return read_dataset("cofw68", root=root, layout=L68, on_bad=on_bad, images="../COFW", **options)


def test_cofw68_values(cofw68):
    samples, bad = read_cofw68(cofw68)
    assert [s.name for s in samples] == ["cofw_test_0001", "cofw_test_0002"]
    np.testing.assert_allclose(samples[1].points, points_of(11, 68) - 1)
    np.testing.assert_array_equal(samples[0].image, colour_photo())
    assert np.flatnonzero(samples[0].occluded).tolist() == [3]
    assert len(bad) == 0
    np.testing.assert_array_equal(read_cofw68(cofw68, box="rectangle")[0][1].box, [2, 3, 11, 22])


def test_cofw68_bad_labels(cofw68):
    folder = cofw68 / "test_annotations"
    scipy.io.savemat(folder / "1_points.mat", {"Points": points_of(0, 67)})
    (folder / "2_points.mat").unlink()
    with pytest.raises(BadSampleError, match=r"1_points\.mat: points \(67, 2\), expected \(68, 2\); replace the file"):
        read_cofw68(cofw68)
    with pytest.raises(ValueError, match="2 items were skipped"):
        read_cofw68(cofw68, on_bad="skip")
    scipy.io.savemat(folder / "1_points.mat", {"Points": points_of(0, 68)})
    samples, bad = read_cofw68(cofw68, on_bad="skip")
    assert samples[0].occluded is None
    assert "2_points.mat: no such label for photo 2" in bad.reasons[0]
    (folder / "2_points.mat").write_bytes(b"not a mat file, but long enough to have a header" * 10)
    assert "2_points.mat: not a whole MATLAB v5 file" in read_cofw68(cofw68, on_bad="skip")[1].reasons[0]


@pytest.fixture
def aflw(tmp_path):
    points = np.stack([points_of(i, 19) for i in range(5)])  # (F, N, 2)
    mask = np.ones((5, 19), np.uint8)
    mask[3, [0, 4]] = 0
    names = np.empty((5, 1), dtype=object)
    names[:, 0] = [f"{i % 2}/image{i:05d}.jpg" for i in range(5)]
    for (name,) in names:
        path = tmp_path / "flickr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.zeros((60, 60, 3), np.uint8))
    scipy.io.savemat(
        tmp_path / "AFLWinfo_release.mat",
        {
            "data": np.concatenate([points[..., 0], points[..., 1]], axis=1),
            "bbox": np.array([[i, 50 + i, 2 * i, 60] for i in range(5)], dtype=float),  # x0, x1, y0, y1
            "nameList": names,
            "ra": np.array([[4, 1, 5, 2, 3]]),  # counted from 1
            "mask_new": mask,
        },
    )
    return tmp_path


def read_aflw(root, on_bad="raise", **options):
    return read_dataset("aflw", root=root, layout=L19, on_bad=on_bad, train_faces=3, **options)


def test_aflw_values(aflw):
    train = read_aflw(aflw, part="train")[0]
    test = read_aflw(aflw, part="test")[0]
    assert [s.name for s in train] == ["aflw_00004", "aflw_00001", "aflw_00005"]
    assert [s.name for s in test] == ["aflw_00002", "aflw_00003"]
    np.testing.assert_array_equal(train[0].points, points_of(3, 19))
    assert train[0].image == aflw / "flickr" / "1" / "image00003.jpg"
    assert np.flatnonzero(train[0].occluded).tolist() == [0, 4]
    assert train[0].subsets == ()
    assert train[1].subsets == ("frontal",)
    np.testing.assert_array_equal(read_aflw(aflw, box="rectangle")[0][0].box, [3, 6, 53, 60])


def test_aflw_bad_items(aflw):
    (aflw / "flickr" / "0" / "image00004.jpg").unlink()
    with pytest.raises(BadSampleError, match=r"AFLWinfo_release\.mat, face 5: no photo .*image00004\.jpg"):
        read_aflw(aflw)
    assert [s.name for s in read_aflw(aflw, on_bad="skip")[0]] == ["aflw_00004", "aflw_00001"]


def test_aflw_wrong_files(aflw):
    with pytest.raises(ValueError, match=r"data \(5, 38\) and bbox \(5, 4\), expected \(F, 58\)"):
        read_dataset("aflw", root=aflw, layout=L29)
    mat = scipy.io.loadmat(aflw / "AFLWinfo_release.mat")
    content = {key: mat[key] for key in ("data", "bbox", "nameList")}
    scipy.io.savemat(aflw / "AFLWinfo_release.mat", {**content, "ra": np.array([[1, 1, 2, 3, 4]])})
    with pytest.raises(ValueError, match="nameList or ra does not fit the 5 faces"):
        read_aflw(aflw)
    scipy.io.savemat(aflw / "AFLWinfo_release.mat", content)
    with pytest.raises(ValueError, match="no 'ra' in it, only bbox, data, nameList"):
        read_aflw(aflw)
    (aflw / "AFLWinfo_release.mat").write_bytes(b"x" * 500)
    with pytest.raises(ValueError, match="not a whole MATLAB v5 file"):
        read_aflw(aflw)
