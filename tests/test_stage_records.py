"""What a self-training remembers between its stages, and what it refuses."""

import pytest
import torch

from pipnet.self_training.stages import StageRecords
from pipnet.training.distributed import Processes
from pipnet.training.state import TrainingError

ALONE = Processes(0, 1, torch.device("cpu"))
STAGE = {"name": "labels", "epochs": 1, "pseudo": False}
MIXED = {"name": "mixed", "epochs": 2}
FACES = {"digest": "a", "faces": 3}


def config(**more):
    return {"seed": 0, "curriculum": {"stages": [STAGE]}, **more}


def test_a_slip_may_be_put_right_until_something_was_trained(tmp_path):
    StageRecords(tmp_path, config(detector="retinafase"), ALONE).learns_from(FACES)
    assert StageRecords(tmp_path, config(detector="retinafase"), ALONE).unlabelled == FACES
    records = StageRecords(tmp_path, config(detector="retinaface"), ALONE)
    assert records.unlabelled is None, "they were found with the other settings"
    (tmp_path / "0_labels").mkdir()
    (tmp_path / "0_labels" / "last.pt").touch()
    with pytest.raises(TrainingError, match="detector=retinaface, now detector=yunet"):
        StageRecords(tmp_path, config(detector="yunet"), ALONE)
    assert StageRecords(tmp_path, config(detector="retinaface"), ALONE).stages == []


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ({"pool_factor": 2}, {}, "2.pool_factor=2, now .*2.pool_factor=1;"),
        ({}, {"start": "teacher"}, "2.start=backbone, now .*2.start=teacher;"),
        ({"select": {"min_face": 0.3}}, {"select": None}, "2.select.min_face=0.3, now .*2.select.min_face=0.0;"),
        ({"select": None}, {"select": {"weighted": True}}, "2.select.weighted=False, now .*2.select.weighted=True;"),
        ({"labelled_share": 0.5}, {}, "2.labelled_share=0.5, now .*2.labelled_share=None;"),
    ],
)
def test_a_key_that_comes_or_goes_is_another_setting(tmp_path, before, now, message):
    def curriculum(more, **rest):
        return {"seed": 0, "curriculum": {"stages": [STAGE, MIXED, {**MIXED, **more}], **rest}}

    StageRecords(tmp_path, curriculum(before), ALONE).add({"name": "0_labels"})
    with pytest.raises(TrainingError, match=rf"curriculum\.stages\.{message}"):
        StageRecords(tmp_path, curriculum(now), ALONE)
    with pytest.raises(TrainingError, match=r"curriculum\.repeat\.most=1, now curriculum\.repeat\.most=3"):
        StageRecords(tmp_path, curriculum(before, repeat={"most": 3}), ALONE)
    written_out = {"pool_factor": 1, "start": "backbone", "labelled_share": None, "select": None, **before}
    StageRecords(tmp_path, curriculum(written_out, repeat={"most": 1}, one_schedule=False), ALONE)


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_an_ordinary_training_is_not_written_over(tmp_path, name):
    (tmp_path / name).write_bytes(b"of a training")
    with pytest.raises(TrainingError, match=rf"{name} was not made by a self-training.*choose another folder"):
        StageRecords(tmp_path, config(), ALONE)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("name", "content"), [("run", "{"), ("run", "[]"), ("run", "{}"), ("stages", "{}")])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / f"{name}.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{name}.json is damaged \(.*\); choose another folder, or delete this one"):
        StageRecords(tmp_path, config(), ALONE)
