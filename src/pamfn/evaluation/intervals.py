"""Intervals and p-values of a bootstrap, and the standard deviation over seeds."""

from collections.abc import Sequence

import numpy as np

from pamfn.evaluation.metrics import Array

LEVEL = 0.95


def interval(values: Array) -> tuple[float, float]:
    """The middle 95 % of a bootstrap, resamples without a value left out; nan when none has one."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def paired_p(values: Array, others: Array) -> float:
    """Two-sided p of two bootstraps over the same resamples: twice the smaller share that does not favour one side.

    That is 2 min(P(d <= 0), P(d >= 0)) for the difference d within a resample, at most 1, every share counted with the
    observed sample itself, (k + 1) / (r + 1). It asks whether the difference between these trained networks would be
    there on other test videos; what another seed would change is not in it. nan when no resample has both values.
    """
    difference = values - others
    difference = difference[~np.isnan(difference)]
    if not len(difference):
        return float("nan")
    shares = [(np.count_nonzero(side) + 1) / (len(difference) + 1) for side in (difference <= 0, difference >= 0)]
    return float(min(1.0, 2 * min(shares)))


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds (n - 1); nan for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
