"""Extractors that misbehave, for tests: they crash, hang, or give what they should not."""

import os
import signal
import time
from collections.abc import Sequence

import numpy as np

from pamfn.extraction.extractor import Extractor, Segment


class Brightness(Extractor):
    """A well-behaved one: the mean of every colour."""

    width, short_sides = 3, (32,)
    name = "Brightness"  # type: ignore[assignment]

    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        return np.stack([segment.frames[32].mean(axis=(0, 1, 2)) for segment in segments]).astype(np.float32)


class Odd(Brightness):
    """Does something odd at the third segment of a video. what: crash, hang, nan or wide"""

    def __init__(self, what: str) -> None:
        self.what = what

    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        rows = super().features(segments)
        if any(segment.index == 2 for segment in segments):
            if self.what == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif self.what == "hang":
                time.sleep(600)
            elif self.what == "wide":
                return np.zeros((len(segments), 5), np.float32)
            rows[:] = np.nan
        return rows


class Named(Brightness):
    """Has any name, and needs weights."""

    needs_weights = True

    def __init__(self, called: str) -> None:
        self.name = called  # type: ignore[assignment]


class Slow(Brightness):
    """Takes a while for every batch, so that it can be interrupted."""

    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        time.sleep(0.2)
        return super().features(segments)
