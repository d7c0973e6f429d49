"""The contract of extractors: an extractor turns every segment of a video into one row of features."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

FPS = 25
SEGMENT_FRAMES = 32
SAMPLE_RATE = 16_000
SEGMENT_SAMPLES = SAMPLE_RATE * SEGMENT_FRAMES // FPS
"""1.28 s of sound: 20,480 samples."""


class FlowSettings(NamedTuple):
    """Which optical flow an extractor reads.

    method: one of `pamfn.extraction.flow.METHODS`
    short_side: of the frames that it is computed on, in pixels
    """

    method: str
    short_side: int


@dataclass(frozen=True)
class Sound:
    """The sound of a whole video, on the time line of its frames.

    whole: (n,) float32 in -1..1, mono at 16 kHz, without the mean of the track; empty where the video has no sound
    source_rate: samples a second in the file; 16000 where there is no sound
    segments: number of segments of the video, counted from its packets: exact unless it is damaged
    """

    whole: np.ndarray
    source_rate: int
    segments: int

    def window(self, start: int, count: int) -> np.ndarray:
        """Return (count,) samples from number `start` on, which may be negative; silence before and after the track."""
        kept = self.whole[max(start, 0) : max(start + count, 0)]
        before = min(max(-start, 0), count)
        return np.pad(kept, (before, count - before - len(kept)))

    def segment(self, index: int) -> np.ndarray:
        """Return the (20480,) samples of a segment."""
        return self.window(index * SEGMENT_SAMPLES, SEGMENT_SAMPLES)


@dataclass(frozen=True)
class Segment:
    """One segment of a video: 32 frames at 25 frames a second, and their sound.

    index: its number, from 0
    frames: {short side in pixels: (32, h, w, 3) uint8 RGB}, resized, not cropped
    flow: {settings: (32, h, w, 2) float32}, horizontal and vertical motion in pixels from each frame to the next; the
        last one reaches into the next segment, and repeats the flow before it at the end of the video
    sound: {"mean" or "left": the track made of all channels or of the first}
    """

    index: int
    frames: Mapping[int, np.ndarray]
    flow: Mapping[FlowSettings, np.ndarray]
    sound: Mapping[str, Sound]


class Statistics(NamedTuple):
    """What features look like when everything is right, measured on published ones."""

    source: str
    mean: float
    std: float
    lowest: float
    highest: float
    row_length: float


class Extractor(ABC):
    """Base class of extractors. A class outside this package works as well: its file in `conf/extractor/` names it.

    A subclass says what it reads (`short_sides`, `flows`, `channels`); each video is read once for all extractors. The
    features of a segment depend neither on the batch nor on the other segments, the sound around it aside.
    """

    width: int
    """Number of features of a segment."""

    short_sides: tuple[int, ...] = ()
    """Sizes of the frames that it reads, by their short side in pixels."""

    flows: tuple[FlowSettings, ...] = ()
    """The optical flows that it reads."""

    channels: tuple[str, ...] = ()
    """The tracks of sound that it reads: "mean", "left"."""

    needs_weights: bool = False
    """Whether it needs a file of weights, which the user names."""

    expected: Statistics | None = None
    """Statistics of published features, shown beside the user's own."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What feature files call it: letters A to Z, digits and hyphens, e.g. I3D-dis.

        Another name wherever the numbers differ.
        """

    def load(self, *, weights: Path | None, device: str, precision: str) -> None:
        """Read the weights and move to the device, before the first segment.

        precision: "32", or "bf16" for autocast

        Raises:
            InputError: when the file is not this extractor's weights, and says what it is.
        """
        del weights, device, precision

    @abstractmethod
    def features(self, segments: Sequence[Segment]) -> np.ndarray:
        """Return the features of a batch of segments: (b, width) float32, finite."""
