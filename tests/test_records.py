"""The records under ``experiments/``: their tables are those of their files, and each can be read in a few minutes."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import tables
from experiments.few_labels import train as few_labels
from experiments.few_labels.rows import Run, all_runs
from experiments.record import write

PAGES = {page.parent.name: page for page in sorted(tables.HERE.glob("*/README.md"))}
RECORDS = pytest.mark.parametrize("name", PAGES)


@RECORDS
def test_every_table_is_what_its_file_holds(name: str):
    page = PAGES[name].read_text(encoding="utf-8")
    assert tables.filled(page, PAGES[name].parent) == page
    tables_there = len(re.findall(r"^\|[-| ]+\|$", page, re.MULTILINE))
    assert len(tables.TABLE.findall(page)) == tables_there - page.count("<!-- given"), "a table has no mark"


@RECORDS
def test_a_record_is_short_and_says_how_it_was_made(name: str):
    page = PAGES[name].read_text(encoding="utf-8")
    listed = (tables.HERE.parent / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert f"../experiments/{name}/README.md" in listed
    assert len(page.splitlines()) <= 120
    assert "**Question.**" in page
    scripts = re.findall(r"^python (experiments/\S+\.py)", page, re.MULTILINE)
    assert scripts
    assert all((tables.HERE.parent / script).is_file() for script in scripts)


def found(module: str, name: str) -> Any:
    """What ``from module import name`` gives."""
    owner = importlib.import_module(module)
    return getattr(owner, name) if hasattr(owner, name) else importlib.import_module(f"{module}.{name}")


@pytest.mark.parametrize("script", sorted(tables.HERE.glob("*/*.py")), ids=str)
def test_every_script_finds_what_it_uses(script: Path):
    text, imported = script.read_text(encoding="utf-8"), {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(("pipnet", "experiments")):
            imported |= {alias.name: found(str(node.module), alias.name) for alias in node.names}
    for owner, name in re.findall(r"patch\.object\((\w+), \"(\w+)\"", text):
        assert owner not in imported or hasattr(imported[owner], name), (owner, name)
    spec = importlib.util.spec_from_file_location(f"record_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where a dataclass looks for its own
    spec.loader.exec_module(module)
    del sys.modules[spec.name]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of two rows, of which the page shows an old one."""
    monkeypatch.setattr(tables, "HERE", tmp_path)
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "metrics.json").write_text('{"ms": {"a": {"time": [2, 1, 3]}, "b": {"time": null}}}')
    page = tmp_path / "speed" / "README.md"
    table = "| of | ms |\n|---|---|\n| a | 9 |\n"
    page.write_text(f"<!-- table of metrics.json/ms: {{row}} | {{time:.1f}} -->\n\n{table}\nEnd.\n")
    return page


def test_the_command_rewrites_rows_and_checks_them(record: Path):
    with pytest.raises(SystemExit, match=r"tables differ from their files, .*: speed"):
        tables.main(["--check"])
    tables.main(["speed"])
    tables.main(["--check"])
    assert record.read_text().endswith("| of | ms |\n|---|---|\n| a | 2.0 (1.0 … 3.0) |\n| b | – |\n\nEnd.\n")


def test_what_a_mark_asks_for_and_is_not_there_is_named(record: Path):
    record.write_text(record.read_text().replace("{time", "{seconds"))
    with pytest.raises(SystemExit, match=r"the tables of .*speed.README.md can't be made: KeyError\('seconds'\)"):
        tables.main([])
    with pytest.raises(SystemExit, match=r"nowhere.*can't be made: FileNotFoundError"):
        tables.main(["nowhere"])


def test_examples_of_the_shared_modules_hold():
    from experiments import motion

    for module in (tables, motion):
        failed, tried = doctest.testmod(module)
        assert tried
        assert not failed


@pytest.mark.parametrize(
    ("validation", "plateau", "next_rungs"),
    [
        ({}, None, [(10, 15_000), (10, 30_000)]),
        ({15_000: 5.0, 30_000: 4.5}, None, [(10, 60_000)]),
        ({15_000: 5.0, 30_000: 4.96}, 15_000, [(20, 15_000), (20, 30_000)]),
        ({15_000: 5.0, 30_000: 4.5, 60_000: 4.2}, None, [(10, 120_000)]),
        ({15_000: 5.0, 30_000: 4.5, 60_000: 4.2, 120_000: 4.19}, 60_000, [(20, 60_000), (20, 120_000)]),
    ],
)
def test_labels_alone_train_until_twice_the_images_bring_less_than_a_hundredth(
    validation: dict[int, float], plateau: int | None, next_rungs: list[tuple[int, int]], tmp_path, monkeypatch
):
    monkeypatch.setattr(few_labels, "KEPT", tmp_path)
    for images, nme in validation.items():
        write(few_labels.kept(Run("labels", 10, rung=images)), {"validation": nme})
    assert few_labels.plateau() == plateau
    missing = [run for run in all_runs() if run.rung and few_labels.due(run) and not few_labels.kept(run).is_file()]
    assert [(run.percent, run.rung) for run in missing] == next_rungs
