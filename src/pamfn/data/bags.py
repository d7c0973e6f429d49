"""Training batches for methods that never see a clip's label, only whether a video is of the topic."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pamfn.data.batches import Batch, Epochs, Videos


class Bags(Epochs):
    """Training batches of bags: one of every video of the topic, paired with one of a video of another topic.

    features: {modality: (2b, rows, c)}, the b positive bags first
    lengths: None
    target: (2b,) 1 for the topic, else 0
    videos: (2b,) positions in `videos`, then in `others`

    A shorter video is repeated cyclically; of a longer one random clips are taken, in their order. Order, pairs and
    clips do not depend on the batch size, and every other video is used before one is used again.
    Source: MINI-Net (Hong et al., ECCV 2020).
    """

    def __init__(self, videos: Videos, others: Videos, *, rows: int, batch_size: int, seed: int) -> None:
        super().__init__(videos, batch_size=batch_size, seed=seed)
        self.others, self.rows = others, rows

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng([self.seed, self.epoch, 1])
        order = random.permutation(len(self.videos))
        pairs = np.resize(random.permutation(len(self.others)), len(order))
        sides = [(v, index, self.places(v, index, random)) for v, index in ((self.videos, order), (self.others, pairs))]
        for first in range(0, len(order), self.batch_size):
            chosen = slice(first, first + self.batch_size)
            bags = [videos.gathered(places[chosen]) for videos, _, places in sides]
            target = torch.tensor([1.0, 0.0]).repeat_interleave(len(order[chosen]))
            index = torch.from_numpy(np.concatenate([index[chosen] for _, index, _ in sides]))
            features = {m: torch.cat([bag[m].to(x.device) for bag in bags]) for m, x in bags[0].items()}
            yield Batch(features, None, target, index)

    def places(self, videos: Videos, index: np.ndarray, random: np.random.Generator) -> Tensor:
        """Draw the packed rows (b, rows) of the bags of the videos at `index`."""
        starts, lengths = videos.start.tolist(), videos.length.tolist()
        return torch.from_numpy(np.stack([starts[i] + self.clips(lengths[i], random) for i in index.tolist()]))

    def clips(self, length: int, random: np.random.Generator) -> np.ndarray:
        """Draw the clips (rows,) that stand for a video of `length` clips."""
        if length <= self.rows:
            return np.arange(self.rows) % length
        return np.sort(random.permutation(length)[: self.rows])
