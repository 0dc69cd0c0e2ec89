"""Photos to look at: the portrait, files, a folder with its subfolders; the next one is read while one is looked at."""

from __future__ import annotations

import mimetypes
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipnet.data.headers import is_video
from pipnet.data.images import IMAGE_SUFFIXES, read_image
from pipnet.data.photo_source import photos_below
from pipnet.data.sample import BadSampleError

PORTRAIT_NAME = "astronaut"


@dataclass(frozen=True)
class Photo:
    """One photo.

    Attributes:
        path: The file; None is the portrait.
        inside: Its folder, seen from the folder that is searched; results keep that order.
    """

    path: Path | None
    inside: Path = Path()

    @property
    def source(self) -> str:
        """What to call it."""
        return PORTRAIT_NAME if self.path is None else str(self.path)

    @property
    def name(self) -> str:
        """What to call its results."""
        return PORTRAIT_NAME if self.path is None else self.path.stem

    def read(self) -> np.ndarray:
        """RGB uint8 ``(H, W, 3)``.

        Raises:
            ValueError: It can't be read; the message names it.
        """
        if self.path is None:
            from skimage.data import astronaut

            return astronaut()
        if self.path.is_dir():
            if not os.access(self.path, os.R_OK | os.X_OK):
                raise ValueError(f"{self.path}: this folder can't be listed; check its rights")
            raise ValueError(f"{self.path} is a folder; use --folder")
        if not self.path.is_file():
            link = self.path.is_symlink()
            raise ValueError(f"{self.path}: {'a link that leads nowhere' if link else 'no such photo'}")
        try:
            return read_image(self.path)
        except BadSampleError:
            if _is_video(self.path):
                raise ValueError(f"{self.path} is a video, not a photo; use --video") from None
            raise


def photos_in(folder: Path, results: Path) -> tuple[list[Photo], str]:
    """All photos of a folder and its subfolders, linked ones too, sorted; hidden ones are left out.

    A photo by suffix: see :func:`pipnet.data.photo_source.photos_below`. What an earlier run wrote is not looked at
    again: ``NAME_landmarks.png`` beside its photo or where ``results`` would have it, and a subfolder that is
    ``results``. The working folder is searched all the same: results go there when nobody says where.

    Args:
        folder: Where to look.
        results: Where results go.

    Returns:
        The photos, and among them each subfolder that can't be read; and a sentence about the files that are no photos
        by their names, or nothing where there is none.

    Raises:
        ValueError: No such folder, or no photo in it.
    """
    if not folder.is_dir():
        use = "--video" if folder.is_file() and _is_video(folder) else "--image"
        raise ValueError(f"{folder} is no folder; use {use}" if folder.exists() else f"{folder}: no such folder")
    others: Counter[str] = Counter()
    here = {results.resolve()} - {Path.cwd().resolve()}
    found = photos_below(folder, in_order=True, but=here, others=others)
    photos = [Photo(path, path.parent.relative_to(folder) if path != folder else Path()) for path in found]
    written = {
        parent.resolve() / f"{photo.name}_landmarks"
        for photo in photos
        for parent in (photo.path.parent, results / photo.inside)
    }
    photos = [photo for photo in photos if _result_of(photo.path) not in written]
    if not photos:
        raise ValueError(f"{folder}: no photo in this folder; looked for {', '.join(IMAGE_SUFFIXES)}")
    # Tables and records are what the demo writes itself.
    kinds = [f"{number} {suffix}" for suffix, number in others.most_common() if suffix not in (".csv", ".json")]
    return photos, f"left out, as no photos by their names: {', '.join(kinds)}" if kinds else ""


def read_ahead(photos: Sequence[Photo]) -> Iterator[tuple[Photo, Future[np.ndarray]]]:
    """Each photo with its picture, or with the error that reading raised, in order; one is read in advance."""
    with ThreadPoolExecutor(1, thread_name_prefix="photos") as thread:
        following = thread.submit(photos[0].read) if photos else None
        for index, photo in enumerate(photos):
            reading = following
            following = thread.submit(photos[index + 1].read) if index + 1 < len(photos) else None
            assert reading is not None
            yield photo, reading


def _result_of(path: Path) -> Path | None:
    """``folder/NAME_landmarks`` of a picture that has the name of a result, numbered or not."""
    name = re.fullmatch(r"(.+_landmarks)(_\d+)?\.png", path.name)
    return None if name is None else path.parent.resolve() / name[1]


def _is_video(path: Path) -> bool:
    """By its first bytes; of containers that these don't tell, by its name."""
    with path.open("rb") as file:
        start = file.read(16)
    return is_video(start) or (bool(start) and (mimetypes.guess_type(path.name)[0] or "").startswith("video/"))
