"""How far eyes and mouth are open, as ratios of distances between landmarks: no scale, no unit."""

from __future__ import annotations

import numpy as np

# Points of 300w_68: corner, two of the upper lid, corner, two of the lower lid, in the order p1 ... p6 of the paper.
_EYES = np.array([range(36, 42), range(42, 48)])
_UPPER_LIP, _LOWER_LIP = [61, 62, 63], [67, 66, 65]  # inner edges, facing each other
_MOUTH_CORNERS = [60, 64]  # inner


def eye_openings(points: np.ndarray) -> np.ndarray:
    """Eye aspect ratio: distance between the lids over distance between the corners.

    Args:
        points: ``(F, 68, 2)``, points of ``300w_68``, any frame that keeps angles.

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

    Args:
        points: ``(F, 68, 2)``, points of ``300w_68``, any frame that keeps angles.

    Returns:
        ``(F,)``: near 0 closed, about 1 wide open. NaN where both corners lie on one spot.

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
