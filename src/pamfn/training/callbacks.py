"""What happens after every epoch: the curves, the best weights, a point to resume from, a sign of life."""

import io
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from pamfn.errors import DivergedError, InputError
from pamfn.evaluation.metrics import main_metric
from pamfn.evaluation.selection import best_epoch, metrics_in
from pamfn.files import whole, write_text
from pamfn.runs.folder import Run

log = logging.getLogger(__name__)


SELECTED = "selected.safetensors"


def write_weights(run: Run, name: str, weights: Mapping[str, Tensor]) -> None:
    """A network's state dict as safetensors."""
    with whole(run.file(name)) as temporary:  # not save_file, which has a temporary file and errors of its own
        temporary.write_bytes(save({k: v.contiguous() for k, v in weights.items()}))


class Record(Callback):
    """Curves of every epoch, and the weights of the best one on `split`, or of the last one without a split."""

    def __init__(self, run: Run, split: str | None) -> None:
        self.run, self.split = run, split
        self.curves: list[dict[str, float]] = []
        self.began, self.lr = 0.0, 0.0

    def state_dict(self) -> dict[str, Any]:
        file = self.run.file(SELECTED)
        return {"curves": self.curves, "selected": load_file(file) if file.exists() else {}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the curves and the selected weights of the checkpoint, which a later epoch may have replaced."""
        self.curves = state_dict["curves"]
        if state_dict.get("selected"):
            write_weights(self.run, SELECTED, state_dict["selected"])

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = time.perf_counter()
        self.lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = float(pl_module.train_loss.compute())  # type: ignore[operator]
        measured: dict[str, float] = {"train/loss": loss, **pl_module.metrics}  # type: ignore[dict-item]
        if not math.isfinite(loss):
            raise DivergedError(
                f"training diverged: the loss of epoch {trainer.current_epoch + 1} is {loss}. "
                "Lower the recipe's lr, or set its clip."
            )
        seconds = time.perf_counter() - self.began
        self.curves.append({"epoch": trainer.current_epoch, "lr": self.lr, "seconds": seconds, **measured})
        if self.split is None or best_epoch(self.curves, self.split) == trainer.current_epoch:
            write_weights(self.run, SELECTED, pl_module.network.state_dict())  # type: ignore[union-attr]

    def write(self) -> None:
        """curves.csv: a line an epoch."""
        columns = list(self.curves[0])
        lines = [",".join(f"{row[c]:.10g}" for c in columns) for row in self.curves]
        write_text(self.run.file("curves.csv"), "\n".join([",".join(columns), *lines]) + "\n")


class ResumeFile(TorchCheckpointIO):
    """Write a checkpoint straight to its path; Lightning's own goes through the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        kept = io.BytesIO()
        torch.save(checkpoint, kept)
        Path(path).write_bytes(kept.getbuffer())


class ResumePoint(Callback):
    """A checkpoint every `seconds`, after an epoch, from which the same command goes on.

    data_files: checksums of what is trained on; a training that goes on must find the same.
    """

    def __init__(self, run: Run, record: Record, seconds: float, data_files: Mapping[str, str] | None = None) -> None:
        self.run, self.record, self.seconds, self.data_files = run, record, seconds, dict(data_files or {})
        self.saved, self.began = time.monotonic(), False

    @property
    def file(self) -> Path:
        return self.run.file("resume.ckpt")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.began = True  # whatever is wrong with the file has been told by now

    def state_dict(self) -> dict[str, Any]:
        return {"run": self.run.path.name, "data_files": self.data_files}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises InputError when it is of another run, or the data is not that of then."""
        if state_dict.get("run", self.run.path.name) != self.run.path.name:
            raise InputError(f"{self.file} is of {state_dict['run']}. Remove it to begin this training again.")
        changed = [name for name, had in state_dict["data_files"].items() if self.data_files.get(name) != had]
        if changed:
            raise InputError(
                f"{self.run.path}: this training was begun on other data: {', '.join(changed)} changed since. Bring "
                f"that back, or remove {self.file} to begin again."
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if time.monotonic() - self.saved < self.seconds or trainer.current_epoch + 1 == trainer.max_epochs:
            return
        with whole(self.file) as temporary:
            trainer.save_checkpoint(temporary)
        self.record.write()
        self.saved = time.monotonic()


class OwnSigterm(Callback):
    """Restore the SIGTERM handler that Lightning replaces: its own ends the process after a batch.

    A launcher may want a job to go on after it: submitit's are told to requeue by the signal that follows. Where nobody
    had it, a training keeps Lightning's; a mere test or prediction ends at once, not as if all were well.
    """

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if callable(self.before):
            give_back(self.before)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        give_back(self.before)

    on_predict_start = on_test_start


def give_back(handler: Any) -> None:
    """Sets what handles SIGTERM, as Lightning does: in the main thread only."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


class Progress(Callback):
    """A bar over epochs on a terminal, one line an epoch otherwise: loss, main metric, time left."""

    def __init__(self, title: str, record: Record, splits: list[str]) -> None:
        self.title, self.record, self.splits = title, record, splits
        self.bar: tqdm[Any] | None = None
        self.first = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.first = trainer.current_epoch
        if sys.stdout is not None and sys.stdout.isatty():
            self.bar = tqdm(
                total=trainer.max_epochs, initial=self.first, desc=self.title, unit="epoch", file=sys.stdout
            )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        row = self.record.curves[-1]
        metric = main_metric(metrics_in(row, self.splits[0]))
        chance = {split: row.get(f"{split}/chance") for split in self.splits}
        scores = "  ".join(
            f"{split} {metric} {row[f'{split}/{metric}']:.4f}"
            + ("" if chance[split] is None else f" (chance {chance[split]:.3f})")
            for split in self.splits
        )
        line = f"loss {row['train/loss']:.5f}  {scores}"
        if self.bar is not None:
            self.bar.set_postfix_str(line, refresh=False)
            self.bar.update()
            return
        left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        eta = left * mean(row["seconds"] for row in self.record.curves[self.first :])
        log.info(
            "%s  epoch %d/%d  %s  %.1f s  %s left",
            *(self.title, trainer.current_epoch + 1, trainer.max_epochs, line, row["seconds"], duration(eta)),
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def duration(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
