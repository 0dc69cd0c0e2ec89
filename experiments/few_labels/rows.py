"""What is compared: labels alone and curricula, with a part of 300W's labels, each a self-training's arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass

SEEDS = (0, 1, 2)
PERCENTS = (5, 10, 20)
LADDER = (15_000, 30_000, 60_000, 120_000, 240_000)  # images of complete trainings on labels alone
EPOCH = 1_500  # images, of which whole batches count
FACE_SIZE = 112  # px
GAIN = 0.01  # a doubling of the images that lowers validation by less is no gain
SETTINGS = (
    "dataset=300w",
    "fit.batch_size=16",
    "fit.ema_decay=0.999",
    "fit.validate_every=5",
    "fit.progress_bar=false",
    f"self_training.epoch_faces={EPOCH}",
    "self_training.teacher_weights=last",  # one rule for all rows; each row's result are its last weights
    f"face_size={FACE_SIZE}",
    "device=cpu",
)
SMALL = ("model.backbone=mobilenet_v2_stride16", "model.net_stride=16", "model.input_size=96", "fit.frozen_blocks=4")
LARGE = (
    "model=rival",
    "model.network=cascaded_pyramid",
    "model.backbone=mobilenet_v2",
    "model.input_size=128",
    "fit.frozen_blocks=2",
    "optim.lr=0.002",
)
LABELS = {"name": "labels", "epochs": 1, "pseudo": False}


def epochs(images: int) -> int:
    """Of so many images, nearly."""
    return max(1, round(images / EPOCH))


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        title: For people.
        curriculum: Its name.
        stages: Name, images and further keys of the stages that follow on the labels; None takes those of the
            curriculum.
        teacher: The row whose network of the same part and seed takes the first stage's place; None: it trains itself.
        images: Of the training; None: the plateau of labels alone, or what the stages sum up to.
        network: Arguments that replace those of the network.
        beyond: Images beyond that plateau.
        runs: Percent of the labels to seeds.
    """

    title: str
    curriculum: str
    runs: dict[int, tuple[int, ...]]
    stages: tuple[tuple[str, int, dict[str, object]], ...] | None = None
    teacher: str | None = "labels"
    images: int | None = None
    beyond: int = 0
    network: tuple[str, ...] = SMALL

    def arguments(self, images: int) -> list[str]:
        """Of ``python -m pipnet.self_train``, but for data, seed and folder; labels alone see so many images."""
        settings = [*SETTINGS, *self.network]
        if self.stages is None:
            return [*settings, f"curriculum={self.curriculum}", f"self_training.images={images}"]
        listed = [LABELS] if self.teacher else []
        listed += [{"name": name, "epochs": epochs(count), **more} for name, count, more in self.stages]
        written = json.dumps(listed).replace('"', "")
        return [*settings, f"curriculum={self.curriculum}", f"curriculum.stages={written}"]


FULL = [(f"full_{n}", 30_000, {}) for n in (1, 2, 3, 4)]
LAST = 120_000  # images of the last stage of a curriculum that starts anew: starved it would lose for that alone


def _stld() -> tuple[tuple[str, int, dict[str, object]], ...]:
    """The released schedule in proportion: pretraining, then labels, then three rounds of a fifth and the whole."""
    shrinks = ((0.0344, 2.4, 0.1), (0.0281, 1.6, 1), (0.0234, 1, 1))
    stages: list[tuple[str, int, dict[str, object]]] = [
        ("pretrain_1", 40_000, {"labelled_share": 0}),
        ("round_1", 10_000, {"pseudo": False, "start": "pretrain_1"}),
    ]
    for n, (blur, power, weight) in enumerate(shrinks, start=2):
        shrink = {"blur": blur, "power": power, "weight": weight}
        stages.append((f"pretrain_{n}", 8_000, {"labelled_share": 0, "start": f"pretrain_{n - 1}"}))
        more = {"teacher": f"round_{n - 1}", "start": f"pretrain_{n}", "shrink": shrink}
        stages.append((f"round_{n}", 55_000, more))
    return tuple(stages)


ROWS: dict[str, Row] = {
    "labels": Row("labels only, to their plateau", "labels", {10: SEEDS, 20: SEEDS, 5: (0,)}, teacher=None),
    "ours": Row("ours", "ours", {10: SEEDS, 20: (0,), 5: (0,)}, teacher=None, images=150_000),
    "stc": Row(
        "STC, shortened",
        "paper_short",
        {10: SEEDS, 20: (0,), 5: (0,)},
        (
            ("cells_2x2", 30_000, {"pool_factor": 3}),
            ("cells_3x3", 30_000, {"pool_factor": 2}),
            ("full_1", 30_000, {}),
            ("full_2", 30_000, {}),
            ("full_3", LAST, {}),
        ),
    ),
    "stld": Row("STLD, shortened", "stld", {10: SEEDS}, _stld()),
    "plain": Row("plain self-training", "none_short", {10: (0,)}, (*FULL, ("full_5", LAST, {}))),
    "labels_long": Row("labels only, the images of the others", "labels", {10: (0,)}, teacher=None, beyond=240_000),
}


def _ours(labels: int, unlabelled: tuple[tuple[int, dict[str, object]], ...], last: int = 0) -> Row:
    """A variant of ours, 150,000 images under one falling learning rate: labels, then photos too, then labels again."""
    stages: list[tuple[str, int, dict[str, object]]] = [("labels", labels, {"pseudo": False})]
    stages += [("mixed", images, {"start": "teacher", **more}) for images, more in unlabelled]
    stages += [("labels", last, {"pseudo": False, "start": "teacher"})] if last else []
    return Row("a variant of ours", "ours", {10: (0,)}, tuple(stages), teacher=None)


_STILL: dict[str, object] = {"labelled_share": 0.7, "views": 4, "select": {"weighted": True, "min_face": 0.3}}
_ONLINE: dict[str, object] = {"labelled_share": 0.5, "online": True, "select": {"weighted": True, "min_face": 0.3}}
_MORE: dict[str, object] = {"labelled_share": 0.25}
_BALANCED = _ONLINE | {"select": {"weighted": True, "min_face": 0.3, "balanced": True}}
# What ours may be, compared on validation faces alone, with 10 % of the labels and seed 0; test sets are not read.
VARIANTS: dict[str, Row] = {
    "ours_labels_last": _ours(75_000, ((30_000, _STILL), (30_000, _STILL)), 15_000),
    "ours_online": _ours(60_000, ((90_000, _ONLINE),)),
    "ours_online_photos": _ours(45_000, ((90_000, _ONLINE | _MORE),), 15_000),
    "ours_photos": _ours(45_000, ((30_000, _STILL | _MORE),) * 3, 15_000),
    "ours_online_labels_last": _ours(60_000, ((75_000, _ONLINE),), 15_000),
    "ours_online_balanced": _ours(60_000, ((75_000, _BALANCED),), 15_000),
    # A larger network learns the labels and teaches the small one the photos.
    "large": Row("a larger network", "labels", {10: (0,)}, teacher=None, images=20_000, network=LARGE),
    "ours_large_teacher": Row(
        "a variant of ours",
        "ours",
        {10: (0,)},
        (
            ("mixed", 120_000, _STILL | _MORE | {"start": "backbone"}),
            ("labels", 15_000, {"pseudo": False, "start": "teacher"}),
        ),
        teacher="large",
    ),
}


@dataclass(frozen=True)
class Run:
    """One training: of a row or a variant of ours, or a rung of the ladder that finds the plateau of labels alone.

    Attributes:
        row: Of :data:`ROWS` or :data:`VARIANTS`.
        percent: Of the labels.
        seed: Of the split, the start and the order.
        rung: Images of a rung; its test sets are not read.
    """

    row: str
    percent: int
    seed: int = 0
    rung: int | None = None

    @property
    def about(self) -> Row:
        """The row."""
        return ROWS.get(self.row) or VARIANTS[self.row]

    @property
    def reads_tests(self) -> bool:
        """Whether its figures are the record's, and not something to choose by."""
        return self.rung is None and self.row in ROWS

    @property
    def name(self) -> str:
        """Of the file of what it measured."""
        return f"{self.row}_{self.percent}_{self.seed}" + ("" if self.rung is None else f"_{self.rung}")


def all_runs() -> list[Run]:
    """In the order in which they are made: ladder, variants, a seed of each row at 10 %, then what decides the bars.

    Not every rung is trained: :func:`experiments.few_labels.train.due`.
    """
    ladder = [Run("labels", percent, rung=rung) for percent in (10, 20) for rung in LADDER]
    listed = [
        Run(row, percent, seed) for row, of in ROWS.items() for percent, seeds in of.runs.items() for seed in seeds
    ]
    order = {"labels": 0, "ours": 1, "stc": 2, "stld": 3, "plain": 4, "labels_long": 5}
    first = {(10, 0): 0, (20, 0): 1, (20, 1): 1, (20, 2): 1, (10, 1): 2, (10, 2): 3, (5, 0): 4}
    ladder += [Run(name, 10) for name in VARIANTS]
    return ladder + sorted(listed, key=lambda run: (first[run.percent, run.seed], order[run.row]))
