"""Self-training: stage after stage, the teacher labels the faces that nobody did, and the next network learns.

What a stage computes follows from the settings, the faces and the stages before it alone, so a run that was killed at
any moment and started again ends with the same weights as one that was not.

Reference:
    Paper section 3.4; the authors' ``train_gssl.py``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipnet.data.dataset import FaceCrops, MixedFaces
from pipnet.files import replacing
from pipnet.model import checkpoint
from pipnet.model.checkpoint import LoadedModel
from pipnet.model.codec import SECOND_HEAD_TASK
from pipnet.self_training.curriculum import Curriculum, Stage
from pipnet.self_training.face_store import UnlabelledFaces
from pipnet.self_training.online import OnlineTeacher
from pipnet.self_training.pseudo_labels import PseudoLabels, Selection, Teacher, estimate
from pipnet.self_training.stages import StageRecords, held_out, report_labels, report_stage
from pipnet.training.distributed import Processes
from pipnet.training.setup import TrainingData, build_network, calibrate_checkpoint, scores_of, train_network
from pipnet.training.validation import Validation

# Stages draw from streams of their own. That of the first is the training's, so that it gives what a training gives.
_SEED_STEP, _UNLABELLED, _VIEWS = 10_000, 5_000, 7_000

TEACHER_COPY = Path("0_teacher", "best.pt")  # in the folder of a run that began with a teacher


@dataclass(frozen=True)
class Options:
    """The config group ``self_training``."""

    teacher_weights: str  # which weights of a stage are the next teacher: its best or its last ones
    epoch_faces: int | None
    images: int | None

    def __post_init__(self) -> None:
        if self.teacher_weights not in ("best", "last"):
            raise ValueError(f"self_training.teacher_weights must be best or last, got {self.teacher_weights!r}")
        for key, value in (("epoch_faces", self.epoch_faces), ("images", self.images)):
            if value is not None and not (isinstance(value, int) and value > 0):
                raise ValueError(f"self_training.{key} must be a whole number from 1, got {value!r}")
        if self.images is not None and self.epoch_faces is None:
            raise ValueError("self_training.images needs self_training.epoch_faces: all epochs must be equally long")


@dataclass
class SelfTraining:
    """A run of a curriculum."""

    settings: Mapping[str, Any]  # the content of conf/self_train.yaml
    options: Options
    curriculum: Curriculum
    training_data: TrainingData  # its mean face is that of all stages: it says who is whose neighbour
    unlabelled: UnlabelledFaces | None  # where the curriculum uses them
    records: StageRecords
    processes: Processes
    teacher: Path | None  # a network that takes the place of the first stage
    record: dict[str, Any]  # of the training, for checkpoints

    def __post_init__(self) -> None:
        self.folder, self.seed = Path(self.settings["folder"]), self.settings["seed"]

    def run(self) -> Path:
        """Do the stages that are not finished.

        Returns:
            ``best.pt``: the chosen weights of the last stage, with calibrated scores.

        Raises:
            TrainingError: A stage was stopped or failed; the message names it.
            ValueError, OSError: A setting does not fit, or a file is damaged or can't be read or written.
        """
        while (following := self.curriculum.after([record["val_nme"] for record in self.records.stages])) is not None:
            number = len(self.records.stages)
            if number == 0 and self.teacher is not None:
                self.records.add(self.processes.from_main(self._take_teacher))
            else:
                self.records.add(self._train(number, *following))
        self.processes.from_main(self._finish)
        return self.folder / "best.pt"

    def _take_teacher(self) -> dict[str, Any]:
        """Copy the teacher into the run, so that the run is whole even when the file changes."""
        assert self.teacher is not None
        path = self.folder / TEACHER_COPY
        path.parent.mkdir(exist_ok=True)
        if not path.is_file():
            with replacing(path) as temporary:
                shutil.copyfile(self.teacher, temporary)
        loaded = checkpoint.load(path)
        crop = {"input_size": loaded.net.input_size, "crop_scale": loaded.crop_scale}
        validation = Validation(FaceCrops(self.training_data.held_out, loaded.layout, **crop), loaded.layout)
        figures = validation(loaded.net.to(self.processes.device), self.processes.device)
        record = {"number": 0, "name": TEACHER_COPY.parent.name, "epochs": 0, "images": 0, **figures}
        record |= {"weights": TEACHER_COPY.as_posix(), "pseudo_labels": None}
        record |= held_out(loaded.net, validation, self.processes.device)
        report_stage(self.folder, record)
        return record

    def _train(self, number: int, name: str, stage: Stage) -> dict[str, Any]:
        folder, seed = self.folder / name, self.seed + number * _SEED_STEP
        batch_size, weights = self.settings["fit"]["batch_size"], self.options.teacher_weights
        if self.processes.is_main:
            print(f"stage {name}")
        teacher = self._teacher(number) if stage.pseudo else None
        pseudo = self._label(name, number, stage, teacher) if teacher else None
        faces = self._faces(stage, seed, pseudo)
        start = self.curriculum.start_of(number)
        net = build_network(self.settings, self.training_data, seed=seed, blank=start is not None)
        if start is not None:
            path = self._weights_of(start)
            checkpoint.load_weights(net, checkpoint.load(path).net.state_dict(), source=str(path))
        record = {**self.record, "stage": name, "stages": self.records.shared}
        result = train_network(
            self.settings,
            net,
            faces,
            training_data=self.training_data,
            processes=self.processes,
            folder=folder,
            epochs=stage.epochs,
            span=self.curriculum.span(number, first=0 if self.teacher is None else 1),
            seed=seed,
            record=record,
            shrink=stage.shrink,
            relabel=self._online(stage, teacher) if stage.online and teacher else None,
        )

        def finished() -> dict[str, Any]:
            """On the main process, the only one that validates."""
            measured = [figures for figures in result.history if "val_nme" in figures]
            chosen = min(measured, key=lambda figures: figures["val_nme"]) if weights == "best" else measured[-1]
            trained = checkpoint.load(folder / f"{weights}.pt").net.to(self.processes.device)
            # A stage of pseudo-labels alone is a means, and nobody labelled for one without them: neither is compared.
            compared = stage.pseudo and stage.labelled_share != 0
            before = self.records.stages[self.curriculum.teacher_of(number)] if compared else None
            record = {
                "number": number,
                "name": name,
                "epochs": stage.epochs,
                "images": stage.epochs * (len(faces) // batch_size) * batch_size,
                "val_nme": chosen["val_nme"],
                "val_nme_box": chosen["val_nme_box"],
                "labelled": len(self.training_data.faces),
                "unlabelled": 0 if pseudo is None else pseudo.samples(stage.select).faces,
                "weights": f"{name}/{weights}.pt",
                "pseudo_labels": None if pseudo is None else report_labels(self.folder, name, number, pseudo),
                "seed": seed,
                **held_out(trained, self.training_data.validation, self.processes.device, before=before),
            }
            report_stage(self.folder, record)
            return record

        return self.processes.from_main(finished)

    def _teacher(self, number: int) -> LoadedModel:
        """The network that labels for a stage, its scores calibrated on the validation faces."""
        number = self.curriculum.teacher_of(number)
        path = self._weights_of(number)
        model = checkpoint.load(path)
        model.net.to(self.processes.device)
        if model.net.ranks_faces and not model.net.confidence.calibrated:
            # Once: fitted again the last digits could differ, and with them the labels.
            if "confidence" not in self.records.stages[number]:
                fitted = self.processes.from_main(lambda: scores_of(model, self.training_data, source=path))
                self.records.note(number, confidence=fitted)
            model.net.calibrate(self.records.stages[number]["confidence"])
        return model

    def _online(self, stage: Stage, teacher: LoadedModel) -> OnlineTeacher:
        """The average of the weights as a teacher; its scores are calibrated as those of the network it starts from."""
        confidence = teacher.net.arguments.get("confidence")
        return OnlineTeacher(teacher.layout, confidence, stage.select or Selection())

    def _label(self, name: str, number: int, stage: Stage, model: LoadedModel) -> PseudoLabels:
        """All unlabelled faces, by the teacher."""
        assert self.unlabelled is not None
        shift = label_shift_of(model, otherwise=self.training_data.faces.label_shift)
        # By the teacher, so that two stages with the same one have the same labels.
        seed = self.seed + (self.curriculum.teacher_of(number) + 1) * _SEED_STEP + _VIEWS
        labels = estimate(
            Teacher(model, label_shift=shift, views=stage.views, seed=seed), self.unlabelled, self.processes
        )
        self.processes.from_main(lambda: report_labels(self.folder, name, number, labels))
        return labels

    def _faces(self, stage: Stage, seed: int, pseudo: PseudoLabels | None) -> FaceCrops | MixedFaces:
        """What a stage trains on."""
        known, length = self.training_data.faces, self.options.epoch_faces
        shared: dict[str, Any] = {
            "layout": self.training_data.layout,
            "input_size": known.input_size,
            "crop_scale": known.crop_scale,
            "label_shift": known.label_shift,
            "augment": known.augment,
        }
        taught = {"labelled": False, "unlabelled": True} if stage.online else {}
        labelled = FaceCrops(known.samples, seed=seed, taught=taught.get("labelled"), **shared)
        if pseudo is None:
            return labelled if length is None else MixedFaces(labelled, None, length=length)
        chosen = pseudo.samples(stage.select)
        if not len(chosen):
            raise ValueError(f"stage {stage.name}: no pseudo-label is what select wants; lower min_face, raise max_yaw")
        task = stage.pool_factor if stage.shrink is None else SECOND_HEAD_TASK
        unlabelled = FaceCrops(
            chosen, seed=seed + _UNLABELLED, pool_factor=task, taught=taught.get("unlabelled"), **shared
        )
        return MixedFaces(labelled, unlabelled, labelled_share=stage.labelled_share, length=length)

    def _weights_of(self, number: int) -> Path:
        """The checkpoint of a finished stage that the next ones use."""
        return self.folder / self.records.stages[number]["weights"]

    def _finish(self) -> None:
        path = self.folder / "best.pt"
        stages = self.records.shared
        if not path.is_file() or checkpoint.read(path)["training"].get("stages") != stages:
            last = checkpoint.load(self._weights_of(-1))
            images = sum(stage["images"] for stage in stages)
            training = {**last.training, **self.record, "stages": stages, "images": images}
            checkpoint.save(path, last.net, layout=last.layout, crop_scale=last.crop_scale, training=training)
        calibrate_checkpoint(path, self.training_data)


def label_shift_of(teacher: LoadedModel, *, otherwise: float) -> float:
    """``label_shift`` of the faces that a network was taught with, where the record in its checkpoint tells."""
    dataset = teacher.training.get("config", {}).get("dataset")
    return otherwise if dataset is None else dataset.get("label_shift", 0.0)
