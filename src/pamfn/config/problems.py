"""Sentences for what pydantic finds wrong: the place, what was found, what is allowed."""

import difflib
import inspect
import typing

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

REMOVED = {
    "data.skip_first_line": "A header is found by itself. To leave out a video, delete its line from the label file.",
    "data.test_batch_size": "A video's score does not depend on its batch. Leave it out.",
    "data.test_crop": "Videos are scored whole. Leave it out.",
    "keep_maps_gib": "Every batch is computed anew, as keep_maps_gib=0 did. Leave it out.",
    "trainer.profiler": "Its report was not shown; torch.profiler around a training shows more.",
    "seeds": "Sweep them: -m seed=0,1,2, side by side with hydra/launcher=joblib.",
}
"""{a setting that was removed: what to use instead}. Results of earlier versions may still hold it."""


def sentences(error: ValidationError, schema: type[BaseModel], place: str = "") -> list[str]:
    """One sentence for every problem. place: where the schema is in the configuration."""
    return [sentence(problem, schema, place) for problem in error.errors()]


def sentence(problem: ErrorDetails, schema: type[BaseModel], place: str) -> str:
    keys = [str(key) for key in problem["loc"]]
    where = ".".join([place, *keys] if place else keys)
    if problem["type"] == "missing":
        return f"{where}: missing, and it has no default."
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {message[0].lower()}{message[1:]}, found {problem['input']!r}."
    if where in REMOVED:
        return f"{where}: there is no such setting any more. {REMOVED[where]}"
    allowed = sorted(allowed_keys(schema, keys[:-1]))
    close = difflib.get_close_matches(keys[-1], allowed, 1)
    hint = f" Did you mean {close[0]}?" if close else ""
    return f"{where}: no such setting.{hint} Allowed here: {', '.join(allowed)}."


def allowed_keys(schema: type[BaseModel], keys: list[str]) -> list[str]:
    """The fields at a place of the schema."""
    for key in keys:
        field = schema.model_fields.get(key)
        if field is None:
            break
        inner = [field.annotation, *typing.get_args(field.annotation)]
        models = [a for a in inner if inspect.isclass(a) and issubclass(a, BaseModel)]
        schema = models[0] if models else schema
    return list(schema.model_fields)
