"""Joint-VA: joint visual and audio learning with disentangled attention (Badamdorj et al., ICCV 2021)."""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.baselines.streams import scored, two_widths
from pamfn.models.branch import Embedding
from pamfn.models.layers import Dropout, Pointwise, average, real_segments
from pamfn.models.network import Network, ScoreOutput
from pamfn.models.ranges import Probability, Width


class DisentangledAttention(nn.Module):
    """Non-local attention of two parts, pairwise over deviations from the mean over time and unary, with a residual.

    x, source: (b, t, d_model)
    valid: (b, t) true on the real segments of both; None where all are real
    returns: (b, t, d_model)

    sentinel: a learned vector stands beside the source's segments, so that attention can avoid a noisy source.
    """

    def __init__(self, d_model: int, hidden: int, sentinel: bool) -> None:
        super().__init__()
        self.query = Pointwise(d_model, hidden, bias=False)
        self.key = Pointwise(d_model, hidden, bias=False)
        self.value = Pointwise(d_model, hidden, bias=False)
        self.unary = Pointwise(d_model, 1)
        self.out = Pointwise(hidden, d_model, bias=False)
        self.scale = nn.Parameter(torch.tensor(hidden**-0.5))
        self.sentinel = nn.Parameter(torch.randn(1, d_model)) if sentinel else None

    def forward(self, x: Tensor, source: Tensor, valid: Tensor | None) -> Tensor:
        query, key = centred(self.query(x), valid), centred(self.key(source), valid)
        value, unary = self.value(source), self.unary(source)
        if self.sentinel is not None:
            sentinel = self.sentinel.expand(x.shape[0], 1, -1)
            key = torch.cat([key, self.key(sentinel)], dim=1)
            value, unary = (
                torch.cat([y, layer(sentinel)], dim=1) for y, layer in ((value, self.value), (unary, self.unary))
            )
            valid = None if valid is None else F.pad(valid, (0, 1), value=True)
        pairwise, unary = self.scale * query @ key.transpose(1, 2), unary.transpose(1, 2)
        if valid is not None:
            pairwise, unary = (part.masked_fill(~valid[:, None], -math.inf) for part in (pairwise, unary))
        weights = pairwise.softmax(dim=-1) + unary.softmax(dim=-1)
        return x + self.out(weights @ value)


def centred(x: Tensor, valid: Tensor | None) -> Tensor:
    """Subtract the mean over the valid segments of (b, t, d)."""
    return x - average(x, valid)


class JointVA(Network):
    """Each of two modalities attends to itself and to the other; the four sequences are joined and averaged over time.

    features: {modality: (b, t, c_m)} of two modalities
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: score (b,) in [0, 1]; `per_segment`: (b, t) logits

    Source: the paper's abstract and a third party's implementation, since the authors' code could not be reached: a
    reconstruction. Embedding, widths and the score of a whole video are our choice; PAMFN's paper says nothing about
    them (docs/methods.md).

    Args:
        widths: {modality: feature width} of the two.
        attention: width of queries, keys and values.
        dropout: of the embeddings.
        head_hidden, head_dropout: of the regressor.
        per_segment: nothing is averaged and every segment gets a logit: highlights, for which the method was made.
    """

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        d_model: Width = 256,
        hidden: Width = 512,
        attention: Width = 128,
        dropout: Probability = 0.3,
        head_hidden: Width = 256,
        head_dropout: Probability = 0.5,
        per_segment: bool = False,
    ) -> None:
        super().__init__()
        self.per_segment = per_segment
        two_widths(widths, "Joint-VA")
        self.embeddings = nn.ModuleDict({m: Embedding(c, hidden, d_model, dropout) for m, c in widths.items()})
        self.within = nn.ModuleList(DisentangledAttention(d_model, attention, sentinel=False) for _ in range(2))
        self.across = nn.ModuleList(DisentangledAttention(d_model, attention, sentinel=True) for _ in range(2))
        self.head = nn.Sequential(
            nn.LayerNorm(4 * d_model),
            Dropout(head_dropout),
            nn.Linear(4 * d_model, head_hidden),
            nn.ReLU(),
            nn.LayerNorm(head_hidden),
            Dropout(head_dropout),
            nn.Linear(head_hidden, 1),
        )

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the head's own rate."""
        return list(self.head.parameters())

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> ScoreOutput:
        valid = real_segments(next(iter(features.values())), lengths)
        streams = [embedding(features[m], valid) for m, embedding in self.embeddings.items()]
        within = [attend(x, x, valid) for attend, x in zip(self.within, streams, strict=True)]
        across = [attend(x, y, valid) for attend, x, y in zip(self.across, streams, streams[::-1], strict=True)]
        return scored(self.head, torch.cat([*within, *across], dim=-1), valid, per_segment=self.per_segment)
