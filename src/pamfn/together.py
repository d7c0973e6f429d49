"""Several seeds of one configuration, trained together: `seeds=[0,1,2,3]`.

Every seed gets the run folder that it would get alone, with the same numbers but for rounding. What some seeds have
finished already is read, and what one of them has begun alone goes on alone.
"""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import WandbLogger

from pamfn.data.splits import VideoSplits
from pamfn.finished import Kind, locate, wanted
from pamfn.identity import fingerprint
from pamfn.models.several import SeveralNetworks
from pamfn.pipeline import (
    Pipeline,
    Training,
    build_network,
    check_buildable,
    conclude,
    data_module,
    logger_of,
    prepare,
    train,
    trainer_of,
)
from pamfn.schema import Config
from pamfn.store import Run, find
from pamfn.training.callbacks import Progress, Record, ResumePoint, write_weights
from pamfn.training.several import EachRecord, Member, SeveralData, SeveralSeeds
from pamfn.training.tasks import module_for

log = logging.getLogger(__name__)


def run_jobs(config: Config) -> list[Run]:
    """Trains (or reads) everything that a configuration of several seeds asks for; a run a seed."""
    prepare(config)
    return Together(config.per_seed).run()


class Together:
    """The seeds of one configuration; `configs` has one for each."""

    def __init__(self, configs: Sequence[Config]) -> None:
        self.configs = configs
        self.data = data_module(configs[0])

    def run(self) -> list[Run]:
        """The runs that answer the job, one a seed."""
        kind, modalities = wanted(self.configs[0])
        pretrained = kind != "branch" and self.configs[0].recipe.stages == 2
        if any(locate(config, kind, modalities).result() is None for config in self.configs):
            for modality in modalities if pretrained else []:
                self.networks("branch", [modality])
            self.networks("branch" if kind == "branch" else "fusion", modalities)
        return [Pipeline(config).run() for config in self.configs]

    def networks(self, kind: Kind, modalities: list[str]) -> None:
        """Trains the networks that no seed has finished or begun alone, if they are at least two."""
        check_buildable(self.configs[0], kind, modalities)
        with ExitStack() as locks:
            open_runs: dict[Path, tuple[Run, Config]] = {}
            for config in sorted(self.configs, key=lambda config: config.seed):  # one order, so that none wait forever
                run = locate(config, kind, modalities)
                if not run.file("resume.ckpt").exists():
                    locks.enter_context(run.locked())
                    if run.result() is None:  # another process may have been faster
                        open_runs[run.path] = run, config
            if len(open_runs) > 1:
                self.data.setup()
                runs, configs = zip(*open_runs.values(), strict=True)
                fit_together(configs, runs, kind, self.data.only(modalities))


def fit_together(configs: Sequence[Config], runs: Sequence[Run], kind: Kind, data: VideoSplits) -> None:
    """Trains one network a seed in one training, and fills their folders."""
    started, config = time.time(), configs[0]
    recipe = getattr(config.recipe, kind)
    modalities = list(data.splits["train"].packed)
    data.batch_size = recipe.batch_size
    datas = [data.seeded(config.seed).only(modalities) for config in configs]
    branches = [branches_of(config, kind, modalities) for config in configs]
    networks = []
    for each, folders in zip(configs, branches, strict=True):
        L.seed_everything(each.seed, verbose=False)
        networks.append(build_network(each, kind, modalities, folders))
    several = SeveralNetworks(networks)
    settings = recipe.model_dump(exclude={"batch_size", "crop", "clip"})
    members = [
        module_for(own, Member(several, i), seed=each.seed, **settings)
        for i, (each, own) in enumerate(zip(configs, datas, strict=True))
    ]
    records = [Record(run, config.protocol.select, share=len(runs)) for run in runs]
    seeds = [each.seed for each in configs]
    title = f"{kind} {data.task} {'+'.join(modalities)} seeds {' '.join(map(str, seeds))}"
    resume = find(
        Path(config.paths.output_dir),
        "together",
        f"{kind}-{data.task}",
        fingerprint({"runs": [r.path.name for r in runs]}),
    )
    with ExitStack() as opened:
        loggers: list[WandbLogger | None] = [
            opened.enter_context(logger_of(each, run, kind, own))
            for each, run, own in zip(configs, runs, datas, strict=True)
        ]
        trainer = trainer_of(
            config,
            callbacks=[
                EachRecord(records, loggers),
                ResumePoint(resume, records, config.resume_seconds),
                Progress(title, records, data.evaluated),
            ],
            max_epochs=recipe.epochs,
            gradient_clip_val=recipe.clip,
            logger=False,
        )
        train(trainer, SeveralSeeds(members, several, datas), SeveralData(datas), title, resume.file("resume.ckpt"))
        for i, (each, run, own) in enumerate(zip(configs, runs, datas, strict=True)):
            write_weights(run, "last.safetensors", Member(several, i))
            training = Training(each, kind, records[i], started, branches[i], together=seeds)
            conclude(run, training, own, networks[i], trainer_of(config, logger=False), loggers[i])
    shutil.rmtree(resume.path, ignore_errors=True)


def branches_of(config: Config, kind: Kind, modalities: Sequence[str]) -> Mapping[str, Path]:
    """The folders of a fused network's pretrained branches; those begun alone are finished first."""
    if kind != "fusion" or config.recipe.stages != 2:
        return {}
    pipeline = Pipeline(config)
    return {m: pipeline.network("branch", [m]).path for m in modalities}
