"""The face that everything is timed on: a portrait, because other detectors look for a face in what they get."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipnet.geometry import crop_of_square, crop_squares

_ASTRONAUT_BOX = (179.0, 88.0, 270.0, 178.0)  # tight box of the points
_STEP = 0.02  # of the box side; crops of a batch differ by so much, as those of a video do


@dataclass(frozen=True, eq=False)
class Subject:
    """A photo with one known face.

    Attributes:
        name: What it is, for the report.
        image: RGB uint8 ``(H, W, 3)``.
        box: ``(4,)``, tight box of the points, pixels of the photo.
    """

    name: str
    image: np.ndarray
    box: np.ndarray

    def crops(self, count: int, *, size: int, box_scale: float) -> np.ndarray:
        """Crops of the face, each moved a little.

        Args:
            count: How many.
            size: Their side in pixels.
            box_scale: Side of the crop over the longer side of the box.

        Returns:
            uint8 ``(count, size, size, 3)``.

        Example:
            >>> subject = find_subject()
            >>> subject.crops(3, size=64, box_scale=1.25).shape
            (3, 64, 64, 3)
        """
        side = float((self.box[2:] - self.box[:2]).max())
        step = _STEP * side * np.array([[np.sin(i), 1 - np.cos(i)] for i in range(count)])  # (count, 2)
        squares = crop_squares(self.box + np.tile(step, 2), box_scale)
        return np.stack([crop_of_square(square, size).warp(self.image) for square in squares])


def find_subject() -> Subject:
    """scikit-image's portrait of the astronaut Eileen Collins (NASA, public domain); without it, a drawn face."""
    try:
        from skimage.data import astronaut
    except ImportError:
        from pipnet.data.synthetic.dataset import draw_face
        from pipnet.geometry import tight_box

        sample = draw_face(0, seed=0, size=512, clean=True)
        return Subject("a drawn face", sample.image, tight_box(sample.points))
    return Subject("the portrait of Eileen Collins (scikit-image)", astronaut(), np.array(_ASTRONAUT_BOX))
