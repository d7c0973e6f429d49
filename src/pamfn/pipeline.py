"""The two stages: a branch for every modality, then the fused network on top of them.

Every network is stored once, in a folder named by everything that decides its numbers. One that is there is read; one
that was interrupted goes on; two processes that want the same one do not train it twice.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from safetensors.torch import load_file
from torch import nn

from pamfn.config import (
    Config,
    Node,
    StageRecipe,
    branch_identity,
    build,
    fingerprint,
    fusion_identity,
)
from pamfn.data.module import ScoreDataModule
from pamfn.errors import InputError
from pamfn.results import Trained, predictions_of, record_result
from pamfn.store import Run, cannot_write, find
from pamfn.training.callbacks import Progress, Record, ResumePoint, write_weights
from pamfn.training.loggers import open_logger
from pamfn.training.regression import ScoreRegression

log = logging.getLogger(__name__)

Modules = dict[str, nn.Module]


def data_module(config: Config) -> ScoreDataModule:
    """The data of a configuration, not yet read."""
    stages = config.model.get("branch", {}).get("num_stages", 1)
    return build(
        config.data,
        features={m: s.model_dump() for m, s in config.streams.items()},
        data_dir=config.paths.data_dir,
        batch_size=config.recipe.fusion.batch_size,
        holdout=0.0 if config.protocol.refit else config.protocol.holdout,
        min_segments=2 ** (stages - 1),
        seed=config.seed,
    )


def build_branch(config: Config, modality: str) -> nn.Module:
    """An untrained branch."""
    return build(config.model["branch"], width=config.features[modality].width)


def build_fusion(config: Config, branches: Modules | None = None) -> nn.Module:
    """The fused network, on trained branches or on untrained ones."""
    return build(config.model, branches=branches or {m: build_branch(config, m) for m in config.streams})


def load_network(config: Config, result: dict[str, Any], folder: Path, weights: str = "selected") -> nn.Module:
    """The network of a finished run, with its `selected` or `last` weights."""
    is_branch = result["kind"] == "branch"
    network = build_branch(config, result["modalities"][0]) if is_branch else build_fusion(config)
    network.load_state_dict(load_file(folder / f"{weights}.safetensors"))
    return network


class Pipeline:
    """Trains or reads the networks of one configuration."""

    def __init__(self, config: Config, data: ScoreDataModule | None = None) -> None:
        self.config = config
        self.data = data or data_module(config)
        self.output_dir = Path(config.paths.output_dir)

    def run(self) -> Run:
        """The job: with one modality its branch alone, else every branch and the fused network."""
        if len(self.config.streams) == 1 and "branch" in self.config.model:
            return self.branch(next(iter(self.config.streams)))
        return self.fusion()

    def branch(self, modality: str) -> Run:
        """Stage 1 of one modality."""
        identity = branch_identity(self.config, modality)
        recipe = self.config.recipe.branch
        return self.network(
            "branch", [modality], identity, recipe, lambda: build_branch(self.config, modality), lambda p: p.branch(modality)
        )

    def fusion(self) -> Run:
        """Stage 2, on the stage-1 branches."""
        branches: dict[str, Run] = {}

        def built() -> nn.Module:
            networks = {m: build_branch(self.config, m) for m in self.config.streams}
            for modality, network in networks.items():
                network.load_state_dict(load_file(branches[modality].file("selected.safetensors")))
            return build_fusion(self.config, networks)

        def prepare() -> None:
            branches.update({m: self.branch(m) for m in self.config.streams})

        identity = fusion_identity(self.config)
        recipe = self.config.recipe.fusion
        modalities = list(self.config.streams)
        return self.network("fusion", modalities, identity, recipe, built, lambda p: p.fusion(), prepare)

    def network(
        self,
        kind: str,
        modalities: list[str],
        identity: Node,
        recipe: StageRecipe,
        build: Callable[[], nn.Module],
        again: Callable[["Pipeline"], Run],
        prepare: Callable[[], None] = lambda: None,
    ) -> Run:
        """The run of one network: read if finished, trained if not. `again` asks another pipeline for the same network."""
        label = f"{self.config.data['name']}-{'_'.join(modalities)}-seed{self.config.seed}"
        run = find(self.output_dir, kind, label, fingerprint(identity))
        result = run.result()
        if result is None:
            self.data.setup()
            epochs = self.chosen_epochs(again) if self.config.protocol.refit else recipe.epochs
            prepare()
            with run.locked():
                result = run.result()
                if result is None:
                    data = self.data.only(modalities)
                    fit(self.config, run, kind=kind, data=data, recipe=recipe, epochs=epochs, build=build)
                    return run
        self.check_same_data(run, result)
        log.info("%s %s: read from %s", kind, label, run.path)
        return run

    def chosen_epochs(self, again: Callable[["Pipeline"], Run]) -> int:
        """How many epochs the hold-out protocol chose for the same network."""
        protocol = self.config.protocol.model_copy(update={"refit": False})
        choosing = Pipeline(self.config.model_copy(update={"protocol": protocol}))
        result = again(choosing).result()
        assert result is not None
        return int(result["metrics"]["holdout"]["epoch"]) + 1

    def check_same_data(self, run: Run, result: dict[str, Any]) -> None:
        """A finished run must have been trained on the files that are there now (if any are)."""
        present = self.data.present_checksums()
        changed = [name for name, checksum in result["data_files"].items() if present.get(name, checksum) != checksum]
        if changed:
            raise InputError(
                f"{run.path} was trained on other data: {', '.join(changed)} changed since. "
                "Remove that folder to train again, or choose another paths.output_dir."
            )


def fit(
    config: Config,
    run: Run,
    *,
    kind: str,
    data: ScoreDataModule,
    recipe: StageRecipe,
    epochs: int,
    build: Callable[[], nn.Module],
) -> None:
    """Trains one network and writes its folder; result.json is the last file to appear."""
    started = time.time()
    data.batch_size = recipe.batch_size
    L.seed_everything(config.seed, verbose=False)  # seed, then build, then fit: the same numbers however branches came
    network = build()
    module = ScoreRegression(
        network,
        splits=data.evaluated,
        max_score=data.max_score,
        score_range=data.score_range,
        seed=config.seed,
        **recipe.model_dump(exclude={"batch_size", "clip"}),
    )
    record = Record(run, None if config.protocol.refit else config.protocol.select)
    modalities = list(data.splits["train"].packed)
    title = f"{kind} {data.name} {'+'.join(modalities)} seed {config.seed}"
    callbacks = [record, ResumePoint(run, record, config.resume_seconds), Progress(title, record, data.evaluated)]
    resume = run.file("resume.ckpt")
    tags = [data.name, *modalities, config.protocol.select]
    with open_logger(config.logger, run, kind=kind, name=data.name, tags=tags, config=config.model_dump()) as logger:
        trainer = trainer_of(config, callbacks, max_epochs=epochs, gradient_clip_val=recipe.clip, logger=logger or False)
        if resume.exists():
            log.info("%s: going on from %s", title, resume)
        trainer.fit(module, datamodule=data, ckpt_path=resume if resume.exists() else None, weights_only=True)
        if len(record.curves) < epochs:
            raise InterruptedError(f"{title}: stopped after {len(record.curves)} of {epochs} epochs")
        write_weights(run, "last.safetensors", network)
        record.write()
        predictions = {}
        for weights in ("selected", "last"):
            network.load_state_dict(load_file(run.file(f"{weights}.safetensors")))
            predictions[weights] = predictions_of(trainer, module, data)
        trained = Trained(config, kind, modalities, network, record.curves, predictions, started)
        record_result(run, trained, data, logger)
    resume.unlink(missing_ok=True)


def trainer_of(config: Config, callbacks: list[L.Callback], **arguments: Any) -> L.Trainer:
    """The configured Trainer, quiet, with what the pipeline gives it."""
    return build(
        config.trainer,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=config.paths.output_dir,
        **arguments,
    )


def check_writable(output_dir: Path) -> None:
    """Refuses an output folder that cannot be written, before anything is read."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        probe = output_dir / ".writable"
        probe.touch()
        probe.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(output_dir, error) from error


def run_job(config: Config) -> Run:
    """Trains (or reads) everything that a configuration asks for; the run that answers it."""
    check_writable(Path(config.paths.output_dir))
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    return Pipeline(config).run()
