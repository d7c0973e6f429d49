"""The name of a run: a fingerprint of everything that decides its numbers, and not of where code lives."""

import hashlib
import json
from typing import Any

from pamfn.config.schema import Config, Node
from pamfn.config.targets import OLD_NAMES

ADDED = {"threads": 1, "folds": None, "fold": None}
"""{a setting added later: the value with which runs are as before it}: with that value it is no part of a name."""


def branch_identity(config: Config, modality: str) -> Node:
    """Everything that decides the numbers of a branch."""
    return {
        "data": config.data,
        "features": {modality: config.features[modality].model_dump()},
        "model": config.model["branch"],
        "recipe": config.recipe.branch.model_dump(),
        **shared_identity(config),
    }


def fusion_identity(config: Config) -> Node:
    """Everything that decides the numbers of the fused network, branches included."""
    return {
        "data": config.data,
        "features": [[m, s.model_dump()] for m, s in config.streams.items()],
        "model": config.model,
        "recipe": config.recipe.model_dump(exclude={"readings", "baseline"}),
        **shared_identity(config),
    }


def baseline_identity(config: Config) -> Node:
    """Everything that decides the numbers of a compared method."""
    recipe = config.recipe.baseline
    return {**fusion_identity(config), "recipe": None if recipe is None else recipe.model_dump()}


def evaluation_identity(config: Config) -> Node:
    """Everything that decides the scores of the fused network with some modalities missing."""
    return {**fusion_identity(config), "available": sorted(config.available or [])}


def shared_identity(config: Config) -> Node:
    """The part of an identity that all kinds of runs have."""
    return {
        "protocol": config.protocol.model_dump(),
        "seed": config.seed,
        "precision": str(config.trainer.get("precision", "32-true")),
        "threads": config.threads,  # sums in another order: other last digits
    }


def fingerprint(identity: Node) -> str:
    """Ten characters of the hash of an identity, which end a run's name."""
    return hashlib.sha256(json.dumps(as_before(identity), sort_keys=True).encode()).hexdigest()[:10]


def as_before(value: Any) -> Any:
    """An identity as the first runs had it: with the old names of classes, without settings added since."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key not in ADDED or part != ADDED[key]}
        return {key: OLD_NAMES.get(part, part) if key == "_target_" else as_before(part) for key, part in kept.items()}
    return [as_before(part) for part in value] if isinstance(value, list | tuple) else value
