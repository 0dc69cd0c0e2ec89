"""What a self-training remembers between its stages, and what it refuses."""

import pytest
import torch

from pipnet.data.dataset import FaceCrops
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.layouts import get_layout
from pipnet.model.network import Prediction
from pipnet.self_training.stages import StageRecords, evidence, held_out
from pipnet.training.distributed import Processes
from pipnet.training.state import TrainingError
from pipnet.training.validation import Validation

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


class Stubborn(torch.nn.Module):
    """Gives the same points whatever it sees."""

    def __init__(self, points):
        super().__init__()
        self.points = torch.tensor(points, dtype=torch.float32)

    def predict(self, crops):
        points = self.points.expand(len(crops), *self.points.shape[1:])
        return Prediction(points, torch.ones(points.shape[:2]), torch.ones(len(points)))


def test_a_stage_says_how_it_went_and_whether_it_got_worse():
    layout = get_layout("300w_68")
    faces = FaceCrops(draw_faces(6, seed=1, size=64), layout, input_size=64, crop_scale=1.25)
    validation, device = Validation(faces, layout), torch.device("cpu")
    truth = validation.points.mean(axis=0, keepdims=True)
    teacher = held_out(Stubborn(truth), validation, device)
    worse = held_out(Stubborn(truth + 0.05), validation, device, before=teacher)
    better = held_out(Stubborn(truth), validation, device, before=worse)
    figures = validation(Stubborn(truth + 0.05), device)
    assert worse["held_out"]["nme"]["value"] == pytest.approx(figures["val_nme"])
    assert worse["held_out"]["to_teacher"]["low"] > 0 > better["held_out"]["to_teacher"]["high"]
    assert worse["held_out"]["agreement"] < better["held_out"]["agreement"]
    labels = {"yaws": {"0": 0.75, "15": 0.25}, "scores": {"0": 0.1, "0.5": 0.9}}
    record = {"name": "1_full", "pseudo_labels": labels, **worse}
    first, second = evidence(record).splitlines()
    assert first.startswith(f"1_full: validation NME {figures['val_nme']:.2f} % (")
    assert first.endswith(
        "pseudo-labels by yaw: 75 % from 0°, 25 % from 15°; pseudo-labels by score: 10 % from 0, 90 % from 0.5"
    )
    assert second.startswith("warning: 1_full is worse than its teacher by ")
    assert "chance" not in second
    assert len(evidence({"name": "1_full", "pseudo_labels": None, **better}).splitlines()) == 1
    alike = {**worse["held_out"], "to_teacher": {"value": 0.01, "low": -0.1, "high": 0.1}}
    assert evidence({**record, "held_out": alike}).endswith("the difference may be chance")
