"""Intervals, p-values and spreads on made-up predictions."""

import numpy as np
import pytest

from pamfn.evaluation.bootstrap import Scored
from pamfn.evaluation.intervals import detectable, holm, interval, paired_p, spread
from pamfn.evaluation.metrics import average, metrics_of, score_metrics
from scored_videos import one_of, scored


@pytest.mark.parametrize("metric", metrics_of("score"))
def test_the_interval_holds_the_number_it_is_about(metric: str):
    given_ = scored()
    seeds = [score_metrics(given_.true.tolist(), p.tolist(), 5.0)[metric] for p in given_.predicted]
    low, high = interval(one_of(metric, given_))
    assert low < float(average(metric, seeds)) < high


def test_the_interval_of_pearson_is_about_that_of_its_formula():
    given_ = scored(videos=400, seeds=1)
    rho = score_metrics(given_.true.tolist(), given_.predicted[0].tolist(), 5.0)["pearson"]
    expected = np.tanh(np.arctanh(rho) + np.array([-1.96, 1.96]) / np.sqrt(400 - 3))
    assert interval(one_of("pearson", given_)) == pytest.approx(tuple(expected), abs=0.01)


def test_more_videos_make_the_interval_narrower():
    narrow, wide = (np.diff(interval(one_of("srcc", scored(videos=n)))) for n in (300, 30))
    assert narrow < wide / 2


def test_a_row_does_not_differ_from_itself_and_a_much_worse_one_does():
    good, bad = one_of("srcc", scored(noise=0.2)), one_of("srcc", scored(noise=3.0))
    assert paired_p(good, good) == 1.0
    assert paired_p(bad, good) < 0.01
    assert paired_p(bad, good) == paired_p(good, bad)


def test_when_nothing_differs_small_values_of_p_are_rare():
    random = np.random.default_rng(1)
    names = tuple(map(str, range(60)))
    p_values = []
    for _ in range(200):
        true = random.normal(size=60)
        rows = [Scored(names, true, true + random.normal(size=(1, 60)), 1.0) for _ in range(2)]
        p_values.append(paired_p(*(one_of("srcc", row, 500) for row in rows)))
    assert np.mean(np.array(p_values) < 0.05) < 0.11
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.15)


def test_constant_predictions_give_nan_and_resamples_without_a_value_are_left_out():
    given_ = scored(seeds=1)
    constant = Scored(given_.videos, given_.true, np.full((1, 40), 0.1), 5.0)
    for metric in ("srcc", "kendall", "pearson"):
        values = one_of(metric, constant)
        assert np.isnan(values).all()
        assert np.isnan(interval(values)).all()
        assert np.isnan(paired_p(values, one_of(metric, given_)))
    one = np.where(np.arange(40) == 7, 1.0, 0.0)  # constant in every resample without video 7
    values = one_of("srcc", Scored(given_.videos, given_.true, one[None], 5.0))
    assert 0.2 < np.isnan(values).mean() < 0.5
    assert not np.isnan(interval(values)).any()


def test_one_seed_has_no_spread():
    assert np.isnan(spread([0.5]))
    assert spread([0.5, 0.7]) == pytest.approx(np.sqrt(0.02))


def test_holm_corrects_for_the_number_of_comparisons():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]


def test_a_detectable_difference_is_found_in_four_of_five_samples():
    random = np.random.default_rng(0)
    spread = 0.3
    smallest = detectable(random.normal(0, spread, 100_000), np.zeros(100_000))
    observed = random.normal(smallest, spread, 100_000)
    assert np.mean(np.abs(observed) > 1.96 * spread) == pytest.approx(0.8, abs=0.01)
    assert np.isnan(detectable(np.array([np.nan]), np.array([1.0])))
