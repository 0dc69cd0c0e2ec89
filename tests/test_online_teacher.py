"""The teacher that labels while the network learns: what it sees on plain crops, and where augmented ones show it."""

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

from pipnet.data.dataset import FaceCrops, MixedFaces
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.data.transforms import Augment
from pipnet.layouts import get_layout
from pipnet.model.confidence import Confidence
from pipnet.model.network import Votes
from pipnet.self_training.online import OnlineTeacher
from pipnet.self_training.pseudo_labels import Selection

LAYOUT, SHIFT = get_layout("300w_68"), 0.02
STRONG = Augment(mirror_p=0.5, rotate_p=1.0, rotate=30, scale=0.2, box_shift=0.1)
SIZE, COUNT = 64, 12


class Knowing(torch.nn.Module):
    """Sees the labels of the plain crops that it is shown, in their order; sure of the faces as it is told."""

    def __init__(self, faces, spread):
        super().__init__()
        self.known = torch.from_numpy(faces.plain_points().astype(np.float32))
        self.plain = torch.stack([FaceCrops([s], LAYOUT, **CROP)[0, 0]["image"] for s in faces.samples])
        self.spread, self.device, self.seen = spread, torch.device("cpu"), 0

    def normalize(self, crops):
        return crops

    def forward(self, images):
        assert not self.training
        rows = [int(((self.plain - image.permute(1, 2, 0)).abs() > 0).sum((1, 2, 3)).argmin()) for image in images]
        assert all(
            torch.equal(self.plain[row], image.permute(1, 2, 0)) for row, image in zip(rows, images, strict=True)
        )
        self.seen += len(rows)
        return rows

    def count_votes(self, rows):
        return Votes(self.known[rows], self.spread[rows], torch.zeros(len(rows), 68))


CROP = {"input_size": SIZE, "crop_scale": 1.3}


@pytest.fixture(scope="module")
def samples():
    return draw_faces(COUNT, seed=5, size=96)


def unlabelled(samples):
    return FaceCrops(samples, LAYOUT, augment=STRONG, label_shift=SHIFT, seed=3, taught=True, **CROP)


def test_labels_of_plain_crops_move_to_where_the_augmented_ones_show_them(samples):
    faces = unlabelled(samples)
    teacher = OnlineTeacher(LAYOUT, None, Selection())
    net = Knowing(faces, torch.rand(COUNT, 68)).train()
    batch = default_collate([faces[epoch, index] for epoch in (0, 1) for index in range(COUNT)])
    assert set(batch["mirrored"].tolist()) == {False, True}
    wanted = batch["points"]
    batch["points"] = torch.full_like(wanted, 0.3)  # what the pseudo-labels were before
    found = teacher(net, batch)
    torch.testing.assert_close(found["points"], wanted, rtol=0, atol=2e-5)
    assert (found["weight"] == 1).all()
    assert (batch["points"] == 0.3).all(), "the batch that came stays as it is"


def test_scores_weigh_and_select_on_the_point_that_they_are_of(samples):
    faces = unlabelled(samples)
    spread = torch.rand(COUNT, 68, generator=torch.Generator().manual_seed(0))
    calibrated = {
        "point_bias": [0.5] * 68,
        "log_spread": -2.0,
        "peak": 0.0,
        "face_bias": 0.0,
        "face_weight": 4.0,
    }
    scores, face_scores = Confidence(68, calibrated)(spread, torch.zeros(COUNT, 68))
    least = float(face_scores.median())
    net, teacher = Knowing(faces, spread), OnlineTeacher(LAYOUT, calibrated, Selection(weighted=True, min_face=least))
    batch = default_collate([faces[2, index] for index in range(COUNT)])
    weight = teacher(net, batch)["weight"]
    for face in range(COUNT):
        expected = scores[face] if face_scores[face] >= least else torch.zeros(68)
        expected = expected[list(LAYOUT.mirror)] if batch["mirrored"][face] else expected
        torch.testing.assert_close(weight[face], expected)
    assert 0 < (weight.sum(dim=1) > 0).sum() < COUNT


def test_labelled_faces_keep_their_labels(samples):
    labelled = FaceCrops(samples[:3], LAYOUT, augment=STRONG, seed=1, taught=False, **CROP)
    faces = unlabelled(samples[3:])
    mixed = MixedFaces(labelled, faces)
    batch = default_collate([mixed[0, index] for index in range(COUNT)])
    net = Knowing(faces, torch.zeros(COUNT - 3, 68))
    wrong = {**batch, "points": batch["points"] + 0.25}
    found = OnlineTeacher(LAYOUT, None, Selection())(net, wrong)
    assert net.seen == COUNT - 3
    kept = ~batch["taught"]
    torch.testing.assert_close(found["points"][kept], wrong["points"][kept], rtol=0, atol=0)
    torch.testing.assert_close(found["points"][~kept], batch["points"][~kept], rtol=0, atol=2e-5)
    alone = default_collate([labelled[0, index] for index in range(3)])
    assert OnlineTeacher(LAYOUT, None, Selection())(net, alone)["points"] is alone["points"]
