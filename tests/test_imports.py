"""Imports run downwards, and ``import pipnet`` is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pipnet

PACKAGE = Path(pipnet.__file__).resolve().parent
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground up: a file or folder uses those before it, and itself.
ORDER = (
    *("geometry", "console", "files", "layouts"),
    *("alignment", "measurements", "formats", "landmarks", "metrics"),
    *("data", "model", "inference", "training", "evaluation", "self_training"),
    *("config", "export", "train", "evaluate", "inspect_dataset", "self_train", "benchmark", "demo", "__main__"),
)
APART = {("model", "data"), ("benchmark", "export"), ("demo", "training"), ("demo", "benchmark"), ("demo", "export")}
HYDRA = {"config", "train", "evaluate", "inspect_dataset", "self_train"}


def part_of(module: str) -> str:
    """``pipnet.data.sample`` is of part ``data``."""
    return module.split(".")[1] if "." in module else ""


def place_of(part: str) -> int:
    assert part in ORDER, f"pipnet.{part} has no place in ORDER; give it one"
    return ORDER.index(part)


def module_name(path: Path) -> str:
    inside = path.relative_to(PACKAGE.parent).with_suffix("")
    return ".".join(inside.parts[:-1] if inside.name == "__init__" else inside.parts)


def imported(source: str) -> list[tuple[int, str]]:
    """Line and absolute name of every import, inside functions and under TYPE_CHECKING too."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            # `from pipnet import geometry` names a module, `from pipnet.geometry import Crop` does not.
            if node.module == "pipnet":
                found += [(node.lineno, f"pipnet.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, node.module or ""))
    return found


def wrong_arrows(module: str, source: str) -> list[str]:
    """What is wrong with the imports of a module of the package, a sentence each."""
    wrong = []
    part = part_of(module)
    for line, name in imported(source):
        if name.split(".")[0] in ("hydra", "omegaconf") and part not in HYDRA:
            wrong.append(f"{module}, line {line}: {name} belongs into config.py and the Hydra commands only")
        if name.split(".")[0] != "pipnet" or not part:
            continue  # pipnet/__init__.py names the result type and the landmarker on first use only
        other = part_of(name)
        if not other:
            wrong.append(f"{module}, line {line}: import what is needed from its own module, not from pipnet")
        elif part == other:
            continue
        elif place_of(other) > place_of(part):
            wrong.append(f"{module}, line {line}: {name} lies above")
        elif (part, other) in APART:
            wrong.append(f"{module}, line {line}: {part} and {other} do not know each other")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=[module_name(path) for path in FILES])
def test_imports_run_downwards(path):
    assert wrong_arrows(module_name(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pipnet.data.sample", "from pipnet.model.codec import encode"),
        ("pipnet.model.loss", "import pipnet.data.dataset"),
        ("pipnet.inference.drawing", "def f():\n    from pipnet.training.trainer import fit"),
        ("pipnet.geometry", "from pipnet import landmarks"),
        ("pipnet.training.trainer", "from omegaconf import DictConfig"),
        ("pipnet.demo", "import hydra.core"),
    ],
)
def test_a_wrong_arrow_is_seen(module, source):
    assert len(wrong_arrows(module, source)) == 1


def test_import_pipnet_loads_nothing_heavy_and_reads_only_the_package():
    """In a fresh interpreter: no torch, hydra, cv2 or NumPy, and no file is opened but Python's and the package's."""
    program = """
import os, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
import pipnet
heavy = sorted({"torch", "torchvision", "hydra", "omegaconf", "cv2", "numpy", "scipy", "yaml"} & set(sys.modules))
assert not heavy, heavy
assert sorted(name for name in sys.modules if name.startswith("pipnet")) == ["pipnet"]
package = os.path.dirname(os.path.abspath(pipnet.__file__))
inside = (package, sys.base_prefix, sys.prefix)
outside = [f for f in opened if f.endswith((".yaml", ".pt", ".npy", ".json")) or not f.startswith(inside)]
assert not outside, outside
assert "FaceLandmarker" in dir(pipnet)
print(pipnet.__version__)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent, timeout=1200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == pipnet.__version__


def test_the_package_says_its_version():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert pipnet.__version__ == project["version"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Landmarker'"):
        _ = pipnet.Landmarker
