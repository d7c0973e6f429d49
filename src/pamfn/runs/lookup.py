"""Find runs by what decides their numbers, and read the finished ones. Nothing here imports torch."""

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
    """The kind of network that a job asks for (with one modality its branch alone), and its modalities."""
    modalities = list(config.streams)
    if config.is_baseline:
        return "baseline", modalities
    if config.available is not None and set(config.available) != set(modalities):
        return "missing", modalities
    return ("branch" if len(modalities) == 1 else "fusion"), modalities


def locate(config: Config, kind: Kind, modalities: list[str], folder: Path | None = None) -> Run:
    """The run of a network, trained or not, below `folder` (default: the configured output)."""
    if kind == "branch":
        identity = branch_identity(config, modalities[0])
    else:
        identities = {"fusion": fusion_identity, "missing": evaluation_identity, "baseline": baseline_identity}
        identity = identities[kind](config)
    label = f"{config.data.get('name')}-{'_'.join(modalities)}-seed{config.seed}"
    label += "" if config.protocol.fold is None else f"-fold{config.protocol.fold}"
    if kind == "baseline":
        label = f"{str(config.model['_target_']).rpartition('.')[2].lower()}-{label}"
    return find(folder or Path(config.paths.output_dir), kind, label, fingerprint(identity))


def finished(config: Config) -> Run | None:
    """The finished run of a job, or None.

    A table's job also takes an archived run, if the data are still those it was trained on. Any other job may want the
    weights, which are not archived.
    """
    run = locate(config, *wanted(config))
    if (result := run.result()) is not None:
        refuse_changed_data(config, run, result)
        return run
    archived = locate(config, *wanted(config), ARCHIVE)
    if not config.table or (result := archived.result()) is None:
        return None
    if changed := changed_data(config, result):
        warn_of_archived(tuple(changed))
        return None
    return archived


@cache
def warn_of_archived(changed: tuple[str, ...]) -> None:
    """Warns once for the same files."""
    log.warning("archived runs are not used where they were trained on another %s", ", ".join(changed))


def every_run(output_dir: Path) -> list[Run]:
    """All runs below an output folder and in the archive; of a run in both, the former."""
    files = [*sorted(output_dir.glob("*/*/result.json")), *sorted(ARCHIVE.glob("*/*/result.json"))]
    return list({file.parent.name: Run(file.parent) for file in reversed(files)}.values())[::-1]


def readable(runs: list[Run]) -> Iterator[tuple[Run, dict[str, Any]]]:
    """Pair runs with their results; warn of those that cannot be read, and leave them out."""
    for run in runs:
        try:
            result = run.result()
        except InputError as error:
            log.warning("left out: %s", error)
            continue
        if result is not None:
            yield run, result


def changed_data(config: Config, result: dict[str, Any]) -> list[str]:
    """The data files that changed since a run was trained on them."""
    features = {m: config.features[m].model_dump() for m in result["modalities"]}
    present = present_checksums(Path(config.paths.data_dir), config.data, features, config.protocol.folds)
    return [name for name, checksum in result["data_files"].items() if present.get(name, checksum) != checksum]


def refuse_changed_data(config: Config, run: Run, result: dict[str, Any]) -> None:
    """Refuses a finished run whose data files changed since; files may be missing."""
    if changed := changed_data(config, result):
        raise InputError(
            f"{run.path} was trained on other data: {', '.join(changed)} changed since. "
            "Remove that folder to train again, or choose another paths.output_dir."
        )
