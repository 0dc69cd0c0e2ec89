"""Photos from files and arrays: always RGB uint8, or an error that says which file and what to do."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pipnet.data.sample import BadSampleError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

_REPLACE = "replace the file (a fresh download or copy) or, in a dataset, take its face out of the labels"
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def read_image(source: str | Path | np.ndarray) -> np.ndarray:
    """Read a photo.

    A file is read once and decoded from memory. A photo with an EXIF orientation tag is turned upright, as
    ``cv2.imread`` does and hence as the authors' code and most others read the datasets: labels count in the upright
    photo. (No image of 300W or WFLW that was at hand carries the tag. If your own labels count in the stored pixels,
    remove the tag.) Grey becomes three equal channels, an alpha channel is dropped, 16 bits are scaled to 8.

    Args:
        source: Path of a file that OpenCV can decode, or an image: uint8 or uint16, ``(H, W)``, ``(H, W, 1)``,
            ``(H, W, 3)`` as RGB, or ``(H, W, 4)`` as RGBA.

    Returns:
        RGB uint8 ``(H, W, 3)``, contiguous. A fitting array comes back as it is, not copied.

    Raises:
        BadSampleError: The file is missing, empty, no image, or cut off (OpenCV 4 decodes half a JPEG without a word
            and paints the rest grey; a missing end marker tells); or the array is no image. The message names the file.

    Example:
        >>> read_image(np.array([[0, 65535]], dtype=np.uint16)).tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    if isinstance(source, np.ndarray):
        return _array_as_rgb(source)
    data = _read_bytes(Path(source))
    image = None
    if not _is_cut_off(data):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:  # not a format, or a size, that OpenCV takes
            image = None
    if image is None:
        raise BadSampleError(f"{source}: {_what_is_wrong(data)}; {_REPLACE}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def image_size(source: str | Path | np.ndarray) -> tuple[int, int]:
    """Width and height of a photo as :func:`read_image` returns it; only the header of a file is read.

    Raises:
        BadSampleError: The file is missing, empty or no image. A cut-off file passes: its header is whole.

    Example:
        >>> image_size(np.zeros((4, 7, 3), dtype=np.uint8))
        (7, 4)
    """
    if isinstance(source, np.ndarray):
        return source.shape[1], source.shape[0]
    from PIL import Image  # comes with torchvision; reads headers without decoding, which OpenCV cannot

    try:
        with Image.open(source) as header:
            width, height = header.size
            turned = header.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS
    except (OSError, ValueError, SyntaxError):
        height, width = read_image(source).shape[:2]  # a format only OpenCV knows, or the error in its own words
        return width, height
    return (height, width) if turned else (width, height)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadSampleError(f"{path}: no such image; put it there or take its face out of the labels") from None
    except OSError as error:
        raise BadSampleError(f"{path}: the image can't be read ({error.strerror}); {_REPLACE}") from error
    if not data:
        raise BadSampleError(f"{path}: the image file is empty; {_REPLACE}")
    return data


def _array_as_rgb(image: np.ndarray) -> np.ndarray:
    flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    channels = 1 if flat.ndim == 2 else flat.shape[-1]
    if (
        flat.ndim not in (2, 3)
        or channels not in (1, 3, 4)
        or flat.size == 0
        or flat.dtype not in (np.uint8, np.uint16)
    ):
        raise BadSampleError(
            f"an image must be uint8 or uint16 of shape (H, W), (H, W, 3) or (H, W, 4), "
            f"got {image.dtype} {image.shape}; convert it first"
        )
    if flat.dtype == np.uint16:
        flat = (flat >> 8).astype(np.uint8)  # what cv2.imdecode does with 16-bit files
    if flat.ndim == 2:
        return cv2.cvtColor(np.ascontiguousarray(flat), cv2.COLOR_GRAY2RGB)
    return np.ascontiguousarray(flat if channels == 3 else flat[..., :3])


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end. Formats without an end marker are left to the decoder."""
    if data.startswith(b"\xff\xd8"):
        # Search behind the start of the scan only: an embedded thumbnail has an end marker of its own. Inside a scan
        # the two bytes can't occur (a 0xFF is followed by 0), and bytes behind the end marker do no harm.
        return data.find(b"\xff\xd9", _jpeg_scan_start(data)) < 0
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data.rfind(b"IEND") < 0
    return False


def _jpeg_scan_start(data: bytes) -> int:
    """Offset of the first start-of-scan marker, or the end of the data where there is none."""
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return position  # not a marker: damaged, the decoder will say
        marker = data[position + 1]
        if marker == 0xDA:
            return position
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill byte, or a marker without a length
            position += 1 if marker == 0xFF else 2
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return len(data)


def _what_is_wrong(data: bytes) -> str:
    if _is_cut_off(data):
        return f"the image is cut off after {len(data)} bytes"
    return "not an image, or a damaged one"
