"""How Hydra composes the configuration: where files are found, resolvers, words of the command line."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pamfn.errors import InputError
from pamfn.files import regular

PACKAGE = Path(__file__).parents[1]

ROOT = None if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1]
"""The top of the checkout; None if installed, where the package itself holds `conf/` and `experiments/`."""

CONF = (ROOT or PACKAGE) / "conf"
EXPERIMENTS = (ROOT or PACKAGE) / "experiments"


def home() -> Path:
    """The default parent of data and runs: the checkout, or the current folder of an installed package."""
    return ROOT or Path.cwd()


def places() -> list[Path]:
    """Folders with configuration groups, in Hydra's order; the last is the user's own, `conf` in the current folder."""
    there = os.path.isdir("conf")  # noqa: PTH112  Path.is_dir raises where the current folder may not be searched
    own = [Path("conf").absolute()] if there and not CONF.samefile("conf") else []
    return [CONF, EXPERIMENTS, *own]


def files_of(group: str) -> dict[str, Path]:
    """{option: file} of a group."""
    return {file.stem: file for place in reversed(places()) for file in (place / group).glob("*.yaml")}


def table_names() -> list[str]:
    """The tables that can be swept."""
    return sorted(files_of("table"))


# ---- choices


def refuse_choices(choices: Mapping[str, Any]) -> None:
    """Check the chosen files. choices: Hydra's, {group: option or options}.

    Raises:
        InputError: when a user's file has the name of one of ours, or features are chosen for data that have their own.
    """
    refuse_same_names(choices)
    refuse_other_features(choices)


def refuse_same_names(choices: Mapping[str, Any]) -> None:
    """Refuses a user's file with the name of one of ours, which Hydra would silently take instead."""
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
    """Refuses features for a data set whose file has its own, since Hydra would merge both."""
    file = files_of("data").get(choices["data"])
    node: Any = OmegaConf.to_container(OmegaConf.load(file)) if file else {}
    if choices["features"] != "in_data" and {"override /features": "in_data"} in node.get("defaults", []):
        raise InputError(
            f"features={choices['features']}: data={choices['data']} has streams of its own "
            f"({', '.join(node['features'])}). Choose features=in_data, or a data set that has those features."
        )


def with_hint(message: str) -> str:
    """Hydra's message, and before it what to do where an experiment was asked for that is a data set."""
    asked = re.search(r"Could not find 'experiment/([^']+)'", message)
    if asked is None or asked[1] not in files_of("data"):
        return message
    return f"+experiment={asked[1]}: there is no such experiment, but a data set: choose data={asked[1]}."


# ---- resolvers


def listed(group: str, sign: str = "+") -> str:
    """A line of `--help` for every option of a group, with the first comment of its file. sign: before the group."""
    files = sorted(files_of(group).items())
    width = max((len(name) for name, _ in files), default=0)
    return "\n".join(f"  {sign}{group}={name:<{width}} {title(file)}".rstrip() for name, file in files)


def listed_extractors() -> str:
    """The lines of `--help` for all extractors: complete sets, then one stream after the other."""
    streams = {file.parent.name for place in places() for file in (place / "extractor").glob("*/*.yaml")}
    ours = [stream for stream in ("rgb", "flow", "audio") if stream in streams]
    groups = [f"extractor/{stream}" for stream in [*ours, *sorted(streams - set(ours))]]
    signs = ["" if group.rpartition("/")[2] in ours else "+" for group in groups]
    return "\n".join(map(listed, ["extractor", *groups], ["", *signs]))


def title(file: Path) -> str:
    """The first comment of a configuration file, package directives aside."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line[2:] for line in lines if line.startswith("# ") and "@" not in line), "")


def own_groups() -> str:
    """A line of `--help` for every group of the user's own folder."""
    lines = []
    for place in places()[2:]:
        files = sorted(place.glob("*/**/*.yaml"))
        for group in dict.fromkeys(file.parent for file in files):
            names = ", ".join(file.stem for file in files if file.parent == group)
            lines.append(f"{group.relative_to(place)}: {names}\n")
    return "".join(["\nOf your own, in conf/ of the current folder:\n", *lines] if lines else [])


def stream(index: int, *, _root_: DictConfig) -> str:
    """`${stream:0}`: the name of the data set's first modality; `${stream:-1}`: of its last."""
    names = list(_root_.features)
    if not -len(names) <= index < len(names):
        raise InputError(f"modalities: asked for number {index + 1}, and this data set has {len(names)}: {names}.")
    return str(names[index])


def extractor(index: int, *, _root_: DictConfig) -> str:
    """`${extractor:0}`: the extractor of the data set's first modality."""
    return str(_root_.features[stream(index, _root_=_root_)].extractor)


def case(value: str, cases: DictConfig, otherwise: Any) -> Any:
    """`${case:value,{a: x},y}`: x where value is a, else y."""
    return cases.get(value, otherwise)


def folds(*, _root_: DictConfig) -> str:
    """`${folds:}`: the numbers of all folds, to be swept."""
    count = _root_.protocol.folds
    if isinstance(count, str):  # a file, with a line `video fold` for every video
        file = Path(_root_.paths.data_dir) / count
        try:
            lines = regular(file, most=2**24).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"protocol.folds: cannot read {file} ({error}).") from None
        count = len({line.split()[-1] for line in lines if line.strip()})
    return ",".join(map(str, range(count or 0)))


RESOLVERS: dict[str, Callable[..., Any]] = {
    "case": case,
    "stream": stream,
    "extractor": extractor,
    "folds": folds,
    "root": lambda: str(home()),
    "places": lambda: [f"file://{place}" for place in places()[1:]],
    "rows": lambda *, _root_: ",".join(_root_.table.rows),
    # parts of the template of `--help`, in which Hydra replaces what follows a `$`
    "experiments": lambda: listed("experiment").replace("$", "$$"),
    "tables": lambda: listed("table").replace("$", "$$"),
    "extractors": lambda: listed_extractors().replace("$", "$$"),
    "own_groups": lambda: own_groups().replace("$", "$$"),
}
"""{name: function} of the resolvers used in `conf/`."""


def register() -> None:
    """Register the resolvers; may be called again."""
    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, resolver, replace=True)


# ---- words of the command line


def let_checked_refuse(arguments: list[str], table: str = "") -> list[str]:
    """Spell settings as `++key=value`, so that Hydra lets an unknown key reach `checked`, which says what is allowed.

    A setting that `table` sweeps is spelt as in its file, else Hydra would sweep over both.
    """
    if any(word in ("--shell-completion", "-sc") for word in arguments):  # `install=bash` is no setting
        return arguments
    groups = {p.name for place in places() for p in place.iterdir() if p.is_dir()}
    file = files_of("table").get(table)
    swept = OmegaConf.load(file).hydra.sweeper.params if file else {}
    spelt = {str(key).lstrip("+"): str(key) for key in swept}
    words = []
    for word in arguments:
        key, equals, value = word.partition("=")
        name = key.lstrip("+")
        if equals and name in spelt:
            word = f"{spelt[name]}={value}"
        elif equals and name not in groups and not name.startswith(("-", "~", "hydra")) and not set(name) & set("@/"):
            word = f"++{name}={value}"
        words.append(word)
    return words


def replaces_data(word: str) -> bool:
    """Whether a word of the command line changes the data, whatever the chosen experiment says."""
    key = word.partition("=")[0].lstrip("+~").partition("@")[0]
    return key.partition(".")[0] == "data"
