"""Train on labelled faces of one kind and on photos without labels of another.

python -m pipnet.self_train experiment=self_train_drawn                    # synthetic faces, no download
python -m pipnet.self_train unlabelled=[DIR] curriculum=paper recipe=paper # the paper's: labels of 300W, your photos
python -m pipnet.self_train unlabelled=[DIR] teacher=shipped               # from the weights that come with pipnet
torchrun --nproc-per-node 4 -m pipnet.self_train unlabelled=[DIR,LIST.txt] # several processes share all of it
python -m pipnet.self_train --export-for-labelling 100 unlabelled=[DIR]    # the photos to label, with points on them

Faces are found in the photos once; then every stage of the curriculum is a training, whose network labels the faces for
the next. The same command again resumes where a killed run stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipnet.console import failure, needs

with needs("train", __name__):
    import numpy as np
    from omegaconf import DictConfig

    from pipnet.config import command, plain
    from pipnet.data.synthetic.dataset import write_synthetic_photos
    from pipnet.layouts import can_map, get_layout
    from pipnet.model import checkpoint
    from pipnet.model.pipnet import PIPNet
    from pipnet.self_training.curriculum import Curriculum, curriculum_of
    from pipnet.self_training.face_store import UnlabelledFaces
    from pipnet.self_training.ingest import FaceRules, Ingested, ingest
    from pipnet.self_training.loop import TEACHER_COPY, Options, SelfTraining
    from pipnet.self_training.stages import StageRecords, stage_table
    from pipnet.self_training.to_label import FOLDER, export_for_labelling, exported
    from pipnet.train import announce, build_training_data
    from pipnet.training import distributed
    from pipnet.training.distributed import Processes
    from pipnet.training.setup import TrainingData, build_network, called, training_record, weights_file
    from pipnet.training.state import TrainingError

_WHERE = ("unlabelled", "face_store")  # say where the photos and their faces lie; which ones they are is compared
_EXPORT_FLAG = "--export-for-labelling"


def main() -> None:
    """The command: Hydra's, and the one option beside its keys."""
    sys.argv[1:] = flag_as_key(sys.argv[1:])
    _main()


def flag_as_key(arguments: Sequence[str]) -> list[str]:
    """``--export-for-labelling N`` as the key of the config that it is.

    Raises:
        SystemExit: There is no number behind it; one sentence.

    Example:
        >>> flag_as_key(["--export-for-labelling", "100", "seed=1"])
        ['export_for_labelling=100', 'seed=1']
    """
    keys, words = [], iter(arguments)
    for word in words:
        name, given, value = word.partition("=")
        if name == _EXPORT_FLAG:
            value = value if given else next(words, "")
            if not value.isdecimal():
                says = f"{_EXPORT_FLAG} needs a number of photos, as {_EXPORT_FLAG} 100; got {value!r}"
                sys.exit(failure("self_train", says))
            word = f"export_for_labelling={value}"
        keys.append(word)
    return keys


@command("self_train")
def _main(cfg: DictConfig) -> None:
    """Self-train as the config says."""
    settings = plain(cfg)
    work = self_train if settings["export_for_labelling"] is None else export
    try:
        with distributed.join_processes(settings["device"]) as processes:
            work(settings, processes)
    except KeyboardInterrupt:  # where nothing listens for it: every part of the work can be cut short
        raise TrainingError(f"stopped on request; the same command resumes from {settings['folder']}") from None


def self_train(settings: dict[str, Any], processes: Processes) -> Path:
    """Self-train from a plain config (the content of ``conf/self_train.yaml``).

    Returns:
        The checkpoint of the whole run.

    Raises:
        ValueError, OSError, TrainingError: What the user can mend, in one sentence.
    """
    curriculum, folder = build_curriculum(settings), Path(settings["folder"])
    options = called(Options, "self_training", settings["self_training"])
    called(FaceRules, "rules", settings["rules"])  # what is wrong there shows before faces are read
    config = {key: value for key, value in settings.items() if key not in (*_WHERE, "export_for_labelling")}
    training_data, teacher = build_training_data(settings), None
    if settings["teacher"] is not None:
        copy = folder / TEACHER_COPY  # what a run resumes with, even when the file itself is gone
        teacher = copy if copy.is_file() else weights_file(settings["teacher"])
        training_data = taught_by(teacher, training_data)
    trained = curriculum.stages[0 if teacher is None else 1 :]
    blank = all(stage.start != "backbone" for stage in trained)
    say = print if processes.is_main else str
    net = build_network(settings, training_data, seed=settings["seed"], blank=blank, say=say)
    # What would fail after the first hour of work is said before it.
    for stage in curriculum.stages:
        if (stage.pool_factor > 1 or stage.shrink) and not isinstance(net, PIPNet):
            coarse = f"pool_factor: {stage.pool_factor}", "a coarse task"
            key, what = ("shrink", "a second head") if stage.shrink else coarse
            raise ValueError(
                f"curriculum: stage {stage.name} has {key}, {what} that only PIPNet has; choose a curriculum without,"
                " such as curriculum=none"
            )
        if stage.select and stage.select.min_face and not net.ranks_faces:
            raise ValueError(
                f"curriculum: stage {stage.name} selects faces by their scores (min_face), which are all alike here;"
                " give coordinates +model.flips=true, or set min_face: 0"
            )
        by_yaw = stage.select and (stage.select.balanced or stage.select.max_yaw)
        if by_yaw and not can_map(training_data.layout, get_layout("300w_68")):
            raise ValueError(
                f"curriculum: stage {stage.name} chooses by yaw (balanced, max_yaw), which the points of layout"
                f" {training_data.layout.name} don't tell; leave both out"
            )
        if stage.online and not settings["fit"]["ema_decay"]:
            raise ValueError(
                f"curriculum: stage {stage.name} has online: true, whose teacher is the moving average of the weights;"
                " set fit.ema_decay, such as 0.998"
            )
        if net.grid % stage.pool_factor:
            raise ValueError(
                f"curriculum: stage {stage.name} merges {stage.pool_factor} x {stage.pool_factor} cells, which does"
                f" not divide the {net.grid} x {net.grid} of the network;"
                " choose another pool_factor, input_size or net_stride"
            )
    if teacher is not None and any(curriculum.start_of(n) == 0 for n in range(1, len(curriculum.stages))):
        checkpoint.load_weights(net, checkpoint.read(teacher)["weights"], source=f"teacher {teacher}")
    records = StageRecords(folder, config, processes)
    if processes.is_main:
        announce(settings, training_data, net)
    unlabelled = _unlabelled_faces(settings, records, processes) if curriculum.learns_unlabelled else None
    about = records.unlabelled if curriculum.learns_unlabelled else None
    record = training_record(config, training_data) | {"unlabelled": about}
    run = SelfTraining(settings, options, curriculum, training_data, unlabelled, records, processes, teacher, record)
    best = run.run()
    if processes.is_main:
        print(f"{stage_table(records.stages)}\n{best}")
    return best


def build_curriculum(settings: Mapping[str, Any]) -> Curriculum:
    """The curriculum of a config, its epochs scaled where the run has a budget of images.

    Raises:
        ValueError: It does not fit the other settings, or has a key that means nothing.
    """
    curriculum, teacher = curriculum_of(settings["curriculum"]), settings["teacher"]
    options = called(Options, "self_training", settings["self_training"])
    name = settings["curriculum"].get("name", "of your own")
    if teacher and len(curriculum.stages) == 1:
        raise ValueError(f"teacher takes the place of the first stage, and curriculum {name} has no other")
    if teacher and settings["init_from"] and all(stage.start != "backbone" for stage in curriculum.stages[1:]):
        raise ValueError(f"every stage of curriculum {name} goes on from the teacher; leave out init_from")
    if curriculum.learns_unlabelled and not settings["unlabelled"]:
        raise ValueError(f"curriculum {name} learns from photos without labels: set unlabelled=[FOLDER]")
    if options.images is None or options.epoch_faces is None:
        return curriculum
    batch_size = settings["fit"]["batch_size"]
    epoch = options.epoch_faces // batch_size * batch_size
    return curriculum.scaled(round(options.images / max(epoch, 1)), first=1 if teacher else 0)


def taught_by(teacher: Path, training_data: TrainingData) -> TrainingData:
    """The labelled faces with the teacher's mean face: its weights say where the neighbours are that it was taught.

    Raises:
        FileNotFoundError, CheckpointError: The teacher can't be read.
        ValueError: It is of another layout.
    """
    loaded = checkpoint.load(teacher)
    if loaded.layout != training_data.layout:
        raise ValueError(
            f"teacher {teacher} has layout {loaded.layout.name}, the dataset {training_data.layout.name}; choose a"
            " teacher of the dataset's layout"
        )
    return replace(training_data, mean_face=np.array(loaded.net.arguments["mean_face"]))


def export(settings: dict[str, Any], processes: Processes) -> Path:
    """Choose photos to label and write them, with points, into ``to_label`` in the run's folder.

    Returns:
        The folder.

    Raises:
        ValueError, OSError, TrainingError: What the user can mend, in one sentence.
    """
    count, folder = settings["export_for_labelling"], Path(settings["folder"]) / FOLDER
    if not isinstance(count, int) or isinstance(count, bool) or count < 2:
        raise ValueError(f"{_EXPORT_FLAG} must be a whole number of photos from 2, got {count!r}")
    if not settings["unlabelled"]:
        raise ValueError(f"{_EXPORT_FLAG} chooses among photos: set unlabelled=[FOLDER]")
    named = settings["teacher"] or settings["init_from"] or "shipped"
    model = checkpoint.load(weights_file(named))
    if processes.from_main(lambda: folder.exists() and exported(folder) is None):
        raise ValueError(f"{folder} is there and no export; choose another folder=FOLDER, or move it away")
    sources = processes.from_main(lambda: _sources(settings))
    found = _ingested(settings, sources, processes)
    model.net.to(processes.device)
    more = {"count": count, "seed": settings["seed"], "progress": settings["fit"]["progress_bar"]}
    says = processes.from_main(lambda: export_for_labelling(model, found.faces, folder, sources=sources, **more))
    if processes.is_main:
        print(says)
    return folder


def _sources(settings: Mapping[str, Any]) -> list[str | Path]:
    """Where the photos lie; of a source that is arguments instead, photos of synthetic faces are written first."""
    sources, folder = settings["unlabelled"], Path(settings["folder"]) / "drawn_photos"

    def place(source: str | Mapping[str, Any]) -> str | Path:
        if not isinstance(source, Mapping):
            return source
        own = folder / "_".join(str(source[key]) for key in sorted(source))
        return called(write_synthetic_photos, "unlabelled", source, folder=own)

    return [place(source) for source in ([sources] if isinstance(sources, str | Mapping) else sources)]


def _ingested(settings: Mapping[str, Any], sources: list[str | Path], processes: Processes) -> Ingested:
    """The faces in the photos; says how many there are."""
    ingested = ingest(
        sources,
        Path(settings["face_store"]),
        processes=processes,
        detector=settings["detector"],
        rules=called(FaceRules, "rules", settings["rules"]),
        face_size=settings["face_size"],
        progress=settings["fit"]["progress_bar"],
    )
    if processes.is_main:
        print(f"unlabelled: {ingested}")
    return ingested


def _unlabelled_faces(settings: dict[str, Any], records: StageRecords, processes: Processes) -> UnlabelledFaces:
    """Ingest the photos, unless the run has their faces already."""
    store, sources, known = Path(settings["face_store"]), settings["unlabelled"], records.unlabelled
    if isinstance(sources, str | Mapping):
        sources = [sources]
    one_machine = processes.on_one_machine

    def has(digest: str) -> bool:
        try:
            UnlabelledFaces(store, digest).database.share(one_machine=one_machine)
        except FileNotFoundError:
            return False
        return True

    if known and known["sources"] == sources and processes.from_main(lambda: has(known["digest"])):
        return UnlabelledFaces(store, known["digest"])
    ingested = _ingested(settings, processes.from_main(lambda: _sources(settings)), processes)
    faces, counts = ingested.faces, ingested.counts
    records.learns_from({"sources": sources, "faces": len(faces), "counts": counts, "digest": faces.digest})
    return faces


if __name__ == "__main__":
    main()
