"""`pipnet NAME` and `python -m pipnet.NAME`: one list, one way to be told of a slip, one treatment of Ctrl-C."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pytest

import pipnet
from pipnet.__main__ import COMMANDS, main
from pipnet.console import version

ROOT = Path(pipnet.__file__).resolve().parent.parent


def run(*arguments: object, cwd: Path, ahead: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, [*([ahead] if ahead else []), ROOT]))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["help"]])
def test_all_commands_are_listed_with_a_line_each(arguments, capsys):
    assert main(arguments) == 0
    listed = re.findall(r"^  pipnet (\S+)  +\S", capsys.readouterr().out, re.MULTILINE)
    assert listed == ["demo", "train", "evaluate", "self-train", "inspect", "export", "benchmark"]


def test_the_list_is_the_commands_there_are():
    """Every module of the package that can be run is in the list, and everything in the list can be run."""
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


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"pipnet {pipnet.__version__}\n"
    assert version() == pipnet.__version__


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_the_version_of_pipnet(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python"])
    with suppress(SystemExit):  # argparse ends the process
        main([command, "--version"])
    assert capsys.readouterr().out == f"pipnet {pipnet.__version__}\n"


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("dmeo", "demo"), ("trian", "train"), ("self_train", "self-train"), ("inspect_dataset", "inspect")],
)
def test_a_slip_is_told_what_was_meant(slip, meant, capsys):
    assert main([slip]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pipnet: error: there is no command '{slip}'; did you mean {meant}? There are: demo, train")


def test_what_is_like_nothing_is_told_what_there_is(capsys):
    assert main(["xyzzy"]) == 2
    assert capsys.readouterr().err.startswith("pipnet: error: there is no command 'xyzzy'; there are: demo, train, ")


def test_the_demo_by_its_name(tmp_path):
    done = run("-m", "pipnet", "demo", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["astronaut_landmarks.json", "astronaut_landmarks.png"]


def test_status_and_help_are_those_of_the_command(tmp_path):
    done = run("-m", "pipnet", "demo", "--imag", "nowhere.png", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "pipnet.demo: nowhere.png: no such photo\n"
    assert run("-m", "pipnet", "export", "--help", cwd=tmp_path).stdout.startswith("usage: pipnet export ")
    assert run("-m", "pipnet.export", "--help", cwd=tmp_path).stdout.startswith("usage: python -m pipnet.export ")


def test_a_hydra_command_by_its_name(tmp_path):
    done = run("-m", "pipnet", "train", "--cfg", "job", "optim.lr=0.5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "lr: 0.5" in done.stdout
    done = run("-m", "pipnet", "self-train", "lr=1", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "pipnet.self_train: error: there is no key 'lr'; did you mean optim.lr?\n"


def test_every_script_leads_to_a_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts.pop("pipnet") == "pipnet.__main__:main"
    assert {name.removeprefix("pipnet-") for name in scripts} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_old_script_still_works_and_says_what_to_use(command, tmp_path):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, function = scripts[f"pipnet-{command}"].split(":")
    # What pip makes of an entry point.
    done = run(
        "-c", f"import sys; from {module} import {function} as main; sys.exit(main())", "--version", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, f"pipnet {pipnet.__version__}\n")
    assert done.stderr == f"pipnet-{command} will go with the next version of pipnet; use pipnet {command}\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("way", [["pipnet", "{}"], ["pipnet.{}"]])
@pytest.mark.parametrize(
    ("command", "imported", "line"),
    [
        ("demo", "cv2", "pipnet.demo: interrupted\n"),
        ("train", "torch", "pipnet.train: interrupted\n"),
        ("evaluate", "omegaconf", "pipnet.evaluate: interrupted\n"),
        ("export", "torch", "pipnet.export: interrupted; nothing was written\n"),
    ],
)
def test_ctrl_c_while_a_command_starts_is_one_line(way, command, imported, line, tmp_path):
    """In the middle of an import; the stand-in turns it into an error of its own, as compiled modules do."""
    code = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept KeyboardInterrupt as error:\n"
    ahead = tmp_path / "ahead"
    ahead.mkdir()
    (ahead / f"{imported}.py").write_text(code + "    raise ImportError('initialization failed') from error\n")
    done = run("-m", *(part.format(command) for part in way), cwd=tmp_path, ahead=ahead)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", line)


@pytest.mark.parametrize("command", ["demo", "export"])
def test_wrong_arguments_are_one_line_in_one_wording(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python"])
    with pytest.raises(SystemExit) as ended:
        main([command, "--xyzzy"])
    assert ended.value.code == 2
    expected = f"pipnet.{command}: error: unrecognized arguments: --xyzzy (--help lists the options)\n"
    assert capsys.readouterr().err == expected


def test_a_warning_is_a_line_of_the_command(tmp_path):
    done = run("-m", "pipnet.demo", "--device", "cuda:99", cwd=tmp_path)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("pipnet.demo: device 'cuda:99' is not there")
