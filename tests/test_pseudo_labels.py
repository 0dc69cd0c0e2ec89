"""Pseudo-labels: what a teacher says, how sure it is, and that no kill and no number of processes changes it."""

import csv
import errno
import json
import pickle
import signal
from dataclasses import replace
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from known_faces import FakeLandmarker
from small_training import CPU, LAYOUT

from pipnet.data.dataset import FaceCrops
from pipnet.data.images import read_image
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.geometry import box_size, tight_box, turned
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import layout_from_dict
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.codec import mean_shape
from pipnet.model.pipnet import PIPNet, Prediction, Votes
from pipnet.self_training import pseudo_labels
from pipnet.self_training import teacher as looking
from pipnet.self_training.face_store import FACE, UnlabelledFaces, crop_path
from pipnet.self_training.pseudo_labels import PseudoLabels, Selection, write_sheet, write_table
from pipnet.self_training.teacher import estimate, weights_digest
from pipnet.training.distributed import Processes
from pipnet.training.state import TrainingError

ALONE = Processes(rank=0, world_size=1, device=CPU)
COUNT = 7
SHIFT = 0.02


ZOOM, CORNER = 0.5, np.array([100.0, 30.0])  # of every crop in its photo: pixel p lies at CORNER + p / ZOOM


def photo_name(index):
    return f"photo {index} \udcff.jpg"  # names of files are bytes, not all of them UTF-8


def write_pool(folder, samples):
    """A pool as gather leaves it: lossless crops, so that a face can be found again by its pixels."""
    rows = np.zeros(len(samples), FACE)
    for index, sample in enumerate(samples):
        digest = f"{index:032x}"
        rows[index] = (np.frombuffer(bytes.fromhex(digest), np.uint8), 0, sample.box, sample.angle, 0.9)
        file = crop_path(folder, digest, 0)
        file.parent.mkdir(parents=True, exist_ok=True)
        _, data = cv2.imencode(".png", sample.image[..., ::-1])
        file.write_bytes(data.tobytes())
        photo = folder / "photos" / digest[:2] / f"{digest}.json"
        photo.parent.mkdir(parents=True, exist_ok=True)
        box = CORNER + np.reshape(sample.box, (2, 2)) / ZOOM
        face = {"box": box.ravel().tolist(), "crop_box": np.ravel(sample.box).tolist()}
        photo.write_text(json.dumps({"source": photo_name(index), "faces": [face]}))
    np.save(folder / "faces.npy", rows)
    return UnlabelledFaces(folder)


@pytest.fixture(scope="module")
def samples():
    return draw_faces(COUNT, seed=3, size=96)


@pytest.fixture(scope="module")
def pool(tmp_path_factory, samples):
    return write_pool(tmp_path_factory.mktemp("pool"), samples)


def teacher(seed=0):
    torch.manual_seed(seed)
    mean_face = mean_shape(
        FaceCrops(draw_faces(4, seed=0, size=96), LAYOUT, input_size=64, box_scale=1.25).plain_points()
    )
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=3, input_size=64)
    torch.nn.init.normal_(net.head.weight, std=0.02)
    return net.eval()


def label(pool, folder, net=None, team=ALONE, **more):
    arguments = {"layout": LAYOUT, "box_scale": 1.25, "label_shift": SHIFT, "team": team, "batch_size": 4, **more}
    return estimate(net or teacher(), pool, folder, **arguments)


def numbers(labels):
    return [np.stack([labels.points(i) for i in range(len(labels))]), np.array(labels.spread), labels.disagreement[:]]


def test_points_are_those_of_the_landmarker(pool, tmp_path):
    """The last look of one view: the crop of the tight box of what the landmarker found, turned as it turned it."""
    net = teacher()
    labels = label(pool, tmp_path, net)
    landmarker = FaceLandmarker.from_model(LoadedModel(net, LAYOUT, 1.25, {}))
    for index in range(COUNT):
        image, told = read_image(pool.path(index)), Detections(pool.boxes[[index]], [1.0], [0.0])
        first = landmarker(image, boxes=told)
        box = tight_box(first.points.astype(np.float64), first.angles)
        again = landmarker(image, boxes=box, angles=first.angles)
        np.testing.assert_allclose(labels.points(index), again.points[0], atol=2e-3)
        assert labels.angle[index] == pytest.approx(first.angles[0], abs=1e-3)
    assert (labels.disagreement[:] == 0).all()
    assert (labels.spread[:] >= 0).all()
    assert labels.spread[:].mean() > 0.1


def test_a_kill_and_more_processes_change_no_number(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(looking, "_CHUNK", 3)
    whole = label(pool, tmp_path / "whole", views=3)

    class KilledError(Exception):
        pass

    calls = []
    read = looking.read_image

    def fail(path):
        calls.append(path)
        if len(calls) == 5:  # in the second chunk
            raise KilledError
        return read(path)

    monkeypatch.setattr(looking, "read_image", fail)
    with pytest.raises(KilledError):
        label(pool, tmp_path / "parts", views=3)
    assert [file.name for file in (tmp_path / "parts" / "chunks").iterdir()] == ["000000.npz"]
    with pytest.raises(FileNotFoundError, match="no finished pseudo-labels; estimate them first"):
        PseudoLabels(tmp_path / "parts", pool)
    leftovers = [tmp_path / "parts" / ".points-x.npy", tmp_path / "parts" / "chunks" / ".000001-x.npz"]
    for leftover in leftovers:
        leftover.write_bytes(b"half")
    # The second of two processes does its share and waits in vain, then the first one alone does the rest.
    with monkeypatch.context() as patch:
        patch.setattr(Processes, "from_main", lambda self, make: False)
        patch.setattr(looking.time, "sleep", lambda seconds: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(TrainingError, match="stopped on request while faces were labelled; the same command"):
            label(pool, tmp_path / "parts", views=3, team=Processes(rank=1, world_size=2, device=CPU))
    chunks = tmp_path / "parts" / "chunks"
    assert sorted(file.name for file in chunks.glob("0*")) == ["000000.npz", "000001.npz"]
    calls.clear()
    parts = label(pool, tmp_path / "parts", views=3)
    assert len(calls) == 1  # the last chunk has one face
    assert not any(leftover.exists() for leftover in leftovers)
    for a, b in zip(numbers(whole), numbers(parts), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(file.name for file in (tmp_path / "parts").iterdir()) == [
        "angle.npy",
        "disagreement.npy",
        "done.json",
        "points.npy",
        "spread.npy",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_ends_with_one_sentence_and_the_same_call_goes_on(pool, tmp_path, monkeypatch, number):
    monkeypatch.setattr(looking, "_CHUNK", 4)
    whole, looks = label(pool, tmp_path / "whole"), []
    look = looking.Teacher.look

    def asked(self, *arguments):
        looks.append(1)
        if len(looks) == 2:  # the second chunk
            signal.raise_signal(number)
        return look(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(looking.Teacher, "look", asked)
        with pytest.raises(TrainingError, match="stopped on request while faces were labelled; the same command goes"):
            label(pool, tmp_path / "parts")
    assert [file.name for file in (tmp_path / "parts" / "chunks").iterdir()] == ["000000.npz"]
    for a, b in zip(numbers(whole), numbers(label(pool, tmp_path / "parts")), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_disk_that_fills_up_while_labels_are_put_together_is_one_sentence(pool, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array_header_1_0", full)
        with pytest.raises(OSError, match=r"points.npy can't be written: No space left on device; free disk space"):
            label(pool, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["begun.json", "chunks"]
    assert len(label(pool, tmp_path)) == COUNT


def test_a_damaged_note_of_labels_is_named(pool, tmp_path):
    (tmp_path / "begun.json").write_text("{")
    with pytest.raises(ValueError, match=r"begun.json is damaged .*; delete the folder it is in"):
        label(pool, tmp_path)


def test_finished_labels_are_read_back_and_never_written_again(pool, tmp_path):
    first = label(pool, tmp_path)
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.iterdir()}
    again = label(pool, tmp_path)
    np.testing.assert_array_equal(first.points(2), again.points(2))
    for net, more, name in ((teacher(1), {}, "teacher"), (None, {"views": 2}, "views")):
        with pytest.raises(ValueError, match=f"with {name}=.*, now {name}=.*never written over: choose another folder"):
            label(pool, tmp_path, net, **more)
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.iterdir()} == before
    assert again.about["teacher"] == weights_digest(teacher()) != weights_digest(teacher(1))


def test_labels_begun_by_another_teacher_are_refused(pool, tmp_path, monkeypatch):
    def fail(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(looking, "read_image", fail)
        with pytest.raises(KeyboardInterrupt):
            label(pool, tmp_path)
    with pytest.raises(ValueError, match="with teacher="):
        label(pool, tmp_path, teacher(1))
    assert len(label(pool, tmp_path)) == COUNT


# --- views


class Seeing(torch.nn.Module):
    """A network that finds two dots, red and green, wherever they are, and was taught as FaceCrops teaches.

    Its labels sit ``SHIFT`` sides of the box to the right of the dots, in mirrored faces as well, where red is green.
    """

    input_size = 64
    grid = 2
    num_points = 2
    box_side_unit = 1 / 2.0  # of the crop, with box_scale 2

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.mirrored = []

    arguments: ClassVar = {"mean_face": [[0.25, 0.5], [0.75, 0.5]]}

    def predict(self, crops):
        points = self.count_votes(self.normalize(crops)).points_unit
        return Prediction(points, torch.ones(len(points), 2), torch.ones(len(points)))

    def normalize(self, crops):
        return crops.float()

    def forward(self, images):
        return images

    def count_votes(self, images):
        grid = (torch.arange(64) + 0.5) / 64
        points = []
        for channel in (0, 1):
            mass = images[:, channel]
            total = mass.sum(dim=(1, 2))
            x = (mass.sum(dim=1) * grid).sum(dim=1) / total
            y = (mass.sum(dim=2) * grid).sum(dim=1) / total
            points.append(torch.stack([x, y], dim=1))
        points = torch.stack(points, dim=1)  # (B, 2, 2) red, green
        swap = points[:, 0, 0] > points[:, 1, 0]  # point 0 is the left one
        self.mirrored.append(swap.tolist())
        points = torch.where(swap[:, None, None], points.flip(1), points)
        points[..., 0] += SHIFT * self.box_side_unit
        spread = torch.tensor([[1.0, 3.0]]).expand(len(points), 2)
        return Votes(points, spread, spread)


def dots(tmp_path, quarters=0):
    """Two dots on a photo that is turned to the right so many times, with the box and angle that a detector gives."""
    image = np.zeros((160, 160, 3), np.uint8)
    places = np.array([[60.0, 80.0], [100.0, 80.0]])
    for channel, (x, y) in enumerate(places):
        plane = image[..., channel].copy()
        cv2.circle(plane, (int(x), int(y)), 3, 255, -1, cv2.LINE_AA)
        image[..., channel] = plane
    image, angle = np.rot90(image, -quarters), 90.0 * quarters
    places = turned(places - 79.5, angle) + 79.5
    centre = turned(np.array([0.5, 0.5]), angle) + 79.5
    half = np.array([20.0, 10.0])
    box = np.concatenate([centre - half, centre + half])
    sample = replace(draw_faces(1, seed=0, size=96)[0], image=image, box=box, angle=angle)
    return write_pool(tmp_path, [sample]), places


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_mirrored_views_are_undone_to_where_the_labels_of_upright_ones_sit(tmp_path, quarters):
    """Whichever way the face is turned: its right is along its own eyes."""
    layout = layout_from_dict({"name": "two", "num_points": 2, "mirror_pairs": [[0, 1]]})
    pool, places = dots(tmp_path, quarters)
    expected = places + turned(np.array([SHIFT * 40, 0]), 90.0 * quarters)  # the longer side of the box is 40 px
    net, found = Seeing(), []
    for views in (1, 2, 5):
        folder = tmp_path / str(views)
        arguments = {"layout": layout, "box_scale": 2.0, "label_shift": SHIFT, "team": ALONE, "views": views}
        labels = estimate(net, pool, folder, **arguments)
        np.testing.assert_allclose(labels.points(0), expected, atol=0.15)
        np.testing.assert_allclose(
            turned(np.array([1.0, 0]), labels.angle[0]), turned(np.array([1.0, 0]), 90 * quarters), atol=1e-2
        )
        found.append(labels)
    assert [swap for (swap,) in net.mirrored] == [
        *(False, False),  # the landmarker's look, then the only view
        *(False, False, True),
        *(False, False, True, False, True, False),
    ]
    one, two, five = found
    np.testing.assert_allclose(one.spread[0], [1, 3])
    np.testing.assert_allclose(two.spread[0], [2, 2])  # of a mirrored view the spreads change places
    np.testing.assert_allclose(five.spread[0], [9 / 5, 11 / 5], rtol=1e-6)


def test_disagreement_is_the_distance_of_the_views_in_box_sizes():
    class Moving:
        """Points of a square, a pixel further right at each look, whatever it shows."""

        input_size = 64

        def __init__(self):
            self.looks = 0

        def __call__(self, images, crops):
            self.looks += 1
            square = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]]) + np.array([self.looks - 1, 0])
            return np.stack([square] * len(crops)), np.ones((len(crops), 4))

    looker = looking.Teacher(teacher(), LAYOUT, 1.25, 0.0, 3, 0, 4)
    looker.mirror = np.arange(4)
    looker._see = Moving()
    image = np.zeros((20, 20, 3), np.uint8)
    looker._landmarker = FakeLandmarker(LAYOUT, lambda face, box: np.repeat([[0.0, 0], [10, 10]], [34, 34], axis=0))
    found = looker.look([image], np.array([[0.0, 0, 10, 10]]), np.zeros(1), range(1))
    np.testing.assert_allclose(found.points[0, :, 0], [1, 11, 1, 11])  # of three looks
    np.testing.assert_allclose(found.disagreement[0], np.sqrt(2 / 3) / 10, rtol=1e-5)


# --- samples


def test_samples_train_as_labelled_faces_do(pool, tmp_path):
    labels = label(pool, tmp_path)
    crops = FaceCrops(labels.samples(), LAYOUT, input_size=64, box_scale=1.25, pool=2)
    assert len(crops) == COUNT
    sample = crops.samples[4]
    assert (sample.name, sample.image, sample.weight) == (pool.name(4), pool.path(4), None)
    np.testing.assert_array_equal(sample.box, tight_box(labels.points(4), labels.angle[4]))
    assert crops[0, 4]["pool"] == 2
    with pytest.raises(IndexError):
        crops.samples[COUNT]


def test_a_selection_weighs_and_leaves_out(pool, tmp_path):
    labels = label(pool, tmp_path, views=2)
    confidence = labels.confidence_of(slice(None))
    assert confidence.shape == (COUNT, 68)
    assert ((confidence > 0) & (confidence <= 1)).all()
    least = float(np.median(labels.face_confidence))
    chosen = labels.samples(Selection(weighted=True, min_face=least))
    kept = np.flatnonzero(confidence.mean(axis=1) >= least)
    assert [sample.name for sample in chosen] == [pool.name(index) for index in kept]
    for sample, index in zip(chosen, kept.tolist(), strict=True):
        np.testing.assert_array_equal(sample.points, labels.points(index))
        np.testing.assert_array_equal(sample.weight, confidence[index])
        np.testing.assert_array_equal(sample.box, tight_box(labels.points(index), labels.angle[index]))
    with pytest.raises(ValueError, match=r"min_face is a confidence and lies in \[0, 1\], got 3"):
        Selection(min_face=3)


def test_confidence_falls_with_spread_and_with_disagreement(pool, tmp_path):
    labels = label(pool, tmp_path)
    labels.spread = np.array([[0.0, 0.1, 0.5, 0.5]])
    labels.disagreement = np.array([[0.0, 0.0, 0.0, 0.05]])
    confidence = labels.confidence_of(0)
    assert confidence[0] == 1
    assert (np.diff(confidence) < 0).all()


def test_a_loader_process_gets_paths_and_no_arrays(pool, tmp_path):
    labels = label(pool, tmp_path)
    samples = labels.samples(Selection(weighted=True))
    packed = pickle.dumps(samples)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed)[3].points, samples[3].points)


def test_labels_of_other_faces_are_refused(pool, tmp_path, samples):
    label(pool, tmp_path / "labels")
    other = write_pool(tmp_path / "pool", samples[:2])
    with pytest.raises(ValueError, match=r"labels 7 faces, .* has 2; use another folder"):
        PseudoLabels(tmp_path / "labels", other)
    with pytest.raises(ValueError, match="with pool="):
        label(other, tmp_path / "labels")


# --- for the eye


def test_the_table_holds_every_number(pool, tmp_path):
    labels = label(pool, tmp_path, views=2)
    write_table(labels, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [photo_name(index) for index in range(COUNT)]
    for index, row in enumerate(rows):
        assert pool.folder / row["crop"] == pool.path(index)
        points = np.array([[float(row[f"x_{n}"]), float(row[f"y_{n}"])] for n in range(68)])
        in_photo = CORNER + labels.points(index) / ZOOM
        np.testing.assert_allclose(points, in_photo, atol=6e-4)
        assert [float(row[f"confidence_{n}"]) for n in range(68)] == pytest.approx(
            labels.confidence_of(index), abs=6e-4
        )
        assert float(row["confidence"]) == pytest.approx(labels.face_confidence[index], abs=6e-4)
        box = [float(row[name]) for name in ("x0", "y0", "x1", "y1")]
        assert box == pytest.approx(tight_box(in_photo), abs=6e-3)
        assert box_size(np.array(box)) > 0


@pytest.mark.parametrize("content", [None, "{", "{}", '{"source": "a.jpg", "faces": []}'])
def test_a_table_of_photos_that_the_pool_forgot_is_one_sentence(samples, tmp_path, content):
    pool = write_pool(tmp_path / "pool", samples)
    labels = label(pool, tmp_path / "labels")
    photo = tmp_path / "pool/photos/00" / f"{2:032x}.json"
    photo.unlink() if content is None else photo.write_text(content)
    with pytest.raises(ValueError, match=rf"{photo.name} is missing or damaged \(.*\); delete .*faces\.npy, and"):
        write_table(labels, tmp_path / "table.csv")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == []


def test_the_sheet_goes_from_sure_to_unsure(pool, tmp_path, monkeypatch):
    labels = label(pool, tmp_path, views=2)
    drawn = []
    tile = pseudo_labels._tile

    def watch(labels, index):
        drawn.append(index)
        return tile(labels, index)

    monkeypatch.setattr(pseudo_labels, "_tile", watch)
    write_sheet(labels, tmp_path / "sheet.png", count=4)
    means = labels.face_confidence[drawn]
    assert len(drawn) == 4
    assert (np.diff(means) < 0).all()
    assert (means[0], means[-1]) == (labels.face_confidence.max(), labels.face_confidence.min())
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet.shape == (186, 660, 3)
