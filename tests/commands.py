"""Commands as their user runs them, each in a process of its own, without importing the libraries anew for each.

A server imports the libraries once, and nothing of ours, and every command is a fork of it.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["lightning.pytorch", "torchmetrics", "pandas", "matplotlib.pyplot", "scipy.stats", "wandb"]
)


def command(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`python -m WORDS`, started in `folder`."""
    with TemporaryDirectory() as kept:
        files = [f"{kept}/stdout", f"{kept}/stderr"]
        process = SERVER.Process(target=perform, args=(list(words), str(folder), dict(environment), files))
        process.start()
        process.join()
        stdout, stderr = (Path(file).read_text() for file in files)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(list(words), process.exitcode, stdout, stderr)


def perform(words: list[str], folder: str, environment: Mapping[str, str], files: Sequence[str]) -> None:
    """The command, in the fork."""
    for number, file in enumerate([os.devnull, *files]):
        os.dup2(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-m", *words[1:]]  # as `python -m` has it while it looks for the module
    sys.path.insert(0, folder)
    atexit._clear()  # what the libraries would tidy up is the server's
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    finally:  # as an interpreter ends; a child of multiprocessing would first wait for its own children
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
