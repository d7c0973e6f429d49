"""ACTION-NET: context-aware attention over one or two streams (Zeng et al., ACM MM 2020)."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.layers import Dropout, Pointwise, full_precision, valid_segments
from pamfn.models.network import Network
from pamfn.models.ranges import Probability, Width


class ActionNetOutput(NamedTuple):
    """Output of ACTION-NET.

    score: (b,) in [0, 1]
    weights: {modality: (b, t)} of the segments, which sum to 1
    """

    score: Tensor
    weights: dict[str, Tensor]


def adjacency(valid: Tensor) -> Tensor:
    """Return the normalised graph of neighbouring segments: mask (b, t) -> D^-1/2 A D^-1/2, (b, t, t).

    A_ij = exp(-|i - j|) between real segments.
    """
    position = torch.arange(valid.shape[1], device=valid.device, dtype=torch.float32)
    closeness = torch.exp(-(position[:, None] - position).abs()) * valid[:, :, None] * valid[:, None]
    scale = closeness.sum(dim=2).clamp_min(1e-12).rsqrt()
    return scale[:, :, None] * closeness * scale[:, None]


class ContextAwareAttention(nn.Module):
    """Segments and their context in time, summed with learned weights.

    x: (b, t, c)
    valid: (b, t), or (1, t) for all videos
    returns: summary (b, 2 d), weights (b, t)
    """

    def __init__(self, width: int, d_model: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Sequential(
            Pointwise(width, width // 2), nn.ReLU(), Pointwise(width // 2, d_model), nn.ReLU()
        )
        self.graph1 = Pointwise(d_model, d_model)
        self.graph2 = Pointwise(d_model, d_model)
        self.attention = nn.Sequential(Pointwise(2 * d_model, hidden), nn.ReLU(), Pointwise(hidden, 1))

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(x)
        near = adjacency(valid).to(x.dtype)
        context = F.relu(self.graph1(near @ x))
        context = F.relu(self.graph2(near @ context))
        y = torch.cat([x, context], dim=-1)
        weights = self.attention(y).squeeze(2).masked_fill(~valid, -math.inf).softmax(dim=1)
        return (weights[:, None].to(y.dtype) @ y).squeeze(1), weights


class ActionNet(Network):
    """A context-aware attention stream for every modality, and a head on their summaries.

    features: {modality: (b, t, c_m)}
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: `ActionNetOutput`

    Source: the authors' code, qinghuannn/ACTION-NET. Theirs has a dynamic stream (clips) and a static one (images);
    here there is one for every modality. The graph follows the length of the video, where theirs is a table of the
    training crop's size (docs/methods.md).

    Args:
        widths: {modality: feature width}.
        hidden: width of the hidden layer of each stream's attention.
        head_hidden: width of the head's hidden layer.
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        d_model: Width = 256,
        hidden: Width = 128,
        head_hidden: Width = 128,
        head_dropout: Probability = 0.5,
    ) -> None:
        super().__init__()
        if min(widths.values()) < 2:
            raise ValueError("ACTION-NET halves the feature width: it must be at least 2")
        self.streams = nn.ModuleDict({m: ContextAwareAttention(c, d_model, hidden) for m, c in widths.items()})
        self.head = nn.Sequential(
            nn.Linear(2 * d_model * len(widths), head_hidden),
            nn.ReLU(),
            Dropout(head_dropout),
            nn.Linear(head_hidden, 1),
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the head's own rate."""
        return list(self.head.parameters())

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> ActionNetOutput:
        x = next(iter(features.values()))
        valid = x.new_ones(1, x.shape[1], dtype=torch.bool) if lengths is None else valid_segments(lengths, x.shape[1])
        streams = {m: stream(features[m], valid) for m, stream in self.streams.items()}
        summary = torch.cat([summary for summary, _ in streams.values()], dim=1)
        score = torch.sigmoid(full_precision(self.head, summary)).flatten()
        return ActionNetOutput(score, {m: weights for m, (_, weights) in streams.items()})
