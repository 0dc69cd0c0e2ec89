"""The result type: landmarks of the faces in one image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from pipnet import alignment, formats, measurements
from pipnet.console import as_text
from pipnet.geometry import Crop, box_corners, tight_box
from pipnet.layouts import PointLayout, can_map, get_layout, map_points


@dataclass(frozen=True, eq=False, init=False)
class FaceLandmarks:
    """Points on every face of an image.

    Always this type: an image without a face gives ``len(faces) == 0`` and points of shape ``(0, N, 2)``. Its arrays
    are its own, copies of those it is made from.

    Attributes:
        points: ``(F, N, 2)`` float32, ``x, y`` in pixels of the source image (0-based pixel centres).
        scores: ``(F, N)`` float32 in [0, 1]; higher is more trustworthy.
        boxes: ``(F, 4)`` float32, ``x0, y0, x1, y1``: the face box each prediction was made from, source pixels. It is
            turned by ``angles`` about its own centre.
        layout: What the N points mean.
        face_scores: ``(F,)`` float32 in [0, 1]: the score of each face as a whole. None, when building, gives the
            mean of the face's point scores.
        ids: ``(F,)`` int64: who is who from frame to frame, or None where nobody is followed (photos).
        angles: ``(F,)`` float32, degrees: how far the face was turned, clockwise in the picture, where its box was cut.
            None, when building, is 0 for all.

    Raises:
        ValueError: If shapes disagree; the message says which.
    """

    points: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    boxes: npt.NDArray[np.float32]
    layout: PointLayout
    face_scores: npt.NDArray[np.float32]
    ids: npt.NDArray[np.int64] | None
    angles: npt.NDArray[np.float32]

    def __init__(
        self,
        points: ArrayLike,
        scores: ArrayLike,
        boxes: ArrayLike,
        layout: PointLayout,
        face_scores: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        angles: ArrayLike | None = None,
    ) -> None:
        def keep(name: str, values: ArrayLike, shape: tuple[int, ...], dtype: type = np.float32) -> None:
            array = np.array(values, dtype=dtype)
            if array.shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
            object.__setattr__(self, name, array)

        faces = np.shape(points)[0] if np.ndim(points) else 0
        object.__setattr__(self, "layout", layout)
        keep("points", points, (faces, layout.num_points, 2))
        keep("scores", scores, (faces, layout.num_points))
        keep("boxes", boxes, (faces, 4))
        keep("face_scores", self.scores.mean(axis=1) if face_scores is None else face_scores, (faces,))
        keep("angles", np.zeros(faces) if angles is None else angles, (faces,))
        object.__setattr__(self, "ids", None)
        if ids is not None:
            keep("ids", ids, (faces,), np.int64)

    @classmethod
    def empty(cls, layout: PointLayout) -> FaceLandmarks:
        """No face."""
        n = layout.num_points
        return cls(np.zeros((0, n, 2)), np.zeros((0, n)), np.zeros((0, 4)), layout)

    def __repr__(self) -> str:
        """In a line: ``FaceLandmarks(2 faces, 300w_68, scores 0.99 0.41)``."""
        shown = " ".join(f"{score:.2f}" for score in self.face_scores[:8]) + (" …" if len(self) > 8 else "")
        count = "1 face" if len(self) == 1 else f"{len(self)} faces"
        return f"FaceLandmarks({count}, {self.layout.name}{', scores ' + shown if len(self) else ''})"

    def __len__(self) -> int:
        return len(self.points)

    def __iter__(self) -> Iterator[FaceLandmarks]:
        """One-face results, in order."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int | slice | np.ndarray) -> FaceLandmarks:
        """Chosen faces as a result of its own; an integer keeps the face axis, with length 1."""
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"face {index} of {len(self)}")
            index = np.array([index])
        ids = None if self.ids is None else self.ids[index]
        of_faces = self.face_scores[index], ids, self.angles[index]
        return FaceLandmarks(self.points[index], self.scores[index], self.boxes[index], self.layout, *of_faces)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON, with three decimals.

        Returns:
            ``{"layout", "faces"}``; each face is ``{"box", "angle", "score", "points", "scores"}``, and ``"id"`` first
            where there are ids.
        """
        columns: dict[str, Any] = {} if self.ids is None else {"id": self.ids.tolist()}
        columns |= {"box": self.boxes, "angle": self.angles, "score": self.face_scores}
        columns |= {"points": self.points, "scores": self.scores}
        columns = {name: formats.rounded(values) if name != "id" else values for name, values in columns.items()}
        faces = [dict(zip(columns, face, strict=True)) for face in zip(*columns.values(), strict=True)]
        return {"layout": self.layout.name, "faces": faces}

    def to_rows(
        self, *, source: str | None = None, frame: int | None = None, time_s: float | None = None
    ) -> list[dict[str, Any]]:
        """One flat dict a face: ``pandas.DataFrame(rows)``, or ``csv.DictWriter``.

        Args:
            source: Name of the photo or video; a column of that name where it is given, and none where it is not.
            frame: Number of the frame, likewise.
            time_s: Time of the frame in seconds, likewise.

        Returns:
            ``face`` is the position in this result, ``id`` None without ids, ``s_0`` the score of point 0. Pixels and
            scores have three decimals. :func:`pipnet.formats.row_columns` lists the columns, also without a face.

        Example:
            >>> from pipnet.layouts import PointLayout
            >>> nose = PointLayout("nose", 1, mirror=(0,))
            >>> FaceLandmarks([[[3.5, 4]]], [[0.75]], [[1, 2, 6, 7]], nose).to_rows(frame=12)
            [{'frame': 12, 'face': 0, 'id': None, 'score': 0.75, 'box_x0': 1.0, 'box_y0': 2.0, 'box_x1': 6.0,
              'box_y1': 7.0, 'angle': 0.0, 'x_0': 3.5, 'y_0': 4.0, 's_0': 0.75}]
        """
        given = {"source": source, "frame": frame, "time_s": time_s}
        given = {name: value for name, value in given.items() if value is not None}
        columns = formats.row_columns(self.layout, list(given))
        ids = [None] * len(self) if self.ids is None else self.ids.tolist()
        by_point = np.dstack([self.points, self.scores]).reshape(len(self), 3 * self.layout.num_points)
        numbers = formats.rounded(np.column_stack([self.face_scores, self.boxes, self.angles, by_point]))
        return [
            dict(zip(columns, (*given.values(), face, ids[face], *numbers[face]), strict=True))
            for face in range(len(self))
        ]

    def to_coco(self, file_name: str, image_size: tuple[int, int]) -> dict[str, Any]:
        """The faces of one photo as a COCO keypoints document, plain types ready for JSON.

        Args:
            file_name: Name of the photo, as COCO's ``images`` shall have it.
            image_size: Its width and height.

        Returns:
            ``images``, ``annotations`` (``keypoints`` as ``x, y, v``, pixels counted from 0, with v = 2 for every point
            and 0, 0, 0 where it is not finite; ``num_keypoints``, ``bbox`` as x, y, width, height, upright around a
            turned box, ``area``, ``score``; beyond COCO's own ``keypoint_scores``, and ``track_id`` where there are
            ids) and ``categories`` (names of the points and skeleton). :func:`pipnet.formats.write_coco` merges many
            and writes them.

        Raises:
            ValueError: The size is not positive.
        """
        width, height = (int(side) for side in image_size)
        if not (width > 0 and height > 0):
            raise ValueError(f"image_size must be (width, height), both larger than 0, got {tuple(image_size)}")
        labelled = np.all(np.isfinite(self.points), axis=2, keepdims=True)  # (F, N, 1)
        # COCO's v: 0 not labelled, 2 labelled and not said to be hidden
        keypoints = np.where(labelled, np.dstack([self.points, np.full(self.scores.shape, 2)]), 0)
        # COCO's boxes are upright.
        around = tight_box(box_corners(self.boxes, self.angles)) if self.angles.any() else self.boxes
        size = around[:, 2:] - around[:, :2]
        annotations: list[dict[str, Any]] = []
        for face in range(len(self)):
            flat = formats.rounded(keypoints[face].reshape(-1))
            flat[2::3] = map(int, flat[2::3])
            annotation = {
                "id": face + 1,
                "image_id": 1,
                "category_id": 1,
                "keypoints": flat,
                "num_keypoints": int(labelled[face].sum()),
                "bbox": formats.rounded(np.concatenate([around[face, :2], size[face]])),
                "area": round(float(size[face, 0]) * float(size[face, 1]), 3),
                "iscrowd": 0,
                "score": formats.rounded(self.face_scores)[face],
                "keypoint_scores": formats.rounded(self.scores[face]),
            }
            if self.ids is not None:
                annotation["track_id"] = int(self.ids[face])
            annotations.append(annotation)
        return {
            "images": [{"id": 1, "file_name": as_text(str(file_name)), "width": width, "height": height}],
            "annotations": annotations,
            "categories": [formats.coco_category(self.layout)],
        }

    def save_pts(self, path: str | Path) -> None:
        """Write the one face as iBUG's ``.pts`` file, 1-based; the file appears whole or not at all.

        Of several, write each: ``for i, face in enumerate(faces): face.save_pts(f"photo_{i}.pts")``.

        Raises:
            ValueError: There is not exactly one face, or a point is not finite.
            OSError: The file can't be written; the message names it.
        """
        if len(self) != 1:
            count = "no face" if not len(self) else f"{len(self)} faces"
            raise ValueError(f"{path}: a .pts file holds one face, here is {count}; save faces[0], faces[1], ... apart")
        formats.write_pts(path, self.points[0])

    def upright_crops(self, size: int) -> list[Crop]:
        """The map from the photo to each crop of :meth:`align`; errors as in :func:`pipnet.alignment.upright_crops`."""
        return alignment.upright_crops(self.points, self.layout, size)

    def align(self, image: np.ndarray, size: int) -> np.ndarray:
        """Upright crops of the faces: a similarity transform puts the eyes where :data:`pipnet.alignment.EYES_AT` says.

        That is 0.36 and 0.64 of the side from the left, 0.38 from the top. Beyond the photo's border the crop is black.
        A head in profile, whose eyes come close together, is cut smaller, so that it stays whole.

        Args:
            image: The photo the points were found in: RGB uint8 ``(H, W, 3)``. From a file, take
                :func:`pipnet.data.images.read_image`, which turns it as the landmarker did.
            size: Side of the crops in pixels.

        Returns:
            uint8 ``(F, size, size, 3)``.

        Raises:
            ValueError: The image is no such array, or see :func:`pipnet.alignment.upright_crops`.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            what = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise ValueError(f"align needs the photo as RGB uint8 (H, W, 3), got {what}; read files with read_image")
        if not image.size:
            raise ValueError(f"align needs a photo with pixels, got shape {image.shape}")
        crops = self.upright_crops(size)
        aligned = np.empty((len(crops), size, size, 3), dtype=np.uint8)
        for face, crop in enumerate(crops):
            aligned[face] = crop.warp(image)
        return aligned

    def head_pose(self, image_size: tuple[int, int], *, focal: float | None = None) -> np.ndarray:
        """Which way each head is turned, from a rigid 3D template (:mod:`pipnet.measurements`).

        Args:
            image_size: Width and height of the photo.
            focal: Focal length of the camera in pixels; None takes the longer side of the photo.

        Returns:
            float64 ``(F, 3)``, degrees: yaw (to the picture's right), pitch (down) and roll (clockwise in the picture).
            A head that looks into the camera has yaw 0 and pitch 0. Errors on made and real heads:
            ``experiments/head_pose``.

        Raises:
            ValueError: The layout lacks the 68 points of 300W, or see :func:`pipnet.measurements.solve_pose`.
        """
        return measurements.head_angles(self._as_68("head_pose"), image_size, focal=focal)

    def eye_opening(self) -> np.ndarray:
        """Eye aspect ratio of left and right eye of the picture, ``(F, 2)``: near 0 closed, about 0.3 open.

        See :func:`pipnet.measurements.eye_openings`. A layout without the 68 points of 300W raises a ValueError.
        """
        return measurements.eye_openings(self._as_68("eye_opening"))

    def mouth_opening(self) -> np.ndarray:
        """Height of the mouth's opening over its width, ``(F,)``: near 0 closed, about 1 wide open.

        See :func:`pipnet.measurements.mouth_openings`. A layout without the 68 points of 300W raises a ValueError.
        """
        return measurements.mouth_openings(self._as_68("mouth_opening"))

    def _as_68(self, what: str) -> np.ndarray:
        """The points as those of 300W, ``(F, 68, 2)``."""
        layout = get_layout("300w_68")
        if not can_map(self.layout, layout):
            raise ValueError(
                f"{what} needs the 68 points of 300W, and layout {self.layout.name!r} has no mapping to them;"
                " take a network of 300w_68 or wflw_98"
            )
        return map_points(self.points, self.layout, layout)


def joined(parts: Sequence[FaceLandmarks]) -> FaceLandmarks:
    """The faces of several results as one; at least one result, all of one layout, without ids."""
    if len(parts) == 1:
        return parts[0]
    names = ("points", "scores", "boxes", "face_scores", "angles")
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return FaceLandmarks(layout=parts[0].layout, **arrays)
