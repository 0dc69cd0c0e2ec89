"""``conf/`` to plain arguments; apart from the commands the only module that knows Hydra.

A YAML key is the keyword argument of what it configures, so this is mostly a list of who gets which group. Library code
never sees a config object.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pipnet.data.readers import dataset_folder, read_dataset
from pipnet.data.sample import BadItems, Sample
from pipnet.layouts import LAYOUTS, PointLayout, get_layout


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
    """A file of ``conf/dataset`` as plain values, for commands that don't run on Hydra.

    Args:
        name: Of the file, without ``.yaml``; or the path of a file of your own, with it.
        data_root: What ``${data_root}`` stands for.

    Raises:
        ValueError: No such file, and the message lists those there are; or it is not the config of a dataset.

    Example:
        >>> dataset_config("wflw", "/mnt/sets")["root"]
        '/mnt/sets/WFLW'
    """
    folder = Path(config_dir()) / "dataset"
    file = Path(name) if name.endswith(".yaml") else folder / f"{name}.yaml"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        raise ValueError(f"no dataset {name!r}; there are: {there}; or give the path of a .yaml file")
    try:
        dataset = plain(OmegaConf.create({"data_root": str(data_root), "dataset": OmegaConf.load(file)}))["dataset"]
        known = {"name", "reader", "root", "layout", "on_bad", "splits"} <= dataset.keys()
    except (YAMLError, UnicodeDecodeError, AttributeError) as error:
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
    """Read one split of a dataset config; see :func:`pipnet.data.readers.read_dataset`.

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
    """Refuses a folder that can't be written to, before Hydra makes it and before any work is done.

    Args:
        key: Of the config, that names the folder.
    """

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
            sys.exit(f"error: folder {folder} can't be written ({error.strerror}); choose another: {self.key}=FOLDER")


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn an error that the user can mend into one sentence on stderr and exit code 1; a bug keeps its traceback."""
    from pipnet.training.engine import TrainingError

    try:
        yield
    except (OSError, ValueError, TrainingError) as error:
        sys.exit("; ".join([f"error: {error}", *getattr(error, "__notes__", [])]))


def called(what: Callable[..., Any], group: str, arguments: Mapping[str, Any], **more: Any) -> Any:
    """Call something with a config group, naming the group when an argument does not exist.

    Raises:
        ValueError: A key is not an argument.
    """
    try:
        inspect.signature(what).bind(**arguments, **more)
    except TypeError as error:
        raise ValueError(f"config group {group!r}: {error}") from error
    return what(**arguments, **more)  # outside the try: a TypeError in here is a bug and keeps its traceback
