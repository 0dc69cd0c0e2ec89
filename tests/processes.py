"""Functions and commands in processes of their own that start in no time: forks of one whose imports are done."""

import multiprocessing
import os
import runpy
import sys
import tempfile
from multiprocessing.connection import wait
from pathlib import Path
from subprocess import CompletedProcess

import torch
from torch.distributed import TCPStore

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pytest", "pipnet.self_train", "pipnet.evaluate", "pipnet.inspect_dataset"])


def start(target, *arguments):
    """Run a function in a process that can be killed."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def run(*arguments, cwd=None, **environment):
    """``python -m`` of the arguments, or ``python`` of a script: its exit status and what it printed."""
    return _together(_as_command, arguments, [environment], cwd)


def run_two(target, *arguments):
    """A function in two processes that train together, as torchrun starts them: where one fails the other ends too."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # torchrun as well holds it itself
    more = {"MASTER_ADDR": "localhost", "MASTER_PORT": store.port, "TORCHELASTIC_USE_AGENT_STORE": True}
    more |= {"GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": 2}
    return _together(target, arguments, [more | {"RANK": rank, "LOCAL_RANK": rank} for rank in range(2)])


def _together(target, arguments, environments, cwd=None):
    with tempfile.TemporaryDirectory() as folder:
        printed, started = [[f"{folder}/{n}{name}" for n in range(len(environments))] for name in ("out", "err")], []
        try:
            for more, *files in zip(environments, *printed, strict=True):
                environment = os.environ | {"OMP_NUM_THREADS": "1"} | {name: str(value) for name, value in more.items()}
                started.append(start(_work, str(cwd or os.getcwd()), environment, files, target, arguments))
            while any(process.exitcode is None for process in started):
                wait([process.sentinel for process in started if process.exitcode is None])
                if any(process.exitcode for process in started):
                    for process in started:
                        process.join(1)  # it may be about to say something
                        process.terminate()
        finally:
            for process in started:
                process.kill()
        texts = ["".join(Path(file).read_text(encoding="utf-8") for file in files) for files in printed]
    return CompletedProcess(arguments, next((p.exitcode for p in started if p.exitcode), 0), *texts)


def _work(cwd, environment, files, target, arguments):
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, name in zip((sys.stdout, sys.stderr), files, strict=True):
        with open(name, "wb") as file:
            os.dup2(file.fileno(), stream.fileno())
        stream.reconfigure(encoding=environment.get("PYTHONIOENCODING", "utf-8"))
    torch.set_num_threads(1)  # the variable was read before the fork
    target(*map(str, arguments))


def _as_command(name, *arguments):
    sys.argv[:] = name, *arguments
    sys.modules.pop(name, None)  # Python warns of what is imported already
    if name.endswith(".py"):
        runpy.run_path(name, run_name="__main__")
    else:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
