"""Curricula, and what is refused before work begins."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_self_training import STAGES, config, records, self_train_here, stages

from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.pipnet import PIPNet
from pipnet.self_train import build_curriculum, taught_by
from pipnet.self_training.curriculum import Curriculum, Stage, curriculum_of
from pipnet.self_training.loop import label_shift_of
from pipnet.train import build_training_data
from pipnet.training.setup import build_network

TAUGHT = {"name": "taught", "epochs": 1, "start": "teacher"}
SHRINK = {"blur": 0.03, "power": 2, "weight": 0.1}
LABELS = Stage("labels", 60, pseudo=False)


def names(curriculum, *nmes):
    """All stages that are done when validation gives these figures."""
    done, found = [], []
    while (following := curriculum.after(done)) is not None:
        found.append(following[0])
        done.append(nmes[len(done)])
    return found


def test_the_papers_curriculum_and_its_control():
    paper, none = (
        curriculum_of(config("nowhere", f"curriculum={name}", "fit.epochs=60")["curriculum"])
        for name in ("paper", "none")
    )
    assert [stage.pool_factor for stage in paper.stages] == [1, 4, 2, 1, 1, 1]
    assert {stage.epochs for stage in paper.stages} == {60}
    assert {stage.start for stage in paper.stages} == {"backbone"}
    assert [stage.pseudo for stage in paper.stages] == [False] + 5 * [True]
    assert names(paper, 9, 8, 7, 6, 5, 4)[3:] == ["3_full", "4_full_2", "5_full_3"]
    assert [stage.epochs for stage in paper.stages] == [stage.epochs for stage in none.stages]
    assert {stage.pool_factor for stage in none.stages} == {1}


def test_stld_goes_on_from_its_pretraining_and_learns_from_its_own_rounds():
    stld = curriculum_of(config("nowhere", "curriculum=stld")["curriculum"])
    listed = [stage.name for stage in stld.stages]
    started = [None if (of := stld.start_of(n)) is None else listed[of] for n in range(len(listed))]
    assert dict(zip(listed, started, strict=True)) == {
        "labels": None,
        "pretrain_1": None,
        "round_1": "pretrain_1",
        "pretrain_2": "pretrain_1",
        "round_2": "pretrain_2",
        "pretrain_3": "pretrain_2",
        "round_3": "pretrain_3",
        "pretrain_4": "pretrain_3",
        "round_4": "pretrain_4",
    }
    taught = {stage.name: listed[stld.teacher_of(n)] for n, stage in enumerate(stld.stages) if stage.pseudo}
    assert taught == {
        "pretrain_1": "labels",
        **{f"{what}_{n}": f"round_{n - 1}" for n in (2, 3, 4) for what in ("pretrain", "round")},
    }
    soft = [stage.shrink for stage in stld.stages if stage.shrink is not None]
    # The authors' deviations: cells of 4 pixels, 256 pixels a side.
    np.testing.assert_allclose([shrink.blur * 64 for shrink in soft], [2.2, 1.8, 1.5], atol=0.003)
    assert [(shrink.power, shrink.weight) for shrink in soft] == [(2.4, 0.1), (1.6, 1), (1, 1)]


def test_the_last_stage_runs_until_it_has_converged():
    once = Curriculum((LABELS, Stage("full", 60)), most=5, tolerance=2.0)
    assert names(once, 9, 8, 7, 6.9, 6, 5) == ["0_labels", "1_full", "2_full_2", "3_full_3"]
    assert names(once, 9, 8, 7, 6, 5, 4) == ["0_labels", "1_full", "2_full_2", "3_full_3", "4_full_4", "5_full_5"]
    assert names(once, 9, 8, 9) == ["0_labels", "1_full", "2_full_2"]
    listed_twice = Curriculum((LABELS, Stage("full", 60), Stage("full", 60)), most=2)
    assert names(listed_twice, 9, 8, 8.1) == ["0_labels", "1_full", "2_full_2"]
    assert names(listed_twice, 9, 8, 7, 6) == ["0_labels", "1_full", "2_full_2", "3_full_3"]


def test_all_curricula_cost_the_same_when_told_to():
    budget = ("self_training.epoch_faces=10", "self_training.images=288", "fit.batch_size=4")
    for name in ("paper", "none", "labels", "ours", "stld"):
        curriculum = build_curriculum(config("nowhere", f"curriculum={name}", *budget))
        assert sum(stage.epochs for stage in curriculum.stages) == 36, name
        assert min(stage.epochs for stage in curriculum.stages) >= 1
    with_teacher = build_curriculum(config("nowhere", "curriculum=ours", "teacher=shipped", *budget))
    assert sum(stage.epochs for stage in with_teacher.stages[1:]) == 36


@pytest.mark.parametrize(
    ("listed", "more", "message"),
    [
        ([], {}, "curriculum: no stages; list at least one"),
        (["labels"], {}, "curriculum: no stages; list at least one"),
        (STAGES, {"repeats": 3}, "config group 'curriculum': .*'repeats'"),
        (STAGES, {"repeat": {"tolerance": "small"}}, "repeat.tolerance must be a number, got 'small'"),
        (STAGES, {"repeat": {"most": 2}, "one_schedule": True}, "one_schedule needs repeat.most 1"),
        (STAGES, {"repeat": 3}, "repeat has the keys most and tolerance, got 3"),
        (STAGES[1:], {}, "stage coarse comes first"),
        ([{"name": "labels", "pseudo": False}], {}, "'curriculum.stages.0': .*'epochs'"),
        ([{**STAGES[0], "pools": 2}], {}, "'curriculum.stages.0': .*'pools'"),
        ([{**STAGES[0], "pool_factor": 2}], {}, "stage labels has pseudo: false, so pool_factor means nothing"),
        ([{**STAGES[0], "teacher": "full"}], {}, "stage labels has pseudo: false, so teacher means nothing"),
        (
            [STAGES[0], {**STAGES[2], "start": "coarse"}],
            {},
            "start must name one earlier stage, of labels; got 'coarse'",
        ),
        ([STAGES[0], {**STAGES[2], "teacher": "full"}], {}, "stage full: teacher must name one earlier stage"),
        ([STAGES[0], {**STAGES[2], "teacher": "teacher"}], {}, "of labels; got 'teacher'"),
        ([STAGES[0], {"name": "on", "epochs": 1, "online": True}], {}, "stage on is online: .* set start: teacher"),
        ([{**STAGES[0], "online": True}], {}, "stage labels has pseudo: false, so online means nothing"),
        ([{**STAGES[0], "labelled_share": 1}], {}, "stage labels has pseudo: false, so labelled_share means nothing"),
        ([STAGES[0], {**STAGES[1], "shrink": SHRINK}], {}, "stage coarse: shrink needs pool_factor: 1"),
        ([STAGES[0], {**STAGES[2], "shrink": {**SHRINK, "power": 0.5}}], {}, "power must be at least 1, got 0.5"),
        ([STAGES[0], {**STAGES[2], "shrink": {**SHRINK, "blur": "no"}}], {}, "blur must be a number above 0, got 'no'"),
        ([{**STAGES[0], "name": "../out"}], {}, "stage's name"),
        ([{**STAGES[0], "pseudo": "no"}], {}, "stage labels: pseudo must be true or false, got 'no'"),
        ([STAGES[0], {**STAGES[1], "labelled_share": 1.5}], {}, r"stage coarse: labelled_share must lie in \[0, 1\]"),
        ([STAGES[0], {**STAGES[1], "select": {"least": 1}}], {}, "'curriculum.stages.1.select': .*'least'"),
        ([STAGES[0], {**STAGES[1], "select": {"min_face": "high"}}], {}, "min_face is a score"),
        ([STAGES[0], {**STAGES[1], "select": {"weighted": "much"}}], {}, "weighted must be true or false"),
    ],
)
def test_a_curriculum_that_does_not_fit_is_one_sentence(listed, more, message):
    with pytest.raises(ValueError, match=message) as refusal:
        curriculum_of({"name": "mine", "stages": list(listed), **more})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unlabelled=[]"], r"curriculum ours learns from photos without labels: set unlabelled=\[FOLDER\]"),
        (["unlabelled=nowhere/photos"], "nowhere/photos: no such folder of photos"),
        (["unlabelled=[.ci]"], "no photo there"),
        (["curriculum=labels", "teacher=shipped"], "takes the place of the first stage"),
        (["teacher=nowhere.pt"], "no checkpoint nowhere.pt"),
        ([stages(STAGES[0], {**STAGES[1], "pool_factor": 3})], "stage coarse merges 3 x 3 cells, which does not"),
        ([stages(STAGES[0], {**TAUGHT, "online": True}), "fit.ema_decay=0"], "set fit.ema_decay"),
        (["self_training.epoch_faces=many"], "epoch_faces must be a whole number from 1, got 'many'"),
        (["self_training.teacher_weights=first"], "teacher_weights must be best or last"),
        (["self_training.images=100"], "needs self_training.epoch_faces"),
        (["self_training.images=8", "self_training.epoch_faces=8"], "too few for 3 stages"),
        (["+rules.colour=2"], "config group 'rules'"),
        (["+self_training.rounds=2"], "config group 'self_training': .*'rounds'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, arguments, message):
    with pytest.raises((ValueError, OSError), match=message) as refusal:
        self_train_here(tmp_path / "run", *arguments)
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_a_teacher_of_another_layout_is_one_sentence(tmp_path):
    net = PIPNet(np.random.default_rng(0).random((29, 2)), "mobilenet_v3_small", num_neighbors=3, input_size=64)
    checkpoint.save(tmp_path / "cofw.pt", net, layout=get_layout("cofw_29"), crop_scale=1.25, training={})
    with pytest.raises(ValueError, match=r"cofw.pt has layout cofw_29, the dataset 300w_68; choose a teacher"):
        self_train_here(tmp_path / "run", f"teacher={tmp_path / 'cofw.pt'}")
    assert not (tmp_path / "run").exists()


def test_with_a_teacher_its_neighbours_are_those_of_all_stages(tmp_path):
    """Its weights hold offsets to the neighbours on its own mean face; on another one they would be other points'."""
    settings = config(tmp_path)
    training_data, mean_face = build_training_data(settings), np.random.default_rng(0).random((68, 2))
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=3, input_size=64, net_stride=16)
    checkpoint.save(tmp_path / "teacher.pt", net, layout=get_layout("300w_68"), crop_scale=1.25, training={})
    student = build_network(settings, taught_by(tmp_path / "teacher.pt", training_data), seed=0)
    assert student.neighbors.tolist() == net.neighbors.tolist()
    assert build_network(settings, training_data, seed=0).neighbors.tolist() != net.neighbors.tolist()
    start = settings | {"init_from": str(tmp_path / "teacher.pt")}
    assert build_training_data(start).mean_face.tolist() == mean_face.tolist()


@pytest.mark.parametrize(
    ("training", "shift"),
    [({}, 0.02), ({"config": {"dataset": {"label_shift": 0.01}}}, 0.01), ({"config": {"dataset": {}}}, 0.0)],
)
def test_mirrored_views_are_undone_by_the_teachers_own_label_shift(training, shift):
    assert label_shift_of(SimpleNamespace(training=training), otherwise=0.02) == shift


def test_one_schedule_falls_over_all_stages_as_over_one(tmp_path):
    def learning_rates(name, *listed):
        """At the end of each epoch of each stage."""
        folder, few = tmp_path / name, ("dataset.splits.train.count=8", "fit.validate_every=3")
        self_train_here(folder, stages(*listed), "curriculum.one_schedule=true", *few)
        lasts = [folder / Path(record["weights"]).parent / "last.pt" for record in records(folder)]
        return [figures["lr"] for last in lasts for figures in checkpoint.read(last)["resume"]["history"]]

    labels = {"name": "labels", "pseudo": False}
    whole = learning_rates("whole", {**labels, "epochs": 3})
    parts = learning_rates("parts", {**labels, "epochs": 2}, {**labels, "epochs": 1, "start": "teacher"})
    assert len(set(whole)) == 3
    assert parts == pytest.approx(whole, rel=1e-12)
