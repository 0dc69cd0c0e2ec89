"""A small self-training in which every process labels some of the faces; alone, or one of several."""

from small_self_training import STAGES, self_train_here, stages

from pipnet.self_training import pseudo_labels

ARGUMENTS = (
    # From the backbone: a few steps from trained weights would make 0.02 of the 0.000002 that two processes differ by.
    stages(
        STAGES[0],
        {"name": "full", "epochs": 1, "views": 2, "labelled_share": 0.5},
        {"name": "soft", "epochs": 1, "labelled_share": 0.5, "shrink": {"blur": 0.1, "power": 2, "weight": 1}},
        {"name": "taught", "epochs": 1, "labelled_share": 0.5, "start": "teacher", "online": True},
    ),
    "fit.ema_decay=0.9",
    "self_training.epoch_faces=16",
    # Plain gradient descent: Adam would turn rounding in a gradient near zero into a whole step.
    # At 0.01 eight steps from a random head made 0.009 of the rounding, which is another on each CPU; here 0.000002.
    "optim.name=sgd",
    "optim.lr=0.001",
)


def train(folder):
    pseudo_labels.CHUNK = 3  # faces: several chunks for each process
    return self_train_here(folder, *ARGUMENTS)
