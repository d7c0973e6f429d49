"""How far a metric can be trusted: a bootstrap over the test videos.

A resample is told by how often it holds each video, and depends on the videos' names alone. So two rows of a table are
compared on the same resamples, two scores of the same videos (TES and PCS) are resampled together, and data sets that
share no video independently. Everything is vectorised over resamples: counts (r, v) times something about the videos.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pamfn.evaluation.highlights import METRICS as HIGHLIGHTS
from pamfn.evaluation.metrics import METRICS

Array = NDArray[np.float64]

CORRELATIONS = METRICS[:3]
"""Metrics that are averaged in Fisher-z space; the others are errors, averaged as they are."""
RESAMPLES = 5_000
LEVEL = 0.95
CONSTANT = 1e-10
"""Standard deviation, relative to the largest value, below which nothing varies."""


@dataclass(frozen=True)
class Scored:
    """Predictions of the same v videos by s networks that differ in their seed.

    videos: sorted names. true (v,), predicted (s, v) and score_range in points. For highlights: how many a video has,
    and its average precision.
    """

    videos: tuple[str, ...]
    true: Array
    predicted: Array
    score_range: float


@lru_cache(maxsize=8)
def draws(videos: tuple[str, ...], resamples: int = RESAMPLES) -> Array:
    """How often each video is in each resample of as many videos: (r, v), the same for the same names."""
    random = np.random.default_rng(zlib.crc32("\n".join(videos).encode()))
    return random.multinomial(len(videos), np.full(len(videos), 1 / len(videos)), size=resamples).astype(np.float64)


def in_resamples(metric: str, true: Array, predicted: Array, counts: Array, score_range: float) -> Array:
    """A metric in every resample: true (v,), predicted (v,), counts (r, v) -> (r,); nan where either side is constant.

    The same numbers as `score_metrics` gives for the resampled lists, in which a video can be several times.
    """
    if metric == "kendall":
        return kendall(true, predicted, counts)
    if metric == "srcc":
        return cosine(ranks(true, counts), ranks(predicted, counts), counts)
    if metric == "pearson":
        return cosine(deviations(true, counts), deviations(predicted, counts), counts)
    if metric in HIGHLIGHTS:
        return counts @ predicted / counts.sum(axis=-1)
    error = predicted - true
    losses = {"rl2": 100 * (error / score_range) ** 2, "mse": error**2, "mae": np.abs(error)}
    return counts @ losses[metric] / counts.sum(axis=-1)


def ranks(values: Array, counts: Array) -> Array:
    """Ranks of the videos within each resample, ties averaged, less the mean rank: (r, v)."""
    below = (values[:, None] < values) + 0.5 * (values[:, None] == values)
    return counts @ below - counts.sum(axis=-1, keepdims=True) / 2


def deviations(values: Array, counts: Array) -> Array:
    """Values less their mean in each resample, zero where they do not vary: (r, v)."""
    number = counts.sum(axis=-1, keepdims=True)
    from_mean = values - (counts @ values)[:, None] / number
    varies = (counts * from_mean**2).sum(axis=-1, keepdims=True) > number * (CONSTANT * np.abs(values).max()) ** 2
    return from_mean * varies


def cosine(dx: Array, dy: Array, counts: Array) -> Array:
    """Correlation of deviations (r, v) -> (r,)."""
    xy, xx, yy = (np.einsum("rv,rv,rv->r", counts, one, other) for one, other in ((dx, dy), (dx, dx), (dy, dy)))
    rho = np.full(len(counts), np.nan)
    np.divide(xy, np.sqrt(xx * yy), out=rho, where=(xx > 0) & (yy > 0))
    return np.clip(rho, -1, 1)


def kendall(x: Array, y: Array, counts: Array) -> Array:
    """tau-b: x and y (v,) -> (r,), by the signs of all pairs as a quadratic form in the counts."""
    sx, sy = np.sign(x[:, None] - x), np.sign(y[:, None] - y)
    agree, untied_x, untied_y = (((counts @ form) * counts).sum(axis=-1) for form in (sx * sy, sx**2, sy**2))
    untied = np.sqrt(untied_x * untied_y)
    tau = np.full(len(counts), np.nan)
    return np.divide(agree, untied, out=tau, where=untied > 0)


def average(metric: str, values: ArrayLike) -> Array:
    """Mean over the first axis: in Fisher-z space, tanh(mean(atanh(rho))), for a correlation."""
    stacked = np.asarray(values, dtype=np.float64)
    if metric not in CORRELATIONS:
        return stacked.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # atanh(1) is infinite, and tanh of that 1 again
        return np.tanh(np.arctanh(stacked).mean(axis=0))


def bootstrap(metric: str, scored: Scored, resamples: int = RESAMPLES) -> Array:
    """The metric in every resample of the videos, the same videos for every seed: (s, r)."""
    parts = np.array_split(draws(scored.videos, resamples), 32)  # small enough to stay in the processor's cache
    return np.stack(
        [
            np.concatenate([in_resamples(metric, scored.true, predicted, part, scored.score_range) for part in parts])
            for predicted in scored.predicted
        ]
    )


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
