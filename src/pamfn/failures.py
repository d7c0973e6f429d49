"""Failed jobs of a sweep: each leaves a log with its command and traceback, and the sweep names them at its end."""

import logging
import os
import shlex
import traceback
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from pamfn.errors import InputError
from pamfn.store import write_text

log = logging.getLogger(__name__)


FOLDER = "PAMFN_FAILURES"
"""Environment variable with the folder of this sweep's logs: its jobs may run in other processes."""


class Failures(Callback):
    """Chooses the folder of the logs when a sweep starts."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        name = os.environ.get("PAMFN_SWEEP", "")
        os.environ[FOLDER] = str((Path(str(config.hydra.sweep.dir)) / "failed" / name).resolve())


def record(error: Exception) -> None:
    """Writes the failed job's log."""
    hydra = HydraConfig.get()
    command = f"python -m pamfn.train {shlex.join(['-m', *hydra.overrides.task])}"
    file = Path(os.environ[FOLDER]) / f"{int(hydra.job.num):04d}.log"
    write_text(file, f"{command}\n\n{''.join(traceback.format_exception(error))}")
    said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    log.error("error: %s", said)


def told() -> int:
    """Names the jobs of the sweep that failed; how many."""
    logs = sorted(Path(os.environ[FOLDER]).glob("*.log")) if FOLDER in os.environ else []
    if logs:
        log.error("%d job%s of the sweep failed; the rest is done:", len(logs), "s" * (len(logs) > 1))
    for file in logs:
        log.error("  %s\n    log: %s", file.read_text(encoding="utf-8").splitlines()[0], file)
    return len(logs)
