"""The `_target_`s of the configuration: classes by name, checked against their signatures."""

import difflib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from pamfn.errors import InputError
from pamfn.schema import Node

INJECTED = {
    "data": {"features", "data_dir", "batch_size", "holdout", "min_segments", "seed"},
    "model": {"branches", "widths"},
    "model.branch": {"width"},
}
"""Arguments of the targets that the pipeline gives itself."""

OFFERED = {
    "trainer": {"accelerator", "devices", "precision", "benchmark", "deterministic", "detect_anomaly", "profiler"},
}
"""Of Lightning's Trainer what leaves a training what it is, or is in the names of runs (precision).

The pipeline gives others itself; the rest would change the numbers and no name would tell.
"""


def target(node: Mapping[str, Any], place: str) -> Callable[..., Any]:
    """The class a node names."""
    name = node.get("_target_")
    if not isinstance(name, str):
        raise InputError(f"{place}: needs a _target_, the class to build, e.g. pamfn.models.PAMFN.")
    try:
        found = pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{place}._target_: cannot import {name!r} ({error}).") from error
    if not callable(found):
        raise InputError(
            f"{place}._target_: {name!r} is a {type(found).__name__}, which builds nothing. "
            "Name a class, e.g. pamfn.models.PAMFN."
        )
    return found


def build(node: Mapping[str, Any], **injected: Any) -> Any:
    """Builds a checked node; nested nodes are left to the caller."""
    arguments = {k: v for k, v in node.items() if k != "_target_" and not (isinstance(v, dict) and "_target_" in v)}
    return target(node, "node")(**arguments, **injected)


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
        if problem["type"] == "extra_forbidden":
            allowed = sorted(allowed_keys(schema, keys[:-1]))
            close = difflib.get_close_matches(keys[-1], allowed, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            sentences.append(f"{where}: no such setting.{hint} Allowed here: {', '.join(allowed)}.")
        elif problem["type"] == "missing":
            sentences.append(f"{where}: missing, and it has no default.")
        else:
            sentences.append(f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]}, found {problem['input']!r}.")
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


def problems_of_node(node: Node, place: str) -> list[str]:
    """Unknown, missing and wrongly typed arguments of a `_target_` node, and of the nodes inside it."""
    try:
        found = target(node, place)
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
            problems += problems_of_node(value, f"{place}.{key}")
        else:
            problems.append(f"{place}.{key}: no such setting; a class is not expected here.")
    return problems
