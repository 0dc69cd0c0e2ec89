"""The geometry of a synthetic face: a small 3D template of the 68 points, bent by expression, turned and projected.

The template is one half of a face; the other half is its mirror image, so mirroring a face and permuting its points by
``PointLayout.mirror`` gives another face of the same family. Template units: half the width of the jaw is 1, x points
to the right of the picture, y down, z towards the viewer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from scipy.interpolate import CubicSpline

from pipnet.geometry import tight_box
from pipnet.layouts import get_layout

# Index, x, y, z of the picture's left half, midline included.
_HALF = np.array(
    [
        *[(0, -1.00, -0.25, -0.20), (1, -0.99, 0.02, -0.20), (2, -0.95, 0.29, -0.18), (3, -0.87, 0.55, -0.13)],
        *[(4, -0.75, 0.79, -0.06), (5, -0.58, 0.99, 0.02), (6, -0.38, 1.14, 0.10), (7, -0.19, 1.23, 0.16)],
        (8, 0.00, 1.26, 0.18),
        *[(17, -0.80, -0.46, 0.02), (18, -0.67, -0.57, 0.14), (19, -0.50, -0.61, 0.22), (20, -0.33, -0.58, 0.27)],
        (21, -0.18, -0.50, 0.30),
        *[(27, 0.00, -0.28, 0.30), (28, 0.00, -0.11, 0.39), (29, 0.00, 0.06, 0.48), (30, 0.00, 0.22, 0.57)],
        *[(31, -0.19, 0.35, 0.32), (32, -0.10, 0.40, 0.40), (33, 0.00, 0.42, 0.45)],
        *[(36, -0.64, -0.22, 0.08), (37, -0.53, -0.34, 0.16), (38, -0.37, -0.34, 0.20), (39, -0.25, -0.19, 0.20)],
        *[(40, -0.37, -0.13, 0.20), (41, -0.53, -0.14, 0.16)],
        *[(48, -0.36, 0.73, 0.20), (49, -0.21, 0.665, 0.29), (50, -0.08, 0.63, 0.34), (51, 0.00, 0.65, 0.35)],
        *[(57, 0.00, 0.87, 0.33), (58, -0.11, 0.86, 0.32), (59, -0.24, 0.815, 0.28)],
        *[(60, -0.30, 0.73, 0.22), (61, -0.11, 0.725, 0.31), (62, 0.00, 0.735, 0.33)],
        *[(66, 0.00, 0.735, 0.33), (67, -0.11, 0.725, 0.31)],
    ]
)
_ROWS = {int(index): row for row, index in enumerate(_HALF[:, 0])}
_LEFT = _HALF[:, 0].astype(int)
_RIGHT = np.array(get_layout("300w_68").mirror)[_LEFT]
_MIDLINE = _LEFT == _RIGHT


def _rows(*indices: int) -> list[int]:
    return [_ROWS[i] for i in indices]


_JAW, _BROW, _NOSE = _rows(*range(9)), _rows(*range(17, 22)), _rows(27, 28, 29, 30, 31, 32, 33)
_EYE, _UPPER_LID, _LOWER_LID = _rows(36, 37, 38, 39, 40, 41), _rows(37, 38), _rows(41, 40)
_MOUTH, _CORNERS, _BESIDE = _rows(48, 49, 50, 51, 57, 58, 59, 60, 61, 62, 66, 67), _rows(48, 60), _rows(49, 59)
_UPPER_LIP, _UPPER_LIP_INSIDE = _rows(49, 50, 51), _rows(61, 61, 62)
_LOWER_LIP, _LOWER_LIP_INSIDE = _rows(57, 58, 59), _rows(66, 67, 67)
_DROPPED, _DROP = _rows(57, 58, 59, 66, 67, 48, 60), np.array([1.0, 0.97, 0.68, 1.0, 0.93, 0.16, 0.16])
# How far the jaw follows the mouth and a longer chin: nothing at the ears, everything at the chin.
_CHIN = np.array([0, 0, 0.05, 0.15, 0.35, 0.6, 0.82, 0.96, 1.0])


@dataclass(frozen=True)
class SyntheticFace:
    """One face: where it is, how it is turned, its proportions and its expression.

    Left and right are the picture's; pairs are (left, right).

    Attributes:
        centre: Middle of the tight box of its 68 points, source pixels.
        extent: Longer side of that box, source pixels.
        yaw: Degrees it looks to the picture's right.
        pitch: Degrees it looks down.
        roll: Degrees it is turned clockwise in the picture.
        width, chin, jaw, eye_size, nose_width, nose_length, mouth_width, lips: Proportions, 1 is the template;
            ``chin`` and ``jaw`` are added, 0 is the template.
        mouth_open, pucker: 0 to 1. ``smile``: -1 to 1 at each corner. ``eye_open``: 0 (closed) to 1.3. ``brow_raise``:
            -1 (frowning) to 1.

    Example:
        >>> face = SyntheticFace(centre=(63.5, 60.0), extent=80.0, yaw=20.0)
        >>> face.points().shape, tight_box(face.mirrored(128).points()).round(3).tolist()[2] < 128
        ((68, 2), True)
    """

    centre: tuple[float, float]
    extent: float
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    width: float = 1.0
    chin: float = 0.0
    jaw: float = 0.0
    eye_size: float = 1.0
    nose_width: float = 1.0
    nose_length: float = 1.0
    mouth_width: float = 1.0
    lips: float = 1.0
    mouth_open: float = 0.0
    pucker: float = 0.0
    smile: tuple[float, float] = (0.0, 0.0)
    eye_open: tuple[float, float] = (1.0, 1.0)
    brow_raise: tuple[float, float] = (0.0, 0.0)

    def mirrored(self, width: int) -> SyntheticFace:
        """The face that the mirror image of a picture ``width`` pixels wide shows."""
        return replace(
            self,
            centre=(width - 1 - self.centre[0], self.centre[1]),
            yaw=-self.yaw,
            roll=-self.roll,
            smile=self.smile[::-1],
            eye_open=self.eye_open[::-1],
            brow_raise=self.brow_raise[::-1],
        )

    @cached_property
    def template(self) -> np.ndarray:
        """The 68 points with this face's proportions and expression, not yet turned: ``(68, 3)``, template units."""
        mirror = np.array([-1.0, 1.0, 1.0])
        left, right = self._half(0), self._half(1) * mirror
        points = np.empty((68, 3))
        points[_LEFT] = left
        points[_RIGHT] = right
        points[_LEFT[_MIDLINE]] = (left[_MIDLINE] + right[_MIDLINE]) / 2
        return points

    def _half(self, side: int) -> np.ndarray:
        """The rows of ``_HALF`` with the expression of one side, drawn as the left side."""
        smile, eye_open, brow = self.smile[side], self.eye_open[side], self.brow_raise[side]
        half = _HALF[:, 1:].copy()
        x, y = half[:, 0], half[:, 1]

        y[_JAW] += _CHIN * (self.chin + 0.24 * self.mouth_open)
        x[_JAW] -= self.jaw * np.sin(np.pi * _CHIN)
        y[_BROW] -= 0.13 * max(brow, 0.0) - np.array([-0.03, 0, 0.03, 0.09, 0.13]) * max(-brow, 0.0)

        middle_x, line_y = -0.445, -0.20  # of the eye, through its corners
        x[_EYE] = middle_x + (x[_EYE] - middle_x) * self.eye_size
        y[_EYE] = line_y + (y[_EYE] - line_y) * self.eye_size
        lower = y[_LOWER_LID]
        y[_UPPER_LID] = lower + (y[_UPPER_LID] - lower) * eye_open

        x[_NOSE] *= self.nose_width
        y[_NOSE] = -0.28 + (y[_NOSE] + 0.28) * self.nose_length

        inside = y[_UPPER_LIP_INSIDE]
        y[_UPPER_LIP] = inside + (y[_UPPER_LIP] - inside) * self.lips
        inside = y[_LOWER_LIP_INSIDE]
        y[_LOWER_LIP] = inside + (y[_LOWER_LIP] - inside) * self.lips
        x[_MOUTH] *= self.mouth_width * (1 - 0.2 * self.mouth_open) * (1 - 0.42 * self.pucker)
        x[_CORNERS] -= 0.08 * max(smile, 0.0)
        y[_CORNERS] -= 0.10 * smile
        x[_BESIDE] -= 0.03 * max(smile, 0.0)
        y[_BESIDE] -= 0.035 * smile
        y[_DROPPED] += 0.40 * self.mouth_open * _DROP
        y[_MOUTH] += 0.12 * (self.nose_length - 1) + 0.35 * self.chin
        return half

    def project(self, shape: np.ndarray) -> np.ndarray:
        """Template units ``(..., 3)`` to source pixels ``(..., 2)``: turned, then seen from far away."""
        linear, offset = self._view
        return shape @ linear.T + offset

    def points(self) -> np.ndarray:
        """The 68 points, source pixels ``(68, 2)``."""
        return self.project(self.template)

    @cached_property
    def unit(self) -> float:
        """Source pixels of one template unit."""
        return float(np.linalg.norm(self._view[0], axis=1).max())

    @cached_property
    def _view(self) -> tuple[np.ndarray, np.ndarray]:
        """``(2, 3)`` and ``(2,)``: the affine camera that puts the tight box of the points where it belongs."""
        yaw, pitch, roll = np.deg2rad([self.yaw, self.pitch, self.roll])
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        nod = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
        tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0]])
        linear = tilt @ nod @ turn @ np.diag([self.width, 1.0, 1.0])
        box = tight_box(self.template @ linear.T)
        scale = self.extent / (box[2:] - box[:2]).max()
        return linear * scale, np.asarray(self.centre) - (box[:2] + box[2:]) / 2 * scale


@cache
def spline(points: int, samples: int, closed: bool = False) -> np.ndarray:
    """Matrix ``(samples, points)`` that turns points into a smooth curve through every one of them.

    Example:
        >>> curve = spline(3, 5) @ np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
        >>> curve.round(3).tolist()
        [[0.0, 0.0], [0.5, 0.75], [1.0, 1.0], [1.5, 0.75], [2.0, 0.0]]
    """
    if closed:
        knots = np.vstack([np.eye(points), np.eye(points)[:1]])
        curve = CubicSpline(np.arange(points + 1), knots, bc_type="periodic")
        return curve(np.linspace(0, points, samples, endpoint=False))
    return CubicSpline(np.arange(points), np.eye(points))(np.linspace(0, points - 1, samples))
