"""FaceLandmarker: a photo becomes points on its faces. What users call, and what evaluation calls."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike

from pipnet.data.images import read_image
from pipnet.geometry import crop_of_square, crop_squares, roll_angles, turned
from pipnet.inference.detections import Detections, Detector, as_angles, as_boxes, as_detections
from pipnet.inference.detectors import RetinaFace, YuNet, detector_factory
from pipnet.inference.runtimes import GRAPH_RUNTIMES, RUNTIMES, Runtime, TorchRuntime, open_fastest, usable_device
from pipnet.inference.upright import Asked, Views, upright_views
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import PointLayout, layout_from_dict

if TYPE_CHECKING:
    from pipnet.model.checkpoint import LoadedModel

SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "300w_mobilenet_v2.pt"
SHIPPED_GRAPH = SHIPPED_WEIGHTS.with_name("300w_mobilenet_v2_int8.onnx")  # the same network in int8

Photo: TypeAlias = str | os.PathLike[str] | np.ndarray
"""What :func:`~pipnet.data.images.read_image` reads: a file, or an array."""

# Faces that go through the network together. A crowd of hundreds in one batch would take gigabytes.
_BATCH_SIZE = 64
_HELD_BYTES = 2**28  # of photos that wait until a batch is full

# Layouts whose tight box is what the calibration of RetinaFace was fitted to: jaw and brows are on their edge.
_DETECTOR_LAYOUTS = ("300w_68", "wflw_98")


class FaceLandmarker:
    """Finds the faces of a photo and the points on each.

    Args:
        runtime: The network.
        layout: What its points mean.
        crop_scale: Side of the square crop over the longer side of the face box, as in training.
        detector: ``"retinaface"``, or a callable ``image -> Detections`` of your own. It is built when it is first
            needed, so calls with boxes never load it.
        mean_face: ``(N, 2)``, the mean of the training faces as fractions of their crops: what says how a face is
            tilted and lies in its box. Without one every face is taken for upright.

    Raises:
        ValueError: No such detector, or the mean face has another number of points than the layout.

    Example:
        A stand-in for a network, which sees its one point in the middle of every crop:

        >>> from pipnet.layouts import PointLayout
        >>> def middle(crops):
        ...     return np.full((len(crops), 1, 2), 0.5), np.ones((len(crops), 1)), np.ones(len(crops))
        >>> middle.input_size = 32
        >>> landmarker = FaceLandmarker(middle, layout=PointLayout("nose", 1, mirror=(0,)), crop_scale=1.2)
        >>> faces = landmarker(np.zeros((50, 80, 3), dtype=np.uint8), boxes=[10, 20, 30, 50])
        >>> len(faces), faces.points.tolist()
        (1, [[[20.0, 35.0]]])
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        layout: PointLayout,
        crop_scale: float,
        detector: str | Detector = "retinaface",
        mean_face: ArrayLike | None = None,
    ) -> None:
        self.runtime = runtime
        self.layout = layout
        self.crop_scale = crop_scale
        self.mean_face = None if mean_face is None else np.asarray(mean_face, dtype=np.float64)
        if self.mean_face is not None and self.mean_face.shape != (layout.num_points, 2):
            raise ValueError(f"the mean face must have shape ({layout.num_points}, 2), got {self.mean_face.shape}")
        self._build_detector = detector_factory(detector)
        self._detector_name = detector if isinstance(detector, str) else _name_of(detector)
        self._detector: Detector | None = None

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        device: str = "auto",
        detector: str | Detector = "retinaface",
        runtime: str = "auto",
        threads: int = 0,
    ) -> FaceLandmarker:
        """A landmarker from a file.

        Args:
            path: A ``best.pt``, an ``.onnx`` or ``.xml`` of ``python -m pipnet.export``, or None for the weights that
                ship with pipnet (68 points; trained on 300W, for non-commercial research only).
            device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"``: CUDA where there is one.
            detector: See :class:`FaceLandmarker`.
            runtime: What computes the network: ``"torch"``, ``"onnxruntime"``, ``"openvino"`` (both on the CPU only),
                or ``"auto"``: the fastest that is installed and takes the file as it is. The weights that ship are an
                8-bit graph on a CPU (OpenVINO if it is installed, else ONNX Runtime; neither imports PyTorch) and a
                checkpoint for PyTorch on CUDA or with ``runtime="torch"``.
            threads: CPU threads of the network; 0 takes ``OMP_NUM_THREADS``, and where that is not set all cores. For
                PyTorch they are those of the whole process.

        A runtime or device that can't serve is replaced by the next that can, with a warning that says why.

        Raises:
            FileNotFoundError: No such file.
            pipnet.model.checkpoint.CheckpointError: The file is not a usable checkpoint.
            ValueError: No such detector or runtime, or the file is not usable.
        """
        if runtime not in RUNTIMES:
            raise ValueError(f"no runtime {runtime!r}; there are: {', '.join(RUNTIMES)}")
        graph = runtime in ("onnxruntime", "openvino")
        graph = graph or (path is not None and Path(path).suffix.lower() in GRAPH_RUNTIMES)
        if not graph:
            device = usable_device(device)
        else:
            if device != "auto" and usable_device(device) != "cpu":
                warnings.warn(
                    f"graphs run on the CPU only here, not on {device!r}; the CPU serves instead", stacklevel=2
                )
            device = "cpu"
        if path is None:
            path = SHIPPED_GRAPH if graph or (runtime == "auto" and device == "cpu") else SHIPPED_WEIGHTS
        network = open_fastest(path, runtime, device=device, threads=threads)
        known = network.metadata
        try:
            layout, crop_scale = layout_from_dict(known["layout"]), float(known["crop_scale"])
            mean_face = known.get("mean_face")  # graphs of pipnet 0.4 lack it
            mean_face = None if mean_face is None else np.array(mean_face, dtype=float).reshape(layout.num_points, 2)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(network, layout=layout, crop_scale=crop_scale, detector=detector, mean_face=mean_face)

    @classmethod
    def from_model(cls, loaded: LoadedModel, *, detector: str | Detector = "retinaface") -> FaceLandmarker:
        """A landmarker from a loaded checkpoint; it runs on the device where the network is."""
        arguments = loaded.net.arguments
        runtime = TorchRuntime(loaded.net)
        runtime.metadata = {"backbone": arguments.get("backbone", type(loaded.net).__name__)}
        return cls(
            runtime,
            layout=loaded.layout,
            crop_scale=loaded.crop_scale,
            detector=detector,
            mean_face=arguments["mean_face"],
        )

    def __repr__(self) -> str:
        """In a line: network, runtime, precision, threads, detector."""
        return f"FaceLandmarker({self.runtime!r}, detector {self._detector_name})"

    @property
    def detector(self) -> Detector:
        """The face detector; the first access loads it."""
        if self._detector is None:
            self._detector = self._build_detector()
        return self._detector

    def rolls(self, points: np.ndarray) -> np.ndarray:
        """How far faces are tilted clockwise in the picture, by their points.

        Args:
            points: ``(F, N, 2)``, any frame.

        Returns:
            ``(F,)``, degrees in (-180, 180]; 0 for a network without a mean face.
        """
        if self.mean_face is None:
            return np.zeros(len(points))
        return roll_angles(points, self.mean_face)

    @overload
    def __call__(
        self, image: Photo, boxes: ArrayLike | Detections | None = None, angles: ArrayLike | None = None
    ) -> FaceLandmarks: ...

    @overload
    def __call__(
        self,
        image: Sequence[Photo],
        boxes: Sequence[ArrayLike | Detections | None] | None = None,
        angles: Sequence[ArrayLike | None] | None = None,
    ) -> list[FaceLandmarks]: ...

    def __call__(
        self,
        image: Photo | Sequence[Photo],
        boxes: ArrayLike | Detections | Sequence[ArrayLike | Detections | None] | None = None,
        angles: ArrayLike | Sequence[ArrayLike | None] | None = None,
    ) -> FaceLandmarks | list[FaceLandmarks]:
        """Landmarks of the faces in a photo, or in each of many, whichever way they are tilted.

        The network sees every face upright. The detector's five points say how far it is tilted, where they can be
        believed. A face whose score then is below 0.8 is looked at in other turns, too, and the surest view is kept;
        one that its own points show to be tilted in its crop by more than 15 degrees, or badly framed, is cut again by
        them and looked at once more. An object may be called from several threads.

        Args:
            image: A file, or an RGB array uint8 ``(H, W, 3)``; grey ``(H, W)``, RGBA and uint16 are taken too. Or many:
                a list or tuple of these, or an array ``(B, H, W, C)``; the faces of all go through the network in
                common batches. Photos may differ in size, and files are read as they are needed, not all at once.
            boxes: ``(F, 4)`` or ``(4,)``, ``x0, y0, x1, y1``: the *tight boxes of the points*, in pixels of the photo,
                if you bring your own. They may reach over its border. Or what a detector gave. None runs the detector.
                Of many photos, one such entry each.
            angles: ``(F,)`` or a number, degrees: how far each face is tilted clockwise in the picture, if you know it.
                Its box is turned by that about its own centre (a detector's is calibrated for it), and the face is
                looked at once. None, or NaN for one face: found, as described. ``faces.boxes`` and ``faces.angles`` can
                be given back.

        Returns:
            One entry a face, in the order of ``boxes``, or best detection first. No face: length 0, never None. Of many
            photos a list of these, one a photo.

        Raises:
            pipnet.data.images.BadSampleError: The file or array is no usable image (a ValueError); of many, the message
                says which.
            ValueError: The boxes have another shape, no extent, or are not finite; the message names the box. Or the
                angles are not one number a box.

        Example:
            >>> from pipnet.layouts import PointLayout
            >>> def middle(crops):
            ...     return np.full((len(crops), 1, 2), 0.5), np.ones((len(crops), 1)), np.ones(len(crops))
            >>> middle.input_size = 32
            >>> landmarker = FaceLandmarker(middle, layout=PointLayout("nose", 1, mirror=(0,)), crop_scale=1.2)
            >>> photos = [np.zeros((50, 80, 3), dtype=np.uint8), np.zeros((60, 40), dtype=np.uint8)]
            >>> found = landmarker(photos, boxes=[[[10, 20, 30, 50], [0, 0, 8, 8]], []])
            >>> [len(faces) for faces in found], found[0].points[1].tolist()
            ([2, 0], [[4.0, 4.0]])
        """
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4):
            return self._many(image, boxes, angles)
        image = read_image(image)
        found = self._detect(image, stacklevel=3) if boxes is None else as_detections(boxes)
        asked = Asked(image, found, as_angles(angles, len(found)))
        return self._together([asked], _BATCH_SIZE)[0]

    def _many(
        self,
        photos: Sequence[Photo] | np.ndarray,
        boxes: Sequence[ArrayLike | Detections | None] | None,
        angles: Sequence[ArrayLike | None] | None,
    ) -> list[FaceLandmarks]:
        """The faces of each photo; photos wait until their faces fill a batch, or too much memory."""
        for name, given in (("boxes", boxes), ("angles", angles)):
            if given is not None and (not hasattr(given, "__len__") or len(given) != len(photos)):
                count = len(given) if hasattr(given, "__len__") else type(given).__name__
                raise ValueError(
                    f"many photos need one entry of {name} each, got {len(photos)} photos and {count} for {name}"
                )
        done: list[FaceLandmarks] = []
        waiting: list[Asked] = []
        for index, photo in enumerate(photos):
            try:
                image = read_image(photo)
                found = None if boxes is None or boxes[index] is None else as_detections(boxes[index])
            except ValueError as error:  # BadSampleError is one
                raise type(error)(f"photo {index}: {error}") from error
            if found is None:
                try:
                    found = self._detect(image, stacklevel=4)
                except Exception as error:  # of the user's own detector, maybe: it stays what it is
                    error.add_note(f"photo {index}")
                    raise
            try:
                known = as_angles(None if angles is None else angles[index], len(found))
            except ValueError as error:
                raise ValueError(f"photo {index}: {error}") from error
            waiting.append(Asked(image, found, known))
            held = sum(one.image.nbytes for one in waiting)
            if sum(len(one.found) for one in waiting) >= _BATCH_SIZE or held >= _HELD_BYTES:
                done += self._together(waiting, _BATCH_SIZE)
                waiting.clear()
        return done + self._together(waiting, _BATCH_SIZE)

    def _detect(self, image: np.ndarray, stacklevel: int) -> Detections:
        if isinstance(self.detector, RetinaFace | YuNet) and self.layout.name not in _DETECTOR_LAYOUTS:
            warnings.warn(
                f"{type(self.detector).__name__}'s boxes are fitted to the points of {' and '.join(_DETECTOR_LAYOUTS)},"
                f" not of {self.layout.name!r}; if the points look wrong, give boxes= or a detector of your own",
                stacklevel=stacklevel,
            )
        found = as_detections(self.detector(image))
        as_boxes(found.boxes)  # of a detector of the user's own, maybe
        return found

    def predict_batch(
        self,
        images: Sequence[np.ndarray],
        boxes: Sequence[np.ndarray],
        batch_size: int = 32,
        angles: ArrayLike | None = None,
    ) -> FaceLandmarks:
        """Landmarks of one known face in each of many photos, in batches across photos.

        Args:
            images: F photos, RGB uint8 ``(H, W, 3)``.
            boxes: F tight boxes ``(4,)``, source pixels, or what a detector gave of one face.
            batch_size: Faces that go through the network together.
            angles: ``(F,)``, degrees, NaN where the tilt is not known; None for all. See :meth:`__call__`.

        Returns:
            F faces, one a photo, each in the pixels of its own photo.

        Raises:
            ValueError: Not one box a photo, or a box is not usable.
        """
        if len(images) != len(boxes):
            raise ValueError(f"predict_batch needs one box a photo, got {len(images)} photos and {len(boxes)} boxes")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not len(images):
            return FaceLandmarks.empty(self.layout)
        known = as_angles(angles, len(images))
        if not any(isinstance(box, Detections) for box in boxes):  # together: a message names the row
            boxes = [Detections(box[None], np.ones(1)) for box in as_boxes(np.stack(boxes), flat=True)]
        asked = [
            Asked(image, as_detections(box), known[row : row + 1])
            for row, (image, box) in enumerate(zip(images, boxes, strict=True))
        ]
        return self._predict(asked, batch_size)

    def _together(self, photos: Sequence[Asked], batch_size: int) -> list[FaceLandmarks]:
        """The faces of several photos, through the network as one."""
        counts = [len(photo.found) for photo in photos]
        if not sum(counts):
            return [FaceLandmarks.empty(self.layout) for _ in photos]
        faces = self._predict(photos, batch_size)
        if len(photos) == 1:
            return [faces]
        ends = np.cumsum(counts)
        return [faces[end - count : end] for count, end in zip(counts, ends, strict=True)]

    def _predict(self, photos: Sequence[Asked], batch_size: int) -> FaceLandmarks:
        """All faces of all photos."""
        view = partial(self._view, batch_size=batch_size)
        views = upright_views(photos, view, self.mean_face, self.crop_scale)
        return FaceLandmarks(
            views.points, views.scores, views.boxes, self.layout, views.face_scores, angles=views.angles
        )

    def _view(self, images: Sequence[np.ndarray], boxes: np.ndarray, angles: np.ndarray, batch_size: int) -> Views:
        """One view of each pair of photo and box; boxes and angles as in :class:`FaceLandmarks`, finite."""
        size, faces = self.runtime.input_size, len(boxes)
        squares = crop_squares(boxes, self.crop_scale)  # (F, 3)
        crops = np.empty((min(faces, batch_size), size, size, 3), dtype=np.uint8)
        points = np.empty((faces, self.layout.num_points, 2), dtype=np.float32)
        scores = np.empty((faces, self.layout.num_points), dtype=np.float32)
        face_scores = np.empty(faces, dtype=np.float32)
        for first in range(0, faces, batch_size):
            rows = range(first, min(first + batch_size, faces))
            for slot, row in enumerate(rows):
                crop_of_square(squares[row], size, angles[row]).warp(images[row], out=crops[slot])
            chosen = slice(rows.start, rows.stop)
            points_unit, scores[chosen], face_scores[chosen] = self.runtime(crops[: len(rows)])
            # Crop.from_unit of all faces at once: a square needs its centre, side and angle only.
            centre, side = squares[chosen, None, :2], squares[chosen, None, 2:]
            inside = (points_unit - 0.5) * side
            points[chosen] = centre + (turned(inside, angles[chosen, None]) if angles[chosen].any() else inside)
        return Views(points, scores, face_scores, boxes, angles)


def _name_of(detector: Detector) -> str:
    return str(getattr(detector, "__name__", type(detector).__name__))
