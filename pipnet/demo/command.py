"""What ``python -m pipnet.demo`` does, from its arguments to its exit status."""

from __future__ import annotations

import argparse
import mimetypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipnet.console import MissingExtraError, complain, needs, note, said, started, with_kept
from pipnet.demo import options as given
from pipnet.demo.window import DisplayProbe

if TYPE_CHECKING:
    from pipnet.demo.camera import FrameSource
    from pipnet.demo.live import FrameLoop
    from pipnet.inference.landmarker import FaceLandmarker


COMMAND = "demo"

_WEBCAM_SIDE = 640  # pixels that a camera's picture is reduced to for finding faces; experiments/detectors


def run(arguments: Sequence[str] | None = None) -> int:
    """See :func:`pipnet.demo.main`."""
    parser, options = given.parse(arguments)
    # FFmpeg inside OpenCV reads it once, when it is used first. What goes wrong, pipnet says in its own words.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        if options.source == given.WEB:
            return _run_web(parser, options)
        if options.source in (given.VIDEO, given.WEBCAM):
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
    landmarker = _load(parser, options)
    started()
    return serve(
        landmarker,
        port=options.web,
        max_faces=options.max_faces,
        min_score=options.min_score,
        open_browser=sys.stdout.isatty(),
    )


def _run_photos(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    from pipnet.demo.photos import Photo, photos_in

    folder, file = _where(parser, options, [*(options.image or [])], single=len(options.image or [1]) == 1)
    if options.source == given.FOLDER:
        photos, skipped = photos_in(options.folder, folder)
        if skipped:
            note(COMMAND, skipped)
    else:
        photos = [Photo(path) for path in options.image or [None]]
    _make_folder(parser, folder)
    boxes = _boxes(parser, options)
    landmarker = _load(parser, options, boxes)
    from pipnet.demo.photos import PhotoRun

    started()
    return PhotoRun(photos, landmarker, options, folder=folder, file=file, boxes=boxes).run()


def _run_moving(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    probe = DisplayProbe(wanted=not options.no_window)
    is_file = options.source == given.VIDEO and "://" not in options.video
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
            landmarker = _load(parser, options, boxes)
            started()
            return _play(source, landmarker, options, probe, folder, file, boxes)
        finally:
            source.close()
            probe.problem()  # waits for the child


def _open(options: argparse.Namespace) -> FrameSource:
    from pipnet.demo.camera import LIVE_SCHEMES, Camera, CaptureError
    from pipnet.demo.video import VideoFile

    if options.source == given.WEBCAM:
        return Camera(options.webcam, size=options.camera_size, mirror=options.mirror)
    if options.video.split("://")[0].lower() in LIVE_SCHEMES:
        return Camera(options.video)
    try:
        video = VideoFile(options.video)
    except CaptureError as error:
        if "://" not in options.video:
            raise
        raise CaptureError(f"{error} (a file: download it first, then give its path)") from error
    if video.count is None and options.video.lower().startswith(("http://", "https://")):
        video.close()  # a camera on the net, which never ends: only its newest frame is of interest
        return Camera(options.video)
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
    from pipnet.demo.live import FrameLoop, Results, summary_lines
    from pipnet.demo.stopwatch import Stopwatch
    from pipnet.inference.tracking import FaceTracker

    called = source.name if options.source == given.WEBCAM else options.video
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
    results = Results(
        source,
        called,
        options,
        landmarker.layout,
        folder=folder,
        file=file,
        video=wants_video,
        took=lambda seconds: watch.add_aside("write", seconds),
    )
    loop = FrameLoop(
        source,
        tracker,
        watch,
        results,
        window=window,
        folder=folder,
        seconds=options.seconds,
        before=lambda number: boxes and boxes.seek(called, number),
    )
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
    return _status(loop, results)


def _status(loop: FrameLoop, results: Any) -> int:
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
    from pipnet.demo.output import PICTURE_SUFFIXES
    from pipnet.demo.recording import CODECS

    path: Path | None = options.output
    if path is None or path.is_dir() or not _names_a_file(path, (*PICTURE_SUFFIXES, *CODECS, ".json", ".csv")):
        return path or Path(), None
    suffix = path.suffix.lower()
    moving = options.source in (given.VIDEO, given.WEBCAM)
    fitting = tuple(CODECS) if moving else PICTURE_SUFFIXES
    if suffix not in fitting:
        kind = "a video" if moving else "pictures"
        parser.error(f"--output {path}: {kind} can be {', '.join(fitting)}; --json and --csv choose their own names")
    if options.source == given.FOLDER or not single:
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
        return FileBoxes(options.boxes).detector()
    except (ValueError, OSError) as error:
        parser.error(said(error))


def _load(parser: argparse.ArgumentParser, options: argparse.Namespace, boxes: Any = None) -> FaceLandmarker:
    """The landmarker, warmed up, so that the times printed are those of the pictures."""
    import numpy as np

    from pipnet.inference.detectors import RetinaFace
    from pipnet.inference.landmarker import FaceLandmarker

    blank = np.zeros((64, 64, 3), dtype=np.uint8)
    try:
        detector = boxes or options.detector
        if options.source == given.WEBCAM and detector == "retinaface":
            # Who sits before a camera is large in it, and an empty HD picture is searched on every frame.
            detector = RetinaFace(max_side=_WEBCAM_SIDE)
        landmarker = FaceLandmarker.load(
            options.weights,
            device=options.device,
            detector=detector,
            runtime=options.runtime,
            threads=options.threads,
        )
        if boxes is None:
            landmarker.detector(blank)
    except (ValueError, OSError, ImportError) as error:
        parser.error(said(error))
    # One face and two: a second one in a video should not find its network uncompiled.
    for faces in (1, 2):
        landmarker(blank, boxes=np.array([[16.0, 16.0, 48.0, 48.0]] * faces))
    return landmarker
