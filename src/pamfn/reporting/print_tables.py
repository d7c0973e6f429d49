"""Print tables in the format asked for, and log them to W&B."""

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
from pamfn.reporting.collect import every_result
from pamfn.reporting.render import BuiltTable, Format, Section, page
from pamfn.reporting.selection_table import protocols
from pamfn.reporting.sweep import sweep_of
from pamfn.runs.folder import Run

READ = ("paths", "logger")
"""The settings that `protocols` reads."""


def print_tables(
    name: str,
    overrides: Sequence[str],
    form: Format,
    metric: str | None,
    select: str | None,
    *,
    mean: bool,
    plot: Path | None,
    wandb: bool,
) -> None:
    """Print the table of this name, or the tables `protocols`, then log them to W&B if the settings do.

    Raises:
        InputError: for an unknown table or setting, or when there are no runs for `protocols`.
    """
    if name == "protocols":
        if select:
            raise InputError("--select: `protocols` shows every selection.")
        if mean:
            raise InputError("--mean: `protocols` shows single runs. Give the name of a table.")
        if plot is not None:
            raise InputError("--plot: draws one table. Give its name.")
        refuse_unread(overrides)
        settings = composed(overrides)
        tables = protocols(every_result(settings.paths.output_dir), metric)
        if not tables:
            raise InputError(f"no finished runs in {settings.paths.output_dir}. Choose another folder with --runs.")
    else:
        sweep = sweep_of(name, overrides)
        settings = sweep.jobs[0].config
        tables = [built(sweep, overrides, metric, select, mean=mean)]
    show(tables, form)
    if plot is not None:
        from pamfn.reporting.forest_plot import draw_forest  # here, since matplotlib is slow to import

        draw_forest(tables[0], plot)
    if settings.logger.wandb and wandb:
        log_to_wandb(tables, name, settings)


def refuse_unread(overrides: Sequence[str]) -> None:
    """Refuse settings for `protocols` but those of where runs are and where its tables are logged."""
    unread = [word for word in overrides if word.lstrip("+~").partition("=")[0].split(".")[0] not in READ]
    if unread:
        raise InputError(
            f"{', '.join(unread)}: `protocols` shows every finished run, whatever its settings. Leave out all but "
            "paths.* and logger.*, or choose another folder of runs with --runs."
        )


def composed(overrides: Sequence[str]) -> Config:
    """The configuration of a single run with these settings."""
    register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return parsed(resolved(compose("train", overrides=let_checked_refuse(list(overrides)))))
    except HydraException as error:
        raise InputError(str(error).splitlines()[0]) from error


def quoted(value: str) -> str:
    """A value as Hydra reads it whatever is in it."""
    return value if re.fullmatch(r"[\w/.-]+", value) else "'" + value.replace("'", "\\'") + "'"


def show(tables: Sequence[BuiltTable], form: Format) -> None:
    """Print tables one below the other; beside CSV, what is said about them goes to stderr."""
    if form == "csv":
        first, *others = [table.csv() for table in tables]
        print(first + "".join(other.partition("\n")[2] for other in others), end="")
        for table in tables:
            print("\n".join([f"\n{table.title}", *table.notes, *table.missing]), file=sys.stderr)
    elif form == "html":
        print(page(tables[0].title, [Section(table) for table in tables]), end="")
    else:
        print("\n".join(table.markdown() if form == "markdown" else table.latex() for table in tables), end="")


def log_to_wandb(tables: Sequence[BuiltTable], name: str, settings: Config) -> None:
    """Log the tables to W&B as a run of their own, below the output folder."""
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
