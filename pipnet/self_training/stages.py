"""Records of a self-training: which stages are finished, and the table and contact sheet of their pseudo-labels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from pipnet.data.images import read_image
from pipnet.files import replacing
from pipnet.metrics import bootstrap, mean_error, paired_bootstrap
from pipnet.model.confidence import TOLERANCE
from pipnet.model.loss import Shrink
from pipnet.model.network import LandmarkNet
from pipnet.self_training.curriculum import curriculum_of
from pipnet.self_training.pseudo_labels import YAW_BINS, PseudoLabels, Selection, write_contact_sheet, write_table
from pipnet.training.distributed import Processes
from pipnet.training.state import TrainingError, refuse_another_setting
from pipnet.training.validation import Validation


class StageRecords:
    """The finished stages of a run, on the disk and in memory.

    A stage is finished when its record is in ``stages.json``. ``run.json`` holds the settings that the run was begun
    with, and which unlabelled faces it learns from: once there are weights in the folder, neither may change, but for
    :data:`pipnet.training.state.FREE_SETTINGS`.

    Attributes:
        stages: One record a finished stage.

    Raises:
        TrainingError: The run was begun with another setting, which the message names; or the folder holds a training
            of another kind.
        ValueError: A file is damaged.
        OSError: A file can't be written.
    """

    def __init__(self, folder: Path, config: dict[str, Any], processes: Processes) -> None:
        self._processes = processes
        self._run_path, self._stages_path = folder / "run.json", folder / "stages.json"

        def begin() -> tuple[dict[str, Any], list[dict[str, Any]]]:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("best.pt", "last.pt"):
                if (folder / name).is_file() and not self._run_path.is_file():
                    why = "was not made by a self-training, which would replace it"
                    raise TrainingError(f"{folder / name} {why}; choose another folder")
            for leftover in [*folder.glob(".run-*.json"), *folder.glob(".stages-*.json"), *folder.glob(".best-*.pt")]:
                leftover.unlink(missing_ok=True)
            run, stages = _read(self._run_path, {"config": None}), _read(self._stages_path, [])
            trained = stages or any(folder.glob("*/*.pt"))
            if run["config"] is None or (run["config"] != config and not trained):  # a slip may be put right
                run = {"config": config}
                _write(self._run_path, run)
            return run, stages

        self._run, self.stages = processes.from_main(begin)
        before = self._run["config"]
        counts = [len(settings["curriculum"]["stages"]) for settings in (before, config)]
        if counts[0] != counts[1]:
            raise TrainingError(
                f"{self._run_path}: the run was begun with {counts[0]} stages (curriculum.stages), now {counts[1]};"
                " keep the setting or choose another folder"
            )
        refuse_another_setting(_by_number(before), _by_number(config), source=self._run_path)

    @property
    def shared(self) -> list[dict[str, Any]]:
        """The records for a checkpoint: without the error of every face."""
        kept = ("nme", "agreement", "to_teacher")
        return [
            stage | {"held_out": {key: stage["held_out"][key] for key in kept}} if "held_out" in stage else stage
            for stage in self.stages
        ]

    @property
    def unlabelled(self) -> dict[str, Any] | None:
        """The unlabelled faces of the run, where they are known."""
        return self._run.get("unlabelled")

    def add(self, record: dict[str, Any]) -> None:
        """A stage is finished."""
        self.stages.append(record)
        self._processes.from_main(lambda: _write(self._stages_path, self.stages))

    def note(self, number: int, **more: Any) -> None:
        """Add to the record of a finished stage what a later one found out."""
        self.stages[number] |= more
        self._processes.from_main(lambda: _write(self._stages_path, self.stages))

    def learns_from(self, unlabelled: dict[str, Any]) -> None:
        """Remember which faces (``digest``) and how many (``faces``) the run learns from; others are refused."""
        before = self._run.get("unlabelled")
        if before is None:
            self._run["unlabelled"] = unlabelled
            self._processes.from_main(lambda: _write(self._run_path, self._run))
        elif before["digest"] != unlabelled["digest"]:
            raise TrainingError(
                f"{self._run_path}: the run was begun with {before['faces']} unlabelled faces, now there are others"
                f" ({unlabelled['faces']}); give it the photos it had, or choose another folder"
            )


def _by_number(config: dict[str, Any]) -> dict[str, Any]:
    """The curriculum with its defaults, its stages a mapping, so that a message can name the value that differs."""
    curriculum = curriculum_of(config["curriculum"])
    none = dict.fromkeys(field.name for field in fields(Shrink))
    stages = {
        str(number): asdict(stage)
        | {"select": asdict(stage.select or Selection()), "shrink": asdict(stage.shrink) if stage.shrink else none}
        for number, stage in enumerate(curriculum.stages)
    }
    repeat = {"most": curriculum.most, "tolerance": curriculum.tolerance}
    return config | {"curriculum": {"stages": stages, "repeat": repeat, "one_schedule": curriculum.one_schedule}}


def _read(path: Path, otherwise: Any) -> Any:
    """Content of a file, of the type and with the keys of what is taken where there is none."""
    if not path.is_file():
        return otherwise
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if type(content) is not type(otherwise) or not all(key in content for key in otherwise):
            raise ValueError("it was not written by a self-training")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); choose another folder, or delete this one") from error
    return content


def _write(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


_PERCENTILES = (5, 25, 50, 75, 95)
_SCORE_BINS = (0.5, 0.9)
_MOST_FACES = 20_000  # that the percentiles and the histogram are made of, evenly spread over all


def report_labels(run: Path, name: str, number: int, labels: PseudoLabels) -> dict[str, dict[str, float]]:
    """Write table, contact sheet and summary of a stage's pseudo-labels, once, and show them in TensorBoard.

    The files go into ``NAME/pseudo_labels``. Returns percentiles of the scores of the points (``points``: ``p5`` to
    ``p95``, and ``mean``), and the shares of the faces by score and by yaw, in degrees.
    """
    folder = run / name / "pseudo_labels"
    summary, sheet = folder / "summary.json", folder / "contact_sheet.png"
    about = {"stage": name, **labels.about}
    if summary.is_file():  # written last
        before = json.loads(summary.read_text(encoding="utf-8"))
        if {**before, **about} == before:
            return before["pseudo_labels"]
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(".*-*.*"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    scores = np.stack([labels[n].scores for n in range(0, len(labels), -(-len(labels) // _MOST_FACES))])
    percentiles = {f"p{p}": float(np.percentile(scores, p)) for p in _PERCENTILES}
    percentiles["mean"] = float(scores.mean())
    yaws = np.abs(labels.yaws[~np.isnan(labels.yaws)])
    shares = {"scores": _shares(labels.face_scores, _SCORE_BINS), "yaws": _shares(yaws, YAW_BINS)}
    summary_of = {"points": percentiles, **shares}
    write_table(labels, folder / "table.csv")
    write_contact_sheet(labels, sheet)
    with SummaryWriter(str(run), purge_step=number) as writer:
        for key, value in percentiles.items():
            writer.add_scalar(f"scores/{key}", value, number)
        writer.add_histogram("scores", scores, number)
        writer.add_image("pseudo_labels", read_image(sheet), number, dataformats="HWC")
    _write(summary, about | {"pseudo_labels": summary_of})
    return summary_of


def _shares(values: np.ndarray, bins: Sequence[float]) -> dict[str, float]:
    """Share of the values in each bin, named by its lower limit; empty where there are no values."""
    counts = np.bincount(np.digitize(values, bins), minlength=len(bins) + 1)
    named = zip((0, *bins), counts, strict=True)
    return {f"{low:g}": float(count / len(values)) for low, count in named if len(values)}


def held_out(
    net: LandmarkNet, validation: Validation, device: torch.device, *, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a stage's network does on validation faces, for its record; NME in percent, with intervals of 95 %.

    ``before`` is the record of its teacher, to which ``to_teacher`` is the difference on the same faces.
    """
    errors, right = validation.by_face(net, device)
    errors = errors[~np.isnan(errors)]
    figures: dict[str, Any] = {
        "nme": vars(bootstrap(errors, {"mean": mean_error})["mean"].scaled(100)),
        "agreement": float(np.nanmean(right)),
        "errors": [round(float(error), 6) for error in errors],
        "to_teacher": None,
    }
    known = before.get("held_out", {}).get("errors", []) if before else []
    if len(known) == len(errors):  # of the same faces: validation faces may have come or gone since
        figures["to_teacher"] = vars(paired_bootstrap(errors, np.array(known)).scaled(100))
    return {"held_out": figures}


def report_stage(folder: Path, record: dict[str, Any]) -> None:
    """Say how a finished stage went, and add its validation to the curves of the run."""
    print(evidence(record))
    with SummaryWriter(str(folder)) as writer:
        for name in ("val_nme", "val_nme_box"):
            writer.add_scalar(f"stage/{name}", record[name], record["number"])


def evidence(record: Mapping[str, Any]) -> str:
    """A line on a finished stage: validation, agreement, what its pseudo-labels were; another where it got worse."""
    figures, labels, change = record["held_out"], record["pseudo_labels"], record["held_out"]["to_teacher"]
    nme = figures["nme"]
    parts = [
        f"validation NME {nme['value']:.2f} % ({nme['low']:.2f} to {nme['high']:.2f})",
        f"{100 * figures['agreement']:.1f} % of the held-out points within {100 * TOLERANCE:g} % of the box",
    ]
    if labels is not None:
        for name, unit in (("yaws", "°"), ("scores", "")):
            shares = [f"{100 * share:.0f} % from {low}{unit}" for low, share in labels[name].items()]
            if shares:
                parts.append(f"pseudo-labels by {name[:-1]}: {', '.join(shares)}")
    lines = [f"{record['name']}: {'; '.join(parts)}"]
    if change is not None and change["value"] > 0:
        sure = "" if change["low"] > 0 else "; the difference may be chance"
        lines.append(
            f"warning: {record['name']} is worse than its teacher by {change['value']:.2f}"
            f" ({change['low']:.2f} to {change['high']:.2f}) % NME on the validation faces{sure}"
        )
    return "\n".join(lines)


def stage_table(stages: list[dict[str, Any]]) -> str:
    """The stages of a run as text."""
    lines = [f"{'stage':14} {'images':>8} {'val NME':>9} {'by box':>8} {'scores (median)':>17}"]
    for stage in stages:
        labels = stage.get("pseudo_labels")  # 0.4 had something else
        median = "-" if labels is None else f"{labels['points']['p50']:.3f}"
        figures = f"{stage['images']:8d} {stage['val_nme']:9.3f} {stage['val_nme_box']:8.3f}"
        lines.append(f"{stage['name']:14} {figures} {median:>17}")
    return "\n".join([*lines, f"{'all':14} {sum(stage['images'] for stage in stages):8d}"])
