"""What a Hydra command says of a command line or a config that can't be used: one sentence, and what to write."""

from __future__ import annotations

import importlib
import os
import shlex
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser


def said(monkeypatch, *arguments, command="train"):
    """What the command ends with."""
    monkeypatch.setattr(sys, "argv", [command, "--cfg", "job", *arguments])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"pipnet.{command}").main()
    assert "HYDRA_FULL_ERROR" not in os.environ
    message = str(caught.value)
    assert message.startswith(f"pipnet.{command}: error: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("value", ["a=b", "é", "it's", 'say "a"', "a,b", "runs/[1]=é", ["/a b/é", "c=d"]])
def test_a_value_that_needs_quotes_is_given_with_them(monkeypatch, value):
    if isinstance(value, list):
        message = said(monkeypatch, f"unlabelled=[{', '.join(value)}]", command="self_train")
    else:
        message = said(monkeypatch, f"folder={value}")
    (quoted,) = shlex.split(message.partition("for the shell: ")[2])
    assert OverridesParser.create().parse_override(quoted).value() == value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optim.lrr=1"], "there is no key 'optim.lrr'; did you mean optim.lr"),
        (["lr=1"], "there is no key 'lr'; did you mean optim.lr?"),
        (["experimen=quickstart"], "there is no key 'experimen'; did you mean experiment?"),
        (["dataset.splits.train.coun=3", "dataset=drawn"], "did you mean dataset.splits.train.count"),
        (["xyzzy=1"], "there is no key 'xyzzy'; --cfg job prints those there are; +xyzzy=... adds one"),
        (["dataset=wfwl"], "there is no dataset 'wfwl'; did you mean wflw? There are: 300w"),
        (["model=xyzzy"], "there is no model 'xyzzy'; there are: paper, pipnet, rival"),
        (["+experiment=quickstart"], "experiment is given twice; leave out one, and a + before it"),
        (["folder=my", "runs"], "'runs' is not KEY=VALUE; a value with a blank needs quotes for the shell and Hydra: "),
        (["é=1"], "'é=1' can't be read as KEY=VALUE"),
        (["~xyzzy"], "'xyzzy' does not exist"),
        (["--config-dir", "nowhere"], "nowhere' not found"),
    ],
)
def test_a_slip_is_told_what_was_meant(monkeypatch, arguments, message):
    assert message in said(monkeypatch, *arguments)


@pytest.mark.parametrize("command", ["evaluate", "self_train", "inspect_dataset"])
def test_every_command_says_it(monkeypatch, command):
    assert "there is no key 'datasett'; did you mean dataset?" in said(monkeypatch, "datasett=wflw", command=command)


@pytest.mark.parametrize("option", [["--config-dir", "{}"], ["--config-dir={}"]])
def test_a_config_of_the_users_own_is_named(monkeypatch, tmp_path, option):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "tabbed.yaml").write_text("name: a\n\troot: b\n")
    arguments = [part.format(tmp_path) for part in option]
    assert "tabbed.yaml, line 2: found character '\\t'" in said(monkeypatch, *arguments, "dataset=tabbed")
    (tmp_path / "dataset" / "latin.yaml").write_bytes("name: é\n".encode("cp1252"))
    assert "latin.yaml: no UTF-8" in said(monkeypatch, *arguments, "dataset=latin")


def test_a_good_command_line_runs(monkeypatch, capsys):
    from pipnet.train import main

    monkeypatch.setattr(sys, "argv", ["train", "--cfg", "job", 'name="a=é"', "optim.lr=0.5"])
    main()
    assert "name: a=é" in capsys.readouterr().out
