"""Prediction intervals from held-out residuals, and how often they cover."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest

from pamfn.evaluation.metrics import Array


def split_conformal(predicted: float, residuals: Array, level: float) -> tuple[float, float] | None:
    """Return the interval (low, high) that covers a new video with probability `level` or more.

    It has the same width for every video. None when there are too few residuals for this level. The probability holds
    for residuals of the network that predicts; of another epoch (see `Model.residuals`) it is measured, not guaranteed.

    residuals: (n,) true minus predicted points of videos that it was not trained on, exchangeable with new ones
    Source: Papadopoulos et al., "Inductive Confidence Machines for Regression", 2002.
    """
    rank = math.ceil((len(residuals) + 1) * level)
    if rank > len(residuals):
        return None
    width = float(np.partition(np.abs(residuals), rank - 1)[rank - 1])
    return predicted - width, predicted + width


def cv_plus(predicted: Sequence[float], residuals: Sequence[Array], level: float) -> tuple[float, float] | None:
    """Return the interval (low, high) from several networks, each with residuals of its own held-out videos.

    Around every held-out residual stands the prediction of the network that did not see its video. Covering `level` is
    what is seen in practice; proved are 2 level - 1, for folds without overlap. None when there are too few residuals.

    predicted: (m,) points of the new video. residuals: m arrays (n_i,), true minus predicted points
    Source: Barber et al., "Predictive inference with the jackknife+", 2021.
    """
    centre = np.repeat(np.asarray(predicted, dtype=np.float64), [len(each) for each in residuals])
    width = np.abs(np.concatenate(residuals)) if len(residuals) else np.empty(0)
    rank = math.ceil((len(width) + 1) * level)
    if rank > len(width):
        return None
    return float(np.sort(centre - width)[len(width) - rank]), float(np.sort(centre + width)[rank - 1])


def within(limits: tuple[float, float], points: float, largest: float) -> tuple[float, float]:
    """Return the interval cut to the points that there are, 0 to `largest`; it always holds the score itself."""
    low, high = (min(max(end, 0.0), largest) for end in limits)
    return min(low, points), max(high, points)


def coverage(covered: int, of: int) -> tuple[float, float, float]:
    """Return the share of videos that were covered, and its 95 % interval (Clopper and Pearson, exact)."""
    low, high = binomtest(covered, of).proportion_ci(0.95)
    return covered / of, float(low), float(high)
