"""Files that appear whole or not at all."""

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


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
