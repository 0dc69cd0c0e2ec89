"""Teach the shipped weights another kind of face, and keep what each training measured in ``runs/``, a file a training.

    OMP_NUM_THREADS=1 python experiments/infants/train.py RUNS DATA_ROOT           # all that is missing
    OMP_NUM_THREADS=1 python experiments/infants/train.py RUNS DATA_ROOT --list

DATA_ROOT holds ``300W/``, ``WFLW/``, ``infants/`` and ``unlabelled/``. RUNS gets the checkpoints, the labels as CSV
files and the faces that the detector finds in the photos without labels. Give the same command twice, in two shells, to
train two at a time; stopped and given again it goes on. The learning rate is chosen on faces of ``infants/train``
without a part in the try; test sets are read once, when a training is done.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.heads.train import Faces, errors_and_scores, sets_of
from experiments.record import command_line, read, write
from experiments.roll.measure import infants
from experiments.trainings import keep_each, list_each, own_face_store, trained, write_labels
from pipnet.data.sample import Sample
from pipnet.files import replacing
from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.inference.runtimes import TorchRuntime
from pipnet.layouts import get_layout
from pipnet.metrics import nme
from pipnet.model import checkpoint

HERE = Path(__file__).resolve().parent
LAYOUT = get_layout("300w_68")
SEEDS = (0, 1, 2)
COUNTS = (10, 25, 50, 105)  # labelled faces, a fifth of them to validate on
TRIED_COUNT, RATES = 50, (0.0001, 0.0003, 0.001)
IMAGES, EPOCH = 4_000, 200
ROWS = {
    "labels": "fine-tuned on the labels",
    "ours": "and on the other photos",
    "portraits": "and on portraits of anyone",
}
PORTRAITS = 400  # photos of unlabelled/portraits
# Faces of infants/test whose child, by face, clothes and scene, seems to stand in infants/train too, in another frame
# of the same film: the parts were not cut by film. Looked for by eye, among faces with numbers near each other.
SIBLINGS = {f"infant_{number:03d}" for number in (14, 17, 23, 43, 48, 49, 77, 88)}
# The shipped weights learn the labels first, or they label the photos first.
CURRICULA = {
    "labels": ("curriculum=labels", "init_from=shipped"),
    "ours": ("curriculum=ours", "init_from=shipped"),
    "portraits": ("curriculum=ours", "teacher=shipped"),
}
SETTINGS = (
    "dataset=own_csv",
    "dataset.layout=300w_68",
    "dataset.splits.train={file: train.csv, validation: include}",
    "dataset.splits.val={file: val.csv, validation: include}",
    "fit.batch_size=16",
    "fit.precision=float32",
    "fit.frozen_blocks=4",
    "fit.validate_every=5",
    "fit.progress_bar=false",
    "self_training.teacher_weights=last",
    f"self_training.epoch_faces={EPOCH}",
    f"self_training.images={IMAGES}",
    "device=cpu",
)


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        row: Of :data:`ROWS`.
        count: Labelled faces.
        seed: Of the split and of everything random.
        rate: Learning rate of a try; None takes the best.
    """

    row: str
    count: int
    seed: int = 0
    rate: float | None = None

    @property
    def name(self) -> str:
        """Of its folder and file."""
        return f"{self.row}_{self.count}_{self.seed}" + ("" if self.rate is None else f"_try_{self.rate}")


def all_runs() -> list[Run]:
    """Tries first, then seed by seed; with all faces labelled there are no other infants."""
    tries = [Run("labels", TRIED_COUNT, rate=rate) for rate in RATES]
    return tries + [
        Run(row, count, seed)
        for seed in SEEDS
        for rows in (("labels", "ours"), ("portraits",))
        for count in COUNTS
        for row in rows
        if (row, count) != ("ours", 105)
    ]


def kept(run: Run) -> Path:
    """The file of what a training measured."""
    return HERE / "runs" / f"{run.name}.json"


def split(samples: list[Sample], count: int, seed: int) -> tuple[list[Sample], list[Sample], list[Sample]]:
    """Faces to train on, to validate on, and the others; a smaller part lies in a larger one of the same seed."""
    order = [samples[n] for n in np.random.default_rng(seed).permutation(len(samples))]
    held_out = set(range(0, count, 5))
    train = [sample for n, sample in enumerate(order[:count]) if n not in held_out]
    return train, [order[n] for n in sorted(held_out)], order[count:]


def portraits(data_root: Path) -> list[Path]:
    """Photos of anyone, the same in every training."""
    photos = sorted((data_root / "unlabelled" / "portraits").rglob("*.jpg"))
    return [photos[n].resolve() for n in np.random.default_rng(0).permutation(len(photos))[:PORTRAITS]]


def prepared(run: Run, runs: Path, data_root: Path, samples: list[Sample]) -> list[str]:
    """The labels as CSV files and the other photos as a list, and the arguments that name them."""
    train, held_out, others = split(samples, run.count, run.seed)
    folder = runs / f"data_{run.count}_{run.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", train), ("val", held_out)):
        write_labels(part, folder / f"{name}.csv")
    where = [f"dataset.root={folder}"]
    if run.row != "labels":
        names = [[Path(str(sample.image)).resolve() for sample in part] for part in (samples, others)]
        more = portraits(data_root) if run.row == "portraits" else []
        everything, rest = runs / f"photos_{run.row}.txt", folder / f"rest_{run.row}.txt"
        for file, chosen in ((everything, names[0] + more), (rest, names[1] + more)):
            with replacing(file) as temporary:
                temporary.write_text("".join(f"{photo}\n" for photo in chosen), encoding="utf-8")
        store = own_face_store(everything, runs / f"faces_{run.row}", runs / f"{run.name}_faces", face_size=224)
        where += [f"unlabelled=[{rest}]", f"face_store={store}"]
    return where


def rate_of(run: Run) -> float:
    """Learning rate of a training; FileNotFoundError if a try is missing."""
    if run.rate is not None:
        return run.rate
    return min(RATES, key=lambda rate: read(kept(Run("labels", TRIED_COUNT, rate=rate)))["others"])


def train_and_keep(run: Run, runs: Path, data_root: Path) -> None:
    """Train it to its end and write its file.

    Raises:
        FileNotFoundError: A try is missing.
        subprocess.CalledProcessError: The training failed; it has said why.
    """
    samples, folder = infants(data_root / "infants" / "train"), runs / run.name
    arguments = [*SETTINGS, *CURRICULA[run.row], f"optim.lr={rate_of(run)}", f"seed={run.seed}"]
    where = prepared(run, runs, data_root, samples)
    loaded, figures = trained("pipnet.self_train", arguments, where, folder, runs=runs, data_root=data_root)
    figures |= {
        "learning_rate": rate_of(run),
        "images": loaded.training["images"],
        "faces": loaded.training["faces"],
        "unlabelled": loaded.training["unlabelled"] and loaded.training["unlabelled"]["counts"],
    }
    if run.rate is None:
        figures["errors"] = measured(folder / "best.pt", data_root)
    else:
        upright = np.array(loaded.net.arguments["mean_face"])
        others = Faces.of(split(samples, run.count, run.seed)[2], LAYOUT, "outer_eye", upright)
        figures["others"] = float(np.mean(errors_and_scores(loaded, {"others": others})["errors"]["others"]))
    write(kept(run), figures)
    print(f"{run.name}: {figures['minutes']:.0f} minutes", flush=True)


def measured(weights: Path, data_root: Path) -> dict[str, list[float]]:
    """NME, percent, of every face of the test sets, on one plain crop each, infants upright by their labels.

    ``apart`` are those of infants/test without :data:`SIBLINGS`, ``inner`` the 51 points of Common-554 without the jaw.
    """
    loaded = checkpoint.load(weights)
    sets = sets_of(data_root, np.array(loaded.net.arguments["mean_face"]))
    network, errors = TorchRuntime(loaded.net), {}
    for name in ("common", "infants"):
        faces = sets[name]
        points, _ = faces.predict(network, loaded.crop_scale, loaded.net.input_size)
        errors[name] = nme(points, faces.true, faces.norm)
        if name == "common":
            errors["inner"] = nme(points[:, 17:], faces.true[:, 17:], faces.norm)
    apart = [sample.name not in SIBLINGS for sample in sets["infants"].samples]
    errors["apart"] = errors["infants"][apart]
    return {name: (100 * of).round(4).tolist() for name, of in errors.items()}


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    parser.add_argument("--list", action="store_true", help="say what is missing, and end")
    options = parser.parse_args()
    if options.list:
        list_each(all_runs(), kept)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runs, data_root = options.runs.resolve(), options.data_root.resolve()
    before = HERE / "runs" / "shipped.json"
    if not before.is_file():
        before.parent.mkdir(exist_ok=True)
        write(before, {"errors": measured(SHIPPED_WEIGHTS, data_root)})
    keep_each(all_runs(), runs, kept, lambda run: train_and_keep(run, runs, data_root))


if __name__ == "__main__":
    main()
