"""What the first bytes of an image file say: its size before anything is decoded, and whether its end is there."""

from __future__ import annotations

from typing import Literal

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers, which carry the size; 0xC4, 0xC8 and 0xCC between them mean other things.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a JPEG, PNG, BMP, GIF or TIFF, as they are stored (not turned).

    A file of a few bytes can claim any size, and a decoder believes it. Formats whose largest size is harmless (WebP:
    16383 x 16383) or that are rare are left to the decoder's own limit.

    Returns:
        None where the format is another, or the header is damaged.

    Example:
        >>> claimed_size(b"GIF89a" + bytes([7, 0, 4, 0]))
        (7, 4)
        >>> claimed_size(b"no image") is None
        True
    """
    if data.startswith(_PNG) and len(data) >= 24:
        return _number(data, 16, 4, "big"), _number(data, 20, 4, "big")
    if data.startswith(_JPEG):
        return _walk_jpeg(data)[1]
    if data.startswith((b"GIF87a", b"GIF89a")) and len(data) >= 10:
        return _number(data, 6, 2, "little"), _number(data, 8, 2, "little")
    if data.startswith(b"BM") and len(data) >= 26:
        if _number(data, 14, 4, "little") == 12:  # the header of OS/2 has 16-bit sides
            return _number(data, 18, 2, "little"), _number(data, 20, 2, "little")
        # A negative height means that rows run down.
        sides = (int.from_bytes(data[at : at + 4], "little", signed=True) for at in (18, 22))
        width, height = (abs(side) for side in sides)
        return width, height
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return _tiff_size(data)
    return None


def is_cut_off(data: bytes) -> bool:
    """Whether a JPEG or PNG lacks its end. Formats without an end marker are left to the decoder.

    Example:
        >>> is_cut_off(b"\\xff\\xd8 start of a photo"), is_cut_off(b"no image")
        (True, False)
    """
    if data.startswith(_JPEG):
        # Search behind the start of the scan only: an embedded thumbnail has an end marker of its own. Inside a scan
        # the two bytes can't occur (a 0xFF is followed by 0), and bytes behind the end marker do no harm.
        return data.find(b"\xff\xd9", _walk_jpeg(data)[0]) < 0
    if data.startswith(_PNG):
        return data.rfind(b"IEND") < 0
    return False


def foreign_kind(data: bytes) -> str | None:
    """What a file is that people take for a photo and OpenCV does not decode, or None.

    Example:
        >>> foreign_kind(b"\\0\\0\\0\\x18ftypheic")
        'a HEIC photo, which OpenCV does not decode: convert it to JPEG'
    """
    if data[4:8] == b"ftyp" and data[8:12] in _HEIC_BRANDS:
        return "a HEIC photo, which OpenCV does not decode: convert it to JPEG"
    if is_video(data):
        return "a video, not a photo"
    if data.startswith(b"%PDF"):
        return "a PDF, not a photo"
    return None


def is_avif(data: bytes) -> bool:
    """Whether a file begins as an AVIF does: the brand is among those that it names.

    Example:
        >>> is_avif(b"\\0\\0\\0\\x18ftypmif1\\0\\0\\0\\0mif1avif"), is_avif(b"\\0\\0\\0\\x18ftypheic")
        (True, False)
    """
    brands = data[8 : min(_number(data, 0, 4, "big"), 256)]
    return data[4:8] == b"ftyp" and (b"avif" in brands or b"avis" in brands)


def is_video(data: bytes) -> bool:
    """Whether a file begins as MP4, QuickTime, Matroska, WebM or AVI do.

    Example:
        >>> is_video(b"RIFF....AVI LIST"), is_video(b"RIFF....WEBPVP8 ")
        (True, False)
    """
    is_mp4 = data[4:8] == b"ftyp" and data[8:12] not in (*_HEIC_BRANDS, b"avif", b"avis")
    return is_mp4 or data.startswith(b"\x1aE\xdf\xa3") or (data.startswith(b"RIFF") and data[8:12] == b"AVI ")


def _walk_jpeg(data: bytes) -> tuple[int, tuple[int, int] | None]:
    """Offset of the first start-of-scan marker, or of the end of the data; and the size in the frame before it."""
    position, size = 2, None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return position, size  # not a marker: damaged, the decoder will say
        marker = data[position + 1]
        if marker == 0xDA:
            return position, size
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:  # fill byte, or a marker without a length
            position += 1 if marker == 0xFF else 2
            continue
        if marker in _JPEG_FRAMES and position + 9 <= len(data):
            size = _number(data, position + 7, 2, "big"), _number(data, position + 5, 2, "big")
        position += 2 + _number(data, position + 2, 2, "big")
    return len(data), size


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    """Size of the first picture of a TIFF or BigTIFF."""
    order: Literal["little", "big"] = "little" if data.startswith(b"II") else "big"
    big = b"+" in data[2:4]
    first, count_bytes, entry_bytes, value_at = (8, 8, 20, 12) if big else (4, 2, 12, 8)
    directory = _number(data, first, 8 if big else 4, order)
    entries = min(_number(data, directory, count_bytes, order), 1000)
    sides = {}
    for entry in range(entries):
        at = directory + count_bytes + entry * entry_bytes
        tag = _number(data, at, 2, order)
        if tag in (256, 257):  # width, height: 16-bit numbers (type 3), else 32-bit, at the start of the value field
            sides[tag] = _number(data, at + value_at, 2 if _number(data, at + 2, 2, order) == 3 else 4, order)
    return (sides[256], sides[257]) if len(sides) == 2 else None


def _number(data: bytes, at: int, length: int, order: Literal["little", "big"]) -> int:
    """An unsigned number; one beyond the end of the data counts as what is left of it."""
    return int.from_bytes(data[at : at + length], order)
