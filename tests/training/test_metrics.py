"""Metrics of a split, collected batch by batch: exactly scipy's of all videos, whatever the batches."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from pamfn.data.batches import Batch, Videos, WholeVideos
from pamfn.evaluation.average_precision import chance
from pamfn.evaluation.metrics import highlight_metrics, score_metrics
from pamfn.training.metrics import SplitMetrics
from pamfn.training.tasks import HighlightTask, ScoreTask

LENGTHS = torch.tensor([7, 3, 5, 3, 6, 2])
NAMES = ["f", "e", "d", "c", "b", "a"]
SCORES = ScoreTask(max_score=45.0, score_range=32.2, names={"test": NAMES})
HIGHLIGHTS = HighlightTask(names={"test": NAMES})
POINTS = torch.tensor([12.34, 1.1, 33.3, 20.07, 5.55, 29.9], dtype=torch.float64)


def videos(*, labelled: bool = False) -> Videos:
    total = int(LENGTHS.sum())
    labels = (torch.arange(total) % 3 == 0).float() if labelled else None
    packed = {"rgb": torch.rand(total, 2, generator=torch.Generator().manual_seed(0))}
    index = torch.arange(len(NAMES))
    return Videos(NAMES, packed, LENGTHS.cumsum(0) - LENGTHS, LENGTHS, POINTS, (POINTS / 45).float(), index, labels)


def score(batch: Batch) -> torch.Tensor:
    return batch.features["rgb"][:, 0, 0]


def logits(batch: Batch) -> torch.Tensor:
    return batch.features["rgb"][..., 0]


def collected(metric: SplitMetrics, batch_size: int) -> SplitMetrics:
    labelled = metric.task is HIGHLIGHTS
    for batch in WholeVideos(videos(labelled=labelled), batch_size=batch_size):
        said = logits(batch) if labelled else score(batch)
        metric.update(batch, said, torch.zeros_like(said))
    return metric


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_scores_are_measured_in_the_judges_own_points(size: int):
    metric = collected(SplitMetrics(SCORES, "test"), size)
    first = videos().packed["rgb"][:, 0]
    predicted = [float(first[start]) * 45 for start in videos().start.tolist()]
    said = metric.predictions()
    assert (said.videos, said.true, said.predicted) == (NAMES, POINTS.tolist(), predicted)
    assert metric.compute() == score_metrics(POINTS.tolist(), predicted, 32.2)
    assert metric.compute()["srcc"] == spearmanr(POINTS, predicted)[0]


@pytest.mark.parametrize("size", [1, 2, 4, 6])
def test_clips_of_a_padded_video_are_its_own(size: int):
    metric, whole = collected(SplitMetrics(HIGHLIGHTS, "test"), size), videos(labelled=True)
    assert whole.labels is not None
    labels, predicted = (np.split(x.numpy(), whole.start[1:]) for x in (whole.labels, whole.packed["rgb"][:, 0]))
    said = metric.predictions()
    assert (said.videos, said.clips) == (NAMES, LENGTHS.tolist())
    assert said.true == whole.labels.tolist()
    for (name, *values), *expected in zip(said.by_video(), labels, predicted, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(values, expected, strict=True)), name
    measured = metric.compute()
    assert measured.pop("chance") == chance(dict(zip(NAMES, labels, strict=True)))
    assert measured == highlight_metrics(labels, predicted)


def test_a_metric_forgets_the_epoch_before():
    metric = collected(SplitMetrics(SCORES), 2)
    before = metric.compute()
    metric.reset()
    assert collected(metric, 3).compute() == before
    assert len(metric.predictions().videos) == len(NAMES)
    assert metric.predictions().videos == ["0", "1", "2", "3", "4", "5"]


def test_without_the_points_of_a_batch_they_are_those_of_its_targets():
    metric = SplitMetrics(SCORES)
    batch = videos().whole(torch.arange(6))._replace(points=None)
    metric.update(batch, score(batch), torch.zeros(6))
    assert metric.predictions().true == pytest.approx(POINTS.tolist(), rel=1e-6)
