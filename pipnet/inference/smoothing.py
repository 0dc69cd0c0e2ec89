"""Less jitter without more lag: One-Euro filtering of the points of a face from frame to frame.

The One-Euro filter filters a point at rest hard, since jitter shows there, and a moving one hardly, since lag shows
there. What moves fast is mostly the face as a whole, so :class:`FaceFilter` takes it apart: where the face is, how
large and how turned (four numbers, followed fast), and its shape, each point in the face's own frame (filtered harder).
``experiments/smoothing`` compares that with filtering every point by itself.

All distances are in units of the face's size, all times in seconds, so that the settings depend on neither the camera's
resolution nor its frame rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from pipnet.geometry import box_size, tight_box

# The step between the first two frames, where their time stamps say nothing.
_USUAL_STEP = 1 / 30
_GAP_S = 1.0  # after which a face is another one


@dataclass(frozen=True)
class OneEuroSettings:
    """How a :class:`OneEuro` filter responds.

    Attributes:
        min_cutoff: Cut-off frequency of what is at rest, Hz. Lower is steadier.
        beta: How much the cut-off rises with speed, Hz for each face size a second. Higher lags less.
        speed_cutoff: Cut-off frequency of the speed itself, Hz.
        idle_speed: Speed up to which a thing counts as at rest, face sizes a second; 0 is the paper's filter. Noise
            alone looks like a speed, which would open the filter and let itself through.

    Raises:
        ValueError: A value is out of range; the message names it.
    """

    min_cutoff: float
    beta: float
    speed_cutoff: float = 1.0
    idle_speed: float = 0.0

    def __post_init__(self) -> None:
        for name in ("min_cutoff", "speed_cutoff"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be larger than 0 and finite, got {getattr(self, name)}")
        for name in ("beta", "idle_speed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")


@dataclass(frozen=True)
class Smoothing:
    """Settings of a :class:`FaceFilter`; the defaults are chosen on validation faces, see ``experiments/smoothing``.

    Attributes:
        motion: Of the face as a whole: place, size and angle.
        shape: Of its points in the face's own frame. Too low a cut-off swallows blinks.
    """

    motion: OneEuroSettings = field(default=OneEuroSettings(0.7, 160.0, speed_cutoff=0.7, idle_speed=0.06))
    shape: OneEuroSettings = field(default=OneEuroSettings(0.4, 80.0, speed_cutoff=0.7, idle_speed=0.1))


class OneEuro:
    """The One-Euro filter on many vectors at once, each with a speed and hence a cut-off of its own.

    Differs from the paper in two ways: speeds below ``idle_speed`` count as none, and the first values are averaged
    evenly, since an exponential mean would keep the noise of the first one for long.

    Reference:
        Casiez, Roussel, Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in Interactive
        Systems", CHI 2012, algorithm 1.
    """

    def __init__(self, settings: OneEuroSettings) -> None:
        self.settings = settings
        self._values: np.ndarray | None = None
        self._speed: np.ndarray | float = 0.0  # (..., D), units of the values a second
        self._seen = 0

    def __call__(self, values: np.ndarray, step_s: float, size: np.ndarray | float = 1.0) -> np.ndarray:
        """Filter the values of the next frame, vectors of D numbers ``(..., D)``, ``step_s`` seconds after the last.

        ``size`` is the face's size in the unit of the values, broadcast against ``(..., 1)``.
        """
        self._seen += 1
        if self._values is None:
            self._values = np.array(values, dtype=np.float64)
            return values.astype(np.float64)
        settings = self.settings
        # From the filtered value, as in the paper: a lag that builds up counts as speed and opens the filter.
        change = values - self._values
        self._speed = self._speed + _weight(settings.speed_cutoff, step_s) * (change / step_s - self._speed)
        speed = np.sqrt((self._speed**2).sum(axis=-1, keepdims=True)) / size  # (..., 1), face sizes a second
        cutoff = settings.min_cutoff + settings.beta * np.maximum(speed - settings.idle_speed, 0.0)
        filtered = self._values + np.maximum(_weight(cutoff, step_s), 1 / self._seen) * change
        self._values = filtered
        return filtered


class FrameClock:
    """Seconds that always go on, from time stamps that may not.

    Cameras and damaged files repeat time stamps, jump back, or give none. Such a frame gets the length of the last good
    step, so that nothing is divided by zero and nothing freezes.
    """

    def __init__(self) -> None:
        self._stamp: float | None = None
        self._step = _USUAL_STEP
        self.seconds = 0.0

    def tick(self, time_s: float) -> float:
        """The time of the next frame with this stamp (NaN: none): 0 for the first, then always later than the last."""
        known = math.isfinite(time_s)
        if self._stamp is None:
            self._stamp = time_s if known else math.nan
            return self.seconds
        # The floor keeps two stamps that differ in their last bit only from dividing by next to nothing.
        if known and time_s - self._stamp > 1e-6:
            self._step = time_s - self._stamp
        self._stamp = time_s if known else self._stamp + self._step
        self.seconds += self._step
        return self.seconds


class FaceFilter:
    """Smooths the points of one face (or of several that are always seen together).

    Start a new one, or :meth:`reset`, for every new face. After a gap of a second it starts anew by itself.
    """

    def __init__(self, smoothing: Smoothing | None = None) -> None:
        self._settings = smoothing or Smoothing()
        self.reset()

    def reset(self) -> None:
        """Forget the face: the next points pass as they are."""
        self._motion, self._shape = OneEuro(self._settings.motion), OneEuro(self._settings.shape)
        self._clock = FrameClock()
        self._template: np.ndarray | None = None  # (..., N) complex: the first shape, centred, root mean square 1

    def __call__(self, points: np.ndarray, time_s: float) -> np.ndarray:
        """Smooth the points of the next frame, ``(..., N, 2)``, pixels, finite; N of 2 or more.

        Time stamps are seconds from any origin; repeated, backward and missing (NaN) ones count as one usual step.
        """
        points = np.asarray(points, dtype=np.float64)
        before = self._clock.seconds
        step = self._clock.tick(time_s) - before
        centre = points.mean(axis=-2)  # (..., 2)
        # A point is a complex number from here: one factor turns and scales it.
        flat = (points - centre[..., None, :]) @ np.array([1, 1j])  # (..., N)
        template = self._template
        if template is None or step > _GAP_S:
            self.reset()
            self._clock.tick(time_s)
            spread = np.sqrt((np.abs(flat) ** 2).mean(axis=-1, keepdims=True))
            self._template = template = np.divide(flat, spread, out=np.ones_like(flat), where=spread > 0)
            step = _USUAL_STEP  # not used: both filters pass their first values
        # Least squares: the turn and scale that bring the first shape closest to this one. (...,)
        pose = (template.conj() * flat).mean(axis=-1) / (np.abs(template) ** 2).mean(axis=-1)
        if not (np.abs(pose) > 1e-6).all():  # the points fell together: no frame to filter in
            self.reset()
            return points.copy()
        size = np.maximum(box_size(tight_box(points)), 1e-6)
        shape = _parts(flat / pose[..., None])  # (..., N, 2), in units of the template
        shape = self._shape(shape, step, (size / np.abs(pose))[..., None, None])
        motion = self._motion(np.concatenate([centre, _parts(pose)], axis=-1), step, size[..., None])
        centre, pose = motion[..., :2], motion[..., 2] + 1j * motion[..., 3]
        flat = (shape @ np.array([1, 1j])) * pose[..., None]
        return _parts(flat) + centre[..., None, :]


def _weight(cutoff: np.ndarray | float, step_s: float) -> np.ndarray | float:
    """Share of the new value in an exponential mean with that cut-off frequency (Hz)."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step_s))


def _parts(numbers: np.ndarray) -> np.ndarray:
    """Complex ``(...)`` to real ``(..., 2)``."""
    return np.stack([np.real(numbers), np.imag(numbers)], axis=-1)
