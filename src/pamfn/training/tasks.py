"""What a network learns to predict, a score or highlights: its loss, its metrics, and how predictions are shown."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor

from pamfn.data.batches import Batch
from pamfn.evaluation.average_precision import average_precision, chance
from pamfn.evaluation.metrics import highlight_metrics, metrics_of, score_metrics, video_metrics
from pamfn.evaluation.plots import plot_predictions, plot_video_precision
from pamfn.models.network import Output


class SplitPredictions(NamedTuple):
    """True and predicted values of videos, in the order of their split.

    videos: (v,) names
    true, predicted: (v,) points; of highlights (n,) labels and logits of all clips, one video after another
    spread: as predicted, standard deviation over decision samples, 0 where none are averaged
    clips: (v,) number of clips of every video, which sum to n; 1 where whole videos are scored
    """

    videos: list[str]
    true: list[float]
    predicted: list[float]
    spread: list[float]
    clips: list[int]

    def by_video(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Every video's name, with the labels and logits (n,) of its clips."""
        ends = np.cumsum(self.clips)[:-1]
        true, predicted = (np.split(np.array(values), ends) for values in (self.true, self.predicted))
        yield from zip(self.videos, true, predicted, strict=True)


Table = tuple[Sequence[str], Callable[[SplitPredictions], Iterable[Sequence[Any]]]]
"""Columns of a CSV file, and what gives its rows for the predictions of a split."""


class Task(ABC):
    """What a network learns to predict.

    scale: what predictions are multiplied by to be in the units that metrics and tables are in.
    tables: {file of a run: what is in it}.
    names: {split: names of its videos, in order}; by default a video is called by its position.
    """

    scale: float
    tables: Mapping[str, Table]

    def __init__(self, names: Mapping[str, Sequence[str]] | None = None) -> None:
        self.names = names or {}

    @abstractmethod
    def loss(self, output: Output, batch: Batch) -> Tensor:
        """The scalar that training makes small, of what the network returned for a batch."""

    @abstractmethod
    def compute_metrics(self, predictions: SplitPredictions) -> dict[str, float]:
        """Metrics of a split's predictions, by name."""

    @abstractmethod
    def plot(self, file: Path, predictions: SplitPredictions, title: str) -> None:
        """Draws a split's predictions."""


class ScoreTask(Task):
    """The score of a video, learned by mean squared error; the metrics are `score_metrics`.

    The network's `.score` (b,) is in units of max_score, the points of a score of 1; not every network keeps it in
    [0, 1]. score_range: highest minus lowest points of the whole data set, for the relative L2 distance.
    """

    def __init__(
        self, *, max_score: float, score_range: float, names: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        super().__init__(names)
        self.scale, self.score_range = max_score, score_range
        self.tables = {"predictions.csv": (("video", "true", "predicted", "spread"), score_rows)}

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return F.mse_loss(output.score.float(), batch.target)

    def compute_metrics(self, predictions: SplitPredictions) -> dict[str, float]:
        return score_metrics(predictions.true, predictions.predicted, self.score_range)

    def plot(self, file: Path, predictions: SplitPredictions, title: str) -> None:
        """Draws predicted against true points."""
        plot_predictions(file, predictions.true, predictions.predicted, predictions.spread, title)


class HighlightTask(Task):
    """Which clips of a video are highlights, learned by `clip_cross_entropy`.

    The network's `.score` (b, t) are logits, and clips are ranked by them: probabilities near 1 would be equal. The
    metrics are `highlight_metrics` and the `chance` level of the same clips, which depends on the videos' names.

    grid, unit: {video: start and end (n, 2) of its clips}, {video: "seconds" or "frames"}; the table of clips has them.
    weak: whether the network learns from bags, so that its logits only compare the clips of one video.
    """

    scale = 1.0

    def __init__(
        self,
        *,
        names: Mapping[str, Sequence[str]] | None = None,
        grid: Mapping[str, np.ndarray] | None = None,
        unit: Mapping[str, str] | None = None,
        weak: bool = False,
    ) -> None:
        super().__init__(names)
        self.grid, self.unit, self.weak = grid or {}, unit or {}, weak
        self.tables = {
            "predictions.csv": (("video", "clips", "highlights", *metrics_of("highlights")), video_rows),
            "clips.csv": (("video", "start", "end", "unit", "label", "score", "logit"), self.clip_rows),
        }

    def loss(self, output: Output, batch: Batch) -> Tensor:
        return clip_cross_entropy(output.score.float(), batch.target, batch.lengths)

    def compute_metrics(self, predictions: SplitPredictions) -> dict[str, float]:
        names, labels, logits = zip(*predictions.by_video(), strict=True)
        each = tuple((name, tuple(label)) for name, label in zip(names, labels, strict=True))
        return {**highlight_metrics(labels, logits), "chance": remembered_chance(each)}

    def plot(self, file: Path, predictions: SplitPredictions, title: str) -> None:
        """Draws the average precision of every video, and that of its clips in random order."""
        videos = list(predictions.by_video())
        precision = [average_precision(labels, logits) for _, labels, logits in videos]
        plot_video_precision(file, precision, [chance({name: labels}) for name, labels, _ in videos], title)

    def clip_rows(self, predictions: SplitPredictions) -> Iterator[list[Any]]:
        """When every clip starts and ends, in seconds, or in frames where that is not known; how it scores."""
        for name, labels, logits in predictions.by_video():
            clips = zip(self.grid[name].tolist(), labels, self.shown(logits), logits, strict=True)
            for (start, end), label, score, logit in clips:
                yield [name, start, end, self.unit[name], int(label), float(score), float(logit)]

    def shown(self, logits: np.ndarray) -> np.ndarray:
        """What a video's logits (n,) are shown as: the probability of a highlight.

        Of a `weak` task: where each is between the video's lowest and its highest.
        """
        if not self.weak:
            return expit(logits)
        low, high = logits.min(), logits.max()
        return (logits - low) / (high - low) if high > low else np.full_like(logits, 0.5)


def clip_cross_entropy(logits: Tensor, labels: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of logits (b, t) with labels (b, t): the mean over videos of the mean over their clips.

    So the gradient of a batch is the mean of those of its videos alone. lengths (b,): number of real clips of each
    video; None where all are real.
    """
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if lengths is None:
        return each.mean()
    real = torch.arange(each.shape[1], device=each.device) < lengths[:, None]
    return (each * real).sum(dim=1).div(lengths).mean()


def score_rows(predictions: SplitPredictions) -> Iterator[tuple[str, float, float, float]]:
    """True and predicted points of every video, and their spread."""
    yield from zip(predictions.videos, predictions.true, predictions.predicted, predictions.spread, strict=True)


def video_rows(predictions: SplitPredictions) -> Iterator[list[Any]]:
    """Numbers of clips and of highlights of every video, and its own metrics."""
    for name, labels, logits in predictions.by_video():
        yield [name, len(labels), int(labels.sum()), *video_metrics(labels, logits).values()]


@lru_cache(maxsize=8)
def remembered_chance(labels: tuple[tuple[str, tuple[float, ...]], ...]) -> float:
    """`chance` of these videos, worked out once."""
    return chance(dict(labels))


def task_of(data: Any) -> Task:
    """The task of a data module that has been read."""
    names = {split: videos.names for split, videos in data.splits.items()}
    if data.predicts == "score":
        return ScoreTask(max_score=data.max_score, score_range=data.score_range, names=names)
    return HighlightTask(names=names, grid=data.grid, unit=data.grid_unit, weak=bool(data.bags))
