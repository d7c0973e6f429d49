"""A table of the paper as a sweep: its jobs, their results, what they would cost. Nothing here imports torch."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from pamfn.config import CONF, EXPERIMENTS, let_checked_refuse, parsed, register, resolved
from pamfn.errors import InputError
from pamfn.finished import every_run, finished, locate, readable, wanted
from pamfn.schema import Config, Table
from pamfn.store import Run


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

    @property
    def folder(self) -> Run:
        """The folder that `result` was read from."""
        found = finished(self.config)
        return self.run if found is None else found


@dataclass(frozen=True)
class Sweep:
    """A table and its jobs."""

    table: Table
    jobs: list[Job]


def table_names() -> list[str]:
    """Every table that can be swept."""
    return sorted(f.stem for f in (EXPERIMENTS / "table").glob("*.yaml"))


def sweep_of(name: str, overrides: Sequence[str] = ()) -> Sweep:
    """The jobs of a table; `overrides` replace or add to what it sweeps, as on the command line of `pamfn.train`.

    Raises:
        InputError: for an unknown table, ablation or setting.
    """
    if name not in table_names():
        raise InputError(f"no table {name!r}. There are: {', '.join(table_names())}.")
    register()
    words = let_checked_refuse(list(overrides), name)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            fixed = [f"+table={name}", *(w for w in words if not sweeps(w))]
            raw = compose("train", overrides=fixed, return_hydra_config=True)
            params = {key: str(value) for key, value in raw.hydra.sweeper.params.items()}
            table = Table.model_validate(resolved(raw.table))
            expanded = expand([f"+table={name}", *(f"{key}={value}" for key, value in params.items()), *words])
            return Sweep(table, jobs_of(table, expanded))
    except HydraException as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}") from error


def sweeps(word: str) -> bool:
    return OverridesParser.create().parse_override(word).is_sweep_override()


def expand(words: Sequence[str]) -> list[list[str]]:
    """Every combination of the swept values, as Hydra's own sweeper makes them."""
    parsed_words: list[Override] = OverridesParser.create().parse_overrides(list(words))
    (batch,) = BasicSweeper.split_arguments(parsed_words, max_batch_size=None)
    return [list(job) for job in batch]


def jobs_of(table: Table, combinations: Sequence[list[str]]) -> list[Job]:
    """The combinations, composed; once for those that differ by their seed alone, from which nothing else follows."""
    known: dict[tuple[str, ...], Config] = {}
    jobs = []
    for overrides in combinations:
        values = dict(word.split("=", 1) for word in overrides)
        seed = values.get("seed", values.get("++seed", "0"))
        key = tuple(word for word in overrides if word.lstrip("+") != f"seed={seed}")
        if key not in known:
            known[key] = parsed(resolved(compose("train", overrides=list(key))))
        config = known[key].model_copy(update={"seed": int(seed)})
        jobs.append(Job(values[table.row], values[table.column], int(seed), config, overrides))
    return jobs


def plan(sweep: Sweep) -> str:
    """A line for every job: done or not, and what it would cost by the time that finished runs like it took."""
    known = [result for _, result in readable(every_run(Path(sweep.jobs[0].config.paths.output_dir)))]
    lines, done, total, unknown, seen = [], 0, 0.0, 0, set[str]()
    for job in sweep.jobs:
        name = job.run.path.name
        try:
            state = "done" if job.result else "interrupted" if job.run.file("resume.ckpt").exists() else "missing"
        except InputError as error:
            state = f"unreadable: {error}"
        cost = None if state == "done" else hours(job.config, known)
        told = "" if state == "done" else "  ? h" if cost is None else f"{cost:5.2f} h"
        if state != "done" and name not in seen:
            total, unknown = total + (cost or 0), unknown + (cost is None)
        seen.add(name)
        done += state == "done"
        lines.append(f"  {job.row:<28} {job.column:<12} seed {job.seed}  {told:<8} {state:<12} {name}")
    rest = f", and {unknown} of unknown cost" if unknown else ""
    return "\n".join([*lines, f"{done} of {len(lines)} done; the others need about {total:.1f} h of one thread{rest}."])


def hours(config: Config, known: Sequence[dict[str, Any]]) -> float | None:
    """By the median time of an epoch in finished runs of the same network, else of the same data; None without any."""
    kind, modalities = wanted(config)
    recipe = getattr(config.recipe, kind, None)
    if recipe is None:  # scored or solved, not trained
        return 0.01
    like = [r for r in known if r["name"] == config.data.get("name") and r["kind"] == kind]
    like = [r for r in like if len(r["modalities"]) == len(modalities)] or like
    like = [r for r in like if r["config"]["model"] == config.model] or like
    if not like:
        return None
    seconds = median(r["times"]["seconds_per_epoch"] for r in like)
    return seconds * recipe.epochs / 3600
