"""What is said at the end of a job."""

from typing import Any

from pamfn.store import Run

MEANING = {
    "best_on_test": "best epoch on the test set (selection on test, as published)",
    "last": "last epoch",
    "last10": "mean of the last ten epochs",
    "holdout": "epoch chosen on a held-out part of train",
    "refit": "trained on all of train for the chosen number of epochs",
}

SHOWN = ("srcc", "kendall", "pearson", "rl2", "mae", "map", "map_step", "chance")


def summary_of(run: Run, result: dict[str, Any]) -> str:
    """A few lines: the test metrics under every protocol, and where things are."""
    what = f"{result['name']} ({result['data_source']} data), {'+'.join(result['modalities'])}, seed {result['seed']}"
    lines = [f"\n{what}: {result['videos']['test']} test videos"]
    for protocol, metrics in result["metrics"].items():
        mark = "*" if protocol == result["reported"] else " "
        values = "  ".join(f"{name} {shown(metrics[name])}" for name in SHOWN if name in metrics)
        epoch = f", epoch {metrics['epoch']}" if "epoch" in metrics else ""
        lines.append(f" {mark} {protocol:<12} {values}   {MEANING[protocol]}{epoch}")
    if is_constant(result):
        lines.append(" ! correlations are nan: all test videos were given the same score (or have the same points).")
    of_scores = "srcc" in result["metrics"][result["reported"]]
    units = "Errors (mae) are in points, rl2 is x 100." if of_scores else "chance: the map of clips in random order."
    lines.append(f" * reported by this protocol. {units}")
    files = ("result.json", "predictions.csv", "clips.csv", "curves.csv", "predictions.png", "curves.png")
    lines.append(f"Run folder: {run.path}  ({', '.join(name for name in files if run.file(name).exists())})")
    return "\n".join(lines)


def is_constant(result: dict[str, Any]) -> bool:
    """Whether the reported protocol has no correlations, since scores or points are constant."""
    metrics = result["metrics"][result["reported"]]
    return "srcc" in metrics and metrics["srcc"] is None


def shown(value: float | None) -> str:
    return "  nan" if value is None else f"{value:.4f}"
