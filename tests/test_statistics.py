"""The bootstrap against scipy on lists that are really resampled, and what its resamples share."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamfn.evaluation.metrics import METRICS, score_metrics
from pamfn.evaluation.statistics import (
    CORRELATIONS,
    RESAMPLES,
    Array,
    Scored,
    average,
    bootstrap,
    draws,
    in_resamples,
    interval,
    paired_p,
    spread,
)

TRIPLES = st.lists(st.tuples(st.integers(0, 8), st.integers(-4, 4), st.integers(0, 3)), min_size=2, max_size=25)
"""True and predicted points with ties, and how often the video is in the resample."""


def scored(videos: int = 40, seeds: int = 3, noise: float = 0.5, prefix: str = "v") -> Scored:
    random = np.random.default_rng(videos)
    true = random.normal(size=videos)
    predicted = true + noise * random.normal(size=(seeds, videos))
    return Scored(tuple(f"{prefix}{i:03d}" for i in range(videos)), true, predicted, 5.0)


@given(TRIPLES)
def test_a_metric_in_a_resample_is_that_of_the_resampled_lists(triples: list[tuple[int, int, int]]):
    true, predicted, counts = np.array(triples, dtype=float).T
    if counts.sum() == 0:
        return
    repeated = counts.astype(int)
    expected = score_metrics(np.repeat(true, repeated).tolist(), np.repeat(predicted, repeated).tolist(), 8)
    for metric in METRICS:
        (found,) = in_resamples(metric, true, predicted, counts[None], 8)
        assert found == pytest.approx(expected[metric], abs=1e-9, nan_ok=True)


@given(st.integers(2, 30), st.integers(0, 100))
def test_correlations_of_untied_numbers_agree_with_scipy_too(videos: int, seed: int):
    true, predicted = np.random.default_rng(seed).normal(size=(2, videos))
    counts = draws(tuple(map(str, range(videos))), 5)
    for row in counts:
        repeated = row.astype(int)
        expected = score_metrics(np.repeat(true, repeated).tolist(), np.repeat(predicted, repeated).tolist(), 1)
        for metric in METRICS:
            (found,) = in_resamples(metric, true, predicted, row[None], 1)
            assert found == pytest.approx(expected[metric], abs=1e-9, nan_ok=True)


def test_every_resample_has_as_many_videos_and_the_same_ones_each_time():
    names = scored().videos
    counts = draws(names, 50)
    assert counts.shape == (50, 40)
    assert set(counts.sum(axis=1)) == {40}
    draws.cache_clear()
    assert np.array_equal(counts, draws(names, 50))
    assert not np.array_equal(counts, draws(scored(prefix="w").videos, 50))


def one_of(metric: str, scored: Scored, resamples: int = RESAMPLES) -> Array:
    """The mean over seeds in every resample."""
    return bootstrap(metric, scored, resamples).mean(axis=0)


@pytest.mark.parametrize("metric", METRICS)
def test_the_interval_holds_the_number_it_is_about(metric: str):
    given_ = scored()
    seeds = [score_metrics(given_.true.tolist(), p.tolist(), 5.0)[metric] for p in given_.predicted]
    low, high = interval(one_of(metric, given_))
    assert low < float(average(metric, seeds)) < high


@pytest.mark.parametrize("metric", METRICS)
def test_seeds_are_averaged_as_in_the_cell_however_far_apart_they_are(metric: str):
    given_ = scored(seeds=3)
    each = [one_of(metric, replace(given_, predicted=predicted[None])) for predicted in given_.predicted]
    np.testing.assert_allclose(bootstrap(metric, given_), each)


def test_the_interval_of_pearson_is_about_that_of_its_formula():
    given_ = scored(videos=400, seeds=1)
    rho = score_metrics(given_.true.tolist(), given_.predicted[0].tolist(), 5.0)["pearson"]
    expected = np.tanh(np.arctanh(rho) + np.array([-1.96, 1.96]) / np.sqrt(400 - 3))
    assert interval(one_of("pearson", given_)) == pytest.approx(tuple(expected), abs=0.01)


def test_more_videos_make_the_interval_narrower():
    narrow, wide = (np.diff(interval(one_of("srcc", scored(videos=n)))) for n in (300, 30))
    assert narrow < wide / 2


def test_correlations_are_averaged_in_fisher_z_space_and_errors_as_they_are():
    values = [0.7, 0.8, 0.95]
    for metric in METRICS:
        expected = np.tanh(np.mean(np.arctanh(values))) if metric in CORRELATIONS else np.mean(values)
        assert average(metric, values) == pytest.approx(expected)
    assert average("srcc", [1.0, 0.5]) == 1.0
    assert np.isnan(average("srcc", [np.nan, 0.5]))


def test_a_row_does_not_differ_from_itself_and_a_much_worse_one_does():
    good, bad = one_of("srcc", scored(noise=0.2)), one_of("srcc", scored(noise=3.0))
    assert paired_p(good, good) == 1.0
    assert paired_p(bad, good) < 0.01
    assert paired_p(bad, good) == paired_p(good, bad)


def test_when_nothing_differs_small_values_of_p_are_rare():
    random = np.random.default_rng(1)
    names = tuple(map(str, range(60)))
    found = []
    for _ in range(200):
        true = random.normal(size=60)
        rows = [Scored(names, true, true + random.normal(size=(1, 60)), 1.0) for _ in range(2)]
        found.append(paired_p(*(one_of("srcc", row, 500) for row in rows)))
    assert np.mean(np.array(found) < 0.05) < 0.11
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.15)


def test_constant_predictions_give_nan_and_resamples_without_a_value_are_left_out():
    given_ = scored(seeds=1)
    constant = Scored(given_.videos, given_.true, np.full((1, 40), 0.1), 5.0)
    for metric in CORRELATIONS:
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
