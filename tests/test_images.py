"""Photos from files: colours, depths, orientation, and every way a file can be broken."""

import cv2
import numpy as np
import pytest

from pipnet.data.images import image_size, read_image
from pipnet.data.sample import BadSampleError


def smooth_image(height=40, width=60):
    """A colourful RGB image that JPEG keeps almost as it is."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([200 * x + 20, 180 * y + 30, 120 * (1 - x) + 60], axis=-1).astype(np.uint8)


def write(path, rgb, *parameters):
    bgr = rgb[..., [2, 1, 0, 3][: rgb.shape[-1]]] if rgb.ndim == 3 else rgb
    assert cv2.imwrite(str(path), bgr, list(parameters))
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_lossless_file_comes_back_as_rgb(tmp_path, suffix):
    image = smooth_image()
    np.testing.assert_array_equal(read_image(write(tmp_path / f"a.{suffix}", image)), image)


def test_jpeg_is_rgb_and_close(tmp_path):
    image = smooth_image()
    path = write(tmp_path / "a.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 95)
    read = read_image(str(path))
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - image).max() <= 8  # red and blue differ by far more: no swap
    assert image_size(path) == (60, 40)


def test_progressive_jpeg_has_several_scans_and_reads(tmp_path):
    image = smooth_image()
    path = write(tmp_path / "a.jpg", image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert path.read_bytes().count(b"\xff\xda") > 1
    assert np.abs(read_image(path).astype(int) - image).max() <= 8


def test_grey_alpha_and_16_bit(tmp_path):
    grey = np.array([[0, 100], [200, 255]], dtype=np.uint8)
    np.testing.assert_array_equal(read_image(write(tmp_path / "g.png", grey)), np.stack([grey] * 3, axis=-1))
    rgba = np.dstack([smooth_image(2, 2), np.full((2, 2), 255, np.uint8)])
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.png", rgba)), rgba[..., :3])
    deep = smooth_image(2, 2).astype(np.uint16) * 257
    np.testing.assert_array_equal(read_image(write(tmp_path / "d.png", deep)), smooth_image(2, 2))


def test_arrays():
    image = smooth_image(4, 6)
    assert read_image(image) is image
    grey = image[..., 0]
    np.testing.assert_array_equal(read_image(grey), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(read_image(grey[..., None]), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(read_image(np.dstack([image, grey])), image)
    np.testing.assert_array_equal(read_image(image.astype(np.uint16) * 257), image)
    flipped = read_image(image[:, ::-1])
    assert flipped.flags.c_contiguous
    np.testing.assert_array_equal(flipped, image[:, ::-1])


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros(4, np.uint8)]
)
def test_array_that_is_no_image(array):
    with pytest.raises(BadSampleError, match="an image must be uint8"):
        read_image(array)


def with_exif(jpeg: bytes, orientation: int) -> bytes:
    """A JPEG with an EXIF segment that holds the orientation tag alone."""
    tiff = b"II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x03\0\x01\0\0\0" + bytes([orientation, 0, 0, 0]) + b"\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


def test_exif_orientation_is_applied(tmp_path):
    image = smooth_image(40, 60)
    jpeg = write(tmp_path / "a.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 98).read_bytes()
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(with_exif(jpeg, 6))  # 6: shown after a quarter turn clockwise
    read = read_image(turned)
    assert np.abs(read.astype(int) - np.rot90(image, -1)).max() <= 8
    assert image_size(turned) == (40, 60)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
def test_cut_off_jpeg(tmp_path, share):
    path = write(tmp_path / "a.jpg", smooth_image(200, 200))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadSampleError, match=r"a\.jpg: the image is cut off after \d+ bytes; replace the file"):
        read_image(path)


def test_cut_off_jpeg_with_a_whole_thumbnail(tmp_path):
    jpeg = write(tmp_path / "a.jpg", smooth_image(200, 200)).read_bytes()
    thumbnail = b"\xff\xd8 thumbnail \xff\xd9"
    body = b"Exif\0\0" + thumbnail
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    path = tmp_path / "b.jpg"
    path.write_bytes(jpeg[:2] + segment + jpeg[2:])
    assert read_image(path).shape == (200, 200, 3)
    path.write_bytes((jpeg[:2] + segment + jpeg[2:])[:-300])
    with pytest.raises(BadSampleError, match="cut off"):
        read_image(path)


def test_bytes_behind_the_end_of_a_jpeg_do_no_harm(tmp_path):
    path = write(tmp_path / "a.jpg", smooth_image())
    path.write_bytes(path.read_bytes() + b"left by a camera")
    assert read_image(path).shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp"])
def test_other_formats_cut_off(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = write(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(BadSampleError, match=rf"a\.{suffix}: .*replace the file"):
        read_image(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "not an image"),
        (b"\xff\xd8", "cut off"),
        (b"\xff\xd8ab", "cut off"),
    ],
)
def test_no_image_inside(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(BadSampleError, match=rf"a\.jpg: .*{reason}"):
            read(path)


def test_missing_file_and_folder(tmp_path):
    for read in (read_image, image_size):
        with pytest.raises(BadSampleError, match=r"a\.jpg: no such image; put it there"):
            read(tmp_path / "a.jpg")
        with pytest.raises(BadSampleError, match="can't be read"):
            read(tmp_path)
