import numpy as np
import pytest

from pamfn.evaluation.conformal import coverage, cv_plus, split_conformal

RESIDUALS = np.array([-1.0, 2.0, -3.0, 4.0, -5.0, 6.0, -7.0, 8.0, -9.0])


def test_the_half_width_is_the_ranked_residual():
    assert split_conformal(20.0, RESIDUALS, 0.8) == (12.0, 28.0)  # the 8th of 9: ceil(10 * 0.8)
    assert split_conformal(20.0, RESIDUALS, 0.9) == (11.0, 29.0)
    assert split_conformal(20.0, RESIDUALS[:8], 0.9) is None  # the 9th of 8


def test_new_videos_are_covered_as_often_as_promised():
    random = np.random.default_rng(0)
    for level in (0.8, 0.9):
        inside = 0
        for _ in range(4000):
            residuals, new = random.standard_t(3, 40), random.standard_t(3)
            interval = split_conformal(0.0, residuals, level)
            assert interval is not None
            inside += interval[0] <= new <= interval[1]
        assert inside / 4000 == pytest.approx(level, abs=0.02)


def test_networks_that_agree_give_the_interval_of_one():
    halves = [RESIDUALS[:4], RESIDUALS[4:]]
    assert cv_plus([20.0, 20.0], halves, 0.8) == split_conformal(20.0, RESIDUALS, 0.8)
    assert cv_plus([20.0, 20.0], [RESIDUALS[:4], RESIDUALS[4:8]], 0.9) is None
    assert cv_plus([], [], 0.9) is None


def test_a_network_that_disagrees_moves_only_its_own_residuals():
    low, high = cv_plus([20.0, 50.0], [RESIDUALS, np.zeros(1)], 0.8) or (0.0, 0.0)
    assert low == 12.0  # of 10 lower ends the 2nd lowest: 11, 12, ...
    assert high == 29.0  # of 10 upper ends the 9th: ..., 28, 29, 50


def test_a_share_comes_with_its_interval():
    share, low, high = coverage(90, 100)
    assert share == 0.9
    assert (low, high) == pytest.approx((0.8238, 0.9510), abs=1e-4)  # Clopper and Pearson's tables
