"""What names a run: a fingerprint of everything that decides its numbers."""

import hashlib
import json

from pamfn.schema import Config, Node


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
    return {
        "data": config.data,
        "features": [[m, s.model_dump()] for m, s in config.streams.items()],
        "model": config.model,
        "recipe": None if recipe is None else recipe.model_dump(),
        **shared_identity(config),
    }


def evaluation_identity(config: Config) -> Node:
    """Everything that decides the scores of the fused network with some modalities missing."""
    return {**fusion_identity(config), "available": sorted(config.available or [])}


def shared_identity(config: Config) -> Node:
    precision = config.trainer.get("precision", "32-true")
    threads = {} if config.threads == 1 else {"threads": config.threads}  # sums in another order: other last digits
    return {"protocol": config.protocol.model_dump(), "seed": config.seed, "precision": str(precision), **threads}


def fingerprint(identity: Node) -> str:
    """Ten characters that name a run."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]
