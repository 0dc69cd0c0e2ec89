"""Photos from files and arrays, always as RGB uint8, and the photos of a folder or a list."""

from __future__ import annotations

import codecs
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from pipnet.files import replacing

Photo = npt.NDArray[np.uint8]


class BadSampleError(ValueError):
    """A dataset item that can't be used; the message names the file, the line where there is one, and what to do."""


_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
# What a photo in a folder is known by: all that OpenCV decodes, and what it doesn't but people keep as photos, so that
# each of these is told of and none is skipped in silence.
IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".webp", ".avif", ".gif", ".tif", ".tiff"),
    *(".mpo", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".pam", ".pxm", ".pfm", ".hdr", ".pic", ".sr", ".ras", ".exr"),
    *(".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
PORTRAIT_NAME = "astronaut"
# A header of 30 bytes can claim any size, and the decoder would take the memory for it. 16384 x 16384 is 0.8 GB as RGB.
MAX_PIXELS = 2**28
_MAX_BYTES = 2**31 - 1  # of a file; OpenCV decodes no more, and it is read whole
_REPLACE = "replace the file (a fresh download or copy), or leave it out"
_EXIF_ORIENTATION = 0x0112
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def portrait() -> Photo:
    """The public-domain portrait of Eileen Collins that ships with pipnet, RGB uint8 ``(512, 512, 3)``.

    ``astronaut.jpg`` beside this file is a photograph by NASA, from its Great Images database
    (https://flic.kr/p/r9qvLn), without known copyright restrictions: all of scikit-image's ``astronaut``, as JPEG.
    """
    return read_image(Path(__file__).with_name(f"{PORTRAIT_NAME}.jpg"))


def read_image(source: str | os.PathLike[str] | np.ndarray) -> Photo:
    """Read a photo.

    A file is read once and decoded from memory. A photo with an EXIF orientation tag is turned upright, as
    ``cv2.imread`` does and hence as the authors' code and most others read the datasets: labels count in the upright
    photo. (If yours count in the stored pixels, remove the tag.) So is an AVIF whose container says how to turn or
    mirror it. Grey becomes three equal channels, an alpha channel is dropped, 16 bits are scaled to 8. Of an animation
    or a file with several pictures the first one is taken.

    Args:
        source: Path of a file that OpenCV can decode, or an image: uint8 or uint16, ``(H, W)``, ``(H, W, 1)``,
            ``(H, W, 3)`` as RGB, or ``(H, W, 4)`` as RGBA. Up to 268 megapixels (:data:`MAX_PIXELS`).

    Returns:
        RGB uint8 ``(H, W, 3)``, contiguous. A fitting array comes back as it is, not copied.

    Raises:
        BadSampleError: The file is missing, empty, no image, too large, or cut off (OpenCV 4 decodes half a JPEG
            without a word and paints the rest grey; a missing end marker tells); or the array is no image; or it is
            neither. The message names the file.
    """
    if isinstance(source, np.ndarray):
        return _array_as_rgb(source)
    return decode_image(read_bytes(source), source)


def read_bytes(source: str | os.PathLike[str]) -> bytes:
    """All bytes of a photo's file; a BadSampleError names one that is missing, empty, too large or can't be read."""
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


def decode_image(data: bytes, name: str | os.PathLike[str]) -> Photo:
    """The photo in the bytes of a whole file, as :func:`read_image` gives it; ``name`` is what errors call it."""
    _check_size(f"{name}", *(claimed_size(data) or (0, 0)))
    if is_cut_off(data):
        raise BadSampleError(f"{name}: the image is cut off after {len(data)} bytes; {_REPLACE}")
    try:
        if _is_avif(data):
            return _decode_avif(data, name)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if image is not None:
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image), np.uint8)
    except BadSampleError:
        raise
    except Exception:  # not a format, or a size, that OpenCV takes; Pillow's may be of any kind
        pass
    raise BadSampleError(f"{name}: {foreign_kind(data) or 'not an image, or a damaged one'}; {_REPLACE}")


def _decode_avif(data: bytes, name: str | os.PathLike[str]) -> Photo:
    """By Pillow, which says how the container wants the picture turned; OpenCV (5.0) decodes it as it is stored."""
    from PIL import ImageOps
    from PIL.AvifImagePlugin import AvifImageFile  # not Image.open, whose own limit is lower

    stored = AvifImageFile(BytesIO(data))
    _check_size(f"{name}", *stored.size)
    return np.array(ImageOps.exif_transpose(stored).convert("RGB"))


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a picture, RGB uint8 ``(H, W, 3)``, in the format of the suffix; it appears whole or not at all.

    Raises:
        OSError: It can't be written; the message names the file.
        ValueError: OpenCV can't make this format, or not of a picture so large.
    """
    try:
        done, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))  # a JPEG with quality 95
    except cv2.error:
        done, data = False, np.empty(0, np.uint8)
    if not done:
        height, width = image.shape[:2]
        raise ValueError(f"{path}: a picture of {width} x {height} can't be written as {path.suffix}; try .png")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def image_size(source: str | os.PathLike[str] | np.ndarray) -> tuple[int, int]:
    """Width and height of a photo as :func:`read_image` returns it; only the header of a file is read.

    Where the orientation tag itself is damaged the two may be exchanged.

    A cut-off file passes: its header is whole.

    Raises:
        BadSampleError: The file is missing, empty or no image, or the array is no image.
    """
    if isinstance(source, np.ndarray):
        _check_array(source)
        return source.shape[1], source.shape[0]
    path = _as_path(source)
    size, turned = header_size(path) if path.is_file() else (None, None)
    if size is None or turned is None:  # a format only OpenCV knows, or the error in its own words
        height, width = read_image(path).shape[:2]
        return width, height
    return (size[1], size[0]) if turned else size


def header_size(path: Path) -> tuple[tuple[int, int] | None, bool | None]:
    """Width and height as stored, and whether reading exchanges them; None for what the header alone does not tell."""
    import PIL.Image  # reads headers without decoding, which OpenCV cannot

    try:
        with PIL.Image.open(path) as header:
            size, kind = header.size, header.format
            tags = header.getexif()
            unreadable = "exif" in header.info and not tags  # damaged; OpenCV may find an orientation in it
    except Exception:  # Pillow lets errors of any kind through where a header is damaged
        return None, None
    orientation = tags.get(_EXIF_ORIENTATION, 1)
    if orientation == 1 and not unreadable:
        return size, False
    if unreadable or kind not in ("JPEG", "MPO", "AVIF"):  # it depends on the version of OpenCV which others are turned
        return size, None
    return size, orientation in _QUARTER_TURNS


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a JPEG, PNG, BMP, GIF or TIFF, as they are stored (not turned).

    A file of a few bytes can claim any size, and a decoder believes it. Formats whose largest size is harmless (WebP:
    16383 x 16383) or that are rare, and damaged headers, are left to the decoder's own limit: None. Not read by
    Pillow, which refuses files that OpenCV decodes and warns of whatever else is wrong with a header.
    """
    if data.startswith(_PNG) and len(data) >= 24:
        return _number(data, 16, 4, "big"), _number(data, 20, 4, "big")
    if data.startswith(_JPEG):
        return _walk_jpeg(data)[1]
    if data.startswith((b"GIF87a", b"GIF89a")) and len(data) >= 10:
        return _number(data, 6, 2), _number(data, 8, 2)
    if data.startswith(b"BM") and len(data) >= 26:
        if _number(data, 14, 4) == 12:  # the header of OS/2 has 16-bit sides
            return _number(data, 18, 2), _number(data, 20, 2)
        width, height = np.frombuffer(data, "<i4", 2, 18).tolist()
        return abs(width), abs(height)  # a negative height means that rows run down
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _tiff_size(data)
    return None


def _walk_jpeg(data: bytes) -> tuple[int, tuple[int, int] | None]:
    """Offset of the first start-of-scan marker, or of the end of the data; and the size in the frame before it."""
    position, size = 2, None
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker == 0xDA:  # damaged, which the decoder will say; or the scan
            return position, size
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill byte, or a marker without a length
            position += 1 if marker == 0xFF else 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and position + 9 <= len(data):
            size = _number(data, position + 7, 2, "big"), _number(data, position + 5, 2, "big")  # a start of frame
        position += 2 + _number(data, position + 2, 2, "big")
    return len(data), size


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Size of the first picture of a TIFF or BigTIFF."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    first, count_bytes, entry_bytes, value_at = (8, 8, 20, 12) if b"+" in data[2:4] else (4, 2, 12, 8)
    directory = _number(data, first, first, order)
    sides = {}
    for entry in range(min(_number(data, directory, count_bytes, order), 1000)):
        at = directory + count_bytes + entry * entry_bytes
        tag = _number(data, at, 2, order)
        if tag in (256, 257):  # width, height: 16-bit numbers (type 3), else 32-bit, at the start of the value field
            sides[tag] = _number(data, at + value_at, 2 if _number(data, at + 2, 2, order) == 3 else 4, order)
    return (sides[256], sides[257]) if len(sides) == 2 else None


def _number(data: bytes, at: int, length: int, order: Literal["little", "big"] = "little") -> int:
    """An unsigned number; one beyond the end of the data counts as what is left of it."""
    return int.from_bytes(data[at : at + length], order)


def is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end. Formats without an end marker are left to the decoder."""
    if data.startswith(_JPEG):
        # Search behind the start of the scan only: an embedded thumbnail has an end marker of its own. Inside a scan
        # the two bytes can't occur (a 0xFF is followed by 0), and bytes behind the end marker do no harm.
        return data.find(b"\xff\xd9", _walk_jpeg(data)[0]) < 0
    return data.startswith(_PNG) and data.rfind(b"IEND") < 0


def foreign_kind(data: bytes) -> str | None:
    """What a file is that people take for a photo and OpenCV does not decode, or None."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return "a HEIC photo, which OpenCV does not decode: convert it to JPEG"
    if is_video(data):
        return "a video, not a photo"
    return "a PDF, not a photo" if data.startswith(b"%PDF") else None


def _is_avif(data: bytes) -> bool:
    """Whether a file begins as an AVIF does: the brand is among those that it names."""
    brands = data[8 : min(_number(data, 0, 4, "big"), 256)]
    return data[4:8] == b"ftyp" and (b"avif" in brands or b"avis" in brands)


def is_video(data: bytes) -> bool:
    """Whether a file begins as MP4, QuickTime, Matroska, WebM or AVI do."""
    is_mp4 = data[4:8] == b"ftyp" and data[8:12] not in (*_HEIC_BRANDS, b"avif", b"avis")
    return is_mp4 or data.startswith(b"\x1aE\xdf\xa3") or (data.startswith(b"RIFF") and data[8:12] == b"AVI ")


def _as_path(source: Any) -> Path:
    """The path of a file, or an error that says what to give instead."""
    if isinstance(source, str | os.PathLike) and isinstance(name := os.fspath(source), str):
        with suppress(UnicodeEncodeError):
            if b"\0" not in os.fsencode(name):
                return Path(name)
        raise BadSampleError(f"{name!r} is no path: it holds a character that paths can't; correct it")
    what = f"{type(source).__module__}.{type(source).__name__}".removeprefix("builtins.")
    raise BadSampleError(
        f"an image must be a path or a NumPy array, got {what};"
        " turn other images into RGB uint8 first, as np.asarray(image.convert('RGB')) does for Pillow's"
    )


def _check_array(image: np.ndarray) -> None:
    """Stop on an array whose type or shape is none of an image, or that is too large."""
    channels = {2: 1, 3: image.shape[-1] if image.ndim else 0}.get(image.ndim)
    if channels not in (1, 3, 4) or image.size == 0 or image.dtype not in (np.uint8, np.uint16):
        raise BadSampleError(
            f"an image must be uint8 or uint16 of shape (H, W), (H, W, 3) or (H, W, 4), "
            f"got {image.dtype} {image.shape}; convert it first"
        )
    # A broadcast array can be of any size without any memory.
    _check_size(f"an image of shape {image.shape}", image.shape[1], image.shape[0])


def _array_as_rgb(image: np.ndarray) -> Photo:
    _check_array(image)
    image = np.asarray(image)  # masked arrays and the like lose what OpenCV can't know
    flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if flat.dtype == np.uint16:
        flat = (flat >> 8).astype(np.uint8)  # as cv2.imdecode does
    if flat.ndim == 2:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(flat), cv2.COLOR_GRAY2RGB), np.uint8)
    if flat.shape[2] == 3 and flat[..., ::-1].flags.c_contiguous:  # BGR turned by the user, as frames of OpenCV are
        # Thirty times as fast as NumPy's copy.
        return np.asarray(cv2.cvtColor(flat[..., ::-1], cv2.COLOR_BGR2RGB), np.uint8)
    return np.ascontiguousarray(flat if flat.shape[2] == 3 else flat[..., :3])


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        most = f"the {MAX_PIXELS / 1e6:.0f} megapixels a photo may have"
        raise BadSampleError(f"{name}: {width} x {height} pixels are more than {most}; reduce it")


def photo_paths(source: str | os.PathLike[str]) -> Iterator[Path]:
    """The photos of a source, in the order in which the disk has them: nothing is sorted, nothing is kept.

    A folder is searched as by :func:`photos_below`. A ``.txt`` file holds one path a line, seen from its own folder,
    and every line counts, whatever its suffix. Another source is refused as by :func:`check_source`.
    """
    source = Path(source)
    check_source(source)
    if source.is_dir():
        yield from photos_below(source)
        return
    # Names of files are bytes: what is no UTF-8 comes back as it is.
    with source.open(encoding="utf-8-sig", errors="surrogateescape", newline=None) as lines:
        for line in lines:
            if line.strip():
                yield source.parent / line.rstrip("\n")


def check_source(source: str | os.PathLike[str]) -> None:
    """Stop on a source that gives no photos, before the first of several sources has cost hours.

    Raises:
        ValueError: It is neither a folder nor a list of UTF-8 or ASCII.
        OSError: There is no such source, or it can't be read.
    """
    source = Path(source)
    if source.is_dir():
        with os.scandir(source):
            return
    if source.suffix.lower() == ".txt" and source.is_file():
        with source.open("rb") as file:
            if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # Windows writes such
                raise ValueError(f"{source} is a list in UTF-16; save it as UTF-8")
    elif source.exists():
        raise ValueError(f"{source} is no folder and no .txt list; give the folder of the photo, or a list of photos")
    else:
        raise FileNotFoundError(f"{source}: no such folder of photos, and no such list; correct the path")


def seen_from(source: str | os.PathLike[str], path: Path) -> str:
    """What a photo of a source is called: its path seen from the source, the same wherever the source is mounted.

    Example:
        >>> seen_from("/photos", Path("/photos/a/b.jpg")), seen_from("/lists/all.txt", Path("/other/c.jpg"))
        ('a/b.jpg', '/other/c.jpg')
    """
    root = Path(source)
    root = root if root.suffix.lower() != ".txt" or root.is_dir() else root.parent
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def photos_below(
    folder: Path, *, in_order: bool = False, but: Collection[Path] = (), others: Counter[str] | None = None
) -> Iterator[Path]:
    """The photos of a folder and all its subfolders, by the suffixes of :data:`IMAGE_SUFFIXES`.

    Names that begin with a dot are skipped. Links are followed, but not back into a folder that is being searched. A
    link that leads nowhere comes out, if it is called like a photo, and so does a subfolder that can't be listed, as
    itself: whoever reads them will say so.

    Args:
        in_order: Sorted by name, a folder's photos before those of its subfolders; else in the order of the disk.
        but: Folders that are not entered, resolved.
        others: Counts the other files by suffix.
    """

    def below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
        """``above`` are the folders on the way here, by device and number: a link to one of them would never end."""
        try:
            status = folder.stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                return
            with os.scandir(folder) as listed:
                for entry in sorted(listed, key=lambda entry: (_is_folder(entry), entry.name)) if in_order else listed:
                    path = folder / entry.name
                    if entry.name.startswith("."):
                        continue
                    if _is_folder(entry):
                        if not but or path.resolve() not in but:
                            yield from below(path, (*above, here))
                    elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                        yield path
                    elif others is not None:
                        others[path.suffix.lower() or "no suffix"] += 1
        except (OSError, RecursionError):  # the latter a thousand folders deep
            yield folder

    return below(folder, ())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or a link that leads where nobody may look
        return False
