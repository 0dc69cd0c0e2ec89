"""Point layouts: mirror tables against geometry and the published tables, mappings against a plain second version."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipnet.data.synthetic.face import SyntheticFace
from pipnet.layouts import (
    LAYOUTS,
    PointLayout,
    can_map,
    get_layout,
    layout_from_dict,
    load_layout,
    map_points,
    same_points,
)

EVERY_LAYOUT = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)

# Left-right pairs as the datasets' users publish them (HRNet's face alignment code and the authors' flip lists);
# the first three count points from 1.
PUBLISHED_PAIRS = {
    "300w_68": [
        *[(1, 17), (2, 16), (3, 15), (4, 14), (5, 13), (6, 12), (7, 11), (8, 10)],
        *[(18, 27), (19, 26), (20, 25), (21, 24), (22, 23), (32, 36), (33, 35)],
        *[(37, 46), (38, 45), (39, 44), (40, 43), (41, 48), (42, 47)],
        *[(49, 55), (50, 54), (51, 53), (62, 64), (61, 65), (68, 66), (59, 57), (60, 56)],
    ],
    "aflw_19": [(1, 6), (2, 5), (3, 4), (7, 12), (8, 11), (9, 10), (13, 15), (16, 18)],
    "cofw_29": [(1, 2), (5, 7), (3, 4), (6, 8), (9, 10), (11, 12), (13, 15), (17, 18), (14, 16), (19, 20), (23, 24)],
    "wflw_98": [
        *[(0, 32), (1, 31), (2, 30), (3, 29), (4, 28), (5, 27), (6, 26), (7, 25), (8, 24), (9, 23), (10, 22), (11, 21)],
        *[(12, 20), (13, 19), (14, 18), (15, 17)],
        *[(33, 46), (34, 45), (35, 44), (36, 43), (37, 42), (38, 50), (39, 49), (40, 48), (41, 47)],
        *[(60, 72), (61, 71), (62, 70), (63, 69), (64, 68), (65, 75), (66, 74), (67, 73), (96, 97)],
        *[(55, 59), (56, 58), (76, 82), (77, 81), (78, 80), (87, 83), (86, 84), (88, 92), (89, 91), (95, 93)],
    ],
}


def test_what_errors_are_normalised_by():
    pairs = {"300w_68": (36, 45), "wflw_98": (60, 72), "cofw_29": (8, 9), "aflw_19": None}
    assert {layout.name: layout.norm_pair for layout in LAYOUTS.values()} == pairs


@EVERY_LAYOUT
def test_mirror_is_the_published_table(layout):
    first = 0 if layout.name == "wflw_98" else 1
    expected = list(range(layout.num_points))
    for a, b in PUBLISHED_PAIRS[layout.name]:
        expected[a - first], expected[b - first] = b - first, a - first
    assert list(layout.mirror) == expected


@EVERY_LAYOUT
def test_lines_mirror_onto_lines(layout):
    """Points that follow each other on a line still do after mirroring: no line of a mirrored face crosses."""

    def edges(group):
        ring = group.indices + group.indices[:1] * group.closed
        return {frozenset(edge) for edge in pairwise(ring)}

    known = set().union(*(edges(group) for group in layout.groups))
    for group in layout.groups:
        for a, b in map(tuple, edges(group)):
            assert frozenset((layout.mirror[a], layout.mirror[b])) in known, f"{group.name}: {a} to {b}"
    assert {tuple(sorted(layout.mirror[i] for i in group.indices)) for group in layout.groups} == {
        tuple(sorted(group.indices)) for group in layout.groups
    }


@EVERY_LAYOUT
def test_groups_cover_every_point_and_eyes_face_each_other(layout):
    parts, points = layout.parts(), list(range(layout.num_points))
    assert sorted(i for members in parts.values() for i in members) == points
    assert len({group.name for group in layout.groups}) == len(layout.groups)
    assert len(set(layout.names)) == layout.num_points
    if layout.name in ("300w_68", "wflw_98"):
        assert set(layout.inner) == set(points) - set(parts["jaw"])
    else:
        assert layout.inner == ()
    for left, right in [layout.pupils, *([[[i] for i in layout.norm_pair]] if layout.norm_pair else [])]:
        assert {layout.mirror[i] for i in left} == set(right)


def test_left_is_left_in_the_picture():
    points = SyntheticFace(centre=(50.0, 50.0), extent=80.0).points()
    for group in get_layout("300w_68").groups:
        x = points[list(group.indices), 0].mean()
        if group.name.startswith("left"):
            assert x < 45, group.name
        if group.name.startswith("right"):
            assert x > 55, group.name


# Mappings between layouts.


def reference_wflw_to_300w(p: np.ndarray) -> np.ndarray:
    """One face, point by point, as the authors convert it, with the eyelid weights summing to one."""
    out = [p[i] for i in range(0, 33, 2)]  # jaw
    out.append(p[33])
    out += [np.array([p[a][0], (p[a][1] + p[b][1]) / 2]) for a, b in ((34, 41), (35, 40), (36, 39), (37, 38))]
    out += [np.array([p[a][0], (p[a][1] + p[b][1]) / 2]) for a, b in ((42, 50), (43, 49), (44, 48), (45, 47))]
    out.append(p[46])
    out += [p[i] for i in range(51, 60)]  # nose
    for outer, (a, b), inner, (c, d) in (
        (60, ((61, 62), (63, 62)), 64, ((65, 66), (67, 66))),
        (68, ((69, 70), (71, 70)), 72, ((73, 74), (75, 74))),
    ):
        out.append(p[outer])
        out += [(2 * p[a[0]] + p[a[1]]) / 3, (2 * p[b[0]] + p[b[1]]) / 3]
        out.append(p[inner])
        out += [(2 * p[c[0]] + p[c[1]]) / 3, (2 * p[d[0]] + p[d[1]]) / 3]
    out += [p[i] for i in range(76, 96)]  # mouth
    return np.array(out)


WFLW, MULTI_PIE = get_layout("wflw_98"), get_layout("300w_68")


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_wflw_to_300w_point_by_point(seed):
    faces = np.random.default_rng(seed).uniform(-100, 900, (2, 3, 98, 2))
    mapped = map_points(faces, WFLW, MULTI_PIE)
    assert mapped.shape == (2, 3, 68, 2)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(mapped[i], reference_wflw_to_300w(faces[i]), atol=1e-9)


def test_an_unlabelled_point_spoils_only_what_is_made_of_it():
    face = np.random.default_rng(2).uniform(0, 100, (98, 2))
    complete = map_points(face, WFLW, MULTI_PIE)
    for missing, spoilt in ((96, []), (1, []), (0, [0]), (62, [37, 38]), (54, [30])):
        holed = face.copy()
        holed[missing] = np.nan
        mapped = map_points(holed, WFLW, MULTI_PIE)
        assert np.flatnonzero(np.isnan(mapped).any(axis=1)).tolist() == spoilt, f"point {missing}"
        kept = np.setdiff1d(np.arange(68), spoilt)
        np.testing.assert_allclose(mapped[kept], complete[kept], atol=1e-9)


def test_mappings_that_do_not_exist():
    points = np.random.default_rng(3).uniform(0, 9, (98, 2))
    same = map_points(points, WFLW, WFLW)
    assert np.array_equal(same, points)
    assert not np.shares_memory(same, points)
    assert [can_map(WFLW, WFLW), can_map(WFLW, MULTI_PIE), can_map(MULTI_PIE, WFLW)] == [True, True, False]
    with pytest.raises(ValueError, match="no mapping from layout '300w_68' to 'wflw_98'; known: wflw_98 to 300w_68"):
        map_points(np.zeros((68, 2)), MULTI_PIE, WFLW)
    with pytest.raises(ValueError, match=re.escape("wflw_98 points must be (..., 98, 2), got (68, 2)")):
        map_points(np.zeros((68, 2)), WFLW, MULTI_PIE)


# Layouts from files.


@EVERY_LAYOUT
def test_yaml_round_trip(layout, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(layout.to_dict()))
    assert load_layout(path) == layout
    assert get_layout(path) == layout
    assert layout_from_dict(layout.to_dict()) == layout


def test_a_short_file_is_enough(tmp_path):
    path = tmp_path / "eyes.yaml"
    path.write_text(
        "name: eyes\nnum_points: 5\nmirror_pairs: [[0, 3], [1, 2]]\nnorm_pair: [0, 3]\n"
        "groups:\n  - {name: left_eye, part: eye, indices: [0, 1]}\n  - {name: right_eye, part: eye, indices: [2, 3]}\n"
    )
    layout = load_layout(path)
    assert layout.mirror == (3, 2, 1, 0, 4)
    assert layout.names == ("left_eye_0", "left_eye_1", "right_eye_0", "right_eye_1", "point_4")
    assert layout.parts() == {"eye": [0, 1, 2, 3]}
    assert layout.pupils is None
    assert layout.inner == ()


BAD_FILES = {
    "not a mapping": ("- 1\n- 2\n", "expected 'field: value' lines"),
    "not yaml": ("name: [", "not a point layout"),
    "no name": ("num_points: 3\n", "needs the field 'name'"),
    "no count": ("name: a\n", "needs the field 'num_points'"),
    "count is no number": ("name: a\nnum_points: many\n", "many"),
    "no points": ("name: a\nnum_points: 0\n", "num_points must be at least 1, got 0"),
    "unknown field": ("name: a\nnum_points: 3\nmirrors: []\n", "'mirrors' is not known"),
    "pair outside": ("name: a\nnum_points: 3\nmirror_pairs: [[0, 3]]\n", "names point 3, but points run from 0 to 2"),
    "pairs that contradict": ("name: a\nnum_points: 3\nmirror_pairs: [[0, 1], [1, 2]]\n", "must name each other"),
    "pair of one": ("name: a\nnum_points: 3\nmirror_pairs: [[0]]\n", "mirror"),
    "mirror too short": ("name: a\nnum_points: 3\nmirror: [0, 1]\n", "mirror has 2 entries for 3 points"),
    "mirror no involution": ("name: a\nnum_points: 3\nmirror: [1, 2, 0]\n", "mirror sends point 0 to 1, but 1 to 2"),
    "mirror outside": ("name: a\nnum_points: 2\nmirror: [0, 2]\n", "mirror names point 2"),
    "norm outside": ("name: a\nnum_points: 3\nnorm_pair: [0, 9]\n", "norm_pair names point 9"),
    "norm of one": ("name: a\nnum_points: 3\nnorm_pair: [0]\n", "norm_pair"),
    "pupils of one eye": ("name: a\nnum_points: 3\npupils: [[0]]\n", "pupils"),
    "group outside": ("name: a\nnum_points: 3\ngroups: [{name: g, indices: [0, -1]}]\n", "group 'g' names point -1"),
    "group without name": ("name: a\nnum_points: 3\ngroups: [{indices: [0]}]\n", "group .*name"),
    "group without indices": ("name: a\nnum_points: 3\ngroups: [{name: g}]\n", "group .*indices"),
    "group as a list": ("name: a\nnum_points: 3\ngroups: [[0, 1]]\n", "group"),
    "names too few": ("name: a\nnum_points: 3\nnames: [x, y]\n", "2 names for 3 points"),
    "a tab": ("name: a\nnum_points: 3\ngroups:\n\t- {name: g, indices: [0]}\n", "line 4: .*; indent with blanks, YAML"),
    "an open bracket": ("name: a\nnum_points: 3\ninner: [0", "not a point layout: line 3: "),
    "brackets in brackets": ("[" * 1500, "not a point layout"),
    "a count without end": ("name: a\nnum_points: .inf\n", "not a point layout"),
    "another encoding": ("name: à\n".encode("cp1252"), "line 1: byte 0xE0 is no UTF-8"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named_with_the_reason(text, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        load_layout(path)
    assert str(error.value).startswith(f"{path}: not a point layout" if isinstance(text, str) else str(path))
    assert "\n" not in str(error.value)


def test_layouts_that_are_not_there_or_wrong_in_code(tmp_path):
    with pytest.raises(ValueError, match="no layout '300w'; built in: 300w_68, wflw_98, cofw_29, aflw_19"):
        get_layout("300w")
    with pytest.raises(FileNotFoundError, match=r"no layout file .*gone\.yaml"):
        get_layout(tmp_path / "gone.yaml")
    with pytest.raises(ValueError, match="inner names point 5"):
        PointLayout(name="a", num_points=2, mirror=(1, 0), inner=(5,))


@pytest.mark.parametrize(
    ("source", "target", "count"),
    [("wflw_98", "300w_68", 52), ("300w_68", "aflw_19", 16), ("300w_68", "300w_68", 68), ("cofw_29", "300w_68", 0)],
)
def test_the_same_points_are_those_that_a_mapping_only_renames(source, target, count):
    source, target = get_layout(source), get_layout(target)
    same, back = same_points(source, target), same_points(target, source)
    assert len(same) == count
    assert back == {there: here for here, there in same.items()}
    if can_map(source, target):
        points = np.random.default_rng(0).random((source.num_points, 2))
        mapped = map_points(points, source, target)
        renamed = {i for i in range(target.num_points) if (points == mapped[i]).all(axis=1).any()}
        assert renamed == same.keys()
        np.testing.assert_array_equal(mapped[list(same)], points[list(same.values())])


def named(name, names, **more):
    return layout_from_dict({"name": name, "num_points": len(names), "names": names, **more})


def test_points_of_equal_names_are_the_same():
    cat, dog = named("cat", ["nose", "left_ear", "tail"]), named("dog", ["snout", "tail", "nose"])
    assert same_points(cat, dog) == {1: 2, 2: 0}
    again = named("cat", ["tail", "nose", "left_ear"])  # the same name and count, in another order
    assert same_points(cat, again) == {0: 2, 1: 0, 2: 1}
    few = named("few", ["right_eye_3", "nose_bridge_3", "chin"])  # as 300W's are called
    assert same_points(get_layout("300w_68"), few) == {0: 45, 1: 30}


def test_names_made_from_groups_count_where_the_groups_are_alike():
    def grouped(name, **groups):
        listed = [{"name": group, "indices": indices} for group, indices in groups.items()]
        return layout_from_dict({"name": name, "num_points": 6, "groups": listed})

    one, two = grouped("one", brow=[0, 1], jaw=[2, 3, 4]), grouped("two", brow=[3, 2], jaw=[0, 1])
    assert same_points(one, two) == {3: 0, 2: 1}  # a jaw of two points has them elsewhere; 5 and 4 have no names
    assert same_points(grouped("three"), grouped("four")) == {}
    assert same_points(get_layout("wflw_98"), get_layout("cofw_29")) == {16: 96, 17: 97}
