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


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number, so that any false finding among them is as rare as 5 % says.

    Source: Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.minimum(1.0, np.maximum.accumulate(np.array(p_values)[order] * factors))
    return corrected[np.argsort(order)].tolist()


DETECTED = 1.96 + 0.84
"""Standard deviations by which two networks must differ to be told apart (p < .05) in four of five test sets."""


def detectable(values: Array, others: Array) -> float:
    """The smallest difference of two bootstraps that such test videos show in four of five cases; nan without any."""
    difference = values - others
    return float(DETECTED * np.nanstd(difference)) if not np.isnan(difference).all() else float("nan")


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds (n - 1); nan for fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
