"""Rows of a table for means of several networks' scores, from the predictions that their runs stored.

Nothing here imports torch.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pamfn.errors import InputError
from pamfn.evaluation.averaging import ENOUGH, Scale, common_scale
from pamfn.evaluation.metrics import METRICS
from pamfn.reporting.cells import MEAN, Measured
from pamfn.reporting.collect import FinishedJob, numbers_of_videos, weights_of
from pamfn.reporting.render import span
from pamfn.runs.held_out import held_out_of

ALL = "All rows"


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
    groups: dict[str, dict[str, dict[str, FinishedJob]]] = {}
    for done in jobs:
        column = groups.setdefault(columns[done.job.column], {})
        row = rows.get(done.job.row, done.job.row)
        for place in (row, ALL):
            column.setdefault(place, {})[done.run.path.name] = done  # rows may share a run: it counts once
    measured: dict[str, list[tuple[int, Measured]]] = {}
    problems: dict[str, None] = {}
    for column, of_rows in groups.items():
        for row, runs in of_rows.items():
            if len(runs) < 2 or (row == ALL and len(of_rows) == 2):
                continue
            try:
                predicted, score_range = mean_predictions([*runs.values()], select)
            except InputError as error:
                problems |= dict.fromkeys(f"No mean of networks for {row}, {column}: {p}" for p in error.problems)
                continue
            true, mean = np.array([*predicted.values()]).T
            value = METRICS[metric].function(true, mean, score_range)
            measured.setdefault(row, []).append((len(runs), Measured(row, column, MEAN, value, predicted, score_range)))
    shown = []
    for row in (*(row for row in measured if row != ALL), *((ALL,) if ALL in measured else ())):
        name = f"{row}, mean of {span(sorted_texts(n for n, _ in measured[row]))} networks"
        shown += [Measured(name, o.column, o.seed, o.value, o.predicted, o.score_range) for _, o in measured[row]]
    notes = [
        "Means of networks: each network is brought to one scale by its own held-out predictions, and the mean is "
        "scored as one network; p compares it with the mean over the seeds of the full row."
    ]
    return shown, [*(notes if shown else []), *problems]


def sorted_texts(numbers: Iterable[int]) -> list[str]:
    return [str(number) for number in sorted(numbers)]


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
