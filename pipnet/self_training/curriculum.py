"""The stages of a self-training, and which one comes next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from pipnet.self_training.pseudo_labels import Selection


@dataclass(frozen=True)
class Stage:
    """One training of a self-training.

    Attributes:
        name: Part of its folder's name.
        epochs: Of this stage.
        pseudo: Whether it learns from unlabelled faces too, with pseudo-labels of the teacher: the network of the stage
            before.
        pool_factor: Cells of the score map a side that are merged for unlabelled faces: above 1 they train nothing
            else.
        start: ``"backbone"`` starts as any training does, ``"teacher"`` from the teacher's weights.
        labelled_share: Part of an epoch that is labelled; None is their part of all faces.
        views: Augmented views of each unlabelled face, whose mean a pseudo-label is.
        select: Which pseudo-labels are used and how much they count; None uses all, fully.

    Raises:
        ValueError: A value is out of range; the message names the stage.
    """

    name: str
    epochs: int
    pseudo: bool = True
    pool_factor: int = 1
    start: Literal["backbone", "teacher"] = "backbone"
    labelled_share: float | None = None
    views: int = 1
    select: Selection | None = None

    def __post_init__(self) -> None:
        where, share = f"stage {self.name}", self.labelled_share
        _check(
            re.fullmatch(r"[A-Za-z0-9_-]+", str(self.name)),
            f"a stage's name is part of a folder's; {self.name!r} has other than A-Z 0-9 _ -",
        )
        for name in ("epochs", "pool_factor", "views"):
            _check_whole(getattr(self, name), f"{where}: {name}")
        _check(
            share is None or (_is_number(share) and 0 <= share <= 1),
            f"{where}: labelled_share must lie in [0, 1], got {share!r}",
        )
        _check_flag(self.pseudo, f"{where}: pseudo")
        _check(self.start in ("backbone", "teacher"), f"{where}: start must be backbone or teacher, got {self.start!r}")
        _check(
            self.pseudo or (self.pool_factor == 1 and share is None and self.select is None),
            f"{where} has pseudo: false, so pool_factor, labelled_share and select mean nothing",
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
        _check(self.stages, _NO_STAGES)
        where = f"stage {self.stages[0].name} comes first"
        _check(
            not self.stages[0].pseudo,
            f"{where}, when there is no network that could make pseudo-labels; begin with one that has pseudo: false",
        )
        _check(self.stages[0].start == "backbone", f"{where}, its start must be backbone")
        _check_whole(self.most, "repeat.most")
        _check(_is_number(self.tolerance), f"repeat.tolerance must be a number, got {self.tolerance!r}")
        _check_flag(self.one_schedule, "one_schedule")
        _check(
            self.most == 1 or not self.one_schedule, "one_schedule needs repeat.most 1: a schedule must know its end"
        )

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
        """Which part of the learning-rate schedule is stage ``number``'s, if stages before ``first`` are not trained.

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
        """The same stages, shortened or lengthened in proportion to so many epochs in all, repeats not counted.

        Stages before ``first`` are not trained and keep their epochs.

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


def curriculum_of(config: Mapping[str, Any]) -> Curriculum:
    """A curriculum from plain values, the content of a file of ``conf/curriculum``.

    Raises:
        ValueError: It has no stages, or a key or value that means nothing; the message names it.
    """
    _check_keys(config, ("name", "stages", "repeat", "one_schedule"))
    listed, repeat = config.get("stages"), config.get("repeat") or {}
    if not isinstance(listed, Sequence) or not all(isinstance(values, Mapping) for values in listed):
        raise ValueError(f"curriculum: {_NO_STAGES}")
    stages = []
    for number, written in enumerate(listed):
        where = f"stage {number}: "
        values: dict[str, Any] = {
            str(_OF_0_4.get(key, key)): _OF_0_4.get(str(value), value) for key, value in written.items()
        }
        _check_keys(values, [field.name for field in fields(Stage)], where)
        for name in ("name", "epochs"):
            _check(name in values, f"{where}{name} is missing")
        if (select := values.get("select")) is not None:
            _check_keys(select, [field.name for field in fields(Selection)], f"stage {number}, select: ")
            values["select"] = Selection(**select)
        stages.append(Stage(**values))
    _check_keys(repeat, ("most", "tolerance"), "repeat: ")
    return Curriculum(tuple(stages), **repeat, one_schedule=config.get("one_schedule", False))


_OF_0_4 = {"pool": "pool_factor", "newest": "teacher"}  # names of pipnet 0.4, which go with 0.6
_NO_STAGES = "no stages; list at least one, see conf/curriculum"


def _check(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"curriculum: {otherwise}")


def _check_whole(value: object, name: str) -> None:
    _check(isinstance(value, int) and value > 0, f"{name} must be a whole number from 1, got {value!r}")


def _check_flag(value: object, name: str) -> None:
    _check(isinstance(value, bool), f"{name} must be true or false, got {value!r}")


def _check_keys(values: object, known: Sequence[str], where: str = "") -> None:
    wrong = sorted(map(str, values.keys() - set(known))) if isinstance(values, Mapping) else [values]
    _check(not wrong, f"{where}no key {wrong[0] if wrong else None!r}; keys are {', '.join(known)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
