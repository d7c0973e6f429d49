"""`python -m pamfn.evaluate RUN`: scores a finished run's videos again from its stored weights."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pamfn.config.compose import checked, refuse, register
from pamfn.config.schema import Config
from pamfn.errors import InputError
from pamfn.evaluation.selection import weights_by_rule
from pamfn.runs.folder import Run
from pamfn.runs.lookup import changed_data

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-5
"""How far a metric may be from the stored one; the summation order of another machine changes the last digits."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pamfn.evaluate", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--split", choices=["test", "holdout", "train"], default="test")
    parser.add_argument("--weights", choices=["selected", "last"], default="selected")
    parser.add_argument("--data-dir", help="where the data is now (default: where the run read it)")
    parser.add_argument("--decoding", choices=["argmax", "sample", "mean"], help="another decision rule than the run's")
    parser.add_argument("--samples", type=int, help="how many samples the decoding `mean` averages")
    add_trust(parser)
    arguments = parser.parse_args()
    register()
    try:
        different = evaluate(**vars(arguments))
    except InputError as error:
        refuse(error)
    raise SystemExit(1 if different else 0)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """The option that lets a run's classes come from other packages."""
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="import classes that the run names from this package too, which runs its code; may be repeated",
    )


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
        told = ""
        if stored and name in stored:
            known = stored[name]
            told = f"   stored {math.nan if known is None else known:.6f}"
            if not same(value, known):
                different.append(name)
                told += "   DIFFERENT"
        print(f"  {name:<8} {value:.6f}{told}")
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


def with_weights(folder: Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
        InputError: when it is not finished, or has no weights of its own.
    """
    run = Run(folder)
    result = run.finished()
    if result["kind"] == "missing":
        raise InputError(
            f"{folder} is a network scored with modalities missing, without weights of its own. "
            f"Give the network's folder: {result['network']}."
        )
    if not run.file("selected.safetensors").exists():
        raise InputError(f"{folder} has no weights (archived runs keep none). Train it again to score with it.")
    return result


def configuration(
    result: dict[str, Any], data_dir: str | None, decoding: str | None, samples: int | None, trust: Sequence[str] = ()
) -> Config:
    """The run's own configuration, with what was asked to be different.

    trust: packages besides this one that the run's classes may come from.

    Raises:
        InputError: when the run's network cannot be scored that way, or names code that is not trusted.
    """
    raw = dict(result["config"])
    raw["modalities"] = result["modalities"]
    if result["kind"] != "missing":  # trained for a job that then left modalities out
        raw["available"] = None
    if data_dir is not None:
        raw["paths"] = {**raw["paths"], "data_dir": data_dir}
    asked = {k: v for k, v in (("decoding", decoding), ("samples", samples)) if v is not None}
    if asked and result["kind"] in ("branch", "baseline"):
        raise InputError("--decoding and --samples: this network decides nothing; give a fused run.")
    raw["model"] = {**raw["model"], **asked}
    if samples is not None:
        refuse_samples(samples, raw["model"].get("decoding", "argmax"))
    return checked(raw, trust)


def load(run: Path | str, weights: Literal["selected", "last"] = "selected", trust: Sequence[str] = ()) -> "nn.Module":
    """Load the network of a finished run: on the CPU, in eval mode, as it was in the reported epoch or the last.

    run: its folder. trust: packages besides this one that the run's classes may come from, which runs their code.

    Raises:
        InputError: when there is no such run, it has no weights, or it names code that is not trusted.
    """
    from pamfn.pipeline.two_stage import load_network

    folder = Path(run)
    settings = configuration(with_weights(folder), None, None, None, trust)
    return load_network(settings, folder, weights).eval()


def refuse_samples(samples: int, decoding: str) -> None:
    """A number of samples that cannot be averaged, or that nothing averages."""
    if samples < 1:
        raise InputError(f"--samples {samples}: the mean of no scores is none. Give 1 or more.")
    if decoding != "mean":
        raise InputError(
            f"--samples {samples}: decoding={decoding} averages no samples. Add --decoding mean, or leave it out."
        )


def rescored(settings: Config, folder: Path, split: str, weights: str) -> dict[str, float]:
    """Metrics of a split under stored weights."""
    import torch

    from pamfn.pipeline.two_stage import data_module, quiet, refuse_no_split, scored
    from pamfn.training.tasks import task_of

    quiet()
    torch.set_num_threads(settings.threads)
    data = data_module(settings)
    refuse_no_split(data, split)
    points = scored(settings, folder, weights, data, split)
    return task_of(data).judge(data, split, points)


def stored_metrics(
    result: dict[str, Any], split: str, weights: str, *, unchanged: bool
) -> dict[str, float | None] | None:
    """What result.json says of the same predictions, if it says anything."""
    if split != "test" or not unchanged:
        return None
    rules = {stored: rule for rule, stored in weights_by_rule(result["reported"]).items()}
    return result["metrics"][rules[weights]]


if __name__ == "__main__":
    main()
