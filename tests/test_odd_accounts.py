"""Accounts without home or name, and folders that can't be written to: commands work, or say what to change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import processes
import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMELESS = 54321
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*arguments: object, cwd: str | Path, environment: dict[str, str] = ENVIRONMENT) -> subprocess.CompletedProcess:
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, cwd=cwd, env=environment)


def as_nameless(*arguments: object, cwd: Path) -> subprocess.CompletedProcess:
    """As a user that the system has no entry for and that has no HOME, as services run; it may read everything."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root, and setpriv of util-linux")
    reading = "-all,+dac_read_search"
    user = [f"--reuid={NAMELESS}", f"--regid={NAMELESS}", "--clear-groups", f"--inh-caps={reading}"]
    environment = {name: ENVIRONMENT[name] for name in ENVIRONMENT if name not in ("HOME", "USER", "LOGNAME")}
    return run("setpriv", *user, f"--ambient-caps={reading}", *arguments, cwd=cwd, environment=environment)


def test_the_demo_of_an_account_without_home_and_name(tmp_path):
    """OpenVINO asks for the home directory when it is imported."""
    os.chown(tmp_path, *([NAMELESS] * 2 if os.geteuid() == 0 else [-1, -1]))
    done = as_nameless(sys.executable, "-m", "pipnet.demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["astronaut_landmarks.json", "astronaut_landmarks.png"]


def test_a_folder_that_can_not_be_made_is_named_before_any_work():
    if not Path("/proc/self").exists():
        pytest.skip("no /proc, where nobody can make a folder")
    keys = {
        "train experiment=quickstart": "folder",
        "self_train experiment=self_train_drawn": "folder",
        "evaluate dataset=drawn": "output",
        "inspect_dataset dataset=drawn": "output",
    }
    for command, key in keys.items():
        done = processes.run(*f"pipnet.{command}".split(), cwd="/proc")
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"pipnet.{command.split()[0]}: error: folder /proc/runs/")
        assert line.endswith(f"; choose another: {key}=FOLDER")


def test_a_folder_of_somebody_else_is_named(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o755)
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    done = as_nameless(sys.executable, "-m", "pipnet.inspect_dataset", "dataset=drawn", "output=theirs", cwd=tmp_path)
    assert done.returncode == 1
    problem = f"folder {tmp_path}/theirs can't be written (Permission denied); choose another: output=FOLDER"
    assert done.stderr == f"pipnet.inspect_dataset: error: {problem}\n"


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("demo --runtime onnxruntime", "astronaut_landmarks.png can't be written"),
        ("benchmark --quick", "--output benchmark can't be a folder"),
    ],
)
def test_the_other_commands_name_what_they_can_not_write(command, named):
    if not Path("/proc/self").exists():
        pytest.skip("no /proc, where nobody can make a file")
    done = run(sys.executable, "-m", *f"pipnet.{command}".split(), cwd="/proc")
    assert done.returncode in (1, 2)
    assert named in done.stderr
    assert "Traceback" not in done.stderr
