"""Expand a table of the paper into the jobs of its sweep. Nothing here imports torch."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pamfn.config.compose import (
    CONF,
    let_checked_refuse,
    refuse_choices,
    register,
    replaces_data,
    table_names,
    with_hint,
)
from pamfn.config.schema import SEEDS, Config, Node, Protocol, Subsets, Table
from pamfn.config.validation import parsed, resolved
from pamfn.errors import InputError
from pamfn.runs.folder import Run
from pamfn.runs.lookup import locate, wanted

PAPER_STREAMS = ("RGB", "Flow", "Audio")
"""The paper's names of three streams, which the rows of a table's file are called by."""

PLACE = re.compile(rf"\b({'|'.join(PAPER_STREAMS)})\b")
"""Where a row's name says one of them."""

READ_HOW = ("_target_", "name", "crop", "bags", "max_score", "annotations")
"""Settings of a data set that do not say which videos and points it has."""


@dataclass(frozen=True)
class Job:
    """One run of a table: row and column as they are swept (`free_fusionnets`, `fisv_tes`), and its configuration."""

    row: str
    column: str
    seed: int
    config: Config
    overrides: list[str]

    @property
    def fold(self) -> int | None:
        """The fold that it tests, in a sweep over folds."""
        return self.config.protocol.fold

    @property
    def run(self) -> Run:
        """Where its result is, or will be, below the configured output."""
        return locate(self.config, *wanted(self.config))


@dataclass(frozen=True)
class Sweep:
    """A table, its jobs, and a sentence for every combination that cannot be one.

    data: {column as swept: what its data are called}, by which a column is shown. words: what Hydra needs beside the
    user's words to sweep these rows.
    """

    table: Table
    jobs: list[Job]
    problems: list[str]
    data: dict[str, str]
    words: list[str]


def sweep_of(name: str, overrides: Sequence[str] = ()) -> Sweep:
    """Expand a table into its jobs; `overrides` replace or add to what it sweeps, as on `pamfn.train`'s command line.

    Raises:
        InputError: for an unknown table, ablation or setting.
    """
    if name not in table_names():
        raise InputError(f"no table {name!r}. There are: {', '.join(table_names())}.")
    register()
    try:
        words = let_checked_refuse(list(overrides), name)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            fixed = [f"+table={name}", *(word for word in words if not sweeps(word))]
            raw = compose("train", overrides=fixed, return_hydra_config=True)
            swept = [f"+table={name}", *(f"{key}={value}" for key, value in raw.hydra.sweeper.params.items()), *words]
            of_file = Table.model_validate(resolved(raw.table))
            table = with_rows(of_file, expand(swept), words)
            rows_asked = table is of_file or any(sets(word, table.row) for word in words)
            own_words = [] if rows_asked else [f"{table.row}={','.join(table.rows)}"]
            combinations = expand([*swept, *own_words])
            if any(map(replaces_data, words)):  # refused here, before all of them are composed, which takes long
                of_columns = {values_of(overrides)[table.column]: overrides for overrides in combinations}
                data_names(table, jobs_of(table, [*of_columns.values()])[0], words)
            jobs, problems = jobs_of(table, combinations)
            data = data_names(table, jobs, words)
    except HydraException as error:
        raise InputError(f"{name}: {with_hint(str(error)).splitlines()[0]}") from error
    if not jobs:
        raise InputError(problems)
    refuse_several(jobs)
    return Sweep(table, jobs, problems, data, own_words)


def sweeps(word: str) -> bool:
    """Whether a word of the command line has several values."""
    return OverridesParser.create().parse_override(word).is_sweep_override()


def sets(word: str, key: str) -> bool:
    """Whether a word of the command line gives this key a value."""
    return word.partition("=")[0] == key


def expand(words: Sequence[str]) -> list[list[str]]:
    """Every combination of the swept values, as Hydra's own sweeper makes them."""
    parsed_words: list[Override] = OverridesParser.create().parse_overrides(list(words))
    (batch,) = BasicSweeper.split_arguments(parsed_words, max_batch_size=None)
    return [list(job) for job in batch]


def values_of(overrides: Sequence[str]) -> dict[str, str]:
    """The settings of one combination: {key: value}."""
    return dict(word.split("=", 1) for word in overrides if "=" in word)


def jobs_of(table: Table, combinations: Sequence[list[str]]) -> tuple[list[Job], list[str]]:
    """Compose every combination; those that cannot be composed become sentences."""
    jobs, problems = [], list[str]()
    for overrides, config in composed_combinations(combinations, problems):
        values = values_of(overrides)
        jobs.append(Job(values[table.row], values[table.column], config.seed, config, overrides))
    return jobs, list(dict.fromkeys(problems))


def composed_combinations(combinations: Sequence[list[str]], problems: list[str]) -> Iterator[tuple[list[str], Config]]:
    """Pair every combination with its configuration; problems are added for those that cannot be composed.

    Those that differ by their seed or fold alone are composed once, since nothing else follows from these.
    """
    known: dict[tuple[str, ...], Config | None] = {}
    for overrides in combinations:
        seed = next((word for word in overrides if is_seed(word)), None)
        fold = next((word for word in overrides if is_fold(word)), None)
        others = tuple(word for word in overrides if word not in (seed, fold))
        if others not in known:
            try:
                known[others] = settings_of((*others, *([fold] if fold else [])))
            except InputError as error:
                known[others] = None
                problems += error.problems
        config = known[others]
        if config is not None:
            chosen = config.seed if seed is None else seed_of(seed)
            yield overrides, config.model_copy(update={"seed": chosen} | with_fold(config, fold))


def is_seed(word: str) -> bool:
    return word.lstrip("+").startswith("seed=")


def is_fold(word: str) -> bool:
    return word.lstrip("+").startswith("protocol.fold=")


def swept_over_folds(words: Sequence[str]) -> list[Job]:
    """The jobs of a sweep over folds without a table; empty for any other sweep.

    The row is what of the words is swept beside seeds and folds, the column the data.
    """
    register()
    spelt = let_checked_refuse([word for word in words if not word.startswith("-")])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        raw = compose("train", overrides=[word for word in spelt if not sweeps(word)], return_hydra_config=True)
        if raw.protocol.get("folds") is None or raw.get("table") is not None:
            return []
        combinations = expand([*(f"{key}={value}" for key, value in (raw.hydra.sweeper.params or {}).items()), *spelt])
        common = set.intersection(*map(set, combinations))
        return [
            Job(
                " ".join(w for w in words if w not in common and not is_seed(w) and not is_fold(w)),
                name,
                seed,
                config,
                [],
            )
            for words, config in composed_combinations(combinations, [])
            for name, seed in [(str(config.data.get("name")), config.seed)]
        ]


def settings_of(overrides: Sequence[str]) -> Config:
    """The configuration of one job."""
    raw = compose("train", overrides=list(overrides), return_hydra_config=True)
    refuse_choices(raw.hydra.runtime.choices)
    return parsed(resolved(OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"])))


def with_fold(config: Config, word: str | None) -> dict[str, Protocol]:
    """`protocol.fold=3`: the protocol that tests this fold."""
    number = "" if word is None else word.partition("=")[2]
    fold = int(number) if number.isdecimal() else config.protocol.fold
    return {"protocol": config.protocol.model_copy(update={"fold": fold})}


def seed_of(word: str) -> int:
    """`seed=3`: 3."""
    number = word.partition("=")[2]
    if not number.isdecimal() or int(number) >= SEEDS:
        raise InputError(f"seed: input should be a whole number from 0 to {SEEDS - 1}, found {number!r}.")
    return int(number)


def refuse_several(jobs: Sequence[Job]) -> None:
    """Refuse several runs of one cell, seed and fold: whatever else is swept would be lost in it."""
    places = Counter((job.row, job.column, job.seed, job.fold) for job in jobs)
    (row, column, seed, _), most = places.most_common(1)[0]
    if most > 1:
        raise InputError(
            f"{most} runs for {row}, {column}, seed {seed}: something else is swept too. "
            "Ask for one table a value, or sweep it without +table."
        )


# the data of the columns


def first_jobs(jobs: Sequence[Job]) -> dict[str, Job]:
    """{column as swept: its first job}."""
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(job.column, job)
    return first


def data_names(table: Table, jobs: Sequence[Job], words: Sequence[str]) -> dict[str, str]:
    """{column as swept: the name of its data}; as swept where files give several columns the same data.

    Raises:
        InputError: when the words of a command do so: one network would stand in all of these columns.
    """
    first = first_jobs(jobs)
    names = {column: str(job.config.data.get("name")) for column, job in first.items()}
    videos = {column: which_videos(job.config.data) for column, job in first.items()}
    for column in first:
        alike = [other for other in first if names[other] == names[column] or videos[other] == videos[column]]
        if len(alike) > 1 and any(has_replaced_data(first[other]) for other in alike):
            asked = " ".join(word.lstrip("+") for word in words if replaces_data(word))
            raise InputError(
                f"{asked}: the columns {', '.join(alike)} of {table.name} would all be of the same data, "
                f"{names[column]}. Choose the one column whose other settings it takes, e.g. "
                f"{table.column}={alike[0]}."
            )
    counts = Counter(names.values())
    return {column: column if counts[name] > 1 else name for column, name in names.items()}


def which_videos(data: Node) -> Node:
    """The settings of a data set that say which videos and points it has, whatever it is called."""
    return {key: value for key, value in data.items() if key not in READ_HOW and value is not None}


def has_replaced_data(job: Job) -> bool:
    """Whether words of the command line gave a job other data than its files would."""
    words = [word for word in job.overrides if not replaces_data(word)]
    given, of_files = job.config.data, resolved(compose("train", words).data)
    return given.get("name") != of_files.get("name") or which_videos(given) != which_videos(of_files)


# rows that are subsets of streams


def with_rows(table: Table, combinations: Sequence[list[str]], words: Sequence[str]) -> Table:
    """Give a table whose rows are subsets of streams the rows for the streams of its columns.

    Three streams stand in the places of RGB, flow and audio: the rows stay those of the table's file, and are called by
    these streams where all columns have the same.

    Raises:
        InputError: when the columns need different rows, or a row is chosen that these streams do not have.
    """
    if not table.streams:
        return table
    chosen = [word.lstrip("+") for word in words if word.lstrip("+").startswith(("modalities=", "available="))]
    if chosen:
        raise InputError(
            f"{' '.join(chosen)}: the rows of {table.name} choose the streams. Choose of its rows instead, e.g. "
            f"{table.row}={next(iter(table.rows))}."
        )
    streams = streams_of(table, combinations)
    if not streams:
        return table
    own, *others = streams.values()
    if all(len(names) == len(PAPER_STREAMS) for names in streams.values()):
        return table if any(other != own for other in others) else called_by(table, own)
    if any(other != own for other in others):
        each = "; ".join(f"{column}: {', '.join(names)}" for column, names in streams.items())
        raise InputError(
            f"{table.name}: its rows are the data set's streams, and these columns have different ones ({each}). "
            f"Choose one of them, e.g. {table.column}={next(iter(streams))}."
        )
    rows = rows_of(table, own)
    asked = {values_of(overrides)[table.row] for overrides in combinations}
    strangers = [value for value in table.rows if value in asked and value not in rows]
    if strangers and any(sets(word, table.row) for word in words):
        raise InputError(
            f"{table.row}={','.join(strangers)}: for data sets of three streams, and this one has {', '.join(own)}. "
            f"Choose a row of its own, e.g. {table.row}={next(iter(rows))}, or leave the word out for all of them."
        )
    return table.model_copy(update={"rows": rows})


def called_by(table: Table, streams: Sequence[str]) -> Table:
    """Call a table's rows by a data set's own three streams, unless these are the paper's."""
    own: dict[str, str] = dict(zip(PAPER_STREAMS, streams, strict=True))
    if all(theirs.casefold() == ours.casefold() for theirs, ours in own.items()):
        return table
    rows = {value: PLACE.sub(lambda found: own[found[0]], name) for value, name in table.rows.items()}
    return table.model_copy(update={"rows": rows})


def streams_of(table: Table, combinations: Sequence[list[str]]) -> dict[str, list[str]]:
    """{column as swept: the streams of its data}, without the columns that cannot be composed: their jobs say why."""
    streams: dict[str, list[str]] = {}
    for overrides in combinations:
        column = values_of(overrides)[table.column]
        if column not in streams:
            others = [word for word in overrides if not sets(word, table.row)]
            raw = compose("train", others, return_hydra_config=True)
            with suppress(InputError):
                refuse_choices(raw.hydra.runtime.choices)
                streams[column] = list(raw.features)
    return streams


def rows_of(table: Table, streams: Sequence[str]) -> dict[str, str]:
    """{ablation: name} of a table's rows, with those for these streams where its file has some by place."""
    group = table.row.lstrip("+")
    made = {
        ablation(group, subsets, chosen, streams): subsets.name.format("+".join(chosen))
        for subsets in table.streams
        for chosen in subsets_of(streams, *subsets.sizes)
    }
    rows: dict[str, str] = {}
    for value, name in table.rows.items():
        rows |= made if by_place(name) else {value: name}
    return rows


def subsets_of(streams: Sequence[str], *sizes: int) -> list[tuple[str, ...]]:
    """All subsets from one size to another, small ones first; -1 is the size of the whole, -2 one less."""
    fewest, most = (size if size > 0 else len(streams) + 1 + size for size in sizes)
    return [chosen for size in range(fewest, most + 1) for chosen in itertools.combinations(streams, size)]


def ablation(group: str, subsets: Subsets, chosen: Sequence[str], streams: Sequence[str]) -> str:
    """The ablation that a row is chosen by: for all streams its file, else one that is made and registered here."""
    if len(chosen) == len(streams):
        return subsets.ablation
    name = f"{subsets.ablation}_{'on' if subsets.setting == 'modalities' else 'zeroed_to'}_{'+'.join(chosen)}"
    node = {"defaults": [subsets.ablation, "_self_"], subsets.setting: list(chosen)}
    ConfigStore.instance().store(group=group, name=name, node=node, package="_global_")
    return name


def by_place(name: str) -> bool:
    """Whether a row is called by one of three streams."""
    return PLACE.search(name) is not None
