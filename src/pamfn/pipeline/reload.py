"""Open a finished run: its configuration, its data, its network."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pamfn.config.schema import Config
from pamfn.config.validation import checked
from pamfn.data.base_datamodule import VideoDataModule
from pamfn.errors import InputError
from pamfn.models.network import Network
from pamfn.pipeline.build import (
    build_module,
    build_network,
    load_weights,
    refuse_other_weights,
    sketch,
    stopping,
)
from pamfn.pipeline.scoring import trainer_anywhere
from pamfn.runs.folder import Run
from pamfn.training.tasks import SplitPredictions


def refuse_no_split(data: VideoDataModule, split: str) -> None:
    """Reads the data; refuses a split that the protocol does not make."""
    data.setup()
    if split not in data.splits:
        raise InputError(f"split {split}: this run's protocol has only {', '.join(sorted(data.splits))}.")


def load_network(config: Config, folder: Path, weights: str = "selected") -> Network:
    """The network of a finished run, with its `selected` or `last` weights.

    Nothing as large as the settings say is made before a file of that size was found.
    """
    result = Run(folder).finished()
    file = folder / f"{weights}.safetensors"
    refuse_other_weights(sketch(config, result["kind"], result["modalities"]), file)
    network = build_network(config, result["kind"], result["modalities"])
    load_weights(network, file)
    return network


def scored(config: Config, folder: Path, weights: str, data: VideoDataModule, split: str) -> SplitPredictions:
    """What a finished run's stored weights predict for a split."""
    data.evaluated = [split]
    kind, network = Run(folder).finished()["kind"], load_network(config, folder, weights)
    module = build_module(kind, data, network, seed=config.seed, epochs=1)
    trainer = trainer_anywhere(config)
    with stopping(f"scoring {folder}"):
        trainer.test(module, datamodule=data, verbose=False)
    return module.predictions[split]


def quiet() -> None:
    """Keeps Lightning's advice out of the job's own lines."""
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # its own use of torch's pytree
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")  # fixed branches are
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # a job here is one process
    logging.captureWarnings(True)


def with_weights(folder: Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
        InputError: when it is not finished, or has no weights of its own.
    """
    run = Run(folder)
    result = run.finished()
    if result["kind"] == "missing":
        raise InputError(
            f"{folder} is a network scored with modalities missing, without weights of its own. "
            f"Give the network's folder: {result['network']}."
        )
    if not run.file("selected.safetensors").exists():
        raise InputError(f"{folder} has no weights (archived runs keep none). Train it again to score with it.")
    return result


def configuration(
    result: dict[str, Any], data_dir: str | None, decoding: str | None, samples: int | None, trust: Sequence[str] = ()
) -> Config:
    """The run's own configuration, with what was asked to be different.

    trust: packages besides this one that the run's classes may come from.

    Raises:
        InputError: when the run's network cannot be scored that way, or names code that is not trusted.
    """
    raw = dict(result["config"])
    raw["modalities"] = result["modalities"]
    if result["kind"] != "missing":  # trained for a job that then left modalities out
        raw["available"] = None
    if data_dir is not None:
        raw["paths"] = {**raw["paths"], "data_dir": data_dir}
    asked = {k: v for k, v in (("decoding", decoding), ("samples", samples)) if v is not None}
    if asked and result["kind"] in ("branch", "baseline"):
        raise InputError("--decoding and --samples: this network decides nothing; give a fused run.")
    raw["model"] = {**raw["model"], **asked}
    if samples is not None:
        refuse_samples(samples, raw["model"].get("decoding", "argmax"))
    return checked(raw, trust)


def refuse_samples(samples: int, decoding: str) -> None:
    """A number of samples that cannot be averaged, or that nothing averages."""
    if samples < 1:
        raise InputError(f"--samples {samples}: the mean of no scores is none. Give 1 or more.")
    if decoding != "mean":
        raise InputError(
            f"--samples {samples}: decoding={decoding} averages no samples. Add --decoding mean, or leave it out."
        )
