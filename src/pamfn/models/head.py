"""The regression head of the fused networks."""

from torch import nn


class RegressionHead(nn.Sequential):
    """Linear, BatchNorm, ReLU, dropout 0.5, linear, sigmoid: (b, width) -> (b, 1).

    Its hidden layer is d_model / reduction wide.
    """

    def __init__(self, width: int, d_model: int, reduction: int, dropout: float) -> None:
        hidden = d_model // reduction
        if hidden < 1:
            raise ValueError(f"head_reduction {reduction} leaves nothing of d_model {d_model}")
        super().__init__(
            nn.Dropout(dropout),
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(hidden, 1),
            nn.Sigmoid(),
        )
