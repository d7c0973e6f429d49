"""Which epoch a number is taken from, and what such a number is called."""

import math
from collections.abc import Iterable, Mapping, Sequence

Row = Mapping[str, float]
"""One epoch's curve: epoch (from 0), loss, `<split>/<metric>`."""

MAIN = ("srcc", "map")
"""What epochs are chosen by and what is reported: Spearman's correlation of scores, or the mAP of highlights."""


def main_metric(names: Iterable[str]) -> str:
    """The one of these metrics that is reported."""
    return next(metric for metric in MAIN if metric in set(names))


def metrics_in(row: Row, split: str) -> list[str]:
    """Names of a split's metrics in a row of the curves."""
    return [name.removeprefix(f"{split}/") for name in row if name.startswith(f"{split}/")]


def best_epoch(curves: Sequence[Row], split: str) -> int:
    """The first epoch with the highest main metric on a split; the last one if it was never defined."""
    key = f"{split}/{main_metric(metrics_in(curves[0], split))}"
    defined = [row for row in curves if not math.isnan(row[key])]
    best = max(defined, key=lambda row: (row[key], -row["epoch"])) if defined else curves[-1]
    return int(best["epoch"])


def at_epoch(curves: Sequence[Row], epoch: int, split: str = "test") -> dict[str, float]:
    """A split's metrics after an epoch."""
    row = curves[epoch]
    return {"epoch": epoch, **{metric: row[f"{split}/{metric}"] for metric in metrics_in(row, split)}}


def summary(curves: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Test metrics under every protocol that the curves allow.

    best_on_test: the epoch with the best main metric on test (selection on the test set, as published). last: the last
    epoch. last10: mean over the last ten epochs. holdout: the epoch that is best on the held-out part of train, with
    that value as `holdout_srcc` (or `holdout_map`); present only when there is one.
    """
    tail = curves[-10:]
    names = metrics_in(curves[0], "test")
    last10 = {metric: math.fsum(row[f"test/{metric}"] for row in tail) / len(tail) for metric in names}
    found = {
        "best_on_test": at_epoch(curves, best_epoch(curves, "test")),
        "last": at_epoch(curves, len(curves) - 1),
        "last10": {"epochs": len(tail), **last10},
    }
    held_out = metrics_in(curves[0], "holdout")
    if held_out:
        epoch, metric = best_epoch(curves, "holdout"), main_metric(held_out)
        found["holdout"] = {**at_epoch(curves, epoch), f"holdout_{metric}": curves[epoch][f"holdout/{metric}"]}
    return found
