"""Look at a dataset before training on it: counts, sizes, what is wrong with it, and a contact sheet of its faces.

python -m pipnet.inspect_dataset dataset=300w split=train output=runs/inspect
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipnet.console import needs

with needs("train", __name__):
    import numpy as np
    from omegaconf import DictConfig

    from pipnet.config import command, dataset_layout, plain, read_split
    from pipnet.data.images import BadSampleError, read_image, write_image
    from pipnet.data.report import contact_sheet, dataset_report, face_tile
    from pipnet.data.sample import OnBad, Sample
    from pipnet.layouts import PointLayout


_SIDES = {"left": (255, 150, 40), "right": (80, 160, 255)}  # RGB


def write_contact_sheet(path: Path, samples: Sequence[Sample], layout: PointLayout, *, count: int, seed: int) -> int:
    """Write a PNG of at most ``count`` faces chosen by chance, in the dataset's order, with their points.

    Points that the layout calls left are orange, right ones blue, others green: labels that swap sides are seen.
    Unreadable photos are skipped, missing folders are made.

    Returns:
        How many faces are on the sheet; without any, no file is written.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(samples))[:count])
    tiles, captions = [], []
    sides = [(np.array([side in name.lower() for name in layout.names]), color) for side, color in _SIDES.items()]
    neither = ~np.any([of_side for of_side, _ in sides], axis=0)
    for sample in (samples[i] for i in chosen):
        try:
            image = read_image(sample.image)
        except BadSampleError:
            continue  # the report lists it
        shown = [(np.where(some[:, None], sample.points, np.nan), color) for some, color in sides]
        plain = np.where(neither[:, None], sample.points, np.nan)
        tiles.append(face_tile(image, plain, box=sample.box, others=shown))
        captions.append(sample.name)
    if tiles:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_image(path, contact_sheet(tiles, captions=captions))
    return len(tiles)


def inspect_dataset(
    dataset: Mapping[str, Any],
    split: str,
    *,
    on_bad: OnBad,
    faces: int,
    seed: int,
    output: str | Path,
) -> None:
    """Print the report of one split of a dataset config and write its contact sheet.

    Raises:
        BadSampleError: Under ``on_bad="raise"``, for an item that can't be used or a photo that can't be read.
    """
    samples, bad = read_split({**dataset, "on_bad": on_bad}, split)
    report, unreadable = dataset_report(samples, bad, progress=sys.stderr.isatty())
    place = f", from {dataset['root']}" if dataset.get("root") else ""  # synthetic faces come from nowhere
    print(f"dataset          {dataset['name']}, split {split}{place}")
    print(report)
    path = Path(output) / f"{dataset['name']}_{split}.png"
    shown = write_contact_sheet(path, samples, dataset_layout(dataset), count=faces, seed=seed)
    print(f"contact sheet    {path} ({shown} faces)" if shown else "contact sheet    none: no photo can be read")
    if on_bad == "raise" and unreadable:
        raise BadSampleError(f"{len(unreadable)} photos can't be read, the first: {unreadable[0]}")


@command("inspect_dataset")
def main(cfg: DictConfig) -> None:
    """Look at a dataset as the config says."""
    arguments = plain(cfg)
    del arguments["data_root"]  # it has done its work: the dataset's root is made from it
    inspect_dataset(**arguments)


if __name__ == "__main__":
    main()
