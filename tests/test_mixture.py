"""Weights of faces on their way to the network, and mixtures of two sets."""

from collections import Counter

import numpy as np
import pytest
import torch
from small_training import LAYOUT, drawn
from torch.utils.data import default_collate

from pipnet.data.dataset import EpochBatches, FaceCrops, MixedFaces
from pipnet.data.sample import Sample
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.data.transforms import Augment

CROP = {"input_size": 64, "crop_scale": 1.25}


def seen(mixed, epochs):
    return [Counter(mixed.place(epoch, index) for index in range(len(mixed))) for epoch in range(epochs)]


# --- weight and pool_factor of a face


def test_labelled_faces_share_one_array_of_ones_and_train_everything():
    faces = drawn(3, augment=Augment(mirror_p=0.5))
    crops = [faces[epoch, index] for epoch in range(3) for index in range(3)]
    assert len({crop["weight"].data_ptr() for crop in crops}) == 1
    batch = default_collate(crops)
    assert batch["weight"].dtype == torch.float32
    assert torch.equal(batch["weight"], torch.ones(9, 68))
    assert batch["pool_factor"].tolist() == [1] * 9
    assert batch["pool_factor"].dtype == torch.int64


def test_weights_are_mirrored_with_the_points():
    face = draw_faces(1, seed=0, size=96)[0]
    weight = np.linspace(0, 1, 68)
    sample = Sample(face.image, face.points, face.name, weight=weight)
    plain, mirrored = (
        FaceCrops([sample], LAYOUT, augment=augment, pool_factor=4, **CROP)[0, 0]
        for augment in (None, Augment(mirror_p=1))
    )
    np.testing.assert_allclose(plain["weight"].numpy(), weight, atol=1e-7)
    np.testing.assert_allclose(mirrored["weight"].numpy(), weight[list(LAYOUT.mirror)], atol=1e-7)
    assert (mirrored["pool_factor"], mirrored["weight"].dtype) == (4, torch.float32)


def test_only_the_first_of_samples_made_on_demand_is_made_beforehand():
    made = []

    class OnDemand:
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            made.append(index)
            return draw_faces(1, seed=index, size=96)[0]

    faces = FaceCrops(OnDemand(), LAYOUT, **CROP)
    assert len(faces) == 1000
    assert torch.equal(faces[0, 7]["points"], FaceCrops(draw_faces(1, seed=7, size=96), LAYOUT, **CROP)[0, 0]["points"])
    assert made == [0, 7]


# --- mixtures


def test_without_a_share_it_is_the_plain_union():
    mixed = MixedFaces(drawn(5), drawn(8, seed=1, pool_factor=2))
    assert len(mixed) == 13
    expected = {("labelled", epoch, index) for epoch in [3] for index in range(5)}
    expected |= {("unlabelled", 3, index) for index in range(8)}
    assert {mixed.place(3, index) for index in range(13)} == expected
    assert [mixed[0, index]["pool_factor"] for index in range(13)] == [1] * 5 + [2] * 8


@pytest.mark.parametrize("unlabelled", [2, 40])
def test_with_a_share_an_epoch_sees_each_labelled_face_once(unlabelled):
    mixed = MixedFaces(drawn(6), drawn(unlabelled, seed=1), labelled_share=0.75)
    (epoch,) = seen(mixed, 1)
    assert Counter(name for name, _, _ in epoch.elements()) == {"labelled": 6, "unlabelled": 2}
    assert {index for name, _, index in epoch if name == "labelled"} == set(range(6))
    assert len(MixedFaces(drawn(6), drawn(unlabelled, seed=1), labelled_share=0.0)) == unlabelled


@pytest.mark.parametrize(("labelled", "unlabelled", "share", "length"), [(5, 8, 0.5, 12), (3, 50, 0.25, 20)])
def test_an_epoch_has_its_share_and_every_face_comes_equally_often(labelled, unlabelled, share, length):
    mixed = MixedFaces(drawn(labelled), drawn(unlabelled, seed=1), labelled_share=share, length=length)
    part = {"labelled": round(share * length), "unlabelled": length - round(share * length)}
    total = Counter()
    for epoch in seen(mixed, 23):
        assert Counter(name for name, _, _ in epoch.elements()) == part
        assert max(epoch.values()) == 1  # a face that comes twice comes with another augmentation
        total += Counter((name, index) for name, _, index in epoch.elements())
    for name, count in (("labelled", labelled), ("unlabelled", unlabelled)):
        times = [total[name, index] for index in range(count)]
        assert sum(times) == 23 * part[name]
        assert max(times) - min(times) <= 1


def test_an_epoch_does_not_depend_on_what_was_asked_before():
    sets = drawn(5), drawn(8, seed=1)
    mixed = MixedFaces(*sets, labelled_share=0.4, length=7)
    forwards = [mixed.place(epoch, index) for epoch in range(4) for index in range(7)]
    again = MixedFaces(*sets, labelled_share=0.4, length=7)
    backwards = [again.place(epoch, index) for epoch in range(3, -1, -1) for index in range(6, -1, -1)]
    assert forwards == backwards[::-1]
    assert len({tuple(forwards[7 * epoch : 7 * epoch + 7]) for epoch in range(4)}) == 4


def test_labelled_faces_alone_in_epochs_of_a_given_length():
    mixed = MixedFaces(drawn(3), None, length=8)
    assert len(mixed) == 8
    assert {name for epoch in seen(mixed, 3) for name, _, _ in epoch} == {"labelled"}
    assert torch.equal(mixed[0, 0]["image"], mixed.sets["labelled"][mixed.place(0, 0)[1:]]["image"])
    batches = EpochBatches(len(mixed), 4, seed=0)
    assert sorted(index for batch in batches for _, index in batch) == list(range(8))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"labelled_share": 1.5}, r"labelled_share must lie in \[0, 1\], got 1\.5"),
        ({"length": 0}, "at least one face, got length=0"),
        (
            {"labelled_share": 0.5, "length": 8},
            "an epoch should have 4 unlabelled faces, there is none; correct labelled_share",
        ),
    ],
)
def test_impossible_mixtures_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        MixedFaces(drawn(3), None, **more)
    with pytest.raises(ValueError, match="labelled faces, there is none"):
        MixedFaces(drawn(0), drawn(5, seed=1), labelled_share=0.5)
    with pytest.raises(ValueError, match="pool_factor must be a number of cells, or 0 for the second head, got -1"):
        drawn(1, pool_factor=-1)
