"""Finding runs by what decides their numbers, and reading the finished ones. Nothing here imports torch."""

import logging
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pamfn.config.compose import EXPERIMENTS
from pamfn.config.schema import Config
from pamfn.data.checksums import present_checksums
from pamfn.errors import InputError
from pamfn.runs.fingerprint import baseline_identity, branch_identity, evaluation_identity, fingerprint, fusion_identity
from pamfn.runs.folder import Run, find
from pamfn.runs.result import Kind

log = logging.getLogger(__name__)

ARCHIVE = EXPERIMENTS / "results" / "runs"
"""Finished runs that are kept with the code, without their weights."""


def wanted(config: Config) -> tuple[Kind, list[str]]:
    """What the job asks for: with one modality its branch alone, else the fused network; or a compared method."""
    modalities = list(config.streams)
    if config.is_baseline:
        return "baseline", modalities
    if config.available is not None and set(config.available) != set(modalities):
        return "missing", modalities
    return ("branch" if len(modalities) == 1 else "fusion"), modalities


def locate(config: Config, kind: Kind, modalities: list[str], folder: Path | None = None) -> Run:
    """Where the run of a network is, or will be, below `folder` (default: the configured output)."""
    if kind == "branch":
        identity = branch_identity(config, modalities[0])
    else:
        identities = {"fusion": fusion_identity, "missing": evaluation_identity, "baseline": baseline_identity}
        identity = identities[kind](config)
    label = f"{config.data.get('name')}-{'_'.join(modalities)}-seed{config.seed}"
    if kind == "baseline":
        label = f"{str(config.model['_target_']).rpartition('.')[2].lower()}-{label}"
    return find(folder or Path(config.paths.output_dir), kind, label, fingerprint(identity))


def finished(config: Config) -> Run | None:
    """The finished run that answers the job, or None.

    A job of a table is also answered by the archive, where its data are those that are there now; any other may want
    the weights, which are not kept there.
    """
    run = locate(config, *wanted(config))
    result = run.result()
    if result is not None:
        refuse_changed_data(config, run, result)
        return run
    if config.table:
        run = locate(config, *wanted(config), ARCHIVE)
        result = run.result()
        if result is not None:
            changed = changed_data(config, result)
            if not changed:
                return run
            tell_of_archived(tuple(changed))
    return None


@cache
def tell_of_archived(changed: tuple[str, ...]) -> None:
    """Once for the same files."""
    log.warning("archived runs are not used where they were trained on another %s", ", ".join(changed))


def every_run(output_dir: Path) -> list[Run]:
    """All runs below an output folder and in the archive; one that is in both is taken from the former."""
    files = [*sorted(output_dir.glob("*/*/result.json")), *sorted(ARCHIVE.glob("*/*/result.json"))]
    return list({file.parent.name: Run(file.parent) for file in reversed(files)}.values())[::-1]


def readable(runs: list[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
    """The runs whose result can be read, with it; the others are told of and left out."""
    for run in runs:
        try:
            result = run.result()
        except InputError as error:
            log.warning("left out: %s", error)
            continue
        if result is not None:
            yield run, result


def changed_data(config: Config, result: dict[str, Any]) -> list[str]:
    """The files that are there now and are not those that a run was trained on."""
    features = {m: config.features[m].model_dump() for m in result["modalities"]}
    present = present_checksums(Path(config.paths.data_dir), config.data, features)
    return [name for name, checksum in result["data_files"].items() if present.get(name, checksum) != checksum]


def refuse_changed_data(config: Config, run: Run, result: dict[str, Any]) -> None:
    """A finished run must have been trained on the files that are there now (if any are)."""
    changed = changed_data(config, result)
    if changed:
        raise InputError(
            f"{run.path} was trained on other data: {', '.join(changed)} changed since. "
            "Remove that folder to train again, or choose another paths.output_dir."
        )
