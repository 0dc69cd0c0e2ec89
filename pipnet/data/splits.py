"""Which faces of a dataset are its validation part, and whether its files lie where they should."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal, get_args

from pipnet.data.sample import BadSampleError, Sample

Validation = Literal["exclude", "only", "include"]


def in_validation(key: str) -> bool:
    """Whether a face belongs to the validation part: about one in ten, the same ones on every machine.

    Args:
        key: Stem of the photo's file name, so that faces of one photo stay together; the record's name where photos
            have no files.

    Example:
        >>> [key for key in ("face_8", "face_9", "face_10") if in_validation(key)]
        ['face_9']
    """
    return zlib.crc32(key.encode()) % 10 == 0


def is_wanted(key: str, validation: Validation) -> bool:
    """Whether a face is kept: all of them (``include``), or by :func:`in_validation` (``only``, ``exclude``)."""
    return validation == "include" or in_validation(key) == (validation == "only")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Stop on an option that isn't one of the choices.

    Raises:
        ValueError: The message lists the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_validation(validation: str, *, part: str = "train", of: tuple[str, ...] = ("train",)) -> None:
    """Stop on an unknown ``validation``, or on one asked of a part that has no validation faces.

    Raises:
        ValueError: What was asked and what there is.
    """
    check_choice("validation", validation, get_args(Validation))
    if part not in of and validation != "include":
        raise ValueError(
            f"validation={validation!r} needs part={of[0]!r}: validation faces come from training data only"
        )


def require(path: Path, tree: str) -> Path:
    """The path, if it is there.

    Args:
        path: File or folder.
        tree: What the dataset's folder must look like, one line.

    Raises:
        FileNotFoundError: Names the path and the expected tree.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected {tree} (data/README.md says how to get it)")
    return path


def sample_at(where: str, **fields) -> Sample:
    """A :class:`~pipnet.data.sample.Sample` whose errors name the file and line it came from."""
    try:
        return Sample(**fields)
    except BadSampleError as error:
        raise BadSampleError(f"{where}: {error}") from None
