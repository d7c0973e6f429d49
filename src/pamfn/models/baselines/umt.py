"""UMT: unified multimodal transformers with bottleneck tokens (Liu et al., CVPR 2022), for highlights and scores."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pamfn.errors import InputError
from pamfn.models.attention import FeedForward, MultiheadAttention
from pamfn.models.baselines.streams import scored, two_widths
from pamfn.models.layers import Dropout, Pointwise, real_segments
from pamfn.models.network import Network, ScoreOutput
from pamfn.models.ranges import Count, Heads, LayersOrNone, Probability, Rows, Width


class Sizes(NamedTuple):
    """The sizes that all layers of the network share.

    positions: number of rows of the learned tables of positions
    projected: whether attention has an output projection
    """

    d_model: int
    heads: int
    feed_forward: int
    dropout: float
    positions: int
    projected: bool

    def attention(self) -> MultiheadAttention:
        return MultiheadAttention(self.d_model, self.heads, self.dropout, self.projected)

    def layers(self) -> FeedForward:
        return FeedForward(self.d_model, self.feed_forward, self.dropout)

    def norms(self, count: int) -> nn.ModuleList:
        return nn.ModuleList(nn.LayerNorm(self.d_model) for _ in range(count))


class Positions(nn.Module):
    """A learned vector for each segment's place in time: t -> (1, t, d).

    Raises InputError when t is larger than the table.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(sizes.positions, sizes.d_model) / sizes.d_model**0.5)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, segments: int) -> Tensor:
        if segments > len(self.table):
            raise InputError(
                f"model.positions: a video has {segments} segments, more than {len(self.table)} positions; choose more."
            )
        return self.dropout(self.table[None, :segments])


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a norm before it: (b, t, d) -> (b, t, d)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.positions, self.norms = Positions(sizes), sizes.norms(2)
        self.attention, self.feed_forward = sizes.attention(), sizes.layers()
        self.dropout = Dropout(sizes.dropout)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        y = self.norms[0](x)
        placed = y + self.positions(x.shape[1])
        x = x + self.dropout(self.attention(placed, placed, y, valid))
        return x + self.dropout(self.feed_forward(self.norms[1](x)))


class BottleneckLayer(nn.Module):
    """Two sequences (b, t, d) exchange information through a few tokens, which read both and are then read by both."""

    def __init__(self, sizes: Sizes, tokens: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(tokens, sizes.d_model))
        self.positions = Positions(sizes)
        self.before, self.of_tokens, self.after = sizes.norms(2), sizes.norms(2), sizes.norms(2)
        self.compress = nn.ModuleList(sizes.attention() for _ in range(2))
        self.expand = nn.ModuleList(sizes.attention() for _ in range(2))
        self.feed_forward = nn.ModuleList(sizes.layers() for _ in range(2))
        self.dropout = Dropout(sizes.dropout)

    def forward(self, streams: list[Tensor], valid: Tensor | None) -> list[Tensor]:
        positions = self.positions(streams[0].shape[1])
        normed = [norm(x) for norm, x in zip(self.before, streams, strict=True)]
        tokens = self.tokens.expand(streams[0].shape[0], -1, -1)
        asking = self.of_tokens[0](tokens)
        for attend, x in zip(self.compress, normed, strict=True):
            tokens = tokens + self.dropout(attend(asking, x + positions, x, valid))
        tokens = self.of_tokens[1](tokens)
        outputs = []
        for i, (x, y) in enumerate(zip(streams, normed, strict=True)):
            x = x + self.dropout(self.expand[i](y + positions, tokens, tokens))
            outputs.append(x + self.dropout(self.feed_forward[i](self.after[i](x))))
        return outputs


class DecoderLayer(nn.Module):
    """Queries (b, t, d) attend to each other, then to the memory (b, t, d): -> (b, t, d)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.of_queries, self.of_memory, self.norms = Positions(sizes), Positions(sizes), sizes.norms(3)
        self.self_attention, self.cross_attention = sizes.attention(), sizes.attention()
        self.feed_forward, self.dropout = sizes.layers(), Dropout(sizes.dropout)

    def forward(self, x: Tensor, memory: Tensor, valid: Tensor | None) -> Tensor:
        of_queries, of_memory = self.of_queries(x.shape[1]), self.of_memory(memory.shape[1])
        y = self.norms[0](x)
        x = x + self.dropout(self.self_attention(y + of_queries, y + of_queries, y, valid))
        y = self.norms[1](x)
        x = x + self.dropout(self.cross_attention(y + of_queries, memory + of_memory, memory, valid))
        return x + self.dropout(self.feed_forward(self.norms[2](x)))


class UMT(Network):
    """Two modalities are encoded alone, fused through bottleneck tokens, decoded, averaged over time and scored.

    features: {modality: (b, t, c_m)} of two modalities, t at most `positions`
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: score (b,) in [0, 1]; `per_segment`: (b, t) logits

    Source: the authors' code, TencentARC/UMT (UMT-S without text), which scores every clip by itself. The variant of
    the size that PAMFN's paper gives has no decoder, no output projections and a hidden layer in its head
    (docs/methods.md).

    Args:
        widths: {modality: feature width} of the two.
        positions: number of rows of the learned tables of positions.
        tokens: number of tokens of the bottleneck.
        decoder_layers: 0 for none.
        projected: whether attention ends in an output projection.
        input_dropout: dropout of the raw features.
        head_hidden: width of the head's hidden layer; None for a head of one layer.
        per_segment: nothing is averaged and every segment gets a logit, as in the authors' code.
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        d_model: Width = 256,
        heads: Heads = 8,
        feed_forward: Width = 1024,
        tokens: Count = 4,
        positions: Rows = 5000,
        decoder_layers: LayersOrNone = 1,
        projected: bool = True,
        head_hidden: Width | None = None,
        dropout: Probability = 0.1,
        input_dropout: Probability = 0.5,
        per_segment: bool = False,
    ) -> None:
        super().__init__()
        self.per_segment = per_segment
        two_widths(widths, "UMT")
        sizes = Sizes(d_model, heads, feed_forward, dropout, positions, projected)
        self.input_dropout = Dropout(input_dropout)
        self.embeddings = nn.ModuleDict({m: Pointwise(c, d_model) for m, c in widths.items()})
        self.encoders = nn.ModuleDict({m: EncoderLayer(sizes) for m in widths})
        self.bottleneck = BottleneckLayer(sizes, tokens)
        self.norm = nn.LayerNorm(d_model)
        self.decoder = nn.ModuleList(DecoderLayer(sizes) for _ in range(decoder_layers))
        self.decoder_norm = nn.LayerNorm(d_model) if decoder_layers else nn.Identity()
        hidden = [] if head_hidden is None else [nn.Linear(d_model, head_hidden), nn.ReLU()]
        self.head = nn.Sequential(*hidden, nn.Linear(head_hidden or d_model, 1))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the head's own rate."""
        return list(self.head.parameters())

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> ScoreOutput:
        valid = real_segments(next(iter(features.values())), lengths)
        streams = [
            self.encoders[m](embedding(self.input_dropout(features[m])), valid)
            for m, embedding in self.embeddings.items()
        ]
        first, second = self.bottleneck(streams, valid)
        memory = x = self.norm(first + second)
        for layer in self.decoder:
            x = layer(x, memory, valid)
        return scored(self.head, self.decoder_norm(x), valid, per_segment=self.per_segment)
