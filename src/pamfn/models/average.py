"""The mean of several networks, each brought to one scale."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pamfn.models.network import Network, ScoreOutput


class AverageNetwork(Network):
    """Mean of the scores, or of the logits' probabilities, of several networks.

    features: {stream: (b, t, c)} of all streams that any of them reads
    returns: `ScoreOutput`; where `per_segment`, logits (b, t) of the mean probability

    Args:
        networks: all of them score videos, or all of them segments.
        streams: those that each network reads, in order.
        scale, shift: (m,) a network's score counts as scale * score + shift; not for segments.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        networks: Sequence[Network],
        streams: Sequence[Sequence[str]],
        scale: Sequence[float],
        shift: Sequence[float],
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.streams = [list(names) for names in streams]
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float64))
        self.min_segments = max(network.min_segments for network in networks)
        self.per_segment = networks[0].per_segment

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> ScoreOutput:
        scores = [
            network({m: features[m] for m in names}, lengths).score
            for network, names in zip(self.networks, self.streams, strict=True)
        ]
        if self.per_segment:
            return ScoreOutput(torch.stack([score.sigmoid() for score in scores]).mean(dim=0).logit())
        stacked = torch.stack(scores, dim=1)
        return ScoreOutput((stacked * self.scale.to(stacked) + self.shift.to(stacked)).mean(dim=1))
