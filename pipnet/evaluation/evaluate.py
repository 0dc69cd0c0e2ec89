"""A landmark model against a labelled set: which box each face gets, what is predicted from it, how wrong it is.

Errors are measured in source pixels of the photo, one face at a time. The pictures and files of a report are made from
the :class:`Evaluation` by :mod:`pipnet.evaluation.report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from pipnet.data.sample import BadItems, OnBad, Sample
from pipnet.evaluation.faces import (
    box_overlaps,
    compared_layout,
    detected_faces,
    jitter_boxes,
    photo_chunks,
    true_points,
)
from pipnet.geometry import box_size
from pipnet.layouts import PointLayout, map_points
from pipnet.metrics import Interval, bootstrap, error_statistics, labelled_box, labelled_mean, nme, norm_distances

if TYPE_CHECKING:
    from pipnet.inference.landmarker import FaceLandmarker

BoxSource = Literal["labels", "jittered", "detector"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was predicted for every face of a set, beside what is true.

    Attributes:
        samples: The F faces measured, in order; unreadable ones are in ``bad`` instead.
        layout: What the N points below mean: the layout the comparison was made in.
        true: ``(F, N, 2)``, source pixels; NaN points are not labelled.
        pred: ``(F, N, 2)``, source pixels; all NaN for a missed face.
        scores: ``(F,)``, score of the face as a whole; NaN for a missed face.
        point_scores: ``(F, N)``; NaN for a missed face, and where the model's points were mapped to others.
        label_boxes: ``(F, 4)``, the boxes that come with the labels.
        boxes: ``(F, 4)``, the box each prediction was made from; NaN for a missed face.
        ious: ``(F,)``, overlap of that box with the tight box of the true points; NaN for a missed face.
        image_sizes: ``(F, 2)``, width and height of the photo.
        protocol: Plain record of how the boxes were made and which layouts met.
        crop_space_scale: Margin of the authors' crop if their figure was asked for, else None.
        bad: Faces skipped, one reason each.
    """

    samples: tuple[Sample, ...]
    layout: PointLayout
    true: np.ndarray
    pred: np.ndarray
    scores: np.ndarray
    point_scores: np.ndarray
    label_boxes: np.ndarray
    boxes: np.ndarray
    ious: np.ndarray
    image_sizes: np.ndarray
    protocol: dict[str, Any]
    crop_space_scale: float | None = None
    bad: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def missed(self) -> npt.NDArray[np.bool_]:
        """``(F,)``: faces without a prediction."""
        return np.asarray(np.isnan(self.pred).all(axis=(1, 2)))

    @property
    def norms(self) -> dict[str, np.ndarray]:
        """Normalising distances of each face: those of :func:`pipnet.metrics.norm_distances`, and ``"label_box"``.

        The latter, ``sqrt(width * height)`` of the boxes that come with the labels, is there where these are not the
        tight boxes of the points; it is the norm of published AFLW figures.
        """
        norms = norm_distances(self.true, self.layout)
        size = box_size(self.label_boxes)
        if not np.allclose(size, norms["box"], equal_nan=True):
            norms["label_box"] = np.where(size > 0, size, np.nan)
        return norms

    @property
    def main_norm(self) -> str:
        """``"outer_eye"``; for a layout without a norm pair ``"label_box"`` where there is one, else ``"box"``."""
        norms = self.norms
        return next(name for name in ("outer_eye", "label_box", "box") if name in norms)

    def errors(self, norm: str | None = None, points: Sequence[int] | None = None) -> np.ndarray:
        """NME of each face, ``(F,)`` fractions: inf for a missed face, NaN where it can't be measured.

        Args:
            norm: A key of :attr:`norms`; the main norm when not given.
            points: Only these points, for a facial part; all when not given.
        """
        chosen = slice(None) if points is None else list(points)
        return nme(self.pred[:, chosen], self.true[:, chosen], self.norms[norm or self.main_norm])

    def crop_space_errors(self) -> np.ndarray:
        """NME of each face as the authors measure it: in the unit square of *their* crop, ``(F,)`` fractions.

        Their crop is the box of the label with a margin, cut at the photo's border and squeezed to a square, which
        weighs x and y errors by its width and height. Layouts without a norm pair are normalised by that square's
        side, 1, as their AFLW figures are.

        Reference:
            ``lib/preprocess.py`` and ``lib/test.py`` of the released code, without its rounding to whole pixels.
        """
        box = self.label_boxes
        margin = ((self.crop_space_scale or 1.0) - 1) / 2 * (box[:, 2:] - box[:, :2])
        sides = np.minimum(box[:, 2:] + margin, self.image_sizes - 1) - np.maximum(box[:, :2] - margin, 0)  # (F, 2)
        sides = np.where(sides > 0, sides, np.nan)[:, None]  # labels wholly outside the photo have no such crop
        true = self.true / sides
        norm = norm_distances(true, self.layout)["outer_eye"] if self.layout.norm_pair else np.ones(len(self))
        return nme(self.pred / sides, true, norm)

    def bias(self) -> np.ndarray:
        """Mean signed error of each face, ``(F, 2)`` as x and y fractions of the main norm; NaN for a missed face.

        Errors of a good model have no direction. A common shift of all faces shows half a pixel lost in the
        coordinates somewhere, or labels counted from 1.
        """
        offsets = np.moveaxis(self.pred - self.true, -1, 0)  # (2, F, N)
        return labelled_mean(offsets).T / self.norms[self.main_norm][:, None]

    def subset_names(self) -> list[str]:
        """Names of the parts of the dataset, in order of appearance."""
        return list(dict.fromkeys(name for sample in self.samples for name in sample.subsets))

    def in_subset(self, name: str) -> np.ndarray:
        """``(F,)`` bool: faces of a part of the dataset."""
        return np.array([name in sample.subsets for sample in self.samples])


def evaluate(
    landmarker: FaceLandmarker,
    samples: Sequence[Sample],
    *,
    layout: PointLayout,
    boxes: BoxSource = "labels",
    shift: float = 0.1,
    scale: float = 0.1,
    seed: int = 0,
    min_iou: float = 0.3,
    crop_space: bool = False,
    crop_space_scale: float = 1.1,
    batch_size: int = 32,
    on_bad: OnBad = "raise",
    progress: bool = False,
) -> Evaluation:
    """Predict every face of a set and put the truth beside it.

    Where the model's layout differs from the set's, the one that can be mapped to the other is: a 98-point truth is
    turned into the 68 points of the model (and its label boxes into their tight boxes), or the 98 predicted points into
    the 68 of the truth. Photos are read in chunks, so memory doesn't grow with their number.

    Args:
        landmarker: The model under test; its ``detector`` is used for ``boxes="detector"`` only.
        samples: Labelled faces.
        layout: What the samples' points mean.
        boxes: ``"labels"``, the samples' boxes; ``"jittered"``, these moved and resized at random;
            ``"detector"``, the detection of greatest overlap with the tight box of the true points, and a miss where
            none overlaps by ``min_iou``.
        shift: For jittered boxes, the largest move along x and along y, as a fraction of the longer box side.
        scale: For jittered boxes, the largest growth or shrinkage: the factor is uniform in ``1 - scale … 1 + scale``.
        seed: Of the jitter. The same seed moves the same faces the same way at every amount.
        min_iou: Least overlap (intersection over union) of a detection with the true box.
        crop_space: Also measure in the authors' crop space, :meth:`Evaluation.crop_space_errors`.
        crop_space_scale: Side of the authors' crop over the label box: 1.1 for 300W, 1.2 for WFLW, 1 for COFW and AFLW,
            1.3 for all in their cross-domain code.
        batch_size: Faces the network sees at once.
        on_bad: ``"raise"`` stops at an unreadable photo; ``"skip"`` lists it in :attr:`Evaluation.bad`.
        progress: Show a progress bar.

    Raises:
        ValueError: No samples, layouts that can't be compared (both are named), or an unknown box source.
        BadSampleError: An unreadable photo under ``on_bad="raise"``.
    """
    if not samples:
        raise ValueError("no face to measure: the list of samples is empty")
    if boxes not in get_args(BoxSource):
        raise ValueError(f"boxes must be one of {', '.join(get_args(BoxSource))}; got {boxes!r}")
    measured = compared_layout(landmarker.layout, layout)
    true = true_points(samples, layout, measured)
    tight = labelled_box(true)
    start = tight if measured.name != layout.name else np.array([sample.box for sample in samples], dtype=np.float64)
    used = jitter_boxes(start, shift, scale, seed) if boxes == "jittered" else start.copy()
    given: list[Any] = list(used)  # a box, a detection, or None
    if boxes == "detector":
        used[:] = np.nan

    bad = BadItems(on_bad)
    kept = np.ones(len(samples), dtype=bool)
    pred = np.full_like(true, np.nan)
    scores = np.full(len(samples), np.nan)
    point_scores = np.full(true.shape[:2], np.nan)
    sizes = np.zeros((len(samples), 2))

    with tqdm(total=len(samples), desc=f"boxes from {boxes}", unit="face", disable=not progress) as bar:
        for chunk in photo_chunks(samples, bad, kept):
            if boxes == "detector":
                indices = [index for index, _ in chunk]
                found = detected_faces(landmarker.detector, [i for _, i in chunk], tight[indices], min_iou)
                for index, face in zip(indices, found, strict=True):
                    given[index] = face
                    used[index] = np.nan if face is None else face.boxes[0]
            faces = [(index, image) for index, image in chunk if np.isfinite(used[index]).all()]
            if faces:
                indices = [index for index, _ in faces]
                images = [image for _, image in faces]
                found = landmarker.predict_batch(images, [given[index] for index in indices], batch_size=batch_size)
                pred[indices] = map_points(found.points.astype(np.float64), landmarker.layout, measured)
                scores[indices] = found.face_scores
                if found.layout.num_points == measured.num_points:
                    point_scores[indices] = found.scores
            for index, image in chunk:
                sizes[index] = image.shape[1], image.shape[0]
            bar.update(len(chunk))

    if not kept.any():
        raise ValueError(f"no face to measure: all {len(samples)} were skipped, the first because {bad.reasons[0]}")
    protocol: dict[str, Any] = {"boxes": boxes, "model_layout": landmarker.layout.name, "data_layout": layout.name}
    if boxes == "jittered":
        protocol |= {"shift": shift, "scale": scale, "seed": seed}
    if boxes == "detector":
        protocol |= {"min_iou": min_iou}
    return Evaluation(
        samples=tuple(sample for sample, keep in zip(samples, kept, strict=True) if keep),
        layout=measured,
        true=true[kept],
        pred=pred[kept],
        scores=scores[kept],
        point_scores=point_scores[kept],
        label_boxes=start[kept],
        boxes=used[kept],
        ious=box_overlaps(used[kept], tight[kept]),
        image_sizes=sizes[kept],
        protocol=protocol,
        crop_space_scale=crop_space_scale if crop_space else None,
        bad=tuple(bad.reasons),
    )


@dataclass(frozen=True)
class NoiseLevel:
    """One point of the curve of error over box noise."""

    level: float  # largest shift, fraction of the longer box side, and largest relative change of size
    faces: int
    statistics: dict[str, Interval]  # as in pipnet.metrics.error_statistics, fractions of the main norm


def box_noise_curve(
    landmarker: FaceLandmarker,
    samples: Sequence[Sample],
    *,
    layout: PointLayout,
    levels: Sequence[float],
    seed: int = 0,
    resamples: int = 2000,
    batch_size: int = 32,
    on_bad: OnBad = "raise",
    progress: bool = False,
) -> list[NoiseLevel]:
    """NME over the amount of box noise: how much a worse face detector would cost.

    Each level, from 0 to below 1, is the largest shift and the largest relative change of size of :func:`evaluate` at
    once. All levels move a face in the same direction, so the curve is smooth and its points can be compared pairwise.
    """
    for level in levels:
        if not 0 <= level < 1:
            raise ValueError(f"box noise levels must lie in [0, 1), got {level}")
    curve = []
    shared: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "on_bad": on_bad, "progress": progress}
    for level in levels:
        result = evaluate(landmarker, samples, layout=layout, boxes="jittered", shift=level, scale=level, **shared)
        errors = result.errors()
        errors = errors[~np.isnan(errors)]
        curve.append(NoiseLevel(level, len(errors), bootstrap(errors, error_statistics(), resamples=resamples)))
    return curve
