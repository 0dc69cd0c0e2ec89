"""MediaPipe's face meshes: the public ``FaceMesh`` and ``FaceLandmarker``, and the mesh alone in a given box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.efficiency.peers import (
    INNER_OF_MESH,
    MEDIAPIPE_TASK_VARIABLE,
    Peer,
    PointsOnCrop,
    package_folder,
)

# Faces its detector may give: what lies beside the face of a crop must not be taken for it.
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


def mediapipe_detectors(task: str | Path | None) -> list[Peer]:
    """What an installed MediaPipe offers.

    Args:
        task: ``face_landmarker.task``, or None.
    """
    folder = package_folder("mediapipe")
    problem = ""
    if folder is None or not (folder / "python" / "solutions" / "face_mesh.py").is_file():
        problem = (
            "MediaPipe is installed but this version has no FaceMesh; install mediapipe 0.10.21 (Python up to 3.12, "
            f"NumPy 1), or name a face_landmarker.task in {MEDIAPIPE_TASK_VARIABLE}"
        )
    found = [
        _detector("mediapipe-mesh", 468, lambda: _face_mesh(False), 1.5, problem),
        _detector("mediapipe-attention", 478, lambda: _face_mesh(True), 1.5, problem),
        _detector("mediapipe-attention-box", 478, _mesh_in_a_box, 1.6, problem),
    ]
    if task is not None:
        missing = "" if Path(task).is_file() else f"there is no file {task}; give the path of a face_landmarker.task"
        found.append(_detector("mediapipe-task", 478, lambda: _face_landmarker(task), 2.5, missing))
    return found


def _detector(name: str, num_points: int, factory: Callable[[], PointsOnCrop], box_scale: float, problem: str) -> Peer:
    return Peer(name, "mediapipe", num_points, INNER_OF_MESH, factory, box_scale, 0.0, problem=problem)


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


def _face_landmarker(task: str | Path) -> PointsOnCrop:
    import mediapipe
    from mediapipe.tasks.python import vision
    from mediapipe.tasks.python.core.base_options import BaseOptions

    base = BaseOptions(model_asset_path=str(task))
    options = vision.FaceLandmarkerOptions(base_options=base, num_faces=_FACES)
    landmarker = vision.FaceLandmarker.create_from_options(options)

    def points(crop: np.ndarray) -> np.ndarray | None:
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(crop))
        faces = landmarker.detect(image).face_landmarks
        return _central([_on_crop(face, len(crop)) for face in faces], len(crop))

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
