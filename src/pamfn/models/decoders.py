"""The two feature decoders: cross-attention of one query over a few tokens, in every time step by itself."""

import math

import torch
from torch import Tensor, nn

from pamfn.models.layers import Dropout, Pointwise


class TokenAttention(nn.Module):
    """One query attends over k tokens of its own time step; weights = softmax(sign * Q K^T / sqrt(d_head) + mask).

    query: (b, t, d)
    tokens: (b, t, k, d)
    mask: (b, t, k) or None
    returns: output (b, t, d), weights (b, t, h, k)

    Source: equations 3-4 of the paper. There is no output projection, and dropout acts on the weights.

    Keys and values are never formed: with a single query, q . (W_k x) = (W_k^T q) . x and sum_k w_k (W_v x_k) =
    W_v (sum_k w_k x_k), so two projections a time step do the work of 2 k.
    """

    def __init__(self, d_model: int, heads: int, dropout: float, sign: float) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise ValueError(f"d_model {d_model} is not divisible by {heads} heads")
        self.heads = heads
        self.scale = sign / math.sqrt(d_model // heads)
        self.query = Pointwise(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        q = self.query(query).unflatten(-1, (self.heads, -1))  # (b, t, h, e)
        key = self.key.weight.unflatten(0, (self.heads, -1))  # (h, e, d)
        value = self.value.weight.unflatten(0, (self.heads, -1))
        key_bias = torch.einsum("bthe,he->bth", q, self.key.bias.unflatten(0, (self.heads, -1)))
        scores = torch.matmul(torch.einsum("bthe,hed->bthd", q, key), tokens.transpose(-1, -2)) + key_bias[..., None]
        scores = scores * self.scale
        if mask is not None:
            scores = scores + mask[:, :, None]
        weights = scores.softmax(dim=-1)
        dropped = self.dropout(weights)
        mixed = torch.matmul(dropped, tokens)  # (b, t, h, d)
        bias = self.value.bias.unflatten(0, (self.heads, -1)) * dropped.sum(dim=-1, keepdim=True)
        return (torch.einsum("bthd,hed->bthe", mixed, value) + bias).flatten(-2), weights


class WeightedFusion(nn.Module):
    """A sum of tokens with one learned weight each, positive by a softmax and the same in every time step.

    tokens: (b, t, k, d)
    mask: (b, t, k) or None
    returns: output (b, t, d), weights (b, t, 1, k)

    Source: the paper's baseline "Weighted Fusion" (sections IV-E and IV-F). A masked token takes no part: the mask is
    added before the softmax, as in the attention it replaces.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(tokens))

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scores = self.weight.expand(*tokens.shape[:3])
        weights = (scores if mask is None else scores + mask).softmax(dim=-1)[:, :, None]
        return torch.matmul(weights.to(tokens), tokens).squeeze(2), weights


class ModalitySpecificFeatureDecoder(nn.Module):
    """MSFD: decodes what the modalities hold and the mixed branch does not yet hold.

    mixed: (b, t, d)
    current: (b, t, m, d) the modalities' current features
    returns: s (b, t, d), weights (b, t, h, m)

    The query attends to the least similar features, hence the minus sign.
    Source: section III-C, equations 2-4.
    """

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.projection = Pointwise(d_model, d_model)
        self.attention = TokenAttention(d_model, heads, dropout, sign=-1.0)

    def forward(self, mixed: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        return self.attention(self.projection(mixed), current)


class CrossModalFeatureDecoder(nn.Module):
    """CMFD: decodes what the enabled FusionNets hold and neither mixed nor modality-specific features hold yet.

    held: (b, t, width) those features, [c; s]
    cross_modal: (b, t, k, d)
    mask: (b, t, k) or None
    returns: f (b, t, d), weights (b, t, h, k)

    double_negation: the query is negated once more, so that it attends to the most similar features, as in the
        released code (docs/paper-vs-code.md, row 1).
    Source: section III-E, equation 11.
    """

    def __init__(self, width: int, d_model: int, heads: int, dropout: float, double_negation: bool) -> None:
        super().__init__()
        self.double_negation = double_negation
        self.projection = Pointwise(width, d_model)
        self.attention = TokenAttention(d_model, heads, dropout, sign=-1.0)

    def forward(self, held: Tensor, cross_modal: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        query = self.projection(held)
        return self.attention(-query if self.double_negation else query, cross_modal, mask)
