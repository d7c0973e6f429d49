"""The `_target_`s of the configuration: classes by name, checked against their signatures."""

import importlib.util
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from pamfn.config.problems import sentences
from pamfn.config.schema import Node
from pamfn.errors import InputError

INJECTED = {
    "data": {"features", "data_dir", "batch_size", "holdout", "min_segments", "seed", "folds", "fold"},
    "model": {"branches", "widths"},
    "model.branch": {"width"},
}
"""Arguments that the pipeline passes itself, by place of the `_target_`."""

OFFERED = {
    "trainer": {"accelerator", "devices", "precision", "benchmark", "deterministic", "detect_anomaly"},
}
"""Arguments that can be set where most cannot.

Those of Lightning's Trainer either do not change a run's numbers or are part of its name (precision). The pipeline
passes others itself; the rest would change the numbers under an unchanged name.
"""

BASES = {
    "data": "pamfn.data.base_datamodule.VideoDataModule",
    "model": "pamfn.models.Network",
    "model.branch": "pamfn.models.Network",
    "trainer": "lightning.Trainer",
    "extractor": "pamfn.extraction.extractor.Extractor",
}
"""The base that a class must have, by place of the `_target_`."""


def base_of(place: str) -> str:
    """The base for a place; one for all streams of `extractor`."""
    return BASES.get(place) or BASES[place.partition(".")[0]]


OLD_NAMES = {
    "pamfn.data.ScoreDataModule": "pamfn.data.module.ScoreDataModule",
    "pamfn.data.SyntheticDataModule": "pamfn.data.synthetic.SyntheticDataModule",
    "pamfn.data.YouTubeHighlightsDataModule": "pamfn.data.highlights.YouTubeHighlightsDataModule",
    "pamfn.extraction.HOFMBH": "pamfn.extraction.Motion",
    "pamfn.extraction.MFCC": "pamfn.extraction.Music",
}
"""{a class: its name when runs, or features, were first described by it}. A class that moves is added here."""

NEW_NAMES = {old: new for new, old in OLD_NAMES.items()}

OURS = "pamfn"
"""The package whose classes may always be imported."""


def is_ours(node: Any) -> bool:
    """Whether all classes of a node, nested ones too, are from this package or are Lightning's own Trainer."""
    if not isinstance(node, Mapping):
        return True
    name = str(node.get("_target_", OURS))
    return (name == BASES["trainer"] or package_of(name) == OURS) and all(map(is_ours, node.values()))


def package_of(name: str) -> str:
    return name.partition(".")[0]


def class_named(name: str) -> Any:
    return pkgutil.resolve_name(NEW_NAMES.get(name, name))


def target(node: Mapping[str, Any], place: str, trusted: Collection[str] | None = None) -> type[Any]:
    """The class of a node, a subclass of the base for its place.

    trusted: the packages besides this one that may be imported; None for any.

    Raises:
        InputError: when there is no such class, it has another base, or it would have to be imported from elsewhere.
    """
    name = node.get("_target_")
    if not isinstance(name, str):
        raise InputError(f"{place}: needs a _target_, the class to build, e.g. pamfn.models.PAMFN.")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        raise InputError(f"{place}._target_: {name!r} is no class. Name one with its module, e.g. pamfn.models.PAMFN.")
    refuse_stranger(name, package_of(name), place, trusted)
    try:
        cls = class_named(name)
    except Exception as error:  # a user's own module may raise anything
        raise InputError(f"{place}._target_: cannot import {name!r} ({error}).{hint_of_folder(name)}") from error
    if not callable(cls):
        raise InputError(
            f"{place}._target_: {name!r} is a {type(cls).__name__}, which builds nothing. "
            "Name a class, e.g. pamfn.models.PAMFN."
        )
    if not inspect.isclass(cls):
        raise InputError(f"{place}._target_: {name!r} is a {type(cls).__name__}, and no subclass of {base_of(place)}.")
    refuse_stranger(name, package_of(cls.__module__), place, trusted)  # one of ours may have imported it
    if not issubclass(cls, pkgutil.resolve_name(base_of(place))):
        raise InputError(f"{place}._target_: {name!r} is a class, and no subclass of {base_of(place)}.")
    return cls


def refuse_stranger(name: str, package: str, place: str, trusted: Collection[str] | None) -> None:
    """Refuses a class that would run code of another package, unless that is trusted: a run folder is only data."""
    if trusted is not None and name != BASES["trainer"] and package not in (OURS, *trusted):
        raise InputError(
            f"{place}._target_: this run asks for {name!r}, code of another package, which was not imported. If you "
            f"trust whoever made the run and that package: --trust {package}."
        )


def hint_of_folder(name: str) -> str:
    """A sentence for a module that is in the current folder, from where commands import nothing."""
    module = package_of(name)
    here = [path for path in (Path(f"{module}.py"), Path(module)) if path.exists()]
    if not here or importlib.util.find_spec(module):
        return ""
    return f" {here[0]} is in the current folder, from where nothing is imported unless PYTHONPATH=. says so."


def build(node: Mapping[str, Any], **injected: Any) -> Any:
    """Build the object of a checked node without its nested nodes, which the caller builds and injects."""
    arguments = {k: v for k, v in node.items() if k != "_target_" and not is_target(v)}
    return class_named(node["_target_"])(**arguments, **injected)


def is_target(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value


def signature_schema(build: Callable[..., Any], place: str) -> type[BaseModel]:
    """A schema of the arguments of a class that can be set at this place of the configuration."""
    injected, offered = INJECTED.get(place, set()), OFFERED.get(place)
    init = build.__init__ if inspect.isclass(build) else build
    hints = typing.get_type_hints(init, include_extras=True)  # with the ranges of numbers
    fields: dict[str, Any] = {}
    extra = "forbid"
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
            continue
        settable = name not in injected if offered is None else name in offered
        if settable and parameter.kind is not parameter.VAR_POSITIONAL:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
    config = ConfigDict(
        extra=extra, strict=True, allow_inf_nan=False, arbitrary_types_allowed=True, protected_namespaces=()
    )
    return create_model(build.__name__, __config__=config, **fields)


def problems_of_node(node: Node, place: str, trusted: Collection[str] | None = None) -> list[str]:
    """Check a node and its nested nodes: a sentence for every unknown, missing or wrongly typed argument."""
    try:
        schema = signature_schema(target(node, place, trusted), place)
    except InputError as error:
        return error.problems
    problems: list[str] = []
    try:
        schema.model_validate({k: v for k, v in node.items() if k != "_target_" and not is_target(v)})
    except ValidationError as error:
        problems += sentences(error, schema, place)
    for key, value in node.items():
        if is_target(value) and f"{place}.{key}" in INJECTED:
            problems += problems_of_node(value, f"{place}.{key}", trusted)
        elif is_target(value):
            problems.append(f"{place}.{key}: no such setting; a class is not expected here.")
    return problems
