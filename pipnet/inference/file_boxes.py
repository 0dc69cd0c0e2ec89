"""Boxes that stand in a file, from another detector or from a hand: photo or frame in, boxes out.

A CSV has a header; its columns may stand in any order, and others are ignored::

    image,frame,x0,y0,x1,y1,score
    party/a.jpg,,104.5,62,180,151,0.98
    party/a.jpg,,310,70,371.5,142,0.91
    empty.jpg,,,,,,
    clip.mp4,0,104.5,62,180,151,
    clip.mp4,1,105.5,62,181,151,

``image`` is a photo or a video, ``frame`` the frame's number in a video, from 0 (the column may be left out where
there are photos only). ``x0, y0, x1, y1`` is the tight box of the points in pixels, 0-based and naming pixel centres.
``score`` lies in [0, 1] and is 1 where it is left out. A column ``angle`` says by how many degrees a face is tilted
clockwise, and its box turned about its own centre; where it is left out the box is upright, the face anyhow. A row with
no numbers says: no face here.

A JSON holds the same, as one object::

    {"party/a.jpg": [[104.5, 62, 180, 151, 0.98], [310, 70, 371.5, 142]], "empty.jpg": [],
     "clip.mp4": {"0": [[104.5, 62, 180, 151]], "1": []}}

What ``python -m pipnet.demo`` writes with ``--json`` or ``--csv`` can be given back too.
"""

from __future__ import annotations

from pathlib import Path, PurePath

import numpy as np

from pipnet.console import as_text
from pipnet.inference.detections import UNCALIBRATED, CalibratedDetections, Calibration, Detections
from pipnet.inference.file_boxes_reading import Entry, read_entries

_NO_FACE = Detections(np.zeros((0, 4)), np.zeros(0))


class FileBoxes:
    """Boxes by photo, or by video and frame.

    Args:
        path: A CSV or JSON file as described above.
        calibration: Turns the boxes into tight boxes of the points, where the file holds a detector's own.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file can't be used; the message names the file, and the line (CSV) or the entry (JSON).

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "boxes.csv"
        ...     _ = file.write_text("image,x0,y0,x1,y1\\na.jpg,10,20,30,60\\n")
        ...     boxes = FileBoxes(file)
        >>> boxes.of("photos/a.jpg").boxes.tolist()
        [[10.0, 20.0, 30.0, 60.0]]
    """

    def __init__(self, path: str | Path, *, calibration: Calibration = UNCALIBRATED) -> None:
        self.path = Path(path)
        rows: dict[str, dict[int | None, list[Entry]]] = {}
        for entry in read_entries(self.path):
            frames = rows.setdefault(entry.name, {})
            if frames and (entry.frame is None) != (None in frames):
                raise ValueError(
                    f"{self.path}, {entry.place}: {entry.name!r} has boxes with a frame and without; give every box of"
                    " a video its frame"
                )
            frames.setdefault(entry.frame, [])
            if entry.box is not None:
                frames[entry.frame].append(entry)
        self._detections = {
            name: {frame: _detections(entries, calibration) for frame, entries in frames.items()}
            for name, frames in rows.items()
        }
        self._parts = {name: _parts(name) for name in self._detections}

    def __len__(self) -> int:
        """Photos and videos that the file knows."""
        return len(self._detections)

    def of(self, name: str | Path, frame: int | None = None) -> Detections:
        """Boxes of a photo, or of a frame of a video.

        The file's name fits a photo if it is the end of the photo's path, or the photo's path is the end of it:
        ``a.jpg`` and ``party/a.jpg`` both fit ``/home/me/party/a.jpg``. The longest that fits counts, so with photos of
        one name in several folders, name the folders in the file.

        Args:
            name: The photo's or video's path.
            frame: Number of the frame in a video, from 0; None for a photo.

        Returns:
            Best first. A frame that the file leaves out has no face; a photo that it leaves out is an error.

        Raises:
            ValueError: The file does not know this photo, or has no frames for it, or has only frames.
        """
        known = self._find(as_text(str(name)))  # as the demo's own files have it
        frames = self._detections[known]
        if frame is None and list(frames) == [0]:
            return frames[0]  # the demo's table counts a photo as frame 0
        if (frame is None) != (None in frames):
            has, asked = ("boxes without frames", "a video") if None in frames else ("boxes by frame", "a photo")
            raise ValueError(
                f"{self.path}: {known!r} has {has}, and {name} is {asked}; correct the column or key 'frame'"
            )
        return frames.get(frame, _NO_FACE)

    def detector(self) -> FileDetector:
        """These boxes for whoever wants a detector."""
        return FileDetector(self)

    def _find(self, name: str) -> str:
        given, absolute = _parts(name), _parts(str(Path(name).absolute()))
        fitting = [known for known, parts in self._parts.items() if absolute[-len(parts) :] == parts]
        if fitting:
            return max(fitting, key=lambda known: len(self._parts[known]))
        fitting = [known for known, parts in self._parts.items() if parts[-len(given) :] == given]
        if len(fitting) > 1:
            raise ValueError(f"{self.path}: {name} could be {fitting[0]!r} or {fitting[1]!r}; give the longer path")
        if not fitting:
            some = ", ".join(repr(known) for known in list(self._detections)[:3])
            more = ", …" if len(self) > 3 else ""
            raise ValueError(
                f"{self.path}: no boxes for {name}; the file has {some}{more}; a photo without a face needs a line too:"
                ' its name, the other columns empty (JSON: "NAME": [])'
            )
        return fitting[0]


class FileDetector:
    """A detector that reads its boxes from a file, for a place that wants one: say which photo is meant, then call.

    A detector sees pixels, and pixels don't say which photo they are. So :meth:`seek` goes before each call::

        detector = FileBoxes("boxes.csv").detector()
        landmarker = FaceLandmarker.load(detector=detector)
        detector.seek("clip.mp4", frame=7)
        faces = landmarker(frame_7)

    One object serves one video at a time, from one thread.
    """

    def __init__(self, boxes: FileBoxes) -> None:
        self.boxes = boxes
        self._here: Detections | None = None

    def seek(self, name: str | Path, frame: int | None = None) -> None:
        """Name the photo or frame of the next calls.

        Raises:
            ValueError: See :meth:`FileBoxes.of`.
        """
        self._here = self.boxes.of(name, frame)

    def __call__(self, image: np.ndarray) -> Detections:
        """Boxes of the photo or frame that was named last; the pixels are not looked at.

        Raises:
            ValueError: None was named.
        """
        if self._here is None:
            raise ValueError(f"{self.boxes.path}: which photo? call seek(name, frame) before the detector")
        return self._here


def _detections(entries: list[Entry], calibration: Calibration) -> Detections:
    boxes = np.array([entry.box for entry in entries], dtype=np.float64).reshape(-1, 4)
    angles = np.array([entry.angle for entry in entries], dtype=np.float64)
    if calibration == UNCALIBRATED:
        return Detections(boxes, [entry.score for entry in entries], angles)
    return CalibratedDetections.of(boxes, np.array([entry.score for entry in entries]), calibration, angles)


def _parts(name: str) -> tuple[str, ...]:
    """Folders and file of a path of either kind, without ``.`` and what ``..`` takes back."""
    parts: list[str] = []
    for part in PurePath(name.replace("\\", "/")).parts:
        if part == ".." and parts and parts[-1] != "/":
            parts.pop()
        elif part != "..":
            parts.append(part)
    return tuple(parts)
