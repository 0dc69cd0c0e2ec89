"""Labelled and pseudo-labelled faces as one set to train on."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset

from pipnet.data.dataset import FaceCrop, FaceCrops


class MixedFaces(Dataset[FaceCrop]):
    """Epochs that take a set share of their faces from each of two sets.

    Each set is walked in a random order of its own that goes on from epoch to epoch, and starts anew in another order
    when every face was seen: how often two faces came differs by one at most. What an epoch holds follows from the
    seed of ``labelled`` and the number of the epoch alone, so that a killed training goes on to the same numbers.

    Args:
        labelled: Faces with labels.
        unlabelled: Faces with pseudo-labels, or None: then this is ``labelled`` in epochs of another length.
        labelled_share: Part of an epoch that is labelled, in [0, 1]. None is their part of the faces.
        length: Faces an epoch. None is the plain union of both sets, as in the paper (section 3.4); with a
            ``labelled_share`` it is so many that each labelled face comes once, however many others there are.

    Raises:
        ValueError: A share that is not in [0, 1], a length that is not positive, or a share of a set without faces.

    Example:
        >>> from pipnet.data.synthetic import draw_faces
        >>> from pipnet.layouts import get_layout
        >>> sets = [
        ...     FaceCrops(draw_faces(count, seed=0, size=64), get_layout("300w_68"), input_size=32, box_scale=1.25)
        ...     for count in (2, 3)
        ... ]
        >>> mixed = MixedFaces(*sets, labelled_share=0.25, length=8)
        >>> len(mixed), [part == "labelled" for part, _, _ in (mixed.place(0, index) for index in range(8))].count(True)
        (8, 2)
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
            length = round(counts["labelled"] / labelled_share) if labelled_share and counts["labelled"] else faces
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
