"""Which epoch a number is taken from, on curves written by hand."""

import math
from collections.abc import Sequence
from typing import get_args

import pytest

from pamfn.config.schema import ReportedRule, RuleName
from pamfn.evaluation.metrics import metrics_of
from pamfn.evaluation.selection import (
    RULES,
    at_epoch,
    best_epoch,
    metrics_by_rule,
    reported_rule,
    weights_by_rule,
)

METRICS = metrics_of("score")
nan = math.nan


def curves(test: Sequence[float], holdout: Sequence[float] | None = None) -> list[dict[str, float]]:
    """Rows with these Spearman correlations; the other test metrics of epoch e are e + 1, e + 2, ..."""
    rows = []
    for epoch, srcc in enumerate(test):
        others = {f"test/{metric}": float(epoch + i) for i, metric in enumerate(METRICS)}
        rows.append({"epoch": epoch, "train/loss": 0.1, **others, "test/srcc": srcc})
        if holdout is not None:
            rows[-1] |= {f"holdout/{metric}": 0.0 for metric in METRICS} | {"holdout/srcc": holdout[epoch]}
    return rows


@pytest.mark.parametrize(
    ("srcc", "epoch"),
    [
        ([0.1, 0.5, 0.3], 1),
        ([0.5, 0.5, 0.5], 0),
        ([0.1, 0.5, 0.4, 0.5], 1),
        ([-0.5, -0.2, -0.9], 1),
        ([nan, 0.1, nan, 0.2, nan], 3),
        ([nan, -0.4, nan], 1),
        ([0.3, nan], 0),
        ([nan, nan, nan], 2),
        ([0.7], 0),
    ],
)
def test_the_best_epoch_is_the_first_with_the_highest_defined_correlation(srcc: list[float], epoch: int):
    assert best_epoch(curves(srcc), "test") == epoch


def test_metrics_are_those_of_their_epoch():
    assert at_epoch(curves([0.1, 0.2, 0.3]), 1) == {
        **{"epoch": 1, "srcc": 0.2},
        **{metric: float(1 + i) for i, metric in enumerate(METRICS) if metric != "srcc"},
    }


def test_best_and_last_are_epochs_and_last10_is_a_mean():
    by_rule = metrics_by_rule(curves([0.9, *([0.1] * 9), 0.5, 0.3]), "best_on_test")
    assert set(by_rule) == {"best_on_test", "last", "last10"}
    assert (by_rule["best_on_test"]["epoch"], by_rule["best_on_test"]["srcc"]) == (0, 0.9)
    assert (by_rule["last"]["epoch"], by_rule["last"]["srcc"]) == (11, 0.3)
    assert by_rule["last10"]["epochs"] == 10
    assert by_rule["last10"]["srcc"] == pytest.approx((8 * 0.1 + 0.5 + 0.3) / 10)
    assert by_rule["last10"]["mae"] == pytest.approx(METRICS.index("mae") + sum(range(2, 12)) / 10)


def test_fewer_than_ten_epochs_are_averaged_and_counted():
    by_rule = metrics_by_rule(curves([0.2, 0.4]), "best_on_test")["last10"]
    assert by_rule["epochs"] == 2
    assert by_rule["srcc"] == pytest.approx(0.3)


def test_the_holdout_chooses_the_epoch_and_the_test_set_gives_the_number():
    by_rule = metrics_by_rule(curves([0.9, 0.2, 0.4], holdout=[0.1, 0.8, 0.8]), "holdout")
    assert by_rule["holdout"]["epoch"] == 1
    assert by_rule["holdout"]["srcc"] == 0.2
    assert by_rule["holdout"]["holdout_srcc"] == 0.8
    assert by_rule["holdout"]["mae"] == 1 + METRICS.index("mae")
    assert by_rule["best_on_test"]["srcc"] == 0.9


def test_an_undefined_last_epoch_is_not_hidden():
    by_rule = metrics_by_rule(curves([0.5, 0.4, nan], holdout=[nan, nan, nan]), "holdout")
    assert by_rule["best_on_test"]["epoch"] == 0
    assert by_rule["holdout"]["epoch"] == 2
    assert all(math.isnan(by_rule[protocol]["srcc"]) for protocol in ("last", "last10", "holdout"))


def test_a_refit_reports_its_last_epoch_and_other_runs_have_no_refit():
    by_rule = metrics_by_rule(curves([0.9, 0.2]), "refit")
    assert set(by_rule) == {"best_on_test", "last", "last10", "refit"}
    assert (by_rule["refit"]["epoch"], by_rule["refit"]["srcc"]) == (1, 0.2)


def test_a_protocol_reports_one_rule_whose_weights_are_the_selected_ones():
    assert reported_rule("test", refit=False) == "best_on_test"
    assert reported_rule("holdout", refit=False) == "holdout"
    assert reported_rule("holdout", refit=True) == "refit"
    assert weights_by_rule("holdout") == {"holdout": "selected", "last": "last"}


def test_results_may_name_the_rules_of_the_table_and_no_others():
    assert get_args(RuleName) == tuple(RULES)
    assert get_args(ReportedRule) == tuple(name for name, rule in RULES.items() if rule.protocol)
