"""The modality-specific branch: one network per modality, pretrained alone in stage 1."""

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.layers import (
    Dropout,
    Pointwise,
    SequenceConv,
    SequenceNorm,
    full_precision,
    packed,
    packing,
    pool,
    pooled_lengths,
    poolings,
    unpacked,
    valid_segments,
)
from pamfn.models.network import Network
from pamfn.models.ranges import Layers, Probability, Width


class BranchOutput(NamedTuple):
    """Output of a modality branch.

    score: (b,) in [0, 1]; per segment (b, t) logits
    maps: [(b, t, d), (b, t // 2, d), ..., (b, 1, d)], the features after the embedding and after each block;
        per segment (b, t, d) each
    """

    score: Tensor
    maps: list[Tensor]


class Embedding(nn.Module):
    """Two pointwise layers: (b, t, c) -> (b, t, d)."""

    def __init__(self, width: int, hidden: int, d_model: int, dropout: float) -> None:
        super().__init__()
        self.linear1 = Pointwise(width, hidden)
        self.norm1 = SequenceNorm(hidden)
        self.linear2 = Pointwise(hidden, d_model)
        self.norm2 = SequenceNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        x = F.relu(self.norm1(self.linear1(x), valid))
        return self.dropout(F.relu(self.norm2(self.linear2(x), valid)))


class ResidualBlock(nn.Module):
    """x + C2(C1(x)) with C = convolution, BatchNorm, GELU: (b, t, d) -> (b, t, d)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.conv1 = SequenceConv(d_model, d_model)
        self.norm1 = SequenceNorm(d_model)
        self.conv2 = SequenceConv(d_model, d_model)
        self.norm2 = SequenceNorm(d_model)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        y = F.gelu(self.norm1(self.conv1(x, valid), valid))
        return x + F.gelu(self.norm2(self.conv2(y, valid), valid))


class ModalityBranch(Network):
    """Residual temporal blocks over segment features; time halves after each but the last, which averages it.

    features: (b, t, c), t at least 2 ** (num_stages - 1)
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: `BranchOutput`

    per_segment: nothing is pooled and every segment gets a logit, as for highlights (section IV-G); any t will do, but
        BatchNorm cannot train on a batch of one segment.
    Source: section III-B of the paper.
    """

    def __init__(
        self,
        *,
        width: int,
        d_model: Width = 256,
        hidden: Width = 512,
        num_stages: Layers = 3,
        dropout: Probability = 0.3,
        head_dropout: Probability = 0.5,
        per_segment: bool = False,
    ) -> None:
        super().__init__()
        if num_stages < 1:
            raise ValueError(f"num_stages is at least 1, not {num_stages}")
        self.d_model, self.per_segment = d_model, per_segment
        self.min_segments = 2 if per_segment else 2 ** (num_stages - 1)  # BatchNorm cannot take one segment alone
        self.poolings = poolings(num_stages, per_segment)
        self.embedding = Embedding(width, hidden, d_model, dropout)
        self.blocks = nn.ModuleList(ResidualBlock(d_model) for _ in range(num_stages))
        self.head_dropout = Dropout(head_dropout)
        self.head = nn.Linear(d_model, 1)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the head's own rate."""
        return list(self.head.parameters())

    def maps(self, features: Tensor, lengths: Tensor | None = None, real: Tensor | None = None) -> list[Tensor]:
        """Return the features for the fusion network: [x_0, ..., x_N].

        real: (b, t) mask of the real segments, instead of `lengths`, where nothing is pooled
        """
        valid = real if lengths is None else valid_segments(lengths, features.shape[1])
        x = self.embedding(features, valid)
        maps = [x]
        for block, pooling in zip(self.blocks, self.poolings, strict=True):
            x = pool(block(x, valid), pooling, valid)
            maps.append(x)
            if lengths is not None:
                lengths = pooled_lengths(lengths, pooling)
                valid = valid_segments(lengths, x.shape[1])
        return maps

    def forward(self, features: Tensor | Mapping[str, Tensor], lengths: Tensor | None = None) -> BranchOutput:
        """Score features (b, t, c), which may come as the only entry of a dict."""
        if not isinstance(features, Tensor):
            (features,) = features.values()
        if self.training and self.per_segment and lengths is not None:  # padding would cost more than the videos
            rows, real = packing(lengths, features.shape[1])
            output = self.scored(self.maps(packed(features, rows), real=real))
            return output._replace(score=unpacked(output.score, real, lengths, features.shape[1]))
        return self.scored(self.maps(features, lengths))

    def scored(self, maps: list[Tensor]) -> BranchOutput:
        """Apply the head to the last map."""
        logits = full_precision(self.head, self.head_dropout(maps[-1])).squeeze(-1)  # (b, 1), or (b, t) per segment
        return BranchOutput(logits if self.per_segment else logits.squeeze(1).sigmoid(), maps)
