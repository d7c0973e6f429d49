"""The modality branches inside a fused network: which of them learn, and what the others do meanwhile."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pamfn.models.branch import ModalityBranch


class Branches(nn.ModuleDict):
    """The branch of every modality; some go on learning, the others are fixed.

    Shapes: features {modality: (b, t, c_m)} -> maps of every level, [(b, t_i, m, d)].

    Args:
        finetune: branches that learn in the fused network; None for all of them.
        frozen: mode of the fixed branches while training: `eval` (fixed, as the text says) or `train` (no gradient,
            but BatchNorm statistics drift and dropout stays on, as in the released code; docs/paper-vs-code.md, row 6).
        modality_dropout: probability that a modality of a training video is zeroed, as one that is missing; a video
            always keeps one. Videos packed into one sequence (`packing`) lose the same ones.
    """

    def __init__(
        self,
        branches: Mapping[str, ModalityBranch],
        *,
        finetune: Sequence[str] | None,
        frozen: Literal["eval", "train"],
        modality_dropout: float = 0.0,
    ) -> None:
        super().__init__(dict(branches))
        if not 0 <= modality_dropout < 1:
            raise ValueError(f"modality_dropout is a probability below 1, not {modality_dropout}")
        self.finetune = set(branches if finetune is None else finetune)
        self.frozen, self.modality_dropout = frozen, modality_dropout
        for name, network in branches.items():
            network.requires_grad_(name in self.finetune)
            network.head.requires_grad_(False)  # a branch's own score plays no part in the fused network

    def train(self, mode: bool = True) -> "Branches":
        """Training mode, with the fixed branches in the mode `frozen` names."""
        super().train(mode)
        for name, network in self.items():
            if name not in self.finetune and self.frozen == "eval":
                network.eval()
        return self

    def forward(
        self, features: Mapping[str, Tensor], lengths: Tensor | None = None, real: Tensor | None = None
    ) -> list[Tensor]:
        """Maps of every level; fixed branches give no gradient. `real`: see `ModalityBranch.maps`."""
        if self.training and self.modality_dropout:
            features = self.some_missing(features)
        maps = []
        for name, network in self.items():
            with torch.set_grad_enabled(torch.is_grad_enabled() and name in self.finetune):
                assert isinstance(network, ModalityBranch)
                maps.append(network.maps(features[name], lengths, real))
        return [torch.stack(level, dim=2) for level in zip(*maps, strict=True)]

    def some_missing(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features with some modalities of some videos zeroed."""
        x = next(iter(features.values()))
        drawn = torch.rand(len(self), len(x), device=x.device)
        kept = (drawn >= self.modality_dropout) | (drawn == drawn.amax(dim=0))
        return {name: features[name] * kept[i, :, None, None] for i, name in enumerate(self)}
