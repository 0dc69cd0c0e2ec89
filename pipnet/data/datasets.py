"""Every labelled dataset behind one call: :func:`read_dataset`.

A reader is ``reader(root, layout, bad, **options) -> list[Sample]``: it reads the labels below the folder ``root`` and
checks that photos exist, but decodes none (COFW's lie inside the label file and are read with it). Items it can't use
go to ``bad`` (:class:`~pipnet.data.sample.BadItems`), never away in silence. ``data/README.md`` describes each set's
tree. What is missing is a FileNotFoundError, a label file that is not the published one a ValueError. Options that
several readers have:

* ``part``: ``train`` or ``test``.
* ``validation``: of the training faces, leave out (``exclude``), keep only (``only``) or keep (``include``) those that
  :func:`~pipnet.data.sample.in_validation` picks by the stem of the photo, so that the faces of a photo stay together.
* ``box``: ``points`` for the tight box of the points, ``rectangle`` for the one that the label file gives.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipnet.data.readers_custom import read_coco, read_csv
from pipnet.data.readers_matlab import read_aflw, read_cofw, read_cofw68
from pipnet.data.readers_text import read_300w, read_wflw
from pipnet.data.sample import BadItems, OnBad, Sample
from pipnet.data.synthetic.dataset import read_drawn
from pipnet.layouts import PointLayout

READERS: dict[str, Callable[..., list[Sample]]] = {
    "300w": read_300w,
    "wflw": read_wflw,
    "cofw": read_cofw,
    "cofw68": read_cofw68,
    "aflw": read_aflw,
    "csv": read_csv,
    "coco": read_coco,
    "drawn": read_drawn,  # needs no folder
}


def read_dataset(
    reader: str, *, root: str | Path | None, layout: PointLayout, on_bad: OnBad = "raise", **options: Any
) -> tuple[list[Sample], BadItems]:
    """Read one part of a dataset.

    Args:
        reader: A name in :data:`READERS`.
        root: Folder of the dataset, as its publisher unpacks it; None for a reader that needs no folder.
        layout: What its points mean.
        on_bad: ``raise`` stops at the first item that can't be used, ``skip`` leaves such items out and lists them.
        **options: The reader's own, such as ``part`` and ``validation``.

    Returns:
        The samples, and what was skipped with the reason of each.

    Raises:
        FileNotFoundError: The folder, or the label file in it, is missing.
        ValueError: No such reader or option, nothing left to use, or a label file that isn't the published one.
        BadSampleError: An item can't be used, under ``on_bad="raise"``; the message names file, line and what to do.
    """
    if reader not in READERS:
        raise ValueError(f"no reader {reader!r}; there are: {', '.join(READERS)}")
    _check_options(reader, options)
    bad = BadItems(on_bad)
    samples = READERS[reader](dataset_folder(reader, root), layout, bad, **options)
    if not samples:
        reasons = f"{len(bad)} items were skipped, the first: {bad.reasons[0]}" if len(bad) else "there are no items"
        if not len(bad) and options.get("validation", "include") != "include":
            reasons = (
                f"none is in this part (validation={options['validation']}), which goes by the photo's name; give both"
                " parts a file of their own, or train and validate on the same faces: splits.val=trainval"
                " splits.train=trainval"
            )
        chosen = ", ".join(f"{key}={value}" for key, value in options.items())
        raise ValueError(f"{root} ({chosen or 'all of it'}): no face to use; {reasons}")
    return samples, bad


def dataset_folder(reader: str, root: str | Path | None) -> Path | None:
    """The folder that a reader reads, or None for one that needs none.

    Raises:
        FileNotFoundError: It does not exist; the message says how to set it.
        ValueError: The reader needs one and none is given.
    """
    if root is None:
        if reader != "drawn":
            raise ValueError(f"reader {reader!r} needs root, the folder of the dataset")
        return None
    root = Path(root).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset folder {root} does not exist; set data_root (or the environment variable PIPNET_DATA) to the "
            "folder that holds it; data/README.md says how to get it"
        )
    return root


def _check_options(reader: str, options: dict[str, Any]) -> None:
    parameters = inspect.signature(READERS[reader]).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            raise ValueError(f"reader {reader!r} has no option {option!r}; it has: {', '.join(known) or 'none'}")
