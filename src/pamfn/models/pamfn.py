"""PAMFN: pretrained modality branches, and a mixed branch that fuses them stage by stage."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pamfn.models.adaptive_fusion import Policy, Undecided
from pamfn.models.branch import ModalityBranch
from pamfn.models.branches import Branches
from pamfn.models.fusion_stage import Decoder, FusionStage, StageOutput
from pamfn.models.head import ClassificationHead, RegressionHead
from pamfn.models.layers import Dropout, full_precision, packed, packing, pool, pooled_lengths, unpacked, valid_segments
from pamfn.models.network import Network
from pamfn.models.ranges import Count, Heads, Layers, Positive, Probability, Width


class PAMFNOutput(NamedTuple):
    """Output of PAMFN.

    score: (b,) in [0, 1]; per segment (b, t) logits
    stages: output of every stage of the mixed branch, with its decisions
    """

    score: Tensor
    stages: list[StageOutput]


class PAMFN(Network):
    """Progressive Adaptive Multimodal Fusion Network over any number of modalities.

    features: {modality: (b, t, c_m)}, t at least 2 ** (num_stages - 1)
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: `PAMFNOutput`

    The number of stages and the width d are the branches'. On branches that are `per_segment` PAMFN is so too: nothing
    is pooled and a classification head returns a logit for every segment (section IV-G); any t will do, but BatchNorm
    cannot train on a batch of one segment.
    Source: section III of the paper.

    Args:
        branches: the (pretrained) branch of every modality, in order.
        num_fusion_nets: K.
        head_reduction: r; the head's hidden width is d_model / r.
        finetune, frozen, modality_dropout: see `Branches`.
        double_negation, policy_layers, shared_attention, temperature: settings by which the text and the released code
            differ (docs/paper-vs-code.md, rows 1, 2, 10, 9).
        decoding: the decision at test time: `argmax` of the logits, one `sample`, or the `mean` score of `samples`
            samples (docs/paper-vs-code.md, row 3).
        msfd, cmfd: what stands in the place of the decoders (Table VI, see `FusionStage`).
        policy: which FusionNets a decision enables (Table VII, see `AdaptiveFusion`).
        fusion_stages: number of stages, from the first on, that take features from the modalities; None for all
            (Table VIII).
    """

    def __init__(
        self,
        *,
        branches: Mapping[str, ModalityBranch],
        num_fusion_nets: Count = 10,
        msfd_heads: Heads = 1,
        cmfd_heads: Heads = 1,
        head_reduction: Width = 2,
        head_dropout: Probability = 0.0,
        feature_dropout: Probability = 0.5,
        attention_dropout: Probability = 0.1,
        modality_dropout: Probability = 0.0,
        finetune: Sequence[str] | None = ("audio",),
        frozen: Literal["eval", "train"] = "eval",
        double_negation: bool = False,
        policy_layers: Literal[1, 2] = 2,
        shared_attention: bool = False,
        temperature: Literal["positive", "unconstrained"] = "positive",
        initial_temperature: Positive = 10.0,
        decoding: Literal["argmax", "sample", "mean"] = "argmax",
        samples: Count = 10,
        msfd: Decoder = "attention",
        cmfd: Decoder = "attention",
        policy: Policy = "ranked",
        fusion_stages: Layers | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("num_fusion_nets", num_fusion_nets), ("samples", samples)):
            if number < 1:
                raise ValueError(f"{name} is at least 1, not {number}")
        first = next(iter(branches.values()))
        self.d_model, self.num_stages = first.d_model, len(first.blocks)
        self.per_segment, self.poolings, self.min_segments = first.per_segment, first.poolings, first.min_segments
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
        head = ClassificationHead if self.per_segment else RegressionHead
        self.head = head(width, self.d_model, head_reduction, head_dropout)
        self.train()  # sets the fixed branches to their mode, which Lightning keeps

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the head's own rate."""
        return list(self.head.parameters())

    def forward(
        self, features: Mapping[str, Tensor], lengths: Tensor | None = None, noise: Sequence[Tensor] | None = None
    ) -> PAMFNOutput:
        """Score videos, or their segments, and return the decisions.

        noise: Gumbel noise of each stage, (b, t', choices); drawn here in training mode
        """
        segments = next(iter(features.values())).shape[1]
        if self.training and self.per_segment and lengths is not None:  # padding would cost more than the videos
            rows, real = packing(lengths, segments)
            levels = self.branches({m: packed(x, rows) for m, x in features.items()}, real=real)
            output = self.fused(levels, [real] * len(levels), noise)
            return output._replace(score=unpacked(output.score, real, lengths, segments))
        return self.fused(self.branches(features, lengths), self.valid_levels(segments, lengths), noise)

    def fused(
        self,
        levels: Sequence[Tensor],
        valid: Sequence[Tensor | None],
        noise: Sequence[Tensor] | None,
        undecided: Sequence[Undecided | None] | None = None,
    ) -> PAMFNOutput:
        """Run the mixed branch over the branches' maps.

        levels: [(b, t_i, m, d)], the maps of every level
        valid: [(b, t_i)], masks of their segments, or None
        undecided: what the method `undecided` returned for the same maps, where it was called before
        """
        levels = [self.feature_dropout(level) for level in levels]
        if undecided is None:
            undecided = self.undecided(levels, valid)
        if noise is None and self.training and self.samples_decisions:
            noise = [gumbel((*x.shape[:2], self.choices), like=x) for x in levels[1:]]
        temperature = self.temperature.exp() if self.positive_temperature else self.temperature
        mixed = levels[0].new_zeros(*levels[1].shape[:2], self.width)
        stages: list[StageOutput] = []
        for i, stage in enumerate(self.stages):
            stage_noise = None if noise is None else noise[i]
            out = stage(mixed, levels[i + 1], undecided[i], temperature, stage_noise, valid[i + 1], first=i == 0)
            stages.append(out)
            if i + 1 < self.num_stages:
                mixed = pool(out.mixed, self.poolings[i + 1], valid[i + 1])
        if self.per_segment:
            return PAMFNOutput(full_precision(self.head, stages[-1].mixed, valid[-1]), stages)
        return PAMFNOutput(full_precision(self.head, stages[-1].mixed.flatten(1)).flatten(), stages)

    def undecided(self, levels: Sequence[Tensor], valid: Sequence[Tensor | None]) -> list[Undecided | None]:
        """Apply the FusionNets of every stage to the branches' maps; no decision changes their output."""
        undecided: list[Undecided | None] = []
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, FusionStage)
            undecided.append(stage.undecided(levels[i], self.poolings[i], valid[i]))
        return undecided

    def valid_levels(self, segments: int, lengths: Tensor | None) -> list[Tensor | None]:
        """Return the mask (b, t_i) of every level of videos padded to `segments`; None where all are real."""
        if lengths is None:
            return [None] * (1 + self.num_stages)
        masks: list[Tensor | None] = [valid_segments(lengths, segments)]
        for pooling, steps in zip(self.poolings, self.stage_lengths(segments), strict=True):
            lengths = pooled_lengths(lengths, pooling)
            masks.append(None if pooling == "average" else valid_segments(lengths, steps))
        return masks

    def draws(self, keys: Sequence[int], segments: int) -> list[Tensor] | None:
        """Draw Gumbel noise of each stage, [(b, samples, t', choices)]; None for the decoding `argmax`."""
        if self.decoding == "argmax" or not self.samples_decisions:
            return None
        samples = self.samples if self.decoding == "mean" else 1
        return decision_noise(keys, samples, self.stage_lengths(segments), self.choices)

    def predict_scores(
        self, features: Mapping[str, Tensor], lengths: Tensor | None = None, draws: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return test scores under `decoding`, and their standard deviation over samples (0 for `argmax`)."""
        if draws is None:
            return super().predict_scores(features, lengths)
        segments = next(iter(features.values())).shape[1]
        levels, valid = self.branches(features, lengths), self.valid_levels(segments, lengths)
        shared = self.undecided(levels, valid)
        samples = [[stage[:, i] for stage in draws] for i in range(draws[0].shape[1])]
        scores = torch.stack([self.fused(levels, valid, noise, shared).score for noise in samples])
        return scores.mean(dim=0), scores.std(dim=0, correction=0)

    def stage_lengths(self, segments: int) -> list[int]:
        """Return the length of the time axis after each stage."""
        if self.per_segment:
            return [segments] * self.num_stages
        return [segments // 2**i for i in range(1, self.num_stages)] + [1]


def gumbel(shape: Sequence[int], like: Tensor) -> Tensor:
    """Draw standard Gumbel noise (equation 9) in float32."""
    return -torch.empty(*shape, device=like.device).exponential_().log()


def decision_noise(keys: Sequence[int], draws: int, lengths: Sequence[int], choices: int) -> list[Tensor]:
    """Draw Gumbel noise of each stage, [(b, draws, t', choices)]; a video's follows from its key, however padded."""
    noise = [np.empty((len(keys), draws, t, choices), dtype=np.float32) for t in lengths]
    for stage, values in enumerate(noise):
        for row, key in enumerate(keys):
            for draw in range(draws):
                generator = np.random.default_rng([key, stage, draw])
                values[row, draw] = generator.gumbel(size=values.shape[2:])
    return [torch.from_numpy(values) for values in noise]
