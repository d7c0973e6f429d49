"""Videos as one packed tensor of segments per modality, and the batches cut out of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """A batch of videos, or of crops of them.

    features: {modality: (b, t, c)} float32
    lengths: (b,) number of real segments of each video; None where all t count, as in training crops, whose zero
        padding counts as segments (as in the paper)
    target: (b,) scores in [0, 1]; of whole videos with labelled segments (b, t), 0 or 1, and 0 after a video's end
    videos: (b,) positions in the split, on the CPU
    points: (b,) float64, the judges' points that `target` is made of, on the CPU: float32 cannot give them back to the
        last digit. None for training batches and for labels
    """

    features: dict[str, Tensor]
    lengths: Tensor | None
    target: Tensor
    videos: Tensor
    points: Tensor | None = None

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """Move all but `videos` and `points`, which only the CPU asks for, to a device. Lightning calls this."""
        features = {m: x.to(device, non_blocking=non_blocking) for m, x in self.features.items()}
        lengths = None if self.lengths is None else self.lengths.to(device, non_blocking=non_blocking)
        target = self.target.to(device, non_blocking=non_blocking)
        return self._replace(features=features, lengths=lengths, target=target)


@dataclass(frozen=True)
class Videos:
    """The v videos of one split, with n segments in all.

    names: v names
    packed: {modality: (n, c)} the segments of all videos one after another, in the dtype they were stored in
    start: (v,) row of a video's first segment
    length: (v,) number of its segments
    points: (v,) judges' scores, float64; of labelled segments the share of ones
    target: (v,) the same as scores in [0, 1], float32
    key: (v,) position of a video in its label file, from which its random crops follow
    labels: (n,) 0 or 1 for every segment, float32; None where only videos have a score
    """

    names: list[str]
    packed: dict[str, Tensor]
    start: Tensor
    length: Tensor
    points: Tensor
    target: Tensor
    key: Tensor
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, index: Sequence[int]) -> "Videos":
        """Return the videos at these positions; the packed segments are shared."""
        rows = torch.as_tensor(index, dtype=torch.long, device=self.start.device)
        picked = {f: getattr(self, f)[rows] for f in ("start", "length", "points", "target", "key")}
        return replace(self, names=[self.names[i] for i in index], **picked)

    def modalities(self, names: Sequence[str]) -> "Videos":
        """Return the same videos with some of the modalities."""
        return replace(self, packed={m: self.packed[m] for m in names})

    def zeroed(self, names: Sequence[str]) -> "Videos":
        """Return the same videos with these modalities all zeros."""
        zeros = {m: torch.zeros_like(self.packed[m]) for m in names}
        return replace(self, packed={m: zeros.get(m, x) for m, x in self.packed.items()})

    def to(self, device: torch.device) -> "Videos":
        """Move features and labels of segments to a device.

        What a video has once stays on the CPU, so that cutting a batch never waits for the device.
        """
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, packed={m: x.to(device) for m, x in self.packed.items()}, labels=labels)

    def places(self, index: Tensor, first: Tensor, segments: int) -> tuple[Tensor, Tensor | None]:
        """Return the packed rows (b, segments) of some videos, from segment `first` on, and a mask (b, segments).

        The mask is true after a video's end; None when no video ends before its last row.
        """
        offset = first[:, None] + torch.arange(segments)  # (b, t)
        length = self.length[index, None]
        rows = self.start[index, None] + offset.minimum(length - 1)
        return rows, None if bool((length >= first[:, None] + segments).all()) else offset >= length

    def gathered(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the packed rows (b, t) of every modality, (b, t, c) float32."""
        # index_select: twice as fast as x[rows]
        flat = {m: x.index_select(0, rows.flatten().to(x.device)).float() for m, x in self.packed.items()}
        return {m: x.view(*rows.shape, -1) for m, x in flat.items()}

    def cut(self, index: Tensor, first: Tensor, segments: int) -> dict[str, Tensor]:
        """Return (b, segments, c): segments of the videos at `index` from `first` on, zeros after their end."""
        rows, ended = self.places(index, first, segments)
        cut = self.gathered(rows)
        return cut if ended is None else {m: x.masked_fill_(ended[..., None].to(x.device), 0) for m, x in cut.items()}

    def whole(self, index: Tensor) -> Batch:
        """Return every segment of the videos at `index`, the shorter ones padded with zeros."""
        lengths, first = self.length[index], torch.zeros_like(index)
        segments = int(lengths.max())
        features = self.cut(index, first, segments)
        target, points = self.target[index], None if self.labels is not None else self.points[index]
        if self.labels is not None:
            rows, ended = self.places(index, first, segments)
            target = self.labels[rows.to(self.labels.device)]
            if ended is not None:
                target = target.masked_fill_(ended.to(target.device), 0)
        return Batch(features, None if bool((lengths == segments).all()) else lengths, target, index, points)


class Epochs:
    """Iterate over training batches of a split; order and content follow from (seed, epoch).

    Lightning sets `epoch` before every pass, through `sampler`.
    """

    def __init__(self, videos: Videos, *, batch_size: int, seed: int) -> None:
        self.videos, self.batch_size, self.seed = videos, batch_size, seed
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.videos) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    @property
    def sampler(self) -> Self:
        return self

    def shuffled(self) -> tuple[Tensor, ...]:
        """Return the positions of all videos in this epoch's order, a tensor for each batch."""
        order = np.random.default_rng([self.seed, self.epoch, 1]).permutation(len(self.videos))
        return torch.from_numpy(order).split(self.batch_size)


class Crops(Epochs):
    """Training batches of one random crop of every video, the same crop for all of its modalities.

    A video's crop follows from (seed, epoch, key of the video) alone. A last batch of a single video is dropped, since
    BatchNorm cannot train on it.
    """

    def __init__(self, videos: Videos, *, segments: int, batch_size: int, seed: int) -> None:
        super().__init__(videos, batch_size=batch_size, seed=seed)
        self.segments = segments

    def __len__(self) -> int:
        full, rest = divmod(len(self.videos), self.batch_size)
        return full + (rest > 1)

    def first_segments(self) -> Tensor:
        """Draw the first segment (v,) of every video's crop; 0 for videos no longer than a crop.

        All possible starts are equally likely.
        """
        draws = np.random.default_rng([self.seed, self.epoch]).random(int(self.videos.key.max()) + 1)
        u = torch.from_numpy(draws)[self.videos.key]
        return (u * (self.videos.length - self.segments + 1).clamp_min(1)).long()

    def __iter__(self) -> Iterator[Batch]:
        first = self.first_segments()
        for index in self.shuffled()[: len(self)]:
            features = self.videos.cut(index, first[index], self.segments)
            yield Batch(features, None, self.videos.target[index], index)


class ShuffledVideos(Epochs):
    """Training batches of whole videos; the shorter videos of a batch are padded with zeros and masked."""

    def __iter__(self) -> Iterator[Batch]:
        for index in self.shuffled():
            yield self.videos.whole(index)


class WholeVideos:
    """Test batches of whole videos; videos of similar length share a batch, padded with zeros and masked."""

    def __init__(self, videos: Videos, *, batch_size: int) -> None:
        self.videos = videos
        self.batches = videos.length.argsort(stable=True).split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for index in self.batches:
            yield self.videos.whole(index)


def stratified_holdout(points: Sequence[float], fraction: float, seed: int) -> list[int]:
    """Draw the positions held out of training, one from each of round(v * fraction) equal strata of the score."""
    strata = np.array_split(np.argsort(points, kind="stable"), max(round(len(points) * fraction), 1))
    generator = np.random.default_rng([seed, 2])
    return sorted(int(generator.choice(stratum)) for stratum in strata)
