"""`python -m pamfn.train +experiment=fisv_tes`: both stages, scored test videos, a run folder that says it all.

With `-m +table=NAME` the sweep of a table of the paper; with `--dry` beside it, only what the sweep would do.
"""

import logging
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pamfn.command_line.process import PARENT, refuse, refuse_unread, say
from pamfn.config.compose import CONF, let_checked_refuse, refuse_choices, register, table_names
from pamfn.config.schema import Config
from pamfn.config.validation import checked, parsed, resolved
from pamfn.errors import InputError, TerminatedError
from pamfn.evaluation.metrics import main_metric
from pamfn.pipeline.failures import foreseen, list_failed, record
from pamfn.runs.folder import Run
from pamfn.runs.lookup import finished
from pamfn.runs.summary import summary_of

if TYPE_CHECKING:
    from pamfn.reporting.sweep import Sweep

log = logging.getLogger(__name__)

register()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def job(raw: DictConfig) -> float:
    """One job of Hydra's; the reported Spearman correlation (or mAP), nan for a failed job of a sweep."""
    single = HydraConfig.get().mode != RunMode.MULTIRUN
    try:
        if single:
            refuse_single_table(raw)
        return run_or_load(raw)
    except TerminatedError as error:
        refuse(error)
    except BrokenPipeError as error:
        refuse_unread(error)
    except Exception as error:
        if not single:  # the rest of the sweep goes on
            record(error)
            return float("nan")
        refuse(foreseen(error, HydraConfig.get().overrides.task))


def refuse_single_table(raw: DictConfig) -> None:
    """A table's file makes sense for a sweep only."""
    if raw.get("table"):
        raise InputError(f"table={raw.table.name} is a sweep of many runs: add -m (and --dry to only list them).")


def run_or_load(raw: DictConfig) -> float:
    """Reads the run that answers the job if it is finished, trains it if not, and prints what came out."""
    refuse_choices(HydraConfig.get().runtime.choices)
    with suppress(InputError):  # `checked` says all of what is wrong
        run = finished(parsed(resolved(raw)))
        if run is not None and same_trainer(run, raw):
            return read(run)
    settings = tagged(checked(raw))
    run = finished(settings)
    return read(run) if run is not None else print_summary(trained(settings))


def trained(job: Config) -> Run:
    """The job's run, which is trained (or gone on with)."""
    from pamfn.pipeline.reload import quiet
    from pamfn.pipeline.two_stage import run_job

    quiet()
    return run_job(job)


def fit(*overrides: str) -> Path:
    """Train the network that these settings ask for unless its run is finished; the folder of the run.

    overrides: words of the command line of `pamfn train`, e.g. `"+experiment=demo", "logger=csv"`.

    Raises:
        InputError: when the settings or the data do not allow it.
    """
    register()
    words = let_checked_refuse(list(overrides))
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            raw = hydra.compose("train", words, return_hydra_config=True)
    except HydraException as error:
        raise InputError(str(error)) from error
    refuse_choices(raw.hydra.runtime.choices)
    refuse_single_table(raw)
    job = checked(OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"]))
    return (finished(job) or trained(job)).path


def same_trainer(run: Run, raw: DictConfig) -> bool:
    """Whether the finished run had this trainer, so that its settings need not be checked again (which takes torch)."""
    result = run.result()
    return result is not None and result["config"]["trainer"] == resolved(raw)["trainer"]


def read(run: Run) -> float:
    run.tidy()
    say(f"read from {run.path}")
    return print_summary(run)


def tagged(job: Config) -> Config:
    """With its row and column of the table as W&B tags; a column whose data a word replaced is called by the data."""
    if job.table is None:
        return job
    from pamfn.reporting.sweep import replaces_data

    words = HydraConfig.get().overrides.task
    values = dict(word.split("=", 1) for word in words if "=" in word)
    if any(map(replaces_data, words)):
        values[job.table.column] = str(job.data.get("name"))
    place = [values[key] for key in (job.table.row, job.table.column) if key in values]
    return job.model_copy(update={"logger": job.logger.model_copy(update={"tags": [*job.logger.tags, *place]})})


def print_summary(run: Run) -> float:
    """Prints the run's summary; its reported number."""
    result = run.finished()
    say(summary_of(run, result))
    metrics = result["metrics"][result["reported"]]
    value = metrics[main_metric(metrics)]
    return float("nan") if value is None else value


def table_of(words: list[str]) -> str | None:
    """The table whose sweep is asked for.

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
    """The sweep that the words of a command line ask for; refuses what no job could make sense of."""
    from pamfn.reporting.sweep import sweep_of

    options = ("-m", "--multirun", "--dry")
    return sweep_of(table, [w for w in words if w not in options and not w.lstrip("+").startswith("table=")])


def prepared(words: list[str]) -> None:
    """Puts Hydra's words in the place of the user's, after what can be said before any job."""
    words = sorted(words, key=lambda word: word not in ("-m", "--multirun"))  # Hydra wants options first
    table, options = table_of(words), {word for word in words if word.startswith("-")}
    if table and options in ({"-m"}, {"--multirun"}):
        words = [*words, *expanded(table, words).words]
    sys.argv[1:] = let_checked_refuse(words, table or "")
    # one folder for a sweep, also for jobs in other processes
    os.environ["PAMFN_SWEEP"] = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{os.getpid()}"
    os.environ[PARENT] = str(os.getpid())


def dry(words: list[str]) -> None:
    """Prints the jobs of a table's sweep: which are done, the hours that the others would take."""
    from pamfn.reporting.plan import plan

    table = table_of(words)
    if table is None:
        raise InputError("--dry lists the runs of one table: add +table=NAME.")
    print(plan(expanded(table, words)))


def main() -> None:
    words = sys.argv[1:]
    try:
        if "--dry" in words:
            return dry(words)
        prepared(words)
        run_jobs(words)
    except InputError as error:
        refuse(error)
    if list_failed():
        raise SystemExit(1)
    return None


def run_jobs(words: list[str]) -> None:
    """Hydra's main.

    Raises:
        InputError: when it does not come to a job, with the settings that may have caused that.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints its own and the end of a traceback
    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(str(error)) from error
    except BrokenPipeError:
        raise
    except Exception as error:
        raise foreseen(error, words) from error


if __name__ == "__main__":
    main()
