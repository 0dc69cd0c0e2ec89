"""Which way a head is turned, by 68 points against a rigid 3D template; how far eyes and mouth are open.

Frames: the camera's x axis runs to the right of the picture, y down, z away from the camera, as in OpenCV. The template
has its origin between the outer eye corners, in millimetres, and the same axes when the head looks into the camera, so
that the nose points to negative z.

Angles: ``yaw`` is how far the head looks to the right of the *picture*, ``pitch`` how far it looks down, ``roll`` how
far it is tilted clockwise in the picture; mirroring a photo negates yaw and roll. The head is turned by yaw first, then
nods, then tilts: ``R = tilt(roll) @ nod(pitch) @ turn(yaw)``. In this order the angles jump at a pitch of 90 degrees
only, never in profile. They count from the line of sight: a head that looks into the camera has yaw 0 and pitch 0
wherever in the photo it is, whatever the focal length, and also in a photo that was cut.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipnet.layouts import get_layout

# Millimetres: index, x, y, z of the picture's left half, midline included. Source: fitted for pipnet to the 1,808
# training faces of 300W by rigid factorisation (Tomasi and Kanade, IJCV 1992); 90 mm between the outer eye corners,
# about an adult's, gives the scale. Upright (pitch 0) is where outer eye corners and mouth corners are equally far from
# the camera. experiments/head_pose/fit.py makes the numbers, a test compares. Nose, eyes and mouth corners only: brows,
# lips and chin move with the expression, and labels of the jaw follow the outline that is seen, not spots on the skin.
_HALF = np.array(
    [
        *[(27, 0.0, -2.5, -22.3), (28, 0.0, 9.7, -29.3), (29, 0.0, 21.9, -37.0), (30, 0.0, 34.3, -44.5)],
        *[(31, -14.9, 43.4, -24.4), (32, -7.7, 45.9, -28.0), (33, 0.0, 48.1, -30.1)],
        *[(36, -45.0, 0.0, 0.0), (37, -37.1, -4.7, -4.1), (38, -27.5, -4.6, -5.7), (39, -19.3, 1.5, -5.6)],
        *[(40, -28.2, 3.3, -5.4), (41, -37.7, 3.2, -3.7)],
        (48, -28.5, 67.8, 0.0),
    ]
)
_LEFT = _HALF[:, 0].astype(int)
_RIGHT = np.array(get_layout("300w_68").mirror)[_LEFT]
_SIDE = _LEFT != _RIGHT  # the rest lies on the midline
TEMPLATE_POINTS = np.concatenate([_LEFT, _RIGHT[_SIDE]])
"""Which of the 68 points the template has, ``(23,)``."""
TEMPLATE_MM = np.concatenate([_HALF[:, 1:], _HALF[_SIDE, 1:] * [-1.0, 1.0, 1.0]])
"""Where they are on the head, ``(23, 3)``, millimetres; axes as in the module's text."""


def head_angles(points: np.ndarray, image_size: tuple[int, int], *, focal: float | None = None) -> np.ndarray:
    """Yaw, pitch and roll of heads, in degrees, counted from the line of sight, ``(F, 3)``; see :func:`solve_pose`."""
    return angles_of(from_line_of_sight(*solve_pose(points, image_size, focal=focal)))


def solve_pose(
    points: np.ndarray, image_size: tuple[int, int], *, focal: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and place of heads before a pinhole camera that looks through the middle of the photo.

    Args:
        points: ``(F, 68, 2)``, source pixels, points of ``300w_68``.
        image_size: Width and height of the photo.
        focal: Focal length in pixels. None takes the longer side of the photo, a horizontal view of 53 degrees in
            landscape, as webcams and phones have.

    Returns:
        ``rotations``, float64 ``(F, 3, 3)``, and ``translations``, float64 ``(F, 3)``, millimetres:
        ``camera = rotation @ template + translation``. The distance is right for a head of the template's size only.

    Raises:
        ValueError: The size or focal length is not positive, or the points of a face are not finite or lie on one
            spot; the message names the face.
    """
    points = np.asarray(points, dtype=np.float64)
    width, height = image_size
    focal = float(max(width, height)) if focal is None else float(focal)
    if not (width > 0 and height > 0 and np.isfinite(focal) and focal > 0):
        raise ValueError(
            f"image_size must be (width, height) and focal a length in pixels, all larger than 0, "
            f"got {tuple(image_size)} and {focal}"
        )
    camera = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    rotations, translations = np.empty((len(points), 3, 3)), np.empty((len(points), 3))
    for face, seen in enumerate(np.ascontiguousarray(points[:, TEMPLATE_POINTS])):  # OpenCV takes no other order
        if not np.isfinite(seen).all() or not np.ptp(seen, axis=0).any():
            raise ValueError(f"face {face}: its points are not finite or lie on one spot; leave it out")
        # SQPnP searches the whole of the rotations: no start that could end in a mirrored solution. It minimises an
        # algebraic error, so a few steps on the error in pixels follow.
        _, turn, place = cv2.solvePnP(TEMPLATE_MM, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        turn, place = cv2.solvePnPRefineLM(TEMPLATE_MM, seen, camera, None, turn, place)
        rotations[face], translations[face] = cv2.Rodrigues(turn)[0], place[:, 0]
    return rotations, translations


def from_line_of_sight(rotations: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """Rotations ``(F, 3, 3)`` as they look from the camera turned towards each head, the shortest way.

    ``translations`` ``(F, 3)`` say where the heads are in the camera's frame.

    Example:
        >>> seen = from_line_of_sight(rotation_of(yaw=-45, pitch=0, roll=0)[None], np.array([[5.0, 0.0, 5.0]]))
        >>> bool(np.allclose(angles_of(seen), 0))  # a head on the right that looks back to the camera
        True
    """
    x, y, z = (translations / np.linalg.norm(translations, axis=1, keepdims=True)).T
    # The rotation about (y, -x, 0) that brings the direction (x, y, z) to (0, 0, 1).
    rows = [[1 - x * x / (1 + z), -x * y / (1 + z), -x], [-x * y / (1 + z), 1 - y * y / (1 + z), -y], [x, y, z]]
    return np.moveaxis(np.array(rows), 2, 0) @ rotations


def rotation_of(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation ``(3, 3)`` of a head with these angles, in degrees.

    Example:
        >>> nose = rotation_of(yaw=30, pitch=0, roll=0) @ [0.0, 0.0, -1.0]
        >>> nose.round(3).tolist()  # to the right of the picture and still towards the camera
        [0.5, 0.0, -0.866]
    """
    (sy, sp, sr), (cy, cp, cr) = (function(np.deg2rad([yaw, pitch, roll])) for function in (np.sin, np.cos))
    turn = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return tilt @ nod @ turn


def angles_of(rotations: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll in degrees, ``(..., 3)``, of rotations ``(..., 3, 3)``; undoes :func:`rotation_of`.

    Yaw and roll lie in (-180, 180], pitch in [-90, 90].
    """
    # Third row of tilt @ nod @ turn: (cp * sy, sp, cp * cy); second column: (-sr * cp, cr * cp, sp).
    yaw = np.arctan2(rotations[..., 2, 0], rotations[..., 2, 2])
    pitch = np.arcsin(np.clip(rotations[..., 2, 1], -1, 1))
    roll = np.arctan2(-rotations[..., 0, 1], rotations[..., 1, 1])
    return np.rad2deg(np.stack([yaw, pitch, roll], axis=-1))


# Points of 300w_68: corner, two of the upper lid, corner, two of the lower lid, in the order p1 ... p6 of the paper.
_EYES = np.array([range(36, 42), range(42, 48)])
_UPPER_LIP, _LOWER_LIP = [61, 62, 63], [67, 66, 65]  # inner edges, facing each other
_MOUTH_CORNERS = [60, 64]  # inner


def eye_openings(points: np.ndarray) -> np.ndarray:
    """Eye aspect ratio of points ``(F, 68, 2)`` of ``300w_68``: distance of the lids over distance of the corners.

    Returns:
        ``(F, 2)``, left and right eye of the picture: near 0 closed, about 0.3 open. It differs from person to person,
        and a head turned far aside raises it, since the corners come closer; compare with the same face, not with a
        fixed number. NaN where both corners lie on one spot.

    Reference:
        Soukupová, Čech, "Real-Time Eye Blink Detection using Facial Landmarks", Computer Vision Winter Workshop 2016,
        equation 1.

    Example:
        >>> face = np.zeros((1, 68, 2))
        >>> face[0, 36:42] = [[0, 0], [3, -1], [7, -1], [10, 0], [7, 1], [3, 1]]
        >>> eye_openings(face).round(3).tolist()
        [[0.2, nan]]
    """
    p1, p2, p3, p4, p5, p6 = np.moveaxis(np.asarray(points, dtype=np.float64)[:, _EYES], 2, 0)  # each (F, 2, 2)
    return _ratio(_distance(p2, p6) + _distance(p3, p5), 2 * _distance(p1, p4))


def mouth_openings(points: np.ndarray) -> np.ndarray:
    """Mean distance between the inner edges of the lips over the distance between the inner corners of the mouth.

    Points as in :func:`eye_openings`; ``(F,)``: near 0 closed, about 1 wide open, NaN where both corners lie on one
    spot.

    Example:
        >>> face = np.zeros((1, 68, 2))
        >>> face[0, 60:68] = [[0, 0], [2, -1], [5, -1], [8, -1], [10, 0], [8, 3], [5, 3], [2, 3]]
        >>> mouth_openings(face).tolist()
        [0.4]
    """
    points = np.asarray(points, dtype=np.float64)
    apart = _distance(points[:, _UPPER_LIP], points[:, _LOWER_LIP]).mean(axis=1)
    first, second = _MOUTH_CORNERS
    return _ratio(apart, _distance(points[:, first], points[:, second]))


def _distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b, axis=-1)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
