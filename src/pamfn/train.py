"""`python -m pamfn.train +experiment=fisv_tes`: both stages, scored test videos, a run folder that says it all.

With `-m +table=NAME` the sweep of a table of the paper; with `--dry` beside it, only what the sweep would do.
"""

import sys
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pamfn.command_line.process import refuse, refuse_unread, refusing, say
from pamfn.config.compose import CONF, let_checked_refuse, refuse_choices, register, table_names
from pamfn.errors import InputError, TerminatedError
from pamfn.evaluation.metrics import main_metric
from pamfn.pipeline.failures import foreseen, list_failed, record, run_jobs
from pamfn.pipeline.job import refuse_single_table, run_or_load
from pamfn.runs.summary import summary_of

if TYPE_CHECKING:
    from pamfn.reporting.sweep import Sweep

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(raw: DictConfig) -> float:
    """Run one job of Hydra's and print its summary; return the reported srcc or map, nan if a sweep's job failed."""
    settings = HydraConfig.get()
    single, words = settings.mode != RunMode.MULTIRUN, settings.overrides.task
    try:
        if single:
            refuse_single_table(raw)
        refuse_choices(settings.runtime.choices)
        run, was_finished = run_or_load(raw, words)
        if was_finished:
            say(f"read from {run.path}")
        result = run.finished()
        say(summary_of(run, result))
        metrics = result["metrics"][result["reported"]]
        value = metrics[main_metric(metrics)]
        return float("nan") if value is None else value
    except TerminatedError as error:
        refuse(error)
    except BrokenPipeError as error:
        refuse_unread(error)
    except Exception as error:
        if not single:  # the rest of the sweep goes on
            record(error)
            return float("nan")
        refuse(foreseen(error, words))


def table_of(words: list[str]) -> str | None:
    """The table in the words of the command line.

    Raises:
        InputError: when there are several, or none of that name.
    """
    names = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("table=")]
    if len(names) > 1 or "," in "".join(names):
        raise InputError(f"+table={','.join(names)}: one table at a time.")
    if names and names[0] not in table_names():
        raise InputError(f"no table {names[0]!r}. There are: {', '.join(table_names())}.")
    return names[0] if names else None


def expanded(table: str, words: list[str]) -> "Sweep":
    """The sweep of a table with the other words of the command line."""
    from pamfn.reporting.sweep import sweep_of

    options = ("-m", "--multirun", "--dry")
    return sweep_of(table, [w for w in words if w not in options and not w.lstrip("+").startswith("table=")])


def prepare(words: list[str]) -> None:
    """Replaces the user's words by Hydra's, after refusing what can be refused before any job."""
    words = sorted(words, key=lambda word: word not in ("-m", "--multirun"))  # Hydra wants options first
    table, options = table_of(words), {word for word in words if word.startswith("-")}
    if table and options in ({"-m"}, {"--multirun"}):
        words = [*words, *expanded(table, words).words]
    sys.argv[1:] = let_checked_refuse(words, table or "")


def dry(words: list[str]) -> None:
    """Prints the jobs of a table's sweep: which are done, and how many hours the others would take."""
    from pamfn.reporting.plan import plan

    table = table_of(words)
    if table is None:
        raise InputError("--dry lists the runs of one table: add +table=NAME.")
    print(plan(expanded(table, words)))


@refusing()
def main() -> None:
    words = sys.argv[1:]
    if "--dry" in words:
        dry(words)
        return
    prepare(words)
    run_jobs(job, words)
    if list_failed():
        raise SystemExit(1)
    if not {"-m", "--multirun"}.isdisjoint(words):
        from pamfn.reporting.folds import folds_summary

        if summary := folds_summary(words):
            say(summary)


if __name__ == "__main__":
    main()
