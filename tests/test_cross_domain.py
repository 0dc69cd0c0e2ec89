"""The benchmark of ``experiments/cross_domain``: statistics by hand, which runs there are, both commands, tables."""

from __future__ import annotations

import csv
import json
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cross_domain_files import FOLDER, beside_the_scripts, errors_on, finished, save, script, write_300w, write_wflw
from hydra import compose, initialize_config_dir

from pipnet.config import config_dir, plain
from pipnet.data.synthetic.dataset import draw_faces
from pipnet.inference.landmarker import SHIPPED_WEIGHTS
from pipnet.metrics import nme, paired_bootstrap
from pipnet.model import checkpoint

ROWS = ("labels", "none_short", "paper_short", "ours")


@pytest.fixture(autouse=True)
def _beside_the_scripts(monkeypatch):
    yield from beside_the_scripts(monkeypatch)


# Statistics.


def test_a_figure_is_the_mean_of_the_seeds_own():
    """Three faces, two seeds; AUC is the mean of 1 - error / 0.1 where that is above 0."""
    got = script("figures").figures(np.array([[0.01, 0.02, 0.09], [0.05, 0.06, 0.11]]))
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
    errors = np.where(np.eye(3, 3) > 0, 0.61, 0.01)
    got = script("figures").figures(errors)["median"]
    assert got == {"value": 1.0, "low": 1.0, "high": got["high"], "seeds": [1.0, 1.0, 1.0]}
    assert np.median(errors.mean(axis=0)) == pytest.approx(0.21)


def test_the_mean_is_that_of_errors_averaged_face_by_face():
    rng = np.random.default_rng(0)
    ours, base = rng.gamma(4, 0.01, (3, 40)), rng.gamma(4, 0.012, (2, 40))
    got = script("figures").difference(ours, base)["mean"]
    expected = paired_bootstrap(ours.mean(axis=0), base.mean(axis=0)).scaled(100)
    assert (got["value"], got["low"], got["high"]) == tuple(
        round(value, 4) for value in (expected.value, expected.low, expected.high)
    )


def test_a_difference_that_every_face_shares_has_no_width():
    base = np.array([[0.02, 0.04, 0.06]])
    got = script("figures").difference(base + 0.01, base)
    assert {name: got["mean"][name] for name in ("value", "low", "high")} == dict.fromkeys(
        ("value", "low", "high"), 1.0
    )
    assert got["mean"]["relative"]["value"] == 25.0
    assert got["auc_10"]["value"] == -10.0
    halved = script("figures").difference(base / 2, base)["median"]["relative"]
    assert halved == {"value": -50.0, "low": -50.0, "high": -50.0}


def test_no_relative_change_of_nothing():
    """No failure before: no change in percent. One of few: a value, and no interval, for some resamples have none."""
    figures = script("figures")
    none, one, two = np.array([[0.02] * 4]), np.array([[0.02] * 3 + [0.2]]), np.array([[0.02] * 2 + [0.2] * 2])
    assert figures.difference(one, none)["fr_10"]["relative"] == {"value": None, "low": None, "high": None}
    assert figures.difference(one, none)["fr_10"]["value"] == 25.0
    assert figures.difference(two, one)["fr_10"]["relative"] == {"value": 100.0, "low": None, "high": None}


def test_missed_faces():
    figures = script("figures")
    errors = np.array([[0.02, 0.04, np.inf]])
    got = figures.figures(errors)
    assert (got["mean"]["value"], got["fr_10"]["value"]) == (3.0, round(100 / 3, 4))
    assert figures.difference(errors, errors * 2)["mean"]["value"] == -3.0
    with pytest.raises(ValueError, match="missed different faces"):
        figures.difference(errors, np.array([[0.02, np.inf, 0.04]]))
    with pytest.raises(ValueError, match="the same faces, got 3 and 2"):
        figures.difference(errors, errors[:, :2])


# Which runs there are.


def test_a_missing_run_names_the_command_that_makes_it(tmp_path):
    find = partial(script("runs").find_runs, rows=ROWS, kept=tmp_path / "errors")
    for row in ROWS:
        for seed in range(3):
            finished(tmp_path, row, seed)
    finished(tmp_path, "ours", 0, pair="wflw_300w")
    (tmp_path / "cross_domain_300w_wflw_ours_old").mkdir()
    found = find(tmp_path, "300w_wflw", partial=False)
    assert {row: list(folders) for row, folders in found.items()} == {row: [0, 1, 2] for row in ROWS}
    (tmp_path / "cross_domain_300w_wflw_paper_short_1" / "best.pt").unlink()  # still in training
    sentence = (
        r"no finished run .*_paper_short_1; make it with: python -m pipnet\.self_train "
        r"experiment=cross_domain_300w_wflw curriculum=paper_short seed=1 "
        r"folder=.*cross_domain_300w_wflw_paper_short_1 \(--partial"
    )
    with pytest.raises(FileNotFoundError, match=sentence):
        find(tmp_path, "300w_wflw", partial=False)
    assert list(find(tmp_path, "300w_wflw", partial=True)["paper_short"]) == [0, 2]


def test_a_further_seed_takes_part_in_every_row(tmp_path):
    find = partial(script("runs").find_runs, rows=ROWS, kept=tmp_path / "errors")
    for seed in range(4):
        finished(tmp_path, "labels", seed)
    with pytest.raises(FileNotFoundError, match=r"curriculum=none_short seed=0 .*\(11 more are missing"):
        find(tmp_path, "300w_wflw", partial=False)
    assert {row: list(found) for row, found in find(tmp_path, "300w_wflw", partial=True).items()} == {
        "labels": [0, 1, 2, 3]
    }
    with pytest.raises(FileNotFoundError, match="curriculum=labels seed=0"):
        find(tmp_path / "nowhere", "300w_wflw", partial=True)


def test_training_images_are_those_of_all_stages(tmp_path):
    folder = finished(tmp_path, "ours", 0, images=(1000, 200, 30))
    assert script("runs").training_images(folder) == 1230
    (folder / "stages.json").write_text('[{"name": "labels"}]')
    with pytest.raises(ValueError, match=r"stages\.json does not say how many images"):
        script("runs").training_images(folder)


# Both commands, on synthetic faces.


def test_one_command_fills_the_benchmark(tmp_path, capsys):
    faces = draw_faces(5, seed=0, size=96)
    write_300w(tmp_path, faces[:2])
    write_wflw(tmp_path, faces[2:])
    runs, output = tmp_path / "runs", tmp_path / "metrics.json"
    for number, row in enumerate(ROWS):
        for seed in range(2 if row == "none_short" else 3):
            save(finished(runs, row, seed) / "best.pt", seed=10 * number + seed)
    measure = script("measure")
    arguments = [str(runs), str(tmp_path), "--output", str(output)]
    with pytest.raises(SystemExit, match="curriculum=none_short seed=2"):
        measure.main(arguments)
    assert not output.exists()
    (tmp_path / "README.md").write_text(
        "Seeds:\n\n<!-- 300w_wflw seeds -->\nold\n<!-- end of 300w_wflw seeds -->\n\nEnd.\n"
    )
    measure.main([*arguments, "--partial"])
    printed = capsys.readouterr().out
    metrics = json.loads(output.read_text())
    filled = f"<!-- 300w_wflw seeds -->\n\n{measure.seed_table(metrics)}\n\n<!-- end of 300w_wflw seeds -->"
    assert (tmp_path / "README.md").read_text() == f"Seeds:\n\n{filled}\n\nEnd.\n"
    for table in measure.TABLES.values():
        assert table(metrics) in printed
    assert metrics["pair"] == "300w_wflw"
    assert [faces["title"] for faces in metrics["sets"].values()] == ["Common-2", "WFLW-3"]
    assert metrics["rows"]["ours"] == {
        "seeds": [0, 1, 2],
        "training_images": [300, 300, 300],
        "commands": [
            f"python -m pipnet.self_train experiment=cross_domain_300w_wflw curriculum=ours seed={seed}"
            for seed in range(3)
        ],
    }
    target = metrics["sets"]["target"]["figures"]
    assert {subset: table["box"]["faces"] for subset, table in target.items()} == {"all": 3, "pose": 2, "blur": 1}
    rows = target["all"]["outer_eye"]["rows"]
    assert {row: set(figures) & {"to_first", "to_stc"} for row, figures in rows.items()} == {
        "labels": set(),
        "none_short": {"to_first"},
        "paper_short": {"to_first"},
        "ours": {"to_first", "to_stc"},
    }
    # One figure the plain way: predicted by the network itself from the label's box, measured against the drawn points.
    from pipnet.inference.landmarker import FaceLandmarker

    landmarker = FaceLandmarker.load(runs / "cross_domain_300w_wflw_ours_1" / "best.pt", runtime="torch")
    predicted = np.stack([landmarker(face.image, boxes=face.box).points[0] for face in faces[2:]])
    true = np.stack([face.points for face in faces[2:]])
    expected = nme(predicted, true, np.linalg.norm(true[:, 36] - true[:, 45], axis=-1)).mean()
    assert rows["ours"]["mean"]["seeds"][1] == pytest.approx(100 * expected, rel=1e-3)
    assert "plain self-training (2 of 3 seeds)" in printed
    assert longest_list(metrics["sets"]) <= 3  # of the seeds; errors of single faces stand in files of their own
    kept = json.loads((tmp_path / "errors" / "300w_wflw_ours_1.json").read_text())
    assert np.mean(kept["errors"]["target"]["outer_eye"]) == pytest.approx(100 * expected, rel=1e-3)
    save(runs / "cross_domain_300w_wflw_ours_1" / "best.pt", seed=99)  # trained again: not the errors of the first
    measure.main([*arguments, "--partial"])
    again = json.loads((tmp_path / "errors" / "300w_wflw_ours_1.json").read_text())
    assert again["errors"] != kept["errors"]
    assert again["sha256"] != kept["sha256"]
    shutil.rmtree(runs)  # on another machine: the errors stand in for the checkpoints, to the same figures
    first = output.read_text()
    measure.main([*arguments, "--partial"])
    assert output.read_text() == first
    (tmp_path / "errors" / "300w_wflw_ours_1.json").write_text("{")
    with pytest.raises(SystemExit, match=r"300w_wflw_ours_1\.json is damaged .* delete it"):
        measure.main([*arguments, "--partial"])


def test_the_stand_in_is_turned_away_more_than_what_is_labelled(tmp_path, capsys):
    turned = script("turned")
    with pytest.raises(SystemExit, match=r"usage: turned\.py"):
        turned.main([])
    with pytest.raises(SystemExit, match=r"error: .*300W"):
        turned.main([str(tmp_path), str(tmp_path / "turned")])
    write_300w(tmp_path, draw_faces(10, seed=0, size=96), "helen/trainset")
    for needed in ("afw", "lfpw/trainset"):
        (tmp_path / "300W" / needed).mkdir(parents=True, exist_ok=True)
    turned.main([str(tmp_path), str(tmp_path / "turned")])
    counts = {}
    for name in ("train", "test"):
        with (tmp_path / "turned" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        counts[name] = {row["image"] for row in rows}
        assert all(Path(row["image"]).is_file() for row in rows)
    assert [len(names) for names in counts.values()] == [6, 2]
    assert not counts["train"] & counts["test"]
    least, most = re.findall(r"yaw (\d+) to (\d+)", capsys.readouterr().out)
    assert int(least[1]) <= int(most[0])


def longest_list(tree: object) -> int:
    if isinstance(tree, dict):
        return max(map(longest_list, tree.values()), default=0)
    return len(tree) if isinstance(tree, list) else 0


def test_two_checkpoints_side_by_side(tmp_path, capsys):
    faces = draw_faces(5, seed=1, size=96)
    write_300w(tmp_path, faces[:2])
    write_wflw(tmp_path, faces[2:])
    before, after = save(tmp_path / "before.pt", 0), save(tmp_path / "after.pt", 1)
    full_size = script("full_size")
    output = tmp_path / "full_size.json"
    full_size.main([str(before), str(after), str(tmp_path), "--output", str(output)])
    metrics = json.loads(output.read_text())
    _, errors = errors_on("300w_wflw", tmp_path, before)
    _, errors_after = errors_on("300w_wflw", tmp_path, after)
    table = metrics["sets"]["target"]["figures"]["all"]["box"]
    first, second = 100 * errors["target"]["box"].mean(), 100 * errors_after["target"]["box"].mean()
    assert table["before"]["mean"]["value"] == pytest.approx(first, abs=1e-3)
    assert table["change"]["mean"]["value"] == pytest.approx(second - first, abs=1e-3)
    assert table["change"]["mean"]["relative"]["value"] == pytest.approx(100 * (second / first - 1), abs=1e-3)
    assert len(set(metrics["sha256"].values())) == 2
    printed = capsys.readouterr().out
    assert full_size.full_size_table(metrics) in printed
    assert "| WFLW-3, pose | 2 | box size |" in printed
    assert longest_list(metrics) == 1  # the single figure of the only training
    with pytest.raises(SystemExit, match=r"error: .*nowhere\.pt"):
        full_size.main([str(before), str(tmp_path / "nowhere.pt"), str(tmp_path), "--output", str(output)])


# Tables, from a record written by hand.


def figure(value, **more):
    return {"value": value, "low": value - 0.5, "high": value + 0.25, "seeds": [value - 1, value + 1], **more}


def statistics(value, **more):
    return {name: figure(value + i) for i, name in enumerate(("mean", "median", "fr_10", "auc_10"))} | more


def change(value):
    return statistics(value) | {"mean": figure(value, relative=figure(10 * value))}


def record() -> dict:
    rows = {"labels": statistics(5.0), "ours": statistics(4.0, to_first=change(-1.0))}
    return {
        "rows": {
            "labels": {"seeds": [0, 1], "training_images": [60000, 60000]},
            "ours": {"seeds": [0, 1, 2], "training_images": [60000, 60000, 60001]},
        },
        "missing": ["none_short", "paper_short"],
        "sets": {
            "source": {"title": "Common-554", "figures": {"all": {"box": {"faces": 554, "rows": rows}}}},
            "target": {
                "title": "WFLW-108",
                "figures": {
                    "all": {"box": {"faces": 108, "rows": rows}},
                    "blur": {"box": {"faces": 29, "rows": rows}},
                },
            },
        },
    }


def test_tables():
    measure = script("measure")
    main, differences, attributes, seeds = (table(record()).splitlines() for table in measure.TABLES.values())
    assert main[0] == "| set, norm | | NME | median | FR@10 | AUC@10 |"
    assert main[2] == (
        "| Common-554, by box size | labelled only (2 of 3 seeds) | 5.00 (4.50 … 5.25) | 6.00 (5.50 … 6.25) | "
        "7.00 (6.50 … 7.25) | 8.00 (7.50 … 8.25) |"
    )
    assert main[5].startswith("| WFLW-108, by box size | ours | 4.00 (3.50 … 4.25) |")
    assert differences[2] == (
        "| Common-554, by box size | ours − labelled only | -1.00: -1.50 … -0.75 | +0.00: -0.50 … +0.25 | "
        "+1.00: +0.50 … +1.25 | +2.00: +1.50 … +2.25 | -10.00 %: -10.50 … -9.75 |"
    )
    assert attributes[0] == "| WFLW-108 | faces | norm | labelled only (2 of 3 seeds) | ours |"
    assert attributes[3] == "| blur | 29 | box size | 5.00 (4.50 … 5.25) | 4.00 (-1.00: -1.50 … -0.75) |"
    assert seeds[3] == "| ours | 0, 1, 2 | 60,000 / 60,001 | 3.00 / 5.00 | 3.00 / 5.00 |"
    assert seeds[-1] == "| the paper's STC | none: not measured | | | |"
    for lines in (main, differences, attributes, seeds):
        assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize("path", sorted(FOLDER.glob("metrics_*.json")), ids=lambda path: path.stem)
def test_the_tables_of_another_pair_are_those_of_its_file(path):
    metrics, page = json.loads(path.read_text()), (FOLDER / "README.md").read_text(encoding="utf-8")
    tables = script("measure").TABLES.items()
    marked = [make(metrics) for name, make in tables if f"<!-- {metrics['pair']} {name} -->" in page]
    assert marked
    assert all(table in page for table in marked)


def test_a_change_without_a_value_or_an_interval():
    shown = script("figures").change_cell
    assert shown({"value": None, "low": None, "high": None}, " %") == "–"
    assert shown({"value": -25.0, "low": None, "high": None}, " %") == "-25.00 %"


# Configs.


@pytest.mark.parametrize("pair", ["300w_wflw", "300w_wflw_twice", "wflw_300w", "300w_cofw68", "300w_aflw"])
def test_every_pair_has_an_experiment_whose_runs_are_found(pair, tmp_path):
    assert pair in script("pairs").PAIRS
    for row in ROWS:
        words = script("runs").command(pair, row, 2).split()
        assert words[:3] == ["python", "-m", "pipnet.self_train"]
        with initialize_config_dir(config_dir(), version_base="1.3"):
            settings = plain(compose("self_train", overrides=words[3:]))
        finished(tmp_path, row, 2, pair)
        assert settings["folder"] == f"runs/cross_domain_{pair}_{row}_2"
        assert settings["model"]["input_size"] // settings["model"]["net_stride"] == 6
        dataset = script("pairs").pair_named(pair).source.dataset
        assert settings["dataset"]["name"] == dataset  # its test faces are the source set
    with pytest.raises(FileNotFoundError, match=f"experiment=cross_domain_{pair} curriculum=labels seed=0"):
        script("runs").find_runs(tmp_path, pair, ROWS, partial=False, kept=tmp_path / "errors")


def test_the_full_size_experiments_are_those_of_the_weights_that_ship():
    with initialize_config_dir(config_dir(), version_base="1.3"):
        first, second = (
            plain(compose("self_train", overrides=[f"experiment=cross_domain_300w_wflw_{name}"]))
            for name in ("full", "full_2")
        )
    assert second["teacher"] == f"runs/{first['name']}/best.pt"
    shipped = checkpoint.load(SHIPPED_WEIGHTS)
    made = shipped.training["config"]
    assert made["name"] == second["name"]
    made["optim"]["backbone_lr"] = made["optim"].pop("trunk_lr")  # their names up to 0.4
    made["transform"]["box_scale_jitter"] = made["transform"].pop("box_scale")
    for stage in made["curriculum"]["stages"]:
        if stage.get("start") == "newest":
            stage["start"] = "teacher"
    for group in ("model", "transform", "optim", "schedule", "loss", "curriculum", "rules"):
        assert made[group] == second[group], group
    assert {name: made["fit"][name] for name in ("batch_size", "ema_decay", "frozen_blocks")} == {
        name: first["fit"][name] for name in ("batch_size", "ema_decay", "frozen_blocks")
    }
    assert shipped.training["images"] == made["self_training"]["images"] == second["self_training"]["images"]
