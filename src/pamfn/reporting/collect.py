"""What the finished runs of a sweep answer: their numbers, and the predictions that these are numbers of.

Nothing here imports torch.
"""

import csv
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pamfn.errors import InputError
from pamfn.evaluation.metrics import METRICS
from pamfn.evaluation.selection import RULES, weights_by_rule
from pamfn.reporting.cells import Measured
from pamfn.reporting.sweep import Job, Sweep
from pamfn.runs.folder import Run
from pamfn.runs.lookup import finished

TOLERANCE = 1e-5
"""How far the metric of stored predictions may be from the stored metric."""


@dataclass(frozen=True)
class Answer:
    """A job of a sweep and the finished run that answers it."""

    job: Job
    run: Run
    result: dict[str, Any]

    def select(self, asked: str | None) -> str:
        """The protocol whose number is taken."""
        return asked or self.result["reported"]


def answered(sweep: Sweep) -> tuple[list[Answer], list[str]]:
    """The finished runs of a sweep, and a sentence for every one that cannot be trusted."""
    answers, problems = [], dict.fromkeys(f"Left out: {problem}" for problem in sweep.problems)
    for job in sweep.jobs:
        try:
            found = finished(job.config)
            result = None if found is None else found.result()
        except InputError as error:
            problems |= dict.fromkeys(f"Left out: {problem}" for problem in error.problems)
            continue
        except KeyError as error:  # what says whether it answers the job is not there
            problems[f"Left out: {job.run.path} has a result without {error.args[0]}. Remove it to run it again."] = (
                None
            )
            continue
        if found is None or result is None:
            continue
        answers.append(Answer(job, found, result))
    return answers, list(problems)


def refuse_mixed(answers: Sequence[Answer]) -> None:
    """Real and synthetic data do not belong in one table."""
    sources = dict.fromkeys((answer.job.column, answer.result["data_source"]) for answer in answers)
    if len({source for _, source in sources}) > 1:
        told = ", ".join(f"{column} is {source}" for column, source in sources)
        raise InputError(
            f"this table would mix real and synthetic data ({told}). Choose its columns, e.g. +experiment=uiprmd."
        )


def measurements(
    answers: Sequence[Answer], columns: Mapping[str, str], rows: Mapping[str, str], metric: str, select: str | None
) -> tuple[list[Measured], list[str]]:
    """The numbers of a table, and a sentence for each that is not there or has no predictions to go with it."""
    measured, doubts = [], dict[str, None]()
    without, other, unstored = Counter[str](), Counter[str](), Counter[str]()
    for answer in answers:
        chosen = answer.select(select)
        if chosen not in answer.result["metrics"]:
            without[chosen] += 1
            continue
        value = answer.result["metrics"][chosen].get(metric, "none")
        if not isinstance(value, int | float | None):
            other[f"{metric} under {chosen}, but {', '.join(answer.result['metrics'][chosen])}"] += 1
            continue
        weights = weights_by_rule(answer.result["reported"]).get(chosen)
        predicted = None
        if weights is None:
            unstored[chosen] += 1
        else:
            try:
                predicted = predictions(answer, weights, metric, value)
            except InputError as error:
                doubts |= dict.fromkeys(error.problems)
        place = rows.get(answer.job.row, answer.job.row), columns[answer.job.column]
        number = float("nan") if value is None else float(value)
        measured.append(Measured(*place, answer.job.seed, number, predicted, answer.result["score_range"] or 1.0))
    absent = [
        f"{n} runs have no number for {name} ({RULES[name].sentence}); shown as not run." for name, n in without.items()
    ]
    absent += [f"Left out: {n} runs have no {what}; shown as not run." for what, n in other.items()]
    no_intervals = [
        f"No interval and no p for {name} of {n} runs: the predictions that it is a metric of are not stored."
        for name, n in unstored.items()
    ]
    return measured, [*absent, *no_intervals, *doubts]


def predictions(answer: Answer, weights: str, metric: str, value: float | None) -> dict[str, tuple[float, float]]:
    """{test video: (true, predicted) points}, or {...: (highlights, average precision)}, under stored weights.

    value: the stored metric, None for nan.

    Raises:
        InputError: when there are none, or their metric is not the stored one.
    """
    columns = ("highlights", metric) if METRICS[metric].predicts == "highlights" else ("true", "predicted")
    try:
        found = of_videos(answer, weights, columns)
        true, predicted = zip(*found.values(), strict=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        file = answer.run.file("predictions.csv")
        raise InputError(f"No interval for {answer.run.path.name}: {file} cannot be read ({error!r}).") from error
    again = METRICS[metric].function(np.array(true), np.array(predicted), answer.result["score_range"] or 1.0)
    stored = float("nan") if value is None else value
    if not (abs(again - stored) <= TOLERANCE * max(1, abs(stored)) or (math.isnan(again) and value is None)):
        raise InputError(
            f"No interval for {answer.run.path.name}: predictions.csv gives {metric} {again:.6f} and result.json says "
            f"{stored:.6f}; one of them was changed."
        )
    return found


def of_videos(answer: Answer, weights: str, columns: tuple[str, str]) -> dict[str, tuple[float, float]]:
    """{test video: its numbers in two columns of predictions.csv}."""
    with answer.run.file("predictions.csv").open(newline="", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if (row["weights"], row["split"]) == (weights, "test")]
    return {row["video"]: (float(row[columns[0]]), float(row[columns[1]])) for row in rows}


def clip_counts(answer: Answer) -> dict[str, tuple[int, int]]:
    """{test video: its clips, and how many are highlights}.

    Raises:
        InputError: when there is no predictions.csv of highlights.
    """
    try:
        found = of_videos(answer, "selected", ("clips", "highlights"))
        return {video: (int(clips), int(highlights)) for video, (clips, highlights) in found.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        file = answer.run.file("predictions.csv")
        raise InputError(f"No chance level for {answer.run.path.name}: {file} cannot be read ({error!r}).") from error
