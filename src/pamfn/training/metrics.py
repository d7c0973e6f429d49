"""torchmetrics of a split: the predictions of all batches are collected, then all videos are measured at once."""

import torch
from torch import Tensor
from torchmetrics import Metric

from pamfn.data.batches import Batch
from pamfn.training.tasks import SplitPredictions, Task

STATES = ("videos", "lengths", "true", "predicted", "spread")


class SplitMetrics(Metric):
    """A task's metrics of a split: `update` collects its batches, `compute` measures all videos in double precision.

    A rank correlation is not a mean over batches: neither their size nor the order of the videos changes a metric.
    """

    full_state_update = False

    def __init__(self, task: Task, split: str = "") -> None:
        super().__init__()
        self.task, self.names = task, task.names.get(split)
        for state in STATES:
            self.add_state(state, default=[], dist_reduce_fx=None)

    def update(self, batch: Batch, score: Tensor, spread: Tensor) -> None:
        """Adds a batch and what the network predicts for it; nothing is copied to the CPU before the end."""
        segments = next(iter(batch.features.values())).shape[1]
        lengths = torch.full_like(batch.videos, segments) if batch.lengths is None else batch.lengths
        true = batch.target * self.task.scale if batch.points is None else batch.points
        for state, values in zip(STATES, (batch.videos, lengths, true, score, spread), strict=True):
            getattr(self, state).append(values)

    def compute(self) -> dict[str, float]:
        return self.task.compute_metrics(self.predictions())

    def predictions(self) -> SplitPredictions:
        """What was collected, in the order of the split."""
        videos: dict[int, Tensor] = {}  # (3, n): of every clip, or of the video alone
        for index, lengths, *values in zip(*(getattr(self, state) for state in STATES), strict=True):
            rows = torch.stack([x.cpu().double().view(len(index), -1) for x in values], dim=1)
            videos |= {v: row[:, :t] for v, row, t in zip(index.tolist(), rows, lengths.tolist(), strict=True)}
        order = sorted(videos)
        true, predicted, spread = torch.cat([videos[v] for v in order], dim=1)
        return SplitPredictions(
            videos=[str(v) if self.names is None else self.names[v] for v in order],
            true=true.tolist(),
            predicted=(predicted * self.task.scale).tolist(),
            spread=(spread * self.task.scale).tolist(),
            clips=[videos[v].shape[1] for v in order],
        )
