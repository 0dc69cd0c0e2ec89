"""``python -m pipnet.demo``: its command line, which options go together, and what each source needs to run.

What is slow to import is imported once it is needed, so that ``--help`` and slips are answered at once.
"""

from __future__ import annotations

import argparse
import math
import mimetypes
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipnet.console import (
    MissingExtraError,
    Parser,
    complain,
    file_or_folder,
    needs,
    note,
    positive,
    said,
    started,
    with_kept,
)

if TYPE_CHECKING:
    from pipnet.demo.camera import FrameSource
    from pipnet.demo.window import DisplayProbe
    from pipnet.inference.landmarker import FaceLandmarker

COMMAND = "demo"
DEFAULT_PORT = 7860
DEFAULT_DETECT_EVERY = 30
DEFAULT_MIN_SCORE = 0.05  # of a face; background that a detector took for one scores near 0

_WEBCAM_SIDE = 640  # pixels that a camera's picture is reduced to for finding faces; experiments/detectors

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
    """The parser, for errors that show later, and the options, checked as far as that needs no file.

    Besides their own names these are ``source``, one of the names above, ``detector``, as
    :class:`pipnet.inference.landmarker.FaceLandmarker` takes it, and ``boxes``, the file of ``--detector boxes FILE``.
    Arguments that are wrong or don't go together end the process with status 2.
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
    add = sources.add_argument
    add("--image", type=Path, nargs="+", metavar="PATH", help="photos")
    add("--folder", type=Path, metavar="DIR", help="all photos in a folder and its subfolders")
    add("--video", type=_value(str, bool, "needs a file or an address"), metavar="FILE|URL", help="a video")
    what = "a camera, live (default: 0, the first)"
    camera = _value(int, lambda index: index >= 0, "takes the number of a camera, 0, 1, … (for a file use --video)")
    add("--webcam", type=camera, nargs="?", const=0, metavar="INDEX", help=what)
    what = f"a page in the browser, on this machine only (default: port {DEFAULT_PORT})"
    port = _value(int, lambda port: 0 <= port <= 65535, "takes a port from 0 (any free one) to 65535")
    add("--web", type=port, nargs="?", const=DEFAULT_PORT, metavar="PORT", help=what)
    add = parser.add_argument_group("results").add_argument
    what = (
        "folder (default: here), or with one source a file name: .png, .jpg, … or .mp4, .avi, …; a video is "
        "written where this is given or no window opens, a camera where this is given"
    )
    add("--output", type=file_or_folder, metavar="PATH", help=what)
    add("--json", action="store_true", help="also write boxes, points and scores as JSON")
    add("--csv", action="store_true", help="also write them as CSV, one row a face and frame")
    add("--no-window", action="store_true", help="open no window (videos and cameras)")
    add = parser.add_argument_group("finding faces").add_argument
    add("--weights", type=Path, metavar="PATH", help="a network (default: the one that ships)")
    what = "retinaface (default), yunet MODEL, or boxes FILE (CSV or JSON)"
    add("--detector", nargs="+", default=["retinaface"], metavar=("NAME", "FILE"), help=what)
    what = "auto, torch, onnxruntime or openvino (default: the fastest that is there)"
    add("--runtime", default="auto", metavar="NAME", help=what)
    add("--threads", type=positive, default=0, metavar="N", help="CPU threads of the network (default: all cores)")
    add("--device", default="auto", help="cpu, cuda, cuda:1 or auto (default: CUDA where there is one)")
    add("--max-faces", type=positive, metavar="N", help="only the N faces that are surest to be faces")
    what = (
        "photos: leave out faces with a score below this, from 0 (keep all) to 1 (default: "
        f"{DEFAULT_MIN_SCORE}; 0 with --detector boxes); in videos and cameras the tracking leaves them out"
    )
    score = _value(float, lambda score: 0 <= score <= 1, "must be a number from 0 to 1")
    add("--min-score", type=score, metavar="S", help=what)
    add = parser.add_argument_group("videos and cameras").add_argument
    add("--no-smoothing", action="store_true", help="points as the network gives them, frame by frame")
    what = f"frames between two searches for new faces (default: {DEFAULT_DETECT_EVERY})"
    add("--detect-every", type=positive, metavar="K", help=what)
    seconds = _value(float, lambda seconds: 0 < seconds < math.inf, "must be a number larger than 0")
    add("--seconds", type=seconds, metavar="S", help="stop after so much of the video, or time")
    size = _value(_size, lambda size: min(size) > 0, "must be WIDTHxHEIGHT, as 1280x720")
    add("--camera-size", type=size, metavar="WxH", help="ask the camera for this size, as 1280x720")
    add("--mirror", action="store_true", help="turn the camera's picture around, as a mirror does")
    return parser


def _does_not_go(source: str, sources: tuple[str, ...]) -> str:
    fitting = " and ".join(f"--{name}" for name in sources if name not in (PORTRAIT, WEB))
    if WEB in sources:
        return f"is for {fitting} and --web; in videos and cameras the tracking leaves doubtful faces out by itself"
    if source == WEB:
        return "does not go with --web: the page has its own downloads" if IMAGE in sources else f"is for {fitting}"
    return f"is for {fitting}"


def _split_detector(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """``--detector NAME [FILE]`` becomes ``detector`` and ``boxes``."""
    name, *files = options.detector
    options.detector, options.boxes = name, None
    needed = {"yunet": "MODEL", "boxes": "FILE"}.get(name)
    if needed and len(files) != 1:
        parser.error(f"--detector {name} needs one file: --detector {name} {needed}")
    if name == "yunet":
        options.detector = f"yunet:{files[0]}"
    elif name == "boxes":
        if options.source not in (IMAGE, FOLDER, VIDEO):
            parser.error("--detector boxes FILE is for --image, --folder and --video: it has boxes of known pictures")
        options.boxes = Path(files[0])
    elif name != "retinaface" and not name.startswith("yunet:"):
        parser.error(f"no face detector {name!r}; there are: retinaface, yunet MODEL, and boxes FILE")
    elif files:
        parser.error(f"--detector {name} takes no file, got {files[0]}")


def _value(convert: Callable[[str], Any], fits: Callable[[Any], bool], what: str) -> Callable[[str], Any]:
    """A type for argparse; ``what`` is said of a text that is none."""

    def read(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"{what}, got {text!r}")
        return value

    return read


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.lower().split("x"))
    return width, height


def run(arguments: Sequence[str] | None = None) -> int:
    """See :func:`pipnet.demo.main`."""
    parser, options = parse(arguments)
    # FFmpeg inside OpenCV reads it once, when it is used first. What goes wrong, pipnet says in its own words.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        if options.source == WEB:
            return _run_web(parser, options)
        if options.source in (VIDEO, WEBCAM):
            return _run_moving(parser, options)
        return _run_photos(parser, options)
    except (ValueError, OSError, MissingExtraError) as error:
        return complain(COMMAND, error)
    except KeyboardInterrupt:  # a second time, or while loading for another program: at once
        note(COMMAND, "interrupted; what was not finished is not kept")
        return 1


def _run_web(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    with needs("web"):
        from pipnet.demo.web import serve
    landmarker = load_landmarker(parser, options)
    started()
    wanted = {"max_faces": options.max_faces, "min_score": options.min_score}
    return serve(landmarker, port=options.web, **wanted, open_browser=sys.stdout.isatty())


def _run_photos(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from pipnet.demo.photos import Photo, PhotoRun, photos_in

    folder, file = _where(parser, options, options.image or [], single=len(options.image or [1]) == 1)
    if options.source == FOLDER:
        photos, skipped = photos_in(options.folder, folder)
        if skipped:
            note(COMMAND, skipped)
    else:
        photos = [Photo(path) for path in options.image or [None]]
    _make_folder(parser, folder)
    boxes = _boxes(parser, options)
    landmarker = load_landmarker(parser, options, boxes)
    started()
    return PhotoRun(photos, landmarker, options, folder=folder, file=file, boxes=boxes).run()


def _run_moving(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from pipnet.demo.window import DisplayProbe

    probe = DisplayProbe(wanted=not options.no_window)
    is_file = options.source == VIDEO and "://" not in options.video
    folder, file = _where(parser, options, [Path(options.video)] if is_file else [], single=True)
    import cv2

    from pipnet.demo.camera import quiet_opencv

    # OpenCV's threads would fight those of the network for the cores: cropping one face took three times as long.
    cv2.setNumThreads(1)
    with quiet_opencv():
        source = _open(options)
        try:
            _make_folder(parser, folder)
            boxes = _boxes(parser, options)
            if boxes is not None:
                boxes.seek(options.video, 0)  # a video that the file does not know is better said now
            landmarker = load_landmarker(parser, options, boxes)
            started()
            return _play(source, landmarker, options, probe, folder, file, boxes)
        finally:
            source.close()
            probe.problem()  # waits for the child


def _open(options: argparse.Namespace) -> FrameSource:
    from pipnet.demo.camera import LIVE_SCHEMES, Camera, CaptureError
    from pipnet.demo.video import VideoFile, open_stream

    if options.source == WEBCAM:
        return Camera(options.webcam, size=options.camera_size, mirror=options.mirror)
    if options.video.split("://")[0].lower() in LIVE_SCHEMES:
        return Camera(options.video, opener=open_stream)
    try:
        video = VideoFile(options.video)
    except CaptureError as error:
        if "://" not in options.video:
            raise
        raise CaptureError(f"{error} (a file: download it first, then give its path)") from error
    if video.count is None and options.video.lower().startswith(("http://", "https://")):
        video.close()  # a camera on the net, which never ends: only its newest frame is of interest
        return Camera(options.video, opener=open_stream)
    return video


def _play(
    source: FrameSource,
    landmarker: FaceLandmarker,
    options: argparse.Namespace,
    probe: DisplayProbe,
    folder: Path,
    file: Path | None,
    boxes: Any,
) -> int:
    from pipnet.demo.live import FrameLoop, summary_lines
    from pipnet.demo.output import Results
    from pipnet.demo.stopwatch import Stopwatch
    from pipnet.inference.tracking import FaceTracker

    called = source.name if options.source == WEBCAM else options.video
    window = _window(called, probe)
    # A video that nobody sees is written, like a photo; a camera, which has no end, only where that is asked for.
    wants_video = options.output is not None or (window is None and not source.live)
    if window is None and source.live and not (wants_video or options.json or options.csv):
        note(COMMAND, "nothing is kept without --output, --json or --csv; Ctrl-C ends")
    watch = Stopwatch()
    tracker = FaceTracker(
        watch.watch(landmarker),
        detect_every=options.detect_every,
        max_faces=options.max_faces,
        smoothing=not options.no_smoothing,
    )
    where = {"folder": folder, "file": file, "video": wants_video}
    took = partial(watch.add_aside, "write")
    results = Results(source, called, options, landmarker.layout, **where, took=took)
    before = (lambda number: None) if boxes is None else partial(boxes.seek, called)
    more = {"folder": folder, "seconds": options.seconds, "before": before}
    loop = FrameLoop(source, tracker, watch, results, window=window, **more)
    try:
        try:
            loop.play()
        except OSError as error:
            raise with_kept(error, results.finish()) from error  # a result that failed is said, with its name, there
        source.close()
        written = results.finish()
    finally:
        results.discard()
        if window is not None:
            window.close()
    for line in summary_lines(called, loop, source, tracker, watch, written):
        print(line)
    if loop.broke_off:
        return complain(COMMAND, f"{loop.stopped}; what came before is kept")
    return complain(COMMAND, f"{loop.stopped}; free some space") if results.nearly_full and loop.stopped else 0


def _window(title: str, probe: DisplayProbe) -> Any:
    """A window, or None; says why where one was wanted."""
    import cv2

    from pipnet.demo.window import Window

    problem = probe.problem()
    if problem is None:
        try:
            return Window(title)
        except cv2.error:
            problem = "OpenCV can't open a window here"
    if problem:
        note(COMMAND, f"{problem}; going on without a window")
    return None


def _where(
    parser: argparse.ArgumentParser, options: argparse.Namespace, inputs: list[Path], *, single: bool
) -> tuple[Path, Path | None]:
    """The folder that results go to and, where ``--output`` names a file, that file."""
    from pipnet.demo.output import CODECS, PICTURE_SUFFIXES

    path: Path | None = options.output
    if path is None or path.is_dir() or not _names_a_file(path, (*PICTURE_SUFFIXES, *CODECS, ".json", ".csv")):
        return path or Path(), None
    suffix = path.suffix.lower()
    moving = options.source in (VIDEO, WEBCAM)
    fitting = tuple(CODECS) if moving else PICTURE_SUFFIXES
    if suffix not in fitting:
        kind = "a video" if moving else "pictures"
        parser.error(f"--output {path}: {kind} can be {', '.join(fitting)}; --json and --csv choose their own names")
    if options.source == FOLDER or not single:
        parser.error(f"--output {path} is one file; for several photos give a folder")
    also = [path.with_suffix(f".{kind}") for kind in ("json", "csv") if getattr(options, kind)]
    kept = {source.resolve() for source in [*inputs, *([options.boxes] if options.boxes else [])]}
    for written in (path, *also):
        if written.resolve() in kept:
            parser.error(f"--output {path} would replace what is read, {written}; choose another name")
    return path.parent, path


def _names_a_file(path: Path, known: tuple[str, ...]) -> bool:
    """Whether a name is one of a file: of those that the demo writes, or a slip that would make a folder ``a.gif``."""
    return path.suffix.lower() in known or (not path.exists() and mimetypes.guess_type(path.name) != (None, None))


def _make_folder(parser: argparse.ArgumentParser, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--output {folder} can't be a folder: {error.strerror}; choose another")


def _boxes(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Any:
    """The detector that reads from a file, or None."""
    if options.boxes is None:
        return None
    from pipnet.inference.file_boxes import FileBoxes

    try:
        return FileBoxes(options.boxes)
    except (ValueError, OSError) as error:
        parser.error(said(error))


def load_landmarker(parser: argparse.ArgumentParser, options: argparse.Namespace, boxes: Any = None) -> FaceLandmarker:
    """The landmarker, warmed up, so that the times printed are those of the pictures."""
    import numpy as np

    from pipnet.inference.detectors import RetinaFace
    from pipnet.inference.landmarker import FaceLandmarker

    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    try:
        detector = boxes or options.detector
        if options.source == WEBCAM and detector == "retinaface":
            # Who sits before a camera is large in it, and an empty HD picture is searched on every frame.
            detector = RetinaFace(max_side=_WEBCAM_SIDE)
        chosen = {name: getattr(options, name) for name in ("device", "runtime", "threads")}
        landmarker = FaceLandmarker.load(options.weights, detector=detector, **chosen)
        if boxes is None:
            landmarker.detector(blank)
    except (ValueError, OSError, ImportError) as error:
        parser.error(said(error))
    # One face and two: a second one in a video should not find its network uncompiled.
    for faces in (1, 2):
        landmarker(blank, boxes=np.array([[16.0, 16.0, 48.0, 48.0]] * faces))
    return landmarker
