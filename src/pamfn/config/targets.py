"""The `_target_`s of the configuration: classes by name, checked against their signatures."""

import difflib
import importlib.util
import inspect
import pkgutil
import re
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from pamfn.config.schema import CUT, Node
from pamfn.errors import InputError

INJECTED = {
    "data": {"features", "data_dir", "batch_size", "holdout", "min_segments", "seed"},
    "model": {"branches", "widths"},
    "model.branch": {"width"},
}
"""Arguments of the targets that the pipeline gives itself."""

OFFERED = {
    "trainer": {"accelerator", "devices", "precision", "benchmark", "deterministic", "detect_anomaly"},
}
"""Of Lightning's Trainer what leaves a training what it is, or is in the names of runs (precision).

The pipeline gives others itself; the rest would change the numbers and no name would tell.
"""


BASES = {
    "data": "pamfn.data.base_datamodule.VideoDataModule",
    "model": "pamfn.models.Network",
    "model.branch": "pamfn.models.Network",
    "trainer": "lightning.Trainer",
}
"""What a class must be a subclass of at each place of the configuration."""

OLD_NAMES = {
    "pamfn.data.ScoreDataModule": "pamfn.data.module.ScoreDataModule",
    "pamfn.data.SyntheticDataModule": "pamfn.data.synthetic.SyntheticDataModule",
    "pamfn.data.YouTubeHighlightsDataModule": "pamfn.data.highlights.YouTubeHighlightsDataModule",
}
"""{a class: what it was called when runs were first named by it}. A class that moves is written down here."""

NEW_NAMES = {old: new for new, old in OLD_NAMES.items()}

OURS = "pamfn"
"""The package whose classes are known to be no more than what they are here."""


def is_ours(node: Any) -> bool:
    """Whether every class that a node names, and those inside it, is of this package or Lightning's own Trainer."""
    if not isinstance(node, Mapping):
        return True
    name = str(node.get("_target_", OURS))
    return (name == BASES["trainer"] or package_of(name) == OURS) and all(map(is_ours, node.values()))


def package_of(name: str) -> str:
    return name.partition(".")[0]


def target(node: Mapping[str, Any], place: str, trusted: Collection[str] | None = None) -> type[Any]:
    """The class a node names, which is one of the right base.

    trusted: packages besides this one that it may come from; None for any. Nothing of another is imported.
    """
    name = node.get("_target_")
    if not isinstance(name, str):
        raise InputError(f"{place}: needs a _target_, the class to build, e.g. pamfn.models.PAMFN.")
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name):
        raise InputError(f"{place}._target_: {name!r} is no class. Name one with its module, e.g. pamfn.models.PAMFN.")
    refuse_stranger(name, package_of(name), place, trusted)
    try:
        found = pkgutil.resolve_name(NEW_NAMES.get(name, name))
    except Exception as error:  # of a module of one's own, whatever it raises
        raise InputError(f"{place}._target_: cannot import {name!r} ({error}).{instead_of_folder(name)}") from error
    if not callable(found):
        raise InputError(
            f"{place}._target_: {name!r} is a {type(found).__name__}, which builds nothing. "
            "Name a class, e.g. pamfn.models.PAMFN."
        )
    if inspect.isclass(found):  # where it is from, under whatever name it is asked for
        refuse_stranger(name, package_of(found.__module__), place, trusted)
    wanted = BASES.get(place)
    base = pkgutil.resolve_name(wanted) if wanted else object
    if not inspect.isclass(found) or not issubclass(found, base):
        kind = "a class" if inspect.isclass(found) else f"a {type(found).__name__}"
        raise InputError(f"{place}._target_: {name!r} is {kind}, and no subclass of {wanted}.")
    return found


def refuse_stranger(name: str, package: str, place: str, trusted: Collection[str] | None) -> None:
    """A run folder is data, and other packages are code: they are imported only if they are named."""
    if trusted is not None and name != BASES["trainer"] and package not in (OURS, *trusted):
        raise InputError(
            f"{place}._target_: this run asks for {name!r}, code of another package, which was not imported. If you "
            f"trust whoever made the run and that package: --trust {package}."
        )


def instead_of_folder(name: str) -> str:
    """What to do about a module that would be found in the current folder."""
    module = package_of(name)
    here = [path for path in (Path(f"{module}.py"), Path(module)) if path.exists()]
    if not here or importlib.util.find_spec(module):
        return ""
    return f" {here[0]} is in the current folder, from where nothing is imported unless PYTHONPATH=. says so."


def build(node: Mapping[str, Any], **injected: Any) -> Any:
    """Builds a checked node; nested nodes are left to the caller."""
    arguments = {k: v for k, v in node.items() if k != "_target_" and not (isinstance(v, dict) and "_target_" in v)}
    return target(node, "")(**arguments, **injected)


def signature_schema(build: Callable[..., Any], place: str) -> type[BaseModel]:
    """A schema with one field for every argument that can be set at this place of the configuration."""
    injected, offered = INJECTED.get(place, set()), OFFERED.get(place)
    of = build.__init__ if inspect.isclass(build) else build
    hints = typing.get_type_hints(of, include_extras=True)  # with the ranges of numbers
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


def told(error: ValidationError, schema: type[BaseModel], place: str) -> list[str]:
    """One sentence a problem: the place, what was found, what is allowed."""
    sentences = []
    for problem in error.errors():
        keys = [str(key) for key in problem["loc"]]
        where = ".".join([place, *keys] if place else keys)
        if problem["type"] == "extra_forbidden" and where in CUT:
            sentences.append(f"{where}: there is no such setting any more. {CUT[where]}")
        elif problem["type"] == "extra_forbidden":
            allowed = sorted(allowed_keys(schema, keys[:-1]))
            close = difflib.get_close_matches(keys[-1], allowed, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            sentences.append(f"{where}: no such setting.{hint} Allowed here: {', '.join(allowed)}.")
        elif problem["type"] == "missing":
            sentences.append(f"{where}: missing, and it has no default.")
        else:
            said = problem["msg"].removeprefix("Value error, ")
            sentences.append(f"{where}: {said[0].lower()}{said[1:]}, found {problem['input']!r}.")
    return sentences


def allowed_keys(schema: type[BaseModel], keys: list[str]) -> list[str]:
    """Fields at a place of the schema."""
    for key in keys:
        field = schema.model_fields.get(key)
        if field is None:
            break
        inner = [field.annotation, *typing.get_args(field.annotation)]
        models = [a for a in inner if inspect.isclass(a) and issubclass(a, BaseModel)]
        schema = models[0] if models else schema
    return list(schema.model_fields)


def problems_of_node(node: Node, place: str, trusted: Collection[str] | None = None) -> list[str]:
    """Unknown, missing and wrongly typed arguments of a `_target_` node, and of the nodes inside it."""
    try:
        found = target(node, place, trusted)
    except InputError as error:
        return error.problems
    nested = {k: v for k, v in node.items() if isinstance(v, dict) and "_target_" in v}
    schema = signature_schema(found, place)
    arguments = {k: v for k, v in node.items() if k != "_target_" and k not in nested}
    problems: list[str] = []
    try:
        schema.model_validate(arguments)
    except ValidationError as error:
        problems += told(error, schema, place)
    for key, value in nested.items():
        if f"{place}.{key}" in INJECTED:
            problems += problems_of_node(value, f"{place}.{key}", trusted)
        else:
            problems.append(f"{place}.{key}: no such setting; a class is not expected here.")
    return problems
