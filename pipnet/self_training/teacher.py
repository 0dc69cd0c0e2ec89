"""A teacher labels unlabelled faces: every face once, shared out over processes, and a kill costs one chunk.

A network that looks at a face several times and says what its looks have in common.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pipnet.console import StopRequest
from pipnet.data.images import read_image
from pipnet.files import replacing
from pipnet.geometry import Crop, affine_crop, box_size, crop_of_square, crop_squares, tight_box, turned
from pipnet.inference.detections import Detections
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import PointLayout
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.pipnet import PIPNet
from pipnet.self_training.face_store import UnlabelledFaces
from pipnet.self_training.pseudo_labels import ARRAYS, PseudoLabels
from pipnet.training.distributed import Processes
from pipnet.training.state import TrainingError

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


_CHUNK = 1024  # faces in one file
_LOOK_S = 0.2  # between looks at whether the other processes are done


def estimate(
    net: PIPNet,
    faces: UnlabelledFaces,
    folder: str | Path,
    *,
    layout: PointLayout,
    box_scale: float,
    label_shift: float,
    team: Processes,
    views: int = 1,
    seed: int = 0,
    batch_size: int = 64,
) -> PseudoLabels:
    """Label all faces with a network; every face, no matter how sure it is, as in the paper (section 3.4).

    A face is cut by its detector's box, upright (:class:`pipnet.inference.landmarker.FaceLandmarker`), and again by the
    tight box of the points found: the box that training uses.
    Further views of it are mirrored (every second one), and from the third on slightly turned, moved and resized.
    Its points are the mean over the views.

    Finished labels are never written again. What was interrupted goes on, to the same numbers, with any number of
    processes.

    Args:
        net: The teacher; it is moved to the device of ``team``, into evaluation mode.
        faces: What to label.
        folder: Where the labels go; one for each teacher.
        layout: What the points mean.
        box_scale: Side of the crop over the longer side of the box, as the teacher was trained.
        label_shift: As the teacher was trained; see :class:`pipnet.data.dataset.FaceCrops`.
        team: The processes that share the work.
        views: Looks at each face, at least 1.
        seed: Of the views.
        batch_size: Faces a forward pass.

    Returns:
        The labels, on every process.

    Raises:
        ValueError: The folder holds labels of another teacher, other faces or other settings; or there is no face.
        BadSampleError: The crop of a face can't be read; the message names the file.
        TrainingError: Ctrl-C or SIGTERM asked it to stop; the chunk in progress is lost.
    """
    folder = Path(folder)
    if views < 1:
        raise ValueError(f"a face needs at least one view, got views={views}")
    if not len(faces):
        raise ValueError(f"{faces.folder} has no face to label; gather photos that show some, or relax the rules")
    request = {
        "teacher": weights_digest(net),
        "pool": pool_digest(faces.folder),
        "faces": len(faces),
        "layout": layout.name,
        "cell": box_scale / net.grid,  # side of a cell in longer sides of the box
        "label_shift": label_shift,
        "views": views,
        "seed": seed,
    }
    if not team.from_main(lambda: _begin(folder, request)):
        teacher = Teacher(net.to(team.device).eval(), layout, box_scale, label_shift, views, seed, batch_size)
        with StopRequest(alone=team.world_size == 1) as stop:
            _label_share(teacher, faces, folder, team, stop)
            _await_chunks(folder, len(faces), stop)
        team.from_main(lambda: _assemble(folder, request, net.num_points))
    return PseudoLabels(folder, faces)


def weights_digest(net: PIPNet) -> str:
    """SHA-256 of all weights of a network, hexadecimal."""
    digest = hashlib.sha256()
    for name, values in net.state_dict().items():
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pool_digest(pool: Path) -> str:
    """SHA-256 of the list of faces of a pool, hexadecimal: says which they are.

    Raises:
        OSError: Nothing was gathered there.
    """
    with (pool / "faces.npy").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _label_share(teacher: Teacher, faces: UnlabelledFaces, folder: Path, team: Processes, stop: StopRequest) -> None:
    """Write the chunks of this process that are not there yet."""
    for chunk in range(team.rank, _chunks(len(faces)), team.world_size):
        file = _chunk_file(folder, chunk)
        if file.is_file():
            continue
        found = []
        for batch in teacher.label(faces, range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(faces)))):
            found.append(batch)
            _refuse_to_go_on(folder, stop)
        whole = Estimate(*map(np.concatenate, zip(*found, strict=True)))
        with replacing(file) as temporary:
            np.savez(temporary, **whole._asdict())


def _await_chunks(folder: Path, count: int, stop: StopRequest) -> None:
    """Until all processes have labelled their share.

    Polled, since nobody answers Ctrl-C in a barrier: whoever is asked to stop leaves, and no other waits for it.
    """
    for chunk in range(_chunks(count)):
        # The chunks go when the labels are put together, perhaps before this process has looked at the last of them.
        while not (_chunk_file(folder, chunk).is_file() or (folder / "done.json").is_file()):
            _refuse_to_go_on(folder, stop)
            time.sleep(_LOOK_S)
    _refuse_to_go_on(folder, stop)


def _refuse_to_go_on(folder: Path, stop: StopRequest) -> None:
    if stop.asked:
        raise TrainingError(f"stopped on request while faces were labelled; the same command goes on from {folder}")


def _begin(folder: Path, request: dict[str, Any]) -> bool:
    """Whether the labels are finished; else the folder is made ready.

    Raises:
        ValueError: They were begun with something else; the message names it.
    """
    done, begun = folder / "done.json", folder / "begun.json"
    file = done if done.is_file() else begun
    if file.is_file():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file} is damaged ({error}); delete the folder it is in") from error
        for name, value in request.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{folder} holds pseudo-labels with {name}={before.get(name)}, now {name}={value}; they are never"
                    " written over: choose another folder, or delete this one"
                )
    if file == done:
        shutil.rmtree(folder / "chunks", ignore_errors=True)
        return True
    (folder / "chunks").mkdir(parents=True, exist_ok=True)
    for leftover in folder.rglob(".*-*.*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    _write_json(begun, request)
    return False


def _assemble(folder: Path, request: dict[str, Any], num_points: int) -> None:
    """Put the chunks together, part by part, and say last that it is done."""
    count = request["faces"]
    shapes = {"points": (count, num_points, 2), "angle": (count,)}
    for name in ARRAYS:
        header = {"descr": "<f4", "fortran_order": False, "shape": shapes.get(name, (count, num_points))}
        # Written and not mapped: on a full disk writing fails with a message, a memory map with a crash.
        with replacing(folder / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for number in range(_chunks(count)):
                with np.load(_chunk_file(folder, number)) as chunk:
                    file.write(chunk[name].astype("<f4").tobytes())
    _write_json(folder / "done.json", request)
    (folder / "begun.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "chunks", ignore_errors=True)


def _chunks(count: int) -> int:
    return -(-count // _CHUNK)


def _chunk_file(folder: Path, chunk: int) -> Path:
    return folder / "chunks" / f"{chunk:06d}.npz"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
