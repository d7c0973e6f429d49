"""Made-up predictions of several seeds, and what a bootstrap of them gives."""

import numpy as np

from pamfn.evaluation.bootstrap import RESAMPLES, Scored, bootstrap
from pamfn.evaluation.metrics import Array


def scored(videos: int = 40, seeds: int = 3, noise: float = 0.5, prefix: str = "v") -> Scored:
    random = np.random.default_rng(videos)
    true = random.normal(size=videos)
    predicted = true + noise * random.normal(size=(seeds, videos))
    return Scored(tuple(f"{prefix}{i:03d}" for i in range(videos)), true, predicted, 5.0)


def one_of(metric: str, scored: Scored, resamples: int = RESAMPLES) -> Array:
    """The mean over seeds in every resample."""
    return bootstrap(metric, scored, resamples).mean(axis=0)
