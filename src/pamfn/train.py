"""`python -m pamfn.train +experiment=fisv_tes`: both stages, scored test videos, a run folder that says it all."""

import logging
import sys
from contextlib import suppress

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from pamfn import config
from pamfn.errors import InputError
from pamfn.finished import finished
from pamfn.store import Run
from pamfn.summary import summary_of

log = logging.getLogger(__name__)

config.register()


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="train")
def job(raw: DictConfig) -> float:
    """One job of Hydra's; the reported Spearman correlation."""
    try:
        return answer(raw)
    except InputError as error:
        if HydraConfig.get().mode != RunMode.MULTIRUN or config.traceback_wanted():
            config.refuse(error)
        log.error("error: %s", error)  # Hydra ends a sweep with the first error only
        raise CompactHydraException(str(error)) from error  # the rest of the sweep goes on


def answer(raw: DictConfig) -> float:
    """Reads the run that answers the job if it is finished, trains it if not, and prints what came out."""
    with suppress(InputError):  # `checked` says all of what is wrong
        run = finished(config.parsed(config.resolved(raw)))
        if run is not None:
            print(f"read from {run.path}")
            return told(run)
    checked = config.checked(raw)
    from pamfn.pipeline import quiet, run_job

    quiet()
    return told(run_job(checked))


def told(run: Run) -> float:
    """Prints a run's summary; its reported Spearman correlation."""
    result = run.result()
    assert result is not None
    print(summary_of(run, result))
    srcc = result["metrics"][result["reported"]]["srcc"]
    return float("nan") if srcc is None else srcc


def main() -> None:
    sys.argv[1:] = config.let_checked_refuse(sys.argv[1:])
    job()


if __name__ == "__main__":
    main()
