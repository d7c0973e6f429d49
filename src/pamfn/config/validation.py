"""Whether model, recipe and data go together, which takes their classes: checked before any data is read."""

import inspect
import math
import pkgutil
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from pamfn.config.schema import Config, problem_of_label
from pamfn.config.targets import is_ours, problems_of_node, target, told
from pamfn.errors import InputError

SOLVED, BAGS = "pamfn.models.network.SolvedNetwork", "pamfn.models.network.BagNetwork"
"""The bases of networks that are fitted without epochs, and that learn from bags; named, since they bring torch."""


def problems_of_model(plain: Any) -> list[str]:
    """A model on branches needs their node; one without them a recipe, unless it can be solved."""
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
    trained = "widths" in takes and not issubclass(found, pkgutil.resolve_name(SOLVED))
    if trained and isinstance(recipe, dict) and recipe.get("baseline") is None:
        return ["recipe.baseline: missing; choose one, e.g. recipe/baseline=gdlt."]
    return []


def problems_of_task(plain: Any) -> list[str]:
    """A network that scores videos cannot find highlights, nor the other way round."""
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
    weak = issubclass(network, pkgutil.resolve_name(BAGS))
    if weak != bool(data.get("bags")):
        told = "this model learns from bags: choose e.g. 60." if weak else "this model learns from clips: leave it out."
        problems.append(f"data.bags: {told}")
    return problems


PRECISIONS = ("32", "32-true", "bf16-mixed")


OTHER_TASK = ", which methods that score whole videos need: for highlights choose model=pamfn_clips, umt_clips, ..."


def resolved(raw: DictConfig | Mapping[str, Any]) -> Any:
    """Plain values of a composed configuration, interpolations replaced."""
    if not OmegaConf.is_config(raw):
        return raw
    try:
        return OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        said = f"{error.full_key or 'config'}: {str(error).splitlines()[0]}"
        raise InputError(said + (OTHER_TASK if "key 'data." in said else "")) from error


def parsed(plain: Any) -> Config:
    """The configuration, typed, but for the arguments of the `_target_`s, which need their classes imported.

    Raises:
        InputError: with one sentence for every misspelt key, wrong type and impossible choice.
    """
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise InputError(told(error, Config, "")) from error
    problems = [*problems_of_numbers(plain), *impossible(config)]
    if problems:
        raise InputError(problems)
    return config


def checked(raw: DictConfig | Mapping[str, Any], trusted: Collection[str] | None = None) -> Config:
    """The configuration, typed throughout.

    Classes of other packages are imported after everything else was found right; with `trusted`, as for what comes
    with a run folder, of these packages alone.

    Raises:
        InputError: with one sentence for every misspelt key, wrong type and impossible choice.
    """
    plain = resolved(raw)
    nodes = {place: plain.get(place) for place in ("data", "model", "trainer")}
    classes = {place: node for place, node in nodes.items() if isinstance(node, dict)}
    ours = all(map(is_ours, classes.values()))
    problems = [p for place, node in classes.items() if is_ours(node) for p in problems_of_node(node, place, trusted)]
    if ours:
        problems += problems_of_model(plain) + problems_of_task(plain)
    try:
        config = parsed(plain)
    except InputError as error:
        places = {problem.partition(": ")[0] for problem in problems}
        once = [problem for problem in error.problems if problem.partition(": ")[0] not in places]
        raise InputError([*once, *problems]) from error
    if not problems and not ours:
        problems = [p for place, node in classes.items() for p in problems_of_node(node, place, trusted)]
        problems = problems or [*problems_of_model(plain), *problems_of_task(plain)]
    if problems:
        raise InputError(problems)
    return config


def problems_of_numbers(value: Any, place: str = "") -> list[str]:
    """A sentence for every number that is not finite: it could be stored as null only, and never read again."""
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{place}: expected a finite number, found {value}."]
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, part in parts for p in problems_of_numbers(part, f"{place}.{key}".lstrip("."))]


def impossible(config: Config) -> list[str]:
    """Choices that are valid one by one but not together."""
    problems = []
    offered, chosen = ", ".join(config.features), ", ".join(config.streams)
    unknown = [m for m in config.modalities or [] if m not in config.features]
    if unknown:
        problems.append(f"modalities: {', '.join(unknown)} not among this data set's modalities: {offered}.")
    elif not config.streams:
        problems.append(f"modalities: choose at least one of {offered}.")
    finetune = config.model.get("finetune")
    strangers = [m for m in finetune if m not in config.features] if isinstance(finetune, list) else []
    if strangers:
        problems.append(f"model.finetune: {', '.join(map(str, strangers))} not among the modalities: {offered}.")
    missing = [m for m in config.available or [] if m not in config.streams]
    if missing:
        problems.append(f"available: {', '.join(missing)} not among the chosen modalities: {chosen}.")
    elif config.available is not None and config.is_baseline:
        problems.append("available: takes a network of branches, e.g. model=pamfn.")
    elif config.available == [] or (config.available and len(config.streams) == 1):
        problems.append(f"available: choose at least one of {chosen}; it takes a network of several modalities.")
    if config.recipe.stages == 1 and finetune is not None:
        problems.append("recipe.stages: 1 trains the branches with the rest; say so with model.finetune=null.")
    if (config.protocol.select == "holdout") != (config.protocol.holdout > 0):
        problems.append(
            f"protocol.holdout: {config.protocol.holdout:g} does not go with protocol.select="
            f"{config.protocol.select}; choose protocol=paper (0) or protocol=holdout (above 0)."
        )
    if config.protocol.refit and config.protocol.select != "holdout":
        problems.append("protocol.refit: only protocol=holdout has something to refit.")
    if config.compile and "crop" not in config.data:
        problems.append(
            f"compile: {config.data.get('name')} is trained on whole videos, and nearly every step would be of a "
            "length that was not compiled for: leave it out."
        )
    problems += [
        f"data.{key}: {error}, found {config.data[key]!r}."
        for key in ("name", "dataset")
        if isinstance(config.data.get(key), str) and (error := problem_of_label(config.data[key]))
    ]
    if str(config.trainer.get("precision")) in ("16", "16-mixed", "16-true"):
        problems.append("trainer.precision: float16 would need scaled losses; choose 32-true or bf16-mixed.")
    elif str(config.trainer.get("precision")) in ("bf16", "bf16-true", "transformer-engine"):
        problems.append("trainer.precision: weights in bfloat16 would lose small steps; choose 32-true or bf16-mixed.")
    elif str(config.trainer.get("precision", "32")) not in PRECISIONS:
        problems.append(
            f"trainer.precision: found {config.trainer['precision']!r}; networks here are trained in 32-true (features "
            "are float32 at most) or bf16-mixed."
        )
    if config.trainer.get("devices", 1) != 1:
        problems.append("trainer.devices: networks of this size train on one device; run jobs side by side instead.")
    return problems
