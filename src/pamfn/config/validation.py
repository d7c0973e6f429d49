"""Whether model, recipe and data go together, which takes their classes: checked before any data is read."""

import inspect
from typing import Any

from pamfn.config.targets import target
from pamfn.errors import InputError


def problems_of_model(plain: Any) -> list[str]:
    """A model on branches needs their node; one without them a recipe, unless it can be solved."""
    from pamfn.models.network import SolvedNetwork  # here, since it brings torch

    model = plain.get("model") if isinstance(plain, dict) else None
    try:
        found = target(model or {}, "model")
        takes = inspect.signature(found).parameters
    except (InputError, TypeError, ValueError):
        return []  # told elsewhere
    has_branch = isinstance(model, dict) and isinstance(model.get("branch"), dict)
    if "branches" in takes and not has_branch:
        return ["model.branch: needs a _target_, the class to build, e.g. pamfn.models.ModalityBranch."]
    if "widths" in takes and has_branch:
        return ["model.branch: no such setting; this model has no branches."]
    recipe = plain.get("recipe")
    trained = "widths" in takes and not issubclass(found, SolvedNetwork)
    if trained and isinstance(recipe, dict) and recipe.get("baseline") is None:
        return ["recipe.baseline: missing; choose one, e.g. recipe/baseline=gdlt."]
    return []


def problems_of_task(plain: Any) -> list[str]:
    """A network that scores videos cannot find highlights, nor the other way round."""
    from pamfn.models.network import BagNetwork

    try:
        data, model, recipe = plain["data"], plain["model"], plain["recipe"]
        network = target(model, "model")
        highlights = target(data, "data").predicts == "highlights"
        branch = model.get("branch") or {}
        stages = [name for name in (("branch", "fusion") if branch else ("baseline",)) if recipe.get(name)]
        single = [name for name in stages if recipe[name]["batch_size"] == 1]
        cropped = [name for name in stages if recipe[name].get("crop") is not None]
    except (InputError, AttributeError, KeyError, TypeError):
        return []  # told elsewhere
    name = data.get("name")
    per_segment = model.get("per_segment") or branch.get("per_segment") or network.per_segment
    if highlights and not per_segment:
        return [f"model: scores whole videos, and {name} wants its clips scored: choose e.g. model=pamfn_clips."]
    if not highlights:
        told = [f"model: scores every segment, and {name} has one score a video: choose e.g. model=pamfn."]
        alone = "1 cannot be trained with BatchNorm over videos: choose 2 or more."
        return [*(told if per_segment else []), *(f"recipe.{stage}.batch_size: {alone}" for stage in single)]
    problems = [f"recipe.{stage}.crop: clips are not cropped: choose null." for stage in cropped]
    weak = issubclass(network, BagNetwork)
    if weak != bool(data.get("bags")):
        told = "this model learns from bags: choose e.g. 60." if weak else "this model learns from clips: leave it out."
        problems.append(f"data.bags: {told}")
    return problems
