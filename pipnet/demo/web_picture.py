"""Bytes that a browser sent become a picture, or a sentence that the page can show."""

from __future__ import annotations

import cv2
import numpy as np

from pipnet.data.headers import claimed_size, foreign_kind, is_cut_off
from pipnet.data.images import MAX_PIXELS
from pipnet.data.sample import BadSampleError


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """What :func:`pipnet.data.images.read_image` makes of a file, from bytes and with advice for a page.

    Args:
        data: An image file, whole.
        name: What to call it in an error.
        max_pixels: It may not claim more; checked before anything is decoded.

    Returns:
        RGB uint8 ``(H, W, 3)``, turned upright where EXIF says so.

    Raises:
        BadSampleError: Empty, no image, cut off, or too large.

    Example:
        >>> decode_image(b"some words", "notes.txt")
        Traceback (most recent call last):
        ...
        pipnet.data.sample.BadSampleError: notes.txt: not an image, or a damaged one; JPEG, PNG, WebP, BMP and TIFF work
    """
    if not data:
        raise BadSampleError(f"{name}: the file is empty")
    width, height = claimed_size(data) or (0, 0)
    if width * height > max_pixels:
        most = f"{max_pixels / 1e6:.0f} megapixels"
        raise BadSampleError(f"{name}: {width} x {height} pixels are more than the {most} that work; reduce it")
    if is_cut_off(data):
        raise BadSampleError(f"{name}: the image is cut off after {len(data)} bytes; load or save it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError):  # not a format, or a size, that OpenCV takes
        image = None
    if image is None:
        what = foreign_kind(data) or "not an image, or a damaged one; JPEG, PNG, WebP, BMP and TIFF work"
        raise BadSampleError(f"{name}: {what}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
