"""Photos from files and arrays, and back: always RGB uint8, or an error that says which file and what to do."""

from __future__ import annotations

import os
import stat
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipnet.atomic import replacing
from pipnet.data.headers import claimed_size, foreign_kind, is_avif, is_cut_off
from pipnet.data.sample import BadSampleError

# What a photo in a folder is known by: all that OpenCV decodes, and what it doesn't but people keep as photos, so that
# each of these is told of and none is left out in silence.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".avif", ".gif", ".tif", ".tiff"),
    *(".mpo", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pxm", ".pfm", ".hdr", ".pic", ".sr", ".ras", ".exr"),
    *(".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)


def is_photo_name(name: str) -> bool:
    """Whether a file in a folder counts as a photo, by its name; hidden ones, also macOS's ``._``, don't.

    Example:
        >>> is_photo_name("a.JFIF"), is_photo_name("._a.jpg"), is_photo_name("a.txt")
        (True, False, False)
    """
    return not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)


_REPLACE = "replace the file (a fresh download or copy), or leave it out"
# A header of 30 bytes can claim any size, and the decoder would take the memory for it. 16384 x 16384 is 0.8 GB as RGB.
MAX_PIXELS = 2**28
_MAX_BYTES = 2**31 - 1  # of a file; OpenCV decodes no more, and it is read whole
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def read_image(source: str | os.PathLike[str] | np.ndarray) -> np.ndarray:
    """Read a photo.

    A file is read once and decoded from memory. A photo with an EXIF orientation tag is turned upright, as
    ``cv2.imread`` does and hence as the authors' code and most others read the datasets: labels count in the upright
    photo. So is an AVIF whose container says how to turn or mirror it. (No image of 300W or WFLW that was at hand
    carries the tag. If your own labels count in the stored pixels, remove the tag.) Grey becomes three equal channels,
    an alpha channel is dropped, 16 bits are scaled to 8. Of an animation or a file with several pictures the first one
    is taken.

    Args:
        source: Path of a file that OpenCV can decode, or an image: uint8 or uint16, ``(H, W)``, ``(H, W, 1)``,
            ``(H, W, 3)`` as RGB, or ``(H, W, 4)`` as RGBA. Up to 268 megapixels (:data:`MAX_PIXELS`).

    Returns:
        RGB uint8 ``(H, W, 3)``, contiguous. A fitting array comes back as it is, not copied.

    Raises:
        BadSampleError: The file is missing, empty, no image, too large, or cut off (OpenCV 4 decodes half a JPEG
            without a word and paints the rest grey; a missing end marker tells); or the array is no image; or it is
            neither. The message names the file.

    Example:
        >>> read_image(np.array([[0, 65535]], dtype=np.uint16)).tolist()
        [[[0, 0, 0], [255, 255, 255]]]
    """
    if isinstance(source, np.ndarray):
        return _array_as_rgb(source)
    return decode_image(read_bytes(source), source)


def read_bytes(source: str | os.PathLike[str]) -> bytes:
    """All bytes of a photo's file.

    Raises:
        BadSampleError: The file is missing, empty, no file or too large, or can't be read; the message names it.
    """
    path = _as_path(source)
    try:
        status = path.stat()
        # A pipe or a device may never end.
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise BadSampleError(f"{path}: the image can't be read (not a file); {_REPLACE}")
        if status.st_size > _MAX_BYTES:
            raise BadSampleError(f"{path}: {status.st_size / 1e9:.1f} GB are too much for a photo; {_REPLACE}")
        data = path.read_bytes()
    except FileNotFoundError:
        raise BadSampleError(f"{path}: no such photo; put it there, or leave it out") from None
    except OSError as error:
        raise BadSampleError(f"{path}: the image can't be read ({error.strerror}); {_REPLACE}") from error
    if not data:
        raise BadSampleError(f"{path}: the image file is empty; {_REPLACE}")
    return data


def decode_image(data: bytes, name: str | os.PathLike[str]) -> np.ndarray:
    """The photo in the bytes of a file, as :func:`read_image` gives it.

    Args:
        data: All of them, from :func:`read_bytes`.
        name: What error messages call the photo.

    Raises:
        BadSampleError: No image, too large, or cut off.
    """
    width, height = claimed_size(data) or (0, 0)
    if width * height > MAX_PIXELS:
        raise BadSampleError(f"{name}: {_too_large(width, height)}")
    image = None
    if is_avif(data):
        image = _decode_avif(data, name)
        if image is not None:
            return image
    elif not is_cut_off(data):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        except (cv2.error, MemoryError):  # not a format, or a size, that OpenCV takes
            image = None
    if image is None:
        raise BadSampleError(f"{name}: {_what_is_wrong(data)}; {_REPLACE}")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def _decode_avif(data: bytes, name: str | os.PathLike[str]) -> np.ndarray | None:
    """By Pillow, which says how the container wants the picture turned; OpenCV (5.0) decodes it as it is stored.

    Raises:
        BadSampleError: Too large.
    """
    from PIL import ImageOps
    from PIL.AvifImagePlugin import AvifImageFile  # not Image.open, whose own limit is lower

    try:
        stored = AvifImageFile(BytesIO(data))
        width, height = stored.size
        if width * height <= MAX_PIXELS:
            return np.array(ImageOps.exif_transpose(stored).convert("RGB"))
    except Exception:  # Pillow lets errors of any kind through where a file is damaged
        return None
    raise BadSampleError(f"{name}: {_too_large(width, height)}")


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a picture that appears whole or not at all.

    Args:
        path: Its suffix says the format.
        image: RGB uint8 ``(H, W, 3)``.

    Raises:
        OSError: It can't be written; the message names the file.
        ValueError: OpenCV can't make this format, or not of a picture so large.
    """
    try:
        done, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))  # a JPEG with quality 95
    except cv2.error:
        done = False
    if not done:
        height, width = image.shape[:2]
        raise ValueError(f"{path}: a picture of {width} x {height} can't be written as {path.suffix}; try .png")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def image_size(source: str | os.PathLike[str] | np.ndarray) -> tuple[int, int]:
    """Width and height of a photo as :func:`read_image` returns it; only the header of a file is read.

    Where the orientation tag itself is damaged the two may be exchanged.

    Raises:
        BadSampleError: The file is missing, empty or no image, or the array is no image. A cut-off file passes: its
            header is whole.

    Example:
        >>> image_size(np.zeros((4, 7, 3), dtype=np.uint8))
        (7, 4)
    """
    if isinstance(source, np.ndarray):
        _check_array(source)
        return source.shape[1], source.shape[0]
    path = _as_path(source)
    size = _size_from_header(path) if path.is_file() else None
    if size is None:  # a format only OpenCV knows, or the error in its own words
        height, width = read_image(path).shape[:2]
        size = width, height
    return size


def stored_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a photo's pixels before its EXIF orientation turns them; None where no header tells."""
    from PIL import Image

    try:
        with Image.open(path) as header:
            return header.size
    except Exception:  # as in _size_from_header
        return None


def _size_from_header(path: Path) -> tuple[int, int] | None:
    """Size of the upright photo, or None where the header alone does not tell."""
    from PIL import Image  # comes with torchvision; reads headers without decoding, which OpenCV cannot

    try:
        with Image.open(path) as header:
            (width, height), kind = header.size, header.format
            tags = header.getexif()
            unreadable = "exif" in header.info and not tags  # damaged; OpenCV may find an orientation in it
    except Exception:  # Pillow lets errors of any kind through where a header is damaged
        return None
    orientation = tags.get(_EXIF_ORIENTATION, 1)
    if orientation == 1 and not unreadable:
        return width, height
    if unreadable or kind not in ("JPEG", "MPO", "AVIF"):  # it depends on the version of OpenCV which others are turned
        return None
    return (height, width) if orientation in _QUARTER_TURNS else (width, height)


def _as_path(source: Any) -> Path:
    """The path of a file.

    Raises:
        BadSampleError: It is none; the message says what to give instead.
    """
    if isinstance(source, str | os.PathLike) and isinstance(os.fspath(source), str):
        try:
            possible = b"\0" not in os.fsencode(source)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise BadSampleError(f"{os.fspath(source)!r} is no path: it holds a character that paths can't; correct it")
        return Path(source)
    what = f"{type(source).__module__}.{type(source).__name__}".removeprefix("builtins.")
    raise BadSampleError(
        f"an image must be a path or a NumPy array, got {what};"
        " turn other images into RGB uint8 first, as np.asarray(image.convert('RGB')) does for Pillow's"
    )


def _check_array(image: np.ndarray) -> None:
    """Stop on an array that is no image.

    Raises:
        BadSampleError: Its type or shape is none of an image, or it is too large.
    """
    channels = {2: 1, 3: image.shape[-1] if image.ndim else 0}.get(image.ndim)
    if channels not in (1, 3, 4) or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        raise BadSampleError(
            f"an image must be uint8 or uint16 of shape (H, W), (H, W, 3) or (H, W, 4), "
            f"got {image.dtype} {image.shape}; convert it first"
        )
    height, width = image.shape[:2]
    if width * height > MAX_PIXELS:  # a broadcast array can be of any size without any memory
        raise BadSampleError(f"an image of shape {image.shape}: {_too_large(width, height)}")


def _array_as_rgb(image: np.ndarray) -> np.ndarray:
    _check_array(image)
    image = np.asarray(image)  # masked arrays and the like lose what OpenCV can't know
    flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if flat.dtype == np.uint16:
        flat = (flat >> 8).astype(np.uint8)  # what cv2.imdecode does with 16-bit files
    if flat.ndim == 2:
        return cv2.cvtColor(np.ascontiguousarray(flat), cv2.COLOR_GRAY2RGB)
    if flat.shape[2] == 3 and flat[..., ::-1].flags.c_contiguous:  # BGR turned by the user, as frames of OpenCV are
        return cv2.cvtColor(flat[..., ::-1], cv2.COLOR_BGR2RGB)  # thirty times as fast as NumPy's copy
    return np.ascontiguousarray(flat if flat.shape[2] == 3 else flat[..., :3])


def _too_large(width: int, height: int) -> str:
    return f"{width} x {height} pixels are more than the {MAX_PIXELS / 1e6:.0f} megapixels a photo may have; reduce it"


def _what_is_wrong(data: bytes) -> str:
    if is_cut_off(data):
        return f"the image is cut off after {len(data)} bytes"
    return foreign_kind(data) or "not an image, or a damaged one"
