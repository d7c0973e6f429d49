"""Bootstrap a metric over the test videos.

A resample is a count for every video, and depends on the videos' names alone. So two rows of a table are
compared on the same resamples, two scores of the same videos (TES and PCS) are resampled together, and data sets that
share no video independently.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pamfn.evaluation.metrics import METRICS, Array

RESAMPLES = 5_000


@dataclass(frozen=True)
class Scored:
    """Predictions of the same v videos by s networks that differ in their seed.

    videos: sorted names. true (v,), predicted (s, v) and score_range in points. For highlights: how many a video has,
    and its average precision.
    """

    videos: tuple[str, ...]
    true: Array
    predicted: Array
    score_range: float


@lru_cache(maxsize=8)
def draws(videos: tuple[str, ...], resamples: int = RESAMPLES) -> Array:
    """How often each video is in each resample of as many videos: (r, v), the same for the same names."""
    random = np.random.default_rng(zlib.crc32("\n".join(videos).encode()))
    return random.multinomial(len(videos), np.full(len(videos), 1 / len(videos)), size=resamples).astype(np.float64)


def bootstrap(metric: str, scored: Scored, resamples: int = RESAMPLES) -> Array:
    """Compute the metric in every resample of the videos, the same videos for every seed: (s, r)."""
    resampled = METRICS[metric].resampled
    parts = np.array_split(draws(scored.videos, resamples), 32)  # small enough to stay in the processor's cache
    return np.stack(
        [
            np.concatenate([resampled(scored.true, predicted, part, scored.score_range) for part in parts])
            for predicted in scored.predicted
        ]
    )
