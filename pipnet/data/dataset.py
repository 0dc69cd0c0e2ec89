"""Sample to what the network sees, and which faces make up each batch of each epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from pipnet.data.images import read_image
from pipnet.data.sample import Sample
from pipnet.data.transforms import Augment
from pipnet.geometry import crop_of_square, crop_squares, turned
from pipnet.layouts import PointLayout


class FaceCrop(TypedDict):
    """One face as the network sees it; a batch stacks each field."""

    image: Tensor  # uint8 RGB (S, S, 3)
    points: Tensor  # float32 (N, 2), fractions of the crop
    weight: Tensor  # float32 (N,) in [0, 1], how much each point counts
    pool_factor: int  # which task: 1 all, p > 1 the score map alone, max-pooled by p cells a side, 0 the second head's
    taught: NotRequired[bool]  # whether the teacher gives it new labels; the rest is there where this is
    plain: NotRequired[Tensor]  # uint8 RGB (S, S, 3), what the teacher sees; black where it gives none
    to_crop: NotRequired[Tensor]  # float32 (2, 3), fractions of the plain crop to those of this one
    mirrored: NotRequired[bool]  # whether this one is


class FaceCrops(Dataset[FaceCrop]):
    """Faces cut, warped and augmented on demand.

    The randomness of a face depends on ``(seed, epoch, index)`` alone: not on the worker, the process or the moment.

    Args:
        samples: Labelled faces. A list is checked whole; of another sequence, which may make its items on demand, only
            the first is looked at here.
        layout: What their points mean.
        input_size: Side of the crop in pixels.
        crop_scale: Side of the crop over the longer side of the face box.
        augment: Recipe, or None for the plain crop.
        label_shift: How far the labels sit to the right of what they mark, in longer sides of the box. Mirroring would
            turn that to the left and the network would learn the middle, so the labels of mirrored faces are moved to
            sit right again. Measured by ``experiments/label_shift``.
        seed: Of the augmentation.
        pool_factor: Cells of the score map a side that are merged before training on them: the coarse tasks of
            self-training, :class:`pipnet.model.loss.PIPLoss`. 1 is the full task, 0 that of the second head.
        taught: Whether a teacher gives faces new labels while they are trained on, for which it gets their plain crops;
            None for a training without such a teacher.

    Raises:
        ValueError: A face has another number of points than the layout, or ``pool_factor`` is negative.

    Example:
        >>> from pipnet.layouts import layout_from_dict
        >>> layout = layout_from_dict({"name": "two", "num_points": 2, "mirror_pairs": [[0, 1]]})
        >>> face = Sample(np.zeros((40, 40, 3), np.uint8), np.array([[10.0, 10], [30, 10]]), "a")
        >>> FaceCrops([face], layout, input_size=32, crop_scale=2.0)[0, 0]["points"].tolist()
        [[0.25, 0.5], [0.75, 0.5]]
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        layout: PointLayout,
        *,
        input_size: int,
        crop_scale: float,
        augment: Augment | None = None,
        label_shift: float = 0.0,
        seed: int = 0,
        pool_factor: int = 1,
        taught: bool | None = None,
    ) -> None:
        if pool_factor < 0:
            raise ValueError(f"pool_factor must be a number of cells, or 0 for the second head, got {pool_factor}")
        for sample in samples if isinstance(samples, list) else [samples[0]] if len(samples) else []:
            if len(sample.points) != layout.num_points:
                raise ValueError(
                    f"{sample.name}: {len(sample.points)} points, layout {layout.name} has {layout.num_points}"
                )
        self.samples = samples
        self.mirror = np.array(layout.mirror)
        self.input_size = input_size
        self.crop_scale = crop_scale
        self.augment = augment
        self.label_shift = label_shift
        self.seed = seed
        self.pool_factor = pool_factor
        self.taught = taught
        self.all_count = torch.ones(layout.num_points)  # what most faces have for weight, once

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> FaceCrop:
        """Face ``index`` as epoch ``epoch`` sees it; ``key`` is ``(epoch, index)``, from :class:`EpochBatches`."""
        epoch, index = key
        sample = self.samples[index]
        image = read_image(sample.image)
        square = crop_squares(sample.box, self.crop_scale)[0]
        weight = self.all_count if sample.weight is None else sample.weight
        right = np.zeros(2)  # source pixels that labels are moved
        if self.augment is None:
            crop, mirrored = crop_of_square(square, self.input_size, sample.angle), False
            pixels, points = crop.warp(image), crop.to_unit(sample.points)
        else:
            rng = np.random.default_rng([self.seed, epoch, index])
            crop, mirrored = self.augment.crop(square, self.input_size, rng, sample.angle)
            pixels = self.augment.photometric(crop.warp(image), rng)
            if mirrored:  # what was the left eye is now the right one
                label_shift = self.label_shift * square[2] / self.crop_scale  # source pixels
                right = turned(np.array([2 * label_shift, 0.0]), sample.angle)
                points = crop.to_unit(sample.points - right)[self.mirror]
                weight = weight if weight is self.all_count else weight[self.mirror]
            else:
                points = crop.to_unit(sample.points)
        face: FaceCrop = {
            "image": torch.from_numpy(pixels),
            "points": torch.from_numpy(points.astype(np.float32)),
            "weight": torch.as_tensor(weight, dtype=torch.float32),
            "pool_factor": self.pool_factor,
        }
        if self.taught is not None:
            plain = crop_of_square(square, self.input_size, sample.angle)
            corners = crop.to_unit(plain.from_unit(np.array([[0.0, 0], [1, 0], [0, 1]])) - right)
            face["taught"] = self.taught
            face["plain"] = torch.from_numpy(plain.warp(image) if self.taught else np.zeros_like(pixels))
            face["to_crop"] = torch.from_numpy(np.c_[(corners[1:] - corners[0]).T, corners[0]].astype(np.float32))
            face["mirrored"] = mirrored
        return face

    @property
    def squares(self) -> np.ndarray:
        """What the plain crop of each face shows: ``(F, 3)`` as centre x, centre y, side, source pixels."""
        return crop_squares(np.array([sample.box for sample in self.samples]), self.crop_scale)

    def plain_points(self) -> np.ndarray:
        """Points of all faces on their plain crops, ``(F, N, 2)``, fractions of the crop; reads no image."""
        return np.stack(
            [
                crop_of_square(square, self.input_size, sample.angle).to_unit(sample.points)
                for square, sample in zip(self.squares, self.samples, strict=True)
            ]
        )


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Which faces make up each batch of each epoch, for one of several processes.

    Every process draws the same permutation from ``(seed, epoch)`` and takes its share of each global batch, so the
    union of what the processes see is what one process would have seen. The last, incomplete batch is dropped.

    Args:
        count: Faces in the set.
        batch_size: Over all processes.
        seed: Of the order.
        rank, world_size: This process and how many there are.

    Raises:
        ValueError: If the set is smaller than a batch, or the batch can't be shared out evenly.
    """

    def __init__(self, count: int, batch_size: int, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if batch_size % world_size:
            raise ValueError(f"batch size {batch_size} can't be shared by {world_size} processes; choose a multiple")
        if count < batch_size:
            raise ValueError(f"{count} faces are fewer than one batch of {batch_size}; lower fit.batch_size")
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.start(epoch=0)

    def start(self, epoch: int, batch: int = 0) -> None:
        """Begin at a batch of an epoch; a resumed training starts in the middle of one."""
        self.epoch = epoch
        self.first = batch

    def __len__(self) -> int:
        return self.count // self.batch_size - self.first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        for batch in range(self.first, self.count // self.batch_size):
            mine = order[batch * self.batch_size + self.rank : (batch + 1) * self.batch_size : self.world_size]
            yield [(self.epoch, index) for index in mine.tolist()]


class MixedFaces(Dataset[FaceCrop]):
    """Epochs that take a set share of their faces from each of two sets.

    Each set is walked in a random order of its own that goes on from epoch to epoch, and starts anew in another order
    when every face was seen: how often two faces came differs by one at most. What an epoch holds follows from the
    seed of ``labelled`` and the number of the epoch alone, so that a killed training resumes to the same numbers.

    Args:
        labelled: Faces with labels.
        unlabelled: Faces with pseudo-labels, or None: then this is ``labelled`` in epochs of another length.
        labelled_share: Part of an epoch that is labelled, in [0, 1]. None is their part of the faces.
        length: Faces an epoch. None is the plain union of both sets, as in the paper (section 3.4); with a
            ``labelled_share`` it is so many that each labelled face comes once, however many others there are, and
            with a share of 0 that each unlabelled face does.

    Raises:
        ValueError: A share that is not in [0, 1], a length that is not positive, or a share of a set without faces.
    """

    def __init__(
        self,
        labelled: FaceCrops,
        unlabelled: FaceCrops | None,
        *,
        labelled_share: float | None = None,
        length: int | None = None,
    ) -> None:
        counts = {"labelled": len(labelled), "unlabelled": 0 if unlabelled is None else len(unlabelled)}
        faces = sum(counts.values())
        if labelled_share is not None and not 0 <= labelled_share <= 1:
            raise ValueError(f"labelled_share must lie in [0, 1], got {labelled_share}")
        if length is not None and length < 1:
            raise ValueError(f"an epoch must have at least one face, got length={length}")
        if not faces:
            raise ValueError("there is no face to train on, neither labelled nor unlabelled")
        self.sets = {"labelled": labelled, "unlabelled": unlabelled}
        self.counts = counts
        share = counts["labelled"] / faces if labelled_share is None else labelled_share
        if length is None:
            once = counts["labelled"] / labelled_share if labelled_share else counts["unlabelled"]
            length = faces if labelled_share is None or not once else round(once)
        self.length = length
        labelled_part = round(self.length * share)
        self.parts = {"labelled": labelled_part, "unlabelled": self.length - labelled_part}
        for name, part in self.parts.items():
            if part and not counts[name]:
                raise ValueError(f"an epoch should have {part} {name} faces, there is none; correct labelled_share")
        self.seed = labelled.seed
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> FaceCrop:
        """Face ``index`` of epoch ``epoch``; ``key`` is ``(epoch, index)``."""
        name, turn, index = self.place(*key)
        return self.sets[name][turn, index]

    def place(self, epoch: int, index: int) -> tuple[str, int, int]:
        """Where face ``index`` of an epoch comes from.

        Returns:
            The set, ``"labelled"`` or ``"unlabelled"``; how often its faces were all seen before, which is the epoch
            of that set; and the number of the face in it.
        """
        first = self.parts["labelled"]
        name, number = ("labelled", index) if index < first else ("unlabelled", index - first)
        turn = (epoch * self.parts[name] + number) // self.counts[name]
        if self.parts[name] == self.counts[name]:  # an epoch sees each face once: the order is that of the batches
            return name, turn, number
        if self._epoch[0] != epoch:  # kept, since the faces of an epoch are asked for one by one
            self._epoch = (epoch, np.concatenate([self._walk(part, epoch) for part in self.parts]))
        return name, turn, int(self._epoch[1][index])

    def _walk(self, name: str, epoch: int) -> np.ndarray:
        """Numbers of the faces that an epoch takes from one set."""
        part, count = self.parts[name], self.counts[name]
        if not part:
            return np.empty(0, dtype=np.int64)
        first = epoch * part
        turns = range(first // count, (first + part - 1) // count + 1)
        stream = list(self.parts).index(name)
        orders = [np.random.default_rng([self.seed, stream, turn]).permutation(count) for turn in turns]
        return np.concatenate(orders)[first - turns[0] * count :][:part]
