"""Train one network and fill its run folder."""

import logging
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers import WandbLogger

from pamfn.config.schema import Config
from pamfn.data.base_datamodule import VideoDataModule
from pamfn.data.batches import WholeVideos
from pamfn.errors import InputError
from pamfn.evaluation.selection import RULES
from pamfn.files import regular
from pamfn.models.network import Network, SolvedNetwork
from pamfn.pipeline.build import build_module, build_network, load_weights, stopping, trainer_of
from pamfn.pipeline.record import Trained, data_files, record_result, reported_protocol
from pamfn.pipeline.reference import reference_of, write_reference
from pamfn.pipeline.scoring import Scorer
from pamfn.runs.folder import Run
from pamfn.runs.lookup import Kind
from pamfn.training.callbacks import Progress, Record, ResumePoint, write_weights
from pamfn.training.latency import inference_ms
from pamfn.training.loggers import open_logger
from pamfn.training.mixed_modality_fusion import decision_counts
from pamfn.training.module import TrainingModule
from pamfn.training.tasks import SplitPredictions, task_of

log = logging.getLogger(__name__)


def fit(
    config: Config, run: Run, kind: Kind, data: VideoDataModule, *, epochs: int, branches: Mapping[str, Path]
) -> None:
    """Trains one network and fills its folder; result.json is the last file to appear."""
    started = time.time()
    recipe = getattr(config.recipe, kind)
    modalities = list(data.splits["train"].packed)
    data.batch_size = recipe.batch_size
    L.seed_everything(config.seed, verbose=False)  # seed, then build: the same numbers however the branches came
    network = build_network(config, kind, modalities, branches)
    settings = recipe.model_dump(exclude={"batch_size", "crop", "clip"})
    settings |= {"compiled": config.compile}
    module = build_module(kind, data, network, seed=config.seed, **settings)
    record = Record(run, RULES[reported_protocol(config)].best_on)
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
        evaluate_and_record(config, run, kind, data, module, logger, record=record, started=started, branches=branches)
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


def first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def lacks_memory(error: Exception) -> bool:
    """Whether an error says that memory does not suffice; torch has no class for it on a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def evaluate_and_record(
    config: Config,
    run: Run,
    kind: Kind,
    data: VideoDataModule,
    module: TrainingModule,
    logger: WandbLogger | None,
    *,
    record: Record,
    started: float,
    branches: Mapping[str, Path],
) -> None:
    """Score every split with the selected and with the last weights, and write everything but the weights."""
    record.write()
    network, trainer = module.network, trainer_of(config, logger=False)
    test = WholeVideos(data.splits["test"], batch_size=data.test_batch_size)
    predictions, of_train, decisions = {}, {}, None
    for weights in ("selected", "last"):
        load_weights(network, run.file(f"{weights}.safetensors"))
        predictions[weights] = tested(trainer, module, data)
        of_train |= predicted_for_train(config, network, data, weights)
        decisions = decisions or decision_counts(network, test)
    trained = Trained(
        config=config,
        kind=kind,
        modalities=list(data.splits["train"].packed),
        network=network,
        curves=record.curves,
        predictions=predictions,
        decisions=decisions,
        started=started,
        branches=dict(branches),
        inference_ms=inference_ms(network, data.splits["test"], trainer),
    )
    write_reference(run.path, reference_of(data, of_train))
    record_result(run, trained, data, logger)


def predicted_for_train(config: Config, network: Network, data: VideoDataModule, weights: str) -> dict[str, np.ndarray]:
    """{weights: points (n,) of the training videos}, for `Reference`; {} where clips are scored."""
    if data.predicts != "score":
        return {}
    scores = Scorer(network, config).videos(data.splits["train"], data.test_batch_size)
    return {weights: (scores * task_of(data).scale).numpy()}


def tested(trainer: L.Trainer, module: TrainingModule, data: VideoDataModule) -> dict[str, SplitPredictions]:
    """Predictions of every evaluated split under the module's weights."""
    trainer.test(module, datamodule=data, verbose=False)
    return module.predictions


def logger_of(
    config: Config, run: Run, kind: Kind, data: VideoDataModule
) -> AbstractContextManager[WandbLogger | None]:
    """The W&B run of a network's training."""
    tags = [data.task, *data.splits["train"].packed, config.protocol.select]
    return open_logger(config.logger, run, kind=kind, name=data.task, tags=tags, config=config.model_dump())


def solve(config: Config, run: Run, data: VideoDataModule) -> None:
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
    module = build_module("baseline", data, network, seed=config.seed, epochs=1)
    record, trainer = Record(run, None), trainer_of(config, logger=False)
    with logger_of(config, run, "baseline", data) as logger:
        points = tested(trainer, module, data)
        seconds = time.time() - started
        record.curves = [{"epoch": 0, "lr": 0.0, "seconds": seconds, "train/loss": math.nan, **module.metrics}]
        record.write()
        for weights in ("selected", "last"):
            write_weights(run, f"{weights}.safetensors", network.state_dict())
        predictions = {"selected": points, "last": points}
        speed = inference_ms(network, data.splits["test"], trainer)
        trained = Trained(config, "baseline", modalities, network, record.curves, predictions, None, started, {}, speed)
        of_train = predicted_for_train(config, network, data, "selected")
        write_reference(run.path, reference_of(data, {w: x for x in of_train.values() for w in predictions}))
        record_result(run, trained, data, logger)
