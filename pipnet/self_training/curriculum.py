"""The stages of a self-training, and which one comes next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pipnet.model.loss import Shrink
from pipnet.self_training.pseudo_labels import Selection
from pipnet.training.setup import called

_OF_0_4 = {"pool": "pool_factor", "newest": "teacher"}  # names of pipnet 0.4, which go with 0.6
_NO_STAGES = "no stages; list at least one, see conf/curriculum"


@dataclass(frozen=True)
class Stage:
    """One training of a self-training.

    Attributes:
        name: Part of its folder's name.
        epochs: Of this stage.
        pseudo: Whether it learns from unlabelled faces too, with pseudo-labels of the stage before.
        teacher: The earlier stage whose network makes the pseudo-labels; None is the stage before.
        pool_factor: Cells of the score map a side that are merged for unlabelled faces: above 1 they train nothing
            else.
        shrink: How unlabelled faces teach a second head, instead of the one that is kept; None: they don't.
        start: ``"backbone"`` starts as any training does, ``"teacher"`` from the teacher's weights (without
            pseudo-labels those of the stage before), anything else names the earlier stage that it starts from.
        labelled_share: Part of an epoch that is labelled; None is their part of all faces.
        online: Whether the moving average of the weights labels them anew while the network learns; it needs
            ``fit.ema_decay``.
        views: Augmented views of each unlabelled face, whose mean a pseudo-label is.
        select: Which pseudo-labels are used and how much they count; None uses all, fully.

    Raises:
        ValueError: A value is out of range; the message names the stage.
    """

    name: str
    epochs: int
    pseudo: bool = True
    teacher: str | None = None
    pool_factor: int = 1
    shrink: Shrink | None = None
    start: str = "backbone"
    labelled_share: float | None = None
    online: bool = False
    views: int = 1
    select: Selection | None = None

    def __post_init__(self) -> None:
        where, share = f"stage {self.name}", self.labelled_share
        name_fits = re.fullmatch(r"[A-Za-z0-9_-]+", str(self.name))
        _check(name_fits, f"a stage's name is part of a folder's; {self.name!r} has other than A-Z 0-9 _ -")
        for name in ("epochs", "pool_factor", "views"):
            _check_whole(getattr(self, name), f"{where}: {name}")
        share_fits = share is None or (_is_number(share) and 0 <= share <= 1)
        _check(share_fits, f"{where}: labelled_share must lie in [0, 1], got {share!r}")
        _check_flag(self.pseudo, f"{where}: pseudo")
        _check_flag(self.online, f"{where}: online")
        defaults = {field.name: field.default for field in fields(self)}
        for name in ("pool_factor", "labelled_share", "select", "teacher", "shrink", "online"):
            _check(
                self.pseudo or getattr(self, name) == defaults[name],
                f"{where} has pseudo: false, so {name} means nothing",
            )
        _check(self.shrink is None or self.pool_factor == 1, f"{where}: shrink needs pool_factor: 1")


@dataclass(frozen=True)
class Curriculum:
    """What a self-training does.

    Attributes:
        stages: In order; the first learns from labels alone, and a teacher can take its place.
        most: How often the last stage may run.
        tolerance: Percent: it runs again until validation NME fell by less than this from one run to the next.
        one_schedule: Whether the learning rate falls once over all stages, instead of once in each. The optimiser and
            the moving average of the weights begin anew in every stage.
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
        for number, stage in enumerate(self.stages):
            earlier = [other.name for other in self.stages[:number]]
            start = None if stage.start in ("backbone", "teacher") else stage.start
            for key, name in (("teacher", stage.teacher), ("start", start)):
                _check(
                    name is None or earlier.count(name) == 1,
                    f"stage {stage.name}: {key} must name one earlier stage, of {', '.join(earlier)}; got {name!r}",
                )
            _check(
                not stage.online or self.start_of(number) == self.teacher_of(number),
                f"stage {stage.name} is online: its teacher is the average of its own weights, so it has to start from"
                " the network that labelled the faces first; set start: teacher",
            )
        _check_whole(self.most, "repeat.most")
        _check(_is_number(self.tolerance), f"repeat.tolerance must be a number, got {self.tolerance!r}")
        _check_flag(self.one_schedule, "one_schedule")
        known_end = self.most == 1 or not self.one_schedule
        _check(known_end, "one_schedule needs repeat.most 1: a schedule must know its end")

    def teacher_of(self, number: int) -> int:
        """Number of the stage whose network makes the pseudo-labels of a stage."""
        return self._earlier(self.stage(number).teacher, number)

    def start_of(self, number: int) -> int | None:
        """Number of the stage from whose weights a stage starts; None where it starts from the backbone's."""
        start = self.stage(number).start
        if start == "backbone":
            return None
        return self.teacher_of(number) if start == "teacher" else self._earlier(start, number)

    def stage(self, number: int) -> Stage:
        """The stage of a number: from the last one on it is the last one, which may be repeated."""
        return self.stages[min(number, len(self.stages) - 1)]

    def _earlier(self, name: str | None, number: int) -> int:
        return number - 1 if name is None else [stage.name for stage in self.stages].index(name)

    @property
    def learns_unlabelled(self) -> bool:
        """Whether any stage does."""
        return any(stage.pseudo for stage in self.stages)

    def after(self, nmes: Sequence[float]) -> tuple[str, Stage] | None:
        """The stage that follows on finished ones, with its folder's name; None after the last.

        ``nmes`` are the validation NMEs of the finished stages.

        Example:
            >>> curriculum = Curriculum((Stage("labels", 2, pseudo=False), Stage("full", 2)), most=4, tolerance=1.0)
            >>> [curriculum.after(nmes)[0] for nmes in ([], [5.0], [5.0, 4.0])]
            ['0_labels', '1_full', '2_full_2']
        """
        number, last = len(nmes), self.stages[-1]
        repeats = number - len(self.stages) + 1
        begun = [*self.stages, *[last] * repeats][: number + 1]
        if repeats > 0:
            # Two runs of the same stage are needed to see what a run brings; a curriculum may list it twice.
            comparable = number > 1 and begun[-3] == last
            if repeats >= self.most or (comparable and nmes[-1] > nmes[-2] * (1 - self.tolerance / 100)):
                return None
        stage = begun[-1]
        times = sum(other.name == stage.name for other in begun)
        return f"{number}_{stage.name}" + (f"_{times}" if times > 1 else ""), stage

    def span(self, number: int, *, first: int = 0) -> tuple[int, int] | None:
        """Which part of the learning-rate schedule is stage ``number``'s, if stages before ``first`` are not trained.

        Returns:
            Epochs of the run before the stage, and in all; None where each stage has a schedule of its own.
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
    options = {key: value for key, value in config.items() if key not in ("name", "stages", "repeat")}
    listed: Any = config.get("stages")
    repeat, stages = config.get("repeat") or {}, []
    _check(isinstance(listed, list) and all(isinstance(values, Mapping) for values in listed), _NO_STAGES)
    _check(isinstance(repeat, Mapping), f"repeat has the keys most and tolerance, got {repeat!r}")
    for number, written in enumerate(listed):
        values: dict[str, Any] = {
            str(_OF_0_4.get(key, key)): _OF_0_4.get(str(value), value) for key, value in written.items()
        }
        for key, kind in (("select", Selection), ("shrink", Shrink)):
            if values.get(key) is not None:
                values[key] = called(kind, f"curriculum.stages.{number}.{key}", values[key])
        stages.append(called(Stage, f"curriculum.stages.{number}", values))
    return called(Curriculum, "curriculum", {**repeat, "stages": tuple(stages)}, **options)


def _check(holds: object, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"curriculum: {otherwise}")


def _check_whole(value: object, name: str) -> None:
    _check(isinstance(value, int) and value > 0, f"{name} must be a whole number from 1, got {value!r}")


def _check_flag(value: object, name: str) -> None:
    _check(isinstance(value, bool), f"{name} must be true or false, got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
