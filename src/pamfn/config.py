"""What can be chosen: the schema of the configuration, its checking, and the identity of a run.

Hydra composes `conf/`; `checked` compares the result with the schema below and with the signatures of the `_target_`s,
and refuses what does not fit before any data is read. Nothing here imports torch.
"""

import difflib
import hashlib
import inspect
import json
import os
import pkgutil
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pamfn.errors import InputError

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
EXPERIMENTS = ROOT / "experiments"

Node = dict[str, Any]
"""A `_target_` and its arguments, checked against the target's signature."""

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    """No unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Paths(Strict):
    """Where data is read and results are written."""

    data_dir: str
    output_dir: str


class Stream(Strict):
    """One modality: the extractor in its file name and the width of its features."""

    extractor: str
    width: int = Field(gt=0)


class StageRecipe(Strict):
    """How one stage is trained. `clip`: largest gradient norm. `head_lr_scale`: the head's rate over the others'."""

    optimizer: Literal["sgd", "adamw"]
    lr: float = Field(gt=0)
    lr_min: float = Field(ge=0)
    momentum: Fraction
    weight_decay: float = Field(ge=0)
    schedule: Literal["cosine", "none"]
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=1)
    clip: Annotated[float, Field(gt=0)] | None
    head_lr_scale: float = Field(gt=0)


class BaselineRecipe(StageRecipe):
    """How a compared method is trained. `crop`: segments of a training crop.

    schedule `steps`: the rate falls to a tenth each of `drops` epochs before the end.
    """

    schedule: Literal["cosine", "none", "steps"]  # type: ignore[assignment]
    crop: int = Field(gt=0)
    drops: list[int] = []


class Readings(Strict):
    """Where text and released code differ about the network (NOTES.md); `conf/model` takes them from here."""

    double_negation: bool
    policy_layers: Literal[1, 2]
    decoding: Literal["argmax", "sample", "mean"]
    frozen: Literal["eval", "train"]
    temperature: Literal["positive", "unconstrained"]
    shared_attention: bool


class Recipe(Strict):
    """How both stages are trained. stages: 2, or 1 to train everything from scratch together by `fusion`.

    baseline: instead of these, for a model without branches; None for one that is solved and not trained.
    """

    stages: Literal[1, 2]
    branch: StageRecipe
    fusion: StageRecipe
    baseline: BaselineRecipe | None = None
    readings: Readings


class Protocol(Strict):
    """How the reported epoch is chosen.

    select: `test` (best on the test set, as published) or `holdout` (best on a part of train). holdout: that part.
    refit: train on all of train for the chosen number of epochs, then test that.
    """

    select: Literal["test", "holdout"]
    holdout: Fraction
    refit: bool


class Logger(Strict):
    """Weights & Biases; the curves are always written to the run folder. mode: `auto` is offline without an account."""

    wandb: bool
    project: str
    entity: str | None
    group: str | None
    tags: list[str]
    mode: Literal["auto", "online", "offline"]


class Table(Strict):
    """A table of the paper as a sweep over `hydra.sweeper.params`.

    source: where in the paper. reference: file of the paper's figures in experiments/reference. row, column: the swept
    settings. rows: {value of the row's setting: its name in the table and in the reference}. full: the row that the
    others are compared with. side_by_side: what stands before the comma in a row's name is shown as a column.
    """

    name: str
    title: str
    source: str
    reference: str | None
    row: str
    column: str
    rows: dict[str, str]
    full: str | None
    side_by_side: bool = False


class Config(Strict):
    """One job: both stages, or one branch when a single modality is chosen."""

    seed: int = Field(ge=0)
    table: Table | None
    modalities: list[str] | None
    available: list[str] | None
    threads: Annotated[int, Field(gt=0)] | None
    resume_seconds: float = Field(ge=0)
    paths: Paths
    data: Node
    features: dict[str, Stream]
    model: Node
    recipe: Recipe
    protocol: Protocol
    trainer: Node
    logger: Logger

    @property
    def streams(self) -> dict[str, Stream]:
        """The chosen modalities, in the order of the features."""
        return {m: s for m, s in self.features.items() if self.modalities is None or m in self.modalities}

    @property
    def is_baseline(self) -> bool:
        """Whether the model is trained in one piece: it takes feature widths, not branches."""
        return "branch" not in self.model


INJECTED = {
    "data": {"features", "data_dir", "batch_size", "holdout", "min_segments", "seed"},
    "model": {"branches", "widths"},
    "model.branch": {"width"},
    "trainer": {
        "max_epochs",
        "logger",
        "callbacks",
        "gradient_clip_val",
        "enable_progress_bar",
        "enable_model_summary",
        "enable_checkpointing",
        "num_sanity_val_steps",
        "log_every_n_steps",
        "default_root_dir",
    },
}
"""Arguments of the targets that the pipeline gives itself."""


def target(node: Mapping[str, Any], place: str) -> Callable[..., Any]:
    """The class a node names."""
    name = node.get("_target_")
    if not isinstance(name, str):
        raise InputError(f"{place}: needs a _target_, the class to build, e.g. pamfn.models.PAMFN.")
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{place}._target_: cannot import {name!r} ({error}).") from error


def build(node: Mapping[str, Any], **injected: Any) -> Any:
    """Builds a checked node; nested nodes are left to the caller."""
    arguments = {k: v for k, v in node.items() if k != "_target_" and not (isinstance(v, dict) and "_target_" in v)}
    return target(node, "node")(**arguments, **injected)


def signature_schema(build: Callable[..., Any], injected: set[str]) -> type[BaseModel]:
    """A schema with one field an argument."""
    of = build.__init__ if inspect.isclass(build) else build
    hints = typing.get_type_hints(of)
    fields: dict[str, Any] = {}
    extra = "forbid"
    for name, parameter in inspect.signature(build).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            extra = "allow"
        elif name not in injected and parameter.kind is not parameter.VAR_POSITIONAL:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
    config = ConfigDict(extra=extra, strict=True, arbitrary_types_allowed=True, protected_namespaces=())
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
    schema = signature_schema(found, INJECTED.get(place, set()))
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
    trained = "widths" in takes and not hasattr(found, "solve")
    if trained and isinstance(recipe, dict) and recipe.get("baseline") is None:
        return ["recipe.baseline: missing; choose one, e.g. recipe/baseline=gdlt."]
    return []


def resolved(raw: DictConfig | Mapping[str, Any]) -> Any:
    """Plain values of a composed configuration, interpolations replaced."""
    if not OmegaConf.is_config(raw):
        return raw
    try:
        return OmegaConf.to_container(raw, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key or 'config'}: {str(error).splitlines()[0]}") from error


def parsed(plain: Any) -> Config:
    """The configuration, typed, but for the arguments of the `_target_`s, which need their classes imported.

    Raises:
        InputError: with one sentence for every misspelt key, wrong type and impossible choice.
    """
    try:
        config = Config.model_validate(plain)
    except ValidationError as error:
        raise InputError(told(error, Config, "")) from error
    problems = impossible(config)
    if problems:
        raise InputError(problems)
    return config


def checked(raw: DictConfig | Mapping[str, Any]) -> Config:
    """The configuration, typed throughout.

    Raises:
        InputError: with one sentence for every misspelt key, wrong type and impossible choice.
    """
    plain = resolved(raw)
    nodes = {place: plain.get(place) for place in ("data", "model", "trainer")}
    problems = [p for place, node in nodes.items() if isinstance(node, dict) for p in problems_of_node(node, place)]
    problems += problems_of_model(plain)
    try:
        config = parsed(plain)
    except InputError as error:
        raise InputError([*error.problems, *problems]) from error
    if problems:
        raise InputError(problems)
    return config


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
    if str(config.trainer.get("precision")) in ("16", "16-mixed", "16-true"):
        problems.append("trainer.precision: float16 would need scaled losses; choose 32-true or bf16-mixed.")
    if config.trainer.get("devices", 1) != 1:
        problems.append("trainer.devices: networks of this size train on one device; run jobs side by side instead.")
    return problems


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
    return {"protocol": config.protocol.model_dump(), "seed": config.seed, "precision": str(precision)}


def fingerprint(identity: Node) -> str:
    """Ten characters that name a run."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:10]


def listed(group: str, folder: Path) -> str:
    """A line for every file of a group: how it is chosen and the first line of its text."""
    first = {
        f.stem: [x for x in f.read_text().splitlines() if x.startswith("# ") and "@" not in x]
        for f in folder.glob("*.yaml")
    }
    width = max(map(len, first), default=0)
    return "\n".join(f"  +{group}={name:<{width}} {lines[0][2:]}" for name, lines in sorted(first.items()))


def stream(index: int, *, _root_: DictConfig) -> str:
    """`${stream:0}`: the name of the data set's first modality, and so on (rgb, flow, audio where it has those)."""
    names = list(_root_.features)
    if index >= len(names):
        raise InputError(f"modalities: asked for number {index + 1}, and this data set has {len(names)}: {names}.")
    return str(names[index])


def case(value: str, cases: DictConfig, otherwise: Any) -> Any:
    """`${case:value,{a: x},y}`: x where value is a, else y."""
    return cases.get(value, otherwise)


def register() -> None:
    """Resolvers used in `conf/`; may be called again."""
    OmegaConf.register_new_resolver("case", case, replace=True)
    OmegaConf.register_new_resolver("experiments", lambda: listed("experiment", CONF / "experiment"), replace=True)
    OmegaConf.register_new_resolver("tables", lambda: listed("table", EXPERIMENTS / "table"), replace=True)
    OmegaConf.register_new_resolver("rows", lambda *, _root_: ",".join(_root_.table.rows), replace=True)
    OmegaConf.register_new_resolver("stream", stream, replace=True)
    OmegaConf.register_new_resolver("root", lambda: str(ROOT), replace=True)


def let_checked_refuse(arguments: list[str], table: str = "") -> list[str]:
    """Command-line values as `++key=value`, so that an unknown key reaches `checked`, which says what is allowed.

    What replaces a setting that `table` sweeps is spelt as the table spells it, else Hydra would sweep over both.
    """
    groups = {p.name for p in (*CONF.iterdir(), *EXPERIMENTS.iterdir()) if p.is_dir()}
    file = EXPERIMENTS / "table" / f"{table}.yaml"
    swept = OmegaConf.load(file).hydra.sweeper.params if table and file.exists() else {}
    spelt = {str(key).lstrip("+"): str(key) for key in swept}
    words = []
    for word in arguments:
        key = word.partition("=")[0].lstrip("+")
        if key in spelt and "=" in word:
            words.append(spelt[key] + word[word.index("=") :])
        else:
            words.append(f"++{word.lstrip('+')}" if is_value(word, groups) else word)
    return words


def is_value(argument: str, groups: set[str]) -> bool:
    """Whether a command-line word sets a value of ours: not an option, a deletion, a group's choice or Hydra's own."""
    key, equals, _ = argument.partition("=")
    key = key.lstrip("+")
    return bool(equals) and key not in groups and not key.startswith(("-", "~", "hydra")) and not set(key) & set("@/")


def traceback_wanted() -> bool:
    """Whether the user asked to see where in the code a mistake was noticed."""
    return bool(os.environ.get("PAMFN_TRACEBACK"))


def refuse(error: InputError) -> typing.NoReturn:
    """Ends the process with the sentences of a mistake."""
    if traceback_wanted():
        raise error
    print(
        f"error: {error}" if len(error.problems) == 1 else "errors:\n  " + "\n  ".join(error.problems), file=sys.stderr
    )
    raise SystemExit(1)
