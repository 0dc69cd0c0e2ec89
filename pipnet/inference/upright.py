"""Faces that may be tilted: which views the network takes at them, and which of these is kept.

Where nobody knows how a face is tilted, the network's own score is the judge: it falls to nothing for a face that is
tilted by more than about 60 degrees in its crop. Whoever is upright, or tilted as the face detector says, costs one
view. All faces that need a further view share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from pipnet.geometry import angle_between, roll_angles, scale_boxes, tight_box, turned
from pipnet.inference.detections import Detections, is_box

# All chosen on validation faces of 300W that were turned by hand (experiments/roll).
# A face with a lower score is looked at in the three other quarter turns, and if that leaves it unsure, in all four in
# a smaller box, since detectors frame tilted faces too widely. Degrees, share of the box. A face whose score is still
# below the second one is cut again by the points of each of these views, which may be near though nothing is sure, and
# by the points of the surest of them once more; that counts from the second score on.
# A face whose score ends below the last one keeps its first view: such a score says nothing about the angle.
_SURE, _LIKELY, _NOTHING = 0.8, 0.5, 0.1
_OTHER_TURNS = (((90.0, 180.0, 270.0), 1.0), ((0.0, 90.0, 180.0, 270.0), 0.75))
# A face that lies in its crop otherwise than faces do is cut again by its own points, up to so many times: one tilted
# by more than so many degrees, off the middle by more than this share of the box, or larger or smaller by this factor.
_TILTED, _ASIDE, _OTHER_SIZE = 15.0, 0.15, 1.2
_AGAIN = 2
# How far a training's boxes may be from the tight boxes of the points and still be these: the mean of many faces is a
# little smaller than each.
_TIGHT = 0.1


@dataclass(frozen=True, eq=False)
class Asked:
    """A photo with the faces that are asked for.

    Attributes:
        image: RGB uint8 ``(H, W, 3)``.
        found: Where the faces are.
        angles: ``(F,)``, degrees, how far they are tilted where the caller knows it; NaN elsewhere.
    """

    image: np.ndarray
    found: Detections
    angles: np.ndarray


@dataclass(frozen=True, eq=False)
class Views:
    """What the network saw of each face, and where it looked; see :class:`pipnet.landmarks.FaceLandmarks`."""

    points: np.ndarray
    scores: np.ndarray
    face_scores: np.ndarray
    boxes: np.ndarray
    angles: np.ndarray

    def take(self, faces: np.ndarray, others: Views, rows: np.ndarray) -> None:
        """Replace some faces by rows of others."""
        for field in fields(self):
            getattr(self, field.name)[faces] = getattr(others, field.name)[rows]


Frame = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Points ``(F, N, 2)`` to the boxes and angles by which a training would have cut these faces; see :func:`framed`."""

View = Callable[[Sequence[np.ndarray], np.ndarray, np.ndarray], Views]
"""One view of each face: F photos, boxes ``(F, 4)`` and angles ``(F,)``, to F views."""


def framed(points: np.ndarray, mean_face: np.ndarray, crop_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The box and angle by which a training would have cut a face that has these points.

    That is the tight box; of a network whose mean face says that it was trained on other boxes (AFLW's, for one), a box
    that lies about the points as those lay about the mean face.

    Args:
        points: ``(F, N, 2)`` float64, source pixels.
        mean_face: ``(N, 2)``, fractions of the crop.
        crop_scale: Side of the crop over the longer side of the box.

    Returns:
        Boxes ``(F, 4)``, and the angles ``(F,)`` by which they are turned, degrees.

    Example:
        >>> square = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]])
        >>> boxes, angles = framed(10 * square[None], 0.25 + 0.5 * square, crop_scale=1.0)  # of boxes twice as large
        >>> boxes.tolist(), angles.tolist()
        ([[-5.0, -5.0, 15.0, 15.0]], [0.0])
    """
    rolls = roll_angles(points, mean_face)
    boxes = tight_box(points, rolls)
    mean = tight_box((mean_face - 0.5) * crop_scale)  # about the middle of a box whose longer side is 1
    middle, longer = (mean[:2] + mean[2:]) / 2, float((mean[2:] - mean[:2]).max())
    if not longer or (abs(longer - 1) <= _TIGHT and np.abs(middle).max() <= _TIGHT):
        return boxes, rolls
    boxes = scale_boxes(boxes, 1 / longer)
    shift = turned(-middle * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True), rolls)
    return boxes + np.tile(shift, 2), rolls


def upright_views(photos: Sequence[Asked], view: View, mean_face: np.ndarray | None, crop_scale: float) -> Views:
    """The kept view of every face of every photo.

    Args:
        photos: At least one face in all.
        view: The network.
        mean_face: ``(N, 2)``, fractions of the crop, by which the roll of points is known. None: one view of each face.
        crop_scale: Side of the crop over the longer side of the box.
    """
    known = np.concatenate([photo.angles for photo in photos])
    told = np.concatenate([photo.found.angles for photo in photos])
    angles = np.nan_to_num(np.where(np.isnan(known), told, known))
    boxes = np.concatenate([photo.found.boxes_at(photo.angles) for photo in photos])
    images = [photo.image for photo in photos for _ in range(len(photo.found))]
    views = view(images, boxes, angles)
    free = np.flatnonzero(np.isnan(known))
    if free.size and mean_face is not None and len(mean_face) > 1:
        faint = free[views.face_scores[free] < _NOTHING]  # no view that is kept has a lower score, unless it is sure
        first = Views(**{field.name: getattr(views, field.name)[faint] for field in fields(views)})
        rows = [(photo, row) for photo in photos for row in range(len(photo.found))]
        frame = partial(framed, mean_face=mean_face, crop_scale=crop_scale)
        _turn_the_unsure(views, rows, free, angles.copy(), view, frame)
        for _ in range(_AGAIN):
            if not _view_again(views, images, free, view, frame):
                break
        nothing = views.face_scores[faint] < _NOTHING
        views.take(faint[nothing], first, np.flatnonzero(nothing))
    return views


def _turn_the_unsure(
    views: Views, rows: Sequence[tuple[Asked, int]], free: np.ndarray, told: np.ndarray, view: View, frame: Frame
) -> None:
    """Look at doubtful faces in other turns, and keep the surest view of each.

    Args:
        views: Changed.
        rows: Photo and number of each face.
        free: Which faces may be turned.
        told: ``(F,)``, the angles from which the turns are counted.
        view: The network.
        frame: How faces are cut by their points.
    """
    seen, viewed = [], []
    for turns, zoom in _OTHER_TURNS:
        unsure = free[views.face_scores[free] < _SURE]
        if not unsure.size:
            break
        tried, by = np.repeat(unsure, len(turns)), np.tile(turns, unsure.size)
        boxes = [rows[face][0].found.seen_turned(rows[face][1], turn) for face, turn in zip(tried, by, strict=True)]
        images = [rows[face][0].image for face in tried]
        others = view(images, scale_boxes(np.stack(boxes), zoom), angle_between(told[tried] + by, 0.0))
        best = others.face_scores.reshape(unsure.size, -1).argmax(axis=1) + len(turns) * np.arange(unsure.size)
        surer = others.face_scores[best] > views.face_scores[unsure]
        views.take(unsure[surer], others, best[surer])
        seen.append(tried)
        viewed.append(others)
    if seen:
        images = [asked.image for asked, _ in rows]
        _follow_the_points(
            views, images, np.concatenate(seen), np.concatenate([others.points for others in viewed]), view, frame
        )


def _follow_the_points(
    views: Views, images: Sequence[np.ndarray], faces: np.ndarray, points: np.ndarray, view: View, frame: Frame
) -> None:
    """Cut doubtful faces again by points that some look in another turn gave them, and by the surest of these again.

    Args:
        views: Changed.
        images: ``F`` photos.
        faces: Which face each of the points are of; several of one face are fine.
        points: ``(K, N, 2)``.
        view: The network.
        frame: How faces are cut by their points.
    """
    for _ in range(_AGAIN):
        boxes, rolls = frame(points.astype(np.float64))
        doubtful = (views.face_scores[faces] < _LIKELY) & np.array([is_box(*box) for box in boxes.tolist()])
        if not doubtful.any():
            return
        faces = faces[doubtful]
        again = view([images[face] for face in faces], boxes[doubtful], rolls[doubtful])
        surest_first = np.argsort(-again.face_scores, kind="stable")
        faces, first = np.unique(faces[surest_first], return_index=True)
        surest = surest_first[first]
        likely = again.face_scores[surest] >= _LIKELY
        views.take(faces[likely], again, surest[likely])
        points = again.points[surest]


def _view_again(
    views: Views,
    images: Sequence[np.ndarray],
    free: np.ndarray,
    view: View,
    frame: Frame,
) -> bool:
    """One more view, by their own points, at faces that lie in their crop otherwise than faces do, or are unsure.

    Returns:
        Whether there were any.
    """
    points, was = views.points[free].astype(np.float64), views.boxes[free]
    boxes, rolls = frame(points)
    longer, longer_was = ((of[:, 2:] - of[:, :2]).max(axis=1) for of in (boxes, was))
    aside = np.abs(boxes[:, :2] + boxes[:, 2:] - was[:, :2] - was[:, 2:]).max(axis=1) / 2
    again = np.abs(angle_between(rolls, views.angles[free])) > _TILTED
    again |= (aside > _ASIDE * longer_was) | (views.face_scores[free] < _SURE)
    again |= (longer > _OTHER_SIZE * longer_was) | (longer_was > _OTHER_SIZE * longer)
    again &= np.array([is_box(*box) for box in boxes.tolist()])
    if not again.any():
        return False
    faces = free[again]
    others = view([images[face] for face in faces], boxes[again], rolls[again])
    better = (others.face_scores >= _SURE) | (others.face_scores > views.face_scores[faces])
    views.take(faces[better], others, np.flatnonzero(better))
    return True
