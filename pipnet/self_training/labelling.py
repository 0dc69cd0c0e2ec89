"""Which photos of a folder are worth labelling: typical faces of every kind that the network is unsure of.

Reference:
    Typical photos first where labels are few: Hacohen et al., "Active Learning on a Budget" (TypiClust), ICML 2022.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from tqdm import tqdm

from pipnet.geometry import crop_of_square, crop_squares
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.model.checkpoint import LoadedModel
from pipnet.self_training.face_store import UnlabelledFaces
from pipnet.self_training.pseudo_labels import YAW_BINS, yaw_of

_MOST = 10_000  # faces that the network looks at
_BATCH_SIZE = 64
_RANDOM_SHARE = 0.2  # of the photos, to validate on
_YAW_SHARE = 0.1  # of the photos, that each range of yaw has at least, as far as there are any
_COMPONENTS = 64  # principal components of the features
# Two faces are nearly the same photo if their upright crops, reduced to so many pixels a side, correlate by more than
# this. Not by the network's features: once trained on points they say how a face is turned and forget whose it is, so
# that nearly every face has another one with a cosine above 0.98.
_THUMBNAIL, _SAME = 16, 0.95


@dataclass(frozen=True)
class Seen:
    """Faces of different photos, as a network sees them."""

    faces: np.ndarray  # (M,) int64, their numbers in the store
    points: np.ndarray  # (M, N, 2) float64, pixels of the upright photos
    scores: np.ndarray  # (M,) of the faces, in [0, 1]
    yaws: np.ndarray  # (M,) degrees, positive to the picture's right; NaN where the layout doesn't tell
    features: np.ndarray  # (M, C), pooled features of the backbone about their mean, of length 1
    thumbnails: np.ndarray  # (M, T) float32, grey crops about their mean, of length 1


class Chosen(NamedTuple):
    """A face to label, and why."""

    face: int  # among those seen
    cluster: int | None  # None: drawn at random, to validate on
    size: int  # faces in the cluster, or drawn from


def look(model: LoadedModel, faces: UnlabelledFaces, *, seed: int, progress: bool = False) -> Seen:
    """Let a network look at the largest face of each photo; of more than 10,000, at so many drawn at random.

    Raises:
        BadSampleError: The crop of a face is damaged.
    """
    rows = faces.largest_of_each_photo()
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng([seed, len(rows)]).choice(rows, _MOST, replace=False))
    landmarker, net = FaceLandmarker.from_model(model), model.net
    points, scores, features, thumbnails = [], [], [], []
    for first in tqdm(range(0, len(rows), _BATCH_SIZE), unit="batch", disable=None if progress else True):
        batch = rows[first : first + _BATCH_SIZE].tolist()
        images = [faces.image(row) for row in batch]
        found = [faces.found(range(row, row + 1)) for row in batch]
        boxes = [Detections(one.boxes, one.scores, one.angles) for one in found]
        seen = landmarker.predict_batch(images, boxes, batch_size=_BATCH_SIZE)
        cut = zip(images, crop_squares(seen.boxes, model.crop_scale), seen.angles, strict=True)
        crops = [crop_of_square(square, net.input_size, angle).warp(image) for image, square, angle in cut]
        pixels = torch.from_numpy(np.stack(crops)).to(net.device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            maps: Any = net.backbone(net.normalize(pixels))
        maps = maps[-1] if isinstance(maps, list | tuple) else maps
        features.append(maps.mean(dim=(2, 3)).cpu().numpy())
        points += [faces.in_photo(row, of.astype(np.float64))[1] for row, of in zip(batch, seen.points, strict=True)]
        scores.append(seen.face_scores)
        thumbnails += [_thumbnail(crop) for crop in crops]
    yaws = [yaw_of(of, faces.photo_size(row), model.layout) for of, row in zip(points, rows.tolist(), strict=True)]
    main = _principal(np.concatenate(features).astype(np.float64))
    return Seen(rows, np.stack(points), np.concatenate(scores), np.array(yaws), main, np.stack(thumbnails))


def _thumbnail(crop: np.ndarray) -> np.ndarray:
    small = cv2.resize(crop, (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
    return _of_length_1((grey - grey.mean())[None])[0]


def _principal(features: np.ndarray) -> np.ndarray:
    """Principal components, which k-means is fast with; rows of length 1."""
    centred = features - features.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    return _of_length_1(centred @ axes[:, -_COMPONENTS:])


def _of_length_1(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)


def choose(seen: Seen, count: int, *, seed: int) -> list[Chosen]:
    """Choose ``count`` faces, in the order of the store.

    Of photos that are nearly the same one is kept. A fifth of the count is drawn at random, to validate on. The others
    come from clusters of like faces, one from each: of the half that the network is less sure of, the most typical.
    Each range of yaw (below 15 degrees, 30, 60, beyond) has clusters of its own, and so many of them that it gets a
    tenth of the count where there are as many faces.

    Raises:
        ValueError: There are not so many different photos; the message says how many there are.
    """
    distinct = different(seen.thumbnails)
    if count > len(distinct):
        alike = len(seen.faces) - len(distinct)
        raise ValueError(
            f"there are no {count} photos to choose: {len(distinct)} with a face that passes the rules"
            f" ({alike} more are nearly the same); ask for fewer, give more photos or loosen the rules"
        )
    random = np.random.default_rng(seed)
    order = random.permutation(distinct)
    at_random = max(1, round(count * _RANDOM_SHARE))
    chosen = [Chosen(int(index), None, len(distinct)) for index in order[:at_random]]
    rest = np.sort(order[at_random:])
    ranges = yaw_ranges(seen.yaws[rest])
    members = [rest[ranges == number] for number in range(len(YAW_BINS) + 2)]
    least = math.ceil(count * _YAW_SHARE)
    for group, wanted in zip(members, shares(list(map(len, members)), count - at_random, least), strict=True):
        number = len({one.cluster for one in chosen if one.cluster is not None})
        for cluster, (index, size) in enumerate(_one_of_each_cluster(seen, group, wanted, random), number + 1):
            chosen.append(Chosen(index, cluster, size))
    return sorted(chosen)


def different(thumbnails: np.ndarray) -> np.ndarray:
    """Indices, ascending, of photos of which none before is nearly the same: the first of each group."""
    kept: list[int] = []
    for first in range(0, len(thumbnails), 512):
        block = thumbnails[first : first + 512]
        new = (block @ thumbnails[kept].T).max(axis=1, initial=-1) <= _SAME
        alike = block @ block.T > _SAME
        here: list[int] = []
        for row in np.flatnonzero(new).tolist():
            if not alike[row, here].any():
                here.append(row)
        kept += [first + row for row in here]
    return np.array(kept, dtype=np.int64)


def yaw_ranges(yaws: np.ndarray) -> np.ndarray:
    """Which range of yaw heads are in, ``(M,)``: 0 the first to 3 the last, 4 where the yaw is not known."""
    ranges = np.searchsorted(YAW_BINS, np.abs(yaws), side="right")  # NaN sorts last
    return np.where(np.isnan(yaws), len(YAW_BINS) + 1, ranges)


def shares(sizes: Sequence[int], total: int, least: int) -> list[int]:
    """Share ``total`` out among groups in proportion to their sizes, but at least ``least`` to each that has so many.

    Example:
        >>> shares([900, 90, 10, 0], 80, 10)
        [60, 10, 10, 0]
    """
    given = [0] * len(sizes)
    for _ in range(total):
        lacking = [size * total / max(sum(sizes), 1) - has for size, has in zip(sizes, given, strict=True)]
        order = [
            (has < size, has < min(size, least), lack) for size, has, lack in zip(sizes, given, lacking, strict=True)
        ]
        given[order.index(max(order))] += 1
    return given


def _one_of_each_cluster(
    seen: Seen, members: np.ndarray, count: int, random: np.random.Generator
) -> list[tuple[int, int]]:
    """A member of each of ``count`` clusters, and how large the cluster is."""
    if not count:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an empty cluster is made up for below
        start = seen.features[random.choice(members, count, replace=False)]
        _, labels = kmeans2(seen.features[members], start, minit="matrix")
    clusters = [members[labels == label] for label in np.unique(labels)]
    left, picked = list(clusters), []
    while len(picked) < count:  # once, unless there are fewer clusters than asked for
        for place in sorted(range(len(left)), key=lambda place: -len(left[place])):
            if len(left[place]) and len(picked) < count:
                best = _most_useful(seen, left[place])
                left[place] = left[place][left[place] != best]
                picked.append((best, len(clusters[place])))
    return picked


def _most_useful(seen: Seen, cluster: np.ndarray) -> int:
    """Of the half with lower scores the face that is most like all of its cluster."""
    unsure = cluster[np.argsort(seen.scores[cluster], kind="stable")][: (len(cluster) + 1) // 2]
    near = seen.features[unsure] @ seen.features[cluster].sum(axis=0)
    return int(unsure[near.argmax()])
