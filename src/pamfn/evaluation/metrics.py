"""The table of metrics: how each is computed, resampled, averaged and shown.

To add a metric, add a row to `METRICS`; results, tables and intervals have it then.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pamfn.evaluation.average_precision import average_precision, expected_step_precision, step_precision

Array = NDArray[np.float64]
Function = Callable[[Array, Array, float], float]
"""A metric of v videos: true (v,), predicted (v,), score_range -> number."""
Resampled = Callable[[Array, Array, Array, float], Array]
"""The metric in r resamples of the videos: true (v,), predicted (v,), counts (r, v), score_range -> (r,).

counts: how often each resample has each video. The same numbers as `Function` gives for the resampled lists.
"""

CONSTANT = 1e-10
"""Standard deviation, relative to the largest value, below which nothing varies."""


@dataclass(frozen=True)
class Metric:
    """How a metric is computed, resampled, averaged and shown: a row of `METRICS`.

    label: in words, for plots.
    function, resampled: see the types. true, predicted and score_range are in points; for highlights, predicted is what
        `of_video` gives for each video.
    of_video: for highlights: labels (n,) and scores (n,) of a video's clips -> number.
    is_correlation: nan where either side is constant, and averaged in Fisher-z space.
    at_most_one: shown with decimals and no zero before them; anything else with significant digits.
    higher_is_better: which epoch is the best one.
    unit: what a number is in, or multiplied by; empty for plain numbers.
    reference: what the files of experiments/reference call it; None where they have no figures of it.
    chance: for highlights: how to know the value for clips in random order. `stored`: results hold it. A function: of a
        video's numbers of clips and of highlights, the mean over all orders.
    """

    label: str
    function: Function
    resampled: Resampled
    of_video: Callable[[ArrayLike, ArrayLike], float] | None = None
    is_correlation: bool = False
    at_most_one: bool = True
    higher_is_better: bool = True
    unit: str = ""
    reference: str | None = None
    chance: Literal["stored"] | Callable[[int, int], float] | None = None

    @property
    def predicts(self) -> Literal["score", "highlights"]:
        """The kind of predictions it is a metric of, as data modules call it."""
        return "score" if self.of_video is None else "highlights"


def correlation(name: str) -> Function:
    """A correlation of scipy.stats; nan where either side is constant."""

    def function(true: Array, predicted: Array, score_range: float) -> float:
        if not (np.ptp(true) > 0 and np.ptp(predicted) > 0):
            return float("nan")
        from scipy import stats  # slow to import, and most commands compute none

        rule: Any = getattr(stats, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            return float(rule(true, predicted).statistic)

    return function


def resampled_spearman(true: Array, predicted: Array, counts: Array, score_range: float) -> Array:
    """Spearman's correlation in each resample: Pearson's correlation of the ranks."""
    return cosine(ranks(true, counts), ranks(predicted, counts), counts)


def resampled_pearson(true: Array, predicted: Array, counts: Array, score_range: float) -> Array:
    """Pearson's correlation in each resample."""
    return cosine(deviations(true, counts), deviations(predicted, counts), counts)


def resampled_kendall(true: Array, predicted: Array, counts: Array, score_range: float) -> Array:
    """Kendall's tau-b in each resample, from the signs of all pairs as a quadratic form in the counts."""
    sx, sy = np.sign(true[:, None] - true), np.sign(predicted[:, None] - predicted)
    agree, untied_x, untied_y = (((counts @ form) * counts).sum(axis=-1) for form in (sx * sy, sx**2, sy**2))
    untied = np.sqrt(untied_x * untied_y)
    tau = np.full(len(counts), np.nan)
    return np.divide(agree, untied, out=tau, where=untied > 0)


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
    """Correlation of deviations (r, v) -> (r,); nan where either side is constant."""
    xy, xx, yy = (np.einsum("rv,rv,rv->r", counts, one, other) for one, other in ((dx, dy), (dx, dx), (dy, dy)))
    rho = np.full(len(counts), np.nan)
    np.divide(xy, np.sqrt(xx * yy), out=rho, where=(xx > 0) & (yy > 0))
    return np.clip(rho, -1, 1)


def mean_of(each: Callable[[Array, Array, float], Array], times: float = 1.0) -> tuple[Function, Resampled]:
    """The mean over videos of true (v,), predicted (v,), score_range -> (v,), multiplied by `times`."""

    def function(true: Array, predicted: Array, score_range: float) -> float:
        return float(times * np.mean(each(true, predicted, score_range)))

    def resampled(true: Array, predicted: Array, counts: Array, score_range: float) -> Array:
        return counts @ (times * each(true, predicted, score_range)) / counts.sum(axis=-1)

    return function, resampled


MEAN_OVER_VIDEOS = mean_of(lambda true, predicted, score_range: predicted)
"""Of highlights: the mean of what each video's clips gave (`Metric.of_video`)."""

METRICS = {
    "srcc": Metric(
        "Spearman's correlation",
        correlation("spearmanr"),
        resampled_spearman,
        is_correlation=True,
        reference="spearman",
    ),
    "kendall": Metric("Kendall's tau-b", correlation("kendalltau"), resampled_kendall, is_correlation=True),
    "pearson": Metric("Pearson's correlation", correlation("pearsonr"), resampled_pearson, is_correlation=True),
    "rl2": Metric(
        "relative L2 distance",
        *mean_of(lambda true, predicted, score_range: ((predicted - true) / score_range) ** 2, times=100),
        at_most_one=False,
        higher_is_better=False,
        unit="x 100",
    ),
    "mse": Metric(
        "mean squared error",
        *mean_of(lambda true, predicted, score_range: (predicted - true) ** 2),
        at_most_one=False,
        higher_is_better=False,
        unit="points squared",
    ),
    "mae": Metric(
        "mean absolute error",
        *mean_of(lambda true, predicted, score_range: np.abs(predicted - true)),
        at_most_one=False,
        higher_is_better=False,
        unit="points",
    ),
    "map": Metric(
        "mean average precision",
        *MEAN_OVER_VIDEOS,
        of_video=average_precision,
        reference="mAP",
        chance="stored",
    ),
    "map_step": Metric(
        "mean average precision by steps",
        *MEAN_OVER_VIDEOS,
        of_video=step_precision,
        chance=expected_step_precision,
    ),
}
"""Metrics by name, in the order in which they are shown."""

MAIN = ("srcc", "map")
"""The metrics by which epochs are chosen and which are reported: one of scores, one of highlights."""


def metrics_of(predicts: str) -> list[str]:
    """Names of the metrics of `score`, or of `highlights`."""
    return [name for name, metric in METRICS.items() if metric.predicts == predicts]


def main_metric(names: Iterable[str]) -> str:
    """The metric among these that is reported."""
    return next(metric for metric in MAIN if metric in set(names))


def score_metrics(true: Sequence[float], predicted: Sequence[float], score_range: float) -> dict[str, float]:
    """Compute every metric of scores: the agreement of predicted with true points.

    srcc, kendall (tau-b) and pearson in [-1, 1], nan when either side is constant; rl2, the relative L2 distance x 100:
    100 mean(((true - predicted) / score_range) ** 2), score_range being highest minus lowest true points of the whole
    data set; mse in points squared, mae in points.
    """
    y, p = np.asarray(true, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    return {name: METRICS[name].function(y, p, score_range) for name in metrics_of("score")}


def video_metrics(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Compute every metric of highlights for one video: labels (n,) of 0 and 1, scores (n,) of its clips."""
    return {name: metric.of_video(labels, scores) for name, metric in METRICS.items() if metric.of_video is not None}


def highlight_metrics(labels: Sequence[ArrayLike], scores: Sequence[ArrayLike]) -> dict[str, float]:
    """Compute every metric of highlights: the mean over videos of `video_metrics`."""
    videos = [video_metrics(*video) for video in zip(labels, scores, strict=True)]
    return {name: float(np.mean([video[name] for video in videos])) for name in metrics_of("highlights")}


def average(metric: str, values: ArrayLike) -> Array:
    """Mean over the first axis: in Fisher-z space, tanh(mean(atanh(rho))), for a correlation."""
    stacked = np.asarray(values, dtype=np.float64)
    if not METRICS[metric].is_correlation:
        return stacked.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # atanh(1) is infinite, and tanh of that 1 again
        return np.tanh(np.arctanh(stacked).mean(axis=0))


LARGEST_OF_FOLD = 0.99
"""Larger correlations count as this in an average over folds, which a few videos in perfect order would else decide."""


def average_over_folds(metric: str, values: ArrayLike, weights: ArrayLike) -> Array:
    """Weighted mean over the first axis, values that are nan left out: of a correlation in Fisher-z space."""
    stacked, is_correlation = np.asarray(values, dtype=np.float64), METRICS[metric].is_correlation
    spaced = np.arctanh(stacked.clip(-LARGEST_OF_FOLD, LARGEST_OF_FOLD)) if is_correlation else stacked
    defined = np.where(np.isnan(spaced), 0.0, np.asarray(weights, dtype=np.float64))
    with np.errstate(invalid="ignore"):  # where no fold has a value
        mean = np.where(defined > 0, spaced * defined, 0.0).sum(axis=0) / defined.sum(axis=0)
    return np.tanh(mean) if is_correlation else mean
