"""Which epoch a number is taken from, and what such a number is called."""

import math
from collections.abc import Mapping, Sequence

from pamfn.evaluation.metrics import METRICS

Row = Mapping[str, float]
"""One epoch's curve: epoch (from 0), loss, `<split>/<metric>`."""


def best_epoch(curves: Sequence[Row], split: str) -> int:
    """The first epoch with the highest Spearman correlation on a split; the last one if it was never defined."""
    defined = [row for row in curves if not math.isnan(row[f"{split}/srcc"])]
    best = max(defined, key=lambda row: (row[f"{split}/srcc"], -row["epoch"])) if defined else curves[-1]
    return int(best["epoch"])


def at_epoch(curves: Sequence[Row], epoch: int, split: str = "test") -> dict[str, float]:
    """A split's metrics after an epoch."""
    row = curves[epoch]
    return {"epoch": epoch, **{metric: row[f"{split}/{metric}"] for metric in METRICS}}


def summary(curves: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Test metrics under every protocol that the curves allow.

    best_on_test: the epoch with the best test Spearman (selection on the test set, as published). last: the last
    epoch. last10: mean over the last ten epochs. holdout: the epoch with the best Spearman on the held-out part of
    train, with that value as `holdout_srcc`; present only when there is one.
    """
    tail = curves[-10:]
    last10 = {metric: math.fsum(row[f"test/{metric}"] for row in tail) / len(tail) for metric in METRICS}
    found = {
        "best_on_test": at_epoch(curves, best_epoch(curves, "test")),
        "last": at_epoch(curves, len(curves) - 1),
        "last10": {"epochs": len(tail), **last10},
    }
    if "holdout/srcc" in curves[0]:
        epoch = best_epoch(curves, "holdout")
        found["holdout"] = {**at_epoch(curves, epoch), "holdout_srcc": curves[epoch]["holdout/srcc"]}
    return found
