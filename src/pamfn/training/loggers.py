"""Weights & Biases: every trained network is its own run, closed with the true exit code."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from pamfn.config.schema import Logger
from pamfn.runs.folder import Run

log = logging.getLogger(__name__)


def mode_of(settings: Logger) -> str:
    """online or offline; `auto` is online only where an account is configured."""
    if settings.mode != "auto":
        return settings.mode
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    account = os.environ.get("WANDB_API_KEY") or (netrc.exists() and "wandb" in netrc.read_text(errors="replace"))
    return "online" if account else "offline"


@contextmanager
def open_logger(
    settings: Logger, run: Run, *, kind: str, name: str, tags: list[str], config: dict[str, Any]
) -> Iterator[WandbLogger | None]:
    """A W&B run for the training of one network, or nothing when it is switched off.

    It is finished on the way out, with exit code 1 for any exception, so that jobs of a sweep never share a run and a
    crash is shown as one.
    """
    if not settings.wandb:
        yield None
        return
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline, it would still look up a name
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    experiment = wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=settings.group or name,
        job_type=kind,
        name=run.path.name,
        tags=[*settings.tags, *tags],
        config=config,
        dir=run.path,
        mode=mode_of(settings),  # type: ignore[arg-type]
        reinit="create_new",
    )
    exit_code = 1
    try:
        yield WandbLogger(experiment=experiment)
        exit_code = 0
    finally:
        experiment.finish(exit_code=exit_code)
