"""Point layouts as data: how many points a face has, what they are called, and how layouts map to each other.

Everything that depends on *which* points a dataset labels (mirroring, the normalising distance, the groups that are
drawn and reported) is read from a :class:`PointLayout`. A user's own set needs a YAML file with the same fields.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from pipnet.console import needs
from pipnet.files import read_text, yaml_fault


@dataclass(frozen=True)
class PointGroup:
    """Points that form one line of the face, in drawing order; where it is closed the last one joins the first.

    ``name`` is unique in the layout, as ``"left_brow"``, left as the picture has it. ``part`` is
    the facial part it is reported under, as ``"brow"``.
    """

    name: str
    part: str
    indices: tuple[int, ...]
    closed: bool = False


@dataclass(frozen=True)
class PointLayout:
    """What the N points of a face mean.

    Attributes:
        name: For example ``"300w_68"``.
        num_points: N.
        mirror: Permutation of N: point ``i`` of a mirrored face is point ``mirror[i]`` of the face.
        norm_pair: Two points whose distance normalises the error (outer eye corners), or None: the box does.
        pupils: For the left and the right eye the points whose mean stands for the pupil, or None.
        groups: Lines to draw; together they name the facial parts.
        inner: Points counted as inner face (for 68 points: the 51 that are not the jaw); empty means all.
        names: One name a point; made from the groups when not given.

    Raises:
        ValueError: If the mirror is not its own inverse, or an index lies outside the layout; the message names it.
    """

    name: str
    num_points: int
    mirror: tuple[int, ...]
    norm_pair: tuple[int, int] | None = None
    pupils: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    groups: tuple[PointGroup, ...] = ()
    inner: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = self.num_points
        if n < 1:
            raise ValueError(f"layout {self.name!r}: num_points must be at least 1, got {n}")
        if len(self.mirror) != n:
            raise ValueError(f"layout {self.name!r}: mirror has {len(self.mirror)} entries for {n} points")
        for what, indices in self._index_lists():
            for i in indices:
                if not 0 <= i < n:
                    raise ValueError(f"layout {self.name!r}: {what} names point {i}, but points run from 0 to {n - 1}")
        for point, partner in enumerate(self.mirror):
            if self.mirror[partner] != point:
                sends = f"mirror sends point {point} to {partner}, but {partner} to {self.mirror[partner]}"
                raise ValueError(f"layout {self.name!r}: {sends}; partners must name each other")
        if not self.names:
            object.__setattr__(self, "names", self._names_from_groups())
        if len(self.names) != n:
            raise ValueError(f"layout {self.name!r}: {len(self.names)} names for {n} points")

    @property
    def is_named(self) -> bool:
        """Whether its points have names of their own, not made from the groups."""
        return self.names != self._names_from_groups()

    def _index_lists(self) -> list[tuple[str, Sequence[int]]]:
        return [
            *(("mirror", self.mirror), ("inner", self.inner), ("norm_pair", self.norm_pair or ())),
            *(("pupils", side) for side in self.pupils or ()),
            *((f"group {group.name!r}", group.indices) for group in self.groups),
        ]

    def _names_from_groups(self) -> tuple[str, ...]:
        names = [f"point_{i}" for i in range(self.num_points)]
        for group in reversed(self.groups):  # the first group that holds a point names it
            for position, index in enumerate(group.indices):
                names[index] = f"{group.name}_{position}"
        return tuple(names)

    def parts(self) -> dict[str, list[int]]:
        """Facial parts and their points, in the order of the groups, each point once."""
        parts: dict[str, list[int]] = {}
        for group in self.groups:
            members = parts.setdefault(group.part, [])
            members.extend(index for index in group.indices if index not in members)
        return parts

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, as written to a checkpoint; :func:`layout_from_dict` is the inverse."""
        return json.loads(json.dumps(asdict(self)))


def layout_from_dict(values: Mapping[str, Any]) -> PointLayout:
    """Build a layout from plain types: a checkpoint's, or a YAML file's.

    Instead of ``mirror`` a file may give ``mirror_pairs``, a list of two-point lists; points in no pair mirror to
    themselves.

    Raises:
        ValueError: If a field is missing, unknown or contradicts another; the message names it.

    Example:
        >>> layout_from_dict({"name": "eyes", "num_points": 3, "mirror_pairs": [[0, 1]], "norm_pair": [0, 1]}).mirror
        (1, 0, 2)
    """
    known = {field.name for field in fields(PointLayout)} | {"mirror_pairs"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"layout field {unknown[0]!r} is not known; known fields: {', '.join(sorted(known))}")
    for required in ("name", "num_points"):
        if required not in values:
            raise ValueError(f"a layout needs the field {required!r}")
    num_points = int(values["num_points"])
    mirror = values.get("mirror")
    if mirror is None:
        mirror = _mirror_from_pairs(num_points, values.get("mirror_pairs") or ())
    groups = tuple(map(_group, values.get("groups") or ()))
    norm_pair = _two("norm_pair", values.get("norm_pair"))
    pupils = _two("pupils", values.get("pupils"))
    return PointLayout(
        name=str(values["name"]),
        num_points=num_points,
        mirror=tuple(map(int, mirror)),
        norm_pair=(int(norm_pair[0]), int(norm_pair[1])) if norm_pair else None,
        pupils=(tuple(map(int, pupils[0])), tuple(map(int, pupils[1]))) if pupils else None,
        groups=groups,
        inner=tuple(map(int, values.get("inner") or ())),
        names=tuple(map(str, values.get("names") or ())),
    )


def _group(values: Any) -> PointGroup:
    if not isinstance(values, Mapping) or not {"name", "indices"} <= set(values):
        raise ValueError(f"group {values!r} must have the fields 'name' and 'indices'")
    name, indices = str(values["name"]), tuple(map(int, values["indices"]))
    return PointGroup(name, str(values.get("part", name)), indices, closed=bool(values.get("closed", False)))


def load_layout(path: str | Path) -> PointLayout:
    """Read a user's own layout from a YAML file (the fields of :func:`layout_from_dict`).

    Raises:
        ValueError: The file is not a layout; the message names the file and the field.
    """
    with needs("train"):
        import yaml

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no layout file {path}; built-in layouts: {', '.join(LAYOUTS)}")
    text = read_text(path)
    try:
        values = yaml.safe_load(text)
        if not isinstance(values, dict):
            raise ValueError("expected 'field: value' lines")
        return layout_from_dict(values)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not a point layout: {yaml_fault(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path}: not a point layout: {error}") from error


def get_layout(name: str | Path) -> PointLayout:
    """A built-in layout by name, or one read from a ``.yaml`` file."""
    if str(name) in LAYOUTS:
        return LAYOUTS[str(name)]
    if str(name).endswith((".yaml", ".yml")):
        return load_layout(name)
    raise ValueError(f"no layout {str(name)!r}; built in: {', '.join(LAYOUTS)}; or give the path of a .yaml file")


def _two(what: str, value: Any) -> Any:
    """The value if it is missing or has two entries."""
    if value is not None and (not isinstance(value, Sequence) or len(value) != 2):
        raise ValueError(f"{what} must have two entries, got {value!r}")
    return value


def _mirror_from_pairs(num_points: int, pairs: Sequence[Sequence[int]]) -> tuple[int, ...]:
    mirror = list(range(num_points))
    for a, b in (_two("each of mirror_pairs", pair) for pair in pairs):
        for i in (a, b):
            if not 0 <= i < num_points:
                raise ValueError(f"mirror pair [{a}, {b}] names point {i}, but points run from 0 to {num_points - 1}")
        mirror[a], mirror[b] = b, a
    return tuple(mirror)


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


def _facing(num_points: int, *runs: tuple[Sequence[int], Sequence[int]]) -> tuple[int, ...]:
    """The mirror of pairs of runs that face each other point by point, in the given order."""
    return _mirror_from_pairs(num_points, [pair for left, right in runs for pair in zip(left, right, strict=True)])


_300W_68 = PointLayout(
    name="300w_68",
    num_points=68,
    mirror=_facing(
        68,
        *[(_span(0, 7), range(16, 8, -1)), (_span(17, 21), range(26, 21, -1))],
        *[((31, 32), (35, 34)), (_span(36, 41), (45, 44, 43, 42, 47, 46))],
        *[((48, 49, 50), (54, 53, 52)), ((58, 59), (56, 55)), ((60, 61, 67), (64, 63, 65))],
    ),
    norm_pair=(36, 45),
    pupils=(_span(36, 41), _span(42, 47)),
    groups=(
        PointGroup("jaw", "jaw", _span(0, 16)),
        PointGroup("left_brow", "brow", _span(17, 21)),
        PointGroup("right_brow", "brow", _span(22, 26)),
        PointGroup("nose_bridge", "nose", _span(27, 30)),
        PointGroup("nose_base", "nose", _span(31, 35)),
        PointGroup("left_eye", "eye", _span(36, 41), closed=True),
        PointGroup("right_eye", "eye", _span(42, 47), closed=True),
        PointGroup("outer_lip", "mouth", _span(48, 59), closed=True),
        PointGroup("inner_lip", "mouth", _span(60, 67), closed=True),
    ),
    inner=_span(17, 67),
)

_WFLW_98 = PointLayout(
    name="wflw_98",
    num_points=98,
    mirror=_facing(
        98,
        *[(_span(0, 15), range(32, 16, -1)), (_span(33, 37), range(46, 41, -1)), (_span(38, 41), (50, 49, 48, 47))],
        *[((55, 56), (59, 58)), (_span(60, 67), (72, 71, 70, 69, 68, 75, 74, 73)), ((96,), (97,))],
        *[((76, 77, 78), (82, 81, 80)), ((86, 87), (84, 83)), ((88, 89, 95), (92, 91, 93))],
    ),
    norm_pair=(60, 72),
    pupils=((96,), (97,)),
    groups=(
        PointGroup("jaw", "jaw", _span(0, 32)),
        PointGroup("left_brow", "brow", _span(33, 41), closed=True),
        PointGroup("right_brow", "brow", _span(42, 50), closed=True),
        PointGroup("nose_bridge", "nose", _span(51, 54)),
        PointGroup("nose_base", "nose", _span(55, 59)),
        PointGroup("left_eye", "eye", _span(60, 67), closed=True),
        PointGroup("right_eye", "eye", _span(68, 75), closed=True),
        PointGroup("outer_lip", "mouth", _span(76, 87), closed=True),
        PointGroup("inner_lip", "mouth", _span(88, 95), closed=True),
        PointGroup("left_pupil", "eye", (96,)),
        PointGroup("right_pupil", "eye", (97,)),
    ),
    inner=_span(33, 97),
)

_COFW_29 = PointLayout(
    name="cofw_29",
    num_points=29,
    mirror=_mirror_from_pairs(
        29, [(0, 1), (2, 3), (4, 6), (5, 7), (8, 9), (10, 11), (12, 14), (13, 15), (16, 17), (18, 19), (22, 23)]
    ),
    norm_pair=(8, 9),
    pupils=((16,), (17,)),
    groups=(
        PointGroup("left_brow", "brow", (0, 4, 2, 5), closed=True),
        PointGroup("right_brow", "brow", (1, 6, 3, 7), closed=True),
        PointGroup("left_eye", "eye", (8, 12, 10, 13), closed=True),
        PointGroup("right_eye", "eye", (9, 14, 11, 15), closed=True),
        PointGroup("left_pupil", "eye", (16,)),
        PointGroup("right_pupil", "eye", (17,)),
        PointGroup("nose", "nose", (18, 20, 19, 21), closed=True),
        PointGroup("outer_lip", "mouth", (22, 24, 23, 27), closed=True),
        PointGroup("inner_lip", "mouth", (25, 26)),
        PointGroup("chin", "jaw", (28,)),
    ),
)

_AFLW_19 = PointLayout(
    name="aflw_19",
    num_points=19,
    mirror=_mirror_from_pairs(19, [(0, 5), (1, 4), (2, 3), (6, 11), (7, 10), (8, 9), (12, 14), (15, 17)]),
    norm_pair=None,
    pupils=((7,), (10,)),
    groups=(
        PointGroup("left_brow", "brow", (0, 1, 2)),
        PointGroup("right_brow", "brow", (3, 4, 5)),
        PointGroup("left_eye", "eye", (6, 7, 8)),
        PointGroup("right_eye", "eye", (9, 10, 11)),
        PointGroup("nose", "nose", (12, 13, 14)),
        PointGroup("mouth", "mouth", (15, 16, 17)),
        PointGroup("chin", "jaw", (18,)),
    ),
)

LAYOUTS: dict[str, PointLayout] = {layout.name: layout for layout in (_300W_68, _WFLW_98, _COFW_29, _AFLW_19)}


def map_points(points: np.ndarray, source: PointLayout, target: PointLayout) -> np.ndarray:
    """Express points ``(..., N, 2)`` of one layout in another, as a copy; NaN (not labelled) stays NaN.

    Raises:
        ValueError: If no mapping is known (a layout with fewer points can't give one with more).

    Reference:
        WFLW to 300W follows the authors' ``convert_wflw`` (``lib/data_utils_gssl.py``), with the weights of the eye
        points 2/3 and 1/3 exactly: theirs (.666 and .333) sum to .999 and pull those points towards the origin.
        300W to AFLW is pipnet's own; :data:`AFLW_19_IN_300W_68` are the points that both label, the other seven are the
        nearest thing that 68 points have.
    """
    points = np.asarray(points)
    if points.shape[-2:] != (source.num_points, 2):
        raise ValueError(f"{source.name} points must be (..., {source.num_points}, 2), got {points.shape}")
    if source.name == target.name and source.num_points == target.num_points:
        return points.copy()
    weights = _MAPPINGS.get((source.name, target.name))
    if weights is None:
        known = ", ".join(f"{a} to {b}" for a, b in _MAPPINGS)
        raise ValueError(f"no mapping from layout {source.name!r} to {target.name!r}; known: {known}")
    unlabelled = np.isnan(points)
    mapped = np.einsum("cts,...sc->...tc", weights, np.where(unlabelled, 0.0, points))
    needed = np.einsum("cts,...sc->...tc", weights, unlabelled.astype(float))
    return np.where(needed > 0, np.nan, mapped)  # NaN only where a point that takes part is NaN


def can_map(source: PointLayout, target: PointLayout) -> bool:
    """Whether :func:`map_points` can turn ``source`` into ``target``."""
    return source.name == target.name or (source.name, target.name) in _MAPPINGS


def same_points(source: PointLayout, target: PointLayout) -> dict[int, int]:
    """Points of ``target`` that ``source`` has as well: target's number to source's.

    The same layout has all of them. Otherwise a mapping says it, or one the other way round, where it makes a point of
    one other alone; points that lie between others are none of them. Without a mapping points of equal names are the
    same; names made from groups count where the groups have as many points.

    Example:
        >>> len(same_points(LAYOUTS["wflw_98"], LAYOUTS["300w_68"]))
        52
        >>> same_points(LAYOUTS["wflw_98"], LAYOUTS["cofw_29"])  # the pupils
        {16: 96, 17: 97}
    """
    differ = source.is_named and target.is_named and source.names != target.names
    if source.name == target.name and source.num_points == target.num_points and not differ:
        return {point: point for point in range(target.num_points)}
    there, back = _MAPPINGS.get((source.name, target.name)), _MAPPINGS.get((target.name, source.name))
    if there is not None and there.shape[1:] == (target.num_points, source.num_points):
        return _single(there)
    if back is not None and back.shape[1:] == (source.num_points, target.num_points):
        return {point: other for other, point in _single(back).items()}
    sizes = not source.is_named and not target.is_named
    theirs = {name: point for point, name in enumerate(_comparable(source, sizes)) if name is not None}
    return {point: theirs[name] for point, name in enumerate(_comparable(target, sizes)) if name in theirs}


def _single(weights: np.ndarray) -> dict[int, int]:
    """Targets of mapping weights ``(2, T, S)`` that are one source point, x and y alike, and which one."""
    return {int(target): int(source) for target, source in np.argwhere((weights == 1).all(axis=0))}


def _comparable(layout: PointLayout, sizes: bool) -> list[tuple[str, int, bool] | None]:
    """Names of points, with ``sizes`` also how many the group has and whether it is closed; None has no name."""
    if layout.is_named:
        return [(name, 0, False) for name in layout.names]
    found: list[tuple[str, int, bool] | None] = [None] * layout.num_points
    for group in reversed(layout.groups):  # as names are made
        for position, index in enumerate(group.indices):
            name = f"{group.name}_{position}"
            found[index] = (name, len(group.indices), group.closed) if sizes else (name, 0, False)
    return found


def _wflw_98_to_300w_68() -> np.ndarray:
    """Weights ``(2, 68, 98)``: one matrix for x and one for y; a brow point takes y from two points, x from one."""
    weights = np.zeros((2, 68, 98))
    jaw = [(target, 2 * target) for target in range(17)]  # every second of the 33
    nose = [(target, target + 24) for target in range(27, 36)]
    mouth = [(target, target + 28) for target in range(48, 68)]
    brow_ends, eye_corners = [(17, 33), (26, 46)], [(36, 60), (39, 64), (42, 68), (45, 72)]
    for target, source in [*jaw, *brow_ends, *nose, *eye_corners, *mouth]:
        weights[:, target, source] = 1
    # WFLW outlines a brow, 300W draws its middle line: y is the mean of upper and lower edge.
    left_brow = [(18, 34, 41), (19, 35, 40), (20, 36, 39), (21, 37, 38)]
    right_brow = [(22, 42, 50), (23, 43, 49), (24, 44, 48), (25, 45, 47)]
    for target, upper, lower in left_brow + right_brow:
        weights[0, target, upper] = 1
        weights[1, target, [upper, lower]] = 0.5
    # Eyelids: WFLW has three points an edge, 300W two, a third of the way from the middle one.
    left_lids = [(37, 61, 62), (38, 63, 62), (40, 65, 66), (41, 67, 66)]
    right_lids = [(43, 69, 70), (44, 71, 70), (46, 73, 74), (47, 75, 74)]
    for target, near, middle in left_lids + right_lids:
        weights[:, target, near] = 2 / 3
        weights[:, target, middle] = 1 / 3
    return weights


AFLW_19_IN_300W_68: dict[int, int] = dict(
    zip(
        (0, 2, 3, 5, 6, 8, 9, 11, 13, 15, 17, 18),
        # Ends of the brows; corners of the eyes; tip of the nose, corners of the mouth, chin.
        (17, 21, 22, 26, 36, 39, 42, 45, 30, 48, 54, 8),
        strict=True,
    )
)
"""Points of ``aflw_19`` that ``300w_68`` labels as well: AFLW's number to 300W's."""


def _300w_68_to_aflw_19() -> np.ndarray:
    """Weights ``(2, 19, 68)``, the same for x and y."""
    near = {target: (source,) for target, source in AFLW_19_IN_300W_68.items()} | {
        1: (19,),  # middle of a brow: the third of five points, wherever the labeller saw the middle
        4: (24,),
        7: tuple(range(36, 42)),  # middle of an eye: that of its rim, also where the pupil looks aside
        10: tuple(range(42, 48)),
        12: (31,),  # side of the nose: 300W's lies lower, where the wing meets the lip
        14: (35,),
        16: (62, 66),  # middle of the mouth: between the inner edges of the lips
    }
    weights = np.zeros((2, 19, 68))
    for target, sources in near.items():
        weights[:, target, list(sources)] = 1 / len(sources)
    return weights


_MAPPINGS: dict[tuple[str, str], np.ndarray] = {
    ("wflw_98", "300w_68"): _wflw_98_to_300w_68(),
    ("300w_68", "aflw_19"): _300w_68_to_aflw_19(),
}
