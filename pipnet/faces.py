"""The result type: landmarks of the faces in one image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipnet.layouts import PointLayout


@dataclass(frozen=True, eq=False)
class FaceLandmarks:
    """Points on every face of an image.

    Always this type: an image without a face gives ``len(faces) == 0`` and points of shape ``(0, N, 2)``.

    Attributes:
        points: ``(F, N, 2)`` float32, ``x, y`` in pixels of the source image (0-based pixel centres).
        scores: ``(F, N)`` float32 in [0, 1]; higher is more trustworthy.
        boxes: ``(F, 4)`` float32, ``x0, y0, x1, y1``: the face box each prediction was made from, source pixels.
        layout: What the N points mean.

    Raises:
        ValueError: If shapes disagree; the message says which.

    Example:
        >>> from pipnet.layouts import get_layout
        >>> none = FaceLandmarks.empty(get_layout("300w_68"))
        >>> len(none), none.points.shape
        (0, (0, 68, 2))
    """

    points: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    layout: PointLayout

    def __post_init__(self) -> None:
        for name in ("points", "scores", "boxes"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float32))
        faces = len(self.points)
        expected = {
            "points": (faces, self.layout.num_points, 2),
            "scores": (faces, self.layout.num_points),
            "boxes": (faces, 4),
        }
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} must have shape {shape}, got {getattr(self, name).shape}")

    @classmethod
    def empty(cls, layout: PointLayout) -> FaceLandmarks:
        """No face."""
        n = layout.num_points
        return cls(np.zeros((0, n, 2)), np.zeros((0, n)), np.zeros((0, 4)), layout)

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
        return FaceLandmarks(self.points[index], self.scores[index], self.boxes[index], self.layout)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, ready for JSON: ``{"layout", "faces": [{"box", "points", "scores"}]}``, three decimals."""
        return {
            "layout": self.layout.name,
            "faces": [
                {
                    "box": np.round(box.astype(float), 3).tolist(),
                    "points": np.round(points.astype(float), 3).tolist(),
                    "scores": np.round(scores.astype(float), 3).tolist(),
                }
                for box, points, scores in zip(self.boxes, self.points, self.scores, strict=True)
            ],
        }
