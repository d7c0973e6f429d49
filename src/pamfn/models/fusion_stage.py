"""One stage of the mixed branch: its own block, the two decoders and the adaptive fusion between them."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.adaptive_fusion import AdaptiveFusion, Policy, Undecided
from pamfn.models.decoders import CrossModalFeatureDecoder, ModalitySpecificFeatureDecoder, WeightedFusion
from pamfn.models.layers import Pointwise, Pooling, SequenceConv, SequenceNorm

Decoder = Literal["attention", "weighted", "none"]


class StageOutput(NamedTuple):
    """Output of one stage, whose length is t'; what a variant leaves out is None.

    mixed: (b, t', 3 d) [c; s; f]
    decoded: (b, t', d) s
    cross_modal: (b, t', d) f
    modality_weights: (b, t', h, m)
    fusion_weights: (b, t', h, k)
    logits: (b, t', k)
    decision: (b, t') number of enabled FusionNets, 1..k
    """

    mixed: Tensor
    decoded: Tensor | None = None
    cross_modal: Tensor | None = None
    modality_weights: Tensor | None = None
    fusion_weights: Tensor | None = None
    logits: Tensor | None = None
    decision: Tensor | None = None


def of_zeros(layer: Pointwise | SequenceConv, zeros: Tensor) -> Tensor:
    """Return a layer's output for zeros (b, t, c): its bias everywhere, with a zero gradient for its weight."""
    assert layer.bias is not None
    return (layer.bias + 0 * layer.weight.sum()).expand(*zeros.shape[:2], -1)


class MixedBlock(nn.Module):
    """The mixed branch's own residual block: (b, t, width) -> (b, t, d).

    empty: x is all zeros, as before the first stage, and the two widest layers need not be computed.
    """

    def __init__(self, width: int, d_model: int) -> None:
        super().__init__()
        self.conv1 = SequenceConv(width, d_model)
        self.norm1 = SequenceNorm(d_model)
        self.conv2 = SequenceConv(d_model, d_model)
        self.norm2 = SequenceNorm(d_model)
        self.shortcut = Pointwise(width, d_model)
        self.shortcut_norm = SequenceNorm(d_model)

    def forward(self, x: Tensor, valid: Tensor | None, *, empty: bool = False) -> Tensor:
        y = of_zeros(self.conv1, x) if empty else self.conv1(x, valid)
        y = F.relu(self.norm1(y, valid))
        y = F.relu(self.norm2(self.conv2(y, valid), valid))
        z = of_zeros(self.shortcut, x) if empty else self.shortcut(x)
        return y + F.relu(self.shortcut_norm(z, valid))


class FusionStage(nn.Module):
    """One stage of the mixed branch: mixed block, MSFD, AFM, CMFD.

    msfd, cmfd: `none` leaves the decoder out (Table VI), and without CMFD also the AFM, which nothing would read;
        `weighted` puts Weighted Fusion in its place.
    out_width: the width of [c; s; f], or of what is left of it.
    """

    def __init__(
        self,
        width: int,
        d_model: int,
        modalities: int,
        *,
        num_fusion_nets: int,
        msfd: Decoder,
        cmfd: Decoder,
        msfd_heads: int,
        cmfd_heads: int,
        attention_dropout: float,
        double_negation: bool,
        policy: Policy,
        policy_layers: int,
        shared_attention: bool,
    ) -> None:
        super().__init__()
        self.out_width = d_model * (1 + (msfd != "none") + (cmfd != "none"))
        self.block = MixedBlock(width, d_model)
        self.msfd: nn.Module | None = None
        if msfd == "attention":
            self.msfd = ModalitySpecificFeatureDecoder(d_model, msfd_heads, attention_dropout)
        elif msfd == "weighted":
            self.msfd = WeightedFusion(modalities)
        self.fusion: AdaptiveFusion | None = None
        self.cmfd: nn.Module | None = None
        if cmfd != "none":
            self.fusion = AdaptiveFusion(
                d_model,
                modalities,
                num_fusion_nets,
                policy=policy,
                policy_layers=policy_layers,
                shared_attention=shared_attention,
            )
        if cmfd == "attention":
            query = d_model if msfd == "none" else 2 * d_model
            self.cmfd = CrossModalFeatureDecoder(query, d_model, cmfd_heads, attention_dropout, double_negation)
        elif cmfd == "weighted":
            self.cmfd = WeightedFusion(num_fusion_nets)

    def undecided(self, previous: Tensor, pooling: Pooling, valid: Tensor | None) -> Undecided | None:
        """Apply the FusionNets, if there are any, to the modalities' previous maps (b, t, m, d)."""
        return None if self.fusion is None else self.fusion.undecided(previous, pooling, valid)

    def forward(
        self,
        mixed: Tensor,
        current: Tensor,
        undecided: Undecided | None,
        temperature: Tensor,
        noise: Tensor | None,
        valid: Tensor | None,
        *,
        first: bool,
    ) -> StageOutput:
        """Run the stage.

        mixed: (b, t', width) state of the mixed branch, all zeros where `first`
        current: (b, t', m, d) the modalities' maps
        undecided: what `undecided` returned
        noise: (b, t', choices) or None
        valid: (b, t') or None
        """
        parts = [self.block(mixed, valid, empty=first)]
        decoded = modality_weights = None
        if isinstance(self.msfd, WeightedFusion):
            decoded, modality_weights = self.msfd(current)
        elif self.msfd is not None:
            decoded, modality_weights = self.msfd(parts[0], current)
        if decoded is not None:
            parts.append(decoded)
        if self.fusion is None or self.cmfd is None:
            return StageOutput(torch.cat(parts, dim=-1), decoded, modality_weights=modality_weights)
        fusion = self.fusion(undecided, temperature, noise)
        if isinstance(self.cmfd, WeightedFusion):
            cross_modal, fusion_weights = self.cmfd(fusion.features, fusion.mask)
        else:
            cross_modal, fusion_weights = self.cmfd(torch.cat(parts, dim=-1), fusion.features, fusion.mask)
        if self.fusion.may_disable_all and fusion.decision is not None:
            cross_modal = cross_modal * (fusion.decision > 0)[..., None]
        out = torch.cat([*parts, cross_modal], dim=-1)
        return StageOutput(out, decoded, cross_modal, modality_weights, fusion_weights, fusion.logits, fusion.decision)
