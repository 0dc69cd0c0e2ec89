"""The command line of the demo, and which of its options go together."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipnet.console import Parser, file_or_folder, positive

DEFAULT_PORT = 7860
DEFAULT_DETECT_EVERY = 30
DEFAULT_MIN_SCORE = 0.05  # of a face; background that a detector took for one scores near 0

# Sources by the name of their option; PORTRAIT is what there is without any.
PORTRAIT, IMAGE, FOLDER, VIDEO, WEBCAM, WEB = "portrait", "image", "folder", "video", "webcam", "web"
_PHOTOS = (PORTRAIT, IMAGE, FOLDER)
_MOVING = (VIDEO, WEBCAM)

# Options that mean something for some sources only.
_FOR = {
    "output": (*_PHOTOS, *_MOVING),
    "json": (*_PHOTOS, *_MOVING),
    "csv": (*_PHOTOS, *_MOVING),
    "no_window": (*_PHOTOS, *_MOVING),  # photos never open one; harmless
    "min_score": (*_PHOTOS, WEB),
    "no_smoothing": _MOVING,
    "detect_every": _MOVING,
    "seconds": _MOVING,
    "camera_size": (WEBCAM,),
    "mirror": (WEBCAM,),
}


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The options, checked as far as that needs no file.

    Returns:
        The parser, for errors that show later, and the options. Besides their own names these are ``source``, one of
        the names above, ``detector``, as :func:`pipnet.inference.detectors.detector_factory` takes it, and ``boxes``,
        the file of ``--detector boxes FILE`` or None.

    Raises:
        SystemExit: Status 2, for arguments that are wrong or don't go together; 0 for ``--help``.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    given = [name for name in (IMAGE, FOLDER, VIDEO, WEBCAM, WEB) if getattr(options, name) is not None]
    options.source = given[0] if given else PORTRAIT
    for name, sources in _FOR.items():
        value = getattr(options, name)
        if value is not None and value is not False and options.source not in sources:
            parser.error(f"--{name.replace('_', '-')} {_does_not_go(options.source, sources)}")
    _split_detector(parser, options)
    options.detect_every = options.detect_every or (1 if options.boxes else DEFAULT_DETECT_EVERY)
    if options.min_score is None:  # who brings boxes says himself what is a face
        options.min_score = 0.0 if options.boxes else DEFAULT_MIN_SCORE
    return parser, options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        "demo",
        "Find the landmarks of faces in photos, videos, or in front of a camera. Without a source: on a public-domain "
        "portrait.",
    )
    sources = parser.add_argument_group("sources, one of").add_mutually_exclusive_group()
    sources.add_argument("--image", type=Path, nargs="+", metavar="PATH", help="photos")
    sources.add_argument("--folder", type=Path, metavar="DIR", help="all photos in a folder and its subfolders")
    sources.add_argument("--video", type=_video, metavar="FILE|URL", help="a video")
    sources.add_argument(
        "--webcam", type=_index, nargs="?", const=0, metavar="INDEX", help="a camera, live (default: 0, the first)"
    )
    sources.add_argument(
        "--web",
        type=_port,
        nargs="?",
        const=DEFAULT_PORT,
        metavar="PORT",
        help=f"a page in the browser, on this machine only (default: port {DEFAULT_PORT})",
    )
    results = parser.add_argument_group("results")
    results.add_argument(
        "--output",
        type=file_or_folder,
        metavar="PATH",
        help="folder (default: here), or with one source a file name: .png, .jpg, … or .mp4, .avi, …; a video is "
        "written where this is given or no window opens, a camera where this is given",
    )
    results.add_argument("--json", action="store_true", help="also write boxes, points and scores as JSON")
    results.add_argument("--csv", action="store_true", help="also write them as CSV, one row a face and frame")
    results.add_argument("--no-window", action="store_true", help="open no window (videos and cameras)")
    finding = parser.add_argument_group("finding faces")
    finding.add_argument("--weights", type=Path, metavar="PATH", help="a network (default: the one that ships)")
    finding.add_argument(
        "--detector",
        nargs="+",
        default=["retinaface"],
        metavar=("NAME", "FILE"),
        help="retinaface (default), yunet MODEL, or boxes FILE (CSV or JSON)",
    )
    finding.add_argument(
        "--runtime",
        default="auto",
        metavar="NAME",
        help="auto, torch, onnxruntime or openvino (default: the fastest that is there)",
    )
    finding.add_argument(
        "--threads", type=positive, default=0, metavar="N", help="CPU threads of the network (default: all cores)"
    )
    finding.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 or auto (default: CUDA where there is one)"
    )
    finding.add_argument("--max-faces", type=positive, metavar="N", help="only the N faces that are surest to be faces")
    finding.add_argument(
        "--min-score",
        type=_score,
        metavar="S",
        help="photos: leave out faces with a score below this, from 0 (keep all) to 1 (default: "
        f"{DEFAULT_MIN_SCORE}; 0 with --detector boxes); in videos and cameras the tracking leaves them out",
    )
    moving = parser.add_argument_group("videos and cameras")
    moving.add_argument("--no-smoothing", action="store_true", help="points as the network gives them, frame by frame")
    moving.add_argument(
        "--detect-every",
        type=positive,
        metavar="K",
        help=f"frames between two searches for new faces (default: {DEFAULT_DETECT_EVERY})",
    )
    moving.add_argument("--seconds", type=_seconds, metavar="S", help="stop after so much of the video, or time")
    moving.add_argument("--camera-size", type=_size, metavar="WxH", help="ask the camera for this size, as 1280x720")
    moving.add_argument("--mirror", action="store_true", help="turn the camera's picture around, as a mirror does")
    return parser


def _does_not_go(source: str, sources: tuple[str, ...]) -> str:
    fitting = " and ".join(f"--{name}" for name in sources if name not in (PORTRAIT, WEB))
    if WEB in sources:
        return f"is for {fitting} and --web; in videos and cameras the tracking leaves doubtful faces out by itself"
    if source == WEB:
        return "does not go with --web: the page has its own downloads" if IMAGE in sources else f"is for {fitting}"
    return f"is for {fitting}"


def _split_detector(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    name, *files = options.detector
    options.boxes = None
    if name in ("yunet", "boxes"):
        if len(files) != 1:
            parser.error(
                f"--detector {name} needs one file: --detector {name} {'MODEL' if name == 'yunet' else 'FILE'}"
            )
        if name == "yunet":
            options.detector = f"yunet:{files[0]}"
            return
        if options.source not in (IMAGE, FOLDER, VIDEO):
            parser.error("--detector boxes FILE is for --image, --folder and --video: it has boxes of known pictures")
        options.detector, options.boxes = name, Path(files[0])
        return
    if name != "retinaface" and not name.startswith("yunet:"):
        parser.error(f"no face detector {name!r}; there are: retinaface, yunet MODEL, and boxes FILE")
    if files:
        parser.error(f"--detector {name} takes no file, got {files[0]}")
    options.detector = name


def _score(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {text!r}")
    return number


def _index(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"takes the number of a camera (0, 1, …), got {text!r}; for a file use --video"
        )
    return int(text)


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"takes a port from 0 (any free one) to 65535, got {text!r}")
    return number


def _video(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("needs a file or an address")
    return text


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number larger than 0, got {text!r}")
    return number


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"must be WIDTHxHEIGHT, as 1280x720, got {text!r}")
    return int(parts[0]), int(parts[1])
