"""A table of the paper as a sweep: its jobs, their results, what they would cost. Nothing here imports torch."""

import shlex
from collections import Counter
from collections.abc import Collection, Sequence
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
from omegaconf import OmegaConf

from pamfn.config import CONF, let_checked_refuse, parsed, refuse_other_features, register, resolved, table_names
from pamfn.errors import InputError
from pamfn.finished import Kind, every_run, finished, locate, readable, wanted
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


@dataclass(frozen=True)
class Sweep:
    """A table, its jobs, and a sentence for every combination that cannot be one."""

    table: Table
    jobs: list[Job]
    problems: list[str]


def sweep_of(name: str, overrides: Sequence[str] = ()) -> Sweep:
    """The jobs of a table; `overrides` replace or add to what it sweeps, as on the command line of `pamfn.train`.

    Raises:
        InputError: for an unknown table, ablation or setting.
    """
    if name not in table_names():
        raise InputError(f"no table {name!r}. There are: {', '.join(table_names())}.")
    register()
    words = let_checked_refuse(seed_by_seed(overrides), name)
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            fixed = [f"+table={name}", *(w for w in words if not sweeps(w))]
            raw = compose("train", overrides=fixed, return_hydra_config=True)
            params = {key: str(value) for key, value in raw.hydra.sweeper.params.items()}
            table = Table.model_validate(resolved(raw.table))
            expanded = expand([f"+table={name}", *(f"{key}={value}" for key, value in params.items()), *words])
            jobs, problems = jobs_of(table, expanded)
    except HydraException as error:
        raise InputError(f"{name}: {str(error).splitlines()[0]}") from error
    if not jobs:
        raise InputError(problems)
    refuse_several(jobs)
    return Sweep(table, jobs, problems)


def seed_by_seed(words: Sequence[str]) -> list[str]:
    """`seeds=[0,1]` as `seed=0,1`: every seed has a run of its own, however it is trained."""
    return [f"seed={word.partition('=')[2].strip('[]')}" if is_seeds(word) else word for word in words]


def is_seeds(word: str) -> bool:
    """Whether a word of the command line asks for several seeds in one training."""
    return word.lstrip("+").startswith("seeds=[")


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
    refuse_other_features(raw.hydra.runtime.choices)
    return parsed(resolved(OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"])))


def seed_of(word: str) -> int:
    """`seed=3`: 3."""
    number = word.partition("=")[2]
    if not number.isdecimal():
        raise InputError(f"seed: input should be a whole number from 0 on, found {number!r}.")
    return int(number)


def plan(sweep: Sweep) -> str:
    """A line for every job: done or not, and what it would cost by the time that finished runs like it took."""
    known = [result for _, result in readable(every_run(Path(sweep.jobs[0].config.paths.output_dir)))]
    lines, done, costs = [], 0, dict[str, float | None]()
    for job in sweep.jobs:
        name = job.run.path.name
        try:
            state = "done" if job.result else "interrupted" if job.run.file("resume.ckpt").exists() else "missing"
        except InputError as error:
            state = f"unreadable: {error}"
        needed = [] if state == "done" else nets(job)
        own = {run.path.name: hours(job.config, kind, modalities, known) for run, kind, modalities in needed}
        told = "" if state == "done" else cost_of(own.values())
        costs |= own
        done += state == "done"
        lines.append(f"  {job.row:<28} {job.column:<12} seed {job.seed}  {told:<8} {state:<12} {name}")
    total, unknown = sum(cost or 0 for cost in costs.values()), list(costs.values()).count(None)
    rest = f", and {unknown} networks of unknown cost" if unknown else ""
    lines += [f"  left out: {problem}" for problem in sweep.problems]
    lines.append(f"{done} of {len(sweep.jobs)} done; the others need about {total:.1f} h of one thread{rest}.")
    return "\n".join(lines)


def cost_of(hours: Collection[float | None]) -> str:
    """Hours of the networks that a job trains, branches that other jobs share with it included."""
    known = [cost for cost in hours if cost is not None]
    return f"{sum(known):5.2f} h" if len(known) == len(hours) else "    ? h"


def nets(job: Job) -> list[tuple[Run, Kind, list[str]]]:
    """The networks that a job trains: those of stage 1 and the fused one, as far as they are not finished."""
    kind, modalities = wanted(job.config)
    trained: Kind = "fusion" if kind == "missing" else kind
    located: list[tuple[Run, Kind, list[str]]] = [(locate(job.config, trained, modalities), trained, modalities)]
    if trained == "fusion" and job.config.recipe.stages == 2:
        for modality in modalities:
            located.append((locate(job.config, "branch", [modality]), "branch", [modality]))
    return [net for net in located if not net[0].file("result.json").exists()]


def hours(config: Config, kind: Kind, modalities: list[str], known: Sequence[dict[str, Any]]) -> float | None:
    """By the median time of an epoch in finished runs of the same network, else of the same data; None without any."""
    recipe = getattr(config.recipe, kind)
    like = [r for r in known if r["name"] == config.data.get("name") and r["kind"] == kind]
    like = [r for r in like if len(r["modalities"]) == len(modalities)] or like
    like = [r for r in like if r["config"]["model"] == config.model] or like
    if not like or recipe is None:
        return None
    return median(r["times"]["seconds_per_epoch"] for r in like) * recipe.epochs / 3600
