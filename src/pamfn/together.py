"""Several seeds of one configuration, trained together: `seeds=[0,1,2,3]`.

Every seed gets the run folder that it would get alone: with the same numbers on a CPU, elsewhere but for rounding. What
some seeds have finished already is read, and what one of them has begun alone goes on alone. A training that was
interrupted goes on with all that began it, until each of them has its result.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.loggers import WandbLogger
from torch import nn

from pamfn.data.splits import VideoSplits
from pamfn.errors import DivergedError
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
from pamfn.results import data_files
from pamfn.schema import Config
from pamfn.store import Run, find, write_text
from pamfn.training.callbacks import Progress, Record, ResumePoint, write_weights
from pamfn.training.fixed_maps import fixed_maps
from pamfn.training.recipe import RecipeModule
from pamfn.training.several import EachRecord, Member, SeveralAtOnce, SeveralData, SeveralInTurn, SeveralSeeds, asked
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
        """Goes on with an interrupted training of these seeds.

        Without one, trains the networks that no seed has finished or begun alone, if they are at least two.
        """
        check_buildable(self.configs[0], kind, modalities)
        seeds = [Seed(config, locate(config, kind, modalities)) for config in self.configs]
        seeds.sort(key=lambda seed: seed.config.seed)  # in one order, so that no two processes wait for each other
        group = Group.of(seeds, f"{kind}-{self.data.task}")
        with ExitStack() as locks:
            for seed in seeds:
                locks.enter_context(seed.run.locked())
            begun = group.begun()  # now, since another process may have been faster
            chosen = [seed for seed in seeds if seed.name in begun] or [seed for seed in seeds if seed.is_new]
            if not begun:
                group.tell_of_others(chosen)
            if len(chosen) > 1 and not all(seed.is_finished for seed in chosen):
                group.note(chosen)
                self.data.prepare_data()
                self.data.setup()
                fit_together(chosen, kind, self.data.only(modalities), group.folder)
            group.clear()


class Seed(NamedTuple):
    """One seed's configuration and the run of its network."""

    config: Config
    run: Run

    @property
    def name(self) -> str:
        """The run's folder below the output folder."""
        return f"{self.run.path.parent.name}/{self.run.path.name}"

    @property
    def is_finished(self) -> bool:
        return self.run.result() is not None

    @property
    def is_new(self) -> bool:
        """Whether it is not finished, nor begun alone."""
        return not self.is_finished and not self.run.file("resume.ckpt").exists()


class Group(NamedTuple):
    """The seeds that one command asks for: `folder` is where their training can be resumed from.

    It is named by all of them, so that the same command finds it whatever some of them have finished since. Its
    seeds.json says which of them are trained there.
    """

    folder: Run
    seeds: list[int]

    @classmethod
    def of(cls, seeds: Sequence[Seed], label: str) -> "Group":
        output_dir = Path(seeds[0].config.paths.output_dir)
        folder = find(output_dir, "together", label, fingerprint({"runs": [seed.name for seed in seeds]}))
        return cls(folder, [seed.config.seed for seed in seeds])

    def note(self, trained: Sequence[Seed]) -> None:
        """Writes down which of the seeds are trained."""
        content = {"seeds": self.seeds, "runs": [seed.name for seed in trained]}
        write_text(self.folder.file("seeds.json"), json.dumps(content) + "\n")

    def begun(self) -> list[str]:
        """The runs of an interrupted training that can be resumed."""
        noted = dict(self.noted()).get(self.folder)
        return noted["runs"] if noted and resumable(self.folder) else []

    def noted(self) -> Iterator[tuple[Run, dict[str, Any]]]:
        """Every folder of a group, with what its seeds.json says."""
        for file in sorted(self.folder.path.parent.glob("*/seeds.json")):
            with suppress(FileNotFoundError):  # another process has just finished these
                noted = json.loads(file.read_text(encoding="utf-8"))
                yield Run(file.parent), noted

    def tell_of_others(self, chosen: Sequence[Seed]) -> None:
        """Warns of interrupted trainings of other lists of seeds, which stay as they are."""
        for folder, noted in self.noted():
            shared = [seed.config.seed for seed in chosen if seed.name in noted["runs"]]
            if shared and resumable(folder):
                log.warning(
                    "seed %s: trained from the start, though %s has a training with other seeds that was interrupted. "
                    "To go on with that one: %s",
                    *(", ".join(map(str, shared)), folder.path, asked(noted["seeds"])),
                )

    def clear(self) -> None:
        """Removes the folders of groups whose runs are all finished."""
        output_dir = self.folder.path.parents[1]
        for folder, noted in self.noted():
            if all((output_dir / name / "result.json").exists() for name in noted["runs"]):
                shutil.rmtree(folder.path, ignore_errors=True)


def resumable(folder: Run) -> bool:
    return folder.file("resume.ckpt").exists()


def fit_together(seeds: Sequence[Seed], kind: Kind, data: VideoSplits, folder: Run) -> None:
    """Trains one network a seed in one training, and fills the folders of those that are not finished.

    A finished one is among them where the training was interrupted before: it takes part again, and writes to `folder`.
    """
    started, config = time.time(), seeds[0].config
    recipe = getattr(config.recipe, kind)
    modalities = list(data.splits["train"].packed)
    data.batch_size = recipe.batch_size
    datas = [data.seeded(seed.config.seed).only(modalities) for seed in seeds]
    branches = [branches_of(seed.config, kind, modalities) for seed in seeds]
    networks = []
    for seed, folders in zip(seeds, branches, strict=True):
        L.seed_everything(seed.config.seed, verbose=False)
        networks.append(build_network(seed.config, kind, modalities, folders))
    finished = [seed.is_finished for seed in seeds]
    runs = [
        Run(folder.path / seed.run.path.name) if done else seed.run for seed, done in zip(seeds, finished, strict=True)
    ]
    records = [Record(run, config.protocol.select, share=len(runs)) for run in runs]
    numbers = [seed.config.seed for seed in seeds]
    title = f"{kind} {data.task} {'+'.join(modalities)} seeds {' '.join(map(str, numbers))}"
    point = ResumePoint(folder, records, config.resume_seconds, data_files(data, modalities))
    with ExitStack() as opened:
        loggers: list[WandbLogger | None] = [
            None if done else opened.enter_context(logger_of(seed.config, seed.run, kind, own))
            for seed, own, done in zip(seeds, datas, finished, strict=True)
        ]
        trainer = trainer_of(
            config,
            callbacks=[EachRecord(records, loggers), point, Progress(title, records, data.evaluated)],
            max_epochs=recipe.epochs,
            gradient_clip_val=recipe.clip,
            logger=False,
        )
        module = module_of(seeds, kind, datas, networks, at_once=runs_at_once(trainer))
        try:
            train(trainer, module, SeveralData(datas), title, point)
        except DivergedError:  # from where it was saved it would again
            shutil.rmtree(folder.path, ignore_errors=True)
            raise
        trained = [member.network for member in module.each()]
        for i, (seed, own, done) in enumerate(zip(seeds, datas, finished, strict=True)):
            if not done:
                write_weights(seed.run, "last.safetensors", trained[i].state_dict())
                training = Training(seed.config, kind, records[i], started, branches[i], together=numbers)
                conclude(seed.run, training, own, networks[i], trainer_of(config, logger=False), loggers[i])
                seed.run.file("resume.ckpt").unlink(missing_ok=True)  # begun alone while this was interrupted


def runs_at_once(trainer: L.Trainer) -> bool:
    """Whether the networks run as one computation: not on a CPU, where that is slower than one after another."""
    return trainer.strategy.root_device.type != "cpu"


def module_of(
    seeds: Sequence[Seed], kind: Kind, datas: Sequence[VideoSplits], networks: Sequence[nn.Module], *, at_once: bool
) -> SeveralSeeds:
    """What trains the networks, each by the configuration of its seed.

    Their kept maps share `keep_maps_gib`; networks that run as one computation keep none.
    """
    config = seeds[0].config
    settings = getattr(config.recipe, kind).model_dump(exclude={"batch_size", "crop", "clip"})

    def member(i: int, network: nn.Module, keep_gib: float) -> RecipeModule:
        return module_for(datas[i], network, seed=seeds[i].config.seed, keep_gib=keep_gib, **settings)

    if not at_once:
        share = config.keep_maps_gib / len(seeds)
        return SeveralInTurn([member(i, network, share) for i, network in enumerate(networks)], datas)
    if fixed_maps(networks[0], config.keep_maps_gib) is not None:
        log.info("keep_maps_gib is not read: networks that run as one computation compute their fixed branches anew")
    several = SeveralNetworks(networks)
    return SeveralAtOnce([member(i, Member(several, i), 0) for i in range(len(networks))], datas, several)


def branches_of(config: Config, kind: Kind, modalities: Sequence[str]) -> Mapping[str, Path]:
    """The folders of a fused network's pretrained branches; those begun alone are finished first."""
    if kind != "fusion" or config.recipe.stages != 2:
        return {}
    pipeline = Pipeline(config)
    return {m: pipeline.network("branch", [m]).path for m in modalities}
