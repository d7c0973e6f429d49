"""What the LightningModules share: a stage's recipe, and metrics of whole splits after every epoch."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from pamfn.data.batches import Batch
from pamfn.errors import DivergedError
from pamfn.models.network import Network
from pamfn.training.metrics import SplitMetrics
from pamfn.training.tasks import SplitPredictions, Task


class TrainingModule(L.LightningModule):
    """Trains a network for a task by one stage's recipe, and measures every evaluated split after each epoch.

    It takes any dataloaders that give a `Batch`. The schedule and the noise of an epoch follow from its number alone,
    so that a resumed training equals an uninterrupted one.

    Args:
        network, task: what is trained, and for what.
        epochs: of the schedule. optimizer ... drop_factor: the rest of a stage's recipe (`StageRecipe`).
        seed: of dropout and decision noise.
        compiled: training steps go through `torch.compile`, anew for each shape of their inputs; where the network
            cannot be compiled, its first step raises what the compiler says.
        val_splits, test_splits: names of the validation and of the test loaders, in order.
    """

    def __init__(
        self,
        network: Network,
        task: Task,
        *,
        epochs: int,
        seed: int = 0,
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
        val_splits: Sequence[str] = ("val",),
        test_splits: Sequence[str] = ("test",),
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["network", "task"])
        self.network, self.task = network, task
        # not whole videos, nearly each batch of which has a shape of its own; random numbers as without
        self.compiled = torch.compile(network.forward, options={"fallback_random": True}) if compiled else None
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.val_metrics: Any = nn.ModuleList(SplitMetrics(task, split) for split in val_splits)
        self.test_metrics: Any = nn.ModuleList(SplitMetrics(task, split) for split in test_splits)
        # of the last evaluation, in double precision
        self.metrics: dict[str, float] = {}
        self.predictions: dict[str, SplitPredictions] = {}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm of all gradients. Lightning's own refuses a fused optimiser in bf16, where nothing is scaled."""
        if gradient_clip_val is not None:
            clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], gradient_clip_val)

    def configure_optimizers(self) -> Any:
        """Optimiser and schedule of the recipe."""
        recipe, groups = self.hparams, self.parameter_groups()
        if recipe["optimizer"] == "sgd":
            optimizer: Optimizer = SGD(
                groups, lr=recipe["lr"], momentum=recipe["momentum"], weight_decay=recipe["weight_decay"]
            )
        else:
            optimizer = AdamW(groups, lr=recipe["lr"], weight_decay=recipe["weight_decay"], fused=True)
        schedules = [self.schedule(float(group["lr"])) for group in groups]
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, schedules)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The parameters that learn, and their rates: the head may have its own."""
        recipe, head = self.hparams, self.network.head_parameters()
        of_head = {id(p) for p in head}
        trained = [p for p in self.network.parameters() if p.requires_grad and id(p) not in of_head]
        groups: list[dict[str, Any]] = [{"params": trained, "lr": recipe["lr"]}]
        if head:
            groups.append({"params": head, "lr": recipe["lr"] * recipe["head_lr_scale"]})
        return groups

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
        """Return scores (b,), or logits (b, t), of a batch."""
        return self.network(batch.features, batch.lengths).score

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.hparams["seed"] * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = (self.compiled or self.network)(batch.features, batch.lengths)
        loss = self.loss(output, batch)
        with torch.autocast(self.device.type, enabled=False):  # in bfloat16, near distances would tie
            added = self.network.added_loss(output)
            loss = loss if added is None else loss + added
        self.train_loss.update(loss.detach(), weight=len(batch.target))
        return loss

    def loss(self, output: Any, batch: Batch) -> Tensor:
        """The task's loss, to which the network may add its own."""
        return self.task.loss(output, batch)

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.val_metrics[dataloader_idx].update(batch, *self.predict_scores(batch))

    def on_validation_epoch_end(self) -> None:
        self.measure(self.hparams["val_splits"], self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.test_metrics[dataloader_idx].update(batch, *self.predict_scores(batch))

    def on_test_epoch_end(self) -> None:
        self.measure(self.hparams["test_splits"], self.test_metrics)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> SplitPredictions:
        """Predictions of a batch, whose true values are those of the batch."""
        metric = SplitMetrics(self.task, self.hparams["test_splits"][dataloader_idx])
        metric.update(batch, *self.predict_scores(batch))
        return metric.predictions()

    def predict_scores(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Test scores, and their standard deviation over decision samples, 0 where none are averaged."""
        draws = video_draws(self.network, self.hparams["seed"], batch)
        score, spread = self.network.predict_scores(batch.features, batch.lengths, draws)
        return score.float(), spread.float()

    def measure(self, splits: Sequence[str], metrics: Iterable[SplitMetrics]) -> None:
        """Fills `predictions` and `metrics` from what was collected, and logs the latter.

        Raises:
            DivergedError: when that are no finite numbers.
        """
        diverged = self.train_loss.update_called and not self.train_loss.compute().isfinite()  # `Record` says so
        self.metrics, self.predictions = {}, {}
        for split, metric in zip(splits, metrics, strict=True):
            predictions = self.predictions[split] = metric.predictions()
            values = metric.compute()
            metric.reset()
            if not diverged:
                refuse_not_finite(split, predictions, values)
            self.metrics |= {f"{split}/{name}": value for name, value in values.items()}
        self.log_dict(self.metrics)


def refuse_not_finite(split: str, predictions: SplitPredictions, metrics: Mapping[str, float]) -> None:
    """A finite loss does not mean finite predictions, nor these an error that is finite."""
    wrong = sum(not math.isfinite(x) for x in predictions.predicted)
    if wrong or not math.isfinite(metrics.get("mse", 0.0)):
        of = len(predictions.predicted)
        what = f"{wrong} of {of} predictions are no finite numbers" if wrong else "mse overflows"
        raise DivergedError(
            f"the network diverged: for {split}, {what}. If it has just been trained, lower the recipe's lr or "
            "weight_decay, or set its clip."
        )


def video_draws(network: Network, seed: int, batch: Batch) -> list[Tensor] | None:
    """Draw a network's random numbers for test videos, from the seed and the video."""
    x = next(iter(batch.features.values()))
    keys = [seed * 1_000_003 + i for i in batch.videos.tolist()]
    draws = network.draws(keys, x.shape[1])
    return None if draws is None else [drawn.to(x.device) for drawn in draws]
