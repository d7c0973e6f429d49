"""Metrics against scipy, values worked out by hand, and a second way of computing them."""

import math
import warnings
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pamfn.evaluation.average_precision import average_precision
from pamfn.evaluation.bootstrap import draws
from pamfn.evaluation.metrics import METRICS, average, average_over_folds, metrics_of, score_metrics

SCORES = metrics_of("score")
PAIRS = st.lists(st.tuples(st.integers(0, 8), st.integers(-4, 4)), min_size=2, max_size=40)
"""True and predicted points, with ties."""
TRIPLES = st.lists(st.tuples(st.integers(0, 8), st.integers(-4, 4), st.integers(0, 3)), min_size=2, max_size=25)
"""True and predicted points with ties, and how often the video is in the resample."""


def statistic(rule: Any, *samples: Any) -> float:
    return float(rule(*samples).statistic)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    a, b = x - x.mean(), y - y.mean()
    return float(a @ b / math.sqrt((a @ a) * (b @ b)))


def kendall(x: np.ndarray, y: np.ndarray) -> float:
    """tau-b by counting pairs."""
    signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i, j in combinations(range(len(x)), 2)]
    untied = [sum(abs(pair[side]) for pair in signs) for side in (0, 1)]
    return sum(one * two for one, two in signs) / math.sqrt(untied[0] * untied[1])


def test_values_worked_out_by_hand():
    metrics = score_metrics([10, 20, 30, 40], [12, 18, 39, 34], score_range=50)
    assert list(metrics) == SCORES
    assert metrics["srcc"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert metrics["kendall"] == pytest.approx(4 / 6)
    assert metrics["mae"] == pytest.approx((2 + 2 + 9 + 6) / 4)
    assert metrics["mse"] == pytest.approx((4 + 4 + 81 + 36) / 4)
    assert metrics["rl2"] == pytest.approx(100 * (4 + 4 + 81 + 36) / 4 / 50**2)


@given(PAIRS)
def test_correlations_agree_with_another_way_of_computing_them(pairs: list[tuple[int, int]]):
    true, predicted = np.array(pairs, dtype=float).T
    metrics = score_metrics(true.tolist(), predicted.tolist(), score_range=8)
    if np.ptp(true) == 0 or np.ptp(predicted) == 0:
        assert all(math.isnan(metrics[name]) for name in ("srcc", "kendall", "pearson"))
        return
    assert metrics["srcc"] == pytest.approx(pearson(stats.rankdata(true), stats.rankdata(predicted)), abs=1e-12)
    assert metrics["pearson"] == pytest.approx(pearson(true, predicted), abs=1e-12)
    assert metrics["kendall"] == pytest.approx(kendall(true, predicted), abs=1e-12)


@given(PAIRS)
def test_errors_agree_with_plain_sums(pairs: list[tuple[int, int]]):
    metrics = score_metrics(*zip(*pairs, strict=True), score_range=8)
    assert metrics["mse"] == pytest.approx(sum((y - p) ** 2 for y, p in pairs) / len(pairs))
    assert metrics["mae"] == pytest.approx(sum(abs(y - p) for y, p in pairs) / len(pairs))
    assert metrics["rl2"] == pytest.approx(100 * metrics["mse"] / 64)


def test_correlations_are_scipys():
    random = np.random.default_rng(0)
    true = random.normal(size=100).round(1)
    predicted = (true + random.normal(size=100)).round(1)
    metrics = score_metrics(true.tolist(), predicted.tolist(), 1.0)
    assert metrics["srcc"] == statistic(stats.spearmanr, true, predicted)
    assert metrics["kendall"] == statistic(stats.kendalltau, true, predicted)
    assert metrics["pearson"] == statistic(stats.pearsonr, true, predicted)


@pytest.mark.parametrize(("true", "predicted"), [([1, 2, 3], [5, 5, 5]), ([4, 4, 4], [1, 2, 3]), ([7], [7])])
def test_a_constant_side_has_no_correlation_and_still_has_errors(true: list[float], predicted: list[float]):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = score_metrics(true, predicted, score_range=10)
    assert all(math.isnan(metrics[name]) for name in ("srcc", "kendall", "pearson"))
    assert all(math.isfinite(metrics[name]) for name in ("rl2", "mse", "mae"))


def test_predictions_that_are_nan_have_no_correlation():
    metrics = score_metrics([1, 2, 3], [1, math.nan, 2], score_range=1)
    assert all(math.isnan(value) for value in metrics.values())


def test_nearly_equal_predictions_are_ranked_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = score_metrics([1, 2, 3], [5, 5 + 1e-14, 5 + 2e-14], score_range=1)
    assert (metrics["srcc"], metrics["kendall"]) == (pytest.approx(1), pytest.approx(1))


def test_a_perfect_prediction():
    perfect = {"srcc": 1, "kendall": 1, "pearson": 1, "rl2": 0, "mse": 0, "mae": 0}
    assert score_metrics([3, 1, 2, 9], [3, 1, 2, 9], score_range=8) == pytest.approx(perfect)


def test_the_mean_over_actions_is_taken_in_fisher_space():
    assert average("srcc", [0.5]) == pytest.approx(0.5)
    assert average("srcc", [0.0, 0.96]) == pytest.approx(0.75)  # atanh(.96) is twice atanh(.75)
    assert average("srcc", [-0.3, 0.3]) == pytest.approx(0, abs=1e-12)
    assert math.isnan(average("srcc", [0.5, math.nan]))


def test_the_papers_averages_are_fisher_means():
    assert average("srcc", [0.757, 0.825, 0.836, 0.846]) == pytest.approx(0.819, abs=0.0015)  # RG
    assert average("srcc", [0.754, 0.872]) == pytest.approx(0.822, abs=0.0015)  # Fis-V


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 60)), min_size=1, max_size=60), st.randoms())
def test_only_equal_scores_leave_the_average_precision_to_the_order_of_the_clips(
    clips: list[tuple[int, int]], random: Random
):
    ranked = [clip for _, clip in sorted({score: clip for clip, score in clips}.items())]
    scored = list(enumerate(ranked))
    random.shuffle(scored)
    assert average_precision([clip for _, clip in scored], [score for score, _ in scored]) == average_precision(
        ranked, list(range(len(ranked)))
    )
    equal = [average_precision(labels, [0.5] * 36) for labels in ([1] * 4 + [0] * 32, [0] * 32 + [1] * 4)]
    assert equal == [1, pytest.approx(0.05, abs=0.02)]


@given(TRIPLES)
def test_a_metric_in_a_resample_is_that_of_the_resampled_lists(triples: list[tuple[int, int, int]]):
    true, predicted, counts = np.array(triples, dtype=float).T
    if counts.sum() == 0:
        return
    repeated = counts.astype(int)
    expected = score_metrics(np.repeat(true, repeated).tolist(), np.repeat(predicted, repeated).tolist(), 8)
    for metric in SCORES:
        (value,) = METRICS[metric].resampled(true, predicted, counts[None], 8)
        assert value == pytest.approx(expected[metric], abs=1e-9, nan_ok=True)


@given(st.integers(2, 30), st.integers(0, 100))
def test_correlations_of_untied_numbers_agree_with_scipy_too(videos: int, seed: int):
    true, predicted = np.random.default_rng(seed).normal(size=(2, videos))
    counts = draws(tuple(map(str, range(videos))), 5)
    for row in counts:
        repeated = row.astype(int)
        expected = score_metrics(np.repeat(true, repeated).tolist(), np.repeat(predicted, repeated).tolist(), 1)
        for metric in SCORES:
            (value,) = METRICS[metric].resampled(true, predicted, row[None], 1)
            assert value == pytest.approx(expected[metric], abs=1e-9, nan_ok=True)


def test_correlations_are_averaged_in_fisher_z_space_and_errors_as_they_are():
    values = [0.7, 0.8, 0.95]
    for metric in SCORES:
        expected = np.tanh(np.mean(np.arctanh(values))) if METRICS[metric].is_correlation else np.mean(values)
        assert average(metric, values) == pytest.approx(expected)
    assert average("srcc", [1.0, 0.5]) == 1.0
    assert np.isnan(average("srcc", [np.nan, 0.5]))


def test_an_average_over_folds_is_not_decided_by_a_perfect_one_and_leaves_out_what_is_nan():
    rho = np.array([0.5, 0.5, 1.0, np.nan])
    expected = np.tanh(np.average(np.arctanh([0.5, 0.5, 0.99]), weights=[1, 1, 2]))
    assert average_over_folds("srcc", rho, [1, 1, 2, 5]) == pytest.approx(expected)
    assert average_over_folds("mae", [2.0, 4.0], [3, 1]) == 2.5
    assert np.isnan(average_over_folds("srcc", [np.nan], [1.0]))
