"""Drawn faces as photos in a folder, for whoever needs files: self-training without a download, tests."""

from __future__ import annotations

from pathlib import Path

from pipnet.data.images import write_image
from pipnet.data.synthetic import draw_face


def write_drawn_photos(folder: str | Path, *, count: int, seed: int, size: int = 256, style: str = "cartoon") -> Path:
    """Write faces of :func:`pipnet.data.synthetic.draw_faces` as PNG files; those that are there already stay.

    Args:
        folder: Made if it is not there.
        count: How many.
        seed: Of the faces.
        size: Side of the pictures in pixels.
        style: One of :data:`pipnet.data.synthetic.STYLES`.

    Returns:
        The folder.

    Raises:
        ValueError: An argument is out of range.
        OSError: A file can't be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as root:
        ...     folder = write_drawn_photos(Path(root) / "photos", count=2, seed=0, size=64)
        ...     sorted(path.name for path in folder.iterdir())
        ['drawn_000000.png', 'drawn_000001.png']
    """
    if count < 1:
        raise ValueError(f"at least one face must be drawn, got count={count}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        path = folder / f"drawn_{index:06d}.png"
        if not path.is_file():
            write_image(path, draw_face(index, seed=seed, size=size, style=style).image)
    return folder
