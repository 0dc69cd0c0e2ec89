"""Faces found in photos without labels: each photo goes through the face detector once, and the crops are stored."""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
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
    FILE,
    Database,
    FaceStore,
    FoundFace,
    FoundPhoto,
    UnlabelledFaces,
    photo_digest,
)
from pipnet.training.distributed import Processes, in_step
from pipnet.training.state import TrainingError

_NOTED_AT_ONCE = 1000  # photos
_SHARPNESS_SIDE = 64  # px of the longer side of the box: what it takes to see the eyelids
_PATIENCE_S = 120.0  # until a file made on another machine must be seen here
CROP_SCALE = 1.9  # room for the crops of a training: 1.25 to 1.3 box sides, turned, moved and enlarged


@dataclass(frozen=True)
class FaceRules:
    """What a detection must have to be used without a label; defaults chosen in ``experiments/gathering``.

    Up to a score of 0.85 more than half of what RetinaFace reports are hands, backs of heads, animals and two faces in
    one box. Below a size of 32 the spacing of the features is not to be seen. Below a sharpness of 3 a face is out of
    focus or lost in the dark; a soft portrait has 8, a usual face 15 to 30. Tight chips begin at 0.73 inside; below 0.7
    an eye or the mouth is missing.
    """

    min_score: float = 0.85  # of the detector
    min_size: float = 32.0  # longer side of the box, pixels of the photo
    min_sharpness: float = 3.0  # see sharpness(), grey levels
    min_inside: float = 0.7  # share of the box inside the photo

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = 1.0 if name in ("min_score", "min_inside") else math.inf
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise ValueError(f"rules.{name} must be {'in [0, 1]' if most == 1 else 'at least 0'}, got {value!r}")

    @property
    def limits(self) -> dict[str, tuple[str, float]]:
        """Reason not to use a face: the figure that is too low, and the least that will do. The first counts."""
        return {
            "unsure": ("score", self.min_score),
            "small": ("size", self.min_size),
            "cut off": ("inside", self.min_inside),
            "blurred": ("sharpness", self.min_sharpness),
        }


@dataclass(frozen=True)
class Ingested:
    """What :func:`ingest` found.

    Counts are ``photos`` (files met), ``damaged`` (of them), ``duplicates`` (of them, with the bytes of another),
    ``without_face`` (different good photos in which nothing was detected), ``detections`` (in different photos),
    ``kept`` and ``dropped`` (by reason).
    """

    faces: UnlabelledFaces  # that passed the rules
    counts: dict[str, Any]
    damaged: Path  # a line for each photo that can't be used, and why

    def __str__(self) -> str:
        return described(self.counts)


def ingest(
    sources: str | Path | Sequence[str | Path],
    folder: str | Path,
    *,
    processes: Processes,
    detector: str | Detector = "retinaface",
    rules: FaceRules | None = None,
    face_size: int = 224,
    progress: bool = True,
) -> Ingested:
    """Find, cut out and keep the faces of any number of photos.

    Every file is read, and those whose bytes the store does not know yet go through the detector. The store keeps all
    detections and the rules choose among them, so other rules cost no detection. Killed at any moment, the same call
    resumes and ends with the same faces; so do several processes that see the same folder. ``damaged.txt`` lists files
    that are no photos, ``counts.json`` what was asked and found.

    Args:
        sources: Folders and ``.txt`` lists, see :func:`pipnet.data.images.photo_paths`.
        folder: Of the store, see :mod:`pipnet.self_training.face_store`.
        processes: Those that share the work.
        detector: A name that :func:`pipnet.inference.detectors.detector_factory` knows, or a detector, known to the
            store by the name of its class or function.
        rules: Which detections are kept; None takes the defaults of ``FaceRules``.
        face_size: Most that the longer side of a face's box may have in its crop, pixels.
        progress: Show a bar, on the main process.

    Raises:
        FileNotFoundError: A source, or the detector's file, is not there.
        ValueError: The folder holds faces of other settings, or there is no such detector, no photo, or no face that
            passes the rules.
        OSError: The disk is full, or the folder can't be written.
        TrainingError: SIGINT or SIGTERM asked for an end, or another process has ended.
    """
    folder, rules = Path(folder), rules or FaceRules()
    roots = [Path(str(source)) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if not isinstance(face_size, int | float) or face_size < 1:
        raise ValueError(f"face_size must be at least 1 pixel, got {face_size!r}")
    seeing = detector_factory(detector)()  # before the store is bound to a detector that can't be loaded
    settings = {"detector": _detector_name(detector), "face_size": face_size, "crop_scale": CROP_SCALE}
    if not roots:
        raise ValueError("no source of photos; give a folder or a .txt list")
    for root in roots:
        check_source(root)
    one_machine = processes.on_one_machine
    stopped = f"stopped on request; the same command resumes from what {folder} holds"

    def opened() -> FaceStore:
        return FaceStore(folder, settings, one_machine=one_machine)

    def share(token: str) -> Iterator[None]:
        """This process's photos, one at a time."""
        _await(token, folder)
        store, met, damaged = opened(), [], []
        photos = _read_ahead(_share_of_photos(roots, processes), store)
        for photo in tqdm(photos, unit="photo", disable=None if progress and processes.is_main else True):
            if photo.image is not None and not store.knows(photo.digest):  # a copy may have come since it was opened
                store.add(photo.digest, *find_faces(photo, seeing, face_size))
            if photo.damaged:
                damaged.append(f"{photo.path}: {photo.damaged}".replace("\r", "\\r").replace("\n", "\\n"))
            else:
                met.append(photo.digest)
            if len(met) + len(damaged) >= _NOTED_AT_ONCE:
                store.meet(token, met, damaged)
                met, damaged = [], []
            yield
        store.meet(token, met, damaged)

    def finish(token: str) -> tuple[dict[str, Any], str]:
        counts, digest = opened().choose(token, rules.limits, folder / "damaged.txt")
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
        return counts, digest

    with StopRequest(alone=processes.world_size == 1) as stop:
        token = processes.from_main(lambda: opened().begin())
        in_step(share(token), processes, stop, stopped)
        counts, digest = processes.from_main(lambda: finish(token))
        if processes.from_main(lambda: stop.asked):
            raise TrainingError(stopped)
    return Ingested(UnlabelledFaces(folder, digest), counts, folder / "damaged.txt")


def described(counts: dict[str, Any]) -> str:
    """Counts as one line."""
    dropped = ", ".join(f"{number} {reason}" for reason, number in counts["dropped"].items() if number)
    return (
        f"{counts['photos']} photos ({counts['damaged']} damaged, {counts['duplicates']} duplicates, "
        f"{counts['without_face']} without a face), {counts['detections']} detections, {counts['kept']} kept; "
        f"dropped: {dropped or 'none'}"
    )


class OpenedPhoto(NamedTuple):
    """A photo on its way to the detector."""

    path: Path
    name: str  # seen from its source
    digest: str = ""  # of its bytes; empty where they can't be read
    image: np.ndarray | None = None  # RGB uint8, of a photo that the store does not know
    damaged: str = ""  # what is wrong with it


def _share_of_photos(roots: Sequence[Path], processes: Processes) -> Iterator[tuple[Path, str]]:
    """This process's photos, with their names; by name, so that no process needs to know of the others' photos."""
    for root in roots:
        for path in photo_paths(root):
            name = seen_from(root, path)
            if zlib.crc32(os.fsencode(name)) % processes.world_size == processes.rank:
                yield path, name


def _read_ahead(share: Iterator[tuple[Path, str]], store: FaceStore) -> Iterator[OpenedPhoto]:
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
        return OpenedPhoto(path, name, digest, None if store.knows(digest) else decode_image(data, path))
    except BadSampleError as error:
        reason = str(error).removeprefix(f"{path}: ")
    if path.is_dir():
        reason = "a folder that can't be listed, or a folder in a list of photos"
    return OpenedPhoto(path, name, digest, damaged=reason)


def _await(token: str, folder: Path) -> None:
    """Until this process sees the store as the main one has left it: network file systems show it late."""
    database, last = Database(folder / FILE), time.monotonic() + _PATIENCE_S
    while not database.file.is_file() or database.rows("SELECT token FROM ingest") != [(token,)]:
        if time.monotonic() > last:
            raise ValueError(f"{folder} is not the same folder for all processes; give one that they share")
        time.sleep(0.2)


def _detector_name(detector: str | Detector) -> str:
    """What a store calls it: a file by its content, so that it may lie anywhere."""
    if not isinstance(detector, str):
        return getattr(detector, "__qualname__", type(detector).__qualname__)
    name, _, file = detector.partition(":")
    return f"{name}:{photo_digest(Path(file).read_bytes())}" if file else detector


def find_faces(photo: OpenedPhoto, detector: Detector, face_size: int) -> tuple[FoundPhoto, list[np.ndarray]]:
    """What a detector finds in a photo, and the crops of its faces, RGB uint8; ``face_size`` as in :func:`ingest`.

    Raises:
        ValueError: The detector gave something that is no box, or a score that is no number. Its own errors arrive as
            they are, with a note that names the photo.
    """
    assert photo.image is not None
    try:
        found = detector(photo.image)
        # A detector of the user's own may say nothing of angles.
        angles = getattr(found, "angles", np.full(len(found.scores), np.nan))
        found = Detections(found.boxes, found.scores, angles)
    except Exception as error:  # the photo is good, the detector is not: not to be passed over
        error.add_note(f"the detector failed on {photo.path}; choose another detector, or take the photo out")
        raise
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    good = np.isfinite(found.boxes).all(axis=1) & (sides > 0).all(axis=1) & np.isfinite(found.scores)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        what = f"the box {found.boxes[at].tolist()} with score {found.scores[at]}"
        raise ValueError(
            f"{photo.path}: the detector gave {what}, which has no extent or is no number; correct the detector"
        )
    height, width = photo.image.shape[:2]
    faces, crops = [], []
    for box, score, angle in zip(found.boxes, found.scores, found.angles, strict=True):
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
    return FoundPhoto(photo.name, (width, height), faces), crops


def cut_face(image: np.ndarray, box: np.ndarray, face_size: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """Cut a square around a face: 1.9 times the longer side of the box, clipped at the photo's border.

    Whole pixels are cut, and averaged down to a longer side of the box of ``face_size``; nothing is enlarged. Returns
    the crop and the box in pixels of the crop.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    longer = max(x1 - x0, y1 - y0)
    half = CROP_SCALE * longer / 2
    left, right = _span((x0 + x1) / 2, half, width)
    top, bottom = _span((y0 + y1) / 2, half, height)
    crop = image[top:bottom, left:right]
    factor = face_size / longer
    if factor < 1:
        size = (max(round(crop.shape[1] * factor), 1), max(round(crop.shape[0] * factor), 1))
        crop = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    # Rounded sizes make the two factors differ a little; pixel centres lie half a pixel inside the edges.
    across, down = crop.shape[1] / (right - left), crop.shape[0] / (bottom - top)
    corners = ((x0, left, across), (y0, top, down), (x1, left, across), (y1, top, down))
    return crop, tuple((side - first + 0.5) * scale - 0.5 for side, first, scale in corners)


def _span(centre: float, half: float, length: int) -> tuple[int, int]:
    """First and behind the last pixel under an interval, at least one, inside the photo."""
    first = min(max(math.floor(centre - half + 0.5), 0), length - 1)
    return first, max(min(math.ceil(centre + half + 0.5), length), first + 1)


def sharpness(image: np.ndarray, box: np.ndarray) -> float:
    """How much fine detail a face has: the standard deviation of the Laplacian, in grey levels.

    Taken inside the box after the face is brought to 64 pixels, so that a face in a crowd compares with a portrait, and
    an enlarged face has no detail. Contrast counts as well: a face in the dark has little. 0 for a box outside the
    image.

    Reference:
        The variance of the Laplacian as a measure of focus: Pech-Pacheco et al., "Diatom autofocusing in brightfield
        microscopy", ICPR 2000.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box)
    left, top = max(math.floor(x0 + 0.5), 0), max(math.floor(y0 + 0.5), 0)
    right, bottom = min(math.ceil(x1 + 0.5), width), min(math.ceil(y1 + 0.5), height)
    if right <= left or bottom <= top:
        return 0.0
    factor = _SHARPNESS_SIDE / max(x1 - x0, y1 - y0)
    size = tuple(min(max(round(side * factor), 1), _SHARPNESS_SIDE) for side in (right - left, bottom - top))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    face = cv2.resize(image[top:bottom, left:right], size, interpolation=way)  # before grey: the region may be large
    return float(cv2.Laplacian(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std())


def share_inside(box: np.ndarray, width: int, height: int) -> float:
    """Share of a box's area inside a photo of that size."""
    across, down = np.minimum(box[2:], [width - 0.5, height - 0.5]) - np.maximum(box[:2], -0.5)
    area = float(np.prod(box[2:] - box[:2]))
    return min(max(float(across), 0.0) * max(float(down), 0.0) / area, 1.0)
