"""Score a finished run's videos again and compare with what it stored."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pamfn.config.schema import Config
from pamfn.errors import InputError
from pamfn.evaluation.conformal import coverage, split_conformal, within
from pamfn.evaluation.selection import weights_by_rule
from pamfn.pipeline.build import data_module
from pamfn.pipeline.ensemble import runs_of
from pamfn.pipeline.member import Weights
from pamfn.pipeline.model import load, samples_of_split
from pamfn.pipeline.prediction import LEVELS
from pamfn.pipeline.reload import configuration, quiet, refuse_no_split, scored, with_weights
from pamfn.runs.held_out import held_out_of
from pamfn.runs.lookup import changed_data
from pamfn.training.tasks import SplitPredictions, task_of

TOLERANCE = 1e-5
"""How far a metric may be from the stored one; the summation order of another machine changes the last digits."""


def evaluate(
    runs: Path | Sequence[Path],
    split: str,
    weights: Weights,
    data_dir: str | None,
    decoding: str | None,
    samples: int | None,
    trust: Sequence[str] = (),
) -> list[str]:
    """Prints the metrics beside the stored ones, and returns the names of those that differ.

    runs: one finished run; of several, or of an ensemble's file, the mean is evaluated, of which nothing is stored

    Raises:
        InputError: when they cannot be scored.
    """
    folders = runs_of([runs] if isinstance(runs, Path) else list(runs))
    if len(folders) > 1:
        if decoding is not None or samples is not None:
            raise InputError("--decoding and --samples: for one run at a time.")
        evaluate_mean(folders, split, weights, data_dir, trust)
        return []
    run = folders[0]
    result = with_weights(run)
    settings = configuration(result, data_dir, decoding, samples, trust)
    metrics, predictions = rescored(settings, run, split, weights)
    stored = stored_metrics(result, split, weights, unchanged=decoding is None and samples is None)
    print(f"{result['name']}, {'+'.join(result['modalities'])}, seed {result['seed']}: {split}, {weights} weights")
    different = []
    for name, value in metrics.items():
        beside = ""
        if stored and name in stored:
            known = stored[name]
            beside = f"   stored {math.nan if known is None else known:.6f}"
            if not same(value, known):
                different.append(name)
                beside += "   DIFFERENT"
        print(f"  {name:<8} {value:.6f}{beside}")
    if split == "test" and (held := held_out_of(run).get("last")):
        residuals = held.true - held.predicted
        most = float(settings.data["max_score"])
        limits = [
            {level: within(each, x, most) for level in LEVELS if (each := split_conformal(x, residuals, level))}
            for x in predictions.predicted
        ]
        print_coverage(predictions.true, limits)
    if different:
        print(f"{', '.join(different)} differ from what {run / 'result.json'} says.")
        if changed := changed_data(settings, result):
            print(f"The data are others than the run was scored on: {', '.join(changed)} changed since.")
    return different


def same(value: float, known: float | None) -> bool:
    """Whether a metric is the stored one; result.json holds null for nan and infinity."""
    if known is None:
        return not math.isfinite(value)
    return abs(value - known) <= TOLERANCE * max(1, abs(known))


def evaluate_mean(
    folders: Sequence[Path], split: str, weights: Weights, data_dir: str | None, trust: Sequence[str]
) -> None:
    """Prints the metrics of the mean of several runs, and how often its intervals cover."""
    model = load(folders, weights, data_dir, trust)
    samples = list(samples_of_split(model, split).values())
    predictions = [model.explain(sample, parts=False).prediction for sample in samples]
    if model.finds_highlights:
        raise InputError("the mean of several highlight runs: use `python -m pamfn.predict`; one is evaluated alone.")
    true = model.data.splits[split].points.tolist()
    points, spread = [each.points for each in predictions], [each.spread for each in predictions]
    videos = SplitPredictions([sample.name for sample in samples], true, points, spread, [1] * len(points))
    print(f"{model.data.task}, mean of {len(folders)} networks ({'+'.join(model.streams)}): {split}, {weights} weights")
    for name, value in task_of(model.data).compute_metrics(videos).items():
        print(f"  {name:<8} {value:.6f}")
    if split == "test":
        print_coverage(true, [each.intervals for each in predictions])


def print_coverage(true: Sequence[float], limits: Sequence[Mapping[float, tuple[float, float]]]) -> None:
    """Prints which share of videos lies in their prediction intervals, with the uncertainty of that share."""
    for level in LEVELS:
        known = [(points, interval) for points, each in zip(true, limits, strict=True) if (interval := each.get(level))]
        if known:
            inside = sum(low <= points <= high for points, (low, high) in known)
            share, least, most = coverage(inside, len(known))
            width = sum(high - low for _, (low, high) in known) / len(known)
            print(
                f"  intervals at {level:.0%}, {width:.2f} points wide, cover {inside} of {len(known)} videos: "
                f"{share:.2f} [{least:.2f}, {most:.2f}]"
            )


def rescored(settings: Config, folder: Path, split: str, weights: str) -> tuple[dict[str, float], SplitPredictions]:
    """Metrics and predictions of a split under stored weights."""
    quiet()
    torch.set_num_threads(settings.threads)
    data = data_module(settings)
    refuse_no_split(data, split)
    predictions = scored(settings, folder, weights, data, split)
    return task_of(data).compute_metrics(predictions), predictions


def stored_metrics(
    result: dict[str, Any], split: str, weights: str, *, unchanged: bool
) -> dict[str, float | None] | None:
    """What result.json says of the same predictions, if it says anything."""
    if split != "test" or not unchanged:
        return None
    rules = {stored: rule for rule, stored in weights_by_rule(result["reported"]).items()}
    return result["metrics"][rules[weights]]
