"""The README and the pages of docs/: their Python runs, their commands are commands, their links lead somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir

from pipnet.config import config_dir
from pipnet.data.images import write_image
from pipnet.layouts import layout_from_dict

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md", *DOCS]
HYDRA = {"train": "train", "evaluate": "evaluate", "self-train": "self_train", "inspect": "inspect_dataset"}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands() -> list[tuple[str, list[str]]]:
    """Every ``pipnet NAME …`` of the pages, also as ``python -m pipnet.NAME`` or after ``torchrun``: name, words."""
    found = []
    for page in PAGES:
        for line in "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines():
            called = re.search(r"(?:^|&& |-m )pipnet[. ](\S+)(.*)", line)
            if called:
                name = {"self_train": "self-train", "inspect_dataset": "inspect"}.get(called[1], called[1])
                found.append((name, shlex.split(called[2], comments=True)))
    return found


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_nothing_is_called_by_its_old_name():
    old = re.compile(
        r"\btrunks?\b|drawn faces|\blooks from\b|in 8 bits|8-bit|\bPIP-Net\b|contenders?\b|\bgoes on where\b"
    )
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS):
        assert not old.findall(page.read_text(encoding="utf-8")), title(page)


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/quickstart.md", "docs/python.md"])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """All blocks of a page after each other, as a reader would type them."""
    portrait = pytest.importorskip("skimage.data", reason="scikit-image ships the portrait").astronaut()
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        write_image(tmp_path / name, np.ascontiguousarray(portrait))
    monkeypatch.chdir(tmp_path)
    code = blocks(ROOT / page, "python")
    assert code
    space: dict[str, object] = {}
    for block in code:
        exec(compile(block, page, "exec"), space)
    assert len(space["faces"]) in (0, 1, 2)  # of the last frame, the last photo, or two photos


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?![a-z]+:|#)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_every_page_is_on_the_site():
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert {path.relative_to(ROOT / "docs").as_posix() for path in DOCS} <= set(listed)


def test_the_tree_of_the_design_is_there():
    folder = ROOT / "pipnet"
    rows = re.findall(r"^\| (`[a-z].*?) \| (.*) \|$", (ROOT / "docs" / "design.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 12
    for part, says in rows:
        inside = folder / part.strip("`") if part.endswith("/`") else folder
        for name in re.findall(r"`(\w+\.py|\w+/)`", f"{says if inside != folder else part}"):
            assert (inside / name).exists(), (part, name)


def test_commands_on_configs_compose():
    called = [(HYDRA[name], arguments) for name, arguments in commands() if name in HYDRA]
    assert len(called) > 15
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for name, arguments in called:
            if "--config-dir" in arguments:  # a folder of the reader's own
                continue
            words = [word for word in arguments if "=" in word and not word.startswith(("hydra", "experiment=NAME"))]
            first_of_sweep = [re.sub(r"^([\w.]+=)(?!\[)([^,]+),.*", r"\1\2", word) for word in words]
            compose(name, overrides=first_of_sweep)


@pytest.mark.parametrize("name", ["demo", "export", "benchmark"])
def test_options_of_commands_are_known(name):
    """Those of the commands on the pages, and those that a page of its own lists; what they mean its own tests say."""
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "pipnet" / name).glob("*.py"))
    used = {word for command, arguments in commands() if command == name for word in arguments if word.startswith("--")}
    page = ROOT / "docs" / f"{name}.md"
    listed = re.findall(r"`(--[\w-]+)", page.read_text(encoding="utf-8")) if page.is_file() else []
    assert used
    for option in used.union(listed) - {"--version", "--help"}:  # of every command
        assert f'"{option}"' in sources, option


def test_the_layout_of_the_documentation_is_one():
    text = blocks(ROOT / "docs" / "own_data.md", "yaml")[0]
    layout = layout_from_dict(yaml.safe_load(text))
    assert layout.num_points == 12
    assert text.strip() in (ROOT / "examples" / "own_layout.py").read_text(encoding="utf-8").replace("\\\n", "")
