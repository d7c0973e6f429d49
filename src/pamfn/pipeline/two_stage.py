"""The two stages: a branch for every modality, then the fused network on top of them; or a compared method alone.

Every network is stored once, in a folder named by everything that decides its numbers. One that is there is read; one
that was interrupted goes on; two processes that want the same one do not train it twice.
"""

import json
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from pamfn.config.schema import BaselineRecipe, Config, StageRecipe
from pamfn.config.targets import build
from pamfn.data.base_datamodule import VideoSplits
from pamfn.data.batches import WholeVideos
from pamfn.errors import InputError, TerminatedError
from pamfn.files import regular
from pamfn.models.network import Network, SolvedNetwork
from pamfn.pipeline.record import Trained, data_files, predictions_of, record_missing, record_result
from pamfn.runs.folder import Run, cannot_write
from pamfn.runs.lookup import Kind, locate, refuse_changed_data, wanted
from pamfn.training.callbacks import OwnSigterm, Progress, Record, ResumeFile, ResumePoint, write_weights
from pamfn.training.decisions import decision_counts
from pamfn.training.latency import inference_ms
from pamfn.training.loggers import open_logger
from pamfn.training.recipe import Points
from pamfn.training.tasks import module_for

log = logging.getLogger(__name__)


def data_module(config: Config) -> VideoSplits:
    """The data of a configuration, not yet read."""
    data = build(
        config.data,
        features={m: s.model_dump() for m, s in config.streams.items()},
        data_dir=config.paths.data_dir,
        holdout=0.0 if config.protocol.refit else config.protocol.holdout,
        min_segments=sketch(config, *wanted(config)).min_segments,
        seed=config.seed,
    )
    crop = config.recipe.baseline.crop if config.is_baseline and config.recipe.baseline else None
    if crop is not None:
        data.crop = crop
    return data


def refuse_no_split(data: VideoSplits, split: str) -> None:
    """Reads the data; refuses a split that the protocol does not make."""
    data.setup()
    if split not in data.splits:
        raise InputError(f"split {split}: this run's protocol has only {', '.join(sorted(data.splits))}.")


def refuse_other_videos(run: Run, result: dict[str, Any], data: VideoSplits) -> None:
    """A branch that is read must have left out the videos that it would leave out now."""
    had, have = (json.dumps(left_out, sort_keys=True) for left_out in (result.get("left_out") or {}, data.left_out))
    if had != have:
        raise InputError(
            f"{run.path} was trained on other videos: its result.json says which it left out, and now they are others. "
            "Remove that folder to train it again, or choose another paths.output_dir."
        )


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
        told = ", ".join(f"{name}: {shapes.get(name)} and not {own.get(name)}" for name in apart[:3])
        raise InputError(f"{file} is of another network ({told}). Bring back the run's own, or train it again.")


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
    """Weights that would not fit in this machine's memory, with gradients and an optimiser's two averages of them."""
    numbers = sum(p.numel() for p in network.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 16 * numbers > memory:
        raise InputError(
            f"model: {numbers:,} parameters take {16 * numbers / 2**30:.0f} GiB in training, and this machine has "
            f"{memory / 2**30:.0f}. Choose smaller widths, e.g. model.branch.d_model=256."
        )


def refuse_early_drops(recipe: StageRecipe | None) -> None:
    """Drops of the rate are counted from the end: in a shorter training some would come before its start."""
    if not isinstance(recipe, BaselineRecipe) or recipe.schedule != "steps":
        return
    fitting = [drop for drop in recipe.drops if drop < recipe.epochs]
    if len(fitting) < len(recipe.drops):
        raise InputError(
            f"recipe.baseline.drops: {recipe.drops} epochs before the end are not all within {recipe.epochs} epochs, "
            f"and the rate would start lowered. Say which drops there are: recipe.baseline.drops={fitting}, or others."
        )


class Pipeline:
    """Trains or reads the networks of one configuration."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.data = data_module(config)

    def run(self) -> Run:
        """The job: with one modality its branch alone, else every branch and the fused network."""
        kind, modalities = wanted(self.config)
        return self.with_missing(modalities) if kind == "missing" else self.network(kind, modalities)

    def with_missing(self, modalities: list[str]) -> Run:
        """The fused network's test scores with all but `available` zeroed."""
        run = locate(self.config, "missing", modalities)
        result = run.result()
        if result is not None:
            refuse_changed_data(self.config, run, result)
        else:
            fused = self.network("fusion", modalities)
            self.data.prepare_data()
            self.data.setup()
            given = self.config.available or []
            data = self.data.only(modalities).without([m for m in modalities if m not in given])
            with run.locked():
                if run.result() is None:
                    predictions = {
                        weights: {"test": scored(self.config, fused.path, weights, data, "test")}
                        for weights in ("selected", "last")
                    }
                    tags = [data.task, *given, self.config.protocol.select]
                    about = {"kind": "missing", "name": data.task, "tags": tags, "config": self.config.model_dump()}
                    with open_logger(self.config.logger, run, **about) as logger:
                        record_missing(run, self.config, fused, predictions, data, logger)
        return run

    def network(self, kind: Kind, modalities: list[str]) -> Run:
        """The run of one network: read if it is finished, trained (or gone on with) if it is not."""
        run = locate(self.config, kind, modalities)
        result = run.result()
        if result is None:
            check_buildable(self.config, kind, modalities)
            self.data.prepare_data()
            self.data.setup()
            epochs = self.epochs(kind, modalities)
            pretrained = kind == "fusion" and self.config.recipe.stages == 2
            branches = {m: self.network("branch", [m]).path for m in modalities} if pretrained else {}
            with run.locked():
                result = run.result()  # another process may have been faster
                if result is None and getattr(self.config.recipe, kind) is None:
                    solve(self.config, run, self.data.only(modalities))
                    return run
                if result is None:
                    fit(self.config, run, kind, self.data.only(modalities), epochs=epochs, branches=branches)
                    return run
        run.tidy()
        refuse_changed_data(self.config, run, result)
        if self.data.splits:  # read for a network that is to be trained on top
            refuse_other_videos(run, result, self.data.only(modalities))
        log.info("%s %s: read from %s", kind, run.path.name, run.path)
        return run

    def epochs(self, kind: Kind, modalities: list[str]) -> int:
        """The recipe's epochs, or with `protocol.refit` as many as the hold-out protocol chose."""
        recipe = getattr(self.config.recipe, kind)
        if recipe is None or not self.config.protocol.refit:
            return 1 if recipe is None else recipe.epochs
        result = Pipeline(self.config.choosing).network(kind, modalities).result()
        assert result is not None
        return int(result["metrics"]["holdout"]["epoch"]) + 1


def fit(config: Config, run: Run, kind: Kind, data: VideoSplits, *, epochs: int, branches: Mapping[str, Path]) -> None:
    """Trains one network and fills its folder; result.json is the last file to appear."""
    started = time.time()
    recipe = getattr(config.recipe, kind)
    modalities = list(data.splits["train"].packed)
    data.batch_size = recipe.batch_size
    L.seed_everything(config.seed, verbose=False)  # seed, then build: the same numbers however the branches came
    network = build_network(config, kind, modalities, branches)
    settings = recipe.model_dump(exclude={"batch_size", "crop", "clip"})
    settings |= {"compiled": config.compile}
    module = module_for(data, network, seed=config.seed, **settings)
    record = Record(run, None if config.protocol.refit else config.protocol.select)
    point = ResumePoint(run, record, config.resume_seconds, data_files(data, modalities))
    title = f"{kind} {data.task} {'+'.join(modalities)} seed {config.seed}"
    with logger_of(config, run, kind, data) as logger:
        trainer = trainer_of(
            config,
            callbacks=[record, point, Progress(title, record, data.evaluated)],
            max_epochs=epochs,
            gradient_clip_val=recipe.clip,
            logger=logger or False,
        )
        train(trainer, module, data, title, point)
        write_weights(run, "last.safetensors", network.state_dict())
        conclude(run, Training(config, kind, record, started, branches), data, network, trainer, logger)
    point.file.unlink(missing_ok=True)


def train(
    trainer: L.Trainer, module: L.LightningModule, data: L.LightningDataModule, title: str, point: ResumePoint
) -> None:
    """Lightning's fit, from the resume point on if there is one.

    Raises:
        InputError: when the resume point is not one of this training, or memory does not suffice.
        TerminatedError: when the process is asked to end.
    """
    resumes = regular(point.file).exists()
    if resumes:
        log.info("%s: going on from %s", title, point.file)
    try:
        with stopping(title):
            trainer.fit(module, datamodule=data, ckpt_path=point.file if resumes else None, weights_only=True)
    except InputError:
        raise
    except Exception as error:
        if lacks_memory(error):
            raise InputError(
                f"{title}: not enough memory ({first_line(error)}). Lower the recipe's batch_size, or data.crop."
            ) from error
        if resumes and not point.began:
            raise InputError(
                f"{point.file} is damaged or of another training ({first_line(error)}). "
                "Remove it to begin this training again."
            ) from error
        if point.began:
            error.add_note(f"in epoch {trainer.current_epoch + 1} of {title}")
        raise


@contextmanager
def stopping(title: str) -> Iterator[None]:
    """What Lightning makes of a request to end, as it is said here.

    Raises:
        TerminatedError: on SIGTERM. KeyboardInterrupt: on Ctrl-C.
    """
    try:
        yield
    except SIGTERMException as error:  # left alone, it would end the process as if all were well
        raise TerminatedError(f"{title}: terminated. The same command goes on from the last saved epoch.") from error
    except SystemExit as error:  # what Lightning turns Ctrl-C into
        raise KeyboardInterrupt from error


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory does not suffice; torch has no class for it on a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


@dataclass(frozen=True)
class Training:
    """A training of a network that has ended."""

    config: Config
    kind: Kind
    record: Record
    started: float
    branches: Mapping[str, Path]


def conclude(
    run: Run, training: Training, data: VideoSplits, network: Network, trainer: L.Trainer, logger: WandbLogger | None
) -> None:
    """Scores the stored weights with the network, which is given them, and writes everything but the weights."""
    training.record.write()
    module = module_for(data, network, seed=training.config.seed, epochs=1)
    predictions, decisions = {}, None
    for weights in ("selected", "last"):
        load_weights(network, run.file(f"{weights}.safetensors"))
        predictions[weights] = predictions_of(trainer, module, data)
        decisions = decisions or decision_counts(network, WholeVideos(data.splits["test"], batch_size=16))
    trained = Trained(
        config=training.config,
        kind=training.kind,
        modalities=list(data.splits["train"].packed),
        network=network,
        curves=training.record.curves,
        predictions=predictions,
        decisions=decisions,
        started=training.started,
        branches=dict(training.branches),
        inference_ms=inference_ms(network, data.splits["test"], trainer),
    )
    record_result(run, trained, data, logger)


def logger_of(config: Config, run: Run, kind: Kind, data: VideoSplits) -> AbstractContextManager[WandbLogger | None]:
    """The W&B run of a network's training."""
    tags = [data.task, *data.splits["train"].packed, config.protocol.select]
    return open_logger(config.logger, run, kind=kind, name=data.task, tags=tags, config=config.model_dump())


def solve(config: Config, run: Run, data: VideoSplits) -> None:
    """Fits a method that takes no epochs, and fills its folder as `fit` does; its curves have one row.

    Raises:
        InputError: when it cannot be fitted to these videos.
    """
    started, modalities = time.time(), list(data.splits["train"].packed)
    network = build_network(config, "baseline", modalities)
    assert isinstance(network, SolvedNetwork)  # `problems_of_model` refuses any other without a recipe
    train = list(WholeVideos(data.splits["train"], batch_size=data.test_batch_size))
    pooled = torch.cat([network.pooled(batch.features, batch.lengths) for batch in train])
    try:
        network.solve(pooled, torch.cat([batch.target for batch in train]), config.seed)
    except ValueError as error:
        raise InputError(f"model: cannot be fitted: {error}.") from error
    module = module_for(data, network, seed=config.seed, epochs=1)
    record, trainer = Record(run, None), trainer_of(config, logger=False)
    with logger_of(config, run, "baseline", data) as logger:
        points = predictions_of(trainer, module, data)
        seconds = time.time() - started
        record.curves = [{"epoch": 0, "lr": 0.0, "seconds": seconds, "train/loss": math.nan, **module.metrics}]
        record.write()
        for weights in ("selected", "last"):
            write_weights(run, f"{weights}.safetensors", network.state_dict())
        predictions = {"selected": points, "last": points}
        speed = inference_ms(network, data.splits["test"], trainer)
        trained = Trained(config, "baseline", modalities, network, record.curves, predictions, None, started, {}, speed)
        record_result(run, trained, data, logger)


def scored(config: Config, folder: Path, weights: str, data: VideoSplits, split: str) -> Points:
    """What a finished run's stored weights predict for a split."""
    data.evaluated = [split]
    module = module_for(data, load_network(config, folder, weights), seed=config.seed, epochs=1)
    try:
        trainer = trainer_of(config, logger=False)
    except InputError:  # the device that it was trained on may not be here
        anywhere = {**config.trainer, "accelerator": "auto"}
        trainer = trainer_of(config.model_copy(update={"trainer": anywhere}), logger=False)
    with stopping(f"scoring {folder}"):
        trainer.validate(module, datamodule=data, verbose=False)
    return module.predicted(data, split)


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


def quiet() -> None:
    """Keeps Lightning's advice out of the job's own lines."""
    for chatty in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # its own use of torch's pytree
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training")  # fixed branches are
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # a job here is one process
    logging.captureWarnings(True)


def check_writable(output_dir: Path) -> None:
    """Refuses an output folder that cannot be written, before anything is read."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output_dir).close()
    except OSError as error:
        raise cannot_write(output_dir, error) from error


def prepare(config: Config) -> None:
    """What comes before any training."""
    output_dir = Path(config.paths.output_dir)
    check_writable(output_dir)
    for stray in sorted(output_dir.glob("hpc_ckpt_*")):
        log.warning("%s is not read: Lightning wrote it under SLURM, of whatever run. It can be removed.", stray)
    torch.set_num_threads(config.threads)


def run_job(config: Config) -> Run:
    """Trains (or reads) everything that a configuration of one seed asks for; the run that answers it."""
    prepare(config)
    return Pipeline(config).run()
