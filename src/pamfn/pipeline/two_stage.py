"""The two stages: a branch for every modality, then the fused network on top of them; or a compared method alone.

Every network is stored once, in a folder named by everything that decides its numbers. One that is there is read; one
that was interrupted goes on; two processes that want the same one do not train it twice.
"""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import torch

from pamfn.config.schema import Config
from pamfn.data.base_datamodule import VideoDataModule
from pamfn.errors import InputError
from pamfn.files import cannot_write
from pamfn.pipeline.build import check_buildable, data_module
from pamfn.pipeline.fit import fit, solve
from pamfn.pipeline.record import record_missing
from pamfn.pipeline.reload import scored
from pamfn.runs.folder import Run
from pamfn.runs.lookup import Kind, locate, refuse_changed_data, wanted
from pamfn.training.loggers import open_logger

log = logging.getLogger(__name__)


def run_job(config: Config) -> Run:
    """Train or read all networks that a configuration asks for; return its run."""
    prepare(config)
    kind, modalities = wanted(config)
    data = data_module(config)
    if kind == "missing":
        return score_with_missing(config, modalities, data)
    return find_or_train(config, kind, modalities, data)


def find_or_train(config: Config, kind: Kind, modalities: list[str], data: VideoDataModule) -> Run:
    """Return the run of one network: read it if it is finished, else train it, its branches first.

    data: of the whole job; it is read only if a network is to be trained.
    """
    run = locate(config, kind, modalities)
    result = run.result()
    if result is None:
        check_buildable(config, kind, modalities)
        data.prepare_data()
        data.setup()
        epochs = epochs_of(config, kind, modalities)
        two_stages = kind == "fusion" and config.recipe.stages == 2
        branches = {m: find_or_train(config, "branch", [m], data).path for m in modalities} if two_stages else {}
        with run.locked():
            result = run.result()  # another process may have been faster
            if result is None:
                if epochs is None:
                    solve(config, run, data.only(modalities))
                else:
                    fit(config, run, kind, data.only(modalities), epochs=epochs, branches=branches)
                return run
    run.tidy()
    refuse_changed_data(config, run, result)
    if data.splits:  # read for a network that is to be trained on top
        refuse_other_videos(run, result, data.only(modalities))
    log.info("%s %s: read from %s", kind, run.path.name, run.path)
    return run


def epochs_of(config: Config, kind: Kind, modalities: list[str]) -> int | None:
    """Return the number of epochs: the recipe's, or with `protocol.refit` as many as were chosen on held-out videos.

    None for a method that is solved, not trained.
    """
    recipe = getattr(config.recipe, kind)
    if recipe is None or not config.protocol.refit:
        return None if recipe is None else recipe.epochs
    choosing = find_or_train(config.choosing, kind, modalities, data_module(config.choosing))
    return int(choosing.finished()["metrics"]["holdout"]["epoch"]) + 1


def score_with_missing(config: Config, modalities: list[str], data: VideoDataModule) -> Run:
    """Return the run of the fused network's test scores with all but `available` zeroed; score it if missing."""
    run = locate(config, "missing", modalities)
    result = run.result()
    if result is not None:
        refuse_changed_data(config, run, result)
        return run
    fused = find_or_train(config, "fusion", modalities, data)
    data.prepare_data()
    data.setup()
    given = config.available or []
    some = data.only(modalities).without([m for m in modalities if m not in given])
    with run.locked():
        if run.result() is None:
            predictions = {
                weights: {"test": scored(config, fused.path, weights, some, "test")} for weights in ("selected", "last")
            }
            tags = [some.task, *given, config.protocol.select]
            about = {"kind": "missing", "name": some.task, "tags": tags, "config": config.model_dump()}
            with open_logger(config.logger, run, **about) as logger:
                record_missing(run, config, fused, predictions, some, logger)
    return run


def refuse_other_videos(run: Run, result: dict[str, Any], data: VideoDataModule) -> None:
    """Refuse a branch that was trained on other videos than it would be now."""
    had, have = (json.dumps(left_out, sort_keys=True) for left_out in (result.get("left_out") or {}, data.left_out))
    if had != have:
        raise InputError(
            f"{run.path} was trained on other videos: its result.json says which it left out, and now they are others. "
            "Remove that folder to train it again, or choose another paths.output_dir."
        )


def check_writable(output_dir: Path) -> None:
    """Refuses an output folder that cannot be written, before anything is read."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output_dir).close()
    except OSError as error:
        raise cannot_write(output_dir, error) from error


def prepare(config: Config) -> None:
    """Check the output folder and set the number of CPU threads."""
    output_dir = Path(config.paths.output_dir)
    check_writable(output_dir)
    for stray in sorted(output_dir.glob("hpc_ckpt_*")):
        log.warning("%s is not read: Lightning wrote it under SLURM, of whatever run. It can be removed.", stray)
    torch.set_num_threads(config.threads)
