"""A teacher labels unlabelled faces: every face once, shared out over processes, and a kill costs one chunk."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from pipnet.atomic import replacing
from pipnet.data.face_store import UnlabelledFaces
from pipnet.data.images import read_image
from pipnet.geometry import Crop, affine_crop, box_size, crop_of_square, crop_squares, tight_box
from pipnet.layouts import PointLayout
from pipnet.model.pipnet import PIPNet
from pipnet.training.processes import Processes
from pipnet.training.pseudo_labels import ARRAYS, PseudoLabels

_CHUNK = 1024  # faces in one file
_READERS = 4  # threads that read photos while the network computes
_TURN, _SHIFT, _ZOOM = 10.0, 0.04, 0.08  # of further views: degrees, fraction of the crop's side, log
_LEAST_EXTENT = 1e-3  # pixels; points that fall on one another give no box


class Estimate(NamedTuple):
    """Of a batch of faces."""

    points: np.ndarray  # (B, N, 2) float32, pixels of the crops' files
    spread: np.ndarray  # (B, N) float32, cells
    disagreement: np.ndarray  # (B, N) float32, fraction of the box's size


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

    A face is cut by its detector's box, and again by the tight box of the points found: the box that training uses.
    Further views of it are mirrored (every second one), and from the third on slightly turned, moved and resized.
    Its points are the mean over the views.

    Finished labels are never written again. What was interrupted goes on, to the same numbers, with any number of
    processes.

    Args:
        net: The teacher; it is moved to the device of ``team``.
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
    """
    folder = Path(folder)
    if views < 1:
        raise ValueError(f"a face needs at least one view, got views={views}")
    if not len(faces):
        raise ValueError(f"{faces.folder} has no face to label; gather photos that show some, or relax the rules")
    request = {
        "teacher": weights_digest(net),
        "pool": _file_digest(faces.folder / "faces.npy"),
        "faces": len(faces),
        "layout": layout.name,
        "cell": box_scale / net.grid,  # side of a cell in longer sides of the box
        "label_shift": label_shift,
        "views": views,
        "seed": seed,
    }
    if not team.from_main(lambda: _begin(folder, request)):
        teacher = _Teacher(net.to(team.device), layout, box_scale, label_shift, views, seed, batch_size)
        was_training = net.training
        net.eval()
        for chunk in range(team.rank, -(-len(faces) // _CHUNK), team.world_size):
            file = _chunk_file(folder, chunk)
            if not file.is_file():
                rows = range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(faces)))
                found = Estimate(*map(np.concatenate, zip(*teacher.label(faces, rows), strict=True)))
                with replacing(file) as temporary:
                    np.savez(temporary, **found._asdict())
        net.train(was_training)
        team.wait()
        team.from_main(lambda: _assemble(folder, request, net.num_points))
    return PseudoLabels(folder, faces)


def weights_digest(net: PIPNet) -> str:
    """SHA-256 of all weights of a network, hexadecimal."""
    digest = hashlib.sha256()
    for name, values in net.state_dict().items():
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}".encode())
        digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class _Teacher:
    """A network that looks at faces several times."""

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
                yield self.look(images, np.asarray(faces.boxes[batch.start : batch.stop]), batch)

    def look(self, images: list[np.ndarray], boxes: np.ndarray, names: range) -> Estimate:
        """Labels of a batch.

        Args:
            images: RGB uint8, of any size.
            boxes: ``(B, 4)`` of the detector, pixels of the images.
            names: Numbers of the faces: what their views depend on.
        """
        first, _ = self._see(images, self._plain(crop_squares(boxes, self.box_scale)))
        tight = tight_box(first)
        found = ((tight[:, 2:] - tight[:, :2]).max(axis=1) > _LEAST_EXTENT)[:, None]
        squares = crop_squares(np.where(found, tight, boxes), self.box_scale)
        points, spreads = [], []
        for view in range(self.views):
            mirrored = view % 2 == 1
            crops = (
                self._plain(squares)
                if view == 0
                else [self._view(*face, view) for face in zip(squares, names, strict=True)]
            )
            seen, spread = self._see(images, crops)
            if mirrored:  # the labels that the network learnt sit to the right in mirrored faces, too
                shift = self.label_shift * squares[:, 2] / self.box_scale  # (B,), pixels
                seen = seen[:, self.mirror] + np.stack([2 * shift, np.zeros_like(shift)], axis=1)[:, None]
                spread = spread[:, self.mirror]
            points.append(seen)
            spreads.append(spread)
        mean = np.mean(points, axis=0)  # (B, N, 2)
        apart = np.sqrt(np.square(np.array(points) - mean).sum(axis=-1).mean(axis=0))  # (B, N)
        size = np.maximum(box_size(tight_box(mean)), _LEAST_EXTENT)[:, None]
        return Estimate(*(part.astype(np.float32) for part in (mean, np.mean(spreads, axis=0), apart / size)))

    def _plain(self, squares: np.ndarray) -> list[Crop]:
        return [crop_of_square(square, self.net.input_size) for square in squares]

    def _view(self, square: np.ndarray, name: int, view: int) -> Crop:
        """A further look at a face; the first of them is mirrored and nothing else."""
        x, y, side = square.tolist()
        turn, right, down, zoom = np.random.default_rng([self.seed, name, view]).uniform(-1, 1, 4) * (view > 1)
        centre = np.array([x + _SHIFT * right * side, y + _SHIFT * down * side])
        side *= float(np.exp(_ZOOM * zoom))
        return affine_crop(centre, (side, side), self.net.input_size, angle=_TURN * turn, mirror=view % 2 == 1)

    def _see(self, images: list[np.ndarray], crops: list[Crop]) -> tuple[np.ndarray, np.ndarray]:
        """Points ``(B, N, 2)`` float64, pixels of the images, and the spread of their votes ``(B, N)``, cells."""
        pixels = np.stack([crop.warp(image) for crop, image in zip(crops, images, strict=True)])
        batch = torch.from_numpy(pixels).to(next(self.net.parameters()).device).permute(0, 3, 1, 2)
        with torch.inference_mode():
            votes = self.net.count_votes(self.net(self.net.normalize(batch)))
        units = votes.points_unit.cpu().numpy().astype(np.float64)
        points = np.stack([crop.from_unit(unit) for crop, unit in zip(crops, units, strict=True)])
        return points, votes.spread.cpu().numpy()


def _begin(folder: Path, request: dict[str, Any]) -> bool:
    """Whether the labels are finished; else the folder is made ready.

    Raises:
        ValueError: They were begun with something else; the message names it.
    """
    done, begun = folder / "done.json", folder / "begun.json"
    file = done if done.is_file() else begun
    if file.is_file():
        before = json.loads(file.read_text(encoding="utf-8"))
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
    for leftover in (folder / "chunks").glob(".*.npz"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    _write_json(begun, request)
    return False


def _assemble(folder: Path, request: dict[str, Any], num_points: int) -> None:
    """Put the chunks together, part by part, and say last that it is done."""
    count = request["faces"]
    shapes = {"points": (count, num_points, 2), "spread": (count, num_points), "disagreement": (count, num_points)}
    for name in ARRAYS:
        with replacing(folder / f"{name}.npy") as temporary:
            whole = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shapes[name])
            for first in range(0, count, _CHUNK):
                with np.load(_chunk_file(folder, first // _CHUNK)) as chunk:
                    whole[first : first + _CHUNK] = chunk[name]
            whole.flush()
            del whole
    _write_json(folder / "done.json", request)
    (folder / "begun.json").unlink(missing_ok=True)
    shutil.rmtree(folder / "chunks", ignore_errors=True)


def _chunk_file(folder: Path, chunk: int) -> Path:
    return folder / "chunks" / f"{chunk:06d}.npz"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
