"""What is checked of a configuration before any data is read: every setting, and whether they go together."""

import inspect
import math
import pkgutil
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from pamfn.config.problems import sentences
from pamfn.config.schema import NAME, NO_NAME, Config, Protocol
from pamfn.config.targets import is_ours, problems_of_node, target
from pamfn.errors import InputError

SOLVED, BAGS = "pamfn.models.network.SolvedNetwork", "pamfn.models.network.BagNetwork"
"""Bases of networks that are fitted without epochs, and that learn from bags; by name, since they import torch."""

OTHER_TASK = ", which methods that score whole videos need: for highlights choose model=pamfn_clips, umt_clips, ..."


def resolved(raw: DictConfig | Mapping[str, Any]) -> Any:
    """Plain values of a composed configuration, interpolations replaced."""
    if not OmegaConf.is_config(raw):
        return raw
    try:
        return OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        problem = f"{error.full_key or 'config'}: {str(error).splitlines()[0]}"
        raise InputError(problem + (OTHER_TASK if "key 'data." in problem else "")) from error


def parsed(plain: Any) -> Config:
    """The typed configuration; arguments of `_target_`s are not checked, since that imports their classes.

    Raises:
        InputError: with one sentence for every misspelt key, wrong type and impossible choice.
    """
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise InputError(sentences(error, Config)) from error
    problems = [*problems_of_numbers(plain), *problems_of_choices(config)]
    if problems:
        raise InputError(problems)
    return config


def checked(raw: DictConfig | Mapping[str, Any], trusted: Collection[str] | None = None) -> Config:
    """The typed configuration, with everything checked.

    Classes of other packages are imported only when nothing else is wrong. trusted: the packages besides this one that
    may be imported, as for the configuration of a run folder; None for any.

    Raises:
        InputError: with one sentence for every misspelt key, wrong type and impossible choice.
    """
    plain = resolved(raw)
    nodes = {place: plain[place] for place in ("data", "model", "trainer") if isinstance(plain.get(place), dict)}
    problems = [p for place, node in nodes.items() if is_ours(node) for p in problems_of_node(node, place, trusted)]
    try:
        config = parsed(plain)
    except InputError as error:
        places = {problem.partition(": ")[0] for problem in problems}
        once = [problem for problem in error.problems if problem.partition(": ")[0] not in places]
        raise InputError([*once, *problems]) from error
    others = {place: node for place, node in nodes.items() if not is_ours(node)}
    if not problems:
        problems = [p for place, node in others.items() for p in problems_of_node(node, place, trusted)]
    if not (problems and others):
        problems += problems_of_classes(config)
    if problems:
        raise InputError(problems)
    return config


def problems_of_numbers(value: Any, place: str = "") -> list[str]:
    """A sentence for every number that is not finite: JSON would store it as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return [f"{place}: expected a finite number, found {value}."]
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, part in parts for p in problems_of_numbers(part, f"{place}.{key}".lstrip("."))]


def problems_of_classes(config: Config) -> list[str]:
    """A sentence for every setting that does not go with the classes of data and model."""
    try:
        network, data = target(config.model, "model"), target(config.data, "data")
    except InputError:
        return []  # said by `problems_of_node`
    arguments = inspect.signature(network).parameters
    if "branches" in arguments and not isinstance(config.model.get("branch"), dict):
        return ["model.branch: needs a _target_, the class to build, e.g. pamfn.models.ModalityBranch."]
    if "widths" in arguments and not config.is_baseline:
        return ["model.branch: no such setting; this model has no branches."]
    baseline = config.recipe.baseline
    if "widths" in arguments and baseline is None and not issubclass(network, pkgutil.resolve_name(SOLVED)):
        return ["recipe.baseline: missing; choose one, e.g. recipe/baseline=gdlt."]
    name, branch = config.data.get("name"), config.model.get("branch") or {}
    per_segment = config.model.get("per_segment") or branch.get("per_segment") or network.per_segment
    problems = []
    if config.protocol.folds is not None and "folds" not in inspect.signature(data).parameters:
        problems.append(f"protocol.folds: {data.__name__} has its own test videos: choose another protocol.")
    if data.predicts == "score":
        if per_segment:
            problems.append(f"model: scores every segment, and {name} has one score a video: choose e.g. model=pamfn.")
        problems += [
            f"recipe.{stage}.batch_size: 1 cannot be trained with BatchNorm over videos: choose 2 or more."
            for stage in (("baseline",) if config.is_baseline else ("branch", "fusion"))
            if (recipe := getattr(config.recipe, stage)) and recipe.batch_size == 1
        ]
    elif not per_segment:
        problems.append(
            f"model: scores whole videos, and {name} wants its clips scored: choose e.g. model=pamfn_clips."
        )
    else:
        if config.is_baseline and baseline and baseline.crop is not None:
            problems.append("recipe.baseline.crop: clips are not cropped: choose null.")
        from_bags, bags = issubclass(network, pkgutil.resolve_name(BAGS)), bool(config.data.get("bags"))
        if from_bags and not bags:
            problems.append("data.bags: this model learns from bags: choose e.g. 60.")
        elif bags and not from_bags:
            problems.append("data.bags: this model learns from clips: leave it out.")
    return problems


def problems_of_protocol(protocol: Protocol) -> list[str]:
    """A sentence for all settings of the protocol that do not go together."""
    problems, held_out = [], protocol.holdout > 0
    if (protocol.select == "holdout" and not held_out) or (protocol.select == "test" and held_out):
        problems.append(
            f"protocol.holdout: {protocol.holdout:g} does not go with protocol.select={protocol.select}; choose "
            "protocol=paper (0) or protocol=holdout (above 0)."
        )
    if protocol.refit and protocol.select != "holdout":
        problems.append("protocol.refit: only protocol=holdout has something to refit.")
    if protocol.folds is not None and protocol.fold is None:
        problems.append("protocol.fold: missing. Folds are a sweep: add -m for all of them, or choose one, e.g. 0.")
    elif protocol.folds is None and protocol.fold is not None:
        problems.append(f"protocol.fold: {protocol.fold}, and there are no folds. Choose protocol=folds.")
    elif isinstance(protocol.folds, int) and protocol.fold is not None and protocol.fold >= protocol.folds:
        problems.append(f"protocol.fold: {protocol.fold} is none of the {protocol.folds} folds, which begin with 0.")
    return problems


def problems_of_choices(config: Config) -> list[str]:
    """A sentence for all settings that are valid one by one but not together."""
    problems = []
    offered, chosen = ", ".join(config.features), ", ".join(config.streams)
    if unknown := [m for m in config.modalities or [] if m not in config.features]:
        problems.append(f"modalities: {', '.join(unknown)} not among this data set's modalities: {offered}.")
    elif not config.streams:
        problems.append(f"modalities: choose at least one of {offered}.")
    if config.main is not None and config.main not in config.features:
        problems.append(f"main: {config.main} not among this data set's streams: {offered}.")
    finetune = config.model.get("finetune")
    if isinstance(finetune, list) and (unknown := [str(m) for m in finetune if m not in config.features]):
        problems.append(f"model.finetune: {', '.join(unknown)} not among the modalities: {offered}.")
    if unknown := [m for m in config.available or [] if m not in config.streams]:
        problems.append(f"available: {', '.join(unknown)} not among the chosen modalities: {chosen}.")
    elif config.available is not None and config.is_baseline:
        problems.append("available: takes a network of branches, e.g. model=pamfn.")
    elif config.available == [] or (config.available and len(config.streams) == 1):
        problems.append(f"available: choose at least one of {chosen}; it takes a network of several modalities.")
    if config.recipe.stages == 1 and finetune is not None:
        problems.append("recipe.stages: 1 trains the branches with the rest; say so with model.finetune=null.")
    problems += problems_of_protocol(config.protocol)
    if config.compile and "crop" not in config.data:
        problems.append(
            f"compile: {config.data.get('name')} is trained on whole videos, and nearly every step would be of a "
            "length that was not compiled for: leave it out."
        )
    for key in ("name", "dataset"):
        text = config.data.get(key)
        if isinstance(text, str) and not NAME.fullmatch(text):
            problems.append(f"data.{key}: {NO_NAME}, found {text!r}.")
    precision = str(config.trainer.get("precision", "32"))
    if precision in ("16", "16-mixed", "16-true"):
        problems.append("trainer.precision: float16 would need scaled losses; choose 32-true or bf16-mixed.")
    elif precision in ("bf16", "bf16-true", "transformer-engine"):
        problems.append("trainer.precision: weights in bfloat16 would lose small steps; choose 32-true or bf16-mixed.")
    elif precision not in ("32", "32-true", "bf16-mixed"):
        problems.append(
            f"trainer.precision: found {config.trainer['precision']!r}; networks here are trained in 32-true (features "
            "are float32 at most) or bf16-mixed."
        )
    if config.trainer.get("devices", 1) != 1:
        problems.append("trainer.devices: networks of this size train on one device; run jobs side by side instead.")
    return problems
