"""Several seeds of one configuration in one training: modules, data and callbacks that keep each seed's own."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from pamfn.data.splits import VideoSplits
from pamfn.data.videos import Batch, padded
from pamfn.errors import DivergedError
from pamfn.models.draws import drawing_from
from pamfn.models.several import SeveralNetworks
from pamfn.training.callbacks import Record
from pamfn.training.recipe import ClippingModule, RecipeModule, epoch_seed, test_noise


class Scored(NamedTuple):
    """What one network says of its batch: score (b,)."""

    score: Tensor


class Member(nn.Module):
    """One of several networks, as far as its own module and callbacks look at it: its state dict."""

    def __init__(self, networks: SeveralNetworks, index: int) -> None:
        super().__init__()
        self.of = (networks, index)  # in a tuple, so that the networks are no submodule of each member

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        networks, index = self.of
        return networks.state_of(index)


class SeveralSeeds(ClippingModule, ABC):
    """Trains one network a seed by the same recipe; batches are lists of one `Batch` a seed.

    members: a module a seed; each keeps its own loss, predictions and metrics. data: a data module a seed.
    """

    def __init__(self, members: Sequence[RecipeModule], data: Sequence[VideoSplits]) -> None:
        super().__init__()
        self.data = list(data)
        self.members = nn.ModuleList(members)
        self.generators: list[torch.Generator] = []

    def each(self) -> Iterator[RecipeModule]:
        for member in self.members:
            assert isinstance(member, RecipeModule)
            yield member

    @abstractmethod
    def training_step(self, batches: list[Batch], batch_idx: int) -> Tensor:
        """The sum of the networks' losses."""

    def on_train_epoch_start(self) -> None:
        self.generators = [
            torch.Generator(self.device).manual_seed(epoch_seed(member.seed, self.current_epoch))
            for member in self.each()
        ]

    def on_validation_epoch_start(self) -> None:
        for member in self.each():
            member.on_validation_epoch_start()

    def on_validation_epoch_end(self) -> None:
        for member, data in zip(self.each(), self.data, strict=True):
            member.measure(data)

    def on_train_epoch_end(self) -> None:
        for member in self.each():
            member.train_loss.reset()


class SeveralInTurn(SeveralSeeds):
    """One network after another: on a CPU each gets, bit for bit, the numbers that it would get alone.

    So they have nothing in common. (Stacked parameters would not get the same: `AdamW(fused=True)` rounds the last few
    elements of a tensor in another way than the others.)
    """

    def configure_optimizers(self) -> Any:
        groups = [group for member in self.each() for group in member.groups(member.network)]
        return next(self.each()).optimized(groups)

    def clip(self, optimizer: Optimizer, norm: float) -> None:
        """Each network's gradients by their own norm."""
        for member in self.each():
            clip_grad_norm_([p for group in member.groups(member.network) for p in group["params"]], norm)

    def training_step(self, batches: list[Batch], batch_idx: int) -> Tensor:
        """Leaves the gradients too, so that a network's activations are gone before the next one needs the caches."""
        losses = []
        for member, batch, generator in zip(self.each(), batches, self.generators, strict=True):
            with drawing_from([generator]):
                loss = member.training_step(batch, batch_idx)
            member.zero_grad()
            with torch.autocast(self.device.type, enabled=False):
                loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Nothing: `training_step` did."""

    def backward(self, *_: Any, **__: Any) -> None:
        """Nothing: `training_step` did."""

    def validation_step(self, batches: list[Batch], batch_idx: int, dataloader_idx: int = 0) -> None:
        for member, batch in zip(self.each(), batches, strict=True):
            member.validation_step(batch, batch_idx, dataloader_idx)


class SeveralAtOnce(SeveralSeeds):
    """All as one computation, which is faster on a GPU; the numbers are those of each alone but for rounding.

    members: on a `Member` of the networks each.
    """

    def __init__(self, members: Sequence[RecipeModule], data: Sequence[VideoSplits], networks: SeveralNetworks) -> None:
        super().__init__(members, data)
        self.networks = networks

    def configure_optimizers(self) -> Any:
        first = next(self.each())
        return first.optimized(first.groups(self.networks))

    def clip(self, optimizer: Optimizer, norm: float) -> None:
        """Each network's gradients by their own norm."""
        found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for own in zip(*found, strict=True):
            factor = (norm / (get_total_norm(own) + 1e-6)).clamp_max(1)
            for grad in own:
                grad.mul_(factor)

    def training_step(self, batches: list[Batch], batch_idx: int) -> Tensor:
        scores = self.networks("forward", [(batch.features, None) for batch in batches], self.generators)
        losses = []
        for member, score, batch in zip(self.each(), scores, batches, strict=True):
            losses.append(member.loss(Scored(score), batch))
            member.train_loss.update(losses[-1].detach(), weight=len(batch.target))
        return torch.stack(losses).sum()

    def validation_step(self, batches: list[Batch], batch_idx: int, dataloader_idx: int = 0) -> None:
        batches = padded(batches)
        skeleton = self.networks.skeleton[0].network
        if not hasattr(skeleton, "decide"):
            scores = self.networks("forward", [(batch.features, batch.lengths) for batch in batches])
            said = [(score, torch.zeros_like(score)) for score in scores]
        else:
            noise = [test_noise(skeleton, m.seed, batch) for m, batch in zip(self.each(), batches, strict=True)]
            given = [(batch.features, batch.lengths, drawn) for batch, drawn in zip(batches, noise, strict=True)]
            said = self.networks("decide", given)
        for member, batch, (score, spread) in zip(self.each(), batches, said, strict=True):
            predictions = member.predictions[member.splits[dataloader_idx]]
            predictions.append((batch.videos, score.float(), spread.float()))


class Zipped:
    """The batches of one loader a seed, side by side."""

    def __init__(self, loaders: Sequence[Any]) -> None:
        self.loaders = loaders

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[list[Batch]]:
        for batches in zip(*self.loaders, strict=True):
            yield list(batches)


class ZippedEpochs(Zipped):
    """The same of training batches, which follow from the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this on `sampler` before every epoch."""
        for loader in self.loaders:
            loader.set_epoch(epoch)

    @property
    def sampler(self) -> "ZippedEpochs":
        return self


class SeveralData(L.LightningDataModule):
    """The data of every seed, in step."""

    def __init__(self, data: Sequence[VideoSplits]) -> None:
        super().__init__()
        self.data = data

    def setup(self, stage: str | None = None) -> None:
        for data in self.data:
            data.trainer = self.trainer  # knows the device

    def train_dataloader(self) -> ZippedEpochs:
        return ZippedEpochs([data.train_dataloader() for data in self.data])

    def val_dataloader(self) -> list[Zipped]:
        return [Zipped(loaders) for loaders in zip(*(data.val_dataloader() for data in self.data), strict=True)]


class EachRecord(Callback):
    """A `Record` a seed, and what it recorded to that seed's logger."""

    def __init__(self, records: Sequence[Record], loggers: Sequence[Logger | None]) -> None:
        self.records, self.loggers = records, loggers

    def state_dict(self) -> dict[str, Any]:
        return {"records": [record.state_dict() for record in self.records]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for record, state in zip(self.records, state_dict["records"], strict=True):
            record.load_state_dict(state)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SeveralSeeds)
        for record, member in zip(self.records, pl_module.each(), strict=True):
            record.on_train_epoch_start(trainer, member)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SeveralSeeds)
        refuse_diverged(list(pl_module.each()), trainer.current_epoch)
        for record, member, logger in zip(self.records, pl_module.each(), self.loggers, strict=True):
            record.on_train_epoch_end(trainer, member)
            if logger is not None:
                logger.log_metrics(record.curves[-1], step=trainer.global_step)


def refuse_diverged(members: Sequence[RecipeModule], epoch: int) -> None:
    """Names the seeds whose loss is no number any more, since one is enough to end the training of all.

    Raises:
        DivergedError: when there are any.
    """
    losses = {member.seed: float(member.train_loss.compute()) for member in members}
    lost = {seed: loss for seed, loss in losses.items() if not math.isfinite(loss)}
    if lost:
        told = ", ".join(f"{loss} with seed {seed}" for seed, loss in lost.items())
        others = [seed for seed in losses if seed not in lost]
        without = f" Or train the others without: {asked(others)}." if others else ""
        raise DivergedError(
            f"training diverged: the loss of epoch {epoch + 1} is {told}. "
            f"Lower the recipe's lr, or set its clip.{without}"
        )


def asked(seeds: Sequence[int]) -> str:
    """The word of the command line that asks for these seeds in one training."""
    return f"seeds=[{','.join(map(str, seeds))}]"
