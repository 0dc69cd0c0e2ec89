"""The portrait that ships with pipnet, so that the first try needs no photo and no download.

``astronaut.jpg`` beside this file shows the astronaut Eileen Collins: a photograph by NASA, from its Great Images
database (https://flic.kr/p/r9qvLn), in the public domain, without known copyright restrictions. It is scikit-image's
``astronaut``, all 512 x 512 pixels of it, as JPEG.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipnet.data.images import read_image

PORTRAIT_NAME = "astronaut"


def portrait() -> np.ndarray:
    """The public-domain portrait of Eileen Collins (NASA), RGB uint8 ``(512, 512, 3)``.

    Raises:
        BadSampleError: The installation lacks the file, or it is damaged.

    Example:
        >>> portrait().shape
        (512, 512, 3)
    """
    return read_image(Path(__file__).with_name(f"{PORTRAIT_NAME}.jpg"))
