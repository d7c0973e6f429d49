"""Print tables in the format asked for, and log them to W&B."""

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from pamfn.config.compose import CONF, let_checked_refuse, register
from pamfn.config.schema import Config
from pamfn.config.validation import parsed, resolved
from pamfn.errors import InputError
from pamfn.reporting.build import built
from pamfn.reporting.render import BuiltTable, Format
from pamfn.reporting.selection_table import protocols
from pamfn.reporting.sweep import sweep_of
from pamfn.runs.folder import Run
from pamfn.runs.lookup import every_run, readable

READ = ("paths", "logger")
"""The settings that `protocols` reads."""


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Prints what was asked for, then logs it."""
    if arguments.name == "protocols":
        if arguments.select:
            raise InputError("--select: `protocols` shows every selection.")
        refuse_unread(overrides)
        settings = composed(overrides)
        tables = protocols(readable(every_run(Path(settings.paths.output_dir))), arguments.metric)
        if not tables:
            raise InputError(f"no finished runs in {settings.paths.output_dir}. Choose another folder with --runs.")
    else:
        sweep = sweep_of(arguments.name, overrides)
        settings = sweep.jobs[0].config
        tables = [built(sweep, overrides, arguments.metric, arguments.select)]
    show(tables, arguments.format)
    if settings.logger.wandb and not arguments.no_wandb:
        log_to_wandb(tables, arguments.name, settings)


def table(name: str, *overrides: str) -> BuiltTable:
    """Build a table of the paper from the finished runs of its sweep, as the command prints it.

    overrides: settings of the sweep, e.g. `"+experiment=uiprmd", "seed=0"`.

    Raises:
        InputError: for an unknown table or setting, or a run that cannot be trusted.
    """
    return built(sweep_of(name, overrides), overrides, metric=None, select=None)


def refuse_unread(overrides: Sequence[str]) -> None:
    """`protocols` chooses no runs: of the settings it reads where they are and where the tables are logged."""
    unread = [word for word in overrides if word.lstrip("+~").partition("=")[0].split(".")[0] not in READ]
    if unread:
        raise InputError(
            f"{', '.join(unread)}: `protocols` shows every finished run, whatever its settings. Leave out all but "
            "paths.* and logger.*, or choose another folder of runs with --runs."
        )


def quoted(value: str) -> str:
    """A value as Hydra reads it whatever is in it."""
    return value if re.fullmatch(r"[\w/.-]+", value) else "'" + value.replace("'", "\\'") + "'"


def composed(overrides: Sequence[str]) -> Config:
    """The configuration of a single run with these settings."""
    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return parsed(resolved(compose("train", overrides=let_checked_refuse(list(overrides)))))
    except HydraException as error:
        raise InputError(str(error).splitlines()[0]) from error


def show(tables: Sequence[BuiltTable], form: Format) -> None:
    """Prints tables one below the other; beside CSV, what is said about them goes to stderr."""
    if form == "html":
        from pamfn.reporting.pages import Section, page

        print(page(tables[0].title, [Section(table) for table in tables]), end="")
    elif form == "csv":
        first, *others = [table.csv() for table in tables]
        print(first + "".join(other.partition("\n")[2] for other in others), end="")
        for table in tables:
            print("\n".join([f"\n{table.title}", *table.notes, *table.missing]), file=sys.stderr)
    else:
        print("\n".join(table.markdown() if form == "markdown" else table.latex() for table in tables), end="")


def log_to_wandb(tables: Sequence[BuiltTable], name: str, settings: Config) -> None:
    """The tables as a W&B run of their own, below the output folder."""
    from pamfn.training.loggers import open_logger

    run = Run(Path(settings.paths.output_dir) / "tables" / name)
    about = {"table": name, "notes": [note for table in tables for note in table.notes]}
    settings = settings.model_copy(update={"logger": settings.logger.model_copy(update={"group": name})})
    with run.locked(), open_logger(settings.logger, run, kind="table", name=name, tags=[], config=about) as logger:
        if logger is None:
            return
        import wandb

        for table in tables:
            lines = csv.reader(table.csv().splitlines())
            logger.experiment.log(
                {
                    f"{table.name}/table": wandb.Table(dataframe=table.frame),
                    f"{table.name}/cells": wandb.Table(columns=list[str | int](next(lines)), data=list(lines)),
                }
            )
