"""Synthetic faces: labelled samples without a download, for the first run and the tests.

The 68 points are the vertices that the picture is drawn through, so they are exact to a fraction of a pixel. A face is
the same in every style: styles are domains, as self-training needs them.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipnet.data.images import Photo, read_image, write_image
from pipnet.data.sample import BadItems, Sample
from pipnet.data.synthetic.canvas import add_grain, light
from pipnet.data.synthetic.face import BACK_HAIR, GLASSES, HAIRLINES, Curves, Look, SyntheticFace, outlines
from pipnet.data.synthetic.painters import paint_cartoon, paint_sketch
from pipnet.layouts import PointLayout

_PAINTERS = {"cartoon": paint_cartoon, "sketch": paint_sketch}
STYLES = tuple(_PAINTERS)


def draw_faces(count: int, *, seed: int, size: int = 256, style: str = "cartoon") -> list[Sample]:
    """Faces number 0 to ``count - 1`` of a seed.

    Args:
        count: How many. A longer list starts with the shorter one.
        seed: Not negative. Lists of different seeds share no face.
        size: Side of the pictures in pixels, at least 48.
        style: ``"cartoon"`` or ``"sketch"``.

    Returns:
        Samples with the picture in memory (RGB uint8 ``(size, size, 3)``), named ``drawn_000042``, 68 points of layout
        ``300w_68`` in source pixels, what hides them in ``occluded``, and their ``subsets``: the style, and
        ``large_pose``, ``expression``, ``occlusion`` where they apply.

    Raises:
        ValueError: If an argument is out of range; the message names it.
    """
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed must not be negative, got count={count}, seed={seed}")
    return [draw_face(index, seed=seed, size=size, style=style) for index in range(count)]


def draw_face(
    index: int, *, seed: int, size: int = 256, style: str = "cartoon", clean: bool = False, mirror: bool = False
) -> Sample:
    """Face number ``index`` of :func:`draw_faces`.

    Args:
        clean: Leave out uneven light, blur, noise, glasses and props.
        mirror: Draw the mirrored face: its points are those of the face, mirrored and permuted. Hair, light and
            background are not mirrored.
    """
    if style not in _PAINTERS:
        raise ValueError(f"no style {style!r}; there are {', '.join(STYLES)}")
    if size < 48:
        raise ValueError(f"size must be at least 48 pixels to hold a face, got {size}")
    # Geometry, paint and finish draw from streams of their own, so that a face stays the same in every style.
    geometry, paint, finish = (np.random.default_rng([seed, index, stream]) for stream in range(3))
    face, look = _random_face(geometry, size), _random_look(geometry, plain=clean)
    if mirror:
        face = face.mirrored(size)
    curves = outlines(face, look)
    picture = _PAINTERS[style](paint, size, face, look, curves)
    if not clean:
        picture = _finish(picture, finish)
    points = curves["points"]
    occluded = _hidden(points, look, curves)
    subsets = [style]
    if max(abs(face.yaw) / 25, abs(face.pitch) / 14, abs(face.roll) / 20) > 1:
        subsets.append("large_pose")
    if face.mouth_open > 0.6 or face.pucker > 0 or max(np.abs(face.smile)) > 0.9 or min(face.eye_open) == 0:
        subsets.append("expression")
    if occluded.any():
        subsets.append("occlusion")
    return Sample(picture, points, f"drawn_{index:06d}", subsets=tuple(subsets), occluded=occluded)


def read_drawn(
    root: Path | None,
    layout: PointLayout,
    bad: BadItems,
    *,
    count: int = 800,
    seed: int = 0,
    size: int = 256,
    style: str = "cartoon",
) -> list[Sample]:
    """Reader ``drawn``: :func:`draw_faces` in the form of the readers of files; ``root`` and ``bad`` are not used.

    Raises:
        ValueError: If the layout is not ``300w_68`` or an option is out of range.
    """
    if layout.name != "300w_68":
        raise ValueError(
            f"synthetic faces have layout 300w_68, not {layout.name}; set layout: 300w_68 in the dataset's file"
        )
    return draw_faces(count, seed=seed, size=size, style=style)


def _random_face(rng: np.random.Generator, size: int) -> SyntheticFace:
    extent = rng.uniform(0.40, 0.60) * size
    centre = rng.uniform(0.05 * size + extent / 2, 0.95 * size - extent / 2, 2)
    yaw, pitch, roll = rng.uniform(-1, 1, 3)
    shape = np.clip(rng.normal(0, 1, 8), -1.6, 1.6)
    both_eyes = rng.uniform(0.55, 1.3)
    shut = rng.choice([(0, 0), (0, 1), (1, 0), (1, 1)], p=[0.06, 0.04, 0.04, 0.86])
    smile = rng.normal(0.35, 0.55) + rng.normal(0, 0.15, 2)
    brows = rng.normal(0, 0.55) + rng.normal(0, 0.2, 2)
    return SyntheticFace(
        centre=(float(centre[0]), float(centre[1])),
        extent=extent,
        yaw=36 * yaw,
        pitch=18 * pitch,
        roll=30 * np.sign(roll) * abs(roll) ** 1.4,
        width=1 + 0.06 * shape[0],
        chin=0.07 * shape[1],
        jaw=0.05 * shape[2],
        eye_size=1.12 + 0.13 * shape[3],
        nose_width=1 + 0.15 * shape[4],
        nose_length=0.97 + 0.1 * shape[5],
        mouth_width=1 + 0.12 * shape[6],
        lips=1.1 + 0.25 * shape[7],
        mouth_open=0.0 if rng.random() < 0.45 else rng.uniform(0.12, 1.0),
        pucker=rng.uniform(0.3, 1.0) if rng.random() < 0.12 else 0.0,
        smile=tuple(np.clip(smile, -1, 1)),
        eye_open=tuple(both_eyes * shut),
        brow_raise=tuple(np.clip(brows, -1, 1)),
    )


def _random_look(rng: np.random.Generator, *, plain: bool) -> Look:
    hairline = str(rng.choice(HAIRLINES, p=[0.2, 0.15, 0.15, 0.14, 0.12, 0.1, 0.06, 0.08]))
    back_hair = str(rng.choice(BACK_HAIR, p=[0.1, 0.34, 0.18, 0.2, 0.08, 0.1]))
    glasses = str(rng.choice(GLASSES, p=[0.74, 0.11, 0.11, 0.04]))
    gaze = (rng.uniform(-0.07, 0.07), rng.uniform(-0.02, 0.03))
    iris = rng.uniform(0.095, 0.12)
    prop = bool(rng.random() < 0.09)
    prop_at = (rng.choice([-1, 1]) * rng.uniform(0.4, 1.0), rng.uniform(0.3, 1.2))
    if plain:
        glasses, prop = "none", False
    return Look(hairline, back_hair, glasses, gaze, iris, prop, prop_at)


def _finish(picture: Photo, rng: np.random.Generator) -> Photo:
    if rng.random() < 0.5:
        picture = light(picture, rng.uniform(0.6, 1.0, 4))
    if rng.random() < 0.2:
        cv2.GaussianBlur(picture, (0, 0), len(picture) / 256 * rng.uniform(0.5, 1.3), dst=picture)
    if rng.random() < 0.5:
        picture = add_grain(picture, rng, int(rng.choice([3, 5, 8])))
    return picture


def _hidden(points: npt.NDArray[np.float64], look: Look, curves: Curves) -> npt.NDArray[np.bool_]:
    """Which points lie behind the prop or behind dark glass."""
    covers = [curves["prop"]] if look.prop else []
    if look.glasses == "sun":
        covers += [curves["left_glass"], curves["right_glass"]]
    hidden = np.zeros(len(points), dtype=bool)
    for cover in covers:
        outline = cover.astype(np.float32)
        hidden |= [cv2.pointPolygonTest(outline, (float(x), float(y)), False) > 0 for x, y in points]
    return hidden


def write_synthetic_photos(
    folder: str | Path, *, count: int, seed: int, size: int = 256, style: str = "cartoon"
) -> Path:
    """Write :func:`draw_faces` as PNG files into a folder, which is made; those that are there already stay.

    Raises:
        ValueError: An argument is out of range.
        OSError: A file can't be written.
    """
    if count < 1:
        raise ValueError(f"at least one face must be drawn, got count={count}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"drawn_{index:06d}.png"
        if not path.is_file():
            sample = draw_face(index, seed=seed, size=size, style=style)
            write_image(path, read_image(sample.image))
    return folder
