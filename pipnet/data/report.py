"""Looking at a dataset: its counts and sizes as text, and its faces as a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import cv2
import numpy as np
from tqdm import tqdm

from pipnet.data.images import BadSampleError, read_image
from pipnet.data.sample import BadItems, Sample
from pipnet.geometry import crop_of_square, crop_squares, tight_box

Color = tuple[int, int, int]

_GREEN: Color = (70, 230, 90)
_PAPER = 32  # grey of the sheet between the tiles
_CAPTION_HEIGHT = 18
_SUBPIXEL_BITS = 4


def dataset_report(samples: Sequence[Sample], bad: BadItems, *, progress: bool = False) -> tuple[str, list[str]]:
    """Counts and sizes of a dataset, of which every photo is decoded once.

    Args:
        samples: Faces of a reader.
        bad: What the reader skipped.
        progress: Whether to show a bar on standard error.

    Returns:
        The text to print, and why photos can't be decoded. Points outside their photo are legal: labels of cut faces.
    """
    sizes: dict[object, tuple[int, int]] = {}
    unreadable: dict[object, str] = {}
    outside = outside_faces = 0
    furthest, furthest_name = 0.0, ""
    for sample in tqdm(samples, desc="photos", unit="face", disable=not progress, leave=False):
        key = id(sample.image) if isinstance(sample.image, np.ndarray) else sample.image
        if key not in sizes and key not in unreadable:
            try:
                height, width = read_image(sample.image).shape[:2]
                sizes[key] = (width, height)
            except BadSampleError as error:
                unreadable[key] = str(error)
        if key in unreadable:
            continue
        # The photo covers [-0.5, side - 0.5]: coordinates name pixel centres.
        beyond = np.fmax(-0.5 - sample.points, sample.points - (np.array(sizes[key]) - 0.5))
        beyond = beyond.max(axis=1)  # (N,), px; NaN if not labelled
        if (beyond > 0).any():
            outside += int((beyond > 0).sum())
            outside_faces += 1
            of_box = float(np.nanmax(beyond)) / _longer_side(sample.box)
            furthest, furthest_name = max((furthest, furthest_name), (of_box, sample.name))
    points = sum(len(sample.points) for sample in samples)
    labelled = sum(int((~np.isnan(sample.points[:, 0])).sum()) for sample in samples)
    occluded = sum(int(sample.occluded.sum()) for sample in samples if sample.occluded is not None)
    subsets = sorted(Counter(subset for sample in samples for subset in sample.subsets).items())
    lines = [
        f"faces            {len(samples)} in {len(sizes)} photos",
        f"subsets          {', '.join(f'{name} {count}' for name, count in subsets) or 'none'}",
        f"photo width      {_spread([width for width, _ in sizes.values()])} px (min / median / max)",
        f"photo height     {_spread([height for _, height in sizes.values()])} px",
        f"face size        {_spread([_longer_side(sample.box) for sample in samples])} px (longer side of the box)",
        f"labelled points  {labelled}, of them {occluded} marked as hidden; {points - labelled} not labelled",
        f"outside photo    {outside} points of {outside_faces} faces"
        + (f"; furthest {furthest:.2f} face sizes, {furthest_name}" if outside else ""),
        f"skipped          {len(bad)}",
        *(f"  {reason}" for reason in bad.reasons),
        f"unreadable       {len(unreadable)}",
        *(f"  {reason}" for reason in unreadable.values()),
    ]
    return "\n".join(lines), list(unreadable.values())


def _longer_side(box: np.ndarray) -> float:
    return float((box[2:] - box[:2]).max())


def _spread(values: Sequence[float]) -> str:
    smallest, median, largest = (min(values), np.median(values), max(values)) if len(values) else (np.nan,) * 3
    return f"{smallest:.0f} / {median:.0f} / {largest:.0f}"


def draw_points(
    tile: np.ndarray, points_crop: np.ndarray, *, color: Color = _GREEN, radius: float | None = None
) -> np.ndarray:
    """A copy of a picture with a dot on every point.

    Args:
        tile: RGB uint8 ``(H, W, 3)``.
        points_crop: ``(N, 2)`` in pixels of ``tile``. NaN points are skipped, points outside are cut off.
        color: RGB.
        radius: Of the dots in pixels; None takes a 130th of the longer side of the tile, at least 1.
    """
    drawn = np.ascontiguousarray(tile).copy()
    scale = 1 << _SUBPIXEL_BITS
    radius = max(1.0, max(tile.shape[:2]) / 130) if radius is None else radius
    seen = points_crop[np.isfinite(points_crop).all(axis=1)]
    # Far outside, the fixed-point integers of OpenCV would overflow.
    seen = np.clip(seen, -1e5, 1e5)
    for x, y in np.rint(seen * scale).astype(int).tolist():
        cv2.circle(drawn, (x, y), round(radius * scale), color, -1, cv2.LINE_AA, _SUBPIXEL_BITS)
    return drawn


def face_tile(
    image: np.ndarray,
    points_px: np.ndarray,
    *,
    box: np.ndarray | None = None,
    size: int = 192,
    crop_scale: float = 1.4,
    color: Color = _GREEN,
    others: Sequence[tuple[np.ndarray, Color]] = (),
) -> np.ndarray:
    """A face cut out of its photo with its points drawn on, RGB uint8 ``(size, size, 3)``: a tile of a contact sheet.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        points_px: ``(N, 2)``, source pixels; NaN points are not drawn.
        box: What is cut out, ``x0, y0, x1, y1``, source pixels; None takes the tight box of the points.
        size: Side of the tile in pixels.
        crop_scale: Side of the cut square in longer sides of the box.
        color: RGB of the points.
        others: More points in other colours, drawn below them, for example the labels below the predictions.
    """
    crop = crop_of_square(crop_squares(tight_box(points_px) if box is None else box, crop_scale)[0], size)
    tile = crop.warp(image)
    for points, its_color in (*others, (points_px, color)):
        tile = draw_points(tile, crop.to_crop(points), color=its_color)
    return tile


def contact_sheet(
    tiles: Sequence[np.ndarray],
    *,
    columns: int = 8,
    tile: int | None = None,
    captions: Sequence[str] | None = None,
    gap: int = 4,
) -> np.ndarray:
    """Pictures side by side in rows, a caption under each: RGB uint8 ``(H, W, 3)``.

    Args:
        tiles: RGB uint8 pictures; each is fitted into a square, aspect kept.
        columns: Pictures a row.
        tile: Side of the squares in pixels; None takes the longest side among the pictures.
        captions: One line each, shortened in the middle to what fits; None draws none.
        gap: Pixels around each picture.

    Raises:
        ValueError: There are no pictures, or not as many captions.
    """
    if not len(tiles):
        raise ValueError("a contact sheet needs at least one picture")
    if captions is not None and len(captions) != len(tiles):
        raise ValueError(f"{len(captions)} captions for {len(tiles)} pictures")
    side = max(max(picture.shape[:2]) for picture in tiles) if tile is None else tile
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    step_x, step_y = side + gap, side + gap + (0 if captions is None else _CAPTION_HEIGHT)
    sheet = np.full((rows * step_y + gap, columns * step_x + gap, 3), _PAPER, dtype=np.uint8)
    for index, picture in enumerate(tiles):
        row, column = divmod(index, columns)
        x, y = gap + column * step_x, gap + row * step_y
        fitted = _fit(picture, side)
        height, width = fitted.shape[:2]
        top, left = y + (side - height) // 2, x + (side - width) // 2
        sheet[top : top + height, left : left + width] = fitted
        if captions is not None:
            _write(sheet, captions[index], x, y + side + _CAPTION_HEIGHT - 5, side)
    return sheet


def _fit(picture: np.ndarray, side: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale == 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def _write(sheet: np.ndarray, text: str, x: int, y: int, width: int) -> None:
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.38
    keep = len(text)
    shown = text
    while keep > 1 and cv2.getTextSize(shown, font, size, 1)[0][0] > width:
        keep -= 1
        shown = f"{text[: keep // 2]}..{text[len(text) - (keep - keep // 2) :]}"
    cv2.putText(sheet, shown, (x, y), font, size, (220, 220, 220), 1, cv2.LINE_AA)
