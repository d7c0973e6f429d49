"""The LightningModule that trains every network here to find highlights: branches, PAMFN, baselines."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pamfn.data.batches import Batch
from pamfn.data.highlight_datamodule import YouTubeHighlightsDataModule
from pamfn.evaluation.average_precision import chance
from pamfn.evaluation.metrics import highlight_metrics
from pamfn.models.network import BagNetwork
from pamfn.training.module import Points, RecipeModule


class HighlightDetection(RecipeModule):
    """Cross-entropy of every clip's label; metrics are `highlight_metrics` and the `chance` level of the same clips.

    The network's `.score` (b, t) are logits, and clips are ranked by them: probabilities near 1 would be equal. A
    video's loss is the mean over its clips and a batch's the mean over its videos, so that the gradient of a batch is
    the mean of what its videos alone would give.
    """

    def loss(self, output: Any, batch: Batch) -> Tensor:
        if isinstance(self.network, BagNetwork):  # labels of whole videos alone
            return self.network.bag_loss(output, batch.target)
        each = F.binary_cross_entropy_with_logits(output.score.float(), batch.target, reduction="none")
        if batch.lengths is None:
            return each.mean()
        real = torch.arange(each.shape[1], device=each.device) < batch.lengths[:, None]
        return (each * real).sum(dim=1).div(batch.lengths).mean()

    def predicted(self, data: YouTubeHighlightsDataModule, split: str) -> Points:
        """Labels and logits of all clips, one video after another in the split's order."""
        videos = data.splits[split]
        length, columns = videos.length.tolist(), {"predicted": {}, "spread": {}}
        for index, *said in self.predictions[split]:
            for name, values in zip(columns, said, strict=True):
                columns[name] |= {int(v): x[: length[v]] for v, x in zip(index, values.double().cpu(), strict=True)}
        together = {name: torch.cat([of[v] for v in range(len(videos))]) for name, of in columns.items()}
        assert videos.labels is not None
        true = torch.cat([videos.labels[s : s + n] for s, n in zip(videos.start.tolist(), length, strict=True)])
        return {"true": true.tolist(), **{name: values.tolist() for name, values in together.items()}}

    @staticmethod
    def judge(data: YouTubeHighlightsDataModule, split: str, points: Points) -> dict[str, float]:
        ends = data.splits[split].length.cumsum(0)[:-1].tolist()
        true, predicted = (np.split(np.array(points[column]), ends) for column in ("true", "predicted"))
        return {**highlight_metrics(true, predicted), "chance": chance_of(data.splits[split].names, true)}


def chance_of(names: Sequence[str], labels: Sequence[np.ndarray]) -> float:
    """`chance` of these videos, worked out once."""
    return remembered_chance(tuple(zip(names, (tuple(label) for label in labels), strict=True)))


@lru_cache(maxsize=8)
def remembered_chance(labels: tuple[tuple[str, tuple[float, ...]], ...]) -> float:
    return chance(dict(labels))
