"""PAMFN: pretrained modality branches, and a mixed branch that fuses them stage by stage."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.branch import ModalityBranch
from pamfn.models.branches import Branches
from pamfn.models.decoders import CrossModalFeatureDecoder, ModalitySpecificFeatureDecoder, WeightedFusion
from pamfn.models.fusion import AdaptiveFusion, Policy
from pamfn.models.head import RegressionHead
from pamfn.models.layers import Dropout, Pointwise, SequenceConv, SequenceNorm, full_precision, pool, valid_segments

Decoder = Literal["attention", "weighted", "none"]


class StageOutput(NamedTuple):
    """What one stage made and decided, for figures and parity; t' is the stage's length.

    mixed [c; s; f] (b, t', 3 d), decoded s and cross_modal f (b, t', d), modality_weights (b, t', h, m),
    fusion_weights (b, t', h, k), logits (b, t', k), decision (b, t') in 1..k. What a variant leaves out is None.
    """

    mixed: Tensor
    decoded: Tensor | None = None
    cross_modal: Tensor | None = None
    modality_weights: Tensor | None = None
    fusion_weights: Tensor | None = None
    logits: Tensor | None = None
    decision: Tensor | None = None


class PAMFNOutput(NamedTuple):
    """score (b,) in [0, 1] and what each stage decided."""

    score: Tensor
    stages: list[StageOutput]


def of_zeros(layer: Pointwise | SequenceConv, zeros: Tensor) -> Tensor:
    """What a layer makes of zeros (b, t, c): its bias everywhere, and a zero gradient for its weight."""
    assert layer.bias is not None
    return (layer.bias + 0 * layer.weight.sum()).expand(*zeros.shape[:2], -1)


class MixedBlock(nn.Module):
    """The mixed branch's own residual block: (b, t, width) -> (b, t, d).

    `empty`: x is all zeros, as before the first stage, and the two widest layers need not be computed.
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

    `msfd`, `cmfd`: `none` leaves the decoder out (Table VI), and without CMFD the AFM that nothing would read;
    `weighted` puts Weighted Fusion in its place. `out_width` is the width of [c; s; f] or of what is left of it.
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

    def forward(
        self,
        mixed: Tensor,
        previous: Tensor,
        current: Tensor,
        temperature: Tensor,
        noise: Tensor | None,
        valid: tuple[Tensor | None, Tensor | None],
        *,
        first: bool,
        last: bool,
    ) -> StageOutput:
        """mixed (b, t', width), previous (b, t, m, d), current (b, t', m, d), masks of t and of t'."""
        parts = [self.block(mixed, valid[1], empty=first)]
        decoded = modality_weights = None
        if isinstance(self.msfd, WeightedFusion):
            decoded, modality_weights = self.msfd(current)
        elif self.msfd is not None:
            decoded, modality_weights = self.msfd(parts[0], current)
        if decoded is not None:
            parts.append(decoded)
        if self.fusion is None or self.cmfd is None:
            return StageOutput(torch.cat(parts, dim=-1), decoded, modality_weights=modality_weights)
        fusion = self.fusion(previous, temperature, noise, last=last, valid=valid[0])
        if isinstance(self.cmfd, WeightedFusion):
            cross_modal, fusion_weights = self.cmfd(fusion.features, fusion.mask)
        else:
            cross_modal, fusion_weights = self.cmfd(torch.cat(parts, dim=-1), fusion.features, fusion.mask)
        if self.fusion.may_disable_all and fusion.decision is not None:
            cross_modal = cross_modal * (fusion.decision > 0)[..., None]
        out = torch.cat([*parts, cross_modal], dim=-1)
        return StageOutput(out, decoded, cross_modal, modality_weights, fusion_weights, fusion.logits, fusion.decision)


class PAMFN(nn.Module):
    """Progressive Adaptive Multimodal Fusion Network over any number of modalities.

    Shapes: features {modality: (b, t, c_m)} -> score (b,) in [0, 1]. `lengths` (b,): number of real segments of each
    video when videos of different length share the batch. t must be at least 2 ** (num_stages - 1), and the number of
    stages and the width d are the branches'.
    Source: section III of the paper.

    Args:
        branches: the (pretrained) branch of every modality, in order.
        num_fusion_nets: K. head_reduction: r, the head's hidden width is d_model / r.
        finetune, frozen, modality_dropout: see `Branches`.
        double_negation, policy_layers, shared_attention, temperature: readings of the text or the released code
            (NOTES.md, rows 1, 2, 10, 9).
        decoding: the decision at test time: `argmax` of the logits, one `sample`, or the `mean` score of `samples`
            samples (NOTES.md, row 3).
        msfd, cmfd: what stands in the place of the decoders (Table VI, see `FusionStage`).
        policy: which FusionNets a decision enables (Table VII, see `AdaptiveFusion`).
        fusion_stages: stages that take features from the modalities, from the first on; None for all (Table VIII).
    """

    def __init__(
        self,
        *,
        branches: Mapping[str, ModalityBranch],
        num_fusion_nets: int = 10,
        msfd_heads: int = 1,
        cmfd_heads: int = 1,
        head_reduction: int = 2,
        head_dropout: float = 0.0,
        feature_dropout: float = 0.5,
        attention_dropout: float = 0.1,
        modality_dropout: float = 0.0,
        finetune: Sequence[str] | None = ("audio",),
        frozen: Literal["eval", "train"] = "eval",
        double_negation: bool = False,
        policy_layers: Literal[1, 2] = 2,
        shared_attention: bool = False,
        temperature: Literal["positive", "unconstrained"] = "positive",
        initial_temperature: float = 10.0,
        decoding: Literal["argmax", "sample", "mean"] = "argmax",
        samples: int = 10,
        msfd: Decoder = "attention",
        cmfd: Decoder = "attention",
        policy: Policy = "ranked",
        fusion_stages: int | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("num_fusion_nets", num_fusion_nets), ("samples", samples)):
            if number < 1:
                raise ValueError(f"{name} is at least 1, not {number}")
        first = next(iter(branches.values()))
        self.d_model, self.num_stages = first.d_model, len(first.blocks)
        if fusion_stages is not None and not 1 <= fusion_stages <= self.num_stages:
            raise ValueError(f"fusion_stages is 1 to {self.num_stages}, the number of stages, not {fusion_stages}")
        self.decoding, self.samples = decoding, samples
        self.num_fusion_nets = num_fusion_nets
        self.choices = 2 * num_fusion_nets if policy == "unranked" else num_fusion_nets
        self.samples_decisions = cmfd != "none" and policy != "free"
        self.branches = Branches(branches, finetune=finetune, frozen=frozen, modality_dropout=modality_dropout)
        self.stages = nn.ModuleList()
        self.width = width = self.d_model * (1 + (msfd != "none") + (cmfd != "none"))  # of the empty state c_0
        for i in range(self.num_stages):
            fused = fusion_stages is None or i < fusion_stages
            stage = FusionStage(
                width,
                self.d_model,
                len(branches),
                num_fusion_nets=num_fusion_nets,
                msfd=msfd if fused else "none",
                cmfd=cmfd if fused else "none",
                msfd_heads=msfd_heads,
                cmfd_heads=cmfd_heads,
                attention_dropout=attention_dropout,
                double_negation=double_negation,
                policy=policy,
                policy_layers=policy_layers,
                shared_attention=shared_attention,
            )
            self.stages.append(stage)
            width = stage.out_width
        self.feature_dropout = Dropout(feature_dropout)
        self.positive_temperature = temperature == "positive"
        start = math.log(initial_temperature) if self.positive_temperature else initial_temperature
        self.temperature = nn.Parameter(torch.tensor(start))
        self.head = RegressionHead(width, self.d_model, head_reduction, head_dropout)
        self.train()  # puts the fixed branches in their mode: Lightning keeps the modes it finds

    def head_parameters(self) -> list[nn.Parameter]:
        """Parameters that learn at the head's own rate."""
        return list(self.head.parameters())

    def forward(
        self, features: Mapping[str, Tensor], lengths: Tensor | None = None, noise: Sequence[Tensor] | None = None
    ) -> PAMFNOutput:
        """Scores and decisions. `noise`: Gumbel noise (b, t', choices) of each stage; drawn here in training mode."""
        levels = [self.feature_dropout(level) for level in self.branches(features, lengths)]
        valid = self.valid_levels(levels, lengths)
        if noise is None and self.training and self.samples_decisions:
            noise = [gumbel((*x.shape[:2], self.choices), like=x) for x in levels[1:]]
        temperature = self.temperature.exp() if self.positive_temperature else self.temperature
        mixed = levels[0].new_zeros(*levels[1].shape[:2], self.width)
        stages: list[StageOutput] = []
        for i, stage in enumerate(self.stages):
            last = i == self.num_stages - 1
            masks = (valid[i], valid[i + 1])
            stage_noise = None if noise is None else noise[i]
            out = stage(mixed, levels[i], levels[i + 1], temperature, stage_noise, masks, first=i == 0, last=last)
            stages.append(out)
            if not last:
                mixed = pool(out.mixed, last=i == self.num_stages - 2, valid=valid[i + 1])
        return PAMFNOutput(full_precision(self.head, stages[-1].mixed.flatten(1)).flatten(), stages)

    def valid_levels(self, levels: Sequence[Tensor], lengths: Tensor | None) -> list[Tensor | None]:
        """Masks (b, t_i) of every level; None where all segments are real."""
        if lengths is None:
            return [None] * len(levels)
        masks: list[Tensor | None] = [valid_segments(lengths // 2**i, x.shape[1]) for i, x in enumerate(levels[:-1])]
        return [*masks, None]

    def decide(
        self, features: Mapping[str, Tensor], lengths: Tensor | None, keys: Sequence[int]
    ) -> tuple[Tensor, Tensor | None]:
        """Test scores (b,) under `decoding`, and their standard deviation (b,) over samples for `mean`.

        `keys`: one integer a video; a video's noise depends on its key alone, not on the batch it is in.
        """
        if self.decoding == "argmax" or not self.samples_decisions:
            return self(features, lengths).score, None
        x = next(iter(features.values()))
        draws = self.samples if self.decoding == "mean" else 1
        noise = decision_noise(keys, draws, self.stage_lengths(x.shape[1]), self.choices)
        scores = torch.stack(
            [self(features, lengths, noise=[stage[:, i].to(x) for stage in noise]).score for i in range(draws)]
        )
        if self.decoding == "sample":
            return scores[0], None
        return scores.mean(dim=0), scores.std(dim=0, correction=0)

    def stage_lengths(self, segments: int) -> list[int]:
        """Length of the time axis after each stage."""
        return [segments // 2**i for i in range(1, self.num_stages)] + [1]


def gumbel(shape: Sequence[int], like: Tensor) -> Tensor:
    """Standard Gumbel noise (equation 9), in float32."""
    return -torch.empty(*shape, device=like.device).exponential_().log()


def decision_noise(keys: Sequence[int], draws: int, lengths: Sequence[int], choices: int) -> list[Tensor]:
    """Gumbel noise [(b, draws, t', choices)] of each stage; a video's follows from its key, at any padded length."""
    noise = [np.empty((len(keys), draws, t, choices), dtype=np.float32) for t in lengths]
    for stage, values in enumerate(noise):
        for row, key in enumerate(keys):
            for draw in range(draws):
                generator = np.random.default_rng([key, stage, draw])
                values[row, draw] = generator.gumbel(size=values.shape[2:])
    return [torch.from_numpy(values) for values in noise]
