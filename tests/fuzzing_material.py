"""What the fuzz tests throw at pipnet: damaged photos, videos and labels, strange arrays and boxes."""

from __future__ import annotations

import json
import tempfile
import zlib
from copy import deepcopy
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from hypothesis import strategies as st
from PIL import Image


def drawn_photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Smooth areas and noise, RGB."""
    y, x = np.mgrid[:height, :width]
    photo = np.stack([4 * x, 5 * y, 2 * (x + y)], axis=2) % 256
    photo[10:30, 10:40] = np.random.default_rng(0).integers(0, 256, (20, 30, 3))
    return photo.astype(np.uint8)


@cache
def valid_photos() -> dict[str, bytes]:
    """A small file of each kind; some with EXIF, several scans, 16 bits or a palette."""
    photo = Image.fromarray(drawn_photo())
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: dict[str, tuple[str, Image.Image, dict[str, Any]]] = {
        "baseline.jpg": ("JPEG", photo, {}),
        "progressive.jpg": ("JPEG", photo, {"progressive": True, "exif": turned}),
        "cmyk.jpg": ("JPEG", photo.convert("CMYK"), {}),
        "rgb.png": ("PNG", photo, {"exif": turned}),
        "palette.png": ("PNG", photo.convert("P"), {}),
        "deep.png": ("PNG", Image.fromarray(drawn_photo()[..., 0].astype(np.uint16) * 257), {}),
        "lossy.webp": ("WEBP", photo, {"exif": turned}),
        "lossless.webp": ("WEBP", photo.convert("RGBA"), {"lossless": True}),
        "rgb.bmp": ("BMP", photo, {}),
        "palette.bmp": ("BMP", photo.convert("P"), {}),
        "lzw.tiff": ("TIFF", photo, {"compression": "tiff_lzw"}),
        "plain.tiff": ("TIFF", photo, {}),
        "turned.avif": ("AVIF", photo, {"exif": turned.tobytes()}),
    }
    files = {}
    for name, (kind, image, options) in kinds.items():
        stream = BytesIO()
        image.save(stream, kind, **options)
        files[name] = stream.getvalue()
    return files


@cache
def valid_videos() -> dict[str, bytes]:
    """Twelve small frames as Motion JPEG and as MPEG-4; uncompressed, interlaced; ten frames of one picture."""
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, code in (("mjpg.avi", "MJPG"), ("mp4v.mp4", "mp4v")):
            path = Path(folder) / name
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 25, (64, 48))
            for shift in range(12):
                writer.write(np.roll(drawn_photo(), 3 * shift, axis=1))
            writer.release()
            files[name] = path.read_bytes()
    frames = [cv2.cvtColor(np.roll(drawn_photo(), 3 * i, axis=1), cv2.COLOR_RGB2YUV_I420).tobytes() for i in range(12)]
    for name, kind, shown in (("interlaced.y4m", "t", frames), ("still.y4m", "p", frames[:1] * 10)):
        head = f"YUV4MPEG2 W64 H48 F25:1 I{kind} A1:1 C420jpeg\n".encode()
        files[name] = head + b"".join(b"FRAME\n" + frame for frame in shown)
    return files


# One change: what, where (a share of the file), how long, and a value.
changes = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "delete", "insert", "repeat", "zero", "number"]),
        st.floats(0, 1) | st.floats(0, 0.05),  # headers are short, and the most is decided there
        st.integers(1, 8) | st.integers(1, 400),
        st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]),
    ),
    min_size=0,
    max_size=6,
)


def changed(content: bytes, how: list[tuple[str, float, int, int]]) -> bytes:
    """The file after the changes, one after the other."""
    data = bytearray(content)
    for what, share, length, value in how:
        at = int(share * len(data))
        part = bytes(data[at : at + length])
        if what == "flip" and part:
            data[at] ^= 1 << (value % 8)
        elif what == "cut":
            del data[at:]
        elif what == "delete":
            del data[at : at + length]
        elif what == "insert":
            data[at:at] = np.random.default_rng(value).bytes(length)
        elif what == "repeat":
            data[at:at] = part
        elif what == "zero":
            data[at : at + length] = bytes(len(part))
        elif what == "number":
            order = "big" if length % 2 else "little"
            data[at : at + 4] = value.to_bytes(4, order)[-len(data[at : at + 4]) or 4 :]
    return bytes(data)


def with_right_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the checksums of what is in them now: otherwise nothing behind a change is looked at."""
    out, at = bytearray(data[:8]), 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        body = data[at + 4 : at + 8 + length]
        out += data[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + length
    return bytes(out + data[at:])


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    """Arrays that are photos, nearly photos, or no photos, in every order of memory."""
    side = st.integers(0, 5) | st.integers(1, 90)
    shape = draw(
        st.tuples(side, side, st.sampled_from([1, 3, 3, 3, 4, 2, 0, 5]))
        | st.tuples(side, side)
        | st.lists(side, max_size=5).map(lambda sides: tuple(sides[:2]) + tuple(min(s, 3) for s in sides[2:]))
    )
    dtype = draw(st.sampled_from(["u1"] * 6 + ["u2", "u2", ">u2", "i1", "f4", "f8", "c8", "?", "O", "S3", "M8[s]"]))
    if dtype in ("O", "S3", "M8[s]"):
        array = np.zeros(shape, dtype)
    else:
        array = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, shape).astype(dtype)
    views = {
        "as it is": lambda: array,
        "fortran": lambda: np.asfortranarray(array),
        "backwards": lambda: array[tuple(slice(None, None, -1) for _ in shape)],
        "steps": lambda: array[tuple(slice(None, None, 2) for _ in shape[:2])],
        "turned": lambda: array.T,
        "masked": lambda: np.ma.masked_array(array, mask=False),
    }
    if array.ndim and array.size:
        side = st.sampled_from([1, 7, 2000, 10**6])
        views["broadcast"] = lambda: np.broadcast_to(array.reshape(-1)[0], (draw(side), draw(side), 3))
    return views[draw(st.sampled_from(sorted(views)))]()


number = st.floats(-50, 150) | st.floats(width=32) | st.floats() | st.integers(-5, 100)
boxes = (
    st.none()
    | st.lists(st.tuples(st.floats(-20, 40), st.floats(-20, 40), st.floats(41, 90), st.floats(41, 90)), max_size=3)
    | st.lists(st.lists(number, min_size=4, max_size=4), max_size=3)
    | st.lists(number, max_size=6)
    | st.lists(st.lists(number, max_size=5), max_size=3)
    | st.sampled_from(["box", 7, [["a", "b", "c", "d"]], [None] * 4, np.zeros((2, 2, 4)), {}, object()])
)


COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}, {"id": 2, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [10, 11, 2, 30, 12, 1], "bbox": [10, 11, 20, 5]},
        {"id": 2, "image_id": 2, "category_id": 1, "keypoints": [[12, 11, 2], [33, 12, 1]], "bbox": [12, 11, 20, 5]},
    ],
    "categories": [{"id": 1, "name": "face", "keypoints": ["left", "right"]}, {"id": 2, "name": "dog"}],
}


@cache
def valid_labels() -> dict[str, bytes]:
    """A small file of each kind of text that a command reads, two faces of two points; the photo is a.png."""
    table = "image,x0,y0,x1,y1,subset\na.png,10,11,30.5,12,x;y\na.png,12,11,33,12,\n"
    boxes_table = "image,x0,y0,x1,y1\na.png,10,11,30,40\n"
    pts = "version: 1\nn_points: 2\n{\n10.0 11.0\n30.5 12.0\n}\n"
    layout = "name: two\nnum_points: 2\nmirror_pairs: [[0, 1]]\ngroups:\n  - {name: eyes, indices: [0, 1]}\n"
    return {
        "labels.csv": table.encode(),
        "unicode_text.csv": table.replace(",", "\t").encode("utf-16"),
        "coco.json": json.dumps(COCO).encode(),
        "face.pts": pts.encode("utf-8-sig"),
        "layout.yaml": layout.encode(),
        "boxes.csv": boxes_table.encode(),
        "boxes.json": b'{"a.png": [[10, 11, 30, 40, 0.5]], "clip.mp4": {"0": [[1, 2, 3, 4]]}}',
    }


odd_values = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([1e9, -1e9, 10**400, float("inf"), float("nan"), "", "a.png", "../a", "\ud800", "a\nb", "\0"])
    | st.sampled_from([[], {}, [1], [[1]], {"id": 1}, [[10, 11, 2]] * 2, ["right", "left"]])
)


@st.composite
def coco_documents(draw: st.DrawFn) -> Any:
    """COCO keypoints in which some values are others, are gone, or stand twice."""
    document = deepcopy(COCO)
    for _ in range(draw(st.integers(0, 4))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.integers(0, 3)):
                place = place[key]
                continue
            how = draw(st.sampled_from(["set", "set", "gone", "twice"]))
            if how == "gone":
                del place[key]
            elif how == "twice" and isinstance(place, list):
                place.append(deepcopy(place[key]))
            else:
                place[key] = deepcopy(draw(odd_values))
            break
    return document
