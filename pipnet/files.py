"""Files that appear whole or not at all, and names of files that every library can open."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the name ``path`` when the block ends well.

    The file is flushed to the disk before it is renamed, so a kill or a power cut leaves either the old file or the new
    one. When the block raises, the temporary file goes and an older ``path`` stays as it was. The temporary name keeps
    the suffix, for writers that choose a format by it.

    Raises:
        OSError: The file can't be written (no folder, full disk); the message names ``path``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(Path(folder) / "a.txt") as temporary:
        ...         _ = temporary.write_text("whole")
        ...     (Path(folder) / "a.txt").read_text(), len(list(Path(folder).iterdir()))
        ('whole', 1)
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, f"{path} can't be written: {error.strerror}; check the folder") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(
                error.errno, f"{path} can't be written: {error.strerror}; free disk space or choose another folder"
            ) from error
        raise


@contextmanager
def openable(path: str | os.PathLike[str]) -> Iterator[str]:
    """A name under which a C++ library can open a file, to read it or to write into it, while the block lasts.

    A name is bytes, and OpenCV crashes on one that is no UTF-8 (an old disk, an unpacked archive). Such a file, or its
    folder, gets a link in a temporary folder; any other one keeps its name.

    Raises:
        OSError: The link can't be made.

    Example:
        >>> with openable("photos/a.mp4") as name:
        ...     name
        'photos/a.mp4'
    """
    name = os.fspath(path)
    if is_utf8(name):
        yield name
        return
    file = Path(os.path.abspath(name))
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "link"
        if is_utf8(file.name):  # the folder, so that what lies beside the file is found too
            link.symlink_to(file.parent, target_is_directory=True)
            yield str(link / file.name)
        else:
            link = link.with_suffix(file.suffix if is_utf8(file.suffix) else "")
            link.symlink_to(file)
            yield str(link)


def is_utf8(name: str) -> bool:
    """Whether the name of a file is text; Python marks the bytes of one that is not with lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
