"""Augmentation: every geometric change of a face is composed into one warp; light, blur and occlusion follow.

The numbers of a recipe are the arguments of :class:`Augment`; ``conf/transform/`` holds ``paper``, ``modern`` and
``none``.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipnet.geometry import Crop, affine_crop, turned

# Luma weights and the chroma axes of YIQ, in which a change of hue is a rotation and a change of saturation a scale.
_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


@dataclass(frozen=True)
class Augment:
    """One random recipe. The default of every argument is "off".

    Args:
        mirror_p: Probability of mirroring.
        rotate_p, rotate: Probability, and the largest turn in degrees either way.
        translate_p, translate: Probability, and the largest shift either way as a fraction of the crop.
        scale: Log of the largest zoom either way (0.2 is 0.82 to 1.22 times).
        aspect: Log of the largest stretch either way.
        box_shift, box_scale_jitter: Standard deviations of the box noise, as a fraction of the crop and in log scale:
            what a face detector's box differs from the label's box by (``experiments/detector_boxes``).
        brightness, contrast, saturation: Largest change either way, as a fraction.
        hue: Largest turn of the colour circle either way, in degrees.
        gray_p: Probability of a grey picture.
        gamma: Log of the largest exponent either way.
        blur_p, blur: Probability, and the largest standard deviation, as a fraction of the crop.
        shrink_p, shrink: Probability of a low-resolution picture, and the largest reduction.
        noise_p, noise: Probability of sensor noise, and its largest standard deviation, in grey levels.
        occlude_p, occlude: Probability of a rectangle of one random colour, and its largest width and height as a
            fraction of the crop.
        occlude_textured: Share of the occluding rectangles filled with another part of the picture instead.

    Reference:
        ``paper`` is the authors' ``lib/data_utils.py`` (paper section 4.2), with two repairs: pixels are interpolated,
        and points that leave the crop keep their place instead of being pushed to its edge.
    """

    mirror_p: float = 0.0
    rotate_p: float = 0.0
    rotate: float = 0.0
    translate_p: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    aspect: float = 0.0
    box_shift: float = 0.0
    box_scale_jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray_p: float = 0.0
    gamma: float = 0.0
    blur_p: float = 0.0
    blur: float = 0.0
    shrink_p: float = 0.0
    shrink: float = 1.0
    noise_p: float = 0.0
    noise: float = 0.0
    occlude_p: float = 0.0
    occlude: float = 0.0
    occlude_textured: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_p") and not 0 <= value <= 1:
                raise ValueError(f"{name} is a probability, got {value}")
            if value < 0:
                raise ValueError(f"{name} must not be negative, got {value}")

    def crop(self, square: np.ndarray, size: int, rng: np.random.Generator, tilt: float = 0.0) -> tuple[Crop, bool]:
        """Draw the warp of one face, and whether it is mirrored (points then need ``PointLayout.mirror``).

        Args:
            square: ``(3,)`` centre x, centre y, side, source pixels: a row of :func:`pipnet.geometry.crop_squares`.
            size: Side of the crop in pixels.
            rng: Source of randomness.
            tilt: Degrees, how far face and square are tilted clockwise; all that is drawn starts from upright.
        """
        x, y, side = (float(v) for v in square)
        shift = rng.normal(0.0, 1.0, 2) * self.box_shift
        zoom = rng.normal(0.0, 1.0) * self.box_scale_jitter + rng.uniform(-1, 1) * self.scale
        if rng.random() < self.translate_p:
            shift = shift + rng.uniform(-1, 1, 2) * self.translate
        stretch = rng.uniform(-1, 1) * self.aspect
        angle = rng.uniform(-1, 1) * self.rotate if rng.random() < self.rotate_p else 0.0
        mirror = bool(rng.random() < self.mirror_p)
        width = side * np.exp(zoom + stretch / 2)
        height = side * np.exp(zoom - stretch / 2)
        centre = np.array([x, y]) + (turned(shift * side, tilt) if tilt else shift * side)
        return affine_crop(centre, (width, height), size, angle=angle, tilt=tilt, mirror=mirror), mirror

    def photometric(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change light, sharpness and visibility of a crop, RGB uint8 ``(S, S, 3)``; it may be changed in place."""
        image = self._occlude(image, rng)
        image = self._colour(image, rng)
        return self._degrade(image, rng)

    def _colour(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        gray = rng.random() < self.gray_p
        light, tone, tint, turn, power = rng.uniform(-1, 1, 5)
        saturation = 0.0 if gray else 1 + tint * self.saturation
        if saturation != 1 or self.hue or self.brightness or self.contrast:
            # All of these are linear in the colour of a pixel, so that one 3x4 matrix does them in one pass.
            angle = np.deg2rad(turn * self.hue)
            chroma = saturation * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            mix = np.eye(3)
            mix[1:, 1:] = chroma
            contrast = (1 + tone * self.contrast) * (1 + light * self.brightness)
            matrix = contrast * (_YIQ_TO_RGB @ mix @ _RGB_TO_YIQ)
            mean = np.array(cv2.mean(image)[:3]).mean() if self.contrast else 0.0
            offset = (1 + light * self.brightness) * mean * -tone * self.contrast
            image = cv2.transform(image, np.column_stack([matrix, np.full(3, offset)]))
        if self.gamma:
            curve = 255 * (np.arange(256) / 255) ** np.exp(power * self.gamma)
            image = cv2.LUT(image, np.rint(curve).astype(np.uint8))
        return image

    def _degrade(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = image.shape[0]
        if rng.random() < self.blur_p:
            sigma = rng.uniform(0, self.blur) * size
            if sigma > 0.3:
                image = cv2.GaussianBlur(image, (0, 0), sigma)
        if rng.random() < self.shrink_p:
            small = max(8, round(size / rng.uniform(1, self.shrink)))
            image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
            image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
        if rng.random() < self.noise_p:
            # One plane of noise for the three colours: a third of the work, and what a dark sensor's luma looks like.
            noise = rng.standard_normal(image.shape[:2], dtype=np.float32) * (rng.uniform(0, self.noise))
            image = cv2.add(image, cv2.merge([noise] * 3), dtype=cv2.CV_8U)
        return image

    def _occlude(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if rng.random() >= self.occlude_p:
            return image
        size = image.shape[0]
        width, height = (rng.uniform(0, self.occlude, 2) * size).astype(int)
        x, y = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
        if rng.random() < self.occlude_textured:
            from_x, from_y = int(rng.integers(0, size - width + 1)), int(rng.integers(0, size - height + 1))
            patch = image[from_y : from_y + height, from_x : from_x + width].copy()
        else:
            patch = rng.integers(0, 256, 3, dtype=np.uint8)
        image[y : y + height, x : x + width] = patch
        return image
