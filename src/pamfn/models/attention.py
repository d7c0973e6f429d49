"""The two kinds of layers of a Transformer, over sequences that may be padded."""

import math

from torch import Tensor, nn

from pamfn.models.layers import Dropout, Pointwise


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017); `projected`: with an output projection.

    query: (b, q, d)
    key, value: (b, k, d)
    valid: (b, k) true on real keys; None where all are real
    returns: (b, q, d)

    Raises ValueError when d_model is not divisible by heads.
    """

    def __init__(self, d_model: int, heads: int, dropout: float, projected: bool = True) -> None:
        super().__init__()
        if heads < 1 or d_model % heads:
            raise ValueError(f"d_model {d_model} is not divisible by {heads} heads")
        self.heads = heads
        self.scale = 1 / math.sqrt(d_model // heads)
        self.query = Pointwise(d_model, d_model)
        self.key = Pointwise(d_model, d_model)
        self.value = Pointwise(d_model, d_model)
        self.out = Pointwise(d_model, d_model) if projected else nn.Identity()
        self.dropout = Dropout(dropout)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, valid: Tensor | None = None) -> Tensor:
        q, k, v = self.split(self.query(query)), self.split(self.key(key)), self.split(self.value(value))
        scores = q @ k.transpose(-1, -2) * self.scale  # (b, h, q, k)
        if valid is not None:
            scores = scores.masked_fill(~valid[:, None, None], -math.inf)
        mixed = self.dropout(scores.softmax(dim=-1)) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """Split the width between the heads: (b, t, d) -> (b, heads, t, d / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two layers with ReLU and dropout between them: (b, t, d) -> (b, t, d)."""

    def __init__(self, d_model: int, hidden: int, dropout: float) -> None:
        super().__init__(Pointwise(d_model, hidden), nn.ReLU(), Dropout(dropout), Pointwise(hidden, d_model))
