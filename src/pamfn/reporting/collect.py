"""Collect metrics and predictions of a sweep's finished runs. Nothing here imports torch."""

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pamfn.errors import InputError
from pamfn.evaluation.metrics import METRICS, main_metric
from pamfn.evaluation.selection import RULES, weights_by_rule
from pamfn.reporting.cells import NAN, Measured
from pamfn.reporting.sweep import Job
from pamfn.runs.folder import Run
from pamfn.runs.lookup import every_run, finished, readable

Result = Mapping[str, Any]
"""The content of a result.json."""

Place3 = tuple[str, str, int]
"""A row and a column as swept, and a seed."""

TOLERANCE = 1e-5
"""How far the metric of stored predictions may be from the stored metric."""


@dataclass(frozen=True)
class FinishedJob:
    """A job of a sweep with the finished run that has its numbers, and the run's result."""

    job: Job
    run: Run
    result: Result


def finished_jobs(asked: Sequence[Job], problems: Sequence[str] = ()) -> tuple[list[FinishedJob], list[str]]:
    """Find the finished runs of jobs; a sentence for every one that cannot be trusted, behind other problems."""
    jobs, problems = [], list(problems)
    for job in asked:
        try:
            run = finished(job.config)
            if run is not None:
                jobs.append(FinishedJob(job, run, run.finished()))
        except InputError as error:
            problems += error.problems
    return jobs, [f"Left out: {problem}" for problem in dict.fromkeys(problems)]


def every_result(output_dir: str) -> list[Result]:
    """The results of all finished runs below an output folder and in the archive that can be read."""
    return [result for _, result in readable(every_run(Path(output_dir)))]


def reported(result: Result) -> Mapping[str, Any]:
    """A run's test metrics under the protocol that it reports; None for nan."""
    return result["metrics"][result["reported"]]


def main_of(result: Result) -> str:
    """The name of a run's main metric."""
    return main_metric(reported(result))


def refuse_mixed(jobs: Sequence[FinishedJob]) -> None:
    """Refuse real and synthetic data in one table."""
    sources = dict.fromkeys((done.job.column, done.result["data_source"]) for done in jobs)
    if len({source for _, source in sources}) > 1:
        each = ", ".join(f"{column} is {source}" for column, source in sources)
        raise InputError(
            f"this table would mix real and synthetic data ({each}). Choose its columns, e.g. +experiment=uiprmd."
        )


def measurements(
    jobs: Sequence[FinishedJob],
    columns: Mapping[str, str],
    rows: Mapping[str, str],
    metric: str,
    select: str | None,
    folds: Mapping[Place3, int],
) -> tuple[list[Measured], list[str]]:
    """The numbers of a table; a sentence for each that is not there or has no predictions to go with it.

    columns, rows: {as swept: as shown}. select: the rule whose number is taken; None for the one that a run reports.
    folds: {(row, column, seed): how many there are}; the runs of all folds are one number.
    """
    measured, doubts = [], dict[str, None]()
    parts: dict[Place3, dict[int, Measured]] = {}
    without, other, unstored = Counter[str](), Counter[str](), Counter[str]()
    for done in jobs:
        rule = select or done.result["reported"]
        metrics = done.result["metrics"].get(rule)
        if metrics is None:
            without[rule] += 1
            continue
        if metric not in metrics:
            other[f"{metric} under {rule}, but {', '.join(metrics)}"] += 1
            continue
        value = NAN if metrics[metric] is None else float(metrics[metric])
        weights = weights_of(done, select)
        predicted = None
        if weights is None:
            unstored[rule] += 1
        else:
            try:
                predicted = predictions(done, weights, metric, value)
            except InputError as error:
                doubts |= dict.fromkeys(error.problems)
        place = rows.get(done.job.row, done.job.row), columns[done.job.column]
        groups = done.result.get("groups") or {}
        one = Measured(*place, done.job.seed, value, predicted, done.result["score_range"] or 1.0, groups)
        if done.job.fold is None:
            measured.append(one)
        else:
            parts.setdefault((done.job.row, done.job.column, done.job.seed), {})[done.job.fold] = one
    for place, of_folds in parts.items():
        try:
            measured.append(pooled(of_folds, folds[place], metric))
        except InputError as error:
            doubts |= dict.fromkeys(error.problems)
    notes = [
        f"{n} runs have no number for {rule} ({RULES[rule].sentence}); shown as not run." for rule, n in without.items()
    ]
    notes += [f"Left out: {n} runs have no {what}; shown as not run." for what, n in other.items()]
    notes += [
        f"No interval and no p for {rule} of {n} runs: the predictions that it is a metric of are not stored."
        for rule, n in unstored.items()
    ]
    return measured, [*notes, *doubts]


def pooled(of_folds: Mapping[int, Measured], count: int, metric: str) -> Measured:
    """The number of the predictions of all folds together.

    Raises:
        InputError: when a fold or its predictions are missing, or two folds test the same video.
    """
    first = next(iter(of_folds.values()))
    what = f"{first.row}, {first.column}, seed {first.seed}"
    if len(of_folds) < count:
        raise InputError(f"{what}: {len(of_folds)} of {count} folds are done; shown as not run.")
    if any(one.predicted is None for one in of_folds.values()):
        raise InputError(f"{what}: no number over folds, since predictions are not stored; shown as not run.")
    predicted = {video: pair for one in of_folds.values() for video, pair in (one.predicted or {}).items()}
    fold = {video: number for number, one in sorted(of_folds.items()) for video in one.predicted or {}}
    if len(predicted) < sum(len(one.predicted or {}) for one in of_folds.values()):
        raise InputError(f"{what}: folds share test videos; shown as not run.")
    groups = {video: group for one in of_folds.values() for video, group in one.groups.items()}
    true, points = np.array(list(predicted.values())).T
    value = METRICS[metric].function(true, points, first.score_range)
    return Measured(first.row, first.column, first.seed, value, predicted, first.score_range, groups, fold)


def predictions(done: FinishedJob, weights: str, metric: str, stored: float) -> dict[str, tuple[float, float]]:
    """{test video: (true, predicted) points}, or {...: (highlights, average precision)}, under stored weights.

    stored: the metric as result.json has it.

    Raises:
        InputError: when there are none, or their metric is not the stored one.
    """
    columns = ("highlights", metric) if METRICS[metric].predicts == "highlights" else ("true", "predicted")
    of_videos = numbers_of_videos(done, weights, columns, "interval")
    true, predicted = np.array(list(of_videos.values())).T
    again = METRICS[metric].function(true, predicted, done.result["score_range"] or 1.0)
    same = math.isnan(again) if math.isnan(stored) else abs(again - stored) <= TOLERANCE * max(1, abs(stored))
    if not same:
        raise InputError(
            f"No interval for {done.run.path.name}: predictions.csv gives {metric} {again:.6f} and result.json says "
            f"{stored:.6f}; one of them was changed."
        )
    return of_videos


def weights_of(done: FinishedJob, select: str | None) -> str | None:
    """The stored weights whose numbers a rule gives; None where it gives those of no stored ones."""
    reported = done.result["reported"]
    return weights_by_rule(reported).get(select or reported)


def clip_counts(done: FinishedJob) -> list[tuple[int, int]]:
    """The number of clips, and of highlights among them, of every test video.

    Raises:
        InputError: when there is no predictions.csv of highlights.
    """
    of_videos = numbers_of_videos(done, "selected", ("clips", "highlights"), "chance level", int)
    return [(int(clips), int(highlights)) for clips, highlights in of_videos.values()]


def numbers_of_videos(
    done: FinishedJob,
    weights: str,
    columns: tuple[str, str],
    wanted: str,
    number: Callable[[str], float] = float,
) -> dict[str, tuple[float, float]]:
    """{test video: its numbers in two columns of predictions.csv}; wanted: what there is not if it cannot be read."""
    first, second = columns
    file = done.run.file("predictions.csv")
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = [row for row in csv.DictReader(lines) if (row["weights"], row["split"]) == (weights, "test")]
        if not rows:
            raise ValueError(f"no test videos under {weights}")
        return {row["video"]: (number(row[first]), number(row[second])) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"No {wanted} for {done.run.path.name}: {file} cannot be read ({error!r}).") from error
