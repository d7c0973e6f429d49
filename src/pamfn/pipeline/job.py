"""A job: the settings of one run, composed by Hydra, and the finished run that they ask for."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from pamfn.config.compose import CONF, let_checked_refuse, refuse_choices, register, replaces_data, with_hint
from pamfn.config.schema import Config
from pamfn.config.validation import checked, parsed, resolved
from pamfn.errors import InputError
from pamfn.runs.folder import Run
from pamfn.runs.lookup import finished


def fit(*overrides: str) -> Path:
    """Train the network that these settings ask for, unless its run is finished; return the folder of the run.

    overrides: words of the command line of `pamfn train`, e.g. `"+experiment=demo", "logger=csv"`.

    Raises:
        InputError: when the settings or the data do not allow it.
    """
    run, _ = run_or_load(raw_settings(overrides))
    return run.path


def raw_settings(overrides: Sequence[str]) -> DictConfig:
    """Compose the settings of a single job.

    Raises:
        InputError: when Hydra refuses the words, or they are a table's.
    """
    register()
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            raw = hydra.compose("train", let_checked_refuse(list(overrides)), return_hydra_config=True)
    except HydraException as error:
        raise InputError(with_hint(str(error))) from error
    refuse_choices(raw.hydra.runtime.choices)
    refuse_single_table(raw)
    return OmegaConf.masked_copy(raw, [str(key) for key in raw if key != "hydra"])


def refuse_single_table(raw: DictConfig) -> None:
    """Refuses the file of a table in a single job: it is a sweep."""
    if raw.get("table"):
        raise InputError(f"table={raw.table.name} is a sweep of many runs: add -m (and --dry to only list them).")


def run_or_load(raw: DictConfig, words: Sequence[str] = ()) -> tuple[Run, bool]:
    """Load the run that a job asks for if it is finished, else train it; and whether it was loaded.

    words: the job's words of the command line, which name its place in a table.
    """
    run = loaded(raw)
    if run is None:
        config = checked(raw)
        run = finished(config)
        if run is None:
            from pamfn.pipeline.reload import quiet
            from pamfn.pipeline.two_stage import run_job

            quiet()
            return run_job(tagged(config, words)), False
    run.tidy()
    return run, True


def loaded(raw: DictConfig) -> Run | None:
    """The finished run of a job, found without torch: without checking the arguments of its classes.

    Those of data and model are in the run's name. With another trainer, or anything wrong, it takes `checked` to say.
    """
    with suppress(InputError):
        run = finished(parsed(resolved(raw)))
        if run is not None and run.finished()["config"]["trainer"] == resolved(raw)["trainer"]:
            return run
    return None


def tagged(config: Config, words: Sequence[str]) -> Config:
    """The configuration with the row and column of its table as W&B tags; replaced data are the column."""
    if config.table is None:
        return config
    values = dict(word.split("=", 1) for word in words if "=" in word)
    if any(map(replaces_data, words)):
        values[config.table.column] = str(config.data.get("name"))
    place = [values[key] for key in (config.table.row, config.table.column) if key in values]
    logger = config.logger.model_copy(update={"tags": [*config.logger.tags, *place]})
    return config.model_copy(update={"logger": logger})
