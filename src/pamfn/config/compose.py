"""The configuration, composed by Hydra from `conf/`, checked, and said in sentences where it does not fit.

`checked` compares it with the schema and with the signatures of the `_target_`s, before any data is read. Nothing here
imports torch.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pamfn.errors import InputError

PACKAGE = Path(__file__).parents[1]

ROOT = None if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1]
"""The top of the checkout; None in an installed package, which holds `conf/` and `experiments/` itself."""

CONF = (ROOT or PACKAGE) / "conf"
EXPERIMENTS = (ROOT or PACKAGE) / "experiments"


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
