"""Face landmark detectors of others that are installed here, behind one call: a crop becomes points on it.

``accuracy.py`` measures them beside pipnet's networks. Nothing of theirs is a
dependency of pipnet and nothing is downloaded: what isn't installed isn't listed.

======================== ====== ===================================================================================
name                     points what runs
======================== ====== ===================================================================================
dlib-68                  68     dlib's ``shape_predictor_68_face_landmarks.dat`` in a given box
mediapipe-mesh           468    MediaPipe 0.10 ``FaceMesh`` on a photo: its face detector, then the mesh
mediapipe-attention      478    the same with ``refine_landmarks``: the mesh with attention to eyes and lips
mediapipe-attention-box  478    only that mesh, in a given box; no detector
mediapipe-task           478    MediaPipe's newer ``FaceLandmarker`` on a photo, where its ``.task`` file is given
face-alignment           68     FAN in a given box, mirrored pass included, where torch's cache holds its weights
======================== ====== ===================================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pipnet.geometry import Crop, crop_of_square, crop_squares

DLIB_MODEL_VARIABLE = "PIPNET_DLIB_MODEL"
MEDIAPIPE_TASK_VARIABLE = "PIPNET_MEDIAPIPE_TASK"

PointsOnCrop: TypeAlias = Callable[[np.ndarray], np.ndarray | None]
"""RGB uint8 crop ``(S, S, 3)`` to ``(K, 2)`` float64, ``points_crop`` (0-based, pixel centres); None: no face seen."""

INNER_OF_68 = tuple(range(17, 68))

# The mesh has no jaw line of the 68 points (its outline is the head's). For the other 51, in iBUG's order, the list of
# vertices in common use; it is nobody's definition: brows, above all, are drawn differently in the two.
INNER_OF_MESH = (
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),  # brows, from the picture's left
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),  # bridge of the nose, nostrils
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outer border
    *(78, 82, 13, 312, 308, 317, 14, 87),  # lips, inner border
)

# dlib looks a little past the edge of its box, so the crop holds this many sides of it.
_DLIB_AROUND = 1.5


class PeerUnavailableError(ValueError):
    """A detector that is installed but can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Peer:
    """A landmark detector that is not pipnet's.

    Attributes:
        name: See the table of this module.
        distribution: Installed package it comes from.
        num_points: K, points of a face.
        inner: Which of them are the 51 inner points of the 68 (brows, nose, eyes, mouth), in their order.
        factory: Loads it, on one thread as far as it can be told so (MediaPipe can't: pin the process to one core).
        box_scale: Side of the crop it wants, over the longer side of the tight box of the 68 points.
        box_shift: How far below the box's centre the crop's lies, in longer sides.
        crop_size: Side of the crop in pixels at which it loses nothing.
        problem: Why it can't be used, as far as can be seen without loading it; empty otherwise.

    ``box_scale`` and ``box_shift`` were chosen for the least error on 100 training faces of 300W (every eighth of
    LFPW's); no test face was looked at. The plain mesh takes those of the one with attention; FAN's are its package's.

    Example:
        >>> other = Peer("centre", "", 1, (), lambda: lambda crop: np.full((1, 2), len(crop) / 2 - 0.5), 2, 0)
        >>> other.open()(np.zeros((64, 64, 3), np.uint8)).tolist()
        [[31.5, 31.5]]
    """

    name: str
    distribution: str
    num_points: int
    inner: tuple[int, ...]
    factory: Callable[[], PointsOnCrop]
    box_scale: float
    box_shift: float
    crop_size: int = 256
    problem: str = ""

    def open(self) -> PointsOnCrop:
        """Load it.

        Raises:
            PeerUnavailableError: It can't be loaded.
        """
        if self.problem:
            raise PeerUnavailableError(self.problem)
        try:
            return self.factory()
        except PeerUnavailableError:
            raise
        except Exception as error:  # every package fails in its own way: missing libraries, NumPy's version, bad files
            reason = (str(error).strip().splitlines() or [""])[0][:160]
            raise PeerUnavailableError(
                f"{self.name} is installed but can't be loaded ({type(error).__name__}: {reason}); install "
                f"{self.distribution} in an environment that suits it, or skip it"
            ) from error

    def crop(self, box: np.ndarray, size: int | None = None) -> Crop:
        """The crop it wants of a face.

        Args:
            box: ``(4,)``, tight box of the 68 points, source pixels.
            size: Side in pixels; :attr:`crop_size` if not given.

        Raises:
            ValueError: The box has no extent.

        Example:
            >>> other = Peer("any", "", 1, (), lambda: None, box_scale=2.0, box_shift=-0.5)
            >>> other.crop(np.array([0.0, 0, 40, 20]), size=80).to_source(np.array([39.5, 39.5])).tolist()
            [20.0, -10.0]
        """
        (square,) = crop_squares(box, 1.0)
        square[1] += self.box_shift * square[2]
        square[2] *= self.box_scale
        return crop_of_square(square, size or self.crop_size)

    @property
    def version(self) -> str:
        """Of its package."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return "unknown"


def installed_peers(
    *, dlib_model: str | Path | None = None, mediapipe_task: str | Path | None = None
) -> dict[str, Peer]:
    """The other detectors that are installed, by name; none is loaded yet.

    Args:
        dlib_model: ``shape_predictor_68_face_landmarks.dat``; else the environment variable ``PIPNET_DLIB_MODEL``, else
            the copy in the package ``face_recognition_models``.
        mediapipe_task: ``face_landmarker.task``; else the environment variable ``PIPNET_MEDIAPIPE_TASK``. Without
            either, ``mediapipe-task`` is not listed.

    Returns:
        Name to detector. One that can't be used has a ``problem``, and loading may find another.
    """
    found: list[Peer] = []
    if find_spec("dlib"):
        found.append(_dlib(dlib_model or os.environ.get(DLIB_MODEL_VARIABLE)))
    if find_spec("mediapipe"):
        from experiments.efficiency.peers_mediapipe import mediapipe_detectors

        found += mediapipe_detectors(mediapipe_task or os.environ.get(MEDIAPIPE_TASK_VARIABLE))
    if find_spec("face_alignment"):
        found.append(_face_alignment())
    return {other.name: other for other in found}


def package_folder(package: str) -> Path | None:
    """Where a package lies, without importing it; None if it is not installed."""
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    return Path(folders[0]) if folders else None


def _dlib(model: str | Path | None) -> Peer:
    if model is None and (models := package_folder("face_recognition_models")):
        model = models / "models" / "shape_predictor_68_face_landmarks.dat"
    problem = ""
    if model is None or not Path(model).is_file():
        missing = f"there is no file {model}" if model else "its 68-point model is not"
        problem = (
            f"dlib is installed but {missing}; install face_recognition_models, or name "
            f"shape_predictor_68_face_landmarks.dat in {DLIB_MODEL_VARIABLE}"
        )

    def factory() -> PointsOnCrop:
        import dlib

        predictor = dlib.shape_predictor(str(model))

        def points(crop: np.ndarray) -> np.ndarray:
            first = round((1 - 1 / _DLIB_AROUND) / 2 * len(crop))
            last = len(crop) - 1 - first
            shape = predictor(np.ascontiguousarray(crop), dlib.rectangle(first, first, last, last))
            return np.array([(part.x, part.y) for part in shape.parts()], dtype=np.float64)

        return points

    # It answers in whole pixels, so a small crop would cost it accuracy.
    return Peer(
        "dlib-68",
        _first_installed("dlib", "dlib-bin"),
        68,
        INNER_OF_68,
        factory,
        1.1 * _DLIB_AROUND,
        -0.1,
        512,
        problem,
    )


def _face_alignment() -> Peer:
    def factory() -> PointsOnCrop:
        import torch
        from face_alignment import FaceAlignment, LandmarksType
        from face_alignment.api import models_urls

        url = models_urls.get("2DFAN-4")
        if not isinstance(url, str):
            raise PeerUnavailableError("face-alignment is installed but older than 1.5; upgrade it")
        weights = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        if not weights.is_file():  # the package would download them now
            raise PeerUnavailableError(
                f"face-alignment is installed but its weights {weights.name} are not in torch's cache; run it once"
            )
        # "folder" is its detector that loads nothing; every call below brings its box.
        network: Any = FaceAlignment(LandmarksType.TWO_D, device="cpu", face_detector="folder", compile=False)

        def points(crop: np.ndarray) -> np.ndarray:
            # It cuts 200/195 of width plus height round a point 0.12 heights above the box's centre: here, the crop.
            side = len(crop) * 195 / 400
            x, y = len(crop) / 2, len(crop) / 2 + 0.12 * side
            box = np.array([x - side / 2, y - side / 2, x + side / 2, y + side / 2, 1.0])
            torch.set_num_threads(1)
            return np.asarray(network.get_landmarks_from_image(crop, detected_faces=[box])[0], dtype=np.float64)

        return points

    return Peer("face-alignment", "face-alignment", 68, INNER_OF_68, factory, 400 / 195, -0.12)


def _first_installed(*distributions: str) -> str:
    for name in distributions:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        return name
    return distributions[0]
