"""The stages of a self-training, and which one comes next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal

from pipnet.self_training.pseudo_labels import Selection


@dataclass(frozen=True)
class Stage:
    """One training of a self-training.

    Attributes:
        name: Part of its folder's name.
        epochs: Of this stage.
        pseudo: Whether it learns from unlabelled faces too, with pseudo-labels of the newest network.
        pool: Cells of the score map a side that are merged for unlabelled faces: above 1 they train nothing else.
        start: ``"backbone"`` starts as any training does, ``"newest"`` from the newest network's weights.
        labelled_share: Part of an epoch that is labelled; None is their part of all faces.
        views: Looks at each unlabelled face that a pseudo-label is the mean of.
        select: Which pseudo-labels are used and how much they count; None uses all, fully.

    Raises:
        ValueError: A value is out of range; the message names the stage.
    """

    name: str
    epochs: int
    pseudo: bool = True
    pool: int = 1
    start: Literal["backbone", "newest"] = "backbone"
    labelled_share: float | None = None
    views: int = 1
    select: Selection | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", str(self.name)):
            raise ValueError(
                f"curriculum: a stage's name is part of a folder's; {self.name!r} has other than A-Z 0-9 _ -"
            )
        for name in ("epochs", "pool", "views"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"curriculum: stage {self.name}: {name} must be a whole number from 1, got {value!r}")
        share = self.labelled_share
        if share is not None and not (_is_number(share) and 0 <= share <= 1):
            raise ValueError(f"curriculum: stage {self.name}: labelled_share must lie in [0, 1], got {share!r}")
        if not isinstance(self.pseudo, bool):
            raise ValueError(f"curriculum: stage {self.name}: pseudo must be true or false, got {self.pseudo!r}")
        if self.start not in ("backbone", "newest"):
            raise ValueError(f"curriculum: stage {self.name}: start must be backbone or newest, got {self.start!r}")
        if not self.pseudo and (self.pool > 1 or self.labelled_share is not None or self.select is not None):
            raise ValueError(
                f"curriculum: stage {self.name} has pseudo: false, so pool, labelled_share and select mean nothing"
            )


@dataclass(frozen=True)
class Curriculum:
    """What a self-training does.

    Attributes:
        stages: In order; the first learns from labels alone, and a teacher can take its place.
        most: How often the last stage may run.
        tolerance: Percent: it runs again until validation NME fell by less than this from one run to the next.
        one_schedule: Whether the learning rate falls once over all stages, instead of once in each. The optimiser and
            the moving average of the weights begin anew in every stage.

    Example:
        >>> curriculum = Curriculum((Stage("labels", 2, pseudo=False), Stage("full", 2)), most=4, tolerance=1.0)
        >>> [curriculum.after(nmes)[0] for nmes in ([], [5.0], [5.0, 4.0], [5.0, 4.0, 3.0])]
        ['0_labels', '1_full', '2_full_2', '3_full_3']
        >>> curriculum.after([5.0, 4.0, 3.0, 2.99]) is None
        True
    """

    stages: tuple[Stage, ...]
    most: int = 1
    tolerance: float = 0.0
    one_schedule: bool = False

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError("curriculum: no stages; list at least one, see conf/curriculum")
        if self.stages[0].pseudo:
            raise ValueError(
                f"curriculum: stage {self.stages[0].name} comes first, when there is no network that could make"
                " pseudo-labels; begin with a stage that has pseudo: false"
            )
        if self.stages[0].start == "newest":
            raise ValueError(f"curriculum: stage {self.stages[0].name} comes first, its start must be backbone")
        if not isinstance(self.most, int) or self.most < 1:
            raise ValueError(f"curriculum: repeat.most must be a whole number from 1, got {self.most!r}")
        if not _is_number(self.tolerance):
            raise ValueError(f"curriculum: repeat.tolerance must be a number, got {self.tolerance!r}")
        if not isinstance(self.one_schedule, bool):
            raise ValueError(f"curriculum: one_schedule must be true or false, got {self.one_schedule!r}")
        if self.one_schedule and self.most > 1:
            raise ValueError("curriculum: one_schedule needs repeat.most 1: a schedule must know its end")

    @property
    def learns_unlabelled(self) -> bool:
        """Whether any stage does."""
        return any(stage.pseudo for stage in self.stages)

    def after(self, nmes: Sequence[float]) -> tuple[str, Stage] | None:
        """The stage that follows on those that are finished.

        Args:
            nmes: Validation NME of each finished stage.

        Returns:
            Its folder's name and the stage, or None after the last.
        """
        number, last = len(nmes), self.stages[-1]
        if number < len(self.stages):
            stage, before = self.stages[number], self.stages[:number]
        else:
            stage, before = last, self.stages + (last,) * (number - len(self.stages))
            repeats = number - len(self.stages) + 1
            # Two runs of the same stage are needed to see what a run brings; a curriculum may list it twice.
            comparable = number > 1 and before[-2] == last
            if repeats >= self.most or (comparable and nmes[-1] > nmes[-2] * (1 - self.tolerance / 100)):
                return None
        earlier = sum(other.name == stage.name for other in before)
        return f"{number}_{stage.name}" + (f"_{earlier + 1}" if earlier else ""), stage

    def span(self, number: int, *, first: int = 0) -> tuple[int, int] | None:
        """Which part of the learning-rate schedule is a stage's.

        Args:
            number: Of the stage.
            first: Stages before this one are not trained.

        Returns:
            Epochs of the run before the stage, and in all; None where each stage has a schedule of its own.

        Example:
            >>> stages = (Stage("labels", 5, pseudo=False), Stage("mixed", 2), Stage("mixed", 3))
            >>> Curriculum(stages, one_schedule=True).span(2), Curriculum(stages).span(2)
            ((7, 10), None)
        """
        if not self.one_schedule:
            return None
        epochs = [stage.epochs for stage in self.stages]
        return sum(epochs[first:number]), sum(epochs[first:])

    def scaled(self, epochs: int, *, first: int = 0) -> Curriculum:
        """The same stages, shortened or lengthened in proportion so that they have so many epochs together.

        Args:
            epochs: In all, repeats not counted.
            first: Stages before this one are not trained and keep their epochs.

        Raises:
            ValueError: Fewer epochs than stages.

        Example:
            >>> curriculum = Curriculum((Stage("labels", 60, pseudo=False), Stage("full", 30)))
            >>> [stage.epochs for stage in curriculum.scaled(10).stages]
            [7, 3]
        """
        parts = self.stages[first:]
        whole = sum(stage.epochs for stage in parts)
        ends = [round(epochs * sum(stage.epochs for stage in parts[: k + 1]) / whole) for k in range(len(parts))]
        lengths = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
        if min(lengths) < 1:
            raise ValueError(f"{epochs} epochs are too few for {len(parts)} stages; raise self_training.images")
        scaled = [replace(stage, epochs=length) for stage, length in zip(parts, lengths, strict=True)]
        return replace(self, stages=(*self.stages[:first], *scaled))


_KEYS = ("name", "stages", "repeat", "one_schedule")


def curriculum_of(config: Mapping[str, Any]) -> Curriculum:
    """A curriculum from plain values, the content of a file of ``conf/curriculum``.

    Raises:
        ValueError: It has no stages, or a key or value that means nothing; the message names it.
    """
    if unknown := config.keys() - _KEYS:
        raise ValueError(f"curriculum: no key {min(unknown)!r}; keys are {', '.join(_KEYS)}")
    listed = config.get("stages")
    if not isinstance(listed, Sequence) or isinstance(listed, str) or not all(isinstance(s, Mapping) for s in listed):
        raise ValueError("curriculum: no stages; list at least one, see conf/curriculum")
    stages = []
    for number, values in enumerate(listed):
        select = values.get("select")
        if select is not None:
            select = _made(Selection, select, f"stage {number}, select")
        stages.append(_made(Stage, {**values, "select": select}, f"stage {number}"))
    repeat = _made(_Repeat, config.get("repeat") or {}, "repeat")
    return Curriculum(tuple(stages), repeat.most, repeat.tolerance, config.get("one_schedule", False))


@dataclass(frozen=True)
class _Repeat:
    most: int = 1
    tolerance: float = 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _made(kind: type[Any], values: Any, where: str) -> Any:
    """A dataclass from plain values, or one sentence that names the key."""
    known = {field.name: field.default is MISSING for field in fields(kind)}
    if not isinstance(values, Mapping) or values.keys() - known.keys():
        wrong = sorted(values.keys() - known.keys())[0] if isinstance(values, Mapping) else values
        raise ValueError(f"curriculum: {where}: no key {wrong!r}; keys are {', '.join(known)}")
    lacking = [name for name, needed in known.items() if needed and name not in values]
    if lacking:
        raise ValueError(f"curriculum: {where}: {lacking[0]} is missing")
    return kind(**values)
