"""Build a table of the paper from the finished runs of its sweep: its numbers, the paper's figures, what is missing."""

import csv
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from pamfn.config.compose import CONF, EXPERIMENTS
from pamfn.config.schema import Config, Table
from pamfn.errors import InputError
from pamfn.evaluation.average_precision import RANKINGS
from pamfn.evaluation.metrics import METRICS, metrics_of
from pamfn.evaluation.selection import RULES
from pamfn.reporting.cells import AVERAGES, COLUMNS, Measured, Place
from pamfn.reporting.collect import FinishedJob, clip_counts, finished_jobs, measurements, refuse_mixed, reported
from pamfn.reporting.mean_rows import mean_rows
from pamfn.reporting.provenance import counted, machine, provenance
from pamfn.reporting.render import BuiltTable, Cost, Layout, build_table
from pamfn.reporting.sweep import Job, Sweep, first_jobs, sweep_of, which_videos

CHANCE = "Random order"


def table(
    name: str, *overrides: str, metric: str | None = None, select: str | None = None, mean: bool = False
) -> BuiltTable:
    """Build a table of the paper from the finished runs of its sweep, in the configured output or the archive.

    overrides: settings of the sweep, e.g. `"+experiment=uiprmd", "seed=0"`. metric: one of `METRICS`, by default the
    table's own. select: one of `RULES`, by default what every run reports. mean: whether to add rows for the means of
    the networks of each row, and of all rows.

    Raises:
        InputError: for an unknown table, setting, metric or selection, and for real and synthetic data in one table.
    """
    return built(sweep_of(name, overrides), overrides, metric, select, mean=mean)


def built(
    sweep: Sweep, overrides: Sequence[str], metric: str | None = None, select: str | None = None, *, mean: bool = False
) -> BuiltTable:
    """The table of an expanded sweep."""
    table = sweep.table
    if select is not None and select not in RULES:
        raise InputError(f"select {select!r}: choose one of {', '.join(RULES)}.")
    metric, metrics = metric or table.metric, metrics_of(METRICS[table.metric].predicts)
    if metric not in metrics:
        raise InputError(f"metric {metric!r}: {table.name} has {', '.join(metrics)}.")
    jobs, problems = finished_jobs(sweep.jobs, sweep.problems)
    refuse_mixed(jobs)
    synthetic = any(done.result["data_source"] == "synthetic" for done in jobs)
    papers = papers_columns(sweep)
    columns = column_names(sweep, papers)
    folds = Counter((job.row, job.column, job.seed) for job in sweep.jobs)
    measured, doubts = measurements(jobs, columns, table.rows, metric, select, folds)
    by_chance, of_chance = chance_levels(jobs, columns, metric) if METRICS[metric].chance else ([], [])
    measured += by_chance
    means, of_means = mean_rows(jobs, columns, table.rows, metric, select) if mean else ([], [])
    measured += means
    figures = {} if synthetic else figures_beside(sweep, papers, metric)  # a difference would say nothing
    results = {done.run.path: done.result for done in jobs}
    costs = costs_of(table, jobs)
    notes = [
        *(table.notes if figures else []),
        *of_chance,
        *of_means,
        *problems,
        *doubts,
        *cost_notes(costs, (machine(result) for result in results.values() if result.get("inference_ms"))),
        *provenance(results, select),
        f"{len(jobs)} of {len(sweep.jobs)} runs{f' with {shlex.join(overrides)}' if overrides else ''}.",
    ]
    strangers = [name for column, name in columns.items() if column not in papers and sweep.data[column] in COLUMNS]
    if strangers and table.reference:
        notes.append(f"{', '.join(strangers)}: not what the paper has under this name; its figures are not shown here.")
    if synthetic:
        notes.append("The paper's figures are for real data and are not shown beside synthetic ones.")
    if figures and measured and overrides:
        notes.append("The paper's figures are for its own settings, whatever these change.")
    swept = {table.rows.get(job.row, job.row) for job in sweep.jobs}
    of_file = list(table.rows.values())
    layout = Layout(
        name=table.name,
        title=f"{table.title} ({table.source}){', SYNTHETIC DATA' if synthetic else ''}",
        rows=[
            *(name for name in of_file if name in swept),
            *sorted(swept - set(of_file)),
            *dict.fromkeys(one.row for one in means),
            *([CHANCE] if by_chance else []),
        ],
        columns=list(columns.values()),
        full=None if table.full is None else table.rows.get(table.full, table.full),
        metric=metric,
        side_by_side=table.side_by_side,
        left_out=[name for name in of_file if name not in swept],
    )
    return build_table(layout, measured, figures, notes, missing_commands(sweep, jobs, overrides), costs)


def missing_commands(sweep: Sweep, jobs: Sequence[FinishedJob], overrides: Sequence[str]) -> list[str]:
    """One command for every column that lacks runs; those that are there are read by it, not trained again."""
    key, there = sweep.table.column, {cell_and_fold(done.job) for done in jobs}
    lacking = dict.fromkeys(job.column for job in sweep.jobs if cell_and_fold(job) not in there)
    rest = [word for word in overrides if word.partition("=")[0].lstrip("+") != key.lstrip("+")]
    start = f"python -m pamfn.train -m +table={sweep.table.name}"
    return [f"{start} {shlex.join([f'{key}={column}', *rest])}" for column in lacking]


def cell_and_fold(job: Job) -> tuple[str, str, int, int | None]:
    return job.row, job.column, job.seed, job.fold


# columns


def papers_columns(sweep: Sweep) -> dict[str, str]:
    """{column as swept: the paper's name of it} of those whose data are the paper's, whatever their features."""
    first = first_jobs(sweep.jobs)
    return {column: COLUMNS[name] for column, name in sweep.data.items() if is_papers(name, first[column].config)}


def is_papers(name: str, config: Config) -> bool:
    """Whether data that are called like some of the paper's are those, whatever their features."""
    file = CONF / "data" / f"{name.removesuffix('_synthetic')}.yaml"
    if name not in COLUMNS or not file.exists():
        return False
    content: Any = OmegaConf.to_container(OmegaConf.load(file))
    return which_videos(content.get("data", content)) == which_videos(config.data)


def column_names(sweep: Sweep, papers: Mapping[str, str]) -> dict[str, str]:
    """{column as swept: as shown}: the paper's name where the data are some of its, else what they are called.

    Raises:
        InputError: when other data are called like a column of the paper's.
    """
    taken = [n for c, n in sweep.data.items() if c not in papers and n in (*COLUMNS.values(), *AVERAGES)]
    if taken:
        raise InputError(
            f"data.name={taken[0]}: so is a column of the paper called, and these are other data. Choose another name."
        )
    shown = {column: papers.get(column, name) for column, name in sweep.data.items()}
    counts = Counter(shown.values())
    return {column: sweep.data[column] if counts[name] > 1 else name for column, name in shown.items()}


# the paper's figures


def figures_beside(sweep: Sweep, papers: Mapping[str, str], metric: str) -> dict[Place, float]:
    """The paper's figures for the columns that hold its real data, and for averages over them."""
    real = {name for column, name in papers.items() if not sweep.data[column].endswith("_synthetic")}
    real |= {name for name, members in AVERAGES.items() if real.issuperset(members)}
    return {place: figure for place, figure in paper_figures(sweep.table, metric).items() if place[1] in real}


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


# rows of their own, columns of their own


def chance_levels(
    jobs: Sequence[FinishedJob], columns: Mapping[str, str], metric: str
) -> tuple[list[Measured], list[str]]:
    """The mAP of random rankings of every column's test videos, as a row of its own; what there is to say of it."""
    levels: dict[str, dict[float, None]] = {}
    doubts: dict[str, None] = {}
    for done in jobs:
        try:
            level = chance_level(done, metric)
        except InputError as error:
            doubts |= dict.fromkeys(error.problems)
            continue
        levels.setdefault(columns[done.job.column], {})[round(level, 9)] = None
    orders = f"mean of {RANKINGS} orders" if METRICS[metric].chance == "stored" else "mean of all orders"
    notes = [f"{CHANCE}: the same clips, ranked at random ({orders})."] if levels else []
    notes += [
        f"{CHANCE} of {column} is that of the first row; the rows have different test videos, whose levels are "
        f"{min(of_rows):.3f} to {max(of_rows):.3f}."
        for column, of_rows in levels.items()
        if len(of_rows) > 1
    ]
    return [Measured(CHANCE, column, 0, next(iter(of_rows))) for column, of_rows in levels.items()], [*notes, *doubts]


def chance_level(done: FinishedJob, metric: str) -> float:
    """The mAP of random rankings of the test videos of a run."""
    expected = METRICS[metric].chance
    if callable(expected):
        return fmean(expected(*counts) for counts in clip_counts(done))
    level = reported(done.result).get("chance")
    if level is None:
        raise InputError(f"No chance level for {done.run.path.name}: its result has none.")
    return level


def costs_of(table: Table, jobs: Sequence[FinishedJob]) -> dict[str, Cost]:
    """{row: parameters and time, of its finished runs and the paper's}; empty if the table does not show them."""
    if not table.costs:
        return {}
    papers, costs = dict(reference_rows(table, "srcc")), {}
    for value in dict.fromkeys([*table.rows, *(done.job.row for done in jobs)]):
        name = table.rows.get(value, value)
        results = {done.run.path: done.result for done in jobs if done.job.row == value}.values()
        of_paper = [papers.get(name, {}).get(key) for key in ("params_millions", "inference_ms")]
        costs[name] = Cost(
            [result["parameters"]["total"] for result in results],
            [result["inference_ms"] for result in results if result.get("inference_ms")],
            *(float(figure) if figure else None for figure in of_paper),
        )
    return costs


def cost_notes(costs: Mapping[str, Cost], machines: Iterable[str]) -> list[str]:
    """What the numbers of a table's costs mean, and where they were measured."""
    notes = ["Parameters: all of a network's, its branches included."] if costs else []
    if any(cost.milliseconds for cost in costs.values()):
        notes.append(
            "One video: milliseconds for a whole test video alone, features in place, median of 30 videos in every run "
            f"and over the runs, measured at the end of each on {counted(machines)}. The paper's are on its own "
            "machine."
        )
    if any(cost.parameters and not cost.milliseconds for cost in costs.values()):
        notes.append("One video: - where the runs are older than this measurement.")
    return notes
