"""Score a finished run's videos again and compare with what it stored."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from pamfn.config.schema import Config
from pamfn.evaluation.selection import weights_by_rule
from pamfn.pipeline.build import data_module
from pamfn.pipeline.reload import configuration, quiet, refuse_no_split, scored, with_weights
from pamfn.runs.lookup import changed_data
from pamfn.training.tasks import task_of

TOLERANCE = 1e-5
"""How far a metric may be from the stored one; the summation order of another machine changes the last digits."""


def evaluate(
    run: Path,
    split: str,
    weights: str,
    data_dir: str | None,
    decoding: str | None,
    samples: int | None,
    trust: Sequence[str] = (),
) -> list[str]:
    """Prints the metrics beside the stored ones, and returns the names of those that differ."""
    result = with_weights(run)
    settings = configuration(result, data_dir, decoding, samples, trust)
    metrics = rescored(settings, run, split, weights)
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


def rescored(settings: Config, folder: Path, split: str, weights: str) -> dict[str, float]:
    """Metrics of a split under stored weights."""
    quiet()
    torch.set_num_threads(settings.threads)
    data = data_module(settings)
    refuse_no_split(data, split)
    return task_of(data).compute_metrics(scored(settings, folder, weights, data, split))


def stored_metrics(
    result: dict[str, Any], split: str, weights: str, *, unchanged: bool
) -> dict[str, float | None] | None:
    """What result.json says of the same predictions, if it says anything."""
    if split != "test" or not unchanged:
        return None
    rules = {stored: rule for rule, stored in weights_by_rule(result["reported"]).items()}
    return result["metrics"][rules[weights]]
