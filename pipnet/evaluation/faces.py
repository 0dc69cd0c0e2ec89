"""What each face of a set is measured against, the box it is predicted from, and its photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipnet.data.images import BadSampleError, read_image
from pipnet.data.sample import BadItems, Sample
from pipnet.geometry import box_iou
from pipnet.inference.detections import Detections, as_detections
from pipnet.layouts import PointLayout, can_map, map_points

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_FACES = 64
CHUNK_BYTES = 256 * 2**20  # photos held at once; large ones make the chunk shorter


def compared_layout(model: PointLayout, data: PointLayout) -> PointLayout:
    """The layout in which a model of one layout is measured on a set of another; ValueError if none can be mapped."""
    if model.name == data.name and model.num_points != data.num_points:
        raise ValueError(
            f"the model's layout {model.name!r} has {model.num_points} points, the dataset's of the same name has "
            f"{data.num_points}; use the layout the model was trained with"
        )
    if can_map(data, model):
        return model
    if can_map(model, data):
        return data
    raise ValueError(
        f"a model of layout {model.name!r} can't be measured on a set of layout {data.name!r}: "
        "no mapping is known in either direction; choose a dataset of the model's layout"
    )


def true_points(samples: Sequence[Sample], layout: PointLayout, measured: PointLayout) -> np.ndarray:
    """True points of all faces in the layout of the comparison, ``(F, N, 2)`` float64, source pixels.

    NaN where a point, or one it is computed from, is not labelled. ValueError names a face that doesn't fit ``layout``.
    """
    for sample in samples:
        if len(sample.points) != layout.num_points:
            raise ValueError(
                f"{sample.name}: {len(sample.points)} points, but layout {layout.name!r} has {layout.num_points}; "
                "give the dataset its own layout"
            )
    points = np.stack([sample.points for sample in samples])
    if measured.name == layout.name:
        return points
    return map_points(points, layout, measured)


def jitter_boxes(boxes: np.ndarray, shift: float, scale: float, seed: int) -> np.ndarray:
    """Boxes ``(F, 4)`` moved and resized at random, the way a face detector's differ from the labels'.

    ``shift`` is the largest move along x and along y, as a fraction of the longer side; both sides grow by a factor
    uniform in ``1 - scale … 1 + scale``. The same seed draws the same directions whatever the amounts.

    Raises:
        ValueError: If an amount is negative, or ``scale`` is 1 or more, which could leave no box.
    """
    if not (shift >= 0 and 0 <= scale < 1):
        raise ValueError(f"box jitter needs shift >= 0 and 0 <= scale < 1, got shift {shift} and scale {scale}")
    draw = np.random.default_rng(seed).uniform(-1, 1, (len(boxes), 3))
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2 + draw[:, :2] * shift * sides.max(axis=1, keepdims=True)
    half = sides / 2 * (1 + scale * draw[:, 2:])
    return np.concatenate([centres - half, centres + half], axis=1)


def detected_faces(
    detector: Callable[[np.ndarray], Detections],
    images: Sequence[np.ndarray],
    tight: np.ndarray,
    min_iou: float,
) -> list[Detections | None]:
    """For each labelled face the detection that overlaps most with its tight box, ``(F, 4)``; None for a missed face.

    Overlaps below ``min_iou`` are misses; they are measured with the box as the detector drew it. The detector is
    called once for a run of equal images.
    """
    photo, found, faces = None, as_detections(np.zeros((0, 4))), []
    for index, image in enumerate(images):
        if image is not photo:
            photo, found = image, as_detections(detector(image))
        overlaps = box_iou(tight[index : index + 1], found.framed)[0]  # (D,)
        best = np.array([overlaps.argmax()]) if overlaps.size and overlaps.max() >= min_iou else None
        faces.append(None if best is None else found[best])
    return faces


def box_overlaps(boxes: np.ndarray, tight: np.ndarray) -> np.ndarray:
    """Overlap of each box with the tight box in the same row, ``(F,)``; NaN where there is no box."""
    overlaps = np.array([box_iou(a[None], b[None])[0, 0] for a, b in zip(boxes, tight, strict=True)])
    return np.where(np.isnan(boxes).any(axis=1), np.nan, overlaps)


def photo_chunks(samples: Sequence[Sample], bad: BadItems, kept: np.ndarray) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Faces with their photos as index and RGB uint8, up to 64 at a time, fewer where photos are large.

    Neighbours in the list that share a photo have it decoded once. What can't be read goes to ``bad`` and is cleared in
    ``kept (F,)``.
    """
    chunk: list[tuple[int, np.ndarray]] = []
    held = 0
    image: np.ndarray | None = None
    for index, sample in enumerate(samples):
        if image is None or not _same_photo(sample.image, samples[index - 1].image):
            try:
                image = read_image(sample.image)
            except BadSampleError as error:
                kept[index] = False
                image = None
                bad.add(f"{sample.name}: {error}")
                continue
            held += image.nbytes
        chunk.append((index, image))
        if len(chunk) == _CHUNK_FACES or held > CHUNK_BYTES:
            yield chunk
            chunk, held = [], image.nbytes
    if chunk:
        yield chunk


def _same_photo(a: Path | np.ndarray, b: Path | np.ndarray) -> bool:
    return a is b or (isinstance(a, Path) and isinstance(b, Path) and a == b)
