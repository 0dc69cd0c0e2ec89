"""Faces in video: the next box comes from the last points, and the face detector runs when it is needed.

The landmark network says by itself, with its face score, whether there still is a face in its box. So the detector
runs

* on every frame while no face is known: who sits down is seen at once;
* at once when a face was lost, and while others are followed again after 1, 2, 3, 3, … frames;
* every ``detect_every`` frames for new faces, unless ``max_faces`` are known.

How a face is tilted comes from its last points, too, so a head may turn all the way round.

A lost face is looked for during a second; one that is found again in that time, less than about a face's size away from
where it was, keeps its id. An id is a place that goes on, not a person: nobody is recognised, and a cut of scene that
puts another face where one was lost goes on with its id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipnet.data.images import read_image
from pipnet.geometry import box_size, tight_box
from pipnet.inference.detections import Detections, as_detections
from pipnet.inference.smoothing import FaceFilter, FrameClock, Smoothing
from pipnet.landmarks import FaceLandmarks, joined

if TYPE_CHECKING:
    from pipnet.inference.landmarker import FaceLandmarker


_LOST_PAUSE = 3  # frames
_REMEMBER_S = 1.0
# Distances by face_distances: within which a detection is of a track, two tracks are on one face, and a face that went
# missing comes back. Neighbours are about 1 apart.
_SAME_FACE, _ONE_FACE, _CAME_BACK = 0.7, 0.3, 1.0
# A face is taken up with a score this much above the one at which it is dropped, or one in between would flicker.
_FOUND_FACTOR = 2.0
# Detections tried beyond max_faces: the surest one may be a poster's pattern that the landmark network refuses.
_SPARE = 2
# A face that is lost while less of its box than this lies in the picture has left it.
_LEAVING = 0.8


def face_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far boxes ``(A, 4)`` and ``(B, 4)`` are from being the same face, ``(A, B)``.

    That is the distance of their centres in face sizes, plus the log of the ratio of their sizes. Unlike the overlap,
    it still orders pairs that a fast face has pulled apart.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    size_a, size_b = (np.maximum(box_size(boxes), 1e-6) for boxes in (a, b))
    centre_a, centre_b = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (a, b))
    apart = np.linalg.norm(centre_a[:, None] - centre_b[None], axis=-1)  # (A, B)
    size = (size_a[:, None] + size_b[None]) / 2
    return apart / size + np.abs(np.log(size_a[:, None] / size_b[None]))


def cheapest_pairs(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows and columns of ``(A, B)`` costs, as many as there can be, whose costs have the least sum.

    Shortest augmenting paths (Jonker and Volgenant 1987), as ``scipy.optimize.linear_sum_assignment``: of a library of
    100 MB a few faces a frame need nothing else.

    Returns:
        Rows, in order, and their columns; as many as the shorter side of ``costs``.
    """
    if costs.shape[0] > costs.shape[1]:
        columns, rows = cheapest_pairs(costs.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    height, width = costs.shape
    row_price, column_price = np.zeros(height), np.zeros(width)  # their sum is at most the cost, and equal in a pair
    column_of, row_of = np.full(height, -1), np.full(width, -1)
    for start in range(height):
        path, distance = np.full(width, -1), np.full(width, np.inf)  # from ``start`` to each column, and the row before
        reached, row, far = np.zeros(width, dtype=bool), start, 0.0
        while True:
            through = far + costs[row] - row_price[row] - column_price
            shorter = ~reached & (through < distance)
            distance[shorter], path[shorter] = through[shorter], row
            column = int(np.argmin(np.where(reached, np.inf, distance)))
            far, reached[column] = distance[column], True
            row = row_of[column]
            if row < 0:  # nobody's
                break
        others = reached & (row_of >= 0)  # of these, all but the last one reached
        row_price[start] += far
        row_price[row_of[others]] += far - distance[others]
        column_price[reached] -= far - distance[reached]
        while True:  # backwards: each row on the way takes the column it came to
            row = path[column]
            row_of[column] = row
            column_of[row], column = column, column_of[row]
            if row == start:
                break
    return np.arange(height), column_of


def match(a: np.ndarray, b: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """Pairs of boxes ``(A, 4)`` and ``(B, 4)`` that are the same face: as many as possible, then as close in sum.

    Boxes that are further apart than ``limit`` by :func:`face_distances` are different faces.

    Returns:
        Indices into ``a`` and ``b``, each at most once, in the order of ``a``.
    """
    if not len(a) or not len(b):
        return []
    distances = face_distances(a, b)
    # A pair out of reach must never pay for a better sum elsewhere.
    unreachable = 1e6
    rows, columns = cheapest_pairs(np.where(distances <= limit, distances, unreachable))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if distances[i, j] <= limit]


@dataclass(eq=False)
class _Track:
    """A face that is followed."""

    id: int
    since: float  # seconds
    filter: FaceFilter | None
    seen: FaceLandmarks  # of the last frame: one face
    points: np.ndarray  # (N, 2), smoothed
    box: np.ndarray  # (4,), what the points of the next frame are predicted from
    angle: float  # degrees, by which that box is turned


class _Missing(NamedTuple):
    """A face that was followed until a moment ago."""

    id: int
    box: np.ndarray  # (4,), where it was last
    since: float  # seconds
    wanted: bool  # whether to look for it; not for one that went out of the picture


class FaceTracker:
    """Follows the faces of one video. Not for several threads at once.

    Args:
        landmarker: Finds points; its ``detector`` finds faces. Only ``landmarker(frame, boxes=…, angles=…)``,
            ``landmarker.rolls(points)``, ``landmarker.detector(frame)`` and ``landmarker.layout`` are used.
        detect_every: Frames between two searches for new faces while none is lost.
        max_faces: Not more faces than these, the detector's surest first; None for all.
        lost_below: A face whose face score falls below is lost; one is found from twice that on.
        smoothing: True for the default settings, False for the network's points as they are, or settings.

    Raises:
        ValueError: An argument is out of range, or the layout has a single point, which makes no box.

    Example:
        >>> from pipnet import FaceLandmarker
        >>> from pipnet.data.images import portrait
        >>> tracker = FaceTracker(FaceLandmarker.load(device="cpu"))
        >>> [tracker(portrait(), time_s=number / 30).ids.tolist() for number in range(3)]
        [[0], [0], [0]]
    """

    def __init__(
        self,
        landmarker: FaceLandmarker,
        *,
        detect_every: int = 30,
        max_faces: int | None = None,
        lost_below: float = 0.1,
        smoothing: bool | Smoothing = True,
    ) -> None:
        if detect_every < 1:
            raise ValueError(f"detect_every must be at least 1 frame, got {detect_every}")
        if max_faces is not None and max_faces < 1:
            raise ValueError(f"max_faces must be at least 1, or None for all, got {max_faces}")
        if not 0 < lost_below < 1:
            raise ValueError(f"lost_below must lie between 0 and 1, got {lost_below}")
        if landmarker.layout.num_points < 2:
            raise ValueError(
                f"layout {landmarker.layout.name!r} has a single point, which makes no box of the next frame;"
                " detect on every frame instead"
            )
        self.landmarker = landmarker
        self.detect_every = detect_every
        self.max_faces = max_faces
        self.lost_below = lost_below
        self._smoothing = (Smoothing() if smoothing else None) if isinstance(smoothing, bool) else smoothing
        self.reset()

    def reset(self) -> None:
        """Start a new video: no face is known, ids count from 0, the statistics are empty."""
        self.statistics = TrackingStatistics()
        self._clock = FrameClock()
        self._tracks: list[_Track] = []
        self._missing: list[_Missing] = []
        self._since_search = 0  # frames
        self._fruitless = 0  # searches in a row that found nothing new

    def __call__(self, frame: np.ndarray, time_s: float) -> FaceLandmarks:
        """The faces of the next frame.

        Args:
            frame: RGB uint8 ``(H, W, 3)``, or what else :class:`FaceLandmarker` takes.
            time_s: Its time stamp, seconds from any origin. Repeated, backward or NaN: taken as one usual step.

        Returns:
            The faces, lowest id first: smoothed points, ``ids``, and as ``boxes`` and ``angles`` those the points were
            predicted from.
        """
        frame = read_image(frame)
        now = self._clock.tick(time_s)
        self.statistics.frames += 1
        self._since_search += 1
        self._missing = [face for face in self._missing if now - face.since <= _REMEMBER_S]
        detected = self._detect(frame) if self._search_is_due() else None
        claimed = self._claimed(detected)
        lost = self._follow(frame, _rest(detected, claimed), now)
        if lost:
            if detected is None:
                detected, claimed = self._detect(frame), None
            # Of boxes detected before, only those of the tracks just lost are news; the rest was tried above.
            free = ~self._claimed(detected) if claimed is None else claimed & ~self._claimed(detected)
            self._follow(frame, detected[np.flatnonzero(free)], now, tracks=False)
        self._merge(now)
        self._tracks.sort(key=lambda track: track.id)
        self.statistics.face_frames += len(self._tracks)
        self.statistics.lost_face_frames += sum(face.wanted for face in self._missing)
        self.statistics.faces_lost += len(set(lost) - {track.id for track in self._tracks})
        return self._result()

    def _search_is_due(self) -> bool:
        if not self._tracks:
            return True
        if any(face.wanted for face in self._missing):
            return self._since_search >= min(self._fruitless, _LOST_PAUSE)
        return self._since_search >= self.detect_every and self._room() > 0

    def _room(self) -> int:
        """How many more faces may be taken up."""
        return 1_000_000 if self.max_faces is None else self.max_faces - len(self._tracks)

    def _detect(self, frame: np.ndarray) -> Detections:
        """What the detector finds, best first, boxes without an extent skipped."""
        self.statistics.detector_calls += 1
        self._since_search = 0
        self._fruitless += 1  # until a face is taken up
        found = as_detections(self.landmarker.detector(frame), checked=False)
        return found[np.flatnonzero(_has_extent(found.boxes))]

    def _claimed(self, detected: Detections | None) -> np.ndarray:
        """Which detected boxes ``(F,)`` are of faces that are followed already."""
        claimed = np.zeros(0 if detected is None else len(detected), dtype=bool)
        if detected is not None:
            claimed[[j for _, j in match(_boxes(self._tracks), detected.boxes, _SAME_FACE)]] = True
        return claimed

    def _follow(self, frame: np.ndarray, fresh: Detections, now: float, *, tracks: bool = True) -> list[int]:
        """Points of the known faces and of the ``fresh`` detections; returns the ids of those now lost."""
        known = self._tracks if tracks else []
        room = self._room()
        fresh = fresh[: room + _SPARE if room > 0 else 0]
        found = []
        if known:
            angles = np.array([track.angle for track in known])
            found.append(self.landmarker(frame, boxes=_boxes(known), angles=angles))
        if len(fresh):  # apart: how these are tilted is not known, and they are few and seldom
            found.append(self.landmarker(frame, boxes=fresh))
        if not found:
            return []
        faces = joined(found)
        finite = np.all(np.isfinite(faces.points), axis=(1, 2))
        points = np.where(finite[:, None, None], faces.points, 0.0)
        rolls = self.landmarker.rolls(points)
        next_boxes = tight_box(points, rolls)
        scores = np.where(finite & _has_extent(next_boxes), faces.face_scores, 0.0)
        lost = []
        for row, track in enumerate(known):
            if scores[row] < self.lost_below:
                wanted = _share_inside(track.box, frame) >= _LEAVING
                self._drop(track, now, wanted=wanted)
                lost += [track.id] if wanted else []
            elif not _centre_inside(next_boxes[row], frame):
                self._drop(track, now, wanted=False)
            else:
                self._update(track, faces[row], now, rolls[row])
        found = [
            row
            for row in range(len(known), len(faces))
            if scores[row] >= min(_FOUND_FACTOR * self.lost_below, 1.0) and _centre_inside(next_boxes[row], frame)
        ][: max(self._room(), 0)]
        for row, face_id in zip(found, self._identify(next_boxes[found]), strict=True):
            smooth = None if self._smoothing is None else FaceFilter(self._smoothing)
            track = _Track(face_id, now, smooth, faces[row], faces.points[row], faces.boxes[row], 0.0)
            self._update(track, faces[row], now, rolls[row])
            self._tracks.append(track)
            self._fruitless = 0
        return lost

    def _update(self, track: _Track, seen: FaceLandmarks, now: float, roll: float) -> None:
        raw = seen.points[0].astype(np.float64)
        track.seen = seen
        track.points = raw if track.filter is None else track.filter(raw, now)
        track.angle = float(roll)
        track.box = self._next_box(raw, track.points, track.angle)

    def _next_box(self, raw: np.ndarray, smoothed: np.ndarray, angle: float) -> np.ndarray:
        """The box of the next frame: that of the network's own points, which can't lag (experiments/tracking)."""
        return tight_box(raw, angle)

    def _identify(self, boxes: np.ndarray) -> list[int]:
        """Ids of faces just found in ``boxes`` ``(F, 4)``: of those that went missing at that place, else new ones."""
        where = np.array([face.box for face in self._missing]).reshape(-1, 4)
        back = {found: self._missing[missing].id for missing, found in match(where, boxes, _CAME_BACK)}
        ids = []
        for row in range(len(boxes)):
            ids.append(back.get(row, self.statistics.faces_new))
            self.statistics.faces_new += row not in back
        self._missing = [face for face in self._missing if face.id not in ids]
        return ids

    def _drop(self, track: _Track, now: float, *, wanted: bool) -> None:
        self._tracks = [other for other in self._tracks if other is not track]
        self._missing.append(_Missing(track.id, track.box, now, wanted))
        self._fruitless = 0

    def _merge(self, now: float) -> None:
        """Of two tracks that came to be on one face, the better one stays, with the id of the older one."""
        for track in sorted(self._tracks, key=lambda track: -track.seen.face_scores[0]):
            if not any(track is other for other in self._tracks):
                continue  # gone with one of the others
            for double in [other for other in self._tracks if other is not track]:
                if face_distances(track.box[None], double.box[None])[0, 0] >= _ONE_FACE:
                    continue
                track.id, double.id = sorted((track.id, double.id))
                track.since, double.since = sorted((track.since, double.since))
                # Faces that cross look like one for a moment; a double that never was a face of its own is not wanted.
                self._drop(double, now, wanted=now - double.since >= _REMEMBER_S)

    def _result(self) -> FaceLandmarks:
        layout = self.landmarker.layout
        if not self._tracks:
            return replace(FaceLandmarks.empty(layout), ids=np.zeros(0))
        seen = joined([track.seen for track in self._tracks])
        points, ids = np.stack([track.points for track in self._tracks]), [track.id for track in self._tracks]
        return FaceLandmarks(points, seen.scores, seen.boxes, layout, seen.face_scores, ids, seen.angles)


def _boxes(tracks: list[_Track]) -> np.ndarray:
    """``(F, 4)``."""
    return np.array([track.box for track in tracks], dtype=np.float64).reshape(-1, 4)


def _rest(detected: Detections | None, claimed: np.ndarray) -> Detections:
    """Detected faces that nobody follows yet."""
    return Detections(np.zeros((0, 4)), np.zeros(0)) if detected is None else detected[np.flatnonzero(~claimed)]


def _has_extent(boxes: np.ndarray) -> np.ndarray:
    """Whether boxes ``(F, 4)`` can be cut out: finite, not flat, and larger than a pixel. ``(F,)``."""
    size = boxes[:, 2:] - boxes[:, :2]
    return np.isfinite(boxes).all(axis=1) & (size > 0).all(axis=1) & (size.max(axis=1, initial=0) > 1)


def _centre_inside(box: np.ndarray, frame: np.ndarray) -> bool:
    x, y = (box[:2] + box[2:]) / 2
    return bool(0 <= x < frame.shape[1] and 0 <= y < frame.shape[0])


def _share_inside(box: np.ndarray, frame: np.ndarray) -> float:
    """How much of a box lies in the picture, from 0 to 1."""
    inside = np.clip(box, 0, [frame.shape[1], frame.shape[0]] * 2)
    return float(np.prod(inside[2:] - inside[:2]) / max(np.prod(box[2:] - box[:2]), 1e-9))


@dataclass
class TrackingStatistics:
    """What tracking cost and missed so far.

    One that leaves the picture is not lost, nor one that is found again in the same frame.
    """

    frames: int = 0
    detector_calls: int = 0
    face_frames: int = 0  # faces returned, summed over frames
    faces_new: int = 0  # ids given
    faces_lost: int = 0
    lost_face_frames: int = 0  # in which a lost face was missing, until it was found or forgotten, summed over faces

    @property
    def detector_calls_per_100(self) -> float:
        """Detector calls per 100 frames; 0 before the first frame."""
        return 100 * self.detector_calls / max(self.frames, 1)

    @property
    def lost_share(self) -> float:
        """Share of the frames of known faces in which the face was lost; 0 before the first face."""
        return self.lost_face_frames / max(self.face_frames + self.lost_face_frames, 1)
