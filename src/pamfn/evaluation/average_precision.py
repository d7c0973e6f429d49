"""Average precision of one video's ranked clips, and that of clips in random order."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

RANKINGS = 100
"""Number of random orders that a chance level is the mean of."""


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under a video's precision-recall curve by trapezoids, which starts at a precision of 1.

    labels (n,) of 0 and 1, scores (n,); equal scores keep the order of the clips. 0 when no clip is a highlight, nan
    when a score is not finite.
    Source: the metric of UMT (Liu et al., CVPR 2022) and of those who compare with it. Their sort is not stable
    (torch.argsort), so equal scores may give another number there: where all scores of a video are equal, on the test
    videos of YouTube Highlights by up to .91 for a video and .05 for a topic (torch 2.13 on a CPU).
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.asarray(labels, dtype=np.float64)[order].cumsum()
    if not len(hits) or hits[-1] == 0:
        return 0.0
    recall, precision = hits / hits[-1], hits / np.arange(1, len(hits) + 1)
    return float(np.sum(np.diff(recall, prepend=0) * (precision + np.append(1, precision[:-1])) / 2))


def step_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """scikit-learn's average precision of a video, which sums steps; 0 and nan as in `average_precision`."""
    from sklearn.metrics import average_precision_score  # slow to import, and whoever reads a table needs none of it

    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        return float("nan")
    return float(average_precision_score(labels, scores)) if labels.any() else 0.0


def expected_step_precision(clips: int, highlights: int) -> float:
    """The mean of `step_precision` over all orders of so many clips."""
    if highlights == 0:
        return 0.0
    harmonic = sum(1 / k for k in range(1, clips + 1))
    others = (highlights - 1) / (clips - 1) if clips > 1 else 0.0
    return (harmonic + others * (clips - harmonic)) / clips


def chance(labels: Mapping[str, ArrayLike], rankings: int = RANKINGS) -> float:
    """The mean `map` of some random orders of the clips, {video: labels (n,)}; the same for the same videos."""
    random = np.random.default_rng(0)
    each = [
        average_precision(label, random.random(np.shape(label)))
        for _, label in sorted(labels.items())
        for _ in range(rankings)
    ]
    return float(np.mean(each))
