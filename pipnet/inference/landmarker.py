"""FaceLandmarker: a photo becomes points on its faces. What users call, and what evaluation calls."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike

from pipnet.data.images import BadSampleError, read_image
from pipnet.geometry import angle_between, crop_of_square, crop_squares, roll_angles, scale_boxes, turned
from pipnet.inference.detections import (
    Boxes,
    Detections,
    Detector,
    as_angles,
    as_boxes,
    as_detections,
    boxes_by_points,
    can_cut,
)
from pipnet.inference.detectors import RetinaFace, YuNet, detector_factory
from pipnet.inference.runtimes import GRAPH_RUNTIMES, RUNTIMES, Runtime, TorchRuntime, open_fastest, usable_device
from pipnet.landmarks import FaceLandmarks, joined
from pipnet.layouts import PointLayout, layout_from_dict

if TYPE_CHECKING:
    from pipnet.model.checkpoint import LoadedModel

SHIPPED_WEIGHTS = Path(__file__).resolve().parent.parent / "weights" / "300w_mobilenet_v2.pt"
SHIPPED_GRAPH = SHIPPED_WEIGHTS.with_name("300w_mobilenet_v2_int8.onnx")  # the same network in int8

Photo: TypeAlias = str | os.PathLike[str] | np.ndarray
"""What :func:`~pipnet.data.images.read_image` reads: a file, or an array."""
_Photo = TypeVar("_Photo", bound=Photo)

# Faces that go through the network together. A crowd of hundreds in one batch would take gigabytes.
_BATCH_SIZE = 64
_HELD_BYTES = 2**28  # of photos that wait until a batch is full

# Layouts whose tight box is what the calibration of RetinaFace was fitted to: jaw and brows are on their edge.
_DETECTOR_LAYOUTS = ("300w_68", "wflw_98")

# All chosen on validation faces of 300W that were turned by hand (experiments/roll). A face with a lower score than the
# first is looked at in the three other quarter turns; still unsure, in all four in a smaller box, since detectors frame
# tilted faces too widely (degrees, share of the box). One still below the second is cut again by the points of each of
# these views, and by the points of the surest of them once more; that counts from the second score on. One that ends
# below the last keeps its first view: such a score says nothing about the angle.
_SURE, _LIKELY, _NOTHING = 0.8, 0.5, 0.1
_OTHER_TURNS = (((90.0, 180.0, 270.0), 1.0), ((0.0, 90.0, 180.0, 270.0), 0.75))
# A face that lies in its crop otherwise than faces do is cut again by its own points, up to so many times: one tilted
# by more than so many degrees, off the middle by more than this share of the box, or larger or smaller by this factor.
_TILTED, _ASIDE, _OTHER_SIZE = 15.0, 0.15, 1.2
_AGAIN = 2


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
        >>> from pipnet.layouts import PointLayout
        >>> def middle(crops):  # a stand-in for a network, which sees its one point in the middle of every crop
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
        named = isinstance(detector, str)
        self._detector_name = detector if named else getattr(detector, "__name__", type(detector).__name__)
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
            path: A ``best.pt``, an ``.onnx`` or ``.xml`` of ``pipnet export``, or None for the weights that ship with
                pipnet (68 points; trained on 300W, for non-commercial research only).
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
        is_graph = path is not None and Path(path).suffix.lower() in GRAPH_RUNTIMES
        graph = is_graph or runtime in ("onnxruntime", "openvino")
        if graph and device != "auto" and usable_device(device) != "cpu":
            warnings.warn(f"graphs run on the CPU only here, not on {device!r}; the CPU serves instead", stacklevel=2)
        device = "cpu" if graph else usable_device(device)
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
        mean_face = arguments["mean_face"]
        return cls(runtime, layout=loaded.layout, crop_scale=loaded.crop_scale, detector=detector, mean_face=mean_face)

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
        """How far faces are tilted clockwise in the picture, by their points ``(F, N, 2)`` in any frame.

        Returns:
            ``(F,)``, degrees in (-180, 180]; 0 for a network without a mean face.
        """
        return np.zeros(len(points)) if self.mean_face is None else roll_angles(points, self.mean_face)

    @overload
    def __call__(self, image: Photo, boxes: Boxes | None = None, angles: ArrayLike | None = None) -> FaceLandmarks: ...

    @overload
    def __call__(
        self,
        image: list[_Photo] | tuple[_Photo, ...],
        boxes: Sequence[Boxes | None] | np.ndarray | None = None,
        angles: Sequence[ArrayLike | None] | np.ndarray | None = None,
    ) -> list[FaceLandmarks]: ...

    def __call__(self, image: Any, boxes: Any = None, angles: Any = None) -> FaceLandmarks | list[FaceLandmarks]:
        """Landmarks of the faces in a photo, or in each of many, whichever way they are tilted.

        The network sees every face upright, by the detector's five points where these can be believed. A face whose
        score then is below 0.8 is looked at in other turns, too, and the surest view is kept; one that its own points
        show to be tilted in its crop by more than 15 degrees, or badly framed, is cut again by them and looked at once
        more. An object may be called from several threads.

        Args:
            image: A file, or an RGB array uint8 ``(H, W, 3)``; grey ``(H, W)``, RGBA and uint16 are taken too. Or many:
                a list or tuple of these, or an array ``(B, H, W, C)``. The faces of all go through the network in
                common batches; files are read as they are needed.
            boxes: ``(F, 4)`` or ``(4,)``, ``x0, y0, x1, y1``: the *tight boxes of the points*, in pixels of the photo;
                they may reach over its border. Or what a detector gave. None runs the detector. Of many photos, one
                such entry each.
            angles: ``(F,)`` or a number, degrees: how far each face is tilted clockwise in the picture, if you know it.
                Its box is turned by that about its own centre (a detector's is calibrated for it), and the face is
                looked at once. None, or NaN for one face: found. ``faces.boxes`` and ``faces.angles`` can be given
                back.

        Returns:
            One entry a face, in the order of ``boxes``, or best detection first; of no face, length 0. Of many photos
            a list of these.

        Raises:
            pipnet.data.images.BadSampleError: The file or array is no usable image (a ValueError); of many, the message
                says which.
            ValueError: A box is not usable; the message names it. Or the angles are not one number a box.
        """
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray) and image.ndim == 4):
            return self._many(image, boxes, angles)
        return self._predict([self._asked(image, boxes, angles, stacklevel=3)], _BATCH_SIZE)

    def _many(self, photos: Any, boxes: Any, angles: Any) -> list[FaceLandmarks]:
        """The faces of each photo; photos wait until their faces fill a batch, or too much memory."""
        for name, given in (("boxes", boxes), ("angles", angles)):
            if given is not None and (not hasattr(given, "__len__") or len(given) != len(photos)):
                count = len(given) if hasattr(given, "__len__") else type(given).__name__
                raise ValueError(
                    f"many photos need one entry of {name} each, got {len(photos)} photos and {count} for {name}"
                )
        done: list[FaceLandmarks] = []
        waiting: list[_Asked] = []
        for index, photo in enumerate(photos):
            own = [None if given is None else given[index] for given in (boxes, angles)]
            try:
                waiting.append(self._asked(photo, *own, stacklevel=4))
            except Exception as error:
                if type(error) in (ValueError, BadSampleError):
                    raise type(error)(f"photo {index}: {error}") from error
                error.add_note(f"photo {index}")  # of the user's own detector, maybe: it stays what it is
                raise
            ends = np.cumsum([len(one.found) for one in waiting])
            held = sum(one.image.nbytes for one in waiting)
            if ends[-1] >= _BATCH_SIZE or held >= _HELD_BYTES or index + 1 == len(photos):
                faces = self._predict(waiting, _BATCH_SIZE)
                done += [faces[end - len(one.found) : end] for one, end in zip(waiting, ends, strict=True)]
                waiting.clear()
        return done

    def _asked(self, photo: Photo, boxes: Boxes | None, angles: ArrayLike | None, stacklevel: int) -> _Asked:
        """The photo, read, and its faces, found where there are no ``boxes``; ``stacklevel`` is the user's."""
        image = read_image(photo)
        if boxes is not None:
            found = as_detections(boxes)
        else:
            if isinstance(self.detector, RetinaFace | YuNet) and self.layout.name not in _DETECTOR_LAYOUTS:
                known, name = " and ".join(_DETECTOR_LAYOUTS), type(self.detector).__name__
                warnings.warn(
                    f"{name}'s boxes are fitted to the points of {known}, not of {self.layout.name!r}; if the points"
                    " look wrong, give boxes= or a detector of your own",
                    stacklevel=stacklevel,
                )
            found = as_detections(self.detector(image))
            as_boxes(found.boxes)  # of a detector of the user's own, maybe
        return _Asked(image, found, as_angles(angles, len(found)))

    def predict_batch(
        self,
        images: Sequence[np.ndarray],
        boxes: Sequence[np.ndarray | Detections],
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
        plain = [box for box in boxes if not isinstance(box, Detections)]
        if len(plain) == len(boxes):  # together: a message names the row
            boxes = [Detections(box[None], np.ones(1)) for box in as_boxes(np.stack(plain), flat=True)]
        known = as_angles(angles, len(images))[:, None]
        asked = [_Asked(image, as_detections(box), of) for image, box, of in zip(images, boxes, known, strict=True)]
        return self._predict(asked, batch_size)

    def _predict(self, photos: Sequence[_Asked], batch_size: int) -> FaceLandmarks:
        """All faces of all photos."""
        if not any(len(photo.found) for photo in photos):
            return FaceLandmarks.empty(self.layout)
        search = _UprightSearch(photos, partial(self._view, batch_size=batch_size))
        # Scores that are alike for all faces can't say which view is better.
        ranks_faces = getattr(self.runtime, "metadata", {}).get("ranks_faces", True)
        if ranks_faces and self.mean_face is not None and len(self.mean_face) > 1:
            search.run(partial(boxes_by_points, mean_face=self.mean_face, crop_scale=self.crop_scale))
        return search.views

    def _view(
        self, images: Sequence[np.ndarray], boxes: np.ndarray, angles: np.ndarray, batch_size: int
    ) -> FaceLandmarks:
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
        return FaceLandmarks(points, scores, boxes, self.layout, face_scores, angles=angles)


class _Asked(NamedTuple):
    """A photo, its faces, and how far they are tilted: ``(F,)`` degrees, NaN where the caller does not know it."""

    image: np.ndarray
    found: Detections
    angles: np.ndarray


class _UprightSearch:
    """Looks at faces that may be tilted until the network is sure of them, and keeps the surest view of each.

    Where nobody knows how a face is tilted, the network's own score is the judge: it falls to nothing for a face that
    is tilted by more than about 60 degrees in its crop. A face that is upright, or tilted as the detector says, costs
    one view. All faces that need a further view share a batch.

    Args:
        photos: At least one face in all.
        view: The network: F photos, boxes ``(F, 4)`` and angles ``(F,)`` to one view of each.
    """

    def __init__(
        self,
        photos: Sequence[_Asked],
        view: Callable[[Sequence[np.ndarray], np.ndarray, np.ndarray], FaceLandmarks],
    ) -> None:
        self._view = view
        self._rows = [(photo, row) for photo in photos for row in range(len(photo.found))]
        known = np.concatenate([photo.angles for photo in photos])
        told = np.concatenate([photo.found.angles for photo in photos])
        self._told = np.nan_to_num(np.where(np.isnan(known), told, known))
        self._free = np.flatnonzero(np.isnan(known))  # those that may be turned
        boxes = np.concatenate([photo.found.boxes_at(photo.angles) for photo in photos])
        self.views = self._look(range(len(boxes)), boxes, self._told)

    def run(self, frame: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
        """Look again at doubtful faces; ``frame`` gives boxes and angles by points, see :func:`boxes_by_points`."""
        if not self._free.size:
            return
        self._frame = frame
        faint = self._free[self.views.face_scores[self._free] < _NOTHING]
        first = self.views[faint]
        self._turn_the_unsure()
        for _ in range(_AGAIN):
            if not self._look_again():
                break
        nothing = self.views.face_scores[faint] < _NOTHING
        self._keep(faint[nothing], first[nothing])

    def _look(self, faces: Sequence[int] | np.ndarray, boxes: np.ndarray, angles: np.ndarray) -> FaceLandmarks:
        return self._view([self._rows[face][0].image for face in faces], boxes, angles)

    def _keep(self, faces: np.ndarray, views: FaceLandmarks) -> None:
        for name in ("points", "scores", "boxes", "face_scores", "angles"):
            getattr(self.views, name)[faces] = getattr(views, name)

    def _turn_the_unsure(self) -> None:
        """Look at doubtful faces in other turns."""
        tried, views = [], []
        for turns, zoom in _OTHER_TURNS:
            unsure = self._free[self.views.face_scores[self._free] < _SURE]
            if not unsure.size:
                break
            faces, by = np.repeat(unsure, len(turns)), np.tile(turns, unsure.size)
            asked = [(*self._rows[face], turn) for face, turn in zip(faces, by, strict=True)]
            boxes = np.stack([photo.found.seen_turned(row, turn) for photo, row, turn in asked])
            others = self._look(faces, scale_boxes(boxes, zoom), angle_between(self._told[faces] + by, 0.0))
            best = others.face_scores.reshape(unsure.size, -1).argmax(axis=1) + len(turns) * np.arange(unsure.size)
            surer = others.face_scores[best] > self.views.face_scores[unsure]
            self._keep(unsure[surer], others[best[surer]])
            tried.append(faces)
            views.append(others)
        if tried:
            self._follow_the_points(np.concatenate(tried), joined(views).points)

    def _follow_the_points(self, faces: np.ndarray, points: np.ndarray) -> None:
        """Cut doubtful faces again by points ``(K, N, 2)`` that some view gave them, and by the surest of these again.

        ``faces`` ``(K,)`` says of which face they are; several of one face are fine.
        """
        for _ in range(_AGAIN):
            boxes, rolls = self._frame(points.astype(np.float64))
            doubtful = (self.views.face_scores[faces] < _LIKELY) & can_cut(boxes)
            if not doubtful.any():
                return
            faces = faces[doubtful]
            again = self._look(faces, boxes[doubtful], rolls[doubtful])
            surest_first = np.argsort(-again.face_scores, kind="stable")
            faces, first = np.unique(faces[surest_first], return_index=True)
            again = again[surest_first[first]]
            likely = again.face_scores >= _LIKELY
            self._keep(faces[likely], again[likely])
            points = again.points

    def _look_again(self) -> bool:
        """Cut faces that lie in their crop otherwise than faces do, or are unsure, by their own points; any left?"""
        views = self.views[self._free]
        boxes, rolls = self._frame(views.points.astype(np.float64))
        longer, longer_was = ((of[:, 2:] - of[:, :2]).max(axis=1) for of in (boxes, views.boxes))
        aside = np.abs(boxes[:, :2] + boxes[:, 2:] - views.boxes[:, :2] - views.boxes[:, 2:]).max(axis=1) / 2
        again = np.abs(angle_between(rolls, views.angles)) > _TILTED
        again |= (aside > _ASIDE * longer_was) | (views.face_scores < _SURE)
        again |= (longer > _OTHER_SIZE * longer_was) | (longer_was > _OTHER_SIZE * longer)
        again &= can_cut(boxes)
        if not again.any():
            return False
        faces = self._free[again]
        others = self._look(faces, boxes[again], rolls[again])
        better = (others.face_scores >= _SURE) | (others.face_scores > self.views.face_scores[faces])
        self._keep(faces[better], others[better])
        return True
