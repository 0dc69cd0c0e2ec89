"""A network that looks at a face several times and says what its looks have in common."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import NamedTuple

import numpy as np
import torch

from pipnet.data.face_store import UnlabelledFaces
from pipnet.data.images import read_image
from pipnet.geometry import Crop, affine_crop, box_size, crop_of_square, crop_squares, tight_box, turned
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import PointLayout
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.pipnet import PIPNet

_READERS = 4  # threads that read photos while the network computes
_TURN, _SHIFT, _ZOOM = 10.0, 0.04, 0.08  # of further views: degrees, fraction of the crop's side, log
_LEAST_EXTENT = 1e-3  # pixels; points that fall on one another give no box


class Estimate(NamedTuple):
    """Of a batch of faces."""

    points: np.ndarray  # (B, N, 2) float32, pixels of the crops' files
    spread: np.ndarray  # (B, N) float32, cells
    disagreement: np.ndarray  # (B, N) float32, fraction of the box's size
    angle: np.ndarray  # (B,) float32, degrees: how far the face was turned clockwise where it was cut


class Teacher:
    """A network that looks at faces several times.

    Args:
        net: In evaluation mode, on its device.
        layout: What its points mean.
        box_scale: Side of the crop over the longer side of the box, as it was trained.
        label_shift: As it was trained; see :class:`pipnet.data.dataset.FaceCrops`.
        views: Looks at each face that its points are the mean of.
        seed: Of the views.
        batch_size: Faces a forward pass.
    """

    def __init__(
        self,
        net: PIPNet,
        layout: PointLayout,
        box_scale: float,
        label_shift: float,
        views: int,
        seed: int,
        batch_size: int,
    ) -> None:
        self.net, self.box_scale, self.label_shift = net, box_scale, label_shift
        self.mirror = np.array(layout.mirror)
        loaded = LoadedModel(net, layout, box_scale, {})
        self._landmarker = FaceLandmarker.from_model(loaded)
        self.views, self.seed, self.batch_size = views, seed, batch_size

    def label(self, faces: UnlabelledFaces, rows: range) -> Iterator[Estimate]:
        """Labels of some faces, batch by batch; the next batch is read meanwhile."""
        batches = [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]
        with ThreadPoolExecutor(_READERS) as readers:
            ahead = [[readers.submit(read_image, faces.path(row)) for row in batches[0]]]
            for number, batch in enumerate(batches):
                images = [future.result() for future in ahead.pop()]
                if number + 1 < len(batches):
                    ahead.append([readers.submit(read_image, faces.path(row)) for row in batches[number + 1]])
                share = slice(batch.start, batch.stop)
                yield self.look(images, np.asarray(faces.boxes[share]), np.asarray(faces.angles[share]), batch)

    def look(self, images: list[np.ndarray], boxes: np.ndarray, angles: np.ndarray, names: range) -> Estimate:
        """Labels of a batch.

        Args:
            images: RGB uint8, of any size.
            boxes: ``(B, 4)`` of the detector, pixels of the images.
            angles: ``(B,)``, degrees by which these are turned, NaN where the detector does not say.
            names: Numbers of the faces: what their views depend on.
        """
        told = [Detections(box[None], np.ones(1), angle[None]) for box, angle in zip(boxes, angles, strict=True)]
        first = self._landmarker.predict_batch(images, told, batch_size=len(images))
        angles = first.angles.astype(np.float64)
        tight = tight_box(first.points.astype(np.float64), angles)
        found = ((tight[:, 2:] - tight[:, :2]).max(axis=1) > _LEAST_EXTENT)[:, None]
        squares = crop_squares(np.where(found, tight, first.boxes), self.box_scale)
        points, spreads = [], []
        for view in range(self.views):
            mirrored = view % 2 == 1
            crops = (
                [crop_of_square(*face) for face in zip(squares, repeat(self.net.input_size), angles, strict=False)]
                if view == 0
                else [self._view(*face, view) for face in zip(squares, angles, names, strict=True)]
            )
            seen, spread = self._see(images, crops)
            if mirrored:  # the labels that the network learnt sit to the right in mirrored faces, too
                shift = self.label_shift * squares[:, 2] / self.box_scale  # (B,), pixels
                right = turned(np.stack([2 * shift, np.zeros_like(shift)], axis=1), angles)
                seen = seen[:, self.mirror] + right[:, None]
                spread = spread[:, self.mirror]
            points.append(seen)
            spreads.append(spread)
        mean = np.mean(points, axis=0)  # (B, N, 2)
        apart = np.sqrt(np.square(np.array(points) - mean).sum(axis=-1).mean(axis=0))  # (B, N)
        size = np.maximum(box_size(tight_box(mean)), _LEAST_EXTENT)[:, None]
        return Estimate(*(part.astype(np.float32) for part in (mean, np.mean(spreads, axis=0), apart / size, angles)))

    def _view(self, square: np.ndarray, angle: float, name: int, view: int) -> Crop:
        """A further look at a face; the first of them is mirrored and nothing else."""
        x, y, side = square.tolist()
        turn, right, down, zoom = np.random.default_rng([self.seed, name, view]).uniform(-1, 1, 4) * (view > 1)
        centre = np.array([x + _SHIFT * right * side, y + _SHIFT * down * side])
        side *= float(np.exp(_ZOOM * zoom))
        return affine_crop(centre, (side, side), self.net.input_size, angle=_TURN * turn - angle, mirror=view % 2 == 1)

    def _see(self, images: list[np.ndarray], crops: list[Crop]) -> tuple[np.ndarray, np.ndarray]:
        """Points ``(B, N, 2)`` float64, pixels of the images, and the spread of their votes ``(B, N)``, cells."""
        pixels = np.stack([crop.warp(image) for crop, image in zip(crops, images, strict=True)])
        batch = torch.from_numpy(pixels).to(next(self.net.parameters()).device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            votes = self.net.count_votes(self.net(self.net.normalize(batch)))
        units = votes.points_unit.cpu().numpy().astype(np.float64)
        points = np.stack([crop.from_unit(unit) for crop, unit in zip(crops, units, strict=True)])
        return points, votes.spread.cpu().numpy()
