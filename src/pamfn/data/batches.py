"""Videos as tensors: every segment of every video in one packed tensor a modality, batches cut out of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class Batch(NamedTuple):
    """Some videos of a split.

    features: {modality: (b, t, c)} float32
    lengths: (b,) number of real segments of each video, None when nothing is padded away; of training crops also None:
        their zero padding counts as segments, as in the paper
    target: (b,) float32 in [0, 1]; of whole videos with labels (b, t), 0 or 1 for every segment, 0 after a video's end
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
        """The same batch on a device, but for `videos` and `points`, which stay on the CPU; Lightning calls this."""
        features = {m: x.to(device, non_blocking=non_blocking) for m, x in self.features.items()}
        lengths = None if self.lengths is None else self.lengths.to(device, non_blocking=non_blocking)
        target = self.target.to(device, non_blocking=non_blocking)
        return self._replace(features=features, lengths=lengths, target=target)


@dataclass(frozen=True)
class Videos:
    """The videos of one split.

    `packed` {modality: (n, c)}: the segments of all videos one after another, in the dtype they were stored in.
    `start`, `length` (v,): where a video's segments are. `points` (v,): judges' scores. `target` (v,): in [0, 1].
    `key` (v,): a video's position in its label file; its random crops follow from it.
    `labels` (n,) float32: 0 or 1 for every packed segment, where segments are labelled; `points` and `target` are then
    the share of ones.
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
        """The videos at these positions; the packed segments are shared."""
        rows = torch.as_tensor(index, dtype=torch.long, device=self.start.device)
        picked = {f: getattr(self, f)[rows] for f in ("start", "length", "points", "target", "key")}
        return replace(self, names=[self.names[i] for i in index], **picked)

    def modalities(self, names: Sequence[str]) -> "Videos":
        """The same videos with some of the modalities."""
        return replace(self, packed={m: self.packed[m] for m in names})

    def zeroed(self, names: Sequence[str]) -> "Videos":
        """The same videos with these modalities all zeros."""
        zeros = {m: torch.zeros_like(self.packed[m]) for m in names}
        return replace(self, packed={m: zeros.get(m, x) for m, x in self.packed.items()})

    def to(self, device: torch.device) -> "Videos":
        """The same videos with all that belongs to segments on a device.

        What belongs to videos stays on the CPU, so that cutting a batch never waits for the device.
        """
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, packed={m: x.to(device) for m, x in self.packed.items()}, labels=labels)

    def places(self, index: Tensor, first: Tensor, segments: int) -> tuple[Tensor, Tensor | None]:
        """Packed rows (b, segments) from segment `first` on of the videos at `index`; where (b, segments) they end.

        The second is None when no video ends before its last row.
        """
        offset = first[:, None] + torch.arange(segments)  # (b, t)
        length = self.length[index, None]
        rows = self.start[index, None] + offset.minimum(length - 1)
        return rows, None if bool((length >= first[:, None] + segments).all()) else offset >= length

    def gathered(self, rows: Tensor) -> dict[str, Tensor]:
        """The packed rows (b, t) of every modality: (b, t, c) float32."""
        # index_select: twice as fast as x[rows]
        flat = {m: x.index_select(0, rows.flatten().to(x.device)).float() for m, x in self.packed.items()}
        return {m: x.view(*rows.shape, -1) for m, x in flat.items()}

    def cut(self, index: Tensor, first: Tensor, segments: int) -> dict[str, Tensor]:
        """`segments` segments from `first` on of the videos at `index`, zeros after their end: (b, segments, c)."""
        rows, ended = self.places(index, first, segments)
        cut = self.gathered(rows)
        return cut if ended is None else {m: x.masked_fill_(ended[..., None].to(x.device), 0) for m, x in cut.items()}

    def whole(self, index: Tensor) -> Batch:
        """Every segment of the videos at `index`, the shorter ones padded with zeros."""
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


def padded(batches: Sequence[Batch]) -> list[Batch]:
    """Batches of equally many whole videos, all padded with zeros to the longest of them."""
    segments = max(x.shape[1] for batch in batches for x in batch.features.values())
    return [longer(batch, segments) for batch in batches]


def longer(batch: Batch, segments: int) -> Batch:
    """A batch padded with zeros to `segments`."""
    had = next(iter(batch.features.values())).shape[1]
    lengths = batch.lengths
    if lengths is None:
        lengths = torch.full_like(batch.videos, had, device=batch.target.device)
    features = {m: F.pad(x, (0, 0, 0, segments - had)) for m, x in batch.features.items()}
    return batch._replace(features=features, lengths=lengths)


class Epochs:
    """Training batches that follow from (seed, epoch); `epoch` is asked for at the start of every pass."""

    def __init__(self, *, batch_size: int, seed: int) -> None:
        self.batch_size, self.seed = batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this on `sampler` before every epoch."""
        self.epoch = epoch

    @property
    def sampler(self) -> Self:
        return self


class Crops(Epochs):
    """Training batches of one epoch: shuffled videos, one random crop each, the same for every modality.

    Order and crops follow from (seed, epoch, video) alone. A last batch of a single video is dropped, since BatchNorm
    cannot train on it.
    """

    def __init__(self, videos: Videos, *, segments: int, batch_size: int, seed: int) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.videos, self.segments = videos, segments

    def __len__(self) -> int:
        full, rest = divmod(len(self.videos), self.batch_size)
        return full + (rest > 1)

    def first_segments(self) -> Tensor:
        """First segment (v,) of every video's crop in this epoch; 0 for videos no longer than a crop.

        All possible starts are equally likely.
        """
        draws = np.random.default_rng([self.seed, self.epoch]).random(int(self.videos.key.max()) + 1)
        u = torch.from_numpy(draws)[self.videos.key]
        return (u * (self.videos.length - self.segments + 1).clamp_min(1)).long()

    def __iter__(self) -> Iterator[Batch]:
        first = self.first_segments()
        order = np.random.default_rng([self.seed, self.epoch, 1]).permutation(len(self.videos))
        for index in torch.from_numpy(order).split(self.batch_size)[: len(self)]:
            features = self.videos.cut(index, first[index], self.segments)
            yield Batch(features, None, self.videos.target[index], index)


class WholeVideos:
    """Test batches: every segment of every video; videos of similar length share a batch and are masked."""

    def __init__(self, videos: Videos, *, batch_size: int) -> None:
        self.videos = videos
        self.batches = videos.length.argsort(stable=True).split(batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for index in self.batches:
            yield self.videos.whole(index)


class ShuffledVideos(Epochs):
    """Training batches of one epoch: every segment of every video once, in an order that follows from (seed, epoch).

    The shorter videos of a batch are padded with zeros and masked.
    """

    def __init__(self, videos: Videos, *, batch_size: int, seed: int) -> None:
        super().__init__(batch_size=batch_size, seed=seed)
        self.videos = videos

    def __len__(self) -> int:
        return -(-len(self.videos) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order = np.random.default_rng([self.seed, self.epoch, 1]).permutation(len(self.videos))
        for index in torch.from_numpy(order).split(self.batch_size):
            yield self.videos.whole(index)


def stratified_holdout(points: Sequence[float], fraction: float, seed: int) -> list[int]:
    """Positions held out of training: one at random from each of round(v * fraction) equal strata of the score."""
    strata = np.array_split(np.argsort(points, kind="stable"), max(round(len(points) * fraction), 1))
    generator = np.random.default_rng([seed, 2])
    return sorted(int(generator.choice(stratum)) for stratum in strata)
