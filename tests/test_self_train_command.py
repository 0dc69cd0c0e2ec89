"""A self-training that was killed, stopped or asked for again ends as one that nobody disturbed."""

import json
import random
import shutil
import signal
import sys
import time

import numpy as np
import pytest
import self_train_worker
import torch
from hydra.core.global_hydra import GlobalHydra
from processes import run, run_two, start
from small_self_training import ARGUMENTS, STAGES, config, records, self_train_here, stages, weights
from small_training import assert_same

import pipnet.self_train
import pipnet.self_training.loop
from pipnet.model import checkpoint
from pipnet.self_training.face_store import FILE, UnlabelledFaces
from pipnet.self_training.ingest import FaceRules, ingest
from pipnet.self_training.pseudo_labels import PseudoLabels
from pipnet.train import train
from pipnet.training.distributed import Processes, join_processes
from pipnet.training.optimization import Schedule
from pipnet.training.state import TrainingError
from pipnet.training.trainer import Monitor
from pipnet.training.validation import Validation

ALONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folder of a self-training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    self_train_here(folder, stages(*STAGES))
    return folder


def test_what_a_run_leaves(whole):
    assert [record["name"] for record in records(whole)] == ["0_labels", "1_coarse", "2_full"]
    for record in records(whole)[1:]:
        folder = whole / record["name"] / "pseudo_labels"
        assert {path.name for path in folder.iterdir()} == {"table.csv", "contact_sheet.png", "summary.json"}
        assert record["unlabelled"] > 0
        labels = record["pseudo_labels"]
        assert 0 <= labels["points"]["p5"] <= labels["points"]["p95"] <= 1
        assert sum(labels["scores"].values()) == pytest.approx(1)
        assert list(labels["yaws"]) in ([], ["0", "15", "30", "60"])  # none where all points lie on one spot
        assert record["held_out"]["nme"]["value"] == pytest.approx(record["val_nme"], rel=1e-4)
    assert list(whole.glob("events.*"))
    best = checkpoint.read(whole / "best.pt")
    for kept, record in zip(best["training"]["stages"], records(whole), strict=True):
        assert kept["held_out"] == {key: of for key, of in record["held_out"].items() if key != "errors"}
        assert kept | {"held_out": None} == record | {"held_out": None}
    assert best["training"]["images"] == sum(record["images"] for record in records(whole)) > 0
    assert best["training"]["unlabelled"]["counts"]["photos"] == 12
    assert best["training"]["licence"] == "not stated"
    assert_same(best["weights"], checkpoint.read(whole / "2_full" / "best.pt")["weights"])


def test_asked_for_again_it_does_nothing(whole, capfd):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    self_train_here(whole, stages(*STAGES))
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before
    assert "2_full" in capfd.readouterr().out


SECOND_HEAD = (
    STAGES[0],
    {"name": "pretrain", "epochs": 1, "labelled_share": 0},
    {"name": "round_1", "epochs": 1, "pseudo": False, "start": "pretrain"},
    {
        "name": "round_2",
        "epochs": 1,
        "teacher": "round_1",
        "start": "pretrain",
        "shrink": {"blur": 0.1, "power": 2, "weight": 1},
    },
)


ONLINE = (
    STAGES[0],
    {
        "name": "taught",
        "epochs": 1,
        "start": "teacher",
        "online": True,
        "labelled_share": 0.5,
        "select": {"weighted": True, "balanced": True},
    },
    {"name": "end", "epochs": 1, "pseudo": False, "start": "teacher"},
)


@pytest.mark.slow
@pytest.mark.parametrize("listed", [STAGES, SECOND_HEAD, ONLINE], ids=["coarse", "second_head", "online"])
def test_killed_in_every_stage_and_given_again(request, tmp_path_factory, listed):
    more = (stages(*listed), *(["fit.ema_decay=0.9"] if listed is ONLINE else []))
    folder, tmp_path = (tmp_path_factory.mktemp(name) for name in ("whole", "killed"))
    whole = request.getfixturevalue("whole") if listed is STAGES else self_train_here(folder, *more).parent
    moments, finished = random.Random(0), []
    later = [f"{number}_{stage['name']}/last.pt" for number, stage in enumerate(listed) if number]
    for sign in (f"face_store/{FILE}", *later):
        process = start(self_train_here, tmp_path, *more, "fit.save_minutes=0")
        while process.is_alive() and not (tmp_path / sign).exists():
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        assert (tmp_path / sign).exists(), sign
        finished.append(len(records(tmp_path)))
    assert finished == sorted(finished)
    assert not (tmp_path / "best.pt").exists(), "the last kill came before the end"
    done = run("pipnet.self_train", *ARGUMENTS, *more, f"folder={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert_same(weights(whole), weights(tmp_path))
    assert not list(tmp_path.glob(".*.pt")), "what a kill left half written is swept up"


def test_a_stop_signal_in_a_later_stage_saves_and_resumes(whole, tmp_path, monkeypatch):
    asked, multiple = [], Schedule.multiple

    def signalling(schedule, epoch):
        asked.append(epoch)
        if len(asked) == 6:  # 3 steps in the first stage
            signal.raise_signal(signal.SIGTERM)
        return multiple(schedule, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Schedule, "multiple", signalling)
        with pytest.raises(TrainingError, match="stopped on request after epoch 1, batch 3; the same command resumes"):
            self_train_here(tmp_path, stages(*STAGES))
    assert [record["name"] for record in records(tmp_path)] == ["0_labels"]
    self_train_here(tmp_path, stages(*STAGES))
    assert_same(weights(whole), weights(tmp_path))


def test_a_stop_signal_in_the_last_validation_of_a_stage_is_heard(tmp_path, monkeypatch):
    alone = stages(STAGES[0])
    with monkeypatch.context() as patch:
        patch.setattr(Validation, "contact_sheet", lambda *_: signal.raise_signal(signal.SIGTERM))
        patch.setattr(Monitor, "pictures", lambda *_: None)
        with pytest.raises(
            TrainingError, match=r"stopped on request after epoch 1; the same command resumes from .*last"
        ):
            self_train_here(tmp_path, alone)
    assert records(tmp_path) == []
    self_train_here(tmp_path, alone)
    assert [record["name"] for record in records(tmp_path)] == ["0_labels"]


def test_ctrl_c_anywhere_is_one_sentence(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    GlobalHydra.instance().clear()
    monkeypatch.setattr(pipnet.self_train, "self_train", interrupted)
    monkeypatch.setattr(sys, "argv", ["python", *ARGUMENTS, f"folder={tmp_path}", "hydra/job_logging=none"])
    sentence = f"pipnet.self_train: error: stopped on request; the same command resumes from {tmp_path}"
    with pytest.raises(SystemExit, match=f"^{sentence}$"):
        pipnet.self_train.main()


@pytest.mark.parametrize("forgotten", [False, True])
def test_runs_that_share_faces_each_keep_their_choice(whole, tmp_path, forgotten):
    store = tmp_path / "face_store"
    if not forgotten:
        shutil.copytree(whole / "face_store", store)
        every = UnlabelledFaces(whole / "face_store")
        rules = FaceRules(min_score=float(np.median(every.found(range(len(every))).scores)))
        other = ingest(whole / "drawn_photos", store, processes=ALONE, rules=rules, progress=False)
        assert len(other.faces) < len(every)
    for name in ("run.json", "stages.json", "best.pt"):
        shutil.copy(whole / name, tmp_path)
    shutil.copytree(whole / "2_full", tmp_path / "2_full")
    self_train_here(tmp_path, stages(*STAGES), f"face_store={store}")  # or it would say that there are others now
    known = json.loads((whole / "run.json").read_text())["unlabelled"]
    assert len(UnlabelledFaces(store, known["digest"])) == known["faces"]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_same_command_self_trains_on_cuda(whole, tmp_path):
    settings = config(tmp_path, stages(*STAGES), "device=auto")
    with join_processes(settings["device"]) as processes:
        assert processes.device.type == "cuda"
        pipnet.self_train.self_train(settings, processes)
    for mine, on_cpu in zip(records(tmp_path), records(whole), strict=True):
        assert (mine["name"], mine["images"]) == (on_cpu["name"], on_cpu["images"])
        assert np.isfinite(mine["val_nme"])
        assert (mine["unlabelled"] > 0) == (on_cpu["unlabelled"] > 0)


@pytest.mark.slow
def test_two_processes_self_train_as_one(tmp_path):
    self_train_worker.train(tmp_path / "one")
    done = run_two(self_train_worker.train, tmp_path / "two")
    assert done.returncode == 0, done.stderr
    one, two = (weights(tmp_path / name) for name in ("one", "two"))
    assert list(one) == list(two) == ["best", "0_labels", "1_full", "2_soft", "3_taught"]
    for stage in one:
        for key in one[stage]:
            torch.testing.assert_close(two[stage][key], one[stage][key], rtol=1e-3, atol=1e-4, msg=f"{stage} {key}")
    faces = [UnlabelledFaces(tmp_path / name / "face_store") for name in ("one", "two")]
    assert faces[0].digest == faces[1].digest
    abouts = [json.loads(found.database.rows("SELECT request FROM labellings")[0][0]) for found in faces]
    labels = [[label.points for label in PseudoLabels(*one)] for one in zip(faces, abouts, strict=True)]
    np.testing.assert_allclose(*labels, atol=1e-2)  # pixels


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ("transform.rotate=30", "transform.rotate=15, now transform.rotate=30"),
        ("self_training.teacher_weights=last", "self_training.teacher_weights=best, now self_training.teacher_weights"),
        ("detector=yunet:none.onnx", "detector=retinaface, now detector=yunet:none.onnx"),
        ("seed=7", "seed=0, now seed=7"),
        (stages(*STAGES[:2]), "was begun with 3 stages .curriculum.stages., now 2"),
        (stages(*STAGES[:2], {**STAGES[2], "views": 3}), "stages.2.views=2, now curriculum.stages.2.views=3"),
        ("unlabelled=[{style: sketch, count: 14, seed: 3, size: 160}]", r"was begun with \d+ unlabelled faces, now"),
    ],
)
def test_another_setting_is_refused_by_name(whole, tmp_path, changed, message):
    for name in ("run.json", "stages.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    arguments = [stages(*STAGES)] if "curriculum" not in changed else []
    with pytest.raises(TrainingError, match=message) as refusal:
        self_train_here(tmp_path, *arguments, changed)
    assert "choose another folder" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_another_teacher_skips_the_first_stage_and_need_not_stay(whole, tmp_path, monkeypatch):
    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes((whole / "0_labels" / "best.pt").read_bytes())
    chosen = stages(STAGES[0], {**STAGES[2], "name": "full"})
    arguments = (chosen, f"teacher={teacher}", f"face_store={whole / 'face_store'}", "curriculum.one_schedule=true")

    def stopped(*arguments, **more):
        raise TrainingError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(pipnet.self_training.loop, "train_network", stopped)
        with pytest.raises(TrainingError, match="stopped"):
            self_train_here(tmp_path / "run", *arguments)
    teacher.unlink()
    tmp_path = tmp_path / "run"
    self_train_here(tmp_path, *arguments)
    names, images = zip(*((record["name"], record["images"]) for record in records(tmp_path)), strict=True)
    assert names == ("0_teacher", "1_full")
    assert images[0] == 0
    assert images[1] > 0
    assert not (tmp_path / "0_labels").exists()
    assert records(tmp_path)[0]["val_nme"] == pytest.approx(records(whole)[0]["val_nme"])


def test_the_first_stage_is_an_ordinary_training(whole, tmp_path):
    settings = config(tmp_path)
    with join_processes("cpu") as processes:
        train(settings, processes)
    ordinary = checkpoint.read(tmp_path / "last.pt")["weights"]
    assert_same(checkpoint.read(whole / "0_labels" / "last.pt")["weights"], ordinary)


def test_stages_from_the_backbone_begin_with_init_from_and_those_from_a_teacher_with_the_teacher(
    whole, tmp_path, monkeypatch, capsys
):
    """The head too, and nothing is downloaded, for one or the other."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("a download"))
    begun, train_network = [], pipnet.self_training.loop.train_network

    def watched(settings, net, *arguments, **more):
        begun.append({key: values.clone() for key, values in net.state_dict().items()})
        return train_network(settings, net, *arguments, **more)

    monkeypatch.setattr(pipnet.self_training.loop, "train_network", watched)
    start = str(whole / "2_full" / "best.pt")
    listed = stages(STAGES[0], {"name": "again", "epochs": 1, "pseudo": False}, {**STAGES[0], "name": "on"})
    listed = listed.replace("name: on", "name: on, start: teacher")
    self_train_here(tmp_path / "a", listed, f"init_from={start}", "model.pretrained=true")
    said = f"init_from {start}: backbone and neck taken, of the head 68 of 68 points; new: nothing"
    assert capsys.readouterr().out.count(said) == 1
    expected = weights(tmp_path / "a")["1_again"]
    for number, wanted in enumerate((checkpoint.read(start)["weights"],) * 2 + (expected,)):
        assert_same(dict(wanted), dict(begun[number]), f"stage {number}")
    teacher = (stages(STAGES[0], {**STAGES[0], "name": "on"}).replace("name: on", "name: on, start: teacher"),)
    teacher = (*teacher, f"teacher={start}", "model.pretrained=true")
    self_train_here(tmp_path / "b", *teacher)
    assert_same(dict(checkpoint.read(start)["weights"]), dict(begun[3]))
    with pytest.raises(
        ValueError, match="every stage of curriculum ours goes on from the teacher; leave out init_from"
    ):
        self_train_here(tmp_path / "c", *teacher, f"init_from={start}")
