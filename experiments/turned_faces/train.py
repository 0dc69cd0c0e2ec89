"""Train with and without turned copies on the stand-in for turned heads, and keep the errors in ``runs/``.

    OMP_NUM_THREADS=1 python experiments/turned_faces/train.py RUNS DATA_ROOT MESH.npz      # twice, for two cores
    python experiments/turned_faces/train.py RUNS DATA_ROOT MESH.npz --list

The stand-in is that of ``experiments/cross_domain_tried``: labelled are the 60 % of 300W's training faces that look
most into the camera, measured are the 402 that are turned away most. No test set takes part. Given again it goes on.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cross_domain_tried.turned import write_both, yaw_of
from experiments.record import command_line, write
from experiments.trainings import claimed, keep_each, list_each, precision, trained
from experiments.turned_faces.turn import LAYOUT, write_with_copies
from pipnet.data.datasets import read_dataset
from pipnet.evaluation.evaluate import evaluate
from pipnet.inference.landmarker import FaceLandmarker

HERE = Path(__file__).resolve().parent
KEPT = HERE / "runs"
SEEDS = (0, 1, 2)
VARIANTS = {
    "labels": "labels alone",
    "copies": "a quarter of the faces turned copies",
}
ARGUMENTS = ("experiment=cross_domain_turned", "curriculum=labels", "device=cpu")


@dataclass(frozen=True)
class Run:
    """A training: with what faces, and the seed of start and order."""

    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Of its folder and its file."""
        return f"{self.variant}_{self.seed}"


def all_runs() -> list[Run]:
    """In the order in which they are made."""
    return [Run(variant, seed) for seed in SEEDS for variant in VARIANTS]


def kept(run: Run) -> Path:
    """The file of what a training measured."""
    return KEPT / f"{run.name}.json"


def prepare(runs: Path, data_root: Path, mesh: Path) -> None:
    """The label files, and the copies."""
    with claimed(runs / "data.lock") as mine:
        if not mine or (runs / "copies" / "test.csv").is_file():
            return
        write_both(data_root, runs / "labels")
        write_with_copies(mesh, runs / "labels" / "train.csv", runs / "copies", times=3)
        shutil.copy(runs / "labels" / "test.csv", runs / "copies" / "test.csv")


def train_and_keep(run: Run, runs: Path, data_root: Path) -> None:
    """Train it to its end and write its file.

    Raises:
        FileNotFoundError: Another process still makes the copies.
        subprocess.CalledProcessError: The training failed; it has said why.
    """
    folder = runs / run.variant
    if not (runs / "copies" / "test.csv").is_file():
        raise FileNotFoundError(2, "the copies come first", str(runs / "copies" / "test.csv"))
    arguments, where = [*ARGUMENTS, f"fit.precision={precision()}", f"seed={run.seed}"], [f"dataset.root={folder}"]
    loaded, figures = trained("pipnet.self_train", arguments, where, runs / run.name, runs=runs, data_root=data_root)
    samples = read_dataset("csv", root=folder, layout=LAYOUT, file="test.csv")[0]
    landmarker = FaceLandmarker.load(runs / run.name / "best.pt", runtime="torch")
    figures |= {
        "images": loaded.training["images"],
        "faces": loaded.training["faces"],
        "validation": round(loaded.training["stages"][-1]["val_nme_box"], 4),
        "yaw": [round(yaw_of(sample), 1) for sample in samples],
        "errors": (100 * np.array(evaluate(landmarker, samples, layout=LAYOUT).errors("box"))).round(4).tolist(),
    }
    KEPT.mkdir(exist_ok=True)
    write(kept(run), figures)
    print(f"{run.name}: {np.mean(figures['errors']):.3f} % on the turned faces", flush=True)


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("mesh", type=Path, metavar="MESH.npz")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="only these")
    parser.add_argument("--list", action="store_true", help="say what is missing, and end")
    options = parser.parse_args()
    wanted: list[Any] = [run for run in all_runs() if run.variant in options.variants]
    if options.list:
        list_each(wanted, kept)
        return
    runs, data_root = options.runs.resolve(), options.data_root.resolve()
    prepare(runs, data_root, options.mesh.resolve())
    keep_each(wanted, runs, kept, lambda run: train_and_keep(run, runs, data_root))


if __name__ == "__main__":
    main()
