"""Build data module, network, LightningModule and trainer from a configuration."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from pamfn.config.schema import BaselineRecipe, Config, StageRecipe
from pamfn.config.targets import build
from pamfn.data.base_datamodule import VideoDataModule
from pamfn.errors import InputError, TerminatedError
from pamfn.files import regular
from pamfn.models.network import Network
from pamfn.runs.lookup import Kind, wanted
from pamfn.training import BaselineTraining, MixedModalityFusion, UnimodalPretraining
from pamfn.training.callbacks import OwnSigterm, ResumeFile
from pamfn.training.module import TrainingModule
from pamfn.training.tasks import task_of


def data_module(config: Config) -> VideoDataModule:
    """The data of a configuration, not yet read."""
    data = build(
        config.data,
        features={m: s.model_dump() for m, s in config.streams.items()},
        data_dir=config.paths.data_dir,
        holdout=0.0 if config.protocol.refit else config.protocol.holdout,
        min_segments=sketch(config, *wanted(config)).min_segments,
        seed=config.seed,
        **folds_of(config),
    )
    crop = config.recipe.baseline.crop if config.is_baseline and config.recipe.baseline else None
    if crop is not None:
        data.crop = crop
    return data


def folds_of(config: Config) -> dict[str, Any]:
    """What a data module is told of folds; nothing without them, since one of a user's own may know none."""
    protocol = config.protocol
    return {} if protocol.folds is None else {"folds": protocol.folds, "fold": protocol.fold}


def build_network(
    config: Config, kind: Kind, modalities: Sequence[str], branches: Mapping[str, Path] | None = None
) -> Network:
    """An untrained network: a method, a branch, or the fused one on untrained or on the given run folders' branches."""
    if kind == "baseline":
        return build(config.model, widths={m: config.features[m].width for m in modalities})
    built = {m: build(config.model["branch"], width=config.features[m].width) for m in modalities}
    if kind == "branch":
        return built[modalities[0]]
    for modality, folder in (branches or {}).items():
        load_weights(built[modality], folder / "selected.safetensors")
    return build(config.model, branches=built)


MODULES = {"branch": UnimodalPretraining, "fusion": MixedModalityFusion, "baseline": BaselineTraining}


def build_module(kind: Kind, data: VideoDataModule, network: Network, **recipe: Any) -> TrainingModule:
    """The LightningModule of a kind of network on these data, which have been read."""
    return MODULES[kind](network, task_of(data), val_splits=data.evaluated, test_splits=data.evaluated, **recipe)


def load_weights(network: Network, file: Path) -> None:
    """Gives a network the weights of a file.

    Raises:
        InputError: when the file is missing, damaged, or of another network.
    """
    refuse_other_weights(network, file)
    network.load_state_dict(load_file(file))


def refuse_other_weights(network: Network, file: Path) -> None:
    """Refuses a file of weights whose names and shapes are not those of a network, which may be on the meta device."""
    own = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    try:
        with safe_open(regular(file), framework="pt") as stored:
            shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise InputError(f"no weights: looked for {file}. Bring them back, or train the run again.") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged ({error}). Bring it back, or train the run again.") from error
    apart = sorted(name for name in own | shapes if own.get(name) != shapes.get(name))
    if apart:
        differing = ", ".join(f"{name}: {shapes.get(name)} and not {own.get(name)}" for name in apart[:3])
        raise InputError(f"{file} is of another network ({differing}). Bring back the run's own, or train it again.")


def sketch(config: Config, kind: Kind, modalities: Sequence[str]) -> Network:
    """The network on the meta device, without any memory of its own.

    Raises:
        InputError: when the settings do not make one.
    """
    try:
        with torch.device("meta"):
            return build_network(config, kind, modalities)
    except InputError:
        raise
    except Exception as error:  # a class of one's own may raise anything
        raise InputError(f"model: cannot be built with these settings: {error or type(error).__name__}.") from error


def check_buildable(config: Config, kind: Kind, modalities: Sequence[str]) -> None:
    """Refuses numbers that the network or the trainer cannot be built with, before any data is read."""
    recipe, network = getattr(config.recipe, kind), sketch(config, kind, modalities)
    refuse_early_drops(recipe)
    own = getattr(recipe, "crop", None)
    crop = config.data.get("crop") if own is None else own
    if crop is not None and crop < network.min_segments:
        place_of_crop = "data.crop" if own is None else f"recipe.{kind}.crop"
        raise InputError(f"{place_of_crop}: the network needs {network.min_segments} segments or more, not {crop}.")
    refuse_large(network)
    trainer_of(config, logger=False)
    if getattr(recipe, "head_lr_scale", 1.0) != 1.0 and not network.head_parameters():
        raise InputError(
            f"recipe.{kind}.head_lr_scale: all of this network learns at one rate, not its head at "
            f"{recipe.head_lr_scale} times the others'. Leave it at 1.0."
        )


def refuse_large(network: Network) -> None:
    """Refuse a network whose weights, gradients and optimiser state do not fit in memory."""
    numbers = sum(p.numel() for p in network.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 16 * numbers > memory:
        raise InputError(
            f"model: {numbers:,} parameters take {16 * numbers / 2**30:.0f} GiB in training, and this machine has "
            f"{memory / 2**30:.0f}. Choose smaller widths, e.g. model.branch.d_model=256."
        )


def refuse_early_drops(recipe: StageRecipe | None) -> None:
    """Refuse drops of the learning rate before the first epoch: they are counted from the end."""
    if not isinstance(recipe, BaselineRecipe) or recipe.schedule != "steps":
        return
    fitting = [drop for drop in recipe.drops if drop < recipe.epochs]
    if len(fitting) < len(recipe.drops):
        raise InputError(
            f"recipe.baseline.drops: {recipe.drops} epochs before the end are not all within {recipe.epochs} epochs, "
            f"and the rate would start lowered. Say which drops there are: recipe.baseline.drops={fitting}, or others."
        )


def trainer_of(config: Config, *, callbacks: Sequence[Callback] = (), **arguments: Any) -> L.Trainer:
    """The configured Trainer, quiet, with what the pipeline gives it.

    Under SLURM Lightning would save on its own what it is told to requeue (`hpc_ckpt_*`), and load the newest such file
    of its root folder into every later fit and validation: of whatever run it is. So it is told of no cluster, and has
    no folder.
    """
    try:
        return build(
            config.trainer,
            plugins=[LightningEnvironment(), ResumeFile()],
            enable_autolog_hparams=False,  # the module that scores would overwrite W&B's record of the training
            callbacks=[OwnSigterm(), *callbacks],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,  # nothing is logged within an epoch; this only avoids a warning
            default_root_dir=os.devnull,
            **arguments,
        )
    except Exception as error:  # whatever Lightning says of settings that it does not take
        raise InputError(f"trainer: cannot be built with these settings: {error or type(error).__name__}.") from error


@contextmanager
def stopping(title: str) -> Iterator[None]:
    """Turn what Lightning makes of SIGTERM and Ctrl-C into this package's exceptions.

    Raises:
        TerminatedError: on SIGTERM. KeyboardInterrupt: on Ctrl-C.
    """
    try:
        yield
    except SIGTERMException as error:  # left alone, it would end the process as if all were well
        raise TerminatedError(f"{title}: terminated. The same command goes on from the last saved epoch.") from error
    except SystemExit as error:  # what Lightning turns Ctrl-C into
        raise KeyboardInterrupt from error
