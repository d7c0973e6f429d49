"""The paper's late fusions: one vector a modality, combined once, then a regression head."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from pamfn.models.branch import ModalityBranch
from pamfn.models.branches import Branches
from pamfn.models.decoders import WeightedFusion
from pamfn.models.head import RegressionHead
from pamfn.models.layers import full_precision
from pamfn.models.network import Network
from pamfn.models.ranges import Probability, Width


class LateFusionOutput(NamedTuple):
    """Output of a late fusion.

    score: (b,) in [0, 1]
    weights: (b, m) of the modalities; None where the strategy has none
    """

    score: Tensor
    weights: Tensor | None


class LateFusion(Network):
    """Fusion of the branches' last features by one of the paper's four strategies (Table V).

    features: {modality: (b, t, c_m)}
    returns: `LateFusionOutput`

    Source: sections IV-E and IV-F1.

    Args:
        branches: the branch of every modality, pretrained (two stages) or not (one stage).
        fusion: `average`; `concat` with a fully-connected layer back to d; `weighted`, a learned weight a modality;
            `attention`, weights from a fully-connected layer over all modalities' features.
        head_reduction, head_dropout: of the regressor, as in PAMFN.
        finetune, frozen, modality_dropout: see `Branches`.
    """

    def __init__(
        self,
        *,
        branches: Mapping[str, ModalityBranch],
        fusion: Literal["average", "concat", "weighted", "attention"],
        head_reduction: Width = 2,
        head_dropout: Probability = 0.0,
        modality_dropout: Probability = 0.0,
        finetune: Sequence[str] | None = ("audio",),
        frozen: Literal["eval", "train"] = "eval",
    ) -> None:
        super().__init__()
        self.branches = Branches(branches, finetune=finetune, frozen=frozen, modality_dropout=modality_dropout)
        first, modalities = next(iter(branches.values())), len(branches)
        if first.per_segment:
            raise ValueError("a late fusion scores whole videos; highlights take model=pamfn")
        self.min_segments, d_model = first.min_segments, first.d_model
        self.fusion = fusion
        if fusion == "concat":
            self.reduce = nn.Linear(modalities * d_model, d_model)
        elif fusion == "weighted":
            self.weighted = WeightedFusion(modalities)
        elif fusion == "attention":
            self.attention = nn.Linear(modalities * d_model, modalities)
        self.head = RegressionHead(d_model, d_model, head_reduction, head_dropout)
        self.train()  # sets the fixed branches to their mode, which Lightning keeps

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the head's own rate."""
        return list(self.head.parameters())

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> LateFusionOutput:
        """Score videos, and say how much each modality weighed."""
        x = self.branches(features, lengths)[-1]  # (b, 1, m, d)
        fused, weights = self.fuse(x)
        return LateFusionOutput(full_precision(self.head, fused).flatten(), weights)

    def fuse(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Combine the modalities: (b, 1, m, d) -> (b, d), and weights (b, m)."""
        flat = x.flatten(1)
        if self.fusion == "average":
            return x.mean(dim=2).squeeze(1), None
        if self.fusion == "concat":
            return self.reduce(flat), None
        if self.fusion == "weighted":
            fused, weights = self.weighted(x)
            return fused.squeeze(1), weights[:, 0, 0]
        weights = self.attention(flat).softmax(dim=-1)
        return (weights[:, None] @ x.squeeze(1)).squeeze(1), weights
