"""The summary of a run that is printed at the end of its job."""

from collections.abc import Collection
from typing import Any

from pamfn.evaluation.metrics import METRICS, main_metric
from pamfn.evaluation.selection import RULES
from pamfn.runs.folder import Run

FEW_HELD_OUT = 30
"""Held-out videos below which the epoch that is best on them is mostly chosen by chance."""

LEFT_OUT = {"mse"}
"""Metrics left out of the summary: rl2 is mse in a unit that data sets share."""


def summary_of(run: Run, result: dict[str, Any]) -> str:
    """A few lines: the test metrics under every protocol, and the run's folder and files."""
    what = f"{result['name']} ({result['data_source']} data), {'+'.join(result['modalities'])}, seed {result['seed']}"
    names = [*(name for name in METRICS if name not in LEFT_OUT), "chance"]
    reported = result["metrics"][result["reported"]]
    main = main_metric(reported)
    lines = [f"\n{what}: {result['videos']['test']} test videos"]
    for protocol, metrics in result["metrics"].items():
        mark = "*" if protocol == result["reported"] else " "
        values = "  ".join(f"{name} {shown(metrics[name])}" for name in names if name in metrics)
        epoch = f", epoch {metrics['epoch']}" if "epoch" in metrics else ""
        lines.append(f" {mark} {protocol:<12} {values}   {RULES[protocol].sentence}{epoch}")
    if METRICS[main].is_correlation and reported[main] is None:
        lines.append(" ! correlations are nan: all test videos were given the same score (or have the same points).")
    held_out = result["videos"].get("holdout", 0)
    if result["reported"] == "holdout" and held_out < FEW_HELD_OUT:
        lines.append(f" ! {held_out} held-out videos chose the epoch, which is few: consider protocol=last.")
    lines.append(f" * reported by this protocol. {units(reported)}")
    files = ("result.json", "predictions.csv", "clips.csv", "curves.csv", "predictions.png", "curves.png")
    lines.append(f"Run folder: {run.path}  ({', '.join(name for name in files if run.file(name).exists())})")
    return "\n".join(lines)


def units(metrics: Collection[str]) -> str:
    """A sentence on the units of these metrics."""
    if METRICS[main_metric(metrics)].predicts == "highlights":
        return "chance: the map of clips in random order."
    of = {name: METRICS[name].unit for name in METRICS if name in metrics and name not in LEFT_OUT}
    in_points = ", ".join(name for name, unit in of.items() if unit == "points")
    others = "".join(f", {name} is {unit}" for name, unit in of.items() if unit not in ("", "points"))
    return f"Errors ({in_points}) are in points{others}."


def shown(value: float | None) -> str:
    return "  nan" if value is None else f"{value:.4f}"
