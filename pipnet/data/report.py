"""Looking at a dataset: its counts and sizes as text, and its faces as a contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

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


@dataclass(frozen=True)
class DatasetReport:
    """What :func:`dataset_report` found; ``str(report)`` is the text to print.

    Attributes:
        faces: Samples read.
        photos: Different photos among them that could be decoded.
        subsets: Faces of each subset; a face may be in several or none.
        widths, heights: Smallest, median and largest of the photos, pixels.
        face_sizes: Smallest, median and largest longer side of the faces' boxes, source pixels.
        points: Labelled points.
        unlabelled: Points without a label (NaN).
        occluded: Points labelled as hidden.
        outside: Points outside their photo. Legal: labels of cut faces.
        outside_faces: Faces that have such points.
        furthest: How far the furthest lies outside, in longer sides of its face's box, and the name of that face.
        skipped: Reasons of the items the reader skipped.
        unreadable: Reasons of the photos that can't be decoded.
    """

    faces: int
    photos: int
    subsets: dict[str, int]
    widths: tuple[float, float, float]
    heights: tuple[float, float, float]
    face_sizes: tuple[float, float, float]
    points: int
    unlabelled: int
    occluded: int
    outside: int
    outside_faces: int
    furthest: tuple[float, str]
    skipped: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def spread(values: tuple[float, float, float]) -> str:
            return " / ".join(f"{value:.0f}" for value in values)

        subsets = ", ".join(f"{name} {count}" for name, count in sorted(self.subsets.items())) or "none"
        lines = [
            f"faces            {self.faces} in {self.photos} photos",
            f"subsets          {subsets}",
            f"photo width      {spread(self.widths)} px (min / median / max)",
            f"photo height     {spread(self.heights)} px",
            f"face size        {spread(self.face_sizes)} px (longer side of the box)",
            f"labelled points  {self.points}, of them {self.occluded} marked as hidden; {self.unlabelled} not labelled",
            f"outside photo    {self.outside} points of {self.outside_faces} faces"
            + (f"; furthest {self.furthest[0]:.2f} face sizes, {self.furthest[1]}" if self.outside else ""),
            f"skipped          {len(self.skipped)}",
            *(f"  {reason}" for reason in self.skipped),
            f"unreadable       {len(self.unreadable)}",
            *(f"  {reason}" for reason in self.unreadable),
        ]
        return "\n".join(lines)


def dataset_report(samples: Sequence[Sample], bad: BadItems, *, progress: bool = False) -> DatasetReport:
    """Count a dataset and decode every photo of it once.

    Args:
        samples: Faces of a reader.
        bad: What the reader skipped.
        progress: Whether to show a bar on standard error.

    Example:
        >>> face = Sample(np.zeros((20, 30, 3), np.uint8), np.array([[2.0, 3.0], [-4.0, 11.0]]), "drawn", ("a",))
        >>> report = dataset_report([face], BadItems())
        >>> report.widths, report.outside, report.furthest
        ((30.0, 30.0, 30.0), 1, (0.4375, 'drawn'))
    """
    sizes: dict[object, tuple[int, int]] = {}
    unreadable: dict[object, str] = {}
    outside = outside_faces = 0
    furthest = (0.0, "")
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
        extent = np.array(sizes[key], dtype=float)
        beyond = np.fmax(-0.5 - sample.points, sample.points - (extent - 0.5)).max(
            axis=1
        )  # (N,), px; NaN if not labelled
        count = int((beyond > 0).sum())
        if count:
            outside += count
            outside_faces += 1
            furthest = max(furthest, (float(np.nanmax(beyond)) / _longer_side(sample.box), sample.name))
    points = np.array([~np.isnan(sample.points[:, 0]) for sample in samples]) if samples else np.zeros((0, 0), bool)
    return DatasetReport(
        faces=len(samples),
        photos=len(sizes),
        subsets=dict(Counter(subset for sample in samples for subset in sample.subsets)),
        widths=_spread([size[0] for size in sizes.values()]),
        heights=_spread([size[1] for size in sizes.values()]),
        face_sizes=_spread([_longer_side(sample.box) for sample in samples]),
        points=int(points.sum()),
        unlabelled=int((~points).sum()),
        occluded=sum(int(sample.occluded.sum()) for sample in samples if sample.occluded is not None),
        outside=outside,
        outside_faces=outside_faces,
        furthest=furthest,
        skipped=list(bad.reasons),
        unreadable=list(unreadable.values()),
    )


def _longer_side(box: np.ndarray) -> float:
    return float((box[2:] - box[:2]).max())


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    if not len(values):
        return (np.nan, np.nan, np.nan)
    return float(min(values)), float(np.median(values)), float(max(values))


def draw_points(
    tile: np.ndarray, points_crop: np.ndarray, *, color: Color = _GREEN, radius: float | None = None
) -> np.ndarray:
    """A copy of a picture with a dot on every point.

    Args:
        tile: RGB uint8 ``(H, W, 3)``.
        points_crop: ``(N, 2)`` in pixels of ``tile``, 0-based pixel centres, kept to a sixteenth of a pixel. NaN points
            are skipped, points outside are cut off.
        color: RGB.
        radius: Of the dots in pixels; None takes a 130th of the longer side of the tile, at least 1.

    Returns:
        RGB uint8 of the same shape.
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
    """A face cut out of its photo with its points drawn on: one tile of a contact sheet.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        points_px: ``(N, 2)``, source pixels; NaN points are not drawn.
        box: What is cut out, ``x0, y0, x1, y1``, source pixels; None takes the tight box of the points.
        size: Side of the tile in pixels.
        crop_scale: Side of the cut square in longer sides of the box.
        color: RGB of the points.
        others: More points in other colours, drawn below them: ``(points_px, color)``, for example the labels below
            the predictions.

    Returns:
        RGB uint8 ``(size, size, 3)``.
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
    """Pictures side by side in rows, a caption under each.

    Args:
        tiles: RGB uint8 pictures; each is fitted into a square, aspect kept.
        columns: Pictures a row.
        tile: Side of the squares in pixels; None takes the longest side among the pictures.
        captions: One line each, shortened in the middle to what fits; None draws none.
        gap: Pixels around each picture.

    Returns:
        RGB uint8 ``(H, W, 3)``.

    Raises:
        ValueError: There are no pictures, or not as many captions.

    Example:
        >>> contact_sheet([np.zeros((10, 10, 3), np.uint8)] * 5, columns=3, gap=2).shape
        (26, 38, 3)
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
