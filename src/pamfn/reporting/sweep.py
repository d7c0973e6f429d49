"""A table of the paper as a sweep: its jobs, their results, the hours they would take. Nothing here imports torch."""

import shlex
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf

from pamfn.config.compose import CONF, let_checked_refuse, refuse_choices, register, replaces_data, table_names
from pamfn.config.schema import SEEDS, Config, Node, Table
from pamfn.config.validation import parsed, resolved
from pamfn.errors import InputError
from pamfn.reporting.stream_rows import of_streams
from pamfn.runs.folder import Run
from pamfn.runs.lookup import finished, locate, wanted


@dataclass(frozen=True)
class Job:
    """One run of a table: row and column as they are swept (`free_fusionnets`, `fisv_tes`), and its configuration."""

    row: str
    column: str
    seed: int
    config: Config
    overrides: list[str]

    @property
    def run(self) -> Run:
        """Where its result is, or will be."""
        return locate(self.config, *wanted(self.config))

    @property
    def command(self) -> str:
        """What trains it."""
        return f"python -m pamfn.train -m {shlex.join(self.overrides)}"

    @cached_property
    def result(self) -> dict[str, Any] | None:
        """Its result, from the configured output or the archive; None when it is not run.

        Raises:
            InputError: when there is one that cannot be trusted.
        """
        found = finished(self.config)
        return None if found is None else found.result()


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
    """The jobs of a table; `overrides` replace or add to what it sweeps, as on the command line of `pamfn.train`.

    Raises:
        InputError: for an unknown table, ablation or setting.
    """
    if name not in table_names():
        raise InputError(f"no table {name!r}. There are: {', '.join(table_names())}.")
    register()
    try:
        words = let_checked_refuse(list(overrides), name)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            fixed = [f"+table={name}", *(w for w in words if not sweeps(w))]
            raw = compose("train", overrides=fixed, return_hydra_config=True)
            params = {key: str(value) for key, value in raw.hydra.sweeper.params.items()}
            table = Table.model_validate(resolved(raw.table))
            swept = [f"+table={name}", *(f"{key}={value}" for key, value in params.items()), *words]
            file, table = table, with_rows(table, expand(swept), words)
            own = [] if table is file or row_words(table, words) else [f"{table.row}={','.join(table.rows)}"]
            combinations = expand([*swept, *own])
            if any(map(replaces_data, words)):  # refused before all of them are composed
                of_columns = {dict(w.split("=", 1) for w in c if "=" in w)[table.column]: c for c in combinations}
                data_of(table, jobs_of(table, [*of_columns.values()])[0], words)
            jobs, problems = jobs_of(table, combinations)
            data = data_of(table, jobs, words)
    except HydraException as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}") from error
    if not jobs:
        raise InputError(problems)
    refuse_several(jobs)
    return Sweep(table, jobs, problems, data, own)


def with_rows(table: Table, combinations: Sequence[list[str]], words: Sequence[str]) -> Table:
    """The table with the rows that these combinations' data sets have streams for.

    Raises:
        InputError: when there is no such table.
    """
    if not table.streams:
        return table
    chosen = [word.lstrip("+") for word in words if word.lstrip("+").startswith(("modalities=", "available="))]
    if chosen:
        raise InputError(
            f"{' '.join(chosen)}: the rows of {table.name} choose the streams. Choose of its rows instead, e.g. "
            f"{table.row}={next(iter(table.rows))}."
        )
    streams, asked = dict[str, list[str]](), set[str]()
    for overrides in combinations:
        values = dict(word.split("=", 1) for word in overrides if "=" in word)
        asked.add(values[table.row])
        if values[table.column] not in streams:
            others = [word for word in overrides if word.partition("=")[0] != table.row]
            raw = compose("train", others, return_hydra_config=True)
            with suppress(InputError):  # its jobs will say so
                refuse_choices(raw.hydra.runtime.choices)
                streams[values[table.column]] = list(raw.features)
    return of_streams(table, streams, asked if row_words(table, words) else ())


def row_words(table: Table, words: Sequence[str]) -> list[str]:
    """The words of a command line that choose rows."""
    return [word for word in words if word.partition("=")[0] == table.row]


READ_HOW = ("_target_", "name", "crop", "bags", "max_score", "annotations")
"""Settings of a data set that do not say which videos and points it has."""


def which(data: Node) -> Node:
    """The settings of a data set that say which videos and points it has, whatever it is called."""
    return {key: value for key, value in data.items() if key not in READ_HOW and value is not None}


def known_as(data: Node) -> tuple[str, Node]:
    """What a data set is called, and which it is."""
    return str(data.get("name")), which(data)


def data_of(table: Table, jobs: Sequence[Job], words: Sequence[str]) -> dict[str, str]:
    """{column as swept: the name of its data}; as swept where files give several columns the same data.

    Raises:
        InputError: when the words of a command do so: one network would stand in all of these columns.
    """
    first = {job.column: job for job in reversed(jobs)}
    columns = list(dict.fromkeys(job.column for job in jobs))
    names = {column: str(first[column].config.data.get("name")) for column in columns}
    asked = [word.lstrip("+") for word in words if replaces_data(word)]
    for column in columns:
        data = which(first[column].config.data)
        alike = [c for c in columns if names[c] == names[column] or which(first[c].config.data) == data]
        if len(alike) == 1:
            continue
        if any(known_as(first[c].config.data) != known_as(data_by_files(first[c])) for c in alike):
            raise InputError(
                f"{' '.join(asked)}: the columns {', '.join(alike)} of {table.name} would all be of the same data, "
                f"{names[column]}. Choose the one column whose other settings it takes, e.g. "
                f"{table.column}={alike[0]}."
            )
    twins = {name for name, count in Counter(names.values()).items() if count > 1}
    return {column: column if name in twins else name for column, name in names.items()}


def data_by_files(job: Job) -> Node:
    """The data of a job without the words that replace them."""
    return resolved(compose("train", [word for word in job.overrides if not replaces_data(word)]).data)


def refuse_several(jobs: Sequence[Job]) -> None:
    """A cell has one run a seed: anything else that is swept would be lost in it."""
    places = Counter((job.row, job.column, job.seed) for job in jobs)
    (row, column, seed), most = places.most_common(1)[0]
    if most > 1:
        raise InputError(
            f"{most} runs for {row}, {column}, seed {seed}: something else is swept too. "
            "Ask for one table a value, or sweep it without +table."
        )


def sweeps(word: str) -> bool:
    return OverridesParser.create().parse_override(word).is_sweep_override()


def expand(words: Sequence[str]) -> list[list[str]]:
    """Every combination of the swept values, as Hydra's own sweeper makes them."""
    parsed_words: list[Override] = OverridesParser.create().parse_overrides(list(words))
    (batch,) = BasicSweeper.split_arguments(parsed_words, max_batch_size=None)
    return [list(job) for job in batch]


def jobs_of(table: Table, combinations: Sequence[list[str]]) -> tuple[list[Job], list[str]]:
    """The combinations, composed, and what is wrong with the others.

    Those that differ by their seed alone are composed once, since nothing else follows from it.
    """
    known: dict[tuple[str, ...], Config | None] = {}
    jobs, problems = [], dict[str, None]()
    for overrides in combinations:
        values = dict(word.split("=", 1) for word in overrides if "=" in word)
        word = next((w for w in overrides if w.lstrip("+").startswith("seed=")), "seed=0")
        key = tuple(w for w in overrides if w != word)
        if key not in known:
            try:
                known[key] = settings_of(key)
            except InputError as error:
                known[key] = None
                problems |= dict.fromkeys(error.problems)
        config = known[key]
        if config is not None:
            config = config.model_copy(update={"seed": seed_of(word)})
            jobs.append(Job(values[table.row], values[table.column], config.seed, config, overrides))
    return jobs, list(problems)


def settings_of(overrides: Sequence[str]) -> Config:
    """The configuration of one job."""
    raw = compose("train", overrides=list(overrides), return_hydra_config=True)
    refuse_choices(raw.hydra.runtime.choices)
    return parsed(resolved(OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"])))


def seed_of(word: str) -> int:
    """`seed=3`: 3."""
    number = word.partition("=")[2]
    if not number.isdecimal() or int(number) >= SEEDS:
        raise InputError(f"seed: input should be a whole number from 0 to {SEEDS - 1}, found {number!r}.")
    return int(number)
