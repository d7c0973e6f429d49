"""Bootstrap a metric over the test videos.

A resample is a count for every video, and depends on the videos' names alone. So two rows of a table are
compared on the same resamples, two scores of the same videos (TES and PCS) are resampled together, and data sets that
share no video independently. Where several videos are of one person, or of another group, whole groups are drawn.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pamfn.evaluation.metrics import METRICS, Array, average_over_folds

RESAMPLES = 5_000


@dataclass(frozen=True)
class Scored:
    """Predictions of the same v videos by s networks that differ in their seed.

    videos: sorted names. true (v,), predicted (s, v) and score_range in points. For highlights: how many a video has,
    and its average precision. groups: who or what each video is of; None where they are independent.
    """

    videos: tuple[str, ...]
    true: Array
    predicted: Array
    score_range: float
    groups: tuple[str, ...] | None = None


@lru_cache(maxsize=8)
def draws(videos: tuple[str, ...], resamples: int = RESAMPLES) -> Array:
    """How often each video is in each resample of as many videos: (r, v), the same for the same names."""
    random = np.random.default_rng(zlib.crc32("\n".join(videos).encode()))
    return random.multinomial(len(videos), np.full(len(videos), 1 / len(videos)), size=resamples).astype(np.float64)


def counts_of(scored: Scored, resamples: int = RESAMPLES) -> Array:
    """How often each video is in each resample: (r, v)."""
    if scored.groups is None:
        return draws(scored.videos, resamples)
    names = tuple(sorted(set(scored.groups)))
    return draws(names, resamples)[:, [names.index(group) for group in scored.groups]]


def bootstrap(metric: str, scored: Scored, resamples: int = RESAMPLES) -> Array:
    """Compute the metric in every resample of the videos, the same videos for every seed: (s, r)."""
    return computed(metric, scored, counts_of(scored, resamples))


def computed(metric: str, scored: Scored, counts: Array) -> Array:
    """Compute the metric of every seed in resamples (r, v): (s, r)."""
    resampled = METRICS[metric].resampled
    parts = np.array_split(counts, 32)  # small enough to stay in the processor's cache
    return np.stack(
        [
            np.concatenate([resampled(scored.true, predicted, part, scored.score_range) for part in parts])
            for predicted in scored.predicted
        ]
    )


def bootstrap_over_folds(metric: str, scored: Scored, fold: Sequence[int], resamples: int = RESAMPLES) -> Array:
    """Compute the metric's average over folds in every resample, the same videos for every seed: (s, r).

    A fold counts as often as its videos, or its groups, were drawn: a fold of a single group is there several times, or
    not at all. One whose metric is not defined is left out.

    fold: (v,) the fold that tests each video
    """
    counts, numbers = counts_of(scored, resamples), np.array(fold)
    values, weights = [], []
    for number in sorted(set(fold)):
        own = numbers == number
        groups = None if scored.groups is None else tuple(np.array(scored.groups)[own].tolist())
        videos = tuple(np.array(scored.videos)[own].tolist())
        part = Scored(videos, scored.true[own], scored.predicted[:, own], scored.score_range, groups)
        with np.errstate(divide="ignore", invalid="ignore"):  # where none of its videos was drawn
            values.append(computed(metric, part, counts[:, own]))
        weights.append(np.broadcast_to(counts[:, own].mean(axis=1), values[-1].shape))
    return average_over_folds(metric, np.stack(values), np.stack(weights))
