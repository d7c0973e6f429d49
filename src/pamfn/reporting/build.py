"""A table of the paper from the finished runs of its sweep: which runs, which figures beside them, what is missing."""

import csv
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from pamfn.config.compose import CONF, EXPERIMENTS
from pamfn.config.schema import Config, Table
from pamfn.errors import InputError
from pamfn.evaluation.average_precision import RANKINGS
from pamfn.evaluation.metrics import METRICS, metrics_of
from pamfn.evaluation.selection import RULES
from pamfn.reporting.cells import AVERAGES, COLUMNS, Measured, Place, ordered
from pamfn.reporting.collect import Answer, answered, clip_counts, measurements, refuse_mixed
from pamfn.reporting.costs import Cost, cost_notes
from pamfn.reporting.provenance import counted, machine, provenance
from pamfn.reporting.render import BuiltTable, Layout, build_table
from pamfn.reporting.sweep import Sweep, sweep_of, which

CHANCE = "Random order"


def build(name: str, overrides: Sequence[str] = (), metric: str | None = None, select: str | None = None) -> BuiltTable:
    """A table from the finished runs of its sweep with these settings, in the configured output or the archive.

    metric: one of `METRICS`, by default the table's own. select: one of `RULES`, by default what every run reports.

    Raises:
        InputError: for an unknown table, setting, metric or selection, and for real and synthetic data in one table.
    """
    if select is not None and select not in RULES:
        raise InputError(f"select {select!r}: choose one of {', '.join(RULES)}.")
    return built(sweep_of(name, overrides), overrides, metric, select)


def built(sweep: Sweep, overrides: Sequence[str], metric: str | None, select: str | None) -> BuiltTable:
    """The table of an expanded sweep."""
    metric, metrics = metric or sweep.table.metric, metrics_of(METRICS[sweep.table.metric].predicts)
    if metric not in metrics:
        raise InputError(f"metric {metric!r}: {sweep.table.name} has {', '.join(metrics)}.")
    answers, problems = answered(sweep)
    refuse_mixed(answers)
    columns, papers = column_names(sweep), of_paper(sweep)
    measured, doubts = measurements(answers, columns, sweep.table.rows, metric, select)
    by_chance, of_chance = chance_levels(answers, columns, metric) if METRICS[metric].chance else ([], [])
    measured += by_chance
    synthetic = any(answer.result["data_source"] == "synthetic" for answer in answers)
    real = ordered(name for column, name in papers.items() if not sweep.data[column].endswith("_synthetic"))
    figures = {} if synthetic else paper_figures(sweep.table, metric)  # a difference would say nothing
    figures = {place: figure for place, figure in figures.items() if place[1] in real}
    results = {answer.run.path: answer.result for answer in answers}
    costs = costs_of(sweep.table, answers)
    timed = (machine(result) for result in results.values() if result.get("inference_ms"))
    notes = [
        *(sweep.table.notes if figures else []),
        *of_chance,
        *problems,
        *doubts,
        *cost_notes(costs, counted(timed)),
        *provenance(results, select),
    ]
    notes.append(
        f"{len(answers)} of {len(sweep.jobs)} runs{'' if not overrides else f' with {shlex.join(overrides)}'}."
    )
    strangers = [name for column, name in columns.items() if column not in papers and sweep.data[column] in COLUMNS]
    if strangers and sweep.table.reference:
        notes.append(f"{', '.join(strangers)}: not what the paper has under this name; its figures are not shown here.")
    if synthetic:
        notes.append("The paper's figures are for real data and are not shown beside synthetic ones.")
    if figures and measured and overrides:
        notes.append("The paper's figures are for its own settings, whatever these change.")
    layout = layout_of(sweep, columns, metric, synthetic=synthetic)
    layout = replace(layout, rows=[*layout.rows, *([CHANCE] if by_chance else [])])
    return build_table(layout, measured, figures, notes, missing_commands(sweep, answers, overrides), costs)


def chance_levels(
    answers: Sequence[Answer], columns: Mapping[str, str], metric: str
) -> tuple[list[Measured], list[str]]:
    """The mAP of random rankings of every column's test videos, as a row of its own; what there is to say of it."""
    levels: dict[str, dict[float, None]] = {}
    doubts: dict[str, None] = {}
    for answer in answers:
        try:
            level = chance_level(answer, metric)
        except InputError as error:
            doubts |= dict.fromkeys(error.problems)
            continue
        levels.setdefault(columns[answer.job.column], {})[round(level, 9)] = None
    orders = f"mean of {RANKINGS} orders" if METRICS[metric].chance == "stored" else "mean of all orders"
    notes = [f"{CHANCE}: the same clips, ranked at random ({orders})."] if levels else []
    notes += [
        f"{CHANCE} of {column} is that of the first row; the rows have different test videos, whose levels are "
        f"{min(found):.3f} to {max(found):.3f}."
        for column, found in levels.items()
        if len(found) > 1
    ]
    return [Measured(CHANCE, column, 0, next(iter(found))) for column, found in levels.items()], [*notes, *doubts]


def chance_level(answer: Answer, metric: str) -> float:
    """The mAP of random rankings of the test videos of a run."""
    expected = METRICS[metric].chance
    if not callable(expected):
        level = answer.result["metrics"][answer.result["reported"]].get("chance")
        if level is None:
            raise InputError(f"No chance level for {answer.run.path.name}: its result has none.")
        return level
    return fmean(expected(*counts) for counts in clip_counts(answer).values())


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


def column_names(sweep: Sweep) -> dict[str, str]:
    """{column as swept: as shown}: the paper's name where the data are some of its, else what they are called.

    Raises:
        InputError: when other data are called like a column of the paper's.
    """
    papers = of_paper(sweep)
    shown = {column: papers.get(column, name) for column, name in sweep.data.items()}
    taken = [name for column, name in shown.items() if column not in papers and name in (*COLUMNS.values(), *AVERAGES)]
    if taken:
        raise InputError(
            f"data.name={taken[0]}: so is a column of the paper called, and these are other data. Choose another name."
        )
    twins = {name for name, count in Counter(shown.values()).items() if count > 1}
    return {column: sweep.data[column] if name in twins else name for column, name in shown.items()}


def of_paper(sweep: Sweep) -> dict[str, str]:
    """{column as swept: the paper's name of it} of those whose data are the paper's, whatever their features."""
    first = {job.column: job.config for job in reversed(sweep.jobs)}
    return {column: COLUMNS[name] for column, name in sweep.data.items() if is_of_paper(name, first[column])}


def is_of_paper(name: str, config: Config) -> bool:
    """Whether data that are called like some of the paper's are those, whatever their features."""
    file = CONF / "data" / f"{name.removesuffix('_synthetic')}.yaml"
    if name not in COLUMNS or not file.exists():
        return False
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    return which(content.get("data", content)) == which(config.data)


def paper_figures(table: Table, metric: str) -> dict[Place, float]:
    """{(row, column): figure} of a table's file in experiments/reference, rows by our names where we have them."""
    return {(name, row["column"]): float(row["value"]) for name, row in reference_rows(table, metric)}


def reference_rows(table: Table, metric: str) -> list[tuple[str, dict[str, str]]]:
    """Lines of a table's file in experiments/reference for a metric, each with its row's name.

    A row of the file is called by its group and name if the file has several groups, else by its name; upper and lower
    case are the same. It gets our name where we have that row.
    """
    if table.reference is None or METRICS[metric].reference is None:
        return []
    file = EXPERIMENTS / "reference" / f"{table.reference}.csv"
    if not file.exists():
        raise InputError(f"no file {file}, which {table.name} names as its reference.")
    with file.open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["metric"] == METRICS[metric].reference]
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
