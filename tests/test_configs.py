"""Every file in conf/ builds what it configures, and holds no key that is not an argument."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import pipnet
from pipnet.config import config_dir, dataset_layout, plain, read_split, with_new_names
from pipnet.data.datasets import READERS
from pipnet.data.images import write_image
from pipnet.data.synthetic.dataset import draw_faces, write_synthetic_photos
from pipnet.data.transforms import Augment
from pipnet.inference.detectors import detector_factory
from pipnet.inspect_dataset import inspect_dataset
from pipnet.layouts import get_layout
from pipnet.model import checkpoint
from pipnet.model.loss import PIPLoss
from pipnet.model.networks import NETWORKS, network_class
from pipnet.model.pipnet import PIPNet
from pipnet.self_train import build_curriculum
from pipnet.self_training.ingest import FaceRules
from pipnet.self_training.loop import Options
from pipnet.train import train
from pipnet.training.distributed import join_processes
from pipnet.training.optimization import Schedule, build_optimizer
from pipnet.training.setup import called
from pipnet.training.trainer import FitSettings

CONF = Path(config_dir())
PACKAGE = Path(pipnet.__file__).parent
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
GROUPS = {
    group: sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    for group in ("recipe", "model", "dataset", "transform", "optim", "schedule", "loss", "fit", "debug")
}
# Groups of self_train alone.
SELF_TRAINING = {
    group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in ("curriculum", "self_training")
}
COMMANDS = ("train", "evaluate", "inspect_dataset", "self_train")  # each has a primary config of its name
# A path that need not exist stands for the user's own layout file.
OWN = get_layout("cofw_29")


def composed(*overrides: str, primary: str = "train") -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return plain(compose(primary, overrides=[*overrides]))


def check_training(settings: dict[str, Any]) -> None:
    """Build everything that ``pipnet.train.train`` builds, without faces and ImageNet weights."""
    dataset = settings["dataset"]
    layout = OWN if str(dataset["layout"]).endswith(".yaml") else dataset_layout(dataset)
    check_dataset(dataset)
    assert set(settings["splits"]) == {"train", "val"}
    for split in settings["splits"].values():
        assert split in dataset["splits"]
    mean_face = np.random.default_rng(0).random((layout.num_points, 2))
    assert isinstance(settings["model"]["pretrained"], bool)
    with torch.device("meta"):  # shapes without memory
        arguments = {**settings["model"], "pretrained": False}
        kind = network_class(arguments.pop("network", "pipnet"))
        net = called(kind, "model", arguments, mean_face=mean_face)
    assert called(build_optimizer, "optim", settings["optim"], net=net).param_groups
    called(Augment, "transform", settings["transform"])
    called(net.loss_class(), "loss", settings.get("loss", {}))
    epochs = called(FitSettings, "fit", settings["fit"]).epochs
    schedule = called(Schedule, "schedule", settings["schedule"], epochs=epochs)
    assert 0 < schedule.multiple(0) <= 1
    assert 0 < schedule.multiple(epochs - 0.01) < 1 or settings["schedule"]["name"] == "steps"
    assert settings["fit"]["frozen_blocks"] < len(list(net.backbone.children()))
    assert settings["crop_scale"] >= 1


def check_self_training(settings: dict[str, Any]) -> None:
    """Build what ``pipnet.self_train`` builds besides, without photos."""
    curriculum = build_curriculum({**settings, "unlabelled": settings["unlabelled"] or ["photos"]})
    grid = settings["model"]["input_size"] // settings["model"]["net_stride"]
    assert all(grid % stage.pool_factor == 0 for stage in curriculum.stages)
    assert settings["curriculum"].keys() == {"name", "stages", "repeat", "one_schedule"}
    called(FaceRules, "rules", settings["rules"])
    detector_factory(settings["detector"])
    assert settings["face_size"] > 0
    for source in settings["unlabelled"]:
        if not isinstance(source, str):
            inspect.signature(write_synthetic_photos).bind("folder", **source)


def check_dataset(dataset: dict[str, Any]) -> None:
    parameters = inspect.signature(READERS[dataset["reader"]]).parameters
    options = {name for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    for split, values in dataset["splits"].items():
        assert values.keys() <= options, f"split {split}"
    assert dataset["on_bad"] in ("raise", "skip")
    assert {"name", "reader", "root", "layout", "on_bad", "splits"} <= dataset.keys()


def header(path: Path) -> list[str]:
    """The comment lines that a file begins with."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return lines


def test_conf_holds_only_yaml():
    assert {path.suffix for path in CONF.rglob("*") if path.is_file()} == {".yaml"}
    assert {path.stem for path in CONF.glob("*.yaml")} == set(COMMANDS)
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert groups - {"local"} == {*GROUPS, *SELF_TRAINING, "experiment"}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_builds_and_its_first_comment_is_its_command(experiment):
    lines = header(CONF / "experiment" / f"{experiment}.yaml")
    assert lines[0] == "@package _global_"
    assert len(lines) > 2, "a comment says what to expect and how long it takes"
    command = re.fullmatch(r"python -m pipnet\.(train|self_train) .*?experiment=(\S+).*", lines[1])
    assert command
    assert experiment in command[2].split(",")
    settings = composed(f"experiment={experiment}", primary=command[1])
    check_training(settings)
    if command[1] == "self_train":
        check_self_training(settings)
    assert settings["folder"] == f"runs/{settings['name']}"


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in (GROUPS | SELF_TRAINING).items() for name in names]
)
def test_every_file_of_every_group_builds(group, name):
    if group in SELF_TRAINING:
        # The short ones say that they are for 6 x 6 cells, which another network than the default has.
        small = ["model.backbone=mobilenet_v2_stride16", "model.net_stride=16", "model.input_size=96"]
        settings = composed(f"{group}={name}", *(small if name.endswith("_short") else []), primary="self_train")
        check_training(settings)
        check_self_training(settings)
        assert group != "curriculum" or settings["curriculum"]["name"] == name
    elif name != "cofw68":  # nothing to train on, a test set only
        check_training(composed(f"{group}={name}"))
    for primary in ("evaluate", "inspect_dataset") if group == "dataset" else ():
        check_dataset(composed(f"dataset={name}", primary=primary)["dataset"])


@pytest.mark.parametrize("network", sorted(NETWORKS.keys() - {"pipnet"}))
def test_every_rival_builds_from_its_config(network):
    options = {"hourglass": ["model.backbone=hourglass_stem"], "coordinate": ["+loss.error=l1"]}.get(network, [])
    check_training(composed("experiment=heads", f"model.network={network}", *options))
    settings = composed("model=rival", f"model.network={network}", "+model.zoom=1")
    with pytest.raises(ValueError, match=r"config group 'model': .*'zoom'"):
        check_training(settings)
    with pytest.raises(ValueError, match=r"config group 'loss': .*'zoom'"):
        check_training(composed("experiment=heads", f"model.network={network}", "+loss.zoom=1"))


def test_the_papers_recipe_is_the_papers():
    assert composed()["splits"] == {"train": "train", "val": "val"}  # otherwise test faces choose nothing
    settings = composed("experiment=paper_300w")
    optim, fit, model = settings["optim"], settings["fit"], settings["model"]
    assert (optim["name"], optim["lr"], settings["schedule"]["milestones"]) == ("adam", 1e-4, [30, 50])
    assert (fit["epochs"], fit["batch_size"], settings["splits"]["train"]) == (60, 16, "trainval")
    assert settings["loss"] == {"score_weight": 10, "offset_weight": 1, "neighbor_weight": 1}
    assert (model["backbone"], model["num_neighbors"], model["merge"]) == ("resnet18", 10, "padded")


def test_the_papers_self_training_is_one_argument():
    """As the authors' train_gssl.py has it, and nothing of it is left where the argument is not given."""
    settings = composed("recipe=paper", "curriculum=paper", primary="self_train")
    trained = composed("experiment=paper_300w")
    for key in trained.keys() - {"name", "folder", "crop_scale"}:
        assert settings[key] == trained[key], key
    assert (trained["crop_scale"], settings["crop_scale"]) == (1.1, 1.3)
    assert settings["self_training"] == {"epoch_faces": None, "images": None, "teacher_weights": "last"}
    assert settings["transform"] == composed("transform=paper")["transform"] != composed()["transform"]
    assert settings["fit"].items() >= {"ema_decay": 0, "clip_norm": 0, "precision": "float32"}.items()
    stages = build_curriculum({**settings, "unlabelled": ["photos"]}).stages
    assert [(stage.epochs, stage.pool_factor) for stage in stages] == [(60, factor) for factor in (1, 4, 2, 1, 1, 1)]
    assert [stage.pseudo for stage in stages] == [False] + 5 * [True]
    for stage in stages:  # every face, one view, the union of both sets, anew from the backbone
        assert (stage.select, stage.views, stage.labelled_share, stage.start) == (None, 1, None, "backbone")
    assert composed(primary="self_train")["self_training"]["teacher_weights"] == "best"
    assert composed("curriculum=paper", primary="self_train")["crop_scale"] == 1.25


def test_what_is_chosen_beside_a_recipe_stays():
    """On the command line, and by an experiment."""
    assert composed("recipe=paper", "optim=modern")["optim"] == composed()["optim"]
    assert composed("experiment=paper_300w", "recipe=modern")["fit"] == composed()["fit"]
    settings = composed("experiment=quickstart", "recipe=paper")
    assert (settings["optim"]["name"], settings["optim"]["lr"]) == ("adam", 0.002)
    assert settings["transform"]["rotate"] == 15
    check_training(settings)
    settings = composed("model=rival", "recipe=paper")
    assert (settings["model"]["network"], settings["optim"]["lr"]) == ("simple_baseline", 1e-4)
    check_training(settings)


@pytest.mark.parametrize("dataset", ["300w", "wflw", "cofw", "aflw"])
def test_one_experiment_for_each_row_of_the_papers_tables(dataset):
    scale = {"300w": 1.1, "wflw": 1.2, "cofw": 1.0, "aflw": 1.0}[dataset]
    box = None if dataset == "300w" else "rectangle"  # the tight box of the points is 300W's only one
    comment = "\n".join(header(CONF / "experiment" / f"paper_{dataset}.yaml"))
    assert "Not run here" in comment
    for backbone in ("resnet18", "resnet50", "resnet101", "mobilenet_v2", "mobilenet_v3_large"):
        assert f"\n{backbone}:" in comment
    settings = composed(f"experiment=paper_{dataset}", "model.backbone=mobilenet_v2")
    assert settings["name"] == f"paper_{dataset}_mobilenet_v2"
    assert (settings["dataset"]["name"], settings["model"]["backbone"]) == (dataset, "mobilenet_v2")
    assert settings["crop_scale"] == scale
    for split in settings["splits"].values():
        assert settings["dataset"]["splits"][split].get("box") == box


def keys_read(command: str) -> set[str]:
    """Constant keys that a command takes out of its settings: ``settings["name"]``."""
    trains = ["training/setup"] if command == "train" else []
    trees = [ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8")) for module in [command, *trains]]
    found = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        match node:
            case ast.Subscript(ast.Name("settings"), ast.Constant(key)):
                found.add(key)
            case ast.Call(ast.Attribute(ast.Name("settings"), "get"), [ast.Constant(key), *_]):
                found.add(key)
    return found


def test_every_key_of_a_primary_config_is_read_by_its_command():
    training, self_training = composed(), composed(primary="self_train")
    by_train = keys_read("train") - {"gpu_check"}  # which an experiment brings
    assert set(training) - {"data_root"} == by_train
    assert set(composed(primary="evaluate")) - {"data_root"} == keys_read("evaluate")
    inspection = composed(primary="inspect_dataset")
    assert set(inspection) - {"data_root"} == set(inspect.signature(inspect_dataset).parameters)
    assert set(self_training) - {"data_root"} == by_train | keys_read("self_train")
    assert set(self_training["self_training"]) == {field.name for field in fields(Options)}
    assert self_training["rules"] == asdict(FaceRules())
    for key in training.keys() - {"name", "folder"}:  # self_train has the settings of train
        assert self_training[key] == training[key], key


@pytest.mark.parametrize("group", ["transform", "model", "loss", "schedule"])
def test_a_key_that_is_no_argument_is_named_with_its_group(group):
    what = {"transform": Augment, "model": PIPNet, "loss": PIPLoss, "schedule": Schedule}[group]
    more = {"model": {"mean_face": np.zeros((20, 2))}, "schedule": {"epochs": 60}}.get(group, {})
    arguments = composed(f"+{group}.zoom=1")[group]
    with pytest.raises(ValueError, match=rf"config group '{group}': .*'zoom'"):
        called(what, group, arguments, **more)


def test_what_is_missing_is_one_sentence():
    with pytest.raises(ValueError, match="dataset drawn has no split 'dev'; it has train, val, trainval, test"):
        read_split(composed("dataset=drawn")["dataset"], "dev")
    with pytest.raises(ValueError, match=r"config: .*name"):
        plain(OmegaConf.create({"name": "???"}))
    own = {"reader": "csv", "root": "nowhere/own", "layout": "nowhere/own/layout.yaml"}
    with pytest.raises(FileNotFoundError, match="dataset folder nowhere/own does not exist; set data_root"):
        dataset_layout(own)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_print_their_config_from_another_folder(tmp_path, command, capsys, monkeypatch):
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [command, "--cfg", "job", "dataset=wflw"])
    importlib.import_module(f"pipnet.{command}").main()
    assert OmegaConf.create(capsys.readouterr().out).dataset.name == "wflw"
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]
    assert Path(config_dir()) == CONF
    assert CONF in (PACKAGE.parent / "conf", PACKAGE / "conf")


def run_debug(name: str, folder: Path, *more: str) -> list[dict[str, float]]:
    few = ["dataset.splits.train.count=8", "dataset.splits.val.count=8"]
    quiet = ["device=cpu", "fit.progress_bar=false"]
    settings = composed("experiment=quickstart", f"debug={name}", f"folder={folder}", *few, *quiet, *more)
    with join_processes(settings["device"]) as processes:
        return train(settings, processes).history


def test_debug_short_runs_every_line(tmp_path):
    history = run_debug("short", tmp_path)
    assert [record["epoch"] for record in history] == [1, 2]
    assert all(np.isfinite(record["val_nme"]) for record in history)
    assert (tmp_path / "best.pt").is_file()


def test_the_own_set_of_the_documentation_trains_with_the_defaults(tmp_path, capsys):
    """Six faces of five points: one is kept to validate on, and a point has four neighbours."""
    own = tmp_path / "own"
    own.mkdir()
    documented = (PACKAGE.parent / "data" / "README.md").read_text(encoding="utf-8")
    (own / "layout.yaml").write_text(documented.split("```yaml\n")[1].split("```")[0])
    lines = ["image,x0,y0,x1,y1,x2,y2,x3,y3,x4,y4"]
    for index, face in enumerate(draw_faces(6, seed=0, size=96)):
        write_image(own / f"p{index}.png", face.image)
        lines.append(",".join([f"p{index}.png", *map(str, face.points[[36, 45, 30, 48, 54]].ravel())]))
    (own / "train.csv").write_text("\n".join(lines))
    overrides = ["dataset=own_csv", f"data_root={tmp_path}", "debug=short", f"folder={tmp_path / 'run'}"]
    settings = composed(*overrides, "device=cpu", "fit.progress_bar=false", "model.input_size=64", "max_faces=null")
    with join_processes("cpu") as processes:
        history = train(settings, processes).history
    assert np.isfinite(history[-1]["val_nme"])
    said = capsys.readouterr().out
    assert "5 faces to train, 1 to validate" in said
    assert "model.num_neighbors: 4, all others that a layout of 5 points has" in said
    assert checkpoint.load(tmp_path / "run" / "best.pt").net.num_neighbors == 4


@pytest.mark.parametrize("curriculum", ["paper", "none_short"])
def test_debug_short_stages_are_three_of_two_steps(curriculum):
    settings = composed(f"curriculum={curriculum}", "debug=short_stages", primary="self_train")
    stages = build_curriculum({**settings, "unlabelled": ["photos"]}).stages
    assert [stage.epochs for stage in stages] == [1, 1, 1]
    shared = composed("experiment=cross_domain_300w_wflw_full", "debug=short_stages", primary="self_train")
    assert (shared["face_store"], shared["teacher"]) == (f"{shared['folder']}/face_store", None)
    assert settings["self_training"]["epoch_faces"] == settings["max_faces"] == 2 * settings["fit"]["batch_size"]
    check_training(settings)


def test_debug_overfit_batch_leaves_nothing_random():
    settings = composed("experiment=paper_300w", "debug=overfit_batch")
    assert settings["transform"] == composed("transform=none")["transform"]
    assert settings["splits"]["val"] == settings["splits"]["train"]
    assert settings["max_faces"] == settings["fit"]["batch_size"]
    check_training(settings)


@pytest.mark.slow
def test_debug_overfit_batch_reaches_a_small_loss(tmp_path):
    history = run_debug("overfit_batch", tmp_path, "model.input_size=64", "fit.epochs=35", "schedule.milestones=[28]")
    assert history[0]["loss"] > 2
    assert history[-1]["loss"] < 0.1


@pytest.mark.parametrize(
    ("old", "expected"),
    [
        ("experiment=paper_300w_resnet101", {"name": "paper_300w_resnet101", "model.backbone": "resnet101"}),
        (
            "experiment=paper_300w_mobilenet_v3_large",
            {"model.backbone": "mobilenet_v3_large", "fit.epochs": 120, "schedule.milestones": [60, 100]},
        ),
        ("experiment=ablation_no_neighbors", {"name": "ablation_no_neighbors_0", "model.num_neighbors": 0}),
        ("experiment=ablation_stride_16", {"name": "ablation_stride_16_0", "model.net_stride": 16}),
        ("experiment=ablation_label_boxes", {"transform.box_scale_jitter": 0, "transform.box_shift": 0}),
        ("model=mobilenet_v2_stride16", {"model.net_stride": 16, "model.input_size": 128}),
        ("model=resnet50", {"model.backbone": "resnet50"}),
    ],
)
def test_command_lines_of_0_4_work_for_one_more_version(old, expected):
    said: list[str] = []
    settings = OmegaConf.create(composed(*with_new_names([old], said.append)))
    assert {key: OmegaConf.select(settings, key) for key in expected} == expected
    assert len(said) == 1
    assert said[0].startswith(f"{old} is now ")
    check_training(plain(settings))
    assert with_new_names(["-m", "model=resnet18,resnet50"], print) == ["-m", "model.backbone=resnet18,resnet50"]
