"""Finding runs by what decides their numbers, and reading the finished ones. Nothing here imports torch."""

from pathlib import Path
from typing import Any, Literal

from pamfn.config import Config, branch_identity, fingerprint, fusion_identity
from pamfn.data.identity import present_checksums
from pamfn.errors import InputError
from pamfn.store import Run, find

Kind = Literal["branch", "fusion"]


def wanted(config: Config) -> tuple[Kind, list[str]]:
    """What the job asks for: with one modality its branch alone, else the fused network."""
    modalities = list(config.streams)
    return ("branch" if len(modalities) == 1 else "fusion"), modalities


def locate(config: Config, kind: Kind, modalities: list[str]) -> Run:
    """Where the run of a network is, or will be."""
    identity = branch_identity(config, modalities[0]) if kind == "branch" else fusion_identity(config)
    label = f"{config.data.get('name')}-{'_'.join(modalities)}-seed{config.seed}"
    return find(Path(config.paths.output_dir), kind, label, fingerprint(identity))


def finished(config: Config) -> Run | None:
    """The finished run that answers the job; None if there is none, or one whose settings were checked differently."""
    run = locate(config, *wanted(config))
    result = run.result()
    if result is None or result["config"]["trainer"] != config.trainer:
        return None
    refuse_changed_data(config, run, result)
    return run


def refuse_changed_data(config: Config, run: Run, result: dict[str, Any]) -> None:
    """A finished run must have been trained on the files that are there now (if any are)."""
    features = {m: config.features[m].model_dump() for m in result["modalities"]}
    present = present_checksums(Path(config.paths.data_dir), config.data, features)
    changed = [name for name, checksum in result["data_files"].items() if present.get(name, checksum) != checksum]
    if changed:
        raise InputError(
            f"{run.path} was trained on other data: {', '.join(changed)} changed since. "
            "Remove that folder to train again, or choose another paths.output_dir."
        )
