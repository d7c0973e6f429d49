"""GDLT: likert scoring with grade-decoupled queries (Xu, Zeng, Zheng, CVPR 2022)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.attention import FeedForward, MultiheadAttention
from pamfn.models.baselines.streams import only_stream, only_width
from pamfn.models.layers import Dropout, Pointwise, SequenceNorm, full_precision, real_segments
from pamfn.models.network import Network
from pamfn.models.ranges import Heads, Layers, LayersOrNone, NotNegative, Probability, Several, Width


class GDLTOutput(NamedTuple):
    """Output of GDLT.

    score: (b,) in [0, 1]
    responses: (b, k) of the grades, which sum to 1
    queries: (b, k, d) decoded
    """

    score: Tensor
    responses: Tensor
    queries: Tensor


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added and then normalised: (b, t, d) -> (b, t, d)."""

    def __init__(self, d_model: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = MultiheadAttention(d_model, heads, dropout)
        self.feed_forward = FeedForward(d_model, hidden, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        x = self.norm1(x + self.dropout(self.attention(x, x, x, valid)))
        return self.norm2(x + self.dropout(self.feed_forward(x)))


class DecoderLayer(nn.Module):
    """Queries (b, k, d) attend to each other, then to the memory (b, t, d): -> (b, k, d)."""

    def __init__(self, d_model: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = MultiheadAttention(d_model, heads, dropout)
        self.cross_attention = MultiheadAttention(d_model, heads, dropout)
        self.feed_forward = FeedForward(d_model, hidden, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d_model), nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, valid: Tensor | None) -> Tensor:
        x = self.norm1(x + self.dropout(self.self_attention(x, x, x)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, memory, memory, valid)))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


class GDLT(Network):
    """A Transformer whose learned queries each stand for a grade; the score weighs the grades by their responses.

    features: (b, t, c) of one modality
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: `GDLTOutput`

    Source: the authors' code, xuangch/CVPR22_GDLT. Its mistakes, which are put right here: docs/methods.md.

    Args:
        widths: {modality: feature width} of the one modality.
        grades: number of queries k; their values are evenly spaced in [0, 1].
        triplet: weight of the loss that keeps the grades' decoded queries apart.
        margin: its margin, in 1 - cosine.
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        d_model: Width = 256,
        hidden: Width = 512,
        feed_forward: Width = 768,
        heads: Heads = 1,
        encoder_layers: LayersOrNone = 1,
        decoder_layers: Layers = 2,
        grades: Several = 4,
        dropout: Probability = 0.3,
        triplet: NotNegative = 1.0,
        margin: NotNegative = 1.0,
    ) -> None:
        super().__init__()
        if grades < 2:
            raise ValueError(f"grades is at least 2, not {grades}")
        self.triplet, self.margin = triplet, margin
        self.linear1, self.norm1 = Pointwise(only_width(widths, "GDLT"), hidden), SequenceNorm(hidden)
        self.linear2, self.norm2 = Pointwise(hidden, d_model), SequenceNorm(d_model)
        sizes = (d_model, heads, feed_forward, dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(decoder_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.queries = nn.Parameter(torch.randn(grades, d_model))
        self.head = nn.Linear(d_model, grades)
        self.register_buffer("values", torch.linspace(0, 1, grades), persistent=False)
        initialise(self.encoder)
        initialise(self.decoder)

    def forward(self, features: Tensor | Mapping[str, Tensor], lengths: Tensor | None = None) -> GDLTOutput:
        x = only_stream(features)
        valid = real_segments(x, lengths)
        x = F.relu(self.norm1(self.linear1(x), valid))
        x = self.norm2(self.linear2(x), valid)
        for layer in self.encoder:
            x = layer(x, valid)
        memory, queries = self.encoder_norm(x), self.queries.expand(x.shape[0], -1, -1)
        for layer in self.decoder:
            queries = layer(queries, memory, valid)
        queries = self.decoder_norm(queries).float()
        responses = full_precision(self.head, queries).diagonal(dim1=1, dim2=2).sigmoid()
        responses = responses / responses.sum(dim=1, keepdim=True)
        return GDLTOutput(responses @ self.get_buffer("values"), responses, queries)

    def added_loss(self, output: GDLTOutput) -> Tensor:
        """Return the weighted triplet loss over the batch's decoded queries."""
        return self.triplet * hardest_triplet(output.queries, self.margin)


def initialise(layers: nn.Module) -> None:
    """Initialise as the authors do: Xavier-uniform matrices, in attention zero biases.

    Query, key and value are drawn as if they were one matrix.
    """
    for module in layers.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        if isinstance(module, MultiheadAttention):
            for projection in module.children():
                if isinstance(projection, nn.Linear):
                    nn.init.zeros_(projection.bias)
    for module in layers.modules():
        if isinstance(module, MultiheadAttention):
            for projection in (module.query, module.key, module.value):
                nn.init.xavier_uniform_(projection.weight, gain=2**-0.5)


def hardest_triplet(queries: Tensor, margin: float) -> Tensor:
    """Return the mean triplet hinge in cosine distance, every decoded query (b, k, d) of the batch being an anchor.

    The positive is the farthest query of the same grade, the negative the nearest one of another grade.
    """
    videos, grades, _ = queries.shape
    x = F.normalize(queries.flatten(0, 1), dim=1)
    distance = 1 - x @ x.T
    grade = torch.arange(grades, device=x.device).repeat(videos)
    same = grade[:, None] == grade
    positive = distance.masked_fill(~same, -1).amax(dim=1)
    negative = distance.masked_fill(same, 3).amin(dim=1)
    return F.relu(positive - negative + margin).mean()
