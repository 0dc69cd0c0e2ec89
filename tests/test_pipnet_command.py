"""`pipnet NAME` and `python -m pipnet.NAME`: one list, one way to be told of a slip, one treatment of Ctrl-C."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
import warnings
from contextlib import suppress
from pathlib import Path

import processes
import pytest

import pipnet
from pipnet.__main__ import COMMANDS, main
from pipnet.console import version

ROOT = Path(pipnet.__file__).resolve().parent.parent


def run(*arguments: str, cwd: Path, ahead: Path | None = None, **more: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, [*([ahead] if ahead else []), ROOT]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"} | more
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_all_commands_are_listed_with_a_line_each(arguments, capsys):
    assert main(arguments) == 0
    listed = re.findall(r"^  pipnet (\S+)  +\S", capsys.readouterr().out, re.MULTILINE)
    assert listed == ["demo", "train", "evaluate", "self-train", "inspect", "export", "benchmark"]


def test_the_list_is_the_commands_there_are():
    package = ROOT / "pipnet"
    runnable = {path.parent.name for path in package.glob("*/__main__.py")}
    runnable |= {
        path.stem for path in package.glob("[!_]*.py") if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    assert {module for module, _ in COMMANDS.values()} == runnable
    for module, _ in COMMANDS.values():
        assert callable(importlib.import_module(f"pipnet.{module}").main)


def test_listing_imports_nothing_heavy(tmp_path):
    code = "import sys; from pipnet.__main__ import main; main([]); main(['demmo']); print(sorted(sys.modules))"
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not {"numpy", "cv2", "torch", "hydra", "onnxruntime", "scipy"} & {*re.findall(r"'([\w.]+)'", done.stdout)}


@pytest.mark.parametrize(
    ("slip", "said"),
    [
        ("dmeo", "did you mean demo? There are: demo, train, "),
        ("self_train", "did you mean self-train? There are: demo, train, "),
        ("inspect_dataset", "did you mean inspect? There are: demo, train, "),
        ("xyzzy", "there are: demo, train, "),
    ],
)
def test_a_slip_is_told_what_was_meant(slip, said, capsys):
    assert main([slip]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pipnet: error: there is no command '{slip}'; {said}")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_script_of_0_4_still_works_and_says_what_to_use(command, capsys, monkeypatch):
    """And every command says the version of pipnet."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts.pop("pipnet") == "pipnet.__main__:main"
    assert {name.removeprefix("pipnet-") for name in scripts} == set(COMMANDS)
    module, function = scripts[f"pipnet-{command}"].split(":")
    monkeypatch.setattr(sys, "argv", ["python", "--version"])
    with suppress(SystemExit):  # argparse ends the process
        getattr(importlib.import_module(module), function)()
    printed = capsys.readouterr()
    assert printed.out == f"pipnet {version()}\n" == f"pipnet {pipnet.__version__}\n"
    assert printed.err == f"pipnet-{command} will go with the next version of pipnet; use pipnet {command}\n"


def test_commands_by_their_names(tmp_path, capsys, monkeypatch):
    listed = ("pipnet", "train", "--cfg", "job", 'name="写真"')
    done = processes.run(*listed, cwd=tmp_path, PYTHONIOENCODING="cp1252")
    assert (done.returncode, done.stderr) == (0, "")
    assert "name: \\u5199\\u771f" in done.stdout  # what such a pipe can't hold
    assert list(tmp_path.iterdir()) == []
    done = run("-m", "pipnet", "demo", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["astronaut_landmarks.json", "astronaut_landmarks.png"]

    monkeypatch.setattr(sys, "argv", ["python"])
    assert main(["demo", "--imag", "nowhere.png", "--json"]) == 1
    assert capsys.readouterr().err == "pipnet.demo: nowhere.png: no such photo\n"
    for called, export in (
        ("pipnet export", lambda: main(["export", "--help"])),
        ("python -m pipnet.export", lambda: importlib.import_module("pipnet.export").main(["--help"])),
    ):
        monkeypatch.setattr(sys, "argv", ["python"])
        with pytest.raises(SystemExit):
            export()
        assert capsys.readouterr().out.startswith(f"usage: {called} ")
    with pytest.raises(SystemExit) as ended:
        main(["self-train", "lr=1"])
    assert ended.value.code == "pipnet.self_train: error: there is no key 'lr'; did you mean optim.lr?"


def test_a_warning_is_a_line_of_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["demo", "--device", "cuda:99"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pipnet.demo: device 'cuda:99' is not there")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("way", "imported", "line"),
    [
        ("pipnet train", "torch", "pipnet.train: interrupted\n"),
        ("pipnet.train", "torch", "pipnet.train: interrupted\n"),
        ("pipnet.demo", "cv2", "pipnet.demo: interrupted\n"),
        ("pipnet.evaluate", "omegaconf", "pipnet.evaluate: interrupted\n"),
        ("pipnet.export", "torch", "pipnet.export: interrupted; nothing was written\n"),
    ],
)
def test_ctrl_c_while_a_command_starts_is_one_line(way, imported, line, tmp_path):
    """In the middle of an import; the stand-in turns it into an error of its own, as compiled modules do."""
    code = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt as error:\n"
    ahead = tmp_path / "ahead"
    ahead.mkdir()
    (ahead / f"{imported}.py").write_text(code + "    raise ImportError('initialization failed') from error\n")
    done = run("-m", *way.split(), cwd=tmp_path, ahead=ahead)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


@pytest.mark.parametrize("command", ["demo", "export"])
def test_wrong_arguments_are_one_line_in_one_wording(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python"])
    with pytest.raises(SystemExit) as ended:
        main([command, "--xyzzy"])
    assert ended.value.code == 2
    expected = f"pipnet.{command}: error: unrecognized arguments: --xyzzy (--help lists the options)\n"
    assert capsys.readouterr().err == expected
