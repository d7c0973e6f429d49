"""The rules by which an epoch is chosen, what they are called, and the test metrics that each gives.

To add a rule, add its name to `RuleName` (config/schema.py) and a row to `RULES`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pamfn.evaluation.metrics import METRICS, main_metric

Row = Mapping[str, float]
"""The curves at one epoch: epoch (from 0), loss, `<split>/<metric>`."""


@dataclass(frozen=True)
class SelectionRule:
    """How an epoch is chosen, and what that is called: a row of `RULES`.

    label: in the head of a table. sentence: what it means.
    metrics: curves -> test metrics by this rule; empty where the curves do not allow it.
    best_on: the split on which the chosen epoch is the best one; None for a rule that compares no epochs.
    protocol: (`protocol.select`, `protocol.refit`) of the runs that report it.
    only_reported: whether no other runs have it.
    """

    label: str
    sentence: str
    metrics: Callable[[Sequence[Row]], dict[str, float]]
    best_on: Literal["test", "holdout"] | None = None
    protocol: tuple[str, bool] | None = None
    only_reported: bool = False


def metrics_in(row: Row, split: str) -> list[str]:
    """Names of a split's metrics in a row of the curves."""
    return [name.removeprefix(f"{split}/") for name in row if name.startswith(f"{split}/")]


def best_epoch(curves: Sequence[Row], split: str) -> int:
    """The first epoch with the best main metric on a split; the last one if it was never defined."""
    metric = main_metric(metrics_in(curves[0], split))
    key, sign = f"{split}/{metric}", 1 if METRICS[metric].higher_is_better else -1
    defined = [row for row in curves if not math.isnan(row[key])]
    best = max(defined, key=lambda row: (sign * row[key], -row["epoch"])) if defined else curves[-1]
    return int(best["epoch"])


def at_epoch(curves: Sequence[Row], epoch: int, split: str = "test") -> dict[str, float]:
    """A split's metrics after an epoch."""
    row = curves[epoch]
    return {"epoch": epoch, **{metric: row[f"{split}/{metric}"] for metric in metrics_in(row, split)}}


def best_on_test(curves: Sequence[Row]) -> dict[str, float]:
    """The test metrics of the epoch that is best on the test set."""
    return at_epoch(curves, best_epoch(curves, "test"))


def last(curves: Sequence[Row]) -> dict[str, float]:
    """The test metrics of the last epoch."""
    return at_epoch(curves, len(curves) - 1)


def last10(curves: Sequence[Row]) -> dict[str, float]:
    """The mean of every metric over the last ten epochs; `epochs`: how many, fewer in a shorter training."""
    tail = curves[-10:]
    means = {name: math.fsum(row[f"test/{name}"] for row in tail) / len(tail) for name in metrics_in(tail[0], "test")}
    return {"epochs": len(tail), **means}


def holdout(curves: Sequence[Row]) -> dict[str, float]:
    """The test metrics of the epoch that is best on the held-out part; empty if nothing was held out.

    `holdout_srcc` (or `holdout_map`) is the number that chose the epoch.
    """
    held_out = metrics_in(curves[0], "holdout")
    if not held_out:
        return {}
    epoch, metric = best_epoch(curves, "holdout"), main_metric(held_out)
    return {**at_epoch(curves, epoch), f"holdout_{metric}": curves[epoch][f"holdout/{metric}"]}


RULES = {
    "best_on_test": SelectionRule(
        *("best on test", "best epoch on the test set (selection on test, as published)", best_on_test),
        best_on="test",
        protocol=("test", False),
    ),
    "last": SelectionRule("last", "last epoch", last, protocol=("last", False)),
    "last10": SelectionRule("last 10", "mean of the last ten epochs", last10),
    "holdout": SelectionRule(
        *("hold-out", "epoch chosen on a held-out part of train", holdout),
        best_on="holdout",
        protocol=("holdout", False),
    ),
    "refit": SelectionRule(
        *("refit", "trained on all of train for the chosen number of epochs", last),
        protocol=("holdout", True),
        only_reported=True,
    ),
}
"""Rules by name, in the order in which they are shown."""

INFLATION = (("best_on_test", "holdout"), ("best_on_test", "last"))
"""Pairs of rules whose difference is what choosing on the test set adds."""


def reported_rule(select: str, *, refit: bool) -> str:
    """The rule whose number a run with this `protocol.select` and `protocol.refit` reports."""
    return next(name for name, rule in RULES.items() if rule.protocol == (select, refit))


def metrics_by_rule(curves: Sequence[Row], reported: str) -> dict[str, dict[str, float]]:
    """Test metrics by every rule that the curves of a run allow; reported: the rule that the run reports."""
    every = {name: rule.metrics(curves) for name, rule in RULES.items() if name == reported or not rule.only_reported}
    return {name: metrics for name, metrics in every.items() if metrics}


def weights_by_rule(reported: str) -> dict[str, str]:
    """{rule: the stored weights and predictions that its number is of}; for other rules none are stored."""
    return {reported: "selected", "last": "last"}
