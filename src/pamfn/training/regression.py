"""The LightningModule that trains every network here to predict a score: branches, PAMFN, baselines."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pamfn.data.batches import Batch
from pamfn.data.score_datamodule import ScoreDataModule
from pamfn.evaluation.metrics import score_metrics
from pamfn.models.network import Network
from pamfn.training.module import Points, RecipeModule


class ScoreRegression(RecipeModule):
    """MSE on the normalised score, and what the network adds to it; the metrics are `score_metrics`.

    The network's `.score` (b,) is in units of max_score, the points of a score of 1; not every network keeps it in
    [0, 1]. See `RecipeModule` for the rest.
    """

    def __init__(self, network: Network, *, max_score: float, **recipe: Any) -> None:
        super().__init__(network, **recipe)
        self.max_score = max_score

    def loss(self, output: Any, batch: Batch) -> Tensor:
        return F.mse_loss(output.score.float(), batch.target)

    def predicted(self, data: ScoreDataModule, split: str) -> Points:
        """Points of a split's videos in the split's order: true, predicted, spread."""
        index, score, spread = (torch.cat(column).cpu() for column in zip(*self.predictions[split], strict=True))
        order = index.argsort()
        true = data.splits[split].points
        scaled = {"predicted": score, "spread": spread}
        return {"true": true.tolist(), **{k: (x[order].double() * self.max_score).tolist() for k, x in scaled.items()}}

    @staticmethod
    def judge(data: ScoreDataModule, split: str, points: Points) -> dict[str, float]:
        return score_metrics(points["true"], points["predicted"], data.score_range)
