"""How well predicted scores agree with the judges'."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

METRICS = ("srcc", "kendall", "pearson", "rl2", "mse", "mae")


def score_metrics(true: Sequence[float], predicted: Sequence[float], score_range: float) -> dict[str, float]:
    """Agreement of predicted with true points.

    srcc, kendall (tau-b) and pearson in [-1, 1], nan when either side is constant; rl2, the relative L2 distance x 100:
    100 mean(((true - predicted) / score_range) ** 2), score_range being highest minus lowest true points of the whole
    data set; mse in points squared, mae in points.
    """
    y, p = np.asarray(true, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    error = p - y
    correlations = dict.fromkeys(METRICS[:3], float("nan"))
    rules: Any = zip(METRICS[:3], (stats.spearmanr, stats.kendalltau, stats.pearsonr), strict=True)
    if np.ptp(y) > 0 and np.ptp(p) > 0:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            correlations = {name: float(rule(y, p).statistic) for name, rule in rules}
    return {
        **correlations,
        "rl2": float(100 * np.mean((error / score_range) ** 2)),
        "mse": float(np.mean(error**2)),
        "mae": float(np.mean(np.abs(error))),
    }
