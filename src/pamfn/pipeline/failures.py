"""Failed jobs of a sweep: each leaves a log with its command and traceback, and the sweep names them at its end."""

import logging
import os
import re
import shlex
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from pamfn.command_line.process import PARENT, end_with_parent
from pamfn.config.compose import with_hint
from pamfn.errors import InputError
from pamfn.files import write_text

log = logging.getLogger(__name__)


FOLDER = "PAMFN_FAILURES"
"""Environment variable with the folder of this sweep's logs: its jobs may run in other processes."""


class Failures(Callback):
    """Chooses the folder of the logs when a sweep starts, and lets its workers end with it."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        name = os.environ.get("PAMFN_SWEEP", "")
        os.environ[FOLDER] = str((Path(str(config.hydra.sweep.dir)) / "failed" / name).resolve())
        if "joblib" in str(config.hydra.launcher.get("_target_")):
            workers_end_with_parent()


def workers_end_with_parent() -> None:
    """joblib's workers outlive by minutes a parent that was killed; Hydra's launcher lets nobody say otherwise."""
    from joblib.parallel import BACKENDS, register_parallel_backend

    register_parallel_backend("loky", partial(BACKENDS["loky"], initializer=end_with_parent))


def record(error: Exception) -> None:
    """Writes the failed job's log."""
    hydra = HydraConfig.get()
    command = f"python -m pamfn.{hydra.job.name} {shlex.join(['-m', *hydra.overrides.task])}"
    file = Path(os.environ[FOLDER]) / f"{int(hydra.job.num):04d}.log"
    write_text(file, f"{command}\n\n{''.join(traceback.format_exception(error))}")
    try:
        log.error("error: %s", foreseen(error, hydra.overrides.task))
    except Exception:
        log.exception("error")


def foreseen(error: Exception, words: Sequence[str]) -> InputError:
    """An error as a sentence; one that nobody foresaw with the settings that may have caused it.

    These are the words of the command line whose value or last name stands in the error.

    Raises:
        Exception: the error itself when it came in training: that is no mistake in what was asked, but a fault.
    """
    if isinstance(error, InputError):
        return error
    if hasattr(error, "__notes__"):
        raise error
    said = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ").removesuffix(".")
    given = {word: word.lstrip("+~").partition("=") for word in words if "=" in word}
    parts = set(re.split(r"[\s'\"(),=]+", said))
    near = [word for word, (key, _, value) in given.items() if {key.rpartition(".")[2], value} & parts]
    hint = f" It may come from {', '.join(near)}." if near else ""
    return InputError(f"{said}.{hint} PAMFN_TRACEBACK=1 shows where in the code it was noticed.")


def run_jobs(job: Callable[[], object], words: Sequence[str]) -> None:
    """Run the function that Hydra's decorator made of a job.

    Raises:
        InputError: when no job can start, with the settings that may have caused that.
    """
    # one folder for a sweep, also for jobs in other processes
    os.environ["PAMFN_SWEEP"] = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}"
    os.environ[PARENT] = str(os.getpid())
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own and the end of a traceback
    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(with_hint(str(error))) from error
    except BrokenPipeError:
        raise
    except Exception as error:
        raise foreseen(error, words) from error


def list_failed() -> int:
    """Names the jobs of the sweep that failed; how many."""
    logs = sorted(Path(os.environ[FOLDER]).glob("*.log")) if FOLDER in os.environ else []
    if logs:
        log.error("%d job%s of the sweep failed; the rest is done:", len(logs), "s" * (len(logs) > 1))
    for file in logs:
        log.error("  %s\n    log: %s", file.read_text(encoding="utf-8").splitlines()[0], file)
    return len(logs)
