"""Landmarks drawn on a photo, in proportion to the face: the same look on 200 and on 4,000 pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipnet.faces import FaceLandmarks
from pipnet.geometry import tight_box
from pipnet.layouts import PointLayout

Colour = tuple[int, int, int]  # RGB

# Clear on skin of any colour, and from each other for colour-blind eyes.
PART_COLOURS: dict[str, Colour] = {
    "jaw": (86, 204, 242),
    "brow": (255, 190, 70),
    "nose": (130, 225, 140),
    "eye": (255, 255, 255),
    "mouth": (255, 120, 150),
}
OTHER_COLOURS: tuple[Colour, ...] = ((190, 160, 255), (240, 228, 66), (0, 200, 180), (230, 130, 60))
_BOX_COLOUR: Colour = (86, 204, 242)
_SHADE: Colour = (20, 20, 30)

# Widths as fractions of the face's size, and the least that stays visible, in pixels of the photo.
_LINE, _LEAST_LINE = 1 / 170, 0.7
_RADIUS, _LEAST_RADIUS = 1 / 95, 0.9
_OPACITY = 0.9

# OpenCV draws lines of whole pixels. A face is drawn on a canvas where it has at least this size, and reduced.
_CANVAS_FACE = 600.0
_LARGEST_ZOOM = 12
_LARGEST_CANVAS = 2000
_SUBPIXEL_BITS = 4


def draw_faces(
    image: np.ndarray,
    faces: FaceLandmarks,
    *,
    points: bool = True,
    contours: bool = True,
    boxes: bool = False,
    scores: bool = False,
) -> np.ndarray:
    """Draw landmarks on a copy of a photo.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        faces: What to draw, in pixels of this photo. What lies outside it is cut off; NaN points (not labelled) are
            left out.
        points: A dot on every point.
        contours: Lines along the layout's groups; a layout without groups has none.
        boxes: The box that each face was predicted from.
        scores: Colour the dots by their score, red (0) over yellow to green (1), and write the mean score over the
            face.

    Returns:
        RGB uint8 ``(H, W, 3)``, a new array.

    Raises:
        ValueError: The image is no such array.

    Example:
        >>> from pipnet.layouts import get_layout
        >>> photo = np.zeros((20, 30, 3), dtype=np.uint8)
        >>> drawn = draw_faces(photo, FaceLandmarks.empty(get_layout("300w_68")))
        >>> drawn.shape, drawn is photo
        ((20, 30, 3), False)
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"draw_faces takes RGB uint8 (H, W, 3), got {image.dtype} {image.shape}")
    drawn = np.ascontiguousarray(image).copy()
    for face_points, face_scores, box in zip(faces.points, faces.scores, faces.boxes, strict=True):
        labelled = np.isfinite(face_points).all(axis=1)
        canvas = _Canvas.around(drawn, face_points[labelled], box)
        if canvas is None:
            continue
        if scores:  # first, so that it hides no point where the photo leaves no room above the face
            corner = np.nanmin(np.concatenate([face_points, box.reshape(2, 2)]), axis=0)
            canvas.label(f"{face_scores.mean():.2f}", corner)
        if boxes:
            canvas.box(box)
        if contours:
            _draw_contours(canvas, face_points, labelled, faces.layout)
        if points:
            colours = [_score_colour(score) for score in face_scores] if scores else point_colours(faces.layout)
            canvas.dots(
                face_points[labelled], [colour for colour, known in zip(colours, labelled, strict=True) if known]
            )
        canvas.paint(drawn)
    return drawn


def part_colours(layout: PointLayout) -> dict[str, Colour]:
    """A colour for every part of a layout: :data:`PART_COLOURS`, and others in turn for parts it does not know."""
    unknown = [part for part in layout.parts() if part not in PART_COLOURS]
    others = {part: OTHER_COLOURS[i % len(OTHER_COLOURS)] for i, part in enumerate(unknown)}
    return {part: (PART_COLOURS | others)[part] for part in layout.parts()}


def point_colours(layout: PointLayout) -> list[Colour]:
    """A colour for every point: that of its part, or the first of :data:`OTHER_COLOURS` for points in no group."""
    colours = [OTHER_COLOURS[0]] * layout.num_points
    by_part = part_colours(layout)
    for part, members in layout.parts().items():
        for index in members:
            colours[index] = by_part[part]
    return colours


def _draw_contours(canvas: _Canvas, points: np.ndarray, labelled: np.ndarray, layout: PointLayout) -> None:
    colours = part_colours(layout)
    lines = [(group, [index for index in group.indices if labelled[index]]) for group in layout.groups]
    lines = [(group, indices) for group, indices in lines if len(indices) > 1]
    # All shades before all lines, so that none darkens the line of a neighbour.
    for group, indices in lines:
        canvas.line(points[indices], group.closed, _SHADE, widening=2.0)
    for group, indices in lines:
        canvas.line(points[indices], group.closed, colours[group.part])


def _score_colour(score: float) -> Colour:
    """Red at 0, yellow at 0.5, green at 1."""
    score = float(np.clip(score, 0, 1))
    return (round(255 * min(1.0, 2 - 2 * score)), round(230 * min(1.0, 2 * score)), 60)


@dataclass
class _Canvas:
    """A transparent layer over the part of the photo that holds one face, ``zoom`` canvas pixels to a photo pixel.

    OpenCV blends antialiased strokes into all four channels of a layer that starts at 0, so it holds colours that are
    already multiplied by their coverage, and the coverage itself.
    """

    layer: np.ndarray  # (h * zoom, w * zoom, 4) uint8
    corner: np.ndarray  # (2,), of the part, in photo pixels
    zoom: int
    size: float  # of the face, in photo pixels

    @classmethod
    def around(cls, image: np.ndarray, points: np.ndarray, box: np.ndarray) -> _Canvas | None:
        """A canvas for a face, or None where it has no points or nothing of it lies in the photo."""
        if not len(points):
            return None
        tight = tight_box(points)
        size = max(float((tight[2:] - tight[:2]).max()), 1.0)
        margin = 0.2 * size + 24  # room for the label
        around = np.concatenate([np.minimum(tight[:2], box[:2]) - margin, np.maximum(tight[2:], box[2:]) + margin])
        limit = np.array(image.shape[1::-1])
        corner = np.clip(np.floor(around[:2]), 0, limit).astype(int)
        end = np.clip(np.ceil(around[2:]), 0, limit).astype(int)
        width, height = end - corner
        if width < 1 or height < 1:
            return None
        # A box much larger than its points (a wrong prediction) must not make the canvas huge.
        most = max(min(_LARGEST_ZOOM, _LARGEST_CANVAS // int(max(width, height))), 1)
        zoom = int(np.clip(np.ceil(_CANVAS_FACE / size), 1, most))
        return cls(np.zeros((height * zoom, width * zoom, 4), dtype=np.uint8), corner, zoom, size)

    def line(self, points: np.ndarray, closed: bool, colour: Colour, widening: float = 1.0) -> None:
        """A line along photo points ``(K, 2)``."""
        width = max(_LINE * self.size, _LEAST_LINE) * self.zoom * widening
        track = [self._fixed(points)[:, None]]
        cv2.polylines(self.layer, track, closed, (*colour, 255), max(round(width), 1), cv2.LINE_AA, _SUBPIXEL_BITS)

    def dots(self, points: np.ndarray, colours: list[Colour]) -> None:
        """A shaded dot on each photo point ``(N, 2)``."""
        radius = max(_RADIUS * self.size, _LEAST_RADIUS) * self.zoom
        for grown, palette in ((1.45, [_SHADE] * len(points)), (1.0, colours)):
            reach = round(radius * grown * 2**_SUBPIXEL_BITS)
            for (x, y), colour in zip(self._fixed(points).tolist(), palette, strict=True):
                cv2.circle(self.layer, (x, y), reach, (*colour, 255), cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)

    def box(self, box: np.ndarray) -> None:
        """The outline of a box."""
        x0, y0, x1, y1 = box
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
        self.line(corners, True, _SHADE, widening=2.0)
        self.line(corners, True, _BOX_COLOUR)

    def label(self, text: str, corner: np.ndarray) -> None:
        """Text that ends above ``corner``, or as high as the photo allows."""
        scale = max(self.size / 16, 9.0) * self.zoom / 22  # Hershey capitals are about 22 pixels high at scale 1
        stroke = max(round(2 * scale), 1)
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, stroke)
        gap = round(0.3 * height)
        x, y = np.round((corner - self.corner) * self.zoom).astype(int).tolist()
        x, y = max(x, gap), max(y - 2 * gap - below, height + gap)
        cv2.rectangle(
            self.layer, (x - gap, y - height - gap), (x + width + gap, y + below + gap), (*_SHADE, 255), cv2.FILLED
        )
        cv2.putText(
            self.layer, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255, 255), stroke, cv2.LINE_AA
        )

    def paint(self, image: np.ndarray) -> None:
        """Reduce the layer to photo pixels and lay it over the photo, in place."""
        height, width = (length // self.zoom for length in self.layer.shape[:2])
        layer = cv2.resize(self.layer, (width, height), interpolation=cv2.INTER_AREA)
        layer = cv2.convertScaleAbs(layer, alpha=_OPACITY).reshape(height, width, 4)
        x, y = self.corner
        part = image[y : y + height, x : x + width]
        rest = cv2.cvtColor(255 - layer[..., 3], cv2.COLOR_GRAY2RGB)
        part[:] = cv2.add(cv2.multiply(part, rest, scale=1 / 255), np.ascontiguousarray(layer[..., :3]))

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        """Photo points to the canvas, in OpenCV's fixed point."""
        # A photo pixel's centre is the middle of its zoom x zoom canvas pixels.
        on_canvas = (points - self.corner + 0.5) * self.zoom - 0.5
        return np.round(on_canvas * 2**_SUBPIXEL_BITS).astype(np.int32)
