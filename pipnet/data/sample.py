"""One labelled face, and what happens to the ones that can't be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from pipnet.geometry import tight_box

OnBad = Literal["raise", "skip"]
Item = TypeVar("Item")


class BadSampleError(ValueError):
    """A dataset item that can't be used; the message names the file, the line where there is one, and what to do."""


@dataclass(frozen=True)
class Sample:
    """One labelled face in one photo.

    Attributes:
        image: Path of the photo, or the photo itself (RGB uint8 ``(H, W, 3)``) for drawn faces.
        points: ``(N, 2)`` float64, source pixels, 0-based pixel centres. NaN rows are points that are not labelled.
        name: Unique and stable in its dataset; what reports and error messages call the face.
        subsets: Names of the parts of the dataset it belongs to (``"helen"``, ``"occlusion"``).
        box: The tight box of the points ``(4,)`` unless the dataset's protocol prescribes another, source pixels.
        occluded: ``(N,)`` bool where the dataset says which points are hidden, else None.
        weight: ``(N,)`` in [0, 1], how much each point counts in training, else None: all count fully.
        angle: Degrees, how far the face is tilted clockwise, and ``box`` turned with it about its own centre.
    """

    image: Path | np.ndarray
    points: np.ndarray
    name: str
    subsets: tuple[str, ...] = ()
    box: np.ndarray = field(default=None)  # type: ignore[assignment]
    occluded: np.ndarray | None = None
    weight: np.ndarray | None = None
    angle: float = 0.0

    def __post_init__(self) -> None:
        points = np.asarray(self.points, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise BadSampleError(f"{self.name}: points must be (N, 2), got {points.shape}")
        object.__setattr__(self, "points", points)
        if self.box is None:
            if np.isnan(points).all():
                raise BadSampleError(f"{self.name}: no point is labelled; leave the face out of the list")
            object.__setattr__(self, "box", tight_box(points))
        if not (self.box[2:] - self.box[:2]).max() > 0:
            raise BadSampleError(
                f"{self.name}: the face box {np.round(self.box, 2).tolist()} has no extent; correct the label"
            )


@dataclass
class BadItems:
    """Items of a dataset that were left out, with the reason of each.

    Under ``"raise"`` the first one stops the reading; under ``"skip"`` it is listed here instead. Nothing is ever left
    out silently: readers return this list beside the samples.

    Example:
        >>> bad = BadItems("skip")
        >>> bad.add("a.pts: 67 points, expected 68; delete or correct the file")
        >>> len(bad), bad.reasons[0][:5]
        (1, 'a.pts')
    """

    on_bad: OnBad = "raise"
    reasons: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.on_bad not in ("raise", "skip"):
            raise ValueError(f"on_bad must be 'raise' or 'skip', got {self.on_bad!r}")

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, reason: str) -> None:
        """List an item, or stop on it.

        Raises:
            BadSampleError: Under ``on_bad="raise"``.
        """
        reason = reason.replace("\n", "\\n")  # of a name: a reason is one line
        if self.on_bad == "raise":
            raise BadSampleError(f"{reason} (on_bad=skip leaves such items out and lists them)")
        self.reasons.append(reason)

    def collect(self, items: Iterable[Item], read: Callable[[Item], Sample]) -> Iterator[Sample]:
        """``read(item)`` of every item, bad ones handled as :meth:`add` says."""
        for item in items:
            try:
                sample = read(item)
            except BadSampleError as error:
                self.add(str(error))
                continue
            yield sample
