"""A content-addressed store of faces: what a detector found in each photo, and the faces cut out of it.

    store.json                  how faces are found and cut; another way is another store
    photos/ab/<digest>.json     one photo: its size and every detection, or what is wrong with the file
    crops/ab/<digest>-<n>.jpg   detection n of that photo, cut out with its surroundings
    faces.npy                   the faces that passed the rules, in order

A photo is known by the digest of its bytes, as in git: the same photo under three names is one, and is looked at once.
Files are final or absent, and the photo's JSON comes after its crops: where it is, they are. All that a kill can leave
behind is a hidden temporary file.

A face cut out of its photo with its surroundings, as the store keeps it.

From the notes of many processes to one sorted file of faces, in memory that does not grow with their number.

While photos are looked at, every process notes each photo and each detection in a file of its own for each first byte
of the photo's digest. Afterwards one process takes these 256 parts one by one: each is small, and sorted parts in a row
are a sorted whole. A photo that was met under several names, by whichever processes, appears once.

Which detections are worth training on: rules with a number each, and what the numbers mean.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipnet.data.images import write_image
from pipnet.files import replacing

FACE = np.dtype(
    # box in pixels of the crop's file; angle in degrees, NaN where the detector does not say
    [("digest", "u1", 16), ("number", "<u4"), ("box", "<f4", 4), ("angle", "<f4"), ("score", "<f4")]
)
_FORMAT = 2
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class FoundFace:
    """One detection in one photo.

    Attributes:
        box: Tight box of the face ``x0, y0, x1, y1``, source pixels; may reach over the border.
        score: Of the detector, in [0, 1].
        size: Longer side of the box, source pixels.
        sharpness: See :func:`pipnet.self_training.face_store.sharpness`.
        inside: Share of the box that lies inside the photo.
        crop_box: The box in pixels of the crop's file.
        angle: Degrees, how far the face is tilted clockwise, and its box turned about its own centre; None where the
            detector does not say.
    """

    box: tuple[float, ...]
    score: float
    size: float
    sharpness: float
    inside: float
    crop_box: tuple[float, ...]
    angle: float | None = None


@dataclass(frozen=True)
class PhotoRecord:
    """What is known of one photo.

    Attributes:
        source: What the photo was called where it was met first.
        size: Width and height in pixels, upright; ``(0, 0)`` for a damaged file.
        faces: Detections, best first.
        damaged: What is wrong with the file; empty for a good one.
    """

    source: str
    size: tuple[int, int]
    faces: list[FoundFace] = field(default_factory=list)
    damaged: str = ""


class FaceStore:
    """The folder with photos and crops.

    Args:
        folder: Made if it is not there.
        settings: How faces are found and cut: what must be equal for two photos to share a store. Plain values.

    Raises:
        ValueError: The folder holds a store of other settings, or something else.
        OSError: It can't be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = FaceStore(folder, {"detector": "retinaface"})
        ...     store.read("00" * 16) is None
        True
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        wanted = {"format": _FORMAT, **settings}
        file = self.folder / "store.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ValueError(f"{self.folder} is a file; the faces need a folder of their own") from None
        except OSError as error:
            raise OSError(
                error.errno, f"{self.folder} can't be made: {error.strerror}; choose another folder"
            ) from error
        try:
            there = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            # What lies there would be taken for the store's own, and some of that is deleted.
            if any(not entry.name.startswith(".") for entry in self.folder.iterdir()):
                raise ValueError(f"{self.folder} holds other files; the faces need a folder of their own") from None
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
        except ValueError:
            raise ValueError(f"{file} is damaged, or not of a store of faces; use another folder") from None
        else:
            if there != wanted:
                raise ValueError(
                    f"{self.folder} holds faces gathered with {_difference(there, wanted)}; use another folder"
                )

    def read(self, digest: str) -> PhotoRecord | None:
        """What is known of a photo, or None.

        Args:
            digest: Of its bytes, from :func:`photo_digest`.

        Raises:
            OSError: The store can't be read.
        """
        try:
            plain = json.loads(self._photo(digest).read_text(encoding="utf-8"))
            faces = [
                FoundFace(**{**face, "box": tuple(face["box"]), "crop_box": tuple(face["crop_box"])})
                for face in plain.pop("faces")
            ]
            return PhotoRecord(**{**plain, "size": tuple(plain["size"]), "faces": faces})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError):
            return None  # not written here: a disk that failed, or a hand; it is made again

    def write(self, digest: str, record: PhotoRecord, crops: Sequence[np.ndarray]) -> None:
        """Keep a photo: its crops first (RGB uint8), then what is known of it.

        Raises:
            OSError: A file can't be written; the message names it.
        """
        for number, crop in enumerate(crops):
            path = crop_path(self.folder, digest, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, crop)
        path = self._photo(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(record)) + "\n", encoding="utf-8")

    def _photo(self, digest: str) -> Path:
        return self.folder / "photos" / digest[:2] / f"{digest}.json"


class UnlabelledFaces:
    """The faces of a store that passed the rules, in an order that is the same on every machine.

    Memory-mapped: ten million faces take no more memory than five hundred.

    Args:
        folder: What :func:`pipnet.self_training.ingest.gather` filled.

    Attributes:
        boxes: ``(F, 4)`` float32, the detector's boxes, calibrated to the tight box of the points, in pixels of the
            crop's file (see :meth:`path`); may reach over its border. Turned by ``angles`` about their centres.
        angles: ``(F,)`` float32, degrees clockwise; NaN where the detector does not say.
        scores: ``(F,)`` float32 of the detector.

    Raises:
        FileNotFoundError: Nothing was gathered there.
        ValueError: ``faces.npy`` is not what ``gather`` writes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / "faces.npy"
        try:
            self._faces = np.load(file, mmap_mode="r")
        except FileNotFoundError:
            raise FileNotFoundError(f"{file} is not there; gather the faces first") from None
        except (ValueError, EOFError) as error:
            raise ValueError(f"{file} is damaged ({error}); delete it and gather again") from None
        if self._faces.dtype != FACE or self._faces.ndim != 1:
            raise ValueError(f"{file} holds no faces; delete it and gather again")
        self.boxes: np.ndarray = self._faces["box"]
        self.angles: np.ndarray = self._faces["angle"]
        self.scores: np.ndarray = self._faces["score"]

    def __len__(self) -> int:
        return len(self._faces)

    def __reduce__(self) -> tuple[type[UnlabelledFaces], tuple[Path]]:
        return UnlabelledFaces, (self.folder,)  # a pickled memory map would be a copy of the whole file

    def name(self, index: int) -> str:
        """What a face is called: ``<digest of the photo>-<number of the detection>``; unique and stable."""
        face = self._faces[index]
        return f"{face['digest'].tobytes().hex()}-{face['number']}"

    def path(self, index: int) -> Path:
        """The JPEG that holds the face with its surroundings."""
        face = self._faces[index]
        return crop_path(self.folder, face["digest"].tobytes().hex(), int(face["number"]))

    def in_photo(self, index: int, points: np.ndarray) -> tuple[str, np.ndarray]:
        """Where points of a face lie in its photo; reads a small file.

        Args:
            index: Of the face.
            points: ``(..., 2)``, pixels of the crop's file.

        Returns:
            What the photo was called where it was met first, and the points in pixels of the upright photo.

        Raises:
            ValueError: What the store knows of the photo is missing or damaged.
        """
        digest, number = self._faces[index]["digest"].tobytes().hex(), int(self._faces[index]["number"])
        file = self.folder / "photos" / digest[:2] / f"{digest}.json"
        try:
            photo = json.loads(file.read_text(encoding="utf-8"))
            source, face = str(photo["source"]), photo["faces"][number]
            box, crop_box = (np.array(face[name], dtype=float).reshape(2, 2) for name in ("box", "crop_box"))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f"{file} is missing or damaged ({error}); delete {self.folder / 'faces.npy'}, and the same command"
                " looks at the photos again"
            ) from error
        scale = (box[1] - box[0]) / (crop_box[1] - crop_box[0])
        return source, box[0] + (points - crop_box[0]) * scale


def crop_path(folder: Path, digest: str, number: int) -> Path:
    """Where the crop of a detection lies."""
    return folder / "crops" / digest[:2] / f"{digest}-{number}.jpg"


def photo_digest(data: bytes) -> str:
    """BLAKE2b of a file's bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _difference(there: Any, wanted: dict[str, Any]) -> str:
    """``face_size=112, now 224`` of all settings that differ."""
    there = there if isinstance(there, dict) else {}
    names = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
    return ", ".join(f"{name}={there.get(name)}, now {wanted.get(name)}" for name in names)


# Room for every crop a training takes: 1.25 to 1.3 box sides, turned, moved and enlarged by augmentation.
CROP_SCALE = 1.9


def cut_face(image: np.ndarray, box: np.ndarray, face_size: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """Cut a square around a face: 1.9 times the longer side of the box, clipped at the photo's border.

    Whole pixels are cut and averaged down where the face is larger than ``face_size``; a small face is never enlarged.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        box: ``x0, y0, x1, y1``, source pixels.
        face_size: Most that the longer side of the box may have in the crop, pixels.

    Returns:
        The crop, RGB uint8, and the box in its pixels.

    Example:
        >>> crop, box = cut_face(np.zeros((100, 100, 3), np.uint8), np.array([39.5, 39.5, 59.5, 59.5]), face_size=10)
        >>> crop.shape, box
        ((19, 19, 3), (4.0, 4.0, 14.0, 14.0))
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


_ROW = np.dtype([*FACE.descr, ("verdict", "u1")])
_PHOTO = 255  # the verdict of a row that stands for a photo itself
_PHOTO_NUMBER = 2**32 - 1
_PARTS = 256
_ROWS_IN_MEMORY = 20_000
_GIVEN_UP = "given_up"


class Notes:
    """What one process notes while it looks at photos; in the end it says that they are complete.

    Args:
        folder: Of this walk, from :func:`new_walk`.
        rank: This process.
        rules: Decide which detections are kept.

    Raises:
        ValueError: From every method: another gathering has taken the folder for itself.
        OSError: From every method: a file can't be written; the message names it.
    """

    def __init__(self, folder: Path, rank: int, rules: FaceRules) -> None:
        self.folder, self.rank, self.rules = folder, rank, rules
        self._rows: list[list[bytes]] = [[] for _ in range(_PARTS)]
        self._held = self._noted = self._damaged = 0

    def photo(self, digest: str, record: PhotoRecord) -> None:
        """Note a good photo and its detections."""
        key = np.frombuffer(bytes.fromhex(digest), np.uint8)
        rows = np.zeros(1 + len(record.faces), _ROW)
        rows["digest"] = key
        rows[0]["number"], rows[0]["verdict"] = _PHOTO_NUMBER, _PHOTO
        for number, face in enumerate(record.faces):
            verdict = self.rules.verdict(score=face.score, size=face.size, inside=face.inside, sharpness=face.sharpness)
            code = 1 + REASONS.index(verdict) if verdict else 0
            rows[1 + number] = (
                key,
                number,
                face.crop_box,
                np.nan if face.angle is None else face.angle,
                face.score,
                code,
            )
        self._rows[key[0]].append(rows.tobytes())
        self._held += len(rows)
        if self._held > _ROWS_IN_MEMORY:
            self._flush()

    def damaged(self, path: Path, reason: str) -> None:
        """Note a file that can't be used."""
        line = f"{path}: {reason}".replace("\r", "\\r").replace("\n", "\\n")
        self._append(f"{self.rank}.damaged", line.encode("utf-8", "surrogateescape") + b"\n")
        self._damaged += 1

    def finish(self) -> None:
        """Say that this process has seen all its photos."""
        self._flush()
        self._say(f"{self.rank}.done", json.dumps({"rows": self._noted, "damaged": self._damaged}))

    def give_up(self, reason: str) -> None:
        """Say to the other processes that this one ends without having seen all its photos."""
        with suppress(OSError, ValueError):  # the reason is on its way up already
            if not given_up(self.folder):  # the first one is the cause of the others
                self._say(_GIVEN_UP, reason)

    def _say(self, name: str, text: str) -> None:
        if not self.folder.is_dir():
            raise ValueError(_taken(self.folder.parent))
        with replacing(self.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")

    def _flush(self) -> None:
        for part, rows in enumerate(self._rows):
            if rows:
                self._append(f"{self.rank}-{part:02x}.rows", b"".join(rows))
                rows.clear()
        self._noted += self._held
        self._held = 0

    def _append(self, name: str, data: bytes) -> None:
        file = self.folder / name
        try:
            with file.open("ab") as notes:
                notes.write(data)
        except FileNotFoundError:
            raise ValueError(_taken(self.folder.parent)) from None
        except OSError as error:
            raise OSError(
                error.errno, f"{file} can't be written: {error.strerror}; free disk space or choose another folder"
            ) from error


def new_walk(folder: Path) -> Path:
    """A fresh folder for the notes of all processes; those of walks that were killed go."""
    for old in folder.glob("walk-*"):
        shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix="walk-", dir=folder))


def is_complete(walk: Path, world_size: int) -> bool:
    """Whether all processes have finished, or the walk is already put together and gone."""
    return not walk.is_dir() or all((walk / f"{rank}.done").is_file() for rank in range(world_size))


def given_up(walk: Path) -> str:
    """Why another process has ended early; empty if none has."""
    try:
        return (walk / _GIVEN_UP).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def assemble(walk: Path, folder: Path, world_size: int) -> dict[str, Any]:
    """Put together what the processes noted: ``damaged.txt`` and ``faces.npy``.

    Returns:
        The counts, see :class:`pipnet.self_training.ingest.Gathered`.

    Raises:
        OSError: A file can't be written.
        ValueError: Notes are missing: another process took the folder for itself.
    """
    try:
        done = [json.loads((walk / f"{rank}.done").read_text(encoding="utf-8")) for rank in range(world_size)]
    except FileNotFoundError:
        done = None
    counts: Counter[str] = Counter()
    for rows in _parts(walk, world_size):
        counts.update(_count(rows))
    if done is None or counts.pop("rows", 0) != sum(notes["rows"] for notes in done):
        raise ValueError(_taken(folder))
    damaged = sum(notes["damaged"] for notes in done)
    with replacing(folder / "damaged.txt") as temporary, temporary.open("wb") as lines:
        for rank in range(world_size):
            file = walk / f"{rank}.damaged"
            if file.is_file():
                with file.open("rb") as noted:
                    shutil.copyfileobj(noted, lines)
    faces = folder / "faces.npy"
    if counts["kept"]:
        with replacing(faces) as temporary, temporary.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(FACE), "fortran_order": False, "shape": (counts["kept"],)}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in _parts(walk, world_size):
                once = _once(rows)
                kept = once[once["verdict"] == 0]
                part = np.empty(len(kept), FACE)
                for name in FACE.fields:  # type: ignore[union-attr]
                    part[name] = kept[name]
                file.write(part.tobytes())
    else:
        faces.unlink(missing_ok=True)  # of other sources or rules
    return {
        "photos": counts["photos"] + damaged,
        "damaged": damaged,
        "duplicates": counts["photos"] - counts["different"],
        "without_face": counts["without_face"],
        "detections": counts["detections"],
        "kept": counts["kept"],
        "dropped": {reason: counts[reason] for reason in REASONS},
    }


def _parts(walk: Path, world_size: int) -> Iterator[np.ndarray]:
    """Part by part, all rows sorted by digest and number; of a photo that was met twice, twice."""
    for part in range(_PARTS):
        files = [walk / f"{rank}-{part:02x}.rows" for rank in range(world_size)]
        rows = np.concatenate([np.fromfile(file, _ROW) for file in files if file.is_file()] or [np.zeros(0, _ROW)])
        yield _sorted(rows)


def _sorted(rows: np.ndarray) -> np.ndarray:
    # A digest as two numbers: bytes compare as big-endian numbers do.
    high, low = np.ascontiguousarray(rows["digest"]).view(">u8").reshape(-1, 2).T
    return rows[np.lexsort((rows["number"], low, high))]


def _once(rows: np.ndarray) -> np.ndarray:
    """Sorted rows without repetitions; of two that differ, as detections of two kinds of machines may, the first."""
    same = (rows["digest"][1:] == rows["digest"][:-1]).all(axis=1) & (rows["number"][1:] == rows["number"][:-1])
    return rows[np.concatenate([np.ones(min(len(rows), 1), bool), ~same])]


def _count(rows: np.ndarray) -> dict[str, int]:
    once = _once(rows)
    photos = once["verdict"] == _PHOTO  # each comes after its detections
    before = np.concatenate([[True], photos[:-1]])
    verdicts = np.bincount(once["verdict"][~photos], minlength=1 + len(REASONS)).tolist()
    return {
        "rows": len(rows),
        "photos": int((rows["verdict"] == _PHOTO).sum()),
        "different": int(photos.sum()),
        "without_face": int((photos & before[: len(photos)]).sum()),
        "detections": int((~photos).sum()),
        "kept": verdicts[0],
        **dict(zip(REASONS, verdicts[1:], strict=True)),
    }


def _taken(folder: Path) -> str:
    return f"{folder} was taken by another gathering meanwhile; run one at a time, then this one again"


_SHARPNESS_SIDE = 64  # px of the longer side of the box: what it takes to see the eyelids, and no more

REASONS = ("unsure", "small", "cut off", "blurred")


@dataclass(frozen=True)
class FaceRules:
    """What a detection must have to be used without a label. The defaults were chosen by looking at the faces of 400
    photos of WFLW and 4,000 chips of UTKFace (``experiments/gathering``).

    Attributes:
        min_score: Of the detector. RetinaFace reports from 0.6; up to 0.85 more than half of what it reports are hands,
            backs of heads, animals and two faces in one box.
        min_size: Longer side of the box in pixels of the photo. Below 32 a face is a smear: the spacing of the
            features is not to be seen, and the network, which sees 64 to 256 pixels, learns what it itself made up.
        min_sharpness: See :func:`sharpness`, grey levels. Below 3 nobody can say where the features are: out of
            focus, or lost in the dark. A soft portrait has 8, a usual face 15 to 30.
        min_inside: Share of the box inside the photo. Tight chips touch the border and are good faces: theirs begin at
            0.73. Below 0.7 an eye or the mouth is missing.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> FaceRules().verdict(score=0.99, size=80.0, inside=0.95, sharpness=1.5)
        'blurred'
    """

    min_score: float = 0.85
    min_size: float = 32.0
    min_sharpness: float = 3.0
    min_inside: float = 0.7

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = 1.0 if name in ("min_score", "min_inside") else math.inf
            if not isinstance(value, int | float) or not 0 <= value <= most:
                raise ValueError(f"rules.{name} must be {'in [0, 1]' if most == 1 else 'at least 0'}, got {value!r}")

    def verdict(self, *, score: float, size: float, inside: float, sharpness: float) -> str:
        """The first rule that a detection breaks, one of :data:`REASONS`; empty if it keeps them all."""
        failed = (
            score < self.min_score,
            size < self.min_size,
            inside < self.min_inside,
            sharpness < self.min_sharpness,
        )
        return next((reason for reason, broken in zip(REASONS, failed, strict=True) if broken), "")


def sharpness(image: np.ndarray, box: np.ndarray) -> float:
    """How much fine detail a face has: the standard deviation of the Laplacian, in grey levels.

    Taken inside the box after the face is brought to 64 pixels, so that it compares between a face in a crowd and a
    portrait: what counts is detail for the size of the face, and an enlarged face has none. Contrast counts as well:
    a face in the dark has little detail for whoever looks, be the lens as sharp as it may.

    Args:
        image: RGB uint8 ``(H, W, 3)``.
        box: ``x0, y0, x1, y1``, source pixels; only what lies inside the image is looked at.

    Returns:
        0 where the box lies outside, or is only a pixel.

    Reference:
        The variance of the Laplacian as a measure of focus: Pech-Pacheco et al., "Diatom autofocusing in brightfield
        microscopy", ICPR 2000.

    Example:
        >>> sharpness(np.full((80, 80, 3), 90, np.uint8), np.array([8.0, 8, 70, 70]))
        0.0
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
    """Share of a box's area inside a photo of that size.

    Example:
        >>> share_inside(np.array([-5.5, 4.5, 4.5, 14.5]), 100, 100)
        0.5
    """
    x0, y0, x1, y1 = (float(side) for side in box)
    across = max(min(x1, width - 0.5) - max(x0, -0.5), 0.0)
    down = max(min(y1, height - 0.5) - max(y0, -0.5), 0.0)
    area = (x1 - x0) * (y1 - y0)
    return min(across * down / area, 1.0) if area > 0 else 0.0
