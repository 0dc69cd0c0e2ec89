"""Curricula, and what is refused before work begins."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from small_self_training import STAGES, config, records, self_train_here, stages

from pipnet.model import checkpoint
from pipnet.self_train import build_curriculum
from pipnet.self_training.curriculum import Curriculum, Stage, curriculum_of
from pipnet.self_training.loop import label_shift_of

LABELS = Stage("labels", 60, pseudo=False)


def names(curriculum, *nmes):
    """All stages that are done when validation gives these figures."""
    done, found = [], []
    while (following := curriculum.after(done)) is not None:
        found.append(following[0])
        done.append(nmes[len(done)])
    return found


def test_the_papers_curriculum_is_the_papers():
    settings = config("nowhere", "curriculum=paper", "fit.epochs=60")
    curriculum = curriculum_of(settings["curriculum"])
    assert [stage.pool_factor for stage in curriculum.stages] == [1, 4, 2, 1, 1, 1]
    assert {stage.epochs for stage in curriculum.stages} == {60}
    assert {stage.start for stage in curriculum.stages} == {"backbone"}
    assert [stage.pseudo for stage in curriculum.stages] == [False] + 5 * [True]
    assert names(curriculum, 9, 8, 7, 6, 5, 4)[3:] == ["3_full", "4_full_2", "5_full_3"]


def test_the_control_has_the_same_stages_but_no_coarse_one():
    paper, none = (curriculum_of(config("nowhere", f"curriculum={name}")["curriculum"]) for name in ("paper", "none"))
    assert [stage.epochs for stage in paper.stages] == [stage.epochs for stage in none.stages]
    assert {stage.pool_factor for stage in none.stages} == {1}


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
    for name in ("paper", "none", "labels", "ours"):
        curriculum = build_curriculum(config("nowhere", f"curriculum={name}", *budget))
        assert sum(stage.epochs for stage in curriculum.stages) == 36, name
        assert min(stage.epochs for stage in curriculum.stages) >= 1
    with_teacher = build_curriculum(config("nowhere", "curriculum=ours", "teacher=shipped", *budget))
    assert sum(stage.epochs for stage in with_teacher.stages[1:]) == 36


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["unlabelled=[]"], r"curriculum ours learns from photos without labels: set unlabelled=\[FOLDER\]"),
        (["unlabelled=[nowhere/photos]"], "nowhere/photos: no such folder of photos"),
        (["curriculum.stages=[]"], "curriculum: no stages; list at least one"),
        (["curriculum=labels", "teacher=shipped"], "takes the place of the first stage"),
        (["teacher=nowhere.pt"], "no checkpoint nowhere.pt"),
        (["+curriculum.repeats=3"], "curriculum: no key 'repeats'; keys are name, stages, repeat, one_schedule"),
        ([stages(*STAGES[1:])], "stage coarse comes first"),
        ([stages({"name": "labels", "pseudo": False})], "stage 0: epochs is missing"),
        ([stages({**STAGES[0], "pools": 2})], "stage 0: no key 'pools'"),
        ([stages({**STAGES[0], "pool_factor": 2})], "stage labels has pseudo: false"),
        ([stages({**STAGES[0], "name": "../out"})], "stage's name"),
        ([stages(STAGES[0], {**STAGES[1], "select": {"least": 1}})], "stage 1, select: no key 'least'"),
        (
            [stages(STAGES[0], {**STAGES[1], "pool_factor": 3})],
            "stage coarse merges 3 x 3 cells, which does not divide",
        ),
        (
            [stages(STAGES[0], {**STAGES[1], "labelled_share": 1.5})],
            r"stage coarse: labelled_share must lie in \[0, 1\]",
        ),
        ([stages({**STAGES[0], "pseudo": "no"})], "stage labels: pseudo must be true or false, got 'no'"),
        ([stages(STAGES[0], {**STAGES[1], "select": {"min_face": "high"}})], "min_face is a confidence"),
        ([stages(STAGES[0], {**STAGES[1], "select": {"weighted": "much"}})], "weighted must be true or false"),
        (["curriculum.repeat.tolerance=small"], "repeat.tolerance must be a number, got 'small'"),
        (["self_training.epoch_faces=many"], "epoch_faces must be a whole number from 1, got 'many'"),
        (["unlabelled=nowhere/photos"], "nowhere/photos: no such folder of photos"),
        (["self_training.teacher_weights=first"], "teacher_weights must be best or last"),
        (["self_training.images=100"], "needs self_training.epoch_faces"),
        (["self_training.images=8", "self_training.epoch_faces=8"], "too few for 3 stages"),
        (["rules.min_inside=2"], "min_inside"),
        (["+rules.colour=2"], "config group 'rules'"),
        (["+self_training.rounds=2"], "config group 'self_training': .*'rounds'"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, arguments, message):
    with pytest.raises((ValueError, OSError), match=message) as refusal:
        self_train_here(tmp_path / "run", *arguments)
    assert "\n" not in str(refusal.value)
    assert not list((tmp_path / "run").rglob("*.pt"))


def test_a_folder_without_photos_is_one_sentence(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError, match="no photo there") as refusal:
        self_train_here(tmp_path / "run", f"unlabelled=[{tmp_path / 'photos'}]")
    assert "\n" not in str(refusal.value)


def test_a_teacher_of_another_layout_is_one_sentence(tmp_path):
    import numpy as np

    from pipnet.layouts import get_layout
    from pipnet.model import checkpoint
    from pipnet.model.pipnet import PIPNet

    net = PIPNet(np.random.default_rng(0).random((29, 2)), "mobilenet_v3_small", num_neighbors=3, input_size=64)
    checkpoint.save(tmp_path / "cofw.pt", net, layout=get_layout("cofw_29"), crop_scale=1.25, training={})
    with pytest.raises(ValueError, match=r"cofw.pt has layout cofw_29, the dataset 300w_68; choose a teacher"):
        self_train_here(tmp_path / "run", f"teacher={tmp_path / 'cofw.pt'}")
    assert not (tmp_path / "run").exists()


def test_with_a_teacher_its_neighbours_are_those_of_all_stages(tmp_path):
    """Its weights hold offsets to the neighbours on its own mean face; on another one they would be other points'."""
    import numpy as np

    from pipnet.layouts import get_layout
    from pipnet.model import checkpoint
    from pipnet.model.pipnet import PIPNet
    from pipnet.self_train import taught_by
    from pipnet.train import build_training_data
    from pipnet.training.setup import build_network

    settings = config(tmp_path)
    training_data, mean_face = build_training_data(settings), np.random.default_rng(0).random((68, 2))
    net = PIPNet(mean_face, "mobilenet_v3_small", num_neighbors=3, input_size=64, net_stride=16)
    checkpoint.save(tmp_path / "teacher.pt", net, layout=get_layout("300w_68"), crop_scale=1.25, training={})
    student = build_network(settings, taught_by(tmp_path / "teacher.pt", training_data), seed=0)
    assert student.neighbors.tolist() == net.neighbors.tolist()
    assert build_network(settings, training_data, seed=0).neighbors.tolist() != net.neighbors.tolist()


@pytest.mark.parametrize(
    ("training", "shift"),
    [({}, 0.02), ({"config": {"dataset": {"label_shift": 0.01}}}, 0.01), ({"config": {"dataset": {}}}, 0.0)],
)
def test_mirrored_views_are_undone_by_the_teachers_own_label_shift(training, shift):
    assert label_shift_of(SimpleNamespace(training=training), otherwise=0.02) == shift


def test_a_coarse_stage_trains_nothing_but_the_coarse_map_of_unlabelled_faces():
    import torch
    from small_training import batch_of, drawn, small_net

    from pipnet.model.codec import encode
    from pipnet.model.loss import PIPLoss

    net, pool_factor = small_net(), torch.tensor([1, 2, 2, 1])
    images, points = batch_of(drawn(4), 4)
    output = net(net.normalize(images), pool_factor)
    full = {name: maps for name, maps in output._asdict().items() if name != "coarse"}
    for maps in (*full.values(), output.coarse[2]):
        maps.retain_grad()
    sum(PIPLoss()(output, encode(points, net.neighbors, net.grid, pool_factor=pool_factor)).values()).backward()
    for name, maps in full.items():
        touched = maps.grad.flatten(1).abs().sum(dim=1) > 0
        assert touched.tolist() == [True, False, False, True], name
    assert output.coarse[2].shape == (2, 68, 1, 1)
    assert (output.coarse[2].grad.flatten(1).abs().sum(dim=1) > 0).all()


def learning_rates(folder):
    """At the end of each epoch of each stage."""
    lasts = [folder / Path(record["weights"]).parent / "last.pt" for record in records(folder)]
    return [figures["lr"] for last in lasts for figures in checkpoint.read(last)["resume"]["history"]]


def test_one_schedule_falls_over_all_stages_as_over_one(tmp_path):
    labels = {"name": "labels", "pseudo": False}
    for name, listed in {
        "whole": [{**labels, "epochs": 4}],
        "parts": [{**labels, "epochs": 3}, {**labels, "epochs": 1, "start": "teacher"}],
    }.items():
        self_train_here(tmp_path / name, stages(*listed), "curriculum.one_schedule=true", "fit.validate_every=4")
    whole, parts = learning_rates(tmp_path / "whole"), learning_rates(tmp_path / "parts")
    assert len(set(whole)) == 4
    assert parts == pytest.approx(whole, rel=1e-12)


def test_one_schedule_can_not_be_of_unknown_length():
    with pytest.raises(ValueError, match=r"one_schedule needs repeat\.most 1"):
        Curriculum((Stage("labels", 1, pseudo=False),), most=2, one_schedule=True)
