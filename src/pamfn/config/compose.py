"""The configuration, composed by Hydra from `conf/`, checked, and said in sentences where it does not fit.

`checked` compares it with the schema and with the signatures of the `_target_`s, before any data is read. Nothing here
imports torch.
"""

import math
import os
import sys
import traceback
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from pamfn.config.schema import Config, problem_of_label
from pamfn.config.targets import is_ours, problems_of_node, told
from pamfn.config.validation import problems_of_model, problems_of_task
from pamfn.errors import InputError

PACKAGE = Path(__file__).parents[1]

ROOT = None if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1]
"""The top of the checkout; None in an installed package, which holds `conf/` and `experiments/` itself."""

CONF = (ROOT or PACKAGE) / "conf"
EXPERIMENTS = (ROOT or PACKAGE) / "experiments"
PRECISIONS = ("32", "32-true", "bf16-mixed")
OTHER_TASK = ", which methods that score whole videos need: for highlights choose model=pamfn_clips, umt_clips, ..."


def home() -> Path:
    """Where data and runs are unless something else is said: the checkout, or the current folder if installed."""
    return ROOT or Path.cwd()


def places() -> list[Path]:
    """Folders with groups of the configuration, in Hydra's order; the last is the user's own, `conf` where they are."""
    there = os.path.isdir("conf")  # noqa: PTH112  Path.is_dir raises where the current folder may not be searched
    own = [Path("conf").absolute()] if there and not CONF.samefile("conf") else []
    return [CONF, EXPERIMENTS, *own]


def files_of(group: str) -> dict[str, Path]:
    """{name: file} of what a group offers."""
    return {file.stem: file for place in reversed(places()) for file in (place / group).glob("*.yaml")}


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


def refuse_choices(choices: Mapping[str, Any]) -> None:
    """Checks what only the names of the chosen files tell; `choices` are Hydra's, {group: option}.

    Raises:
        InputError: when the user's own file would have to replace one of ours, or features do not go with their data.
    """
    refuse_same_names(choices)
    refuse_other_features(choices)


def refuse_same_names(choices: Mapping[str, Any]) -> None:
    """A file of the user's that bears the name of one of ours: Hydra would take ours, and say nothing."""
    shipped, own = places()[:2], places()[2:]
    for group, options in choices.items():
        for option in options if isinstance(options, Sequence) and not isinstance(options, str) else [options]:
            name = f"{group.partition('@')[0]}/{option}.yaml"
            for file in [place / name for place in own if (place / name).is_file()]:
                if any((p / name).is_file() and (p / name).read_bytes() != file.read_bytes() for p in shipped):
                    raise InputError(
                        f"{file}: pamfn has another conf/{name}, which nothing replaces. Give yours another name, "
                        "or start the command in another folder."
                    )


def refuse_other_features(choices: Mapping[str, str]) -> None:
    """A data set whose file names its own streams has no others.

    Raises:
        InputError: when other features are chosen, which Hydra would put beside them.
    """
    file = files_of("data").get(choices["data"])
    node: Any = OmegaConf.to_container(OmegaConf.load(file)) if file else {}
    if choices["features"] != "in_data" and {"override /features": "in_data"} in node.get("defaults", []):
        raise InputError(
            f"features={choices['features']}: data={choices['data']} has streams of its own "
            f"({', '.join(node['features'])}). Choose features=in_data, or a data set that has those features."
        )


def listed(group: str) -> str:
    """A line for every file of a group: how it is chosen and the first line of its text."""
    files = sorted(files_of(group).items())
    width = max((len(name) for name, _ in files), default=0)
    return "\n".join(f"  +{group}={name:<{width}} {title(file)}".rstrip() for name, file in files)


def own_groups() -> str:
    """A line for every group of the user's own folder, as Hydra lists ours; nothing where there is none."""
    lines = []
    for place in places()[2:]:
        files = sorted(place.glob("*/**/*.yaml"))
        for group in dict.fromkeys(file.parent for file in files):
            names = ", ".join(file.stem for file in files if file.parent == group)
            lines.append(f"{group.relative_to(place)}: {names}\n")
    return "".join(["\nOf your own, in conf/ of the current folder:\n", *lines] if lines else [])


def title(file: Path) -> str:
    """The first line of a configuration file's text."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line[2:] for line in lines if line.startswith("# ") and "@" not in line), "")


def table_names() -> list[str]:
    """Every table that can be swept."""
    return sorted(files_of("table"))


def as_template(text: str) -> str:
    """A text of `--help`, in which Hydra replaces what follows a `$`."""
    return text.replace("$", "$$")


def stream(index: int, *, _root_: DictConfig) -> str:
    """`${stream:0}`: the name of the data set's first modality (rgb where it has rgb, flow, audio); -1: of its last."""
    names = list(_root_.features)
    if not -len(names) <= index < len(names):
        raise InputError(f"modalities: asked for number {index + 1}, and this data set has {len(names)}: {names}.")
    return str(names[index])


def extractor(index: int, *, _root_: DictConfig) -> str:
    """`${extractor:0}`: what made the features of the data set's first modality."""
    return str(_root_.features[stream(index, _root_=_root_)].extractor)


def case(value: str, cases: DictConfig, otherwise: Any) -> Any:
    """`${case:value,{a: x},y}`: x where value is a, else y."""
    return cases.get(value, otherwise)


def register() -> None:
    """Resolvers used in `conf/`; may be called again."""
    OmegaConf.register_new_resolver("case", case, replace=True)
    OmegaConf.register_new_resolver("experiments", lambda: as_template(listed("experiment")), replace=True)
    OmegaConf.register_new_resolver("tables", lambda: as_template(listed("table")), replace=True)
    OmegaConf.register_new_resolver("own_groups", lambda: as_template(own_groups()), replace=True)
    OmegaConf.register_new_resolver("rows", lambda *, _root_: ",".join(_root_.table.rows), replace=True)
    OmegaConf.register_new_resolver("stream", stream, replace=True)
    OmegaConf.register_new_resolver("extractor", extractor, replace=True)
    OmegaConf.register_new_resolver("root", lambda: str(home()), replace=True)
    OmegaConf.register_new_resolver("places", lambda: [f"file://{place}" for place in places()[1:]], replace=True)


def let_checked_refuse(arguments: list[str], table: str = "") -> list[str]:
    """Command-line values as `++key=value`, so that an unknown key reaches `checked`, which says what is allowed.

    What replaces a setting that `table` sweeps is spelt as the table spells it, else Hydra would sweep over both.
    """
    if any(word in ("--shell-completion", "-sc") for word in arguments):  # `install=bash` is no setting
        return arguments
    groups = {p.name for place in places() for p in place.iterdir() if p.is_dir()}
    file = files_of("table").get(table)
    swept = OmegaConf.load(file).hydra.sweeper.params if file else {}
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
        traceback.print_exception(error)
        raise SystemExit(1)
    print(
        f"error: {error}" if len(error.problems) == 1 else "errors:\n  " + "\n  ".join(error.problems), file=sys.stderr
    )
    raise SystemExit(1)
