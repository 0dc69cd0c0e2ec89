"""FaceLandmarker: a photo becomes points on its faces. What users call, and what evaluation calls."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike

from pipnet.data.images import read_image
from pipnet.faces import FaceLandmarks
from pipnet.geometry import crop_of_square, crop_squares
from pipnet.inference.detect import Detector, RetinaFace, YuNet, detector_factory
from pipnet.inference.device import usable_device
from pipnet.inference.runtimes import GRAPH_RUNTIMES, RUNTIMES, Runtime, TorchRuntime, open_fastest
from pipnet.layouts import PointLayout, layout_from_dict

if TYPE_CHECKING:
    from pipnet.model.checkpoint import LoadedModel

SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "300w_mobilenet_v2.pt"
SHIPPED_GRAPH = SHIPPED_WEIGHTS.with_name("300w_mobilenet_v2_int8.onnx")  # the same network in 8 bits

Photo: TypeAlias = str | os.PathLike[str] | np.ndarray
"""What :func:`~pipnet.data.images.read_image` reads: a file, or an array."""

# Faces that go through the network together. A crowd of hundreds in one batch would take gigabytes.
_BATCH_SIZE = 64
_FARTHEST_PX, _SMALLEST_PX = 1e12, 1e-3  # of boxes: beyond, the numbers of a crop overflow
_HELD_BYTES = 2**28  # of photos that wait until a batch is full

# Layouts whose tight box is what the calibration of RetinaFace was fitted to: jaw and brows are on their edge.
_DETECTOR_LAYOUTS = ("300w_68", "wflw_98")


class FaceLandmarker:
    """Finds the faces of a photo and the points on each.

    Args:
        runtime: The network.
        layout: What its points mean.
        box_scale: Side of the square crop over the longer side of the face box, as in training.
        detector: ``"retinaface"``, or a callable ``image -> Detections`` of your own. It is built when it is first
            needed, so calls with boxes never load it.

    Raises:
        ValueError: No such detector.

    Example:
        A stand-in for a network, which sees its one point in the middle of every crop:

        >>> from pipnet.layouts import PointLayout
        >>> def middle(crops):
        ...     return np.full((len(crops), 1, 2), 0.5), np.ones((len(crops), 1)), np.ones(len(crops))
        >>> middle.input_size = 32
        >>> landmarker = FaceLandmarker(middle, layout=PointLayout("nose", 1, mirror=(0,)), box_scale=1.2)
        >>> faces = landmarker(np.zeros((50, 80, 3), dtype=np.uint8), boxes=[10, 20, 30, 50])
        >>> len(faces), faces.points.tolist()
        (1, [[[20.0, 35.0]]])
    """

    def __init__(
        self, runtime: Runtime, *, layout: PointLayout, box_scale: float, detector: str | Detector = "retinaface"
    ) -> None:
        self.runtime = runtime
        self.layout = layout
        self.box_scale = box_scale
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
        try:
            layout = layout_from_dict(network.metadata["layout"])
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from error
        return cls(network, layout=layout, box_scale=float(network.metadata["box_scale"]), detector=detector)

    @classmethod
    def from_model(cls, loaded: LoadedModel, *, detector: str | Detector = "retinaface") -> FaceLandmarker:
        """A landmarker from a loaded checkpoint; it runs on the device where the network is."""
        runtime = TorchRuntime(loaded.net)
        runtime.metadata = {"backbone": getattr(loaded.net, "arguments", {}).get("backbone", type(loaded.net).__name__)}
        return cls(runtime, layout=loaded.layout, box_scale=loaded.box_scale, detector=detector)

    def __repr__(self) -> str:
        """In a line: network, runtime, precision, threads, detector."""
        return f"FaceLandmarker({self.runtime!r}, detector {self._detector_name})"

    @property
    def detector(self) -> Detector:
        """The face detector; the first access loads it."""
        if self._detector is None:
            self._detector = self._build_detector()
        return self._detector

    @overload
    def __call__(self, image: Photo, boxes: ArrayLike | None = None) -> FaceLandmarks: ...

    @overload
    def __call__(
        self, image: Sequence[Photo], boxes: Sequence[ArrayLike | None] | None = None
    ) -> list[FaceLandmarks]: ...

    def __call__(
        self, image: Photo | Sequence[Photo], boxes: ArrayLike | Sequence[ArrayLike | None] | None = None
    ) -> FaceLandmarks | list[FaceLandmarks]:
        """Landmarks of the faces in a photo, or in each of many.

        An object may be called from several threads.

        Args:
            image: A file, or an RGB array uint8 ``(H, W, 3)``; grey ``(H, W)``, RGBA and uint16 are taken too. Or many:
                a list or tuple of these, or an array ``(B, H, W, C)``; the faces of all go through the network in
                common batches. Photos may differ in size, and files are read as they are needed, not all at once.
            boxes: ``(F, 4)`` or ``(4,)``, ``x0, y0, x1, y1``: the *tight boxes of the points*, in pixels of the photo,
                if you bring your own. They may reach over its border. None runs the detector. Of many photos, one such
                entry each.

        Returns:
            One entry a face, in the order of ``boxes``, or best detection first. No face: length 0, never None. Of many
            photos a list of these, one a photo.

        Raises:
            pipnet.data.sample.BadSampleError: The file or array is no usable image (a ValueError); of many, the message
                says which.
            ValueError: The boxes have another shape, no extent, or are not finite; the message names the box.

        Example:
            >>> from pipnet.layouts import PointLayout
            >>> def middle(crops):
            ...     return np.full((len(crops), 1, 2), 0.5), np.ones((len(crops), 1)), np.ones(len(crops))
            >>> middle.input_size = 32
            >>> landmarker = FaceLandmarker(middle, layout=PointLayout("nose", 1, mirror=(0,)), box_scale=1.2)
            >>> photos = [np.zeros((50, 80, 3), dtype=np.uint8), np.zeros((60, 40), dtype=np.uint8)]
            >>> found = landmarker(photos, boxes=[[[10, 20, 30, 50], [0, 0, 8, 8]], []])
            >>> [len(faces) for faces in found], found[0].points[1].tolist()
            ([2, 0], [[4.0, 4.0]])
        """
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4):
            return self._many(image, boxes)
        image = read_image(image)
        boxes = self._detect(image, stacklevel=3) if boxes is None else as_boxes(boxes)
        if not len(boxes):
            return FaceLandmarks.empty(self.layout)
        return self._predict([image] * len(boxes), boxes, _BATCH_SIZE)

    def _many(
        self, photos: Sequence[Photo] | np.ndarray, boxes: Sequence[ArrayLike | None] | None
    ) -> list[FaceLandmarks]:
        """The faces of each photo; photos wait until their faces fill a batch, or too much memory."""
        if boxes is not None and (not hasattr(boxes, "__len__") or len(boxes) != len(photos)):
            count = len(boxes) if hasattr(boxes, "__len__") else type(boxes).__name__
            raise ValueError(
                f"many photos need one entry of boxes each, got {len(photos)} photos and {count} for boxes"
            )
        done: list[FaceLandmarks] = []
        waiting: list[tuple[np.ndarray, np.ndarray]] = []
        for index, photo in enumerate(photos):
            try:
                image = read_image(photo)
                own = None if boxes is None or boxes[index] is None else as_boxes(boxes[index])
            except ValueError as error:  # BadSampleError is one
                raise type(error)(f"photo {index}: {error}") from error
            try:
                of_photo = self._detect(image, stacklevel=4) if own is None else own
            except Exception as error:  # of the user's own detector, maybe: it stays what it is
                error.add_note(f"photo {index}")
                raise
            waiting.append((image, of_photo))
            if sum(len(b) for _, b in waiting) >= _BATCH_SIZE or sum(i.nbytes for i, _ in waiting) >= _HELD_BYTES:
                done += self._together(waiting)
                waiting.clear()
        return done + self._together(waiting)

    def _together(self, photos: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[FaceLandmarks]:
        """The faces of photos with their boxes, through the network as one."""
        counts = [len(boxes) for _, boxes in photos]
        if not sum(counts):
            return [FaceLandmarks.empty(self.layout) for _ in photos]
        images = [image for image, boxes in photos for _ in boxes]
        faces = self._predict(images, np.concatenate([boxes for _, boxes in photos]), _BATCH_SIZE)
        ends = np.cumsum(counts)
        return [faces[end - count : end] for count, end in zip(counts, ends, strict=True)]

    def _detect(self, image: np.ndarray, stacklevel: int) -> np.ndarray:
        if isinstance(self.detector, RetinaFace | YuNet) and self.layout.name not in _DETECTOR_LAYOUTS:
            warnings.warn(
                f"{type(self.detector).__name__}'s boxes are fitted to the points of {' and '.join(_DETECTOR_LAYOUTS)},"
                f" not of {self.layout.name!r}; if the points look wrong, give boxes= or a detector of your own",
                stacklevel=stacklevel,
            )
        return as_boxes(self.detector(image).boxes)

    def predict_batch(
        self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray], batch_size: int = 32
    ) -> FaceLandmarks:
        """Landmarks of one known face in each of many photos, in batches across photos.

        Args:
            images: F photos, RGB uint8 ``(H, W, 3)``.
            boxes: F tight boxes ``(4,)``, source pixels.
            batch_size: Faces that go through the network together.

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
        return self._predict(images, as_boxes(np.stack(boxes), flat=True), batch_size)

    def _predict(self, images: Sequence[np.ndarray], boxes: np.ndarray, batch_size: int) -> FaceLandmarks:
        """One face for each pair of photo and box."""
        size, faces = self.runtime.input_size, len(boxes)
        squares = crop_squares(boxes, self.box_scale)  # (F, 3)
        crops = np.empty((min(faces, batch_size), size, size, 3), dtype=np.uint8)
        points = np.empty((faces, self.layout.num_points, 2), dtype=np.float32)
        scores = np.empty((faces, self.layout.num_points), dtype=np.float32)
        face_scores = np.empty(faces, dtype=np.float32)
        for first in range(0, faces, batch_size):
            rows = range(first, min(first + batch_size, faces))
            for slot, row in enumerate(rows):
                crop_of_square(squares[row], size).warp(images[row], out=crops[slot])
            chosen = slice(rows.start, rows.stop)
            points_unit, scores[chosen], face_scores[chosen] = self.runtime(crops[: len(rows)])
            # Crop.from_unit of all faces at once: an upright square needs its centre and side only.
            centre, side = squares[chosen, None, :2], squares[chosen, None, 2:]
            points[chosen] = centre + (points_unit - 0.5) * side
        return FaceLandmarks(points, scores, boxes, self.layout, face_scores)


def _name_of(detector: Detector) -> str:
    return str(getattr(detector, "__name__", type(detector).__name__))


def as_boxes(boxes: ArrayLike, *, flat: bool = False) -> np.ndarray:
    """A user's boxes as float64 ``(F, 4)``.

    Args:
        boxes: ``(F, 4)`` or ``(4,)``.
        flat: Whether one without width or without height is taken too: labelled points may lie on a line.

    Raises:
        ValueError: Another shape, a value that is not finite (or beyond 1e12, or a size below 0.001 pixels), or a
            corner order other than ``x0, y0, x1, y1``; the message names the box.

    Example:
        >>> as_boxes([10, 20, 30, 60]).tolist()
        [[10.0, 20.0, 30.0, 60.0]]
        >>> as_boxes([[10, 20, 30, 60], [30, 20, 10, 60]])
        Traceback (most recent call last):
        ...
        ValueError: box 1 [30.0, 20.0, 10.0, 60.0] is no box; boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1, in
        pixels of the photo
    """
    try:
        boxes = np.asarray(boxes, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"boxes must be numbers of shape (F, 4) or (4,): {error}") from None
    if boxes.shape == (4,):
        boxes = boxes[None]
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (F, 4) or (4,), got {boxes.shape}")
    for index, box in enumerate(boxes.tolist()):  # not by NumPy, whose many calls take longer for a few boxes
        if not (_is_box(*box) and (flat or (box[0] < box[2] and box[1] < box[3]))):
            raise ValueError(
                f"box {index} {box} is no box; boxes are x0, y0, x1, y1 with x0 < x1 and y0 < y1, in pixels of the"
                " photo"
            )
    return boxes


def _is_box(x0: float, y0: float, x1: float, y1: float) -> bool:
    """Whether numbers are a box that can be cut out; NaN is none."""
    ordered = -_FARTHEST_PX <= x0 <= x1 <= _FARTHEST_PX and -_FARTHEST_PX <= y0 <= y1 <= _FARTHEST_PX
    return ordered and max(x1 - x0, y1 - y0) >= _SMALLEST_PX
