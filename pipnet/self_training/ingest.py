"""From photos to faces on disk: every photo goes through the face detector once, whoever asks and however often.

Photos on their way to the face detector: this process's share, opened ahead; known and damaged ones told apart.

One photo through the face detector: each detection measured and cut out.
"""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from os import fsencode
from os.path import isdir
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipnet.console import StopRequest
from pipnet.data.images import (
    IMAGE_SUFFIXES,
    BadSampleError,
    check_source,
    decode_image,
    photo_paths,
    read_bytes,
    seen_from,
)
from pipnet.files import replacing
from pipnet.inference.detections import Detections, Detector
from pipnet.inference.detectors import detector_factory
from pipnet.self_training.face_store import (
    CROP_SCALE,
    FaceRules,
    FaceStore,
    FoundFace,
    Notes,
    PhotoRecord,
    UnlabelledFaces,
    assemble,
    cut_face,
    given_up,
    is_complete,
    new_walk,
    photo_digest,
    share_inside,
    sharpness,
)
from pipnet.training.distributed import Processes
from pipnet.training.state import TrainingError


@dataclass(frozen=True)
class OpenedPhoto:
    """A photo on its way to the detector.

    Attributes:
        path: The file.
        name: What it is called, seen from its source.
        digest: Of its bytes; empty where they can't be read.
        record: What the store knows of it, or what is wrong with it; None for a photo that is new.
        image: Of a photo that is new, RGB.
    """

    path: Path
    name: str
    digest: str = ""
    record: PhotoRecord | None = None
    image: np.ndarray | None = None


def share_of_photos(roots: Sequence[Path], rank: int, world_size: int) -> Iterator[tuple[Path, str]]:
    """This process's photos, with their names; by name, so that no process needs to know of the others' photos."""
    for root in roots:
        for path in photo_paths(root):
            name = seen_from(root, path)
            if zlib.crc32(fsencode(name)) % world_size == rank:
                yield path, name


def read_ahead(share: Iterator[tuple[Path, str]], store: FaceStore) -> Iterator[OpenedPhoto]:
    """Photos in order; while one is searched for faces, the next one is read on a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="photos") as thread:
        following: Future[OpenedPhoto] | None = None
        for path, name in share:
            current, following = following, thread.submit(_open, path, name, store)
            if current is not None:
                yield current.result()
        if following is not None:
            yield following.result()


def _open(path: Path, name: str, store: FaceStore) -> OpenedPhoto:
    digest = ""
    try:
        data = read_bytes(path)
        digest = photo_digest(data)
        record = store.read(digest)
        if record is not None and not record.damaged:  # a damaged one is tried again: memory may have been short
            return OpenedPhoto(path, name, digest, record)
        return OpenedPhoto(path, name, digest, image=decode_image(data, path))
    except BadSampleError as error:
        reason = str(error).removeprefix(f"{path}: ")
    if isdir(path):
        reason = "a folder that can't be listed, or a folder in a list of photos"
    return OpenedPhoto(path, name, digest, PhotoRecord(name, (0, 0), damaged=reason))


_LOOK_S = 0.2  # between looks at whether the other processes are done
_PATIENCE_S = 120.0  # until a folder made on another machine must be seen here


@dataclass(frozen=True)
class Gathered:
    """What :func:`gather` found.

    Attributes:
        faces: Those that passed the rules.
        counts: ``photos`` (files met), ``damaged`` (of them), ``duplicates`` (of them, with the bytes of another),
            ``without_face`` (different good photos in which nothing was detected), ``detections`` (in different
            photos), ``kept`` and ``dropped`` (by reason).
        damaged: The file with one line for each photo that can't be used, and why.
    """

    faces: UnlabelledFaces
    counts: dict[str, Any]
    damaged: Path

    def __str__(self) -> str:
        return described(self.counts)


def gather(
    sources: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    team: Processes,
    detector: str | Detector = "retinaface",
    rules: FaceRules | None = None,
    face_size: int = 224,
    progress: bool = True,
) -> Gathered:
    """Find, cut out and keep the faces of any number of photos.

    Every file is read, and those whose bytes the store does not know yet go through the detector. The store keeps all
    detections; the rules choose among them afterwards, so other rules cost no detection. Killed at any moment, the same
    call goes on where it was and ends with the same ``faces.npy``; so do several processes, which share the photos out
    by their names and may run on several machines, as long as they see the same folder.

    A file that is no photo, or a damaged one, is listed in ``damaged.txt`` and counted. ``counts.json`` says what was
    asked and what became of it.

    Args:
        sources: Folders and ``.txt`` lists, see :func:`pipnet.data.images.photo_paths`.
        folder: Of the store, see :mod:`pipnet.self_training.face_store`.
        team: The processes that share the work.
        detector: A name that :func:`pipnet.inference.detectors.detector_factory` knows, or a detector, known to the
            store by the name of its class or function.
        rules: Which detections are kept; None takes the defaults of ``FaceRules``.
        face_size: Most that the longer side of a face's box may have in its crop, pixels.
        progress: Show a bar, on the main process.

    Raises:
        FileNotFoundError: A source, or the detector's file, is not there.
        ValueError: The folder holds faces of other settings or lies in a source, there is no such detector, there is
            no photo, or no face passed the rules.
        OSError: The disk is full, or the folder can't be written.
        TrainingError: SIGINT or SIGTERM asked for an end, or another process has ended.
    """
    folder, rules = Path(folder), rules or FaceRules()
    roots = [Path(str(source)) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if not isinstance(face_size, int | float) or face_size < 1:
        raise ValueError(f"face_size must be at least 1 pixel, got {face_size!r}")
    seeing = detector_factory(detector)()  # before the store is bound to a detector that can't be loaded
    settings = {
        "detector": _detector_name(detector),
        "face_size": face_size,
        "crop_scale": CROP_SCALE,
    }
    _check_apart(roots, folder)
    for root in roots:
        check_source(root)

    def begin() -> Path:
        FaceStore(folder, settings)
        return new_walk(folder)

    def look(walk: Path, notes: Notes, check: Callable[[], None]) -> None:
        """See this process's photos, and wait for the other processes."""
        _await(walk.is_dir, f"{folder} is not the same folder for all processes; give one that they share")
        store = FaceStore(folder, settings)
        photos = read_ahead(share_of_photos(roots, team.rank, team.world_size), store)
        for photo in tqdm(photos, unit="photo", disable=None if progress and team.is_main else True):
            _take(photo, store, notes, seeing, face_size)
            check()
        notes.finish()
        # Polled and not waited for in a barrier, which could not hear Ctrl-C while shares differ by hours.
        while not is_complete(walk, team.world_size):
            check()
            time.sleep(_LOOK_S)

    def finish(walk: Path) -> dict[str, Any]:
        try:
            counts = assemble(walk, folder, team.world_size)
        finally:
            shutil.rmtree(walk, ignore_errors=True)
        request = {"sources": [str(root) for root in roots], "rules": asdict(rules), **settings}
        with replacing(folder / "counts.json") as temporary:
            temporary.write_text(json.dumps({"request": request, "counts": counts}, indent=2) + "\n", encoding="utf-8")
        if not counts["photos"]:
            names = ", ".join(map(str, roots))
            raise ValueError(f"{names}: no photo there; looked for {', '.join(IMAGE_SUFFIXES)}")
        if not counts["kept"]:
            raise ValueError(
                f"no face passed the rules: {described(counts)}; give other photos (damaged ones are listed in "
                f"{folder / 'damaged.txt'}) or loosen the rules"
            )
        return counts

    with StopRequest(alone=team.world_size == 1) as stop:
        walk = folder / team.from_main(lambda: begin().name)
        notes = Notes(walk, team.rank, rules)

        def check() -> None:
            if reason := given_up(walk):
                raise TrainingError(f"another process has ended: {reason}")
            _end_if(stop.asked, folder)

        try:
            look(walk, notes, check)
        except BaseException as error:  # the other processes would wait for this one for ever
            notes.give_up(str(error) or type(error).__name__)
            raise
        counts = team.from_main(lambda: finish(walk))
        _end_if(team.from_main(lambda: stop.asked), folder)
    return Gathered(UnlabelledFaces(folder), counts, folder / "damaged.txt")


def described(counts: dict[str, Any]) -> str:
    """Counts as one line.

    Example:
        >>> counts = {"photos": 9, "damaged": 1, "duplicates": 2, "without_face": 1, "detections": 7, "kept": 5}
        >>> described({**counts, "dropped": {"small": 2, "blurred": 0}})
        '9 photos (1 damaged, 2 duplicates, 1 without a face), 7 detections, 5 kept; dropped: 2 small'
    """
    dropped = ", ".join(f"{number} {reason}" for reason, number in counts["dropped"].items() if number)
    return (
        f"{counts['photos']} photos ({counts['damaged']} damaged, {counts['duplicates']} duplicates, "
        f"{counts['without_face']} without a face), {counts['detections']} detections, {counts['kept']} kept; "
        f"dropped: {dropped or 'none'}"
    )


def _take(photo: OpenedPhoto, store: FaceStore, notes: Notes, detector: Detector, face_size: int) -> None:
    record = photo.record or store.read(photo.digest)  # a copy of it may have come since it was opened
    if record is None or (record.damaged and photo.image is not None):
        record, crops = find_faces(photo, detector, face_size)
        store.write(photo.digest, record, crops)
    elif record.damaged and photo.digest and store.read(photo.digest) is None:
        store.write(photo.digest, record, [])
    if record.damaged:
        notes.damaged(photo.path, record.damaged)
    else:
        notes.photo(photo.digest, record)


def _check_apart(roots: Sequence[Path], folder: Path) -> None:
    """The crops of the store would be photos of the next run."""
    for root in roots:
        if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{folder} lies in {root}, whose photos are gathered; choose a folder elsewhere")
    if not roots:
        raise ValueError("no source of photos; give a folder or a .txt list")


def _detector_name(detector: str | Detector) -> str:
    """What a store calls it: a file by its content, so that it may lie anywhere."""
    if not isinstance(detector, str):
        return getattr(detector, "__qualname__", type(detector).__qualname__)
    name, _, file = detector.partition(":")
    return f"{name}:{photo_digest(Path(file).read_bytes())}" if file else detector


def _end_if(asked: bool, folder: Path) -> None:
    if asked:
        raise TrainingError(f"stopped on request; the same command goes on from what {folder} holds")


def _await(condition: Callable[[], bool], otherwise: str) -> None:
    """Network file systems show a new folder late."""
    last = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > last:
            raise ValueError(otherwise)
        time.sleep(_LOOK_S)


def find_faces(photo: OpenedPhoto, detector: Detector, face_size: int) -> tuple[PhotoRecord, list[np.ndarray]]:
    """What the store keeps of a photo.

    Args:
        photo: With its image.
        detector: Any.
        face_size: Most that the longer side of a face's box may have in its crop, pixels.

    Returns:
        The record, and the crops of its faces, RGB uint8.

    Raises:
        ValueError: The detector gave something that is no box, or a score that is no number. Its own errors arrive as
            they are, with a note that names the photo.
    """
    assert photo.image is not None
    try:
        found = detector(photo.image)
    except Exception as error:  # the photo is good, the detector is not: not to be passed over
        error.add_note(f"the detector failed on {photo.path}; choose another detector, or take the photo out")
        raise
    _check(found, photo.path)
    height, width = photo.image.shape[:2]
    faces, crops = [], []
    angles = getattr(found, "angles", np.full(len(found.scores), np.nan))  # a detector of the user's own may lack them
    for box, score, angle in zip(found.boxes.astype(np.float64), found.scores, angles, strict=True):
        crop, crop_box = cut_face(photo.image, box, face_size)
        faces.append(
            FoundFace(
                box=tuple(box.tolist()),
                score=float(score),
                size=float((box[2:] - box[:2]).max()),
                sharpness=sharpness(photo.image, box),
                inside=share_inside(box, width, height),
                crop_box=crop_box,
                angle=float(angle) if np.isfinite(angle) else None,
            )
        )
        crops.append(crop)
    return PhotoRecord(photo.name, (width, height), faces), crops


def _check(found: Detections, path: Path) -> None:
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    good = np.isfinite(found.boxes).all(axis=1) & (sides > 0).all(axis=1) & np.isfinite(found.scores)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        what = f"the box {found.boxes[at].tolist()} with score {found.scores[at]}"
        raise ValueError(f"{path}: the detector gave {what}, which has no extent or is no number; correct the detector")
