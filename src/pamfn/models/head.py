"""The heads of the fused networks: a score of the whole video, or a logit of each of its segments."""

import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.layers import Dropout, SequenceNorm


def hidden_width(d_model: int, reduction: int) -> int:
    """Return the width of a head's hidden layer.

    Raises:
        ValueError: when nothing is left of it.
    """
    if not 1 <= reduction <= d_model:
        raise ValueError(f"head_reduction {reduction} leaves nothing of d_model {d_model}")
    return d_model // reduction


class RegressionHead(nn.Sequential):
    """Linear, BatchNorm, ReLU, dropout 0.5, linear, sigmoid: (b, width) -> (b, 1).

    Its hidden layer is d_model / reduction wide.
    """

    def __init__(self, width: int, d_model: int, reduction: int, dropout: float) -> None:
        hidden = hidden_width(d_model, reduction)
        super().__init__(
            Dropout(dropout),
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            Dropout(0.5),
            nn.Linear(hidden, 1),
            nn.Sigmoid(),
        )


class ClassificationHead(nn.Module):
    """The same layers on every (valid) segment, without the sigmoid: (b, t, width) -> logits (b, t)."""

    def __init__(self, width: int, d_model: int, reduction: int, dropout: float) -> None:
        super().__init__()
        hidden = hidden_width(d_model, reduction)
        self.dropout1, self.linear1 = Dropout(dropout), nn.Linear(width, hidden)
        self.norm = SequenceNorm(hidden)
        self.dropout2, self.linear2 = Dropout(0.5), nn.Linear(hidden, 1)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        y = F.relu(self.norm(self.linear1(self.dropout1(x)), valid))
        return self.linear2(self.dropout2(y)).squeeze(-1)
