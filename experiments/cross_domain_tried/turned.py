"""A stand-in for another domain, to choose on: 300W's training faces alone, those turned away kept from training.

    python experiments/cross_domain_tried/turned.py DATA_ROOT FOLDER     # writes FOLDER/{train,test}.csv

Labelled are the 60 % of the training faces that look most into the camera; the target is the fifth that is turned away
most. Neither test set of the benchmark takes part, so any number of variants may be tried on it:

    python -m pipnet.self_train experiment=cross_domain_turned dataset.root=FOLDER curriculum=ours
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from experiments.trainings import write_labels
from pipnet.config import dataset_config, read_split
from pipnet.data.images import image_size
from pipnet.data.sample import Sample
from pipnet.measurements import head_angles

FRONTAL, TURNED = 0.6, 0.8  # shares of the faces in order of yaw: labelled below the one, target above the other


def yaw_of(sample: Sample) -> float:
    """How far a head is turned to either side, degrees."""
    return float(abs(head_angles(sample.points[None], image_size(sample.image))[0, 0]))


def write_both(data_root: Path, folder: Path) -> None:
    """Write ``train.csv`` and ``test.csv``.

    Raises:
        FileNotFoundError: 300W is not under ``data_root``.
    """
    faces, _ = read_split(dataset_config("300w", data_root), "trainval")
    yaw = np.array([yaw_of(face) for face in faces])
    least, most = np.quantile(yaw, [FRONTAL, TURNED])
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("train", yaw < least), ("test", yaw > most)):
        write_labels([face for face, wanted in zip(faces, chosen, strict=True) if wanted], folder / f"{name}.csv")
        print(f"{name}: {chosen.sum()} faces, yaw {yaw[chosen].min():.0f} to {yaw[chosen].max():.0f} degrees")


def main(arguments: list[str]) -> None:
    """Command line."""
    if len(arguments) != 2:
        sys.exit("usage: turned.py DATA_ROOT FOLDER")
    try:
        write_both(*map(Path, arguments))
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
