"""Pseudo-labels: what a teacher says, how sure it is, and that no kill and no number of processes changes it."""

import csv
import pickle
import signal
from dataclasses import replace
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from known_faces import FakeLandmarker
from processes import CONTEXT
from small_training import CPU, LAYOUT
from torch.utils.data import DataLoader

from pipnet.data.dataset import FaceCrops
from pipnet.data.report import contact_sheet
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.geometry import box_size, tight_box, turned
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import layout_from_dict
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.codec import mean_shape
from pipnet.model.network import Prediction
from pipnet.model.pipnet import PIPNet
from pipnet.self_training import pseudo_labels
from pipnet.self_training.face_store import FaceStore, FoundFace, FoundPhoto, UnlabelledFaces
from pipnet.self_training.pseudo_labels import (
    Selection,
    Teacher,
    estimate,
    weights_digest,
    write_contact_sheet,
    write_table,
)
from pipnet.training.distributed import Processes
from pipnet.training.state import TrainingError

ALONE = Processes(rank=0, world_size=1, device=CPU)
COUNT = 7
SHIFT = 0.02


ZOOM, CORNER = 0.5, np.array([100.0, 30.0])  # of every crop in its photo: pixel p lies at CORNER + p / ZOOM


def photo_name(index):
    return f"photo {index} \udcff.jpg"  # names of files are bytes, not all of them UTF-8


def write_store(folder, samples):
    """A store as ingest leaves it, with lossless crops, so that a face can be found again by its pixels."""
    store, digests = FaceStore(folder, {}), [f"{index:032x}" for index in range(len(samples))]
    for index, (sample, digest) in enumerate(zip(samples, digests, strict=True)):
        box = CORNER + np.reshape(sample.box, (2, 2)) / ZOOM
        face = FoundFace(tuple(box.ravel()), 0.9, 99.0, 99.0, 1.0, tuple(sample.box), sample.angle)
        store.add(digest, FoundPhoto(photo_name(index), (999, 999), [face]), [sample.image])
        data = cv2.imencode(".png", sample.image[..., ::-1])[1].tobytes()
        with store.database.writing() as connection:
            connection.execute("UPDATE crops SET jpeg = ? WHERE id = last_insert_rowid()", [data])
    token = store.begin()
    store.meet(token, digests)
    return UnlabelledFaces(folder, store.choose(token, {"unsure": ("score", 0.5)}, folder / "damaged.txt")[1])


@pytest.fixture(scope="module")
def samples():
    return draw_faces(COUNT, seed=3, size=96)


@pytest.fixture(scope="module")
def faces(tmp_path_factory, samples):
    return write_store(tmp_path_factory.mktemp("store"), samples)


@pytest.fixture
def fresh(tmp_path, samples):
    """A store of the same faces that nobody has labelled."""
    return write_store(tmp_path / "store", samples)


def teacher(seed=0):
    torch.manual_seed(seed)
    mean_face = mean_shape(
        FaceCrops(draw_faces(4, seed=0, size=96), LAYOUT, input_size=64, crop_scale=1.25).plain_points()
    )
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=3, input_size=64)
    torch.nn.init.normal_(net.head.weight, std=0.02)
    return net.eval()


def label(faces, net=None, processes=ALONE, layout=LAYOUT, crop_scale=1.25, **more):
    model = LoadedModel(net or teacher(), layout, crop_scale, {})
    return estimate(Teacher(model, label_shift=SHIFT, batch_size=4, **more), faces, processes)


def numbers(labels):
    """All of them, an array each of points, spread, disagreement and angle."""
    return [np.stack(part) for part in zip(*(labels[index] for index in range(len(labels))), strict=True)]


def assert_same_labels(one, other):
    for a, b in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(a, b)


def labelled(faces):
    """Numbers of the faces that have a label, whose ever."""
    return [face for (face,) in faces.database.rows("SELECT face FROM estimates ORDER BY face")]


def test_points_are_those_of_the_landmarker(faces):
    """The last crop of one view: that of the tight box of what the landmarker found, turned as it turned it."""
    net = teacher()
    labels = label(faces, net)
    landmarker = FaceLandmarker.from_model(LoadedModel(net, LAYOUT, 1.25, {}))
    boxes = faces.found(range(COUNT)).boxes
    for index in range(COUNT):
        image, told = faces.image(index), Detections(boxes[[index]], [1.0], [0.0])
        first = landmarker(image, boxes=told)
        box = tight_box(first.points.astype(np.float64), first.angles)
        again = landmarker(image, boxes=box, angles=first.angles)
        np.testing.assert_allclose(labels[index].points, again.points[0], atol=2e-3)
        assert labels[index].angle == pytest.approx(first.angles[0], abs=1e-3)
        assert labels[index].face_score == pytest.approx(again.face_scores[0], abs=1e-4)
        np.testing.assert_allclose(labels[index].scores, again.scores[0], atol=1e-3)


class OneOfTwo(Processes):
    """The second of two processes, whose first one does nothing and then says that it was asked to stop."""

    def from_main(self, make):
        return make()

    def gathered(self, value):
        done = value[0]
        return [(False, done, None), value]


def test_a_kill_and_more_processes_change_no_number(faces, fresh, monkeypatch):
    monkeypatch.setattr(pseudo_labels, "CHUNK", 3)
    whole = label(faces, views=3)

    class KilledError(Exception):
        pass

    calls = []
    image = UnlabelledFaces.image

    def fail(self, index):
        calls.append(index)
        if len(calls) == 5:  # in the second chunk
            raise KilledError
        return image(self, index)

    monkeypatch.setattr(UnlabelledFaces, "image", fail)
    with pytest.raises(KilledError):
        label(fresh, views=3)
    assert labelled(fresh) == [0, 1, 2]
    # The second of two processes does its share, then the first one alone does the rest.
    with pytest.raises(TrainingError, match="stopped on request while faces were labelled; the same command"):
        label(fresh, views=3, processes=OneOfTwo(rank=1, world_size=2, device=CPU))
    assert labelled(fresh) == [0, 1, 2, 3, 4, 5]
    calls.clear()
    parts = label(fresh, views=3)
    assert calls == [6]
    assert_same_labels(whole, parts)


def test_a_stop_signal_ends_with_one_sentence_and_the_same_call_resumes(faces, fresh, monkeypatch):
    monkeypatch.setattr(pseudo_labels, "CHUNK", 4)
    batches = []
    look = Teacher.estimate

    def asked(self, *arguments):
        batches.append(1)
        if len(batches) == 2:  # the second chunk
            signal.raise_signal(signal.SIGTERM)
        return look(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Teacher, "estimate", asked)
        with pytest.raises(TrainingError, match="stopped on request while faces were labelled; the same command resum"):
            label(fresh)
    assert labelled(fresh) == [0, 1, 2, 3]
    assert_same_labels(label(faces), label(fresh))


def test_finished_labels_are_read_back_and_those_of_others_lie_beside_them(fresh, monkeypatch):
    first = label(fresh)
    before = numbers(first)
    for net, more in ((teacher(1), {}), (None, {"views": 2})):
        other = label(fresh, net, **more)
        assert not np.array_equal(numbers(other)[0], before[0])
    monkeypatch.setattr(UnlabelledFaces, "image", None)  # nothing is looked at again
    again = label(fresh)
    for a, b in zip(before, numbers(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.about["teacher"] == weights_digest(teacher()) != weights_digest(teacher(1))


def test_labels_of_other_faces_are_others(fresh, samples):
    known = label(fresh)
    store = FaceStore(fresh.folder, {})
    token = store.begin()
    store.meet(token, [f"{index:032x}" for index in (1, 3)])
    fewer = UnlabelledFaces(
        fresh.folder, store.choose(token, {"unsure": ("score", 0.5)}, fresh.folder / "damaged.txt")[1]
    )
    labels = label(fewer)
    np.testing.assert_allclose(labels[1].points, known[3].points, atol=1e-3)
    assert len(labels) == 2
    assert_same_labels(known, label(fresh))


class Seeing(torch.nn.Module):
    """A network that finds two dots, red and green, wherever they are, and was taught as FaceCrops teaches.

    Its labels sit ``SHIFT`` sides of the box to the right of the dots, in mirrored faces as well, where red is green.
    """

    input_size = 64
    grid = 2
    num_points = 2
    box_side_unit = 1 / 2.0  # of the crop, with crop_scale 2

    ranks_faces = True

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        self.mirrored = []

    arguments: ClassVar = {"mean_face": [[0.25, 0.5], [0.75, 0.5]]}

    def predict(self, crops):
        images = crops.float()
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
        return Prediction(points, torch.tensor([[0.2, 0.6]]).expand(len(points), 2), torch.ones(len(points)))


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
    return write_store(tmp_path, [sample]), places


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_mirrored_views_are_undone_to_where_the_labels_of_upright_ones_sit(tmp_path, quarters):
    layout = layout_from_dict({"name": "two", "num_points": 2, "mirror_pairs": [[0, 1]]})
    faces, places = dots(tmp_path, quarters)
    expected = places + turned(np.array([SHIFT * 40, 0]), 90.0 * quarters)  # the longer side of the box is 40 px
    net, found = Seeing(), []
    for views in (1, 2, 5):
        labels = label(faces, net, layout=layout, crop_scale=2.0, views=views)[0]
        np.testing.assert_allclose(labels.points, expected, atol=0.15)
        right = np.array([1.0, 0])
        np.testing.assert_allclose(turned(right, float(labels.angle)), turned(right, 90 * quarters), atol=1e-2)
        found.append(labels)
    assert [swap for (swap,) in net.mirrored] == [
        *(False, False),  # the landmarker's, then the only view
        *(False, False, True),
        *(False, False, True, False, True, False),
    ]
    one, two, five = found
    np.testing.assert_allclose(one.scores, [0.2, 0.6])
    np.testing.assert_allclose(two.scores, [0.4, 0.4])  # of a mirrored view the scores change places
    np.testing.assert_allclose(five.scores, [0.36, 0.44], rtol=1e-6)


def test_points_and_scores_are_the_mean_of_the_views():
    class Moving:
        """Points of a square, a pixel further right in each view and less sure, whatever it shows."""

        input_size = 64

        def __init__(self):
            self.views = 0

        def __call__(self, images, crops):
            self.views += 1
            square = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]]) + np.array([self.views - 1, 0])
            count, score = len(crops), 1 - self.views / 10
            return np.stack([square] * count), np.full((count, 4), score), np.full(count, score / 2)

    looker = Teacher(LoadedModel(teacher(), LAYOUT, 1.25, {}), label_shift=0.0, views=3)
    looker.layout = layout_from_dict({"name": "four", "num_points": 4})
    looker.see = Moving()
    image = np.zeros((20, 20, 3), np.uint8)
    looker.landmarker = FakeLandmarker(LAYOUT, lambda face, box: np.repeat([[0.0, 0], [10, 10]], [34, 34], axis=0))
    found = looker.estimate([image], np.array([[0.0, 0, 10, 10]]), np.zeros(1), range(1))
    np.testing.assert_allclose(found.points[0, :, 0], [1, 11, 1, 11])
    np.testing.assert_allclose(found.scores, [[0.8] * 4], rtol=1e-6)
    np.testing.assert_allclose(found.face_score, [0.4], rtol=1e-6)


def test_samples_train_as_labelled_faces_do(faces):
    labels = label(faces)
    crops = FaceCrops(labels.samples(), LAYOUT, input_size=64, crop_scale=1.25, pool_factor=2)
    assert len(crops) == COUNT
    sample = crops.samples[4]
    assert (sample.name, sample.weight) == (faces.name(4), None)
    np.testing.assert_array_equal(sample.image, faces.image(4))
    np.testing.assert_array_equal(sample.box, tight_box(sample.points, float(labels[4].angle)))
    assert crops[0, 4]["pool_factor"] == 2
    with pytest.raises(IndexError):
        crops.samples[COUNT]


def test_a_selection_weighs_and_skips(faces):
    labels = label(faces, views=2)
    scores = np.stack([labels[index].scores for index in range(COUNT)])
    assert scores.shape == (COUNT, 68)
    assert ((scores >= 0) & (scores <= 1)).all()
    np.testing.assert_array_equal(labels.face_scores, [labels[index].face_score for index in range(COUNT)])
    least = float(np.median(labels.face_scores))
    chosen = labels.samples(Selection(weighted=True, min_face=least))
    kept = np.flatnonzero(labels.face_scores >= least)
    assert 0 < len(kept) < COUNT
    assert [sample.name for sample in chosen] == [faces.name(index) for index in kept]
    for sample, index in zip(chosen, kept.tolist(), strict=True):
        np.testing.assert_array_equal(sample.points, labels[index].points)
        np.testing.assert_array_equal(sample.weight, scores[index])
    with pytest.raises(ValueError, match=r"min_face is a score and lies in \[0, 1\], got 3"):
        Selection(min_face=3)


def test_heads_that_look_too_far_aside_are_skipped_and_those_of_unknown_yaw_stay(faces, monkeypatch):
    labels = label(faces)
    yaws = np.array([0, 50, np.nan, -80, *[20.0] * (COUNT - 4)])
    monkeypatch.setattr(type(labels), "yaws", yaws)
    names = [sample.name for sample in labels.samples(Selection(max_yaw=45))]
    assert names == [faces.name(index) for index in range(COUNT) if index not in (1, 3)]
    least = float(np.median(labels.face_scores))
    number = {faces.name(index): index for index in range(COUNT)}
    both = [sample.name for sample in labels.samples(Selection(max_yaw=45, min_face=least))]
    assert both == [name for name in names if labels.face_scores[number[name]] >= least]
    with pytest.raises(ValueError, match="max_yaw is an angle in degrees, above 0, or null, got 0"):
        Selection(max_yaw=0)


def test_a_loader_process_opens_the_store_itself_and_gets_no_arrays(faces):
    samples = label(faces).samples(Selection(weighted=True))
    assert len(pickle.dumps(samples)) < 1000
    crops = FaceCrops(samples, LAYOUT, input_size=64, crop_scale=1.25)
    keys = [[(0, index)] for index in range(COUNT)]
    loaded = list(DataLoader(crops, batch_sampler=keys, num_workers=1, multiprocessing_context=CONTEXT))
    for index, batch in enumerate(loaded):
        for name in ("image", "points", "weight"):
            torch.testing.assert_close(batch[name][0], crops[0, index][name], rtol=0, atol=0)


def test_the_table_holds_every_number(faces, tmp_path):
    labels = label(faces, views=2)
    write_table(labels, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [photo_name(index) for index in range(COUNT)]
    for index, row in enumerate(rows):
        assert row["face"] == faces.name(index)
        points = np.array([[float(row[f"x_{n}"]), float(row[f"y_{n}"])] for n in range(68)])
        in_photo = CORNER + labels[index].points.astype(np.float64) / ZOOM
        np.testing.assert_allclose(points, in_photo, atol=6e-4)
        assert [float(row[f"score_{n}"]) for n in range(68)] == pytest.approx(labels[index].scores, abs=6e-4)
        assert float(row["score"]) == pytest.approx(labels[index].face_score, abs=6e-4)
        box = [float(row[name]) for name in ("x0", "y0", "x1", "y1")]
        assert box == pytest.approx(tight_box(in_photo), abs=6e-3)
        assert box_size(np.array(box)) > 0


def test_the_contact_sheet_goes_from_sure_to_unsure(faces, tmp_path, monkeypatch):
    labels = label(faces, views=2)
    captions = []

    def watch(tiles, **more):
        captions.extend(map(float, more["captions"]))
        return contact_sheet(tiles, **more)

    monkeypatch.setattr(pseudo_labels, "contact_sheet", watch)
    write_contact_sheet(labels, tmp_path / "contact_sheet.png", count=4)
    assert len(captions) == 4
    assert captions == sorted(captions, reverse=True)
    sure = labels.face_scores
    assert captions[::3] == pytest.approx([sure.max(), sure.min()], abs=0.006)
    sheet = cv2.imread(str(tmp_path / "contact_sheet.png"))
    assert sheet.shape == (186, 660, 3)
