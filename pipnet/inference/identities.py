"""Ids of faces, and the faces that went missing a moment ago and may come back under theirs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipnet.inference.matching import match

REMEMBER_S = 1.0

# How far from where it went missing a face may come back, by matching.face_distances. Neighbours are about 1 apart.
_CAME_BACK = 1.0


@dataclass(frozen=True, eq=False)
class MissingFace:
    """A face that was followed until a moment ago.

    Attributes:
        id: Its id.
        box: ``(4,)``, where it was last, frame pixels.
        since: When, seconds.
        wanted: Whether to look for it; not for one that went out of the picture.
    """

    id: int
    box: np.ndarray
    since: float
    wanted: bool


class Identities:
    """Gives ids from 0 on, and an old one to a face that is found again within :data:`REMEMBER_S` seconds.

    Example:
        >>> identities = Identities()
        >>> identities.of(np.array([[0.0, 0, 10, 10], [50.0, 0, 60, 10]]))
        [0, 1]
        >>> identities.miss(MissingFace(1, np.array([50.0, 0, 60, 10]), since=2.0, wanted=True))
        >>> identities.forget(now=2.5)
        >>> identities.of(np.array([[90.0, 0, 100, 10], [52.0, 1, 62, 11]]))
        [2, 1]
    """

    def __init__(self) -> None:
        self.given = 0
        self._missing: list[MissingFace] = []

    @property
    def wanted(self) -> int:
        """How many missing faces are looked for."""
        return sum(face.wanted for face in self._missing)

    def miss(self, face: MissingFace) -> None:
        """Remember a face that is not followed any more."""
        self._missing.append(face)

    def forget(self, now: float) -> None:
        """Give up those that have been missing for too long, at time ``now`` in seconds."""
        self._missing = [face for face in self._missing if now - face.since <= REMEMBER_S]

    def of(self, boxes: np.ndarray) -> list[int]:
        """Ids of faces just found in ``boxes`` ``(F, 4)``: of those that went missing at that place, else new ones."""
        where = np.array([face.box for face in self._missing]).reshape(-1, 4)
        back = {found: self._missing[missing] for missing, found in match(where, boxes, _CAME_BACK)}
        ids = []
        for row in range(len(boxes)):
            if row in back:
                ids.append(back[row].id)
            else:
                ids.append(self.given)
                self.given += 1
        self._missing = [face for face in self._missing if face.id not in ids]
        return ids
