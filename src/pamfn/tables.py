"""`python -m pamfn.tables fusionnets`: a table of the paper from the finished runs of its sweep, beside its figures.

`python -m pamfn.tables protocols`: every finished run under every rule for choosing an epoch, and what each flatters.
Settings after the name are those of the sweep: `+experiment=uiprmd seed=0 protocol=holdout`.
"""

import argparse
import csv
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException

from pamfn import config
from pamfn.answers import Answer, answered, measurements, refuse_mixed
from pamfn.config import CONF, EXPERIMENTS, let_checked_refuse, parsed, resolved
from pamfn.errors import InputError
from pamfn.evaluation.cells import COLUMNS, Measured, Place, ordered
from pamfn.evaluation.costs import Cost, cost_notes
from pamfn.evaluation.highlights import METRICS as HIGHLIGHTS
from pamfn.evaluation.highlights import RANKINGS
from pamfn.evaluation.metrics import METRICS
from pamfn.evaluation.protocol_tables import protocols
from pamfn.evaluation.tables import REFERENCE, BuiltTable, Format, Layout, build_table, page
from pamfn.finished import every_run, readable
from pamfn.provenance import counted, machine, provenance
from pamfn.schema import Config, Table
from pamfn.store import Run
from pamfn.summary import MEANING
from pamfn.sweep import Job, Sweep, sweep_of

CHANCE = "Random order"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pamfn.tables", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="a file of experiments/table, or `protocols`")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings, as given to pamfn.train")
    parser.add_argument("--format", choices=get_args(Format), default="markdown")
    parser.add_argument("--metric", choices=(*METRICS, *HIGHLIGHTS), help="default: srcc, or map of highlights")
    parser.add_argument("--select", choices=list(MEANING), help="another epoch's number than the runs report")
    parser.add_argument("--runs", metavar="DIR", help="where finished runs are (default: PAMFN_OUTPUT_DIR or runs)")
    parser.add_argument("--no-wandb", action="store_true", help="do not log the table to W&B")
    arguments = parser.parse_intermixed_args()
    places = [] if arguments.runs is None else [f"paths.output_dir={quoted(str(Path(arguments.runs).resolve()))}"]
    try:
        run(arguments, [*arguments.overrides, *places])
    except InputError as error:
        config.refuse(error)


def run(arguments: argparse.Namespace, overrides: Sequence[str]) -> None:
    """Prints what was asked for, then logs it."""
    if arguments.name == "protocols":
        if arguments.select:
            raise InputError("--select: `protocols` shows every selection.")
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


def quoted(value: str) -> str:
    """A value as Hydra reads it whatever is in it."""
    return value if re.fullmatch(r"[\w/.-]+", value) else "'" + value.replace("'", "\\'") + "'"


def composed(overrides: Sequence[str]) -> Config:
    """The configuration of a single run with these settings."""
    config.register()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return parsed(resolved(compose("train", overrides=let_checked_refuse(list(overrides)))))
    except HydraException as error:
        raise InputError(str(error).splitlines()[0]) from error


def show(tables: Sequence[BuiltTable], form: Format) -> None:
    """Prints tables one below the other; beside CSV, what is said about them goes to stderr."""
    if form == "html":
        print(page(tables[0].title, [table.html() for table in tables]), end="")
    elif form == "csv":
        first, *others = [table.csv() for table in tables]
        print(first + "".join(other.partition("\n")[2] for other in others), end="")
        for table in tables:
            print("\n".join([f"\n{table.title}", *table.notes, *table.missing]), file=sys.stderr)
    else:
        print("\n".join(table.markdown() if form == "markdown" else table.latex() for table in tables), end="")


def build(name: str, overrides: Sequence[str] = (), metric: str | None = None, select: str | None = None) -> BuiltTable:
    """A table from the finished runs of its sweep with these settings, in the configured output or the archive.

    metric: one of `METRICS`, by default the table's own. select: a protocol of `MEANING`; by default what every run
    reports.

    Raises:
        InputError: for an unknown table, setting, metric or selection, and for real and synthetic data in one table.
    """
    if select is not None and select not in MEANING:
        raise InputError(f"select {select!r}: choose one of {', '.join(MEANING)}.")
    return built(sweep_of(name, overrides), overrides, metric, select)


def built(sweep: Sweep, overrides: Sequence[str], metric: str | None, select: str | None) -> BuiltTable:
    """The table of an expanded sweep."""
    metric, metrics = metric or sweep.table.metric, METRICS if sweep.table.metric == "srcc" else HIGHLIGHTS
    if metric not in metrics:
        raise InputError(f"metric {metric!r}: {sweep.table.name} has {', '.join(metrics)}.")
    answers, problems = answered(sweep)
    refuse_mixed(answers)
    columns = column_names(sweep.jobs)
    shown = ordered(columns.values())
    measured, doubts = measurements(answers, columns, sweep.table.rows, metric, select)
    by_chance = chance_levels(answers, columns) if metric == "map" else []
    measured += by_chance
    synthetic = any(answer.result["data_source"] == "synthetic" for answer in answers)
    figures = {} if synthetic else paper_figures(sweep.table, metric)  # a difference would say nothing
    figures = {place: figure for place, figure in figures.items() if place[1] in shown}
    results = {answer.run.path: answer.result for answer in answers}
    costs = costs_of(sweep.table, answers)
    timed = (machine(result) for result in results.values() if result.get("inference_ms"))
    of_paper = sweep.table.notes if figures else []
    of_chance = [f"{CHANCE}: the same clips, ranked at random (mean of {RANKINGS} orders)."] if by_chance else []
    notes = [
        *of_paper,
        *of_chance,
        *problems,
        *doubts,
        *cost_notes(costs, counted(timed)),
        *provenance(results, select),
    ]
    notes.append(
        f"{len(answers)} of {len(sweep.jobs)} runs{'' if not overrides else f' with {shlex.join(overrides)}'}."
    )
    if synthetic:
        notes.append("The paper's figures are for real data and are not shown beside synthetic ones.")
    if figures and measured and overrides:
        notes.append("The paper's figures are for its own settings, whatever these change.")
    layout = layout_of(sweep, columns, metric, synthetic=synthetic)
    layout = replace(layout, rows=[*layout.rows, *([CHANCE] if by_chance else [])])
    return build_table(layout, measured, figures, notes, missing_commands(sweep, answers, overrides), costs)


def chance_levels(answers: Sequence[Answer], columns: Mapping[str, str]) -> list[Measured]:
    """The mAP of random rankings of every column's test videos, as a row of its own."""
    levels = {columns[a.job.column]: a.result["metrics"][a.result["reported"]]["chance"] for a in answers}
    return [Measured(CHANCE, column, 0, level) for column, level in levels.items()]


def costs_of(table: Table, answers: Sequence[Answer]) -> dict[str, Cost]:
    """{row: parameters and time, of its finished runs and the paper's}; empty if the table does not show them."""
    if not table.costs:
        return {}
    costs = {}
    papers = dict(reference_rows(table, "srcc"))
    for value in dict.fromkeys([*table.rows, *(answer.job.row for answer in answers)]):
        name = table.rows.get(value, value)
        results = {answer.run.path: answer.result for answer in answers if answer.job.row == value}.values()
        of_paper = [papers.get(name, {}).get(key) for key in ("params_millions", "inference_ms")]
        costs[name] = Cost(
            [result["parameters"]["total"] for result in results if "parameters" in result],
            [result["inference_ms"] for result in results if result.get("inference_ms")],
            *(float(figure) if figure else None for figure in of_paper),
        )
    return costs


def layout_of(sweep: Sweep, columns: Mapping[str, str], metric: str, *, synthetic: bool) -> Layout:
    """Rows as the table's file orders them, those that only this sweep has below."""
    table = sweep.table
    swept = {table.rows.get(job.row, job.row) for job in sweep.jobs}
    known = [name for name in table.rows.values() if name in swept]
    return Layout(
        name=table.name,
        title=f"{table.title} ({table.source}){', SYNTHETIC DATA' if synthetic else ''}",
        rows=[*known, *sorted(swept - set(known))],
        columns=list(columns.values()),
        full=None if table.full is None else table.rows.get(table.full, table.full),
        metric=metric,
        side_by_side=table.side_by_side,
        left_out=[name for name in table.rows.values() if name not in swept],
    )


def column_names(jobs: Sequence[Job]) -> dict[str, str]:
    """{column as swept: as shown}: the data set, by the paper's name if it has one; as swept if two share it."""
    data = {job.column: str(job.config.data.get("name")) for job in jobs}
    several = {name for name, count in Counter(data.values()).items() if count > 1}
    return {column: column if name in several else COLUMNS.get(name, name) for column, name in data.items()}


def paper_figures(table: Table, metric: str) -> dict[Place, float]:
    """{(row, column): figure} of a table's file in experiments/reference, rows by our names where we have them."""
    return {(name, row["column"]): float(row["value"]) for name, row in reference_rows(table, metric)}


def reference_rows(table: Table, metric: str) -> list[tuple[str, dict[str, str]]]:
    """Lines of a table's file in experiments/reference for a metric, each with its row's name.

    A row of the file is called by its group and name if the file has several groups, else by its name; upper and lower
    case are the same. It gets our name where we have that row.
    """
    if table.reference is None or metric not in REFERENCE:
        return []
    file = EXPERIMENTS / "reference" / f"{table.reference}.csv"
    if not file.exists():
        raise InputError(f"no file {file}, which {table.name} names as its reference.")
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["metric"] == REFERENCE[metric]]
    several = len({row["group"] for row in rows}) > 1
    ours = {table.in_reference.get(value, name).casefold(): name for value, name in table.rows.items()}
    names = (f"{row['group']}, {row['row']}" if several else row["row"] for row in rows)
    return [(ours.get(name.casefold(), name), row) for name, row in zip(names, rows, strict=True)]


def missing_commands(sweep: Sweep, answers: Sequence[Answer], overrides: Sequence[str]) -> list[str]:
    """One command for every column that lacks runs; those that are there are read by it, not trained again."""
    done = {(a.job.row, a.job.column, a.job.seed) for a in answers}
    lacking = dict.fromkeys(j.column for j in sweep.jobs if (j.row, j.column, j.seed) not in done)
    key = sweep.table.column
    rest = [word for word in overrides if word.partition("=")[0].lstrip("+") != key.lstrip("+")]
    start = f"python -m pamfn.train -m +table={sweep.table.name}"
    return [f"{start} {shlex.join([f'{key}={column}', *rest])}" for column in lacking]


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


if __name__ == "__main__":
    main()
