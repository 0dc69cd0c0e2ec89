"""What is known of a self-training between its stages: the files ``run.json`` and ``stages.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipnet.atomic import replacing
from pipnet.training.curriculum import curriculum_of
from pipnet.training.processes import Processes
from pipnet.training.pseudo_labels import Selection
from pipnet.training.state import TrainingError, refuse_another_setting


class StageRecords:
    """The finished stages of a run, on the disk and in memory.

    A stage is finished when its record is in ``stages.json``. ``run.json`` holds the settings that the run was begun
    with, and which unlabelled faces it learns from: once there are weights in the folder, neither may change.

    Args:
        folder: Of the run; made if it is not there.
        config: Plain settings, of which :data:`pipnet.training.state.FREE_SETTINGS` may change.
        team: The processes of the run; the main one reads and writes.

    Attributes:
        stages: One record a finished stage.

    Raises:
        TrainingError: The run was begun with another setting, which the message names; or the folder holds a training
            of another kind.
        ValueError: A file is damaged.
        OSError: A file can't be written.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], team: Processes) -> None:
        self._team = team
        self._run_path, self._stages_path = folder / "run.json", folder / "stages.json"

        def begin() -> tuple[dict[str, Any], list[dict[str, Any]]]:
            folder.mkdir(parents=True, exist_ok=True)
            for name in ("best.pt", "last.pt"):
                if (folder / name).is_file() and not self._run_path.is_file():
                    raise TrainingError(
                        f"{folder / name} was not made by a self-training, which would replace it; choose another"
                        " folder"
                    )
            for leftover in [*folder.glob(".run-*.json"), *folder.glob(".stages-*.json"), *folder.glob(".best-*.pt")]:
                leftover.unlink(missing_ok=True)
            run, stages = _read(self._run_path, {"config": None}), _read(self._stages_path, [])
            trained = stages or any(folder.glob("*/*.pt"))
            if run["config"] is None or (run["config"] != config and not trained):  # a slip may be put right
                run = {"config": dict(config)}
                _write(self._run_path, run)
            return run, stages

        self._run, self.stages = team.from_main(begin)
        before = self._run["config"]
        self._refuse_other_stages(before, config)
        refuse_another_setting(_by_number(before), _by_number(config), source=self._run_path)

    @property
    def unlabelled(self) -> dict[str, Any] | None:
        """The unlabelled faces of the run, where they are known."""
        return self._run.get("unlabelled")

    def add(self, record: dict[str, Any]) -> None:
        """A stage is finished."""
        self.stages.append(record)
        self._team.from_main(lambda: _write(self._stages_path, self.stages))

    def learns_from(self, unlabelled: dict[str, Any]) -> None:
        """Remember the unlabelled faces, or refuse others than before.

        Args:
            unlabelled: ``digest`` says which faces they are, ``faces`` how many.

        Raises:
            TrainingError: They are others than when the run was begun.
        """
        before = self._run.get("unlabelled")
        if before is None:
            self._run["unlabelled"] = unlabelled
            self._team.from_main(lambda: _write(self._run_path, self._run))
        elif before["digest"] != unlabelled["digest"]:
            raise TrainingError(
                f"{self._run_path}: the run was begun with {before['faces']} unlabelled faces, now there are others"
                f" ({unlabelled['faces']}); give it the photos it had, or choose another folder"
            )

    def _refuse_other_stages(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        counts = [len(config["curriculum"]["stages"]) for config in (before, now)]
        if counts[0] != counts[1]:
            raise TrainingError(
                f"{self._run_path}: the run was begun with {counts[0]} stages (curriculum.stages), now {counts[1]};"
                " keep the setting or choose another folder"
            )


def _by_number(config: Mapping[str, Any]) -> dict[str, Any]:
    """The curriculum with its defaults, its stages a mapping, so that a message can name the value that differs."""
    curriculum = curriculum_of(config["curriculum"])
    stages = {
        str(number): asdict(stage) | {"select": asdict(stage.select or Selection())}
        for number, stage in enumerate(curriculum.stages)
    }
    repeat = {"most": curriculum.most, "tolerance": curriculum.tolerance}
    return {
        **config,
        "curriculum": {"stages": stages, "repeat": repeat, "one_schedule": curriculum.one_schedule},
    }


def _read(path: Path, otherwise: Any) -> Any:
    """Content of a file, which has the type and the keys of what is taken where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if type(content) is not type(otherwise) or not all(key in content for key in otherwise):
            raise ValueError("it was not written by a self-training")
    except FileNotFoundError:
        return otherwise
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); choose another folder, or delete this one") from error
    return content


def _write(path: Path, content: Any) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
