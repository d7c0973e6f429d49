"""What training a network by a stage's recipe takes, whatever it learns to predict."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from pamfn.data.batches import Batch
from pamfn.errors import DivergedError
from pamfn.models.network import Network
from pamfn.training.compiled import Compiled

Points = dict[str, list[float]]
"""true, predicted and spread of a split's videos (or of their clips, one video after another)."""


class ClippingModule(L.LightningModule):
    """Clips by the norm of all gradients.

    Lightning's own clipping refuses a fused optimiser in bf16, where nothing is scaled.
    """

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if gradient_clip_val is not None:
            self.clip(optimizer, gradient_clip_val)

    def clip(self, optimizer: Optimizer, norm: float) -> None:
        """Scales the gradients down to this norm."""
        clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], norm)


class RecipeModule(ClippingModule, ABC):
    """Trains any network by one stage's recipe, and measures every evaluated split after each epoch.

    A task says what a batch's loss is (`loss`), what was predicted (`predicted`) and how good that is (`judge`).

    Args:
        network: what is trained. splits: names of the validation loaders, in order.
        seed: of dropout and decision noise. compiled: training steps go through `Compiled`.
        The rest is one stage's recipe (`StageRecipe`). The schedule and the noise of an epoch follow from its number
        alone, so that a resumed training equals an uninterrupted one.
    """

    def __init__(
        self,
        network: Network,
        *,
        splits: list[str],
        seed: int,
        epochs: int,
        optimizer: Literal["sgd", "adamw"] = "sgd",
        lr: float = 0.01,
        lr_min: float = 5e-6,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        schedule: Literal["cosine", "none", "steps"] = "cosine",
        head_lr_scale: float = 1.0,
        drops: Sequence[int] = (),
        drop_factor: float = 0.1,
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["network"])
        self.network = network
        self.compiled: Compiled | None = None
        self.splits, self.seed = splits, seed
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.metrics: dict[str, float] = {}  # of the last evaluation, in double precision
        self.predictions: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> Tensor:
        """What the task wants to be small."""

    @abstractmethod
    def predicted(self, data: Any, split: str) -> Points:
        """What the last evaluation predicted for a split of a data module, in its order."""

    @staticmethod
    @abstractmethod
    def judge(data: Any, split: str, points: Points) -> dict[str, float]:
        """Metrics of what was predicted for a split of a data module."""

    def configure_optimizers(self) -> Any:
        return self.optimized(self.groups(self.network))

    def groups(self, network: Network) -> list[dict[str, Any]]:
        """The parameters of a network that learn, and their rates: the head may have its own."""
        recipe = self.hparams
        head = network.head_parameters()
        of_head = {id(p) for p in head}
        trained = [p for p in network.parameters() if p.requires_grad and id(p) not in of_head]
        groups: list[dict[str, Any]] = [{"params": trained, "lr": recipe["lr"]}]
        if head:
            groups.append({"params": head, "lr": recipe["lr"] * recipe["head_lr_scale"]})
        return groups

    def optimized(self, groups: list[dict[str, Any]]) -> Any:
        """Optimiser and schedule of the recipe for groups of parameters."""
        recipe = self.hparams
        if recipe["optimizer"] == "sgd":
            optimizer: Optimizer = SGD(
                groups, lr=recipe["lr"], momentum=recipe["momentum"], weight_decay=recipe["weight_decay"]
            )
        else:
            optimizer = AdamW(groups, lr=recipe["lr"], weight_decay=recipe["weight_decay"], fused=True)
        schedules = [self.schedule(float(group["lr"])) for group in groups]
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, schedules)}

    def schedule(self, lr: float) -> Any:
        """Factor on `lr` in an epoch: 1, the cosine from 1 to lr_min / lr, or drop_factor to the number of drops."""
        epochs, floor = self.hparams["epochs"], self.hparams["lr_min"] / lr
        if self.hparams["schedule"] == "none":
            return lambda epoch: 1.0
        if self.hparams["schedule"] == "steps":
            factor, drops = self.hparams["drop_factor"], self.hparams["drops"]
            return lambda epoch: factor ** sum(epoch >= epochs - before_end for before_end in drops)
        return lambda epoch: floor + (1 - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2

    def forward(self, batch: Batch) -> Tensor:
        """What the network says of a batch: scores (b,), or logits (b, t) of its segments."""
        return self.network(batch.features, batch.lengths).score

    def on_train_start(self) -> None:
        if self.hparams["compiled"]:  # here, since the network is on its device now
            self.compiled = Compiled(self.network)

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = (self.compiled or self.network)(batch.features, batch.lengths)
        loss = self.loss(output, batch)
        with torch.autocast(self.device.type, enabled=False):  # in bfloat16, near distances would tie
            added = self.network.added_loss(output)
            loss = loss if added is None else loss + added
        self.train_loss.update(loss.detach(), weight=len(batch.target))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.metrics = {}
        self.predictions = {split: [] for split in self.splits}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        score, spread = self.decide(batch)
        self.predictions[self.splits[dataloader_idx]].append((batch.videos, score, spread))

    def decide(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What is said at test time, and its standard deviation over decision samples, 0 where none are averaged."""
        draws = test_noise(self.network, self.seed, batch)
        score, spread = self.network.predict_scores(batch.features, batch.lengths, draws)
        return score.float(), spread.float()

    def on_validation_epoch_end(self) -> None:
        self.measure(self.trainer.datamodule)  # type: ignore[attr-defined]
        if self.trainer.state.fn == "fit":  # later evaluations are no part of the curves
            self.log_dict(self.metrics)

    def measure(self, data: Any) -> None:
        """Fills `metrics` from what was predicted.

        Raises:
            DivergedError: when that are no finite numbers.
        """
        told = self.train_loss.update_called and not self.train_loss.compute().isfinite()  # by whoever reads the loss
        for split in self.splits:
            points = self.predicted(data, split)
            metrics = self.judge(data, split, points)
            if not told:
                refuse_not_finite(split, points, metrics)
            self.metrics.update({f"{split}/{name}": value for name, value in metrics.items()})

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()


def refuse_not_finite(split: str, points: Points, metrics: Mapping[str, float]) -> None:
    """A finite loss does not mean finite predictions, nor these an error that is finite."""
    wrong = sum(not math.isfinite(x) for x in points["predicted"])
    if wrong or not math.isfinite(metrics.get("mse", 0.0)):
        told = f"{wrong} of {len(points['predicted'])} predictions are no finite numbers" if wrong else "mse overflows"
        raise DivergedError(
            f"the network diverged: for {split}, {told}. If it has just been trained, lower the recipe's lr or "
            "weight_decay, or set its clip."
        )


def epoch_seed(seed: int, epoch: int) -> int:
    """Of the random numbers of an epoch's training."""
    return seed * 1_000_003 + epoch


def test_noise(network: Network, seed: int, batch: Batch) -> list[Tensor] | None:
    """What a network draws for test videos, which follows from the seed and the video."""
    x = next(iter(batch.features.values()))
    keys = [seed * 1_000_003 + i for i in batch.videos.tolist()]
    draws = network.draws(keys, x.shape[1])
    return None if draws is None else [drawn.to(x.device) for drawn in draws]
