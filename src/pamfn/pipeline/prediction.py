"""What is predicted for a video that nobody has scored, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

LEVELS = (0.8, 0.9)
"""Shares of videos that prediction intervals are to cover."""


@dataclass(frozen=True)
class Prediction:
    """The score of one video, in points; or of a network that finds highlights, a score for each of its clips.

    points: the score, from 0 to the largest possible one; of highlights the highest of `scores`
    low, high: the prediction interval at 90 %, low <= points <= high; None where the network has no held-out residuals
    spread: standard deviation over networks, or over sampled decisions; 0 where one score is computed
    warnings: what makes the score less trustworthy, a sentence each
    intervals: {level: (low, high)} for every one of `LEVELS`; empty without held-out residuals
    scores: (t,) how likely each clip is a highlight; None where whole videos are scored
    members: {run: its own points} where several networks are averaged, on their common scale and not cut
    """

    points: float
    low: float | None
    high: float | None
    spread: float
    warnings: list[str] = field(default_factory=list)
    intervals: Mapping[float, tuple[float, float]] = field(default_factory=dict)
    scores: np.ndarray | None = None
    members: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Occlusion:
    """How many points a video's score loses when a part of it is masked: negative where it gains.

    windows: (w, 2) first segment of every window, and the first one behind it
    window_losses: (w,) lost when all streams are masked within the window
    stream_losses: {stream: lost when it is masked throughout}; empty where there is one stream
    """

    windows: np.ndarray
    window_losses: np.ndarray
    stream_losses: Mapping[str, float]


@dataclass(frozen=True)
class FusionSteps:
    """What one stage of a fused network did over its t' time steps, each of `segments` segments.

    attention: {stream: (t',) weight in the modality-specific feature decoder}; empty where there is none
    decision: (t',) number of enabled FusionNets, out of `networks`; None where there is no PolicyNet
    """

    segments: int
    attention: Mapping[str, np.ndarray]
    decision: np.ndarray | None
    networks: int


@dataclass(frozen=True)
class Explained:
    """A prediction with what is known of why.

    video: its name
    segments: number of its segments
    segment_seconds: how long a segment is; None where that is not known
    occlusion: None where it was not asked for, or clips are scored
    stages: of a fused network, first to last; empty for others
    """

    video: str
    prediction: Prediction
    segments: int
    segment_seconds: float | None
    occlusion: Occlusion | None = None
    stages: Sequence[FusionSteps] = ()
