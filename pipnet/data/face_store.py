"""A content-addressed store of faces: what a detector found in each photo, and the faces cut out of it.

    store.json                  how faces are found and cut; another way is another store
    photos/ab/<digest>.json     one photo: its size and every detection, or what is wrong with the file
    crops/ab/<digest>-<n>.jpg   detection n of that photo, cut out with its surroundings
    faces.npy                   the faces that passed the rules, in order

A photo is known by the digest of its bytes, as in git: the same photo under three names is one, and is looked at once.
Files are final or absent, and the photo's JSON comes after its crops: where it is, they are. All that a kill can leave
behind is a hidden temporary file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.atomic import replacing
from pipnet.data.images import write_image

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
        sharpness: See :func:`pipnet.data.face_rules.sharpness`.
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
        folder: What :func:`pipnet.training.gathering.gather` filled.

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
