"""`python -m pamfn.train +experiment=fisv_tes`: both stages, scored test videos, a run folder that says it all.

With `-m +table=NAME` the sweep of a table of the paper; with `--dry` beside it, only what the sweep would do.
"""

import logging
import os
import sys
import time
from contextlib import suppress

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pamfn import config, failures
from pamfn.errors import InputError
from pamfn.finished import finished
from pamfn.store import Run
from pamfn.summary import summary_of

log = logging.getLogger(__name__)

config.register()


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="train")
def job(raw: DictConfig) -> float:
    """One job of Hydra's; the reported Spearman correlation, nan for a failed job of a sweep."""
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        try:
            refuse_single_table(raw)
            return answer(raw)
        except InputError as error:
            config.refuse(error)
    try:
        return answer(raw)
    except Exception as error:  # the rest of the sweep goes on
        failures.record(error)
        return float("nan")


def refuse_single_table(raw: DictConfig) -> None:
    """A table's file makes sense for a sweep only."""
    if raw.get("table"):
        raise InputError(f"table={raw.table.name} is a sweep of many runs: add -m (and --dry to only list them).")


def answer(raw: DictConfig) -> float:
    """Reads the run that answers the job if it is finished, trains it if not, and prints what came out."""
    with suppress(InputError):  # `checked` says all of what is wrong
        run = finished(config.parsed(config.resolved(raw)))
        if run is not None:
            print(f"read from {run.path}")
            return told(run)
    checked = tagged(config.checked(raw))
    from pamfn.pipeline import quiet, run_job

    quiet()
    return told(run_job(checked))


def tagged(job: config.Config) -> config.Config:
    """With its row and column of the table as W&B tags."""
    if job.table is None:
        return job
    values = dict(word.split("=", 1) for word in HydraConfig.get().overrides.task)
    place = [values[key] for key in (job.table.row, job.table.column) if key in values]
    return job.model_copy(update={"logger": job.logger.model_copy(update={"tags": [*job.logger.tags, *place]})})


def told(run: Run) -> float:
    """Prints a run's summary; its reported Spearman correlation."""
    result = run.result()
    assert result is not None
    print(summary_of(run, result))
    srcc = result["metrics"][result["reported"]]["srcc"]
    return float("nan") if srcc is None else srcc


def dry(words: list[str]) -> None:
    """Prints the jobs of a table's sweep: which are done, what the others would cost."""
    from pamfn.sweep import plan, sweep_of

    tables = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("table=")]
    if len(tables) != 1:
        config.refuse(InputError("--dry lists the runs of one table: add +table=NAME."))
    rest = [w for w in words if w not in ("-m", "--multirun", "--dry") and not w.lstrip("+").startswith("table=")]
    try:
        print(plan(sweep_of(tables[0], rest)))
    except InputError as error:
        config.refuse(error)


def main() -> None:
    words = sys.argv[1:]
    if "--dry" in words:
        return dry(words)
    tables = [word.partition("=")[2] for word in words if word.lstrip("+").startswith("table=")]
    sys.argv[1:] = config.let_checked_refuse(words, *tables)
    os.environ["PAMFN_SWEEP"] = time.strftime("%Y-%m-%d_%H-%M-%S")  # one folder, also for jobs in other processes
    job()
    if failures.told():
        raise SystemExit(1)
    return None


if __name__ == "__main__":
    main()
