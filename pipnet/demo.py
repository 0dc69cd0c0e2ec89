"""Landmarks on photos: ``python -m pipnet.demo [--image PATH ...] [--output DIR] [--json]``.

Without ``--image`` it takes scikit-image's portrait of the astronaut Eileen Collins (NASA, public domain). For every
photo it writes ``NAME_landmarks.png``, and with ``--json`` the points as ``NAME_landmarks.json``. Needs no display.

Exit status: 0, also when a photo shows no face; 1 when a photo could not be used; 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipnet.atomic import replacing

if TYPE_CHECKING:
    from pipnet.faces import FaceLandmarks
    from pipnet.inference.landmarker import FaceLandmarker

_PORTRAIT = "astronaut"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo.

    Args:
        arguments: Of the command line, without the program's name; None takes the process's own.

    Returns:
        The exit status.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.image is None:
        _check_portrait(parser)
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {options.output} can't be a folder: {error.strerror}")
    landmarker = _load(parser, options)

    failed = False
    names = _Names(options.image or [])
    for path in options.image or [None]:
        try:
            _run_one(path, landmarker, options, names)
        except (ValueError, OSError) as error:
            failed = True
            print(f"pipnet.demo: {error}", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipnet.demo", description="Find the landmarks of the faces in photos."
    )
    parser.add_argument(
        "--image", type=Path, nargs="+", metavar="PATH", help="photos (default: a public-domain portrait)"
    )
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)")
    parser.add_argument(
        "--json", action="store_true", help="also write boxes, points and scores as NAME_landmarks.json"
    )
    parser.add_argument("--weights", type=Path, metavar="PATH", help="a checkpoint (default: the one that ships)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or auto (default: CUDA where there is one)")
    parser.add_argument("--max-faces", type=_positive, metavar="N", help="only the N faces that are surest to be faces")
    return parser


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return number


def _check_portrait(parser: argparse.ArgumentParser) -> None:
    try:
        import skimage.data  # noqa: F401
    except ImportError:
        parser.error("the default portrait comes with scikit-image: pip install scikit-image, or give --image PATH")


def _load(parser: argparse.ArgumentParser, options: argparse.Namespace) -> FaceLandmarker:
    """The landmarker, warmed up, so that the times printed are those of the photos."""
    from pipnet.inference.landmarker import FaceLandmarker

    try:
        landmarker = FaceLandmarker.load(options.weights, device=options.device)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    landmarker.detector(blank)
    landmarker(blank, boxes=np.array([16.0, 16.0, 48.0, 48.0]))
    return landmarker


def _run_one(path: Path | None, landmarker: FaceLandmarker, options: argparse.Namespace, names: _Names) -> None:
    """One photo, or the portrait: find, draw, write, and say so in a line."""
    from pipnet.data.images import read_image
    from pipnet.inference.draw import draw_faces

    if path is None:
        import skimage.data

        image, name = skimage.data.astronaut(), _PORTRAIT
    else:
        if not path.is_file():
            raise ValueError(f"{path}: no such photo")
        image, name = read_image(path), path.stem
    started = time.perf_counter()
    boxes = landmarker.detector(image).boxes[: options.max_faces]
    faces = landmarker(image, boxes=boxes)
    milliseconds = 1000 * (time.perf_counter() - started)

    picture = names.free(options.output, name)
    _write_picture(picture, draw_faces(image, faces))
    written = str(picture)
    if options.json:
        record = picture.with_suffix(".json")
        _write_json(record, path, image, faces)
        written += f" and {record.name}"
    count = {0: "no face", 1: "1 face"}.get(len(faces), f"{len(faces)} faces")
    print(f"{path or name}: {count} in {milliseconds:.0f} ms, written to {written}")


class _Names:
    """Names for the pictures: none twice, and none of a photo that is still to be read."""

    def __init__(self, images: Sequence[Path]) -> None:
        self._taken = {path.resolve() for path in images}

    def free(self, folder: Path, name: str) -> Path:
        """``folder/NAME_landmarks.png``, or with a number where that is taken (photos of one name in two folders)."""
        number, path = 1, folder / f"{name}_landmarks.png"
        while path.resolve() in self._taken:
            number += 1
            path = folder / f"{name}_landmarks_{number}.png"
        self._taken.add(path.resolve())
        return path


def _write_picture(path: Path, image: np.ndarray) -> None:
    import cv2

    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with replacing(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _write_json(path: Path, source: Path | None, image: np.ndarray, faces: FaceLandmarks) -> None:
    height, width = image.shape[:2]
    content = {"image": str(source or _PORTRAIT), "width": width, "height": height, **faces.to_dict()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
