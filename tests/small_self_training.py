"""Self-trainings of seconds: labelled cartoons, unlabelled sketches, one epoch of a few steps a stage."""

import json
from pathlib import Path

import small_training

from pipnet.model import checkpoint
from pipnet.self_train import self_train

ARGUMENTS = (
    "experiment=self_train_drawn",
    "dataset.splits.train.count=14",
    "dataset.splits.train.size=64",
    "dataset.splits.val.count=4",
    "dataset.splits.val.size=64",
    "model.num_neighbors=3",
    "model.input_size=64",
    "model.net_stride=32",  # no transposed convolution, which would have most of the weights and half of the time
    "fit.batch_size=4",
    "fit.epochs=1",
    "fit.validate_every=1",
    "fit.save_minutes=1000",  # after every epoch only
    "fit.progress_bar=false",
    "self_training.epoch_faces=null",
    "self_training.images=null",
    "curriculum.one_schedule=false",
    "unlabelled=[{style: sketch, count: 12, seed: 3, size: 160}]",
    "rules.min_score=0.6",
    "device=cpu",
)
STAGES = (
    {"name": "labels", "epochs": 1, "pseudo": False},
    {"name": "coarse", "epochs": 1, "pool_factor": 2},
    {"name": "full", "epochs": 1, "views": 2, "start": "teacher", "labelled_share": 0.5, "select": {"weighted": True}},
)


def stages(*listed):
    """Stages as an argument of the command line."""
    return "curriculum.stages=" + json.dumps(list(listed)).replace('"', "")


def config(folder, *more):
    """What the command makes of its arguments."""
    return small_training.config(folder, *more, primary="self_train", arguments=ARGUMENTS)


def self_train_here(folder, *more):
    return small_training.run_here(self_train, config(folder, *more))


def records(folder):
    """The finished stages."""
    path = Path(folder) / "stages.json"
    return json.loads(path.read_text()) if path.is_file() else []


def weights(folder):
    """The weights of the result, and of every stage."""
    found = {"best": checkpoint.read(Path(folder) / "best.pt")["weights"]}
    for record in records(folder):
        found[record["name"]] = checkpoint.read(Path(folder) / record["weights"])["weights"]
    return found
