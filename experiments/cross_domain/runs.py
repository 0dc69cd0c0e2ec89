"""The trainings of the benchmark: which there are, how many images they saw, and what each measured, once.

What a finished run measured is kept in ``errors/<pair>_<curriculum>_<seed>.json``: NME of each face, no label and no
picture, and the digest of the weights: another training of the same name is measured anew. So a test set is read once
for each run, the runs of several sessions and machines meet in one table, and every figure can be computed again
without the checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.files import replacing

SEEDS = (0, 1, 2)  # at least these; further ones that are there take part
Errors = dict[str, dict[str, np.ndarray]]  # set, norm, to (F,) fractions


@dataclass(frozen=True)
class Run:
    """One training of a row.

    Attributes:
        folder: Of ``python -m pipnet.self_train``; None where only the errors are kept.
        errors: The file of its errors, there or not.
    """

    folder: Path | None
    errors: Path

    @property
    def is_measured(self) -> bool:
        """Whether its errors are kept: of these weights, where they are there."""
        if self.folder is None or not self.errors.is_file():
            return self.errors.is_file()
        try:
            return json.loads(self.errors.read_text(encoding="utf-8"))["sha256"] == self._sha256()
        except (ValueError, LookupError, TypeError):  # damaged: it can be measured again
            return False

    def read(self) -> tuple[int, Errors]:
        """Images it trained on, and its errors.

        Raises:
            ValueError: The file is damaged.
        """
        try:
            kept = json.loads(self.errors.read_text(encoding="utf-8"))
            errors = {
                name: {norm: np.array(values, dtype=float) / 100 for norm, values in norms.items()}
                for name, norms in kept["errors"].items()
            }
            return int(kept["training_images"]), errors
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self.errors} is damaged ({error!r}); delete it and measure its run again") from error

    def keep(self, made_by: str, errors: Errors) -> None:
        """Write what was measured.

        Raises:
            ValueError: The run does not say how many images it saw.
            OSError: The file can't be written.
        """
        assert self.folder is not None
        kept: dict[str, Any] = {
            "command": made_by,
            "sha256": self._sha256(),
            "training_images": training_images(self.folder),
            "unit": "NME of each face in percent, in the order of the set",
            "errors": {
                name: {norm: [round(100 * float(value), 5) for value in values] for norm, values in norms.items()}
                for name, norms in errors.items()
            },
        }
        self.errors.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.errors) as temporary:
            temporary.write_text(json.dumps(kept) + "\n", encoding="utf-8")

    def _sha256(self) -> str:
        assert self.folder is not None
        return hashlib.sha256((self.folder / "best.pt").read_bytes()).hexdigest()


def command(pair: str, row: str, seed: int) -> str:
    """What makes a run."""
    return f"python -m pipnet.self_train experiment=cross_domain_{pair} curriculum={row} seed={seed}"


def find_runs(
    runs: Path | None, pair: str, rows: Collection[str], *, partial: bool, kept: Path
) -> dict[str, dict[int, Run]]:
    """Row, then seed, to a run that is finished here, or was measured before.

    Args:
        runs: Folder of the runs' folders; None asks for what was measured alone.
        pair: Of :data:`pairs.PAIRS`.
        rows: Curricula.
        partial: Leave out what is missing.
        kept: Folder of the errors.

    Raises:
        FileNotFoundError: A run is missing and ``partial`` is off, or there is none at all; the message names the
            command that makes it.
    """
    found: dict[str, dict[int, Run]] = {}
    for row in rows:
        folders = _numbered(runs, f"cross_domain_{pair}_{row}_", "")
        finished = {seed: folder for seed, folder in folders.items() if (folder / "best.pt").is_file()}
        measured = _numbered(kept, f"{pair}_{row}_", ".json")
        seeds = sorted({*finished, *measured})
        found[row] = {seed: Run(finished.get(seed), kept / f"{pair}_{row}_{seed}.json") for seed in seeds}
    seeds = sorted({*SEEDS, *(seed for there in found.values() for seed in there)})
    missing = [(row, seed) for row in rows for seed in seeds if seed not in found[row]]
    if missing and (not partial or not any(found.values())):
        row, seed = missing[0]
        folder = (runs or Path("runs")) / f"cross_domain_{pair}_{row}_{seed}"
        more = f"{len(missing) - 1} more are missing; " if len(missing) > 1 else ""
        raise FileNotFoundError(
            f"no finished run {folder}; make it with: {command(pair, row, seed)} folder={folder} "
            f"({more}--partial leaves such runs out)"
        )
    return {row: there for row, there in found.items() if there}


def training_images(folder: Path) -> int:
    """Images that all stages of a run trained on, each as often as it was seen.

    Raises:
        ValueError: The run's ``stages.json`` is missing or says nothing about it.
    """
    path = folder / "stages.json"
    try:
        return sum(int(stage["images"]) for stage in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not say how many images each stage saw ({error!r}); run it again") from error


def _numbered(folder: Path | None, start: str, end: str) -> dict[int, Path]:
    """Number to path of what is called ``<start><number><end>``."""
    name = re.compile(re.escape(start) + r"(\d+)" + re.escape(end))
    paths = folder.glob(f"{start}*{end}") if folder is not None and folder.is_dir() else []
    return {int(match[1]): path for path in paths if (match := name.fullmatch(path.name))}
