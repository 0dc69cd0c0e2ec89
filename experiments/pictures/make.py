"""Draw the pictures of the README: the public-domain portrait and drawn faces, nothing else.

python experiments/pictures/make.py            # needs the extra `demo` for the portrait
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import skimage.data

from pipnet.atomic import replacing
from pipnet.data.report import contact_sheet
from pipnet.data.synthetic import draw_faces
from pipnet.faces import FaceLandmarks
from pipnet.geometry import affine_crop
from pipnet.inference.draw import draw_faces as draw_landmarks
from pipnet.inference.landmarker import FaceLandmarker
from pipnet.layouts import get_layout

HERE = Path(__file__).resolve().parent
_SEED = 4
_FACES = 6


def portrait(size: int = 640) -> np.ndarray:
    """The astronaut Eileen Collins (NASA, public domain) with what the shipped weights see, RGB ``(S, S, 3)``."""
    photo = skimage.data.astronaut()
    crop = affine_crop(np.array([226.0, 118.0]), (232.0, 232.0), size)
    enlarged = cv2.warpAffine(photo, crop.matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    faces = FaceLandmarker.load(device="cpu")(photo)
    moved = FaceLandmarks(crop.to_crop(faces.points), faces.scores, faces.boxes, faces.layout)
    return draw_landmarks(enlarged, moved)


def drawn() -> np.ndarray:
    """Drawn faces in both styles, and their labels, RGB."""
    layout = get_layout("300w_68")
    cartoon = draw_faces(_FACES, seed=_SEED, size=256)
    sketch = draw_faces(_FACES, seed=_SEED, size=256, style="sketch")
    labelled = [
        draw_landmarks(
            sample.image,
            FaceLandmarks(sample.points[None], np.ones((1, layout.num_points)), sample.box[None], layout),
        )
        for sample in cartoon
    ]
    tiles = [sample.image for sample in (*cartoon, *sketch)] + labelled
    return contact_sheet(tiles, columns=_FACES, tile=200, gap=2)


def write(name: str, picture: np.ndarray) -> None:
    """JPEG beside this file."""
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    with replacing(HERE / name) as temporary:
        temporary.write_bytes(encoded.tobytes())


if __name__ == "__main__":
    write("portrait.jpg", portrait())
    write("drawn.jpg", drawn())
