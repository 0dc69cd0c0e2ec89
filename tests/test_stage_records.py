"""What a self-training remembers between its stages, and what it refuses."""

import json

import pytest
import torch

from pipnet.training.processes import Processes
from pipnet.training.stage_records import StageRecords
from pipnet.training.state import TrainingError

ALONE = Processes(0, 1, torch.device("cpu"))
STAGE = {"name": "labels", "epochs": 1}
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


def test_a_finished_stage_counts_as_trained(tmp_path):
    StageRecords(tmp_path, config(), ALONE).add({"name": "0_labels"})
    with pytest.raises(TrainingError, match="seed=0, now seed=1"):
        StageRecords(tmp_path, config(seed=1), ALONE)
    assert StageRecords(tmp_path, config(), ALONE).stages == [{"name": "0_labels"}]


@pytest.mark.parametrize(("name", "content"), [("run", "{"), ("run", "[]"), ("run", "{}"), ("stages", "{}")])
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / f"{name}.json").write_text(content)
    with pytest.raises(ValueError, match=rf"{name}.json is damaged \(.*\); choose another folder, or delete this one"):
        StageRecords(tmp_path, config(), ALONE)


def test_other_faces_are_refused(tmp_path):
    StageRecords(tmp_path, config(), ALONE).learns_from(FACES)
    assert json.loads((tmp_path / "run.json").read_text())["unlabelled"] == FACES
    with pytest.raises(TrainingError, match=r"was begun with 3 unlabelled faces, now there are others \(4\)"):
        StageRecords(tmp_path, config(), ALONE).learns_from({"digest": "b", "faces": 4})
