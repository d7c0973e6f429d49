"""Rows of a table for means of several networks' scores, from the predictions that their runs stored.

Nothing here imports torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from pamfn.errors import InputError
from pamfn.evaluation.averaging import ENOUGH, Scale, common_scale
from pamfn.evaluation.metrics import METRICS
from pamfn.reporting.cells import MEAN, Measured
from pamfn.reporting.collect import FinishedJob, numbers_of_videos, weights_of
from pamfn.reporting.render import span
from pamfn.runs.held_out import held_out_of

ALL = "All rows"

Networks = dict[int | None, dict[str, FinishedJob]]
"""{fold: {name of a run: its job}}; without folds, all are under None."""


def mean_rows(
    jobs: Sequence[FinishedJob], columns: Mapping[str, str], rows: Mapping[str, str], metric: str, select: str | None
) -> tuple[list[Measured], list[str]]:
    """The numbers of the mean of every row's networks, and of all rows'; what there is to say of them.

    Each network is brought to one scale by its own held-out predictions, as `pamfn.load` does with several runs. The
    mean's predictions depend on no test video but the one that is scored.

    columns, rows: {as swept: as shown}

    Raises:
        InputError: when clips are scored, not videos.
    """
    if METRICS[metric].predicts == "highlights":
        raise InputError("--mean: the scores of clips have no held-out predictions that bring networks to one scale.")
    by_column: dict[str, dict[str, Networks]] = {}
    for done in jobs:
        column = by_column.setdefault(columns[done.job.column], {})
        row = rows.get(done.job.row, done.job.row)
        for place in (row, ALL):
            of_fold = column.setdefault(place, {}).setdefault(done.job.fold, {})
            of_fold[done.run.path.name] = done  # rows may share a run: it counts once
    measured: dict[str, list[tuple[int, Measured]]] = {}
    problems: dict[str, None] = {}
    for column, of_rows in by_column.items():
        for row, networks in of_rows.items():
            count = max(map(len, networks.values()))
            if count < 2 or (row == ALL and len(of_rows) == 2):
                continue
            try:
                one = mean_of_networks(row, column, networks, metric, select)
            except InputError as error:
                problems |= dict.fromkeys(f"No mean of networks for {row}, {column}: {p}" for p in error.problems)
                continue
            measured.setdefault(row, []).append((count, one))
    shown = []
    for row in (*(row for row in measured if row != ALL), *((ALL,) if ALL in measured else ())):
        name = f"{row}, mean of {span(sorted_texts(n for n, _ in measured[row]))} networks"
        shown += [replace(one, row=name) for _, one in measured[row]]
    notes = [
        "Means of networks: each network is brought to one scale by its own held-out predictions, and the mean is "
        "scored as one network; p compares it with the mean over the seeds of the full row."
    ]
    return shown, [*(notes if shown else []), *problems]


def sorted_texts(numbers: Iterable[int]) -> list[str]:
    return [str(number) for number in sorted(numbers)]


def mean_of_networks(row: str, column: str, networks: Networks, metric: str, select: str | None) -> Measured:
    """The number of the mean of a row's networks; with folds, of the mean of every fold's, all folds together.

    Raises:
        InputError: as `mean_predictions`, and when folds have different numbers of networks.
    """
    if len({len(runs) for runs in networks.values()}) > 1:
        raise InputError("some of its folds lack networks that others have.")
    predicted, groups, fold = dict[str, tuple[float, float]](), dict[str, str](), dict[str, int]()
    score_range = 1.0
    for number, runs in networks.items():
        own, score_range = mean_predictions([*runs.values()], select)
        predicted |= own
        groups |= next(iter(runs.values())).result.get("groups") or {}
        fold |= {} if number is None else dict.fromkeys(own, number)
    true, mean = np.array([*predicted.values()]).T
    value = METRICS[metric].function(true, mean, score_range)
    return Measured(row, column, MEAN, value, predicted, score_range, groups, fold)


def mean_predictions(runs: Sequence[FinishedJob], select: str | None) -> tuple[dict[str, tuple[float, float]], float]:
    """{test video: (true, mean predicted) points} of several runs, and the range of scores.

    Raises:
        InputError: when a run has not what that needs, or they were tested on different videos.
    """
    scales, tests = [], []
    for done in runs:
        weights = weights_of(done, select)
        if weights is None:
            raise InputError(f"{done.run.path.name} has no predictions by {select}.")
        held = held_out_of(done.run.path).get(weights)
        if held is None or len(held.predicted) < ENOUGH:
            raise InputError(f"{done.run.path.name} held out fewer than {ENOUGH} videos, which would tell its scale.")
        scales.append(Scale.of(held.predicted))
        tests.append(numbers_of_videos(done, weights, ("true", "predicted"), "mean"))
        if not scales[-1].deviation > 0:
            raise InputError(f"{done.run.path.name} predicts the same for every video.")
    truth = {video: true for video, (true, _) in tests[0].items()}
    if any({video: true for video, (true, _) in test.items()} != truth for test in tests):
        raise InputError("its runs were tested on different videos.")
    onto = [scale.onto(common_scale(scales)) for scale in scales]
    return {
        video: (
            true,
            float(np.mean([f * test[video][1] + shift for (f, shift), test in zip(onto, tests, strict=True)])),
        )
        for video, true in truth.items()
    }, runs[0].result["score_range"] or 1.0
