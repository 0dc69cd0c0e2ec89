"""The photos of a target set's training part, without its labels, as sources for ``python -m pipnet.self_train``.

    python experiments/cross_domain/photos.py cofw DATA_ROOT    # DATA_ROOT/unlabelled/cofw/cofw_train_0001.png …
    python experiments/cross_domain/photos.py aflw DATA_ROOT    # DATA_ROOT/unlabelled/aflw.txt, a list of photos
    python experiments/cross_domain/photos.py wflw DATA_ROOT    # DATA_ROOT/unlabelled/wflw.txt, likewise

COFW's photos lie inside a MATLAB file. AFLW and WFLW keep the photos of both parts in one tree, and a photo may hold
faces of both: one with a test face is left out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipnet.config import dataset_config, read_split
from pipnet.data.images import write_image
from pipnet.data.sample import Sample
from pipnet.files import replacing

SETS = ("cofw", "aflw", "wflw")


def write_photos(name: str, data_root: Path) -> tuple[Path, int]:
    """Write the source of a set.

    Returns:
        Where it lies, and how many photos it has.

    Raises:
        FileNotFoundError: The set is not under ``data_root``.
        ValueError: No such set, or its files are not the published ones.
    """
    if name not in SETS:
        raise ValueError(f"no set {name!r}; there are: {', '.join(SETS)}")
    dataset = dataset_config(name, data_root)
    train, _ = read_split(dataset, "trainval")
    folder = data_root / "unlabelled"
    if name == "cofw":
        return _write_pictures(train, folder / name)
    tested, _ = read_split(dataset, "test")
    photos = sorted({Path(sample.image) for sample in train} - {Path(sample.image) for sample in tested})
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.txt") as temporary:
        temporary.write_text("".join(f"{os.path.relpath(photo, folder)}\n" for photo in photos), encoding="utf-8")
    return folder / f"{name}.txt", len(photos)


def _write_pictures(samples: list[Sample], folder: Path) -> tuple[Path, int]:
    """Photos that a reader holds in memory, as PNG files; one that is there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        path = folder / f"{sample.name}.png"
        if not path.is_file():
            write_image(path, sample.image)
    return folder, len(samples)


def main(arguments: list[str]) -> None:
    """Command line."""
    if len(arguments) != 2:
        sys.exit(f"usage: photos.py {{{','.join(SETS)}}} DATA_ROOT")
    try:
        path, count = write_photos(arguments[0], Path(arguments[1]))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(f"{path}: {count} photos")


if __name__ == "__main__":
    main(sys.argv[1:])
