"""Photos on their way to the face detector: this process's share, opened ahead; known and damaged ones told apart."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import fsencode
from os.path import isdir
from pathlib import Path

import numpy as np

from pipnet.data.face_store import FaceStore, PhotoRecord, photo_digest
from pipnet.data.images import decode_image, read_bytes
from pipnet.data.photo_source import photo_paths, seen_from
from pipnet.data.sample import BadSampleError


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
