"""All commands by one name: ``pipnet demo``, ``pipnet train``, …; ``pipnet`` alone lists them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

# Name, module and what it does. None is imported before it is chosen.
COMMANDS = {
    "demo": ("demo", "points on faces: photos, a folder, a video, a camera, a page in the browser"),
    "train": ("train", "train a network on labelled faces"),
    "evaluate": ("evaluate", "measure a network on labelled faces"),
    "self-train": ("self_train", "train on labelled faces and on photos without labels"),
    "inspect": ("inspect_dataset", "look at a dataset before training on it"),
    "export": ("export", "a trained network as one graph: ONNX or OpenVINO, fp32 or int8"),
    "benchmark": ("benchmark", "how fast the networks run on this machine"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names, or list the commands: the exit status.

    ``arguments`` are those behind the program's name; None takes the process's own.
    """
    try:
        from pipnet.console import careful_output, complain, version

        name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
        if name in COMMANDS:
            return command(name, rest[:-1])
        careful_output()
        if name in ("--version", "-V"):
            print(f"pipnet {version()}")
            return 0
        if name in ("", "--help", "-h", "help"):
            print(_listed())
            return 0
        complain("", _unknown(name))
        return 2
    except KeyboardInterrupt:  # in the moments before a command's own care begins
        print("pipnet: interrupted", file=sys.stderr)
        return 1


def command(name: str, arguments: Sequence[str] | None = None) -> int:
    """Run one of :data:`COMMANDS` as what this process is there for: the exit status.

    Raises:
        SystemExit: What is wrong with the command line, or a package of its extra is not installed; one sentence.
    """
    from importlib import import_module

    from pipnet.console import MissingExtraError, end_at_once_on_ctrl_c, failure, started

    module = COMMANDS[name][0]
    sys.argv = [f"pipnet {name}", *(sys.argv[1:] if arguments is None else arguments)]
    end_at_once_on_ctrl_c(module)
    try:
        work = import_module(f"pipnet.{module}").main
    except MissingExtraError as error:
        sys.exit(failure(module, error))
    finally:
        started()
    return work() or 0


def _listed() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  pipnet {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "Facial landmarks with PIPNet: points on faces, and all that is needed to train and measure your own.",
            "",
            *lines,
            "",
            "pipnet NAME --help says more; pipnet --version which pipnet this is.",
        ]
    )


def _unknown(name: str) -> str:
    from difflib import get_close_matches

    by_module = {module: name for name, (module, _) in COMMANDS.items()}
    near = by_module.get(name) or next(iter(get_close_matches(name, COMMANDS, 1)), None)
    hint = f"did you mean {near}? There are: " if near else "there are: "
    return f"there is no command {name!r}; {hint}{', '.join(COMMANDS)}"


def _old_script(name: str) -> int:
    print(f"pipnet-{name} will go with the next version of pipnet; use pipnet {name}", file=sys.stderr)
    return command(name)


# The scripts that there were before ``pipnet``.
old_demo = partial(_old_script, "demo")
old_train = partial(_old_script, "train")
old_evaluate = partial(_old_script, "evaluate")
old_self_train = partial(_old_script, "self-train")
old_inspect = partial(_old_script, "inspect")
old_export = partial(_old_script, "export")
old_benchmark = partial(_old_script, "benchmark")

if __name__ == "__main__":
    sys.exit(main())
