"""A drawn scene for the picture of tracking: three people who walk round each other, turn, talk and blink.

Everything repeats after one loop, so that the picture has no seam. Drawn with :mod:`pipnet.data.synthetic`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from pipnet.data.synthetic.face import Look, SyntheticFace, outlines
from pipnet.data.synthetic.painters import paint_cartoon

WIDTH, HEIGHT = 640, 376
_ZOOM = 2  # painted larger and reduced: finer edges than OpenCV's own
_BACKGROUND = (226, 233, 238)

# The ring that they walk on: its middle and radii in pixels, and half a jaw's width in the middle of it.
_MIDDLE, _RADII, _SCALE = (319.5, 168.0), (204.0, 84.0), 56.0
_NEARER = 0.3  # how much larger a head is in front


@dataclass(frozen=True)
class Person:
    """Who it is, and where in the loop (0 to 1) things happen.

    Attributes:
        colours: Seed of skin, hair and clothes.
        look: Hair and glasses.
        start: Where on the ring it is when the loop begins, 0 to 1.
        talks: From where to where in the loop.
        blinks: Where in the loop.
        shape: Proportions of :class:`~pipnet.data.synthetic.face.SyntheticFace`.
    """

    colours: int
    look: Look
    start: float
    talks: tuple[float, float]
    blinks: tuple[float, ...]
    smile: float = 0.4
    shape: dict[str, float] = field(default_factory=dict)

    def at(self, time: float) -> SyntheticFace:
        """Its face at a time of the loop."""
        phase, ring = 2 * np.pi * time, 2 * np.pi * (time + self.start)
        depth = np.sin(ring)  # 1 in front, -1 at the back
        talking = _bump(time, sum(self.talks) / 2, (self.talks[1] - self.talks[0]) / 2, steep=4)
        lids = 1.05 * (1 - max(_bump(time, blink, 0.016, steep=1.5) for blink in self.blinks))
        mood = self.smile + 0.25 * np.sin(phase + self.colours)
        pose = {
            "yaw": -22 * np.sin(ring) + 6 * np.sin(2 * phase + self.colours),  # towards where it walks
            "pitch": 5 * np.sin(2 * phase + self.colours),
            "roll": 7 * np.sin(phase + 2 * self.colours),
            "mouth_open": float(np.clip(talking * (0.3 + 0.3 * np.sin(8 * phase) + 0.12 * np.sin(11 * phase)), 0, 1)),
            "eye_open": (lids, lids),
            "smile": (mood, mood),
            "brow_raise": (0.4 * talking, 0.4 * talking),
            **self.shape,
        }
        # A synthetic face is placed and sized by the box of its points, which an open mouth makes larger; here the head
        # keeps its size and its place.
        probe = SyntheticFace(centre=(0.0, 0.0), extent=1.0, **pose)
        extent = _SCALE * (1 + _NEARER * depth) / probe.unit
        step = 2.0 * np.sin(9 * phase + self.colours)
        place = np.array(_MIDDLE) + np.array(_RADII) * (np.cos(ring), depth) + (0, step)
        centre = place - extent * probe.project(np.zeros(3))
        return replace(probe, centre=tuple(centre.tolist()), extent=extent)


PEOPLE = (
    Person(14, Look("parted_left", "long"), 0.0, talks=(0.02, 0.3), blinks=(0.08, 0.45, 0.8)),
    Person(1, Look("spiky", "short", "round"), 1 / 3, (0.36, 0.62), (0.2, 0.55, 0.93), shape={"jaw": -0.04}),
    Person(10, Look("fringe", "bob"), 2 / 3, (0.68, 0.95), (0.3, 0.66, 0.86), shape={"width": 1.04}),
)


def picture(time: float) -> tuple[np.ndarray, np.ndarray]:
    """The scene at a time of the loop, 0 to 1.

    Returns:
        RGB uint8 ``(HEIGHT, WIDTH, 3)``, and the true points ``(P, 68, 2)`` of its people, pixels.
    """
    people = [(person, person.at(time)) for person in PEOPLE]
    in_front_last = sorted(people, key=lambda pair: pair[1].unit)
    return _painted(in_front_last, (WIDTH, HEIGHT)), np.stack([face.points() for _, face in people])


def _painted(people: list[tuple[Person, SyntheticFace]], size: tuple[int, int]) -> np.ndarray:
    """People over each other, the last on top, RGB; size is width and height."""
    scene = np.full((size[1] * _ZOOM, size[0] * _ZOOM, 3), _BACKGROUND, dtype=np.uint8)
    for person, face in people:
        centre = tuple((coordinate + 0.5) * _ZOOM - 0.5 for coordinate in face.centre)
        large = replace(face, centre=centre, extent=face.extent * _ZOOM)
        rng = np.random.default_rng(person.colours)
        paint_cartoon(rng, len(scene), large, person.look, outlines(large, person.look), backdrop=scene)
    return cv2.resize(scene, size, interpolation=cv2.INTER_AREA)


def _bump(time: float, middle: float, reach: float, *, steep: float) -> float:
    """1 about ``middle`` of the loop, 0 from ``reach`` away on."""
    away = abs((time - middle + 0.5) % 1 - 0.5) / reach
    return float(np.clip(steep * (1 - away), 0, 1))
