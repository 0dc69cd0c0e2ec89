"""Train what ``rows.py`` lists, and keep what each training measured in ``runs/``, one file a training.

    OMP_NUM_THREADS=1 python experiments/few_labels/train.py RUNS DATA_ROOT               # all that is missing
    OMP_NUM_THREADS=1 python experiments/few_labels/train.py RUNS DATA_ROOT --rows labels --percents 10 --list
    python experiments/few_labels/train.py RUNS DATA_ROOT --split                         # labelled_SEED.txt, in git

DATA_ROOT holds ``300W/``, ``WFLW/`` and ``infants/``. RUNS gets the checkpoints, the labelled parts as links and the
faces that the detector finds in the photos of the rest. Give the same command twice, in two shells, to train two at a
time; stopped and given again it goes on. A test set is read once, when a training of a row is done; rungs of the ladder
read none.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from experiments.cross_domain.pairs import photo_of
from experiments.few_labels.rows import FACE_SIZE, GAIN, LADDER, PERCENTS, ROWS, SEEDS, VARIANTS, Run, all_runs
from experiments.heads.train import errors_and_scores, sets_of
from experiments.record import command_line, read, write
from experiments.trainings import keep_each, list_each, own_face_store, precision, trained
from pipnet.data.datasets import read_dataset
from pipnet.data.sample import Sample
from pipnet.files import replacing
from pipnet.layouts import get_layout
from pipnet.model import checkpoint

HERE = Path(__file__).resolve().parent
KEPT = HERE / "runs"
LAYOUT = get_layout("300w_68")


def kept(run: Run) -> Path:
    """The file of what a training measured."""
    return KEPT / f"{run.name}.json"


def faces(data_root: Path) -> tuple[list[Sample], list[Sample]]:
    """Training faces on photos without a validation face, and validation faces."""
    parts = {
        validation: read_dataset("300w", root=data_root / "300W", layout=LAYOUT, part="train", validation=validation)[0]
        for validation in ("exclude", "only")
    }
    held_out = {photo_of(sample.name) for sample in parts["only"]}
    return [sample for sample in parts["exclude"] if photo_of(sample.name) not in held_out], parts["only"]


def split(data_root: Path, seed: int) -> list[str]:
    """All training faces, those of a photo together, in a random order: a part of the labels is a prefix of it."""
    by_photo: dict[str, list[str]] = {}
    for sample in faces(data_root)[0]:
        by_photo.setdefault(photo_of(sample.name), []).append(sample.name)
    photos = sorted(by_photo)
    return [name for n in np.random.default_rng(seed).permutation(len(photos)) for name in sorted(by_photo[photos[n]])]


def labelled(percent: int, seed: int) -> list[str]:
    """Names of the faces whose labels are used: of as many whole photos as hold the share of 1,808 faces."""
    names = (HERE / f"labelled_{seed}.txt").read_text(encoding="utf-8").split()
    wanted = round(1808 * percent / 100)
    last = photo_of(names[wanted - 1])
    return names[: max(n for n, name in enumerate(names) if photo_of(name) == last) + 1]


def prepared(run: Run, runs: Path, data_root: Path) -> list[str]:
    """The data as arguments: labelled and validation faces as links, the photos of the rest as a list."""
    folder = runs / f"data_{run.percent}_{run.seed}"
    mine = set(labelled(run.percent, run.seed))
    train, held_out = faces(data_root)
    for sample in [*(sample for sample in train if sample.name in mine), *held_out]:
        photo = Path(str(sample.image)).resolve()
        for file in (photo, photo.with_suffix(".pts")):
            link = folder / "300W" / file.relative_to((data_root / "300W").resolve())
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(file)
    rest = [str(Path(str(sample.image)).resolve()) for sample in train if sample.name not in mine]
    where = [f"dataset.root={folder / '300W'}"]
    if run.about.curriculum != "labels":
        everything = [str(Path(str(sample.image)).resolve()) for sample in train]
        for file, photos in ((runs / "photos.txt", everything), (folder / "rest.txt", rest)):
            with replacing(file) as temporary:
                temporary.write_text("\n".join(photos) + "\n", encoding="utf-8")
        store = own_face_store(runs / "photos.txt", runs / "faces", runs / f"{run.name}_faces", face_size=FACE_SIZE)
        where += [f"unlabelled=[{folder / 'rest.txt'}]", f"face_store={store}"]
    return where


def plateau(share: int = 10) -> int | None:
    """Images of the smallest rung after which twice as many bring less than :data:`GAIN` on validation.

    With 20 % of the labels only the plateau at 10 % and its double are tried, and the better one is taken. None while a
    rung up to that one is missing; if the highest rung still gains, that one.
    """
    first = 0 if share == 10 else plateau()
    if first is None:
        return None
    rungs = [rung for rung in LADDER if rung >= first][: None if share == 10 else 2]
    for images, twice in pairwise(rungs):
        files = [kept(Run("labels", share, rung=rung)) for rung in (images, twice)]
        if not all(file.is_file() for file in files):
            return None
        before, after = (read(file)["validation"] for file in files)
        if after > before * (1 - GAIN):
            return images
    return rungs[-1]


def due(run: Run) -> bool:
    """Whether a rung is to be trained: up to twice the plateau, as far as it is known; at 20 %, these two."""
    if run.rung is None:
        return True
    images = plateau()
    if images is None:  # one rung after the other, from the second on
        before = [Run("labels", 10, rung=rung) for rung in LADDER[1:] if rung < run.rung]
        return run.percent == 10 and all(kept(other).is_file() for other in before)
    return run.rung <= 2 * images and (run.percent == 10 or run.rung >= images)


def images_of(run: Run) -> int:
    """What labels alone, or ours, train on.

    Raises:
        FileNotFoundError: The plateau is not known yet.
    """
    if run.rung or run.about.images:
        return run.rung or run.about.images or 0
    images = plateau(20 if run.percent == 20 else 10)
    if images is None:
        raise FileNotFoundError(2, "the rungs that show the plateau come first", "the rungs of labels only")
    return images + run.about.beyond


def folder_of(run: Run, runs: Path) -> Path:
    """Where it trains; the rung at the plateau is the row's training."""
    images = f"_{images_of(run)}" if run.about.stages is None else ""
    return runs / f"{run.row}_{run.percent}_{run.seed}{images}"


def train_and_keep(run: Run, runs: Path, data_root: Path) -> None:
    """Train it to its end and write its file.

    Raises:
        FileNotFoundError: A training that comes before is missing.
        subprocess.CalledProcessError: The training failed; it has said why.
    """
    row, folder = run.about, folder_of(run, runs)
    arguments = row.arguments(images_of(run) if row.stages is None else 0)
    arguments += [f"fit.precision={precision()}", f"seed={run.seed}"]
    where = [*prepared(run, runs, data_root), f"data_root={data_root}"]
    if row.teacher:
        first = folder_of(Run(row.teacher, run.percent, run.seed), runs) / "best.pt"
        if not first.is_file():
            raise FileNotFoundError(2, "its teacher comes first", str(first))
        where.append(f"teacher={first}")
    loaded, figures = trained("pipnet.self_train", arguments, where, folder, runs=runs, data_root=data_root)
    stages, images = loaded.training["stages"], loaded.training["images"]
    if row.teacher:
        images += checkpoint.load(first).training["images"]
    if loaded.training["faces"]["train"] != len(labelled(run.percent, run.seed)):
        raise ValueError(f"{folder} was trained on other faces than labelled_{run.seed}.txt names; delete it")
    figures |= {
        "images": images,
        "faces": loaded.training["faces"],
        "unlabelled": loaded.training["unlabelled"] and loaded.training["unlabelled"]["counts"],
        "validation": round(stages[-1]["val_nme"], 4),
        "stages": [
            {key: stage[key] for key in ("name", "images", "val_nme", "pseudo_labels")}
            | {"agreement": stage["held_out"]["agreement"]}
            for stage in stages
        ],
    }
    sets = ("validation", "common", "infants") if run.reads_tests else ("validation",)
    figures["errors"] = measured(folder / "best.pt", data_root, sets)
    KEPT.mkdir(exist_ok=True)
    write(kept(run), figures)
    print(f"{run.name}: validation NME {figures['validation']:.3f} %, {figures['minutes']:.0f} minutes", flush=True)


def measured(best: Path, data_root: Path, chosen: Sequence[str]) -> dict[str, list[float]]:
    """NME, percent, of every face of some sets, on one plain crop each, infants upright."""
    loaded = checkpoint.load(best)
    sets = sets_of(data_root, np.array(loaded.net.arguments["mean_face"]))
    return errors_and_scores(loaded, {name: sets[name] for name in chosen})["errors"]


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("data_root", type=Path, metavar="DATA_ROOT")
    parser.add_argument(
        "--rows", nargs="+", choices=[*ROWS, *VARIANTS], default=[*ROWS, *VARIANTS], help="only these; default: all"
    )
    parser.add_argument("--percents", nargs="+", type=int, choices=PERCENTS, default=list(PERCENTS))
    parser.add_argument("--list", action="store_true", help="say what is missing, and end")
    parser.add_argument("--split", action="store_true", help="write labelled_SEED.txt, and end")
    options = parser.parse_args()
    if options.split:
        for seed in SEEDS:
            names = split(options.data_root, seed)
            (HERE / f"labelled_{seed}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        return
    wanted = [run for run in all_runs() if run.row in options.rows and run.percent in options.percents]
    if options.list:
        list_each([run for run in wanted if due(run)], kept)
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    runs, data_root = options.runs.resolve(), options.data_root.resolve()
    in_turn = (run for run in wanted if due(run))  # asked of each when its turn comes: the rungs before it decide
    keep_each(in_turn, runs, kept, lambda run: train_and_keep(run, runs, data_root))


if __name__ == "__main__":
    main()
