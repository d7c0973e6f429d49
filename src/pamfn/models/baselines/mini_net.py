"""MINI-Net: highlights learned from whole videos alone, by multiple-instance ranking (Hong et al., ECCV 2020)."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.models.baselines.streams import two_widths
from pamfn.models.layers import full_precision, valid_segments
from pamfn.models.network import BagNetwork
from pamfn.models.ranges import Count, Probability, Width


class MiniNetOutput(NamedTuple):
    """Output of MINI-Net.

    score: (b, t) logits, whose softmax over a video says which clips stand for it
    bag: (b, 2) logits of whether the video is of the topic
    """

    score: Tensor
    bag: Tensor


class MiniNet(BagNetwork):
    """Clips are weighed against each other, and their weighted sum tells videos of a topic from others.

    features: {modality: (b, t, c_m)} of a visual and an audio stream
    lengths: (b,) number of real clips of each video; None where all t are real
    returns: `MiniNetOutput`, whose scores compare clips of one video only

    It never sees a clip's label: it is trained on bags, half of them of other topics (`data.bags`).
    Source: the authors' code, xuantengh/MINI-Net. What differs here: docs/methods.md.

    Args:
        widths: {modality: feature width} of the two, the visual one first.
        modules: number of parallel fusions of both.
        narrow: width of each fusion's output.
    """

    per_segment = True

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        d_model: Width = 128,
        modules: Count = 4,
        narrow: Width = 32,
        dropout: Probability = 0.5,
    ) -> None:
        super().__init__()
        if d_model < 2:
            raise ValueError(f"MINI-Net halves d_model: it must be at least 2, not {d_model}")
        if modules * narrow != d_model:
            raise ValueError(f"modules x narrow is added to d_model {d_model}, and is {modules * narrow}")
        (visual, audio), self.streams = two_widths(widths, "MINI-Net"), list(widths)
        self.visual = nn.Sequential(nn.Linear(visual, d_model), nn.ReLU(), nn.Dropout(dropout))
        self.audio = nn.Sequential(nn.Linear(audio, d_model), nn.ReLU())
        self.fusions = nn.ModuleList(
            nn.Sequential(
                nn.Linear(2 * d_model, d_model), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_model, narrow), nn.ReLU()
            )
            for _ in range(modules)
        )
        self.scorer = nn.Sequential(nn.Linear(d_model, d_model // 2), nn.ReLU(), nn.Linear(d_model // 2, 1))
        self.classifier = nn.Linear(d_model, 2)

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> MiniNetOutput:
        visual, audio = (
            network(features[m]) for network, m in zip((self.visual, self.audio), self.streams, strict=True)
        )
        both = torch.cat([visual, audio], dim=-1)
        fused = torch.cat([fusion(both) for fusion in self.fusions], dim=-1) + visual
        score = full_precision(self.scorer, fused).squeeze(-1)
        if lengths is not None:
            score = score.masked_fill(~valid_segments(lengths, score.shape[1]), -1e9)
        bag = torch.einsum("bt,btd->bd", score.softmax(dim=1), fused.to(score.dtype))
        return MiniNetOutput(score, full_precision(self.classifier, bag))

    def bag_loss(self, output: MiniNetOutput, target: Tensor) -> Tensor:
        """Return the cross-entropy of the bags plus a hinge between the highest clip weights of every pair of bags.

        target: (2 b,) the b bags of the topic first
        """
        positive, negative = output.score.softmax(dim=1).amax(dim=1).chunk(2)
        return F.cross_entropy(output.bag, target.long()) + F.relu(1 - positive + negative).mean()
