"""The LightningModule that trains every network here to predict a score: branches, PAMFN, baselines."""

import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from pamfn.data.videos import Batch
from pamfn.evaluation.metrics import score_metrics


class ScoreNetwork(Protocol):
    """What a network offers: scores (b,) in [0, 1] of a dict of features (b, t, c), under an output's `.score`."""

    def __call__(self, features: dict[str, Tensor], lengths: Tensor | None = None) -> Any: ...


class ScoreRegression(L.LightningModule):
    """MSE on the normalised score, and what the network adds to it; all metrics of every evaluated split each epoch.

    Args:
        network: gives `.score` for `network(features, lengths)`, and may offer `decide`, `head_parameters` and
            `added_loss`, which makes a scalar of its own output.
        splits: names of the validation loaders, in order.
        max_score: points of a score of 1. score_range: see `score_metrics`. seed: of dropout and decision noise.
        The rest is one stage's recipe (`StageRecipe`). The schedule and the noise of an epoch follow from its number
        alone, so that a resumed training equals an uninterrupted one.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        splits: list[str],
        max_score: float,
        score_range: float,
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
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["network"])
        self.network = network
        self.splits, self.max_score, self.score_range, self.seed = splits, max_score, score_range, seed
        self.train_loss = MeanMetric(nan_strategy="disable")
        self.metrics: dict[str, float] = {}  # of the last evaluation, in double precision
        self.predictions: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def configure_optimizers(self) -> Any:
        recipe = self.hparams
        head = getattr(self.network, "head_parameters", list)()
        of_head = {id(p) for p in head}
        trained = [p for p in self.network.parameters() if p.requires_grad and id(p) not in of_head]
        groups: list[dict[str, Any]] = [{"params": trained, "lr": recipe["lr"]}]
        if head:
            groups.append({"params": head, "lr": recipe["lr"] * recipe["head_lr_scale"]})
        if recipe["optimizer"] == "sgd":
            optimizer: Optimizer = SGD(
                groups, lr=recipe["lr"], momentum=recipe["momentum"], weight_decay=recipe["weight_decay"]
            )
        else:
            optimizer = AdamW(groups, lr=recipe["lr"], weight_decay=recipe["weight_decay"], fused=True)
        schedules = [self.schedule(float(group["lr"])) for group in groups]
        return {"optimizer": optimizer, "lr_scheduler": LambdaLR(optimizer, schedules)}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """By the norm of all gradients. Lightning's own refuses a fused optimiser in bf16, where nothing is scaled."""
        if gradient_clip_val is not None:
            clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], gradient_clip_val)

    def schedule(self, lr: float) -> Any:
        """Factor on `lr` in an epoch: 1, the cosine from 1 down to lr_min / lr, or a tenth for every drop so far."""
        epochs, floor = self.hparams["epochs"], self.hparams["lr_min"] / lr
        if self.hparams["schedule"] == "none":
            return lambda epoch: 1.0
        if self.hparams["schedule"] == "steps":
            return lambda epoch: 0.1 ** sum(epoch >= epochs - before_end for before_end in self.hparams["drops"])
        return lambda epoch: floor + (1 - floor) * (1 + math.cos(math.pi * epoch / epochs)) / 2

    def forward(self, batch: Batch) -> Tensor:
        """Scores (b,) of a batch."""
        return self.network(batch.features, batch.lengths).score

    def on_train_epoch_start(self) -> None:
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = self.network(batch.features, batch.lengths)
        loss = F.mse_loss(output.score.float(), batch.target)
        if hasattr(self.network, "added_loss"):
            loss = loss + self.network.added_loss(output)  # type: ignore[operator]
        self.train_loss.update(loss.detach(), weight=len(batch.target))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.metrics = {}
        self.predictions = {split: [] for split in self.splits}

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        score, spread = self.decide(batch)
        self.predictions[self.splits[dataloader_idx]].append((batch.videos, score, spread))

    def decide(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Test scores (b,) and their standard deviation over decision samples (b,), 0 where nothing is sampled."""
        if not hasattr(self.network, "decide"):
            score = self(batch).float()
            return score, torch.zeros_like(score)
        keys = [self.seed * 1_000_003 + int(i) for i in batch.videos]
        score, spread = self.network.decide(batch.features, batch.lengths, keys)  # type: ignore[operator]
        return score.float(), torch.zeros_like(score) if spread is None else spread.float()

    def predicted(self, split: str) -> dict[str, list[float]]:
        """Points of a split's videos in the split's order: true, predicted, spread."""
        index, score, spread = (torch.cat(column).cpu() for column in zip(*self.predictions[split], strict=True))
        order = index.argsort()
        true = self.trainer.datamodule.splits[split].points  # type: ignore[attr-defined]
        scaled = {"predicted": score, "spread": spread}
        return {"true": true.tolist(), **{k: (x[order].double() * self.max_score).tolist() for k, x in scaled.items()}}

    def on_validation_epoch_end(self) -> None:
        for split in self.splits:
            points = self.predicted(split)
            metrics = score_metrics(points["true"], points["predicted"], self.score_range)
            self.metrics.update({f"{split}/{name}": value for name, value in metrics.items()})
        if self.trainer.state.fn == "fit":  # later evaluations are no part of the curves
            self.log_dict(self.metrics)

    def on_train_epoch_end(self) -> None:
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()
