"""A teacher labels unlabelled faces: the mean over augmented views of each; a kill costs one chunk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
import torch

from pipnet.console import StopRequest
from pipnet.geometry import Crop, affine_crop, box_size, crop_of_square, crop_squares, tight_box, turned
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.pipnet import PIPNet
from pipnet.self_training.face_store import UnlabelledFaces
from pipnet.self_training.pseudo_labels import Estimate, PseudoLabels
from pipnet.training.distributed import Processes, in_step

_READERS = 4  # threads that decode crops while the network computes
_TURN, _SHIFT, _ZOOM = 10.0, 0.04, 0.08  # of further views: degrees, fraction of the crop's side, log
_LEAST_EXTENT = 1e-3  # pixels; points that fall on one another give no box


class Teacher:
    """A network and its test-time augmentation: a face is seen in several views.

    Args:
        model: A network with its layout and crop.
        label_shift: As it was trained; see :class:`pipnet.data.dataset.FaceCrops`.
        views: Augmented views of each face, whose mean its points are; every second one is mirrored, and from the third
            on they are slightly turned, moved and resized.
        seed: Of the views.
        batch_size: Faces a forward pass.

    Raises:
        ValueError: There is no view.
    """

    def __init__(
        self, model: LoadedModel, *, label_shift: float, views: int = 1, seed: int = 0, batch_size: int = 64
    ) -> None:
        if views < 1:
            raise ValueError(f"a face needs at least one view, got views={views}")
        self.net, self.crop_scale, self.layout = model.net, model.crop_scale, model.layout
        self.mirror = np.array(model.layout.mirror)
        self._landmarker = FaceLandmarker.from_model(model)
        self.label_shift, self.views, self.seed, self.batch_size = label_shift, views, seed, batch_size

    def label(self, faces: UnlabelledFaces, rows: range) -> Iterator[Estimate]:
        """Labels of some faces, batch by batch; the next batch is read meanwhile."""
        batches = [rows[first : first + self.batch_size] for first in range(0, len(rows), self.batch_size)]
        with ThreadPoolExecutor(_READERS) as readers:
            ahead = [[readers.submit(faces.image, row) for row in batches[0]]]
            for number, batch in enumerate(batches):
                images = [future.result() for future in ahead.pop()]
                if number + 1 < len(batches):
                    ahead.append([readers.submit(faces.image, row) for row in batches[number + 1]])
                found = faces.found(batch)
                yield self.estimate(images, found.boxes, found.angles, batch)

    def estimate(self, images: list[np.ndarray], boxes: np.ndarray, angles: np.ndarray, names: range) -> Estimate:
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
        squares = crop_squares(np.where(found, tight, first.boxes), self.crop_scale)
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
                shift = self.label_shift * squares[:, 2] / self.crop_scale  # (B,), pixels
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
        """A further view of a face; the first of them is mirrored and nothing else."""
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


_CHUNK = 1024  # faces that are written at once


def estimate(teacher: Teacher, faces: UnlabelledFaces, processes: Processes) -> PseudoLabels:
    """Label all faces with a network; every face, no matter how sure it is, as in the paper (section 3.4).

    A face is cut by its detector's box, upright (:class:`pipnet.inference.landmarker.FaceLandmarker`), and again by the
    tight box of the points found: the box that training uses. Its points are the mean over the teacher's views.

    Labels lie in the store of the faces and are never written again. What was interrupted resumes, to the same numbers,
    with any number of processes.

    Raises:
        OSError: The disk is full.
        BadSampleError: The crop of a face is damaged; the message names it.
        TrainingError: Ctrl-C or SIGTERM asked for an end, or another process has failed; chunks in progress are lost.
    """
    request = {
        "teacher": weights_digest(teacher.net),
        "faces": faces.digest,
        "count": len(faces),
        "layout": teacher.layout.name,
        "cell": teacher.crop_scale / teacher.net.grid,  # side of a cell in longer sides of the box
        "label_shift": teacher.label_shift,
        "views": teacher.views,
        "seed": teacher.seed,
    }
    labels = PseudoLabels(faces, request)

    def share() -> Iterator[None]:
        """The chunks of this process that are not there yet, batch by batch."""
        for first in range(processes.rank * _CHUNK, len(faces), processes.world_size * _CHUNK):
            rows = range(first, min(first + _CHUNK, len(faces)))
            if not labels.hold(rows):
                found = []
                for batch in teacher.label(faces, rows):
                    found.append(batch)
                    yield
                labels.write(rows, Estimate(*map(np.concatenate, zip(*found, strict=True))))
            yield

    stopped = f"stopped on request while faces were labelled; the same command resumes from {faces.folder}"
    with StopRequest(alone=processes.world_size == 1) as stop:
        in_step(share(), processes, stop, stopped)
    return labels


def weights_digest(net: PIPNet) -> str:
    """SHA-256 of all weights of a network, hexadecimal."""
    digest = hashlib.sha256()
    for name, values in net.state_dict().items():
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
