"""What a sweep over folds came to: the predictions of all folds together, and the mean over folds."""

from collections import Counter
from collections.abc import Sequence

from pamfn.evaluation.metrics import main_metric
from pamfn.reporting.cells import cells_of
from pamfn.reporting.collect import finished_jobs, measurements, reported
from pamfn.reporting.render import groups_in, of_folds, ours
from pamfn.reporting.sweep import swept_over_folds


def folds_summary(words: Sequence[str]) -> str:
    """Say what the folds of a sweep came to, for every setting whose folds are all done; empty without folds.

    words: of the command line
    """
    jobs = swept_over_folds(words)
    if not jobs:
        return ""
    done, problems = finished_jobs(jobs)
    metric = main_metric(reported(done[0].result)) if done else "srcc"
    count = Counter((job.row, job.column, job.seed) for job in jobs)
    columns = dict.fromkeys(job.column for job in jobs)
    measured, doubts = measurements(done, {name: name for name in columns}, {}, metric, None, count)
    cells, _ = cells_of(metric, list(dict.fromkeys(job.row for job in jobs)), list(columns), None, measured, {})
    lines = []
    for cell in cells.values():
        if cell.values:
            videos = max(
                len(one.predicted or {}) for one in measured if (one.row, one.column) == (cell.row, cell.column)
            )
            groups = groups_in([one for one in measured if (one.row, one.column) == (cell.row, cell.column)])
            of = f"{videos} videos" + (f" of {groups}" if groups else "")
            lines += [
                f"\n{' '.join(filter(None, [cell.column, cell.row]))}: {max(count.values())} folds, {of}, {metric}",
                f"   all together    {ours(metric, cell)}   mean ± deviation over seeds (seeds) [95 % interval]",
                f"   mean over folds {of_folds(metric, cell)}",
            ]
    return "\n".join([*lines, *(f" ! {text}" for text in (*problems, *doubts))])
