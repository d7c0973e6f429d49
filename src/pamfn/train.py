"""`python -m pamfn.train +experiment=fisv_tes`: both stages, scored test videos, a run folder that says it all."""

import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from pamfn import config
from pamfn.errors import InputError

config.register()


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="train")
def job(raw: DictConfig) -> float:
    """One job of Hydra's; the reported Spearman correlation."""
    try:
        return train(config.checked(raw))
    except InputError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # the rest of the sweep goes on
        config.refuse(error)


def train(checked: config.Config) -> float:
    """Trains what the configuration asks for and prints where things are."""
    from pamfn.pipeline import quiet, run_job
    from pamfn.summary import summary_of

    quiet()
    run = run_job(checked)
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
