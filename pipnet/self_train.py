"""Train on labelled faces of one kind and on photos without labels of another.

python -m pipnet.self_train experiment=self_train_drawn                    # drawn faces, no download
python -m pipnet.self_train unlabelled=[DIR] curriculum=paper              # labels of 300W, photos of your own
python -m pipnet.self_train unlabelled=[DIR] teacher=shipped               # from the weights that come with pipnet
torchrun --nproc-per-node 4 -m pipnet.self_train unlabelled=[DIR,LIST.txt] # several processes share all of it

Faces are found in the photos once; then every stage of the curriculum is a training, whose network labels the faces for
the next. The same command again goes on where a killed run stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipnet.console import needs

with needs("train", __name__):
    import numpy as np
    from omegaconf import DictConfig

    from pipnet.config import called, command, plain
    from pipnet.data.synthetic.dataset import write_drawn_photos
    from pipnet.inference.landmarker import SHIPPED_WEIGHTS
    from pipnet.model import checkpoint
    from pipnet.model.pipnet import PIPNet
    from pipnet.self_training.curriculum import Curriculum, curriculum_of
    from pipnet.self_training.face_store import FaceRules, UnlabelledFaces
    from pipnet.self_training.ingest import gather
    from pipnet.self_training.loop import TEACHER_COPY, SelfTraining
    from pipnet.self_training.stages import StageRecords, stage_table
    from pipnet.self_training.teacher import pool_digest
    from pipnet.train import announce, build_material, build_network, train_network
    from pipnet.training.distributed import Processes, processes
    from pipnet.training.setup import Material, training_record
    from pipnet.training.state import TrainingError


_WHERE = ("unlabelled", "pool")  # say where the photos and their faces lie; which ones they are is compared


@dataclass(frozen=True)
class _Options:
    """The config group ``self_training``."""

    newest: str  # which weights of a stage are the newest model: its best or its last ones
    epoch_faces: int | None
    images: int | None

    def __post_init__(self) -> None:
        if self.newest not in ("best", "last"):
            raise ValueError(f"self_training.newest must be best or last, got {self.newest!r}")
        for key, value in (("epoch_faces", self.epoch_faces), ("images", self.images)):
            if value is not None and not (isinstance(value, int) and value > 0):
                raise ValueError(f"self_training.{key} must be a whole number from 1, got {value!r}")
        if self.images is not None and self.epoch_faces is None:
            raise ValueError(
                "self_training.images needs self_training.epoch_faces, so that all epochs are equally long"
            )


@command("self_train")
def main(cfg: DictConfig) -> None:
    """Self-train as the config says."""
    settings = plain(cfg)
    try:
        with processes(settings["device"]) as team:
            self_train(settings, team)
    except KeyboardInterrupt:  # where nothing listens for it: every part of the work can be cut short
        raise TrainingError(f"stopped on request; the same command goes on from {settings['folder']}") from None


def self_train(settings: dict[str, Any], team: Processes) -> Path:
    """Self-train from a plain config (the content of ``conf/self_train.yaml``).

    Returns:
        The checkpoint of the whole run.

    Raises:
        ValueError, OSError, TrainingError: What the user can mend, in one sentence.
    """
    curriculum, teacher = build_curriculum(settings), _teacher(settings["teacher"])
    config = {key: value for key, value in settings.items() if key not in _WHERE}
    folder = Path(settings["folder"])
    material = build_material(settings)
    if teacher is not None:
        copy = folder / TEACHER_COPY  # what a run goes on with, even when the file itself is gone
        teacher = copy if copy.is_file() else teacher
        material = _taught_by(teacher, material)

    def new_network(seed: int) -> PIPNet:
        return build_network(settings, material, seed=seed)

    _check(curriculum, teacher, new_network(settings["seed"]))
    records = StageRecords(folder, config, team)
    if team.is_main:
        announce(settings, material)
    unlabelled, about = _unlabelled_faces(settings, curriculum, records, team)
    record = training_record(config, material) | {"unlabelled": about}
    options = _options(settings)
    run = SelfTraining(
        curriculum=curriculum,
        material=material,
        unlabelled=unlabelled,
        folder=folder,
        records=records,
        team=team,
        new_network=new_network,
        fit=partial(train_network, settings, material=material, team=team),
        batch_size=settings["fit"]["batch_size"],
        box_scale=settings["box_scale"],
        seed=settings["seed"],
        epoch_faces=options.epoch_faces,
        newest=options.newest,
        teacher=teacher,
        record=record,
    )
    best = run.run()
    if team.is_main:
        print(f"{stage_table(records.stages)}\n{best}")
    return best


def build_curriculum(settings: Mapping[str, Any]) -> Curriculum:
    """The curriculum of a config, its epochs scaled where the run has a budget of images.

    Raises:
        ValueError: It does not fit the other settings, or has a key that means nothing.
    """
    curriculum, options, teacher = curriculum_of(settings["curriculum"]), _options(settings), settings["teacher"]
    name = settings["curriculum"].get("name", "of your own")
    if teacher and len(curriculum.stages) == 1:
        raise ValueError(f"teacher takes the place of the first stage, and curriculum {name} has no other")
    if curriculum.learns_unlabelled and not settings["unlabelled"]:
        raise ValueError(f"curriculum {name} learns from photos without labels: set unlabelled=[FOLDER]")
    if options.images is None or options.epoch_faces is None:
        return curriculum
    batch_size = settings["fit"]["batch_size"]
    epoch = options.epoch_faces // batch_size * batch_size
    return curriculum.scaled(round(options.images / max(epoch, 1)), first=1 if teacher else 0)


def _options(settings: Mapping[str, Any]) -> _Options:
    return called(_Options, "self_training", settings["self_training"])


def _teacher(name: str | None) -> Path | None:
    return None if name is None else SHIPPED_WEIGHTS if name == "shipped" else Path(name)


def _taught_by(teacher: Path, material: Material) -> Material:
    """The labelled faces with the teacher's mean face: its weights say where the neighbours are that it was taught.

    Raises:
        FileNotFoundError, CheckpointError: The teacher can't be read.
        ValueError: It is of another layout.
    """
    loaded = checkpoint.load(teacher)
    if loaded.layout != material.layout:
        raise ValueError(
            f"teacher {teacher} has layout {loaded.layout.name}, the dataset {material.layout.name}; choose a teacher"
            " of the dataset's layout"
        )
    return replace(material, mean_face=np.array(loaded.net.arguments["mean_face"]))


def _check(curriculum: Curriculum, teacher: Path | None, net: PIPNet) -> None:
    """Say before the first hour of work what would fail after it."""
    for stage in curriculum.stages:
        if net.grid % stage.pool:
            raise ValueError(
                f"curriculum: stage {stage.name} merges {stage.pool} x {stage.pool} cells, which does not divide the"
                f" {net.grid} x {net.grid} of the network; choose another pool, input_size or net_stride"
            )
    if teacher is not None and curriculum.stages[1].start == "newest":
        checkpoint.load_weights(net, checkpoint.read(teacher)["weights"], source=f"teacher {teacher}")


def _unlabelled_faces(
    settings: dict[str, Any], curriculum: Curriculum, records: StageRecords, team: Processes
) -> tuple[UnlabelledFaces | None, dict[str, Any] | None]:
    """Gather the faces, unless the run has them already or needs none."""
    if not curriculum.learns_unlabelled:
        return None, None
    pool, sources, known = Path(settings["pool"]), settings["unlabelled"], records.unlabelled
    if isinstance(sources, str | Mapping):
        sources = [sources]
    # Faces found with other rules may have taken their place: another run of the same pool.
    if not (known and known["sources"] == sources and team.from_main(lambda: _holds(pool, known["digest"]))):
        places = [_drawn(source, settings, team) if isinstance(source, Mapping) else source for source in sources]
        gathered = gather(
            places,
            pool,
            team=team,
            detector=settings["detector"],
            rules=called(FaceRules, "rules", settings["rules"]),
            face_size=settings["face_size"],
            progress=settings["fit"]["progress_bar"],
        )
        faces, counts = gathered.faces, gathered.counts
        if team.is_main:
            print(f"unlabelled: {gathered}")
    else:
        faces, counts = UnlabelledFaces(pool), known["counts"]
    about = {"sources": sources, "faces": len(faces), "counts": counts, "digest": pool_digest(pool)}
    records.learns_from(about)
    return faces, about


def _drawn(source: Mapping[str, Any], settings: dict[str, Any], team: Processes) -> Path:
    """Photos of drawn faces, where a source is not a place but the arguments of the drawing."""
    folder = Path(settings["folder"]) / "drawn_photos" / "_".join(str(source[key]) for key in sorted(source))
    return team.from_main(lambda: called(write_drawn_photos, "unlabelled", source, folder=folder))


def _holds(pool: Path, digest: str) -> bool:
    return (pool / "faces.npy").is_file() and pool_digest(pool) == digest


if __name__ == "__main__":
    main()
