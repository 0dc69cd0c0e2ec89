"""Photos from files: colours, depths, orientation, and every way a file can be broken."""

from __future__ import annotations

import os
import re
import struct
import tracemalloc
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from pipnet.data.images import BadSampleError, claimed_size, image_size, read_image


def smooth_image(height=40, width=60):
    """A colourful RGB image that JPEG keeps almost as it is."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([200 * x + 20, 180 * y + 30, 120 * (1 - x) + 60], axis=-1).astype(np.uint8)


def write(path, rgb, *parameters):
    bgr = rgb[..., [2, 1, 0, 3][: rgb.shape[-1]]] if rgb.ndim == 3 else rgb
    assert cv2.imwrite(str(path), bgr, list(parameters))
    return path


def test_jpeg_is_rgb_and_close(tmp_path):
    image = smooth_image()
    path = write(tmp_path / "a.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 95)
    read = read_image(str(path))
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - image).max() <= 8  # red and blue differ by far more: no swap
    assert image_size(path) == (60, 40)
    path.write_bytes(path.read_bytes() + b"left by a camera")
    assert np.array_equal(read_image(path), read)
    write(path, image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert path.read_bytes().count(b"\xff\xda") > 1  # several scans
    assert np.abs(read_image(path).astype(int) - image).max() <= 8


def test_lossless_files_grey_alpha_and_16_bit(tmp_path):
    image, path = smooth_image(), tmp_path / "a.png"
    for suffix in ("png", "bmp", "tiff"):
        np.testing.assert_array_equal(read_image(write(tmp_path / f"a.{suffix}", image)), image)
    np.testing.assert_array_equal(read_image(write(path, image[..., 0])), np.stack([image[..., 0]] * 3, axis=-1))
    np.testing.assert_array_equal(read_image(write(path, np.dstack([image, image[..., 0]]))), image)
    np.testing.assert_array_equal(read_image(write(path, image.astype(np.uint16) * 257)), image)


def test_arrays():
    image = smooth_image(4, 6)
    assert read_image(image) is image
    grey = image[..., 0]
    np.testing.assert_array_equal(read_image(grey), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(read_image(grey[..., None]), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(read_image(np.dstack([image, grey])), image)
    np.testing.assert_array_equal(read_image(image.astype(np.uint16) * 257), image)
    turned = read_image(image[..., ::-1])  # what a frame of OpenCV is given as
    assert turned.flags.c_contiguous
    np.testing.assert_array_equal(turned, image[..., ::-1])
    flipped = read_image(image[:, ::-1])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    shapes = ((4, 4, 2), (0, 4, 3), (1, 2, 4, 4, 3), (4,))
    kinds = (np.zeros((4, 4, 3)), np.full((4, 4, 3), np.nan), np.zeros((4, 4, 3), bool))
    for wrong in (*kinds, *(np.zeros(shape, np.uint8) for shape in shapes)):
        with pytest.raises(BadSampleError, match=f"an image must be uint8.*{re.escape(str(wrong.shape))}"):
            read_image(wrong)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_files_that_are_cut_off(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = write(tmp_path / f"a.{suffix}", noise)
    whole = path.read_bytes()
    shares = (0.3, 0.95, 0.999) if suffix == "jpg" else (0.3,)
    said = r"the image is cut off after \d+ bytes; replace the file" if suffix == "jpg" else ".*replace the file"
    if suffix == "jpg":  # a whole thumbnail in its header has an end of its own
        body = b"Exif\0\0\xff\xd8 thumbnail \xff\xd9"
        whole = whole[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + whole[2:]
        path.write_bytes(whole)
        assert read_image(path).shape == (64, 64, 3)
    for share in shares:
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BadSampleError, match=rf"a\.{suffix}: {said}"):
            read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ".*is empty"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8", ".*cut off"),
        (b"\xff\xd8ab", ".*cut off"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "a HEIC photo, .* convert it to JPEG"),
        (b"\0\0\0\x18ftypisom" + bytes(100), "a video, not a photo"),
        (b"RIFF\0\0\0\0AVI LIST" + bytes(100), "a video, not a photo"),
        (b"\x1aE\xdf\xa3" + bytes(100), "a video, not a photo"),
        (b"%PDF-1.7" + bytes(100), "a PDF, not a photo"),
    ],
)
def test_no_image_inside(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(BadSampleError, match=rf"a\.jpg: {reason}"):
            read(path)


def test_missing_file_folder_and_one_too_large(tmp_path):
    for read in (read_image, image_size):
        with pytest.raises(BadSampleError, match=r"a\.jpg: no such photo; put it there"):
            read(tmp_path / "a.jpg")
        with pytest.raises(BadSampleError, match="can't be read"):
            read(tmp_path)
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(5 * 10**9)  # sparse: no disk
    with pytest.raises(BadSampleError, match=r"a\.jpg: 5\.0 GB are too much for a photo"):
        read_image(tmp_path / "a.jpg")


def png_that_claims(width, height):
    """A PNG of a few bytes with any size in its header."""

    def chunk(kind, body):
        return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def jpeg_that_claims(width, height):
    jpeg = bytearray(cv2.imencode(".jpg", smooth_image())[1].tobytes())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(jpeg)


def tiff_that_claims(width, height):
    entries = struct.pack(">HHIIHHII", 256, 4, 1, width, 257, 4, 1, height)
    return b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(64)


def big_tiff_that_claims(width, height):
    entries = struct.pack("<HHQQHHQQ", 256, 4, 1, width, 257, 4, 1, height)
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 2) + entries + bytes(64)


def bmp_that_claims(width, height):
    header = struct.pack("<IiiHH", 40, width, -height, 1, 24)  # rows run down
    return b"BM" + bytes(12) + header + bytes(64)


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("png", png_that_claims(60_000, 60_000)),
        ("jpg", jpeg_that_claims(60_000, 60_000)),
        ("tiff", tiff_that_claims(60_000, 60_000)),
        ("tif", big_tiff_that_claims(60_000, 60_000)),
        ("bmp", bmp_that_claims(60_000, 60_000)),
        ("gif", b"GIF89a" + (60_000).to_bytes(2, "little") * 2 + bytes(40)),
    ],
)
def test_a_few_bytes_that_claim_a_huge_photo(tmp_path, suffix, content):
    path = tmp_path / f"bomb.{suffix}"
    path.write_bytes(content)
    for read in (read_image, image_size):
        tracemalloc.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, of bombs
            with pytest.raises(
                BadSampleError, match=r"60000 x 60000 pixels are more than the 268 megapixels"
            ) as caught:
                read(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()


def test_claimed_sizes_of_real_files_are_theirs(tmp_path):
    image = smooth_image(40, 60)
    for suffix in ("jpg", "png", "bmp", "tiff", "gif"):
        Image.fromarray(image).save(tmp_path / f"a.{suffix}")
        content = (tmp_path / f"a.{suffix}").read_bytes()
        assert claimed_size(content) == (60, 40), suffix
        for end in range(min(len(content), 200)):
            claimed_size(content[:end])  # no header is too short to be asked
    assert claimed_size(cv2.imencode(".webp", image)[1].tobytes()) is None  # 16383 x 16383 at the most


def test_what_is_neither_path_nor_array_or_too_large():
    kinds = {"NoneType": None, "int": 7, "bytes": b"a.jpg", r"PIL\.Image\.Image": Image.new("RGB", (4, 4))}
    huge = np.broadcast_to(np.uint8(7), (10**6, 10**6, 3))  # without memory
    for read in (read_image, image_size):
        for what, source in kinds.items():
            with pytest.raises(BadSampleError, match=rf"a path or a NumPy array, got {what};.*convert\('RGB'\)"):
                read(source)
        with pytest.raises(BadSampleError, match="1000000 x 1000000 pixels are more than"):
            read(huge)
    assert (read_image(huge[:50, :60, 0]) == 7).all()


def test_paths_of_every_kind(tmp_path):
    path = write(tmp_path / "grüße 猫.png", smooth_image())
    os.symlink(path, tmp_path / "link")
    for source in (path, str(path), tmp_path / "link"):
        np.testing.assert_array_equal(read_image(source), smooth_image())
        assert image_size(source) == (60, 40)
    for source in ("a\0b.jpg", "\ud800.jpg"):
        with pytest.raises(BadSampleError, match="is no path"):
            read_image(source)
    with pytest.raises(BadSampleError, match="can't be read"):
        read_image("x" * 5000)
    with pytest.raises(BadSampleError, match="can't be read"):
        read_image("")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_or_device_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for source in (tmp_path / "pipe.jpg", "/dev/zero"):
        for read in (read_image, image_size):
            with pytest.raises(BadSampleError, match="not a file"):
                read(source)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_size_is_that_of_the_photo_read(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind.lower()}"
    Image.fromarray(smooth_image(40, 60)).save(path, kind, exif=exif)
    height, width = read_image(path).shape[:2]
    assert image_size(path) == (width, height)
    if kind != "WEBP" and kind != "PNG":  # what OpenCV turns of these depends on its version
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
        assert np.abs(read_image(path).astype(int) - upright).max() <= 8


@pytest.mark.parametrize("mode", ["CMYK", "P", "1", "LA", "L", "RGBA"])
def test_kinds_of_pixels(tmp_path, mode):
    original = Image.fromarray(smooth_image(40, 60))
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    original.convert(mode).save(path)
    read = read_image(path)
    assert read.shape == (40, 60, 3)
    expected = np.asarray(original.convert(mode).convert("RGB"))
    assert np.abs(read.astype(int) - expected).mean() < 6


def test_animations_give_their_first_picture_and_floats_none(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    newer = ("a.gif", "a.webp") if cv2.__version__ >= "5" else ()  # OpenCV 4 does not read these
    for name in ("a.tiff", "a.png", *newer):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        read = read_image(tmp_path / name)
        assert read.shape == (6, 8, 3)
        assert read[..., 0].min() > 200, name
        assert read[..., 1].max() < 50, name
    Image.fromarray(np.random.default_rng(0).random((8, 8)).astype(np.float32)).save(tmp_path / "floats.tiff")
    with pytest.raises(BadSampleError, match=r"floats\.tiff: not an image, or a damaged one"):
        read_image(tmp_path / "floats.tiff")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_is_turned_and_mirrored_once_as_a_jpeg_is(tmp_path, orientation):
    """Its encoders put the orientation into the container (irot, imir); turning twice would undo a half turn."""
    picture, exif = smooth_image(40, 60), Image.Exif()
    exif[0x0112] = orientation
    for kind in ("JPEG", "AVIF"):  # which takes the tag out of what it is given
        Image.fromarray(picture).save(tmp_path / f"a.{kind.lower()}", kind, exif=exif, quality=95)
    jpeg, avif = (read_image(tmp_path / name) for name in ("a.jpeg", "a.avif"))
    assert avif.shape == jpeg.shape == ((60, 40, 3) if orientation > 4 else (40, 60, 3))
    assert np.abs(avif.astype(int) - jpeg).mean() < 8
    assert image_size(tmp_path / "a.avif") == (jpeg.shape[1], jpeg.shape[0])


def test_an_avif_of_every_kind_is_rgb_and_a_damaged_one_is_refused(tmp_path):
    photo = Image.fromarray(smooth_image(40, 60))
    for mode in ("RGB", "RGBA", "L"):
        photo.convert(mode).save(tmp_path / f"{mode}.avif", quality=95)
        read = read_image(tmp_path / f"{mode}.avif")
        assert (read.shape, read.dtype, read.flags.writeable) == ((40, 60, 3), np.uint8, True)
        assert np.abs(read.astype(int) - np.asarray(photo.convert(mode).convert("RGB"))).mean() < 8
    cut = tmp_path / "cut.avif"
    cut.write_bytes((tmp_path / "RGB.avif").read_bytes()[:-100])
    with pytest.raises(BadSampleError, match=r"cut\.avif: not an image, or a damaged one"):
        read_image(cut)
