"""The modality branches inside a fused network, some of which learn while the others are fixed."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pamfn.models.branch import ModalityBranch


class Branches(nn.ModuleDict):
    """The branch of every modality; some go on learning, the others are fixed.

    features: {modality: (b, t, c_m)}
    returns: [(b, t_i, m, d)], the maps of every level

    Args:
        finetune: branches that learn in the fused network; None for all of them.
        frozen: mode of the fixed branches while training: `eval` (fixed, as the text says) or `train` (no gradient,
            but BatchNorm statistics drift and dropout stays on, as in the released code; docs/paper-vs-code.md, row 6).
        modality_dropout: probability that a modality of a training video is zeroed, as if it were missing; a video
            always keeps one. Videos packed into one sequence (`packing`) lose the same modalities.
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
            network.head.requires_grad_(False)  # the fused network does not use a branch's own score

    def train(self, mode: bool = True) -> "Branches":
        """Set training mode, and the fixed branches to the mode that `frozen` names."""
        super().train(mode)
        for name, network in self.items():
            if name not in self.finetune and self.frozen == "eval":
                network.eval()
        return self

    def forward(
        self, features: Mapping[str, Tensor], lengths: Tensor | None = None, real: Tensor | None = None
    ) -> list[Tensor]:
        """Return the maps of every level, without gradient from fixed branches. `real`: see `ModalityBranch.maps`."""
        if self.training and self.modality_dropout:
            features = self.some_missing(features)
        maps = []
        for name, network in self.items():
            with torch.set_grad_enabled(torch.is_grad_enabled() and name in self.finetune):
                assert isinstance(network, ModalityBranch)
                maps.append(network.maps(features[name], lengths, real))
        return [torch.stack(level, dim=2) for level in zip(*maps, strict=True)]

    def some_missing(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Zero some modalities of some videos."""
        x = next(iter(features.values()))
        drawn = torch.rand(len(self), len(x), device=x.device)
        kept = (drawn >= self.modality_dropout) | (drawn == drawn.amax(dim=0))
        return {name: features[name] * kept[i, :, None, None] for i, name in enumerate(self)}
