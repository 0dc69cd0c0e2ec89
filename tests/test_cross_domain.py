"""The benchmark of ``experiments/cross_domain`` and its neighbours: statistics, which runs there are, commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from cross_domain_files import errors_on, finished, save, write_300w, write_wflw
from hydra import compose, initialize_config_dir

from experiments.cross_domain import figures, measure, pairs, runs
from experiments.cross_domain_full import measure as full_size
from experiments.cross_domain_tried import measure as tried
from experiments.cross_domain_tried import turned
from pipnet.config import config_dir, plain
from pipnet.data.sample import Sample
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.evaluation.evaluate import Evaluation
from pipnet.inference.landmarker import SHIPPED_WEIGHTS, FaceLandmarker
from pipnet.layouts import get_layout
from pipnet.metrics import nme, norm_distances, paired_bootstrap
from pipnet.model import checkpoint

ROWS = measure.ROWS

# Statistics.


def test_a_figure_is_the_mean_of_the_seeds_own():
    """Three faces, two seeds; AUC is the mean of 1 - error / 0.1 where that is above 0."""
    got = figures.figures(np.array([[0.01, 0.02, 0.09], [0.05, 0.06, 0.11]]))
    assert {name: figure["seeds"] for name, figure in got.items()} == {
        "mean": [4.0, round(22 / 3, 4)],
        "median": [2.0, 6.0],
        "fr_10": [0.0, round(100 / 3, 4)],
        "auc_10": [round(100 * (0.9 + 0.8 + 0.1) / 3, 4), round(100 * (0.5 + 0.4) / 3, 4)],
    }
    for name, figure in got.items():
        assert figure["value"] == pytest.approx(np.mean(figure["seeds"]), abs=1e-4), name
        assert figure["low"] <= figure["value"] <= figure["high"], name


def test_the_median_is_not_that_of_averaged_errors():
    """Each seed has one bad face, another one: its median is 1 %, that of the averages would be 21 %."""
    got = figures.figures(np.where(np.eye(3, 3) > 0, 0.61, 0.01))["median"]
    assert got == {"value": 1.0, "low": 1.0, "high": got["high"], "seeds": [1.0, 1.0, 1.0]}


def test_the_mean_is_that_of_errors_averaged_face_by_face():
    rng = np.random.default_rng(0)
    ours, base = rng.gamma(4, 0.01, (3, 40)), rng.gamma(4, 0.012, (2, 40))
    got = figures.difference(ours, base)["mean"]
    expected = paired_bootstrap(ours.mean(axis=0), base.mean(axis=0)).scaled(100)
    assert got | figures.plain(expected) == got


def test_relative_changes_and_their_widths():
    base = np.array([[0.02, 0.04, 0.06]])
    got = figures.difference(base + 0.01, base)  # shared by every face: no width
    assert got["mean"] | {"value": 1.0, "low": 1.0, "high": 1.0} == got["mean"]
    assert (got["mean"]["relative"]["value"], got["auc_10"]["value"]) == (25.0, -10.0)
    halved = figures.difference(base / 2, base)["median"]["relative"]
    assert halved == {"value": -50.0, "low": -50.0, "high": -50.0}
    # No failure before: no change in percent. One of few: a value, and no interval, for some resamples have none.
    none, one, two = np.array([[0.02] * 4]), np.array([[0.02] * 3 + [0.2]]), np.array([[0.02] * 2 + [0.2] * 2])
    of_none, of_one = (figures.difference(*pair)["fr_10"] for pair in ((one, none), (two, one)))
    assert (of_none["value"], of_none["relative"]) == (25.0, {"value": None, "low": None, "high": None})
    assert of_one["relative"] == {"value": 100.0, "low": None, "high": None}


def test_missed_faces():
    errors = np.array([[0.02, 0.04, np.inf]])
    got = figures.figures(errors)
    assert (got["mean"]["value"], got["fr_10"]["value"]) == (3.0, round(100 / 3, 4))
    assert figures.difference(errors, errors * 2)["mean"]["value"] == -3.0
    with pytest.raises(ValueError, match="missed different faces"):
        figures.difference(errors, np.array([[0.02, np.inf, 0.04]]))
    with pytest.raises(ValueError, match="the same faces, got 3 and 2"):
        figures.difference(errors, errors[:, :2])


def test_intervals_over_photos():
    """With a face a photo they are those over faces; a photo whose faces are alike counts once, and widens them."""
    rng = np.random.default_rng(0)
    ours, base = rng.gamma(4, 0.01, (3, 60)), rng.gamma(4, 0.012, (2, 60))
    over_faces = figures.difference(ours, base)["mean"]
    assert figures.over_photos(ours, base, np.arange(60)) == over_faces
    photos = np.repeat(np.arange(60), 4)
    copies = [np.repeat(values, 4, axis=1) for values in (ours, base)]
    assert figures.over_photos(*copies, photos) == over_faces
    narrow = figures.difference(*copies)["mean"]
    assert narrow["high"] - narrow["low"] < 0.6 * (over_faces["high"] - over_faces["low"])


def test_a_constant_gap_between_two_conventions_goes_and_what_differs_from_face_to_face_stays():
    rng = np.random.default_rng(0)
    true = np.cumsum(rng.uniform(1, 5, (30, 68, 2)), axis=1)
    gap, noise = rng.normal(0, 0.05, (68, 2)), rng.normal(0, 0.01, (30, 68, 2))
    size = norm_distances(true, get_layout("300w_68"))["box"][:, None, None]
    samples = [Sample(f"photos/{n // 3}.jpg", points, str(n)) for n, points in enumerate(true)]
    made = [evaluation(samples, true, true + (of + noise) * size) for of in (0, gap)]
    plain, moved = ([pairs.without_offsets(of).errors("box"), of.errors("box")] for of in made)
    assert moved[1].mean() > 4 * plain[1].mean()
    np.testing.assert_allclose(moved[0], plain[0], rtol=1e-9)
    assert moved[0].mean() == pytest.approx(plain[1].mean(), rel=0.05)
    # Its own photo says nothing of a face: without other photos nothing is taken away.
    alone = [Sample("photos/1.jpg", points, str(n)) for n, points in enumerate(true)]
    of_one = evaluation(alone, true, true + (gap + noise) * size)
    np.testing.assert_array_equal(pairs.without_offsets(of_one).pred, of_one.pred)


def evaluation(samples, true, pred) -> Evaluation:
    faces = len(true)
    boxes = np.concatenate([true.min(axis=1), true.max(axis=1)], axis=1)
    of_faces, of_points = np.ones(faces), np.ones(true.shape[:2])
    sizes = np.full((faces, 2), 500)
    shown = tuple(samples)
    return Evaluation(
        shown, get_layout("300w_68"), true, pred, of_faces, of_points, boxes, boxes, of_faces, sizes, protocol={}
    )


# Which runs there are.


def find(root: Path, *, partial: bool = False, pair: str = "300w_wflw"):
    return runs.find_runs(root, pair, ROWS, partial=partial, kept=root / "errors")


def test_a_missing_run_names_the_command_that_makes_it(tmp_path):
    for row in ROWS:
        for seed in range(3):
            finished(tmp_path, row, seed)
    finished(tmp_path, "ours", 0, pair="wflw_300w")
    (tmp_path / "cross_domain_300w_wflw_ours_old").mkdir()
    assert {row: list(seeds) for row, seeds in find(tmp_path).items()} == {row: [0, 1, 2] for row in ROWS}
    (tmp_path / "cross_domain_300w_wflw_paper_short_1" / "best.pt").unlink()  # still in training
    sentence = (
        r"no finished run .*_paper_short_1; make it with: python -m pipnet\.self_train "
        r"experiment=cross_domain_300w_wflw curriculum=paper_short seed=1 "
        r"folder=.*cross_domain_300w_wflw_paper_short_1 \(--partial"
    )
    with pytest.raises(FileNotFoundError, match=sentence):
        find(tmp_path)
    assert list(find(tmp_path, partial=True)["paper_short"]) == [0, 2]
    finished(tmp_path, "labels", 3)  # a further seed takes part in every row
    with pytest.raises(FileNotFoundError, match=r"curriculum=none_short seed=3 .*\(3 more are missing"):
        find(tmp_path)
    assert list(find(tmp_path, partial=True)["labels"]) == [0, 1, 2, 3]
    with pytest.raises(FileNotFoundError, match="curriculum=labels seed=0"):
        find(tmp_path / "nowhere", partial=True)


def test_training_images_are_those_of_all_stages(tmp_path):
    folder = finished(tmp_path, "ours", 0, images=(1000, 200, 30))
    assert runs.training_images(folder) == 1230
    (folder / "stages.json").write_text('[{"name": "labels"}]')
    with pytest.raises(ValueError, match=r"stages\.json does not say how many images"):
        runs.training_images(folder)


# The commands.


def longest_list(tree: object) -> int:
    if isinstance(tree, dict):
        return max(map(longest_list, tree.values()), default=0)
    return len(tree) if isinstance(tree, list) else 0


def test_one_command_fills_the_benchmark(tmp_path):
    faces = draw_faces(5, seed=0, size=96)
    write_300w(tmp_path, faces[:2])
    write_wflw(tmp_path, faces[2:])
    made, output = tmp_path / "runs", tmp_path / "metrics.json"
    for number, (row, seed) in enumerate([("labels", 0), ("paper_short", 0), ("ours", 0), ("ours", 1)]):
        save(finished(made, row, seed) / "best.pt", seed=number)
    arguments = [str(made), str(tmp_path), "--output", str(output)]
    with pytest.raises(SystemExit, match=r"curriculum=labels seed=1 .*\(7 more are missing"):
        measure.main(arguments)
    assert not output.exists()
    measure.main([*arguments, "--partial"])
    metrics = json.loads(output.read_text())
    assert metrics["pair"] == "300w_wflw"
    assert [of["title"] for of in metrics["sets"].values()] == ["Common-2", "WFLW-3"]
    assert metrics["missing"] == ["none_short"]
    command = "python -m pipnet.self_train experiment=cross_domain_300w_wflw curriculum=ours seed="
    assert metrics["rows"]["ours"] == {
        "seeds": [0, 1],
        "training_images": [300, 300],
        "commands": [f"{command}0", f"{command}1"],
    }
    target = metrics["sets"]["target"]["figures"]
    assert {subset: table["box"]["faces"] for subset, table in target.items()} == {"all": 3, "pose": 2, "blur": 1}
    rows = target["all"]["outer_eye"]["rows"]
    assert {row: set(of) & {"to_first", "to_stc"} for row, of in rows.items()} == {
        "labels": set(),
        "paper_short": {"to_first"},
        "ours": {"to_first", "to_stc"},
    }
    # One figure the plain way: predicted by the network itself from the label's box, measured against the drawn points.
    landmarker = FaceLandmarker.load(made / "cross_domain_300w_wflw_ours_1" / "best.pt", runtime="torch")
    predicted = np.stack([landmarker(face.image, boxes=face.box).points[0] for face in faces[2:]])
    true = np.stack([face.points for face in faces[2:]])
    expected = nme(predicted, true, np.linalg.norm(true[:, 36] - true[:, 45], axis=-1)).mean()
    assert rows["ours"]["mean"]["seeds"][1] == pytest.approx(100 * expected, rel=1e-3)
    assert longest_list(metrics["sets"]) <= 2  # of the seeds; errors of single faces stand in files of their own
    errors = tmp_path / "errors" / "300w_wflw_ours_1.json"
    kept = json.loads(errors.read_text())
    assert np.mean(kept["errors"]["target"]["outer_eye"]) == pytest.approx(100 * expected, rel=1e-3)
    save(made / "cross_domain_300w_wflw_ours_1" / "best.pt", seed=99)  # trained again: not the errors of the first
    measure.main([*arguments, "--partial"])
    again = json.loads(errors.read_text())
    assert again["errors"] != kept["errors"]
    assert again["sha256"] != kept["sha256"]
    shutil.rmtree(made)  # on another machine: the errors stand in for the checkpoints, to the same figures
    first = output.read_text()
    measure.main([*arguments, "--partial"])
    assert output.read_text() == first
    errors.write_text("{")
    with pytest.raises(SystemExit, match=r"300w_wflw_ours_1\.json is damaged .* delete it"):
        measure.main([*arguments, "--partial"])


def test_two_checkpoints_side_by_side(tmp_path):
    faces = draw_faces(5, seed=1, size=96)
    write_300w(tmp_path, faces[:2])
    write_wflw(tmp_path, faces[2:])
    before, after = save(tmp_path / "before.pt", 0), save(tmp_path / "after.pt", 1)
    output = tmp_path / "full_size.json"
    full_size.main([str(before), str(after), str(tmp_path), "--output", str(output)])
    metrics = json.loads(output.read_text())
    first, second = (
        100 * errors_on("300w_wflw", tmp_path, path)[1]["target"]["box"].mean() for path in (before, after)
    )
    table = metrics["sets"]["target"]["figures"]["all"]["box"]
    assert table["before"]["mean"]["value"] == pytest.approx(first, abs=1e-3)
    assert table["change"]["mean"]["value"] == pytest.approx(second - first, abs=1e-3)
    assert table["change"]["mean"]["relative"]["value"] == pytest.approx(100 * (second / first - 1), abs=1e-3)
    assert metrics["sets"]["target"]["figures"]["pose"]["box"]["faces"] == 2
    assert len(set(metrics["sha256"].values())) == 2
    assert longest_list(metrics) == 1  # the single figure of the only training
    with pytest.raises(SystemExit, match=r"error: .*nowhere\.pt"):
        full_size.main([str(before), str(tmp_path / "nowhere.pt"), str(tmp_path), "--output", str(output)])


def test_the_stand_in_is_turned_away_more_than_what_is_labelled(tmp_path, capsys):
    with pytest.raises(SystemExit, match=r"usage: turned\.py"):
        turned.main([])
    with pytest.raises(SystemExit, match=r"error: .*300W"):
        turned.main([str(tmp_path), str(tmp_path / "turned")])
    write_300w(tmp_path, draw_faces(10, seed=0, size=96), "helen/trainset")
    for needed in ("afw", "lfpw/trainset"):
        (tmp_path / "300W" / needed).mkdir(parents=True, exist_ok=True)
    turned.main([str(tmp_path), str(tmp_path / "turned")])
    labelled, target = (
        {line.split(",")[0] for line in (tmp_path / "turned" / name).read_text().splitlines()[1:]}
        for name in ("train.csv", "test.csv")
    )
    assert (len(labelled), len(target), len(labelled | target)) == (6, 2, 8)
    assert all(Path(photo).is_file() for photo in labelled | target)
    least, most = re.findall(r"yaw (\d+) to (\d+)", capsys.readouterr().out)
    assert int(least[1]) <= int(most[0])


# Configs.


def composed(*overrides: str) -> dict:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return plain(compose("self_train", overrides=list(overrides)))


@pytest.mark.parametrize(
    ("pair", "row"), [*((pair, "ours") for pair in pairs.PAIRS), *(("300w_wflw", row) for row in ROWS[:-1])]
)
def test_every_pair_has_an_experiment_whose_runs_are_found(pair, row, tmp_path):
    words = runs.command(pair, row, 2).split()
    assert words[:3] == ["python", "-m", "pipnet.self_train"]
    settings = composed(*words[3:])
    folder = tmp_path / settings["folder"]
    folder.mkdir(parents=True)
    (folder / "best.pt").touch()
    found = find(tmp_path / "runs", pair=pair, partial=True)
    assert {name: list(seeds) for name, seeds in found.items()} == {row: [2]}
    assert settings["model"]["input_size"] // settings["model"]["net_stride"] == 6
    dataset = pairs.pair_named(pair).source.dataset
    assert settings["dataset"]["name"] == dataset  # its test faces are the source set


def test_what_was_tried_can_be_trained_again(capsys):
    tried.main(["--commands", "runs/turned"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "pool=" not in line]
    assert len(lines) == len(tried.VARIANTS)  # a comment where one needs an old commit
    settings = [composed(*shlex.split(line)[3:]) for line in lines if not line.startswith("#")]
    assert settings[-1]["folder"] == "runs/turned_paper_uneven"
    assert [stage.get("pool_factor") for stage in settings[-1]["curriculum"]["stages"]] == [None, 3, 2, None]


def test_the_full_size_experiments_are_those_of_the_weights_that_ship():
    first, second = (composed(f"experiment=cross_domain_300w_wflw_{name}") for name in ("full", "full_2"))
    assert second["teacher"] == f"runs/{first['name']}/best.pt"
    shipped = checkpoint.load(SHIPPED_WEIGHTS)
    made = shipped.training["config"]
    assert made["name"] == second["name"]
    made["optim"]["backbone_lr"] = made["optim"].pop("trunk_lr")  # their names up to 0.4
    made["transform"]["box_scale_jitter"] = made["transform"].pop("box_scale")
    for stage in made["curriculum"]["stages"][1:]:
        stage["start"] = {"newest": "teacher"}[stage["start"]]
    for group in ("model", "transform", "optim", "schedule", "loss", "curriculum", "rules"):
        assert made[group] == second[group], group
    for name in ("batch_size", "ema_decay", "frozen_blocks"):
        assert made["fit"][name] == first["fit"][name], name
    assert shipped.training["images"] == made["self_training"]["images"] == second["self_training"]["images"]
