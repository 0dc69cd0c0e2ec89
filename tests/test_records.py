"""What a README under ``experiments/`` says is what its JSON files hold: ``metrics.json``, or a script's own."""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
RECORDS = sorted({path.parent.name for path in EXPERIMENTS.glob("*/*.json")})
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


@contextmanager
def beside(folder: Path) -> Iterator[None]:
    """A script finds its neighbours, as when it is run; records that name theirs alike don't find each other's."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - known:
            if (folder / f"{name}.py").is_file():
                del sys.modules[name]


def tables(folder: Path) -> list[tuple[Callable[[dict], str], dict]]:
    """The functions ``table`` or ``..._table`` of a record's scripts, metrics to the lines of the README; and of what.

    A script that has a JSON file of its own name made that one, the others ``metrics.json``.
    """
    found = []
    for script in sorted(folder.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"record_{folder.name}_{script.stem}", script)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where a dataclass looks for its own
        with beside(folder):
            spec.loader.exec_module(module)
        own = script.with_suffix(".json")
        metrics = own if own.is_file() else folder / "metrics.json"
        for name, value in vars(module).items():
            table = (name == "table" or name.endswith("_table")) and name != "as_table" and callable(value)
            if table and value.__module__ == module.__name__:
                found.append((value, json.loads(metrics.read_text(encoding="utf-8"))))
    return found


def leaves(tree: object) -> Iterator[float]:
    if isinstance(tree, dict | list):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(part)
    elif isinstance(tree, int | float) and not isinstance(tree, bool):
        yield float(tree)


def rounded(number: str) -> float:
    return float(number.replace("−", "-"))


def test_there_are_records():
    assert "data_path" in RECORDS


@pytest.mark.parametrize("name", RECORDS)
def test_the_table_of_the_readme_is_the_one_of_the_file(name):
    readme = (EXPERIMENTS / name / "README.md").read_text()
    makers = tables(EXPERIMENTS / name)
    for make, metrics in makers:
        assert make(metrics).strip() in readme, f"{name}/README.md does not hold what {make.__name__} prints"
    if makers:
        return
    # A script that only writes numbers: each number of a table must be one of them, rounded as the table shows it.
    known = list(leaves(json.loads((EXPERIMENTS / name / "metrics.json").read_text())))
    rows = [line for line in readme.splitlines() if line.startswith("|") and not line.startswith("| ---")][1:]
    numbers = [number for row in rows for cell in row.split("|")[2:] for number in NUMBER.findall(cell)]
    assert numbers, f"{name}/README.md has no table"
    for number in numbers:
        decimals = len(number.partition(".")[2])
        close = 0.5001 * 10**-decimals
        assert any(abs(value - rounded(number)) <= close for value in known), f"{name}/README.md: {number}"


def test_the_data_path_keeps_its_budget():
    """2.5 milliseconds a face at 256 px on one core, decoding included."""
    metrics = json.loads((EXPERIMENTS / "data_path" / "metrics.json").read_text())
    assert metrics["input_size"] == 256
    assert set(metrics["milliseconds"]) == {"none", "paper", "modern"}
    for name, figures in metrics["milliseconds"].items():
        assert figures["total"] <= 2.5, name
        parts = sum(figures[stage] for stage in ("read", "warp", "paint", "rest"))
        assert abs(parts - figures["total"]) < 1e-6, name
