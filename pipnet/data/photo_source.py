"""Where photos come from: a folder with any tree below it, or a list of paths; millions of them, one at a time."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from pipnet.data.images import is_photo_name

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # how such a file begins; Windows writes them


def photo_paths(source: str | os.PathLike[str]) -> Iterator[Path]:
    """The photos of a source, in the order in which the disk has them: nothing is sorted, nothing is kept.

    A folder is searched as by :func:`photos_below`.

    A ``.txt`` file holds one path a line, seen from its own folder, and every line counts, whatever its suffix.

    Raises:
        FileNotFoundError, ValueError, OSError: See :func:`check_source`.
    """
    source = Path(source)
    check_source(source)
    yield from photos_below(source) if source.is_dir() else _listed(source)


def check_source(source: str | os.PathLike[str]) -> None:
    """Stop on a source that gives no photos, before the first of several sources has cost hours.

    Raises:
        FileNotFoundError: No such source.
        ValueError: It is neither a folder nor a list of UTF-8 or ASCII.
        OSError: It can't be read.

    Example:
        >>> check_source("nowhere")
        Traceback (most recent call last):
        ...
        FileNotFoundError: nowhere: no such folder of photos, and no such list; correct the path
    """
    source = Path(source)
    if source.is_dir():
        with os.scandir(source):
            return
    if source.suffix.lower() == ".txt" and source.is_file():
        with source.open("rb") as file:
            if file.read(2) in _UTF_16:
                raise ValueError(f"{source} is a list in UTF-16; save it as UTF-8")
    elif source.exists():
        raise ValueError(f"{source} is no folder and no .txt list; give the folder of the photo, or a list of photos")
    else:
        raise FileNotFoundError(f"{source}: no such folder of photos, and no such list; correct the path")


def seen_from(source: str | os.PathLike[str], path: Path) -> str:
    """What a photo of a source is called: its path seen from the source, the same wherever the source is mounted.

    Example:
        >>> seen_from("/photos", Path("/photos/a/b.jpg")), seen_from("/lists/all.txt", Path("/other/c.jpg"))
        ('a/b.jpg', '/other/c.jpg')
    """
    root = Path(source)
    root = root if root.suffix.lower() != ".txt" or root.is_dir() else root.parent
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def photos_below(
    folder: Path, *, in_order: bool = False, but: Collection[Path] = (), others: Counter[str] | None = None
) -> Iterator[Path]:
    """The photos of a folder and all its subfolders, by the suffixes of :data:`pipnet.data.images.IMAGE_SUFFIXES`.

    Names that begin with a dot are left out. Links are followed, but not back into a folder that is being searched. A
    link that leads nowhere comes out, if it is called like a photo, and so does a subfolder that can't be listed, as
    itself: whoever reads them will say so.

    Args:
        folder: Where to look.
        in_order: Sorted by name, a folder's photos before those of its subfolders; else in the order of the disk.
        but: Folders that are not entered, resolved.
        others: Counts the other files by suffix.
    """
    yield from _below(folder, (), in_order, but, others)


def _below(
    folder: Path,
    above: tuple[tuple[int, int], ...],
    in_order: bool,
    but: Collection[Path],
    others: Counter[str] | None,
) -> Iterator[Path]:
    """``above`` are the folders on the way here, by device and number: a link to one of them would never end."""
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: (_is_folder(entry), entry.name)) if in_order else listed
            for entry in entries:
                path = folder / entry.name
                if entry.name.startswith("."):
                    continue
                if _is_folder(entry):
                    if not but or path.resolve() not in but:
                        yield from _below(path, (*above, here), in_order, but, others)
                elif is_photo_name(entry.name):
                    yield path
                elif others is not None:
                    others[path.suffix.lower() or "no suffix"] += 1
    except (OSError, RecursionError):  # the latter a thousand folders deep
        yield folder


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or a link that leads where nobody may look
        return False


def _listed(file: Path) -> Iterator[Path]:
    # Names of files are bytes: what is no UTF-8 comes back as it is.
    with file.open(encoding="utf-8-sig", errors="surrogateescape", newline=None) as lines:
        for line in lines:
            if line.strip():
                yield file.parent / line.rstrip("\n")
