"""MSAF: multimodal split attention fusion (Su, Hu, Li, Cao, 2020) between the branches of the modalities."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pamfn.models.branch import Embedding, ResidualBlock
from pamfn.models.head import RegressionHead
from pamfn.models.layers import average, full_precision, pool, poolings, real_segments
from pamfn.models.network import Network, ScoreOutput
from pamfn.models.ranges import Layers, Probability, Width

STAGES = 3


class SplitAttention(nn.Module):
    """Weights for the channels of all modalities, computed from the sum of their blocks of channels.

    x: {modality: (b, t, d)}
    valid: (b, t) or None
    returns: weights (b, m, d), floor + (1 - floor) w; each w sums to 1 over the modalities and the blocks of each

    Raises ValueError when d is not divisible by the width of a block. With one modality and one block all are 1.
    """

    def __init__(self, modalities: Sequence[str], d_model: int, block: int, reduction: int, floor: float) -> None:
        super().__init__()
        if min(block, reduction) < 1 or d_model % block or block % reduction:
            raise ValueError(
                f"d_model {d_model}, block {block}, reduction {reduction}: each must divide the one before"
            )
        if not 0 <= floor < 1:
            raise ValueError(f"floor is at least 0 and below 1, not {floor}")
        self.block, self.floor = block, floor
        self.squeeze = nn.Sequential(
            nn.Linear(block, block // reduction), nn.BatchNorm1d(block // reduction), nn.ReLU()
        )
        self.excite = nn.ModuleDict({m: nn.Linear(block // reduction, d_model) for m in modalities})

    def forward(self, x: Mapping[str, Tensor], valid: Tensor | None) -> Tensor:
        over_time = torch.stack([average(x[m], valid).squeeze(1) for m in self.excite], dim=1)
        common = self.squeeze(over_time.unflatten(2, (-1, self.block)).sum(dim=(1, 2)))
        logits = torch.stack([layer(common) for layer in self.excite.values()], dim=1)  # (b, m, d)
        blocks = logits.unflatten(2, (-1, self.block)).flatten(1, 2).softmax(dim=1)
        weights = blocks.unflatten(1, (len(self.excite), -1)).flatten(2)
        return self.floor + (1 - self.floor) * weights


class MSAF(Network):
    """PAMFN's branches from scratch, whose features are weighed together after some stages, and one head on their ends.

    features: {modality: (b, t, c_m)}, t at least 4
    lengths: (b,) number of real segments of each video; None where all t are real
    returns: score (b,) in [0, 1]

    Source: the authors' code, anita-hu/MSAF, for the attention. Its place and the head are our choice, of the size
    that PAMFN's paper gives (docs/methods.md).

    Args:
        widths: {modality: feature width}, two or more.
        fusion_stages: those of the three stages behind which features are weighed.
        block: number of channels of a block.
        reduction: the attention's hidden layer is block / reduction wide.
        floor: least weight of a channel.
        join: how the branches' last features reach the head.
        head_reduction: the head's hidden layer is d_model / head_reduction wide.
    """

    min_segments = 2 ** (STAGES - 1)

    def __init__(
        self,
        *,
        widths: Mapping[str, int],
        d_model: Width = 256,
        hidden: Width = 512,
        dropout: Probability = 0.3,
        fusion_stages: Sequence[Layers] = (2,),
        block: Width = 256,
        reduction: Width = 4,
        floor: Probability = 0.0,
        join: Literal["concat", "sum"] = "concat",
        head_reduction: Width = 2,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"MSAF reads two or more modalities, not {', '.join(widths)}: choose e.g. [rgb,audio]")
        if not set(fusion_stages) <= set(range(1, STAGES + 1)):
            raise ValueError(f"fusion_stages are among 1 to {STAGES}, not {list(fusion_stages)}")
        self.join = join
        self.embeddings = nn.ModuleDict({m: Embedding(c, hidden, d_model, dropout) for m, c in widths.items()})
        self.blocks = nn.ModuleList(nn.ModuleDict({m: ResidualBlock(d_model) for m in widths}) for _ in range(STAGES))
        self.attention = nn.ModuleDict(
            {str(i): SplitAttention(list(widths), d_model, block, reduction, floor) for i in sorted(set(fusion_stages))}
        )
        width = d_model * len(widths) if join == "concat" else d_model
        self.head = RegressionHead(width, d_model, head_reduction, dropout=0.0)

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at the head's own rate."""
        return list(self.head.parameters())

    def forward(self, features: Mapping[str, Tensor], lengths: Tensor | None = None) -> ScoreOutput:
        valid = real_segments(next(iter(features.values())), lengths)
        x = {m: embedding(features[m], valid) for m, embedding in self.embeddings.items()}
        for i, (blocks, pooling) in enumerate(zip(self.blocks, poolings(STAGES, False), strict=True), start=1):
            assert isinstance(blocks, nn.ModuleDict)
            x = {m: pool(block(x[m], valid), pooling, valid) for m, block in blocks.items()}
            lengths = None if lengths is None or i == STAGES else lengths // 2
            valid = real_segments(next(iter(x.values())), lengths)
            if str(i) in self.attention:
                weights = self.attention[str(i)](x, valid)
                x = {m: y * weights[:, None, j] for j, (m, y) in enumerate(x.items())}
        ends = torch.stack([y.squeeze(1) for y in x.values()], dim=1)  # (b, m, d)
        joined = ends.flatten(1) if self.join == "concat" else ends.sum(dim=1)
        return ScoreOutput(full_precision(self.head, joined).flatten())
