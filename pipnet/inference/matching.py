"""Which box of this frame is which face of the last one."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from pipnet.geometry import box_size


def face_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How far boxes are from being the same face: distance of centres in face sizes, plus the log of the size ratio.

    Unlike the overlap, it still orders pairs that a fast face has pulled apart.

    Args:
        a: ``(A, 4)`` as ``x0, y0, x1, y1``, with an extent.
        b: ``(B, 4)``.

    Returns:
        ``(A, B)``, from 0; faces side by side have about 1.

    Example:
        >>> here, aside = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10]])
        >>> face_distances(here, np.concatenate([here, aside, 2 * here])).round(2).tolist()
        [[0.0, 0.5, 1.16]]
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    size_a, size_b = (np.maximum(box_size(boxes), 1e-6) for boxes in (a, b))
    centre_a, centre_b = ((boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (a, b))
    apart = np.linalg.norm(centre_a[:, None] - centre_b[None], axis=-1)  # (A, B)
    size = (size_a[:, None] + size_b[None]) / 2
    return apart / size + np.abs(np.log(size_a[:, None] / size_b[None]))


def match(a: np.ndarray, b: np.ndarray, limit: float) -> list[tuple[int, int]]:
    """Pairs of boxes that are the same face: as many as possible, then as close as possible in sum.

    Args:
        a: ``(A, 4)``.
        b: ``(B, 4)``.
        limit: Boxes further apart, by :func:`face_distances`, are different faces.

    Returns:
        Indices into ``a`` and ``b``, each at most once, in the order of ``a``.

    Example:
        Taken one by one, 0 would get its nearest and leave 1 with nothing:

        >>> before = np.array([[0.0, 0, 10, 10], [4.0, 0, 14, 10]])
        >>> match(before, np.array([[3.0, 0, 13, 10], [-6.0, 0, 4, 10]]), limit=0.7)
        [(0, 1), (1, 0)]
    """
    if not len(a) or not len(b):
        return []
    distances = face_distances(a, b)
    # A pair out of reach must never pay for a better sum elsewhere.
    unreachable = 1e6
    rows, columns = linear_sum_assignment(np.where(distances <= limit, distances, unreachable))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if distances[i, j] <= limit]
