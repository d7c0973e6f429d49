"""What Lightning, logging, checkpoints and data access cost on top of a bare loop over the same batches."""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import numpy as np
from hydra import compose, initialize_config_dir

from benchmarks import workloads as w
from benchmarks.devices import seconds
from pamfn.config.compose import CONF, register
from pamfn.config.schema import Config
from pamfn.config.validation import checked
from pamfn.data.batches import Crops, WholeVideos
from pamfn.models.pamfn import PAMFN
from pamfn.pipeline import fit
from pamfn.pipeline.reload import quiet
from pamfn.pipeline.two_stage import run_job

EXTRACTORS = {"rgb": "VST", "flow": "I3D", "audio": "AST"}


class Turns(L.Callback):
    """Runs a bare epoch before each of the trainer's epochs, and times both: from one epoch's start to the next's."""

    def __init__(self) -> None:
        self.title, self.work = "", None
        self.bare: list[float] = []
        self.whole: list[float] = []
        self.data: list[float] = []
        self.began = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.lap()
        splits = trainer.datamodule.splits  # type: ignore[attr-defined]
        train, test = splits["train"], splits["test"]
        if self.work is None:
            fused, modalities = isinstance(pl_module.network, PAMFN), list(train.packed)
            self.title = "stage 2" if fused else f"stage 1, {modalities[0]}"
            self.work = w.our_pamfn(w.SIZES["fisv"]) if fused else w.our_branch(modalities[0])
            w.our_epoch(self.work, train, test)
        work = self.work
        self.data.append(seconds(lambda: [*map(len, Crops(train, segments=130, batch_size=w.BATCH, seed=0))]))
        self.data[-1] += seconds(lambda: [*map(len, WholeVideos(test, batch_size=w.TEST_BATCH))])
        self.bare.append(seconds(lambda: w.our_epoch(work, train, test)))
        self.began = time.process_time()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.lap()
        self.work = None

    def lap(self) -> None:
        """Ends the trainer's running epoch, if there is one."""
        if self.began:
            self.whole.append(time.process_time() - self.began)
        self.began = 0.0

    def __str__(self) -> str:
        bare, whole, data = (statistics.median(x) for x in (self.bare, self.whole, self.data))
        extra = statistics.median(a / b - 1 for a, b in zip(self.whole, self.bare, strict=True))
        return (
            f"{self.title}: an epoch takes {whole:.2f} CPU s in the pipeline, {bare:.2f} in a bare loop "
            f"({extra:+.1%}, n = {len(self.bare)}); data access is {data / bare:.1%} of it"
        )


def overheads(pairs: int) -> list[str]:
    """A line for every network of a Fis-V job with generated features: `pairs` epochs each, W&B offline."""
    os.environ.update(WANDB_MODE="offline", WANDB_SILENT="true")
    found: list[Turns] = []
    original = fit.trainer_of

    def trainer_of(checked: Config, **arguments: Any) -> L.Trainer:
        if "callbacks" in arguments:  # else it is only tried whether the settings can be built
            found.append(Turns())
            arguments["callbacks"] = [*arguments["callbacks"], found[-1]]
        return original(checked, **arguments)

    with tempfile.TemporaryDirectory() as folder, patch.object(fit, "trainer_of", trainer_of):
        quiet()
        run_job(job(Path(folder), epochs=pairs))
    return [str(turns) for turns in found]


def job(folder: Path, *, epochs: int) -> Config:
    """Both stages on generated features at Fis-V's sizes, in the settings of `workloads`."""
    write_fisv(folder / "data")
    overrides = ["+experiment=fisv_tes", "recipe=official", "protocol=paper", "model.decoding=argmax", "logger=wandb"]
    overrides += [f"recipe.{stage}.epochs={epochs}" for stage in ("branch", "fusion")]
    overrides += [f"paths.data_dir={folder / 'data'}", f"paths.output_dir={folder / 'runs'}", "trainer.accelerator=cpu"]
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return checked(compose("train", overrides=overrides))


def write_fisv(data_dir: Path) -> None:
    """Label and feature files of 500 videos with the lengths of Fis-V."""
    draw = np.random.default_rng(0)
    train, test, _ = w.fisv_lengths(os.environ.get("PAMFN_DATA_DIR"))
    (data_dir / "FISV").mkdir(parents=True)
    (data_dir / "features").mkdir()
    lines = [f"{i} {tes:.2f} {tes:.2f} 0\n" for i, tes in enumerate(draw.uniform(5, 45, len(train + test)))]
    (data_dir / "FISV/train.txt").write_text("".join(lines[: len(train)]))
    (data_dir / "FISV/test.txt").write_text("".join(lines[len(train) :]))
    for modality, width in w.WIDTHS.items():
        lengths = enumerate(train + test)
        arrays = {str(i): draw.standard_normal((t, width), dtype=np.float32).astype(np.float16) for i, t in lengths}
        file = data_dir / f"features/FISV_{modality}_{EXTRACTORS[modality]}.npy"
        np.save(file, np.array(arrays, dtype=object), allow_pickle=True)
