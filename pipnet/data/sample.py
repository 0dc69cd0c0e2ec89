"""One labelled face, the ones that can't be used, and what all readers of datasets check."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from pipnet.data.images import BadSampleError, image_size
from pipnet.geometry import roll_angles, tight_box

OnBad = Literal["raise", "skip"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Sample:
    """One labelled face in one photo.

    Attributes:
        image: Path of the photo, or the photo itself (RGB uint8 ``(H, W, 3)``) for synthetic faces.
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


TILTED = 30.0  # degrees; what augmentation turns an upright face by at most


def with_tilts(samples: Sequence[Sample], upright: np.ndarray) -> list[Sample]:
    """The same faces; those tilted by more than :data:`TILTED` have their ``angle``, and a tight box turned with them.

    So a network learns them as it will see them: upright. A box that is not the tight box of the points stays.

    Args:
        samples: Faces of one layout.
        upright: ``(N, 2)``, its points on an upright face, in any frame.

    Example:
        >>> lying = Sample(np.zeros((9, 9, 3), np.uint8), np.array([[4.0, 2], [4, 6], [2, 4]]), "lying")
        >>> with_tilts([lying], np.array([[0.0, 0], [4, 0], [2, 2]]))[0].angle
        90.0
    """
    found = []
    for sample, angle in zip(samples, tilts(samples, upright).tolist(), strict=True):
        if abs(angle) > TILTED and np.array_equal(sample.box, tight_box(sample.points)):
            sample = replace(sample, angle=angle, box=tight_box(sample.points[None], np.array([angle]))[0])
        found.append(sample)
    return found


def tilts(samples: Sequence[Sample], upright: np.ndarray) -> np.ndarray:
    """How far faces are tilted clockwise by their labelled points, ``(F,)``, degrees; see :func:`with_tilts`."""
    labelled = [~np.isnan(sample.points).any(axis=1) for sample in samples]
    pairs = zip(samples, labelled, strict=True)
    return np.array([roll_angles(sample.points[chosen], upright[chosen]) for sample, chosen in pairs])


@dataclass
class BadItems:
    """Items of a dataset that were skipped, with the reason of each.

    Under ``"raise"`` the first one stops the reading; under ``"skip"`` it is listed here instead.
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


# How far outside its photo a point may lie, in longer sides of the photo: a face that the photo cuts off reaches out by
# less than its own size. What lies beyond is a slip of the keyboard, or a label of another photo.
FURTHEST = 3.0

Validation = Literal["exclude", "only", "include"]


def in_validation(key: str) -> bool:
    """Whether a face belongs to the validation part: about one in ten, the same ones on every machine.

    ``key`` is the stem of the photo's file name, so that its faces stay together; a record's name where there are no
    files.

    Example:
        >>> [key for key in ("face_8", "face_9", "face_10") if in_validation(key)]
        ['face_9']
    """
    return _remainder(key) == 0


def _remainder(key: str) -> int:
    return zlib.crc32(key.encode(errors="surrogatepass")) % 10  # names that are no UTF-8 hold halves of characters


def is_wanted(key: str, validation: Validation) -> bool:
    """Whether a face is kept: all of them (``include``), or by :func:`in_validation` (``only``, ``exclude``)."""
    return validation == "include" or in_validation(key) == (validation == "only")


def wanted_keys(keys: Iterable[str], validation: Validation) -> set[str]:
    """Which of a set's own keys are kept. As :func:`is_wanted`, but of two keys and more neither part is empty.

    Where none of a few keys falls into the tenth, the one that comes closest validates; where all do, one trains.
    """
    # In the order of the checksum whose remainder decides; names break ties.
    ordered = sorted(set(keys), key=lambda key: (_remainder(key), key))
    held_out = {key for key in ordered if in_validation(key)}
    if len(ordered) > 1:
        held_out = (held_out or {ordered[0]}) - ({ordered[-1]} if len(held_out) == len(ordered) else set())
    return {"include": set(ordered), "only": held_out, "exclude": set(ordered) - held_out}[validation]


def check_options(
    *,
    part: str = "train",
    parts: Collection[str] = ("train", "test"),
    box: str = "points",
    validation: str = "include",
) -> None:
    """Stop, by a ValueError, on an unknown value of an option, or on validation faces of a part that has none."""
    for name, value, choices in (
        ("part", part, parts),
        ("box", box, ("points", "rectangle")),
        ("validation", validation, get_args(Validation)),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
    if part != "train" and validation != "include":
        raise ValueError(f"validation={validation!r} needs part='train': validation faces come from training data only")


def require(path: Path, tree: str) -> Path:
    """The path, or a FileNotFoundError that names it and says what the dataset's folder must look like: ``tree``."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected {tree} (data/README.md says how to get it)")
    return path


def sample_at(where: str, **fields: Any) -> Sample:
    """A :class:`Sample` whose errors name the file and line it came from.

    Raises:
        BadSampleError: It can't be used, or a point or its box lies absurdly far outside its photo (:data:`FURTHEST`).
    """
    try:
        sample = Sample(**fields)
        _check_place(sample)
    except BadSampleError as error:
        raise BadSampleError(f"{where}: {error}") from None
    return sample


def _check_place(sample: Sample) -> None:
    try:
        width, height = image_size(sample.image)
    except BadSampleError:
        return  # whoever decodes the photo will say so
    places = np.vstack([sample.points, np.reshape(sample.box, (2, 2))])
    beyond = np.maximum(-places, places - [width, height]).max(axis=1)  # (N + 2,), px; NaN if not labelled
    wrong = np.flatnonzero(beyond > FURTHEST * max(width, height))
    if wrong.size:
        what = f"point {wrong[0]}" if wrong[0] < len(sample.points) else "a corner of the face box"
        x, y = places[wrong[0]]
        raise BadSampleError(
            f"{what}, {x:.10g}, {y:.10g}, lies more than {FURTHEST:g} times the size of the photo ({width} x {height})"
            " outside it; correct it or leave the face out"
        )
