"""``conf/`` to plain arguments; apart from the commands the only module that knows Hydra.

A YAML key is the keyword argument of what it configures, so this is mostly a list of who gets which group. Library code
never sees a config object.
"""

from __future__ import annotations

import argparse
import functools
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipnet.console import MissingExtraError, careful_output, failure, interrupted, note, version
from pipnet.data.datasets import dataset_folder, read_dataset
from pipnet.data.sample import BadItems, Sample
from pipnet.files import read_text, yaml_fault
from pipnet.layouts import LAYOUTS, PointLayout, get_layout

# Names of 0.4 on the command line, which go with the next version, and what to write instead.
_BACKBONES = "resnet18|resnet50|resnet101|mobilenet_v2|mobilenet_v3_large|mobilenet_v3_small"
_RENAMED = {
    "experiment=paper_300w_mobilenet_v3_large": "experiment=paper_300w model.backbone=mobilenet_v3_large "
    "fit.epochs=120 schedule.milestones=[60,100]",
    rf"experiment=paper_(300w|wflw|cofw|aflw)_({_BACKBONES})": r"experiment=paper_\1 model.backbone=\2",
    "experiment=ablation_no_neighbors": "experiment=ablation_modern name=ablation_no_neighbors_${seed} "
    "model.num_neighbors=0 model.merge=none",
    "experiment=ablation_stride_16": "experiment=ablation_modern name=ablation_stride_16_${seed} model.net_stride=16",
    "experiment=ablation_label_boxes": "experiment=ablation_modern name=ablation_label_boxes_${seed} "
    "transform.box_shift=0 transform.box_scale_jitter=0",
    "model=mobilenet_v2_stride16": "model.backbone=mobilenet_v2_stride16 model.net_stride=16 model.input_size=128",
    r"optim\.trunk_lr=(.+)": r"optim.backbone_lr=\1",
    r"box_scale=(.+)": r"crop_scale=\1",
    r"transform\.box_scale=(.+)": r"transform.box_scale_jitter=\1",
    r"pool=(.+)": r"face_store=\1",
    r"self_training\.newest=(.+)": r"self_training.teacher_weights=\1",
    rf"model=((?:{_BACKBONES})(?:,(?:{_BACKBONES}))*)": r"model.backbone=\1",
}


def with_new_names(arguments: Sequence[str], say: Callable[[str], object]) -> list[str]:
    """Arguments of a command line, those of 0.4 replaced by what they are called now; ``say`` gets a sentence for each.

    Example:
        >>> with_new_names(["experiment=paper_wflw_resnet50", "seed=1"], print)
        experiment=paper_wflw_resnet50 is now experiment=paper_wflw model.backbone=resnet50; the old name goes with 0.6
        ['experiment=paper_wflw', 'model.backbone=resnet50', 'seed=1']
    """
    named: list[str] = []
    for argument in arguments:
        now = next((known.expand(new) for old, new in _RENAMED.items() if (known := re.fullmatch(old, argument))), "")
        if now:
            say(f"{argument} is now {now}; the old name goes with 0.6")
        named += now.split(" ") if now else [argument]
    return named


def config_dir() -> str:
    """Absolute path of the Hydra configs: inside the wheel, or ``conf/`` of the checkout.

    Raises:
        FileNotFoundError: The installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "train.yaml").is_file():  # not some other project's conf/
            return str(candidate)
    raise FileNotFoundError(f"no conf/train.yaml beside or inside {package}; reinstall pipnet")


def command(name: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """A function as a command: its config is ``conf/NAME.yaml`` with what the command line says.

    What the user can mend, and Ctrl-C, is one sentence on stderr and exit code 1; a bug keeps its traceback. What is
    wrong with the command line or a config Hydra says, with the traceback, under ``HYDRA_FULL_ERROR=1``.
    """

    def decorated(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def worded(cfg: DictConfig) -> None:
            from pipnet.training.state import TrainingError

            try:
                function(cfg)
            except (OSError, ValueError, TrainingError, MissingExtraError) as error:
                sys.exit(failure(name, error))

        run = hydra.main(version_base="1.3", config_path=config_dir(), config_name=name)(worded)

        @functools.wraps(function)
        def main() -> None:
            careful_output()
            # A help text of Hydra 1.3 becomes a string only when it is shown; argparse of Python 3.14 wants it at once.
            argparse.ArgumentParser._check_help = lambda self, action: None  # type: ignore[attr-defined]
            sys.argv[1:] = with_new_names(sys.argv[1:], functools.partial(note, name))
            if "--version" in sys.argv[1:]:  # Hydra would print its own
                return print(f"pipnet {version()}")
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                return run()
            os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints its own words, and nothing comes here
            try:
                run()
            except KeyboardInterrupt:
                sys.exit(interrupted(name))
            except (HydraException, OmegaConfBaseException, YAMLError, UnicodeDecodeError, OSError) as error:
                sys.exit(failure(name, _sentence(error, name, sys.argv[1:])))
            finally:
                del os.environ["HYDRA_FULL_ERROR"]

        return main

    return decorated


def _sentence(error: Exception, name: str, arguments: list[str]) -> str:
    """What Hydra or OmegaConf says over several lines, in one, and with what to write instead."""
    said = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return _how_to_quote(error.override, said)
    if ambiguous := re.match(r"Ambiguous value for argument '(.*?)' 1\.", said):
        return _how_to_quote(ambiguous[1], said)
    if unknown := re.match(r"Could not override '(.+?)'\.", said):
        near = _near(unknown[1], _keys(name, [a for a in arguments if "=" in a and not a.startswith("-")]))
        hint = f"did you mean {near}?" if near else f"--cfg job prints those there are; +{unknown[1]}=... adds one"
        return f"there is no key {unknown[1]!r}; {hint}"
    if twice := re.match(r"Multiple values for (.+?)\.", said):
        return f"{twice[1]} is given twice; leave out one, and a + before it"
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, chosen = error.missing_cfg_file.removesuffix(".yaml").rpartition("/")
        near = " or ".join(get_close_matches(chosen, error.options, 2))
        hint = f"did you mean {near}? There are: " if near else "there are: "
        return f"there is no {group} {chosen!r}; {hint}{', '.join(error.options)}"
    if isinstance(error, YAMLError):
        return f"{getattr(getattr(error, 'problem_mark', None), 'name', 'a config')}, {yaml_fault(error)}"
    if isinstance(error, UnicodeDecodeError):
        for option, folder in pairwise([part for argument in arguments for part in argument.split("=", 1)]):
            if option in ("--config-dir", "-cd"):
                for file in sorted(Path(folder).rglob("*.yaml")):
                    try:
                        file.read_text(encoding="utf-8")
                    except UnicodeDecodeError:
                        return f"{file}: no UTF-8 ({said}); save it as UTF-8"
    return said


def _how_to_quote(override: str, said: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        with_blank = shlex.quote('KEY="a b"')
        return f"{override!r} is not KEY=VALUE; a value with a blank needs quotes for the shell and Hydra: {with_blank}"
    is_list = len(value) > 1 and value[0] + value[-1] == "[]"
    entries = value[1:-1].split(",") if is_list else [value]
    bare = [entry.strip("\"'") if entry.startswith(('"', "'")) else entry for entry in map(str.strip, entries)]
    quoted = ['"' + entry.replace('"', '\\"') + '"' for entry in bare]
    better = f"{key}=[{','.join(quoted)}]" if is_list else f"{key}={quoted[0]}"
    with suppress(HydraException):
        OverridesParser.create().parse_override(better)
        reason = "Hydra takes a part of the value for its own signs"
        return f"{override}: {reason}; quote it for Hydra and for the shell: {shlex.quote(better)}"
    return f"{override!r} can't be read as KEY=VALUE ({said.partition(' See ')[0]})"


def _keys(name: str, overrides: list[str]) -> list[str]:
    """Keys of a command's config, ``optim.lr``, and its groups; as the overrides have it, those that can be used."""

    def walk(values: Any, above: str) -> Iterator[str]:
        for key, value in values.items() if isinstance(values, dict) else ():
            yield f"{above}{key}"
            yield from walk(value, f"{above}{key}.")

    used: list[str] = []
    config: Any = {}
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
        for override in ["", *overrides]:
            with suppress(Exception):  # the one that is wrong, and those of a folder of the user's
                config = OmegaConf.to_container(hydra.compose(name, overrides=[*used, override] if override else []))
                used += [override] if override else []
    return [*walk(config, ""), *(path.name for path in Path(config_dir()).iterdir() if path.is_dir())]


def _near(key: str, keys: list[str]) -> str:
    """What a mistyped key may have meant: the same name elsewhere, or a like one; empty where nothing is near."""
    last = key.rpartition(".")[2]
    ends = {known: known.rpartition(".")[2] for known in keys}
    found = [known for known in keys if ends[known] == last] or get_close_matches(key, keys, 2, 0.7)
    like = get_close_matches(last, set(ends.values()), 1, 0.7)
    found = found or [known for known in keys if ends[known] in like]
    return " or ".join(dict.fromkeys(found[:3]))


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A resolved config as dicts, lists, strings and numbers.

    Raises:
        ValueError: A value is missing (``???``) or refers to one that is.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"config: {error}") from error
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def dataset_config(name: str, data_root: str | Path) -> dict[str, Any]:
    """A file of ``conf/dataset``, or a ``.yaml`` of your own, as plain values, for commands that don't run on Hydra.

    Raises:
        ValueError: No such file, and the message lists those there are; or it is not the config of a dataset.

    Example:
        >>> dataset_config("wflw", data_root="/mnt/sets")["root"]
        '/mnt/sets/WFLW'
    """
    folder = Path(config_dir()) / "dataset"
    file = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ValueError(f"no dataset {name!r}; there are: {there}; or give the path of a .yaml file")
    try:
        content = OmegaConf.create(read_text(file))
        dataset = plain(OmegaConf.create({"data_root": str(data_root), "dataset": content}))["dataset"]
        known = {"name", "reader", "root", "layout", "on_bad", "splits"} <= dataset.keys()
    except YAMLError as error:
        raise ValueError(f"{file} is no YAML that describes a dataset: {yaml_fault(error)}") from error
    except AttributeError as error:
        raise ValueError(f"{file} is no YAML that describes a dataset; see those in {folder}") from error
    if not known:
        raise ValueError(f"{file} describes no dataset: name, reader, root, layout, on_bad and splits are needed")
    return dataset


def dataset_layout(dataset: Mapping[str, Any]) -> PointLayout:
    """Layout that a dataset config names; a user's own layout lies in the set's folder, which is looked for first.

    Raises:
        FileNotFoundError: The folder, or the layout file, does not exist.
        ValueError: No such layout.
    """
    if str(dataset["layout"]) not in LAYOUTS:
        dataset_folder(dataset["reader"], dataset["root"])
    return get_layout(dataset["layout"])


def read_split(dataset: Mapping[str, Any], split: str) -> tuple[list[Sample], BadItems]:
    """Read one split of a dataset config; see :func:`pipnet.data.datasets.read_dataset`.

    Raises:
        ValueError: The config has no such split; the message lists those it has.
    """
    if split not in dataset["splits"]:
        raise ValueError(f"dataset {dataset['name']} has no split {split!r}; it has {', '.join(dataset['splits'])}")
    return read_dataset(
        dataset["reader"],
        root=dataset["root"],
        layout=dataset_layout(dataset),
        on_bad=dataset["on_bad"],
        **dict(dataset["splits"][split]),
    )


class WritableFolder(Callback):
    """Refuses a folder, named by a key of the config, that can't be written to, before any work is done."""

    def __init__(self, key: str) -> None:
        self.key = key

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """What Hydra calls first.

        Raises:
            SystemExit: One sentence that names the folder and the key.
        """
        try:
            folder = Path(str(config[self.key])).absolute()
        except OmegaConfBaseException:
            return  # a value is missing or refers to none; the command says so
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            problem = f"folder {folder} can't be written ({error.strerror}); choose another: {self.key}=FOLDER"
            sys.exit(failure(config.hydra.job.config_name, problem))
