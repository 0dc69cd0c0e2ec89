"""What the demo leaves behind: records of points, tables, and names for all files. Files appear whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.console import as_text
from pipnet.files import replacing
from pipnet.formats import row_columns
from pipnet.landmarks import FaceLandmarks
from pipnet.layouts import PointLayout

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


class Names:
    """Names for what is written: none twice, and none of a photo or video that is read.

    Args:
        inputs: What is read.
    """

    def __init__(self, inputs: Sequence[Path]) -> None:
        self._taken = {path.resolve() for path in inputs}

    def free(self, folder: Path, name: str, *suffixes: str) -> Path:
        """``folder/NAME.SUFFIX``, or with a number where that is taken (photos of one name in two folders).

        The first suffix is that of the path; the name is free with the others too. A file of an earlier run does not
        count as taken: it is replaced.
        """
        number, path = 1, folder / f"{name}{suffixes[0]}"
        while self._taken & {path.with_suffix(suffix).resolve() for suffix in suffixes}:
            number += 1
            path = folder / f"{name}_{number}{suffixes[0]}"
        self._taken.add(path.resolve())
        return path


def name_of_address(address: str) -> str:
    """What to call files of a stream or a video from the net: no folder, and no password, in it.

    Example:
        >>> name_of_address("rtsp://me:secret@camera.local:554/live/1.sdp?key=2"), name_of_address("udp://@camera:5000")
        ('1', 'camera_5000')
    """
    host, _, path = re.split("[?#]", address.partition("://")[2])[0].partition("/")
    return re.sub(r"[^\w.-]+", "_", Path(path).stem or host.rpartition("@")[2]).strip("._-") or "video"


def write_json(path: Path, source: str, image: np.ndarray, faces: FaceLandmarks) -> None:
    """The faces of one photo."""
    height, width = image.shape[:2]
    content = {"image": as_text(source), "width": width, "height": height, **faces.to_dict()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


class PendingFile:
    """A file that is written over a long time, and takes its name in the end: :func:`pipnet.files.replacing` as an
    object.

    Args:
        path: Its name.

    Attributes:
        temporary: Where to write until then.

    Raises:
        OSError: The folder can't be written to.
    """

    def __init__(self, path: Path) -> None:
        self._block = replacing(path)
        self.temporary = self._block.__enter__()
        self._pending = True

    def finish(self) -> None:
        """Give the file its name."""
        if self._pending:
            self._pending = False
            self._block.__exit__(None, None, None)

    def failed(self, error: BaseException) -> BaseException:
        """Leave nothing behind; returns the error, with the file's name where it lacked one."""
        if self._pending:
            self._pending = False
            try:
                self._block.__exit__(type(error), error, error.__traceback__)
            except BaseException as named:
                return named
        return error

    def discard(self) -> None:
        """Leave nothing behind."""
        self.failed(GeneratorExit())


class _PendingText:
    """A text file that is written as frames come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending = PendingFile(path)
        self._file = self._pending.temporary.open("w", encoding="utf-8", newline="")

    def add(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            raise self._pending.failed(error) from error

    def finish(self) -> None:
        """Give the file its name."""
        try:
            self._file.close()
        except OSError as error:
            raise self._pending.failed(error) from error
        self._pending.finish()

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):  # what still waits to be written may not fit on the disk
            self._file.close()
        self._pending.discard()


class VideoRecord(_PendingText):
    """The faces of every frame, as JSON that is written as the frames come: a day in front of a camera fits too.

    Args:
        path: The file.
        source: What it is of.
        size: Width and height of the frames.
        layout: What the points mean.
    """

    def __init__(self, path: Path, source: str, size: tuple[int, int], layout: PointLayout) -> None:
        super().__init__(path)
        head = {"video": as_text(source), "width": size[0], "height": size[1], "layout": layout.name}
        self.add(json.dumps(head)[:-1] + ', "frames": [')
        self._separator = "\n"

    def write(self, number: int, time_s: float, faces: FaceLandmarks) -> None:
        """The faces of a frame."""
        content = {"frame": number, "time": round(time_s, 4), "faces": faces.to_dict()["faces"]}
        self.add(self._separator + json.dumps(content))
        self._separator = ",\n"

    def finish(self) -> None:
        """Give the file its name."""
        self.add("\n]}\n")
        super().finish()


class Table(_PendingText):
    """The faces of photos or frames as CSV; :mod:`pipnet.demo` says what the columns are.

    Args:
        path: The file.
        layout: What the points mean.
    """

    def __init__(self, path: Path, layout: PointLayout) -> None:
        super().__init__(path)
        self._add_row(row_columns(layout, ("source", "frame", "time_s")))

    def write(self, source: str, number: int, time_s: float, faces: FaceLandmarks) -> None:
        """A row for each face."""
        for row in faces.to_rows(source=as_text(source), frame=number, time_s=round(time_s, 4)):
            self._add_row(row.values())

    def _add_row(self, row: Iterable[Any]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(row)
        self.add(line.getvalue())
