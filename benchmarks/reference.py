"""PAMFN written out plainly from the paper and its released code: the yardstick for numbers and for speed.

One module per FusionNet, one Python loop per set of things, `Conv1d` over (b, c, t), a key and a value for every token.
Nothing here is meant to be fast. Names of weights are those of the released state dicts, so these load directly.
Shapes use b videos, t segments, c feature width, d model width, k FusionNets, m modalities.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = 3
MASKED = -1e9


class Branch(nn.Module):
    """One modality alone: features (b, t, c) -> score (b,), maps (b, d, t), (b, d, t//2), (b, d, t//4), (b, d, 1)."""

    def __init__(self, width: int, *, d_model: int = 256, hidden: int = 512, embedding_dropout: float = 0.3) -> None:
        super().__init__()
        self.embedding = nn.Sequential(
            nn.Conv1d(width, hidden, 1),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Conv1d(hidden, d_model, 1),
            nn.BatchNorm1d(d_model),
            nn.ReLU(),
            nn.Dropout(embedding_dropout),
        )
        self.stage1 = ResidualBlock(d_model, nn.AvgPool1d(2))
        self.stage2 = ResidualBlock(d_model, nn.AvgPool1d(2))
        self.stage3 = ResidualBlock(d_model, nn.AdaptiveAvgPool1d(1))
        self.fc = nn.Sequential(nn.Dropout(0.5), nn.Conv1d(d_model, 1, 1), nn.Sigmoid())

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = [self.embedding(features.transpose(1, 2))]
        for stage in (self.stage1, self.stage2, self.stage3):
            maps.append(stage(maps[-1]))
        return self.fc(maps[-1]).flatten(), maps


class ResidualBlock(nn.Module):
    """pool(x + two convolutions of x), (b, d, t) -> (b, d, pooled t)."""

    def __init__(self, d_model: int, pool: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(d_model, d_model, 3, padding=1), nn.BatchNorm1d(d_model), nn.GELU())
        self.conv2 = nn.Sequential(nn.Conv1d(d_model, d_model, 3, padding=1), nn.BatchNorm1d(d_model), nn.GELU())
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x + self.conv2(self.conv1(x)))


class NegativeAttention(nn.Module):
    """One query per time step over n tokens of the same time step; the scores are negated.

    Shapes: query (b, d, t), tokens (b, n, d, t), mask (b, n, t) or none -> (b, d, t). `norm` is never applied.
    """

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.linear_layers = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(3))
        self.norm = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        b, n, d, t = tokens.shape
        to_query, to_key, to_value = self.linear_layers
        tokens = tokens.permute(0, 3, 1, 2)
        q = to_query(query.transpose(1, 2)).view(b, t, 1, self.heads, -1).transpose(2, 3)
        k = to_key(tokens).view(b, t, n, self.heads, -1).transpose(2, 3)
        v = to_value(tokens).view(b, t, n, self.heads, -1).transpose(2, 3)
        scores = -q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)
        if mask is not None:
            scores = scores + mask.transpose(1, 2)[:, :, None, None, :]
        out = self.dropout(scores.softmax(-1)) @ v
        return out.transpose(2, 3).reshape(b, t, d).transpose(1, 2)


class SpecificFeatureDecoder(nn.Module):
    """MSFD: what the modalities hold and the mixed branch does not; c (b, d, t), m maps (b, d, t) -> (b, d, t)."""

    def __init__(self, d_model: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Conv1d(d_model, d_model, 1))
        self.fusion_s = NegativeAttention(d_model, heads, dropout)

    def forward(self, mixed: Tensor, current: list[Tensor]) -> Tensor:
        return self.fusion_s(self.proj(mixed), torch.stack(current, 1))


class AdaptiveFusion(nn.Module):
    """k FusionNets, the policy that enables the first u of them, and CMFD that reads what they give.

    Shapes: c and s (b, d, t'), m previous maps (b, d, t), noise (b, k, t') or none -> f (b, d, t'); t' is t pooled.
    """

    def __init__(self, *, modalities: int, d_model: int, k: int, heads: int, dropout: float, pool: nn.Module) -> None:
        super().__init__()
        self.proj1 = nn.ModuleList(
            nn.Sequential(nn.Conv1d(d_model, d_model, 1), nn.BatchNorm1d(d_model), nn.ReLU(), nn.Conv1d(d_model, k, 1))
            for _ in range(modalities)
        )
        self.ffn = nn.ModuleList(two_convolutions(d_model, d_model) for _ in range(k))
        self.policy = nn.Sequential(nn.Conv1d(modalities * d_model, k, 1), pool)
        self.proj2 = nn.Sequential(nn.Conv1d(2 * d_model, d_model, 1))
        self.fusion_f = NegativeAttention(d_model, heads, dropout)
        self.pool = pool
        self.register_buffer("masks", torch.full((k, k), MASKED).triu(1), persistent=False)

    def forward(self, c: Tensor, s: Tensor, previous: list[Tensor], tau: Tensor, noise: Tensor | None) -> Tensor:
        decision = self.decide(self.policy(torch.cat(previous, 1)), tau, noise)
        mask = torch.einsum("bkt,kj->bjt", decision.detach(), self.masks) + decision - decision.detach()
        weights = torch.stack([proj(x) for proj, x in zip(self.proj1, previous, strict=True)], 1).softmax(1)
        fused = []
        for k, convolutions in enumerate(self.ffn):
            mixture = sum(weights[:, m, k, None] * x for m, x in enumerate(previous))
            fused.append(self.pool(mixture + convolutions(mixture)))
        query = self.proj2(torch.cat([c, s], 1))
        return self.fusion_f(-query, torch.stack(fused, 1), mask)

    def decide(self, logits: Tensor, tau: Tensor, noise: Tensor | None) -> Tensor:
        """One-hot over k: logits (b, k, t) -> (b, k, t), whose gradient is that of softmax((logits + noise) / tau)."""
        if noise is None:
            noise = -torch.empty_like(logits).exponential_().log() if self.training else torch.zeros_like(logits)
        soft = ((logits + noise) / tau).softmax(1)
        hard = F.one_hot((logits + noise).argmax(1), logits.shape[1]).transpose(1, 2).to(soft.dtype)
        return hard - soft.detach() + soft


class MixedStage(nn.Module):
    """One stage of the mixed-modality branch: c (b, 3*d, t'), maps before and after it -> [c; s; f] (b, 3*d, t')."""

    def __init__(
        self, *, modalities: int, d_model: int, k: int, heads: tuple[int, int], dropout: float, pool: nn.Module
    ) -> None:
        super().__init__()
        self.short_cut = nn.Sequential(nn.Conv1d(3 * d_model, d_model, 1), nn.BatchNorm1d(d_model), nn.ReLU())
        self.conv = two_convolutions(3 * d_model, d_model)
        self.s_fusion = SpecificFeatureDecoder(d_model, heads[0], dropout)
        self.f_fusion = AdaptiveFusion(
            modalities=modalities, d_model=d_model, k=k, heads=heads[1], dropout=dropout, pool=pool
        )

    def forward(
        self, c: Tensor, previous: list[Tensor], current: list[Tensor], tau: Tensor, noise: Tensor | None
    ) -> Tensor:
        c = self.conv(c) + self.short_cut(c)
        s = self.s_fusion(c, current)
        return torch.cat([c, s, self.f_fusion(c, s, previous, tau, noise)], 1)


class ReferencePAMFN(nn.Module):
    """The whole network in the released code's reading: doubly negated CMFD, one-layer policy, branches in train mode.

    Shapes: features {modality: (b, t, c)}, noise (b, k, t//2), (b, k, t//4), (b, k, 1) -> score (b,) in [0, 1].
    Without noise the policy takes the largest logit in evaluation and draws Gumbel noise in training.
    Modalities outside `finetune` get no gradient, but their BatchNorms and dropouts stay in train mode.
    """

    def __init__(
        self,
        *,
        widths: dict[str, int],
        d_model: int = 256,
        hidden: int = 512,
        num_fusion_nets: int = 6,
        msfd_heads: int = 1,
        cmfd_heads: int = 1,
        head_reduction: int = 2,
        feature_dropout: float = 0.5,
        attention_dropout: float = 0.1,
        embedding_dropout: float = 0.3,
        head_dropout: float = 0.0,
        fixed_dropout: float = 0.5,
        finetune: tuple[str, ...] = ("audio",),
    ) -> None:
        super().__init__()
        self.modalities = list(widths)
        self.finetune = finetune
        for name, width in widths.items():
            branch = Branch(width, d_model=d_model, hidden=hidden, embedding_dropout=embedding_dropout)
            self.add_module(f"model_{name[0]}", branch)
        for i in range(1, STAGES + 1):
            stage = MixedStage(
                modalities=len(widths),
                d_model=d_model,
                k=num_fusion_nets,
                heads=(msfd_heads, cmfd_heads),
                dropout=attention_dropout,
                pool=nn.AdaptiveAvgPool1d(1) if i == STAGES else nn.AvgPool1d(2),
            )
            self.add_module(f"stage{i}", stage)
        self.dropout = nn.Dropout(feature_dropout)
        self.c = nn.Parameter(torch.zeros(3 * d_model), requires_grad=False)
        self.tau = nn.Parameter(torch.tensor(10.0))
        self.fc = nn.Sequential(
            nn.Dropout(head_dropout),
            nn.Conv1d(3 * d_model, d_model // head_reduction, 1),
            nn.BatchNorm1d(d_model // head_reduction),
            nn.ReLU(),
            nn.Dropout(fixed_dropout),
            nn.Conv1d(d_model // head_reduction, 1, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: dict[str, Tensor], noise: list[Tensor] | None = None) -> Tensor:
        maps = []
        for name in self.modalities:
            _, found = self.get_submodule(f"model_{name[0]}")(features[name])
            maps.append([self.dropout(x if name in self.finetune else x.detach()) for x in found])
        b, _, t = maps[0][1].shape
        c = self.c[None, :, None].expand(b, -1, t)
        for i in range(1, STAGES + 1):
            previous, current = [x[i - 1] for x in maps], [x[i] for x in maps]
            c = self.get_submodule(f"stage{i}")(c, previous, current, self.tau, noise[i - 1] if noise else None)
            if i < STAGES:
                c = F.avg_pool1d(c, 2) if i < STAGES - 1 else F.adaptive_avg_pool1d(c, 1)
        return self.fc(c).flatten()


def two_convolutions(width: int, d_model: int) -> nn.Sequential:
    """Twice: convolution over three steps, BatchNorm, ReLU; (b, width, t) -> (b, d_model, t)."""
    return nn.Sequential(
        nn.Conv1d(width, d_model, 3, padding=1),
        nn.BatchNorm1d(d_model),
        nn.ReLU(),
        nn.Conv1d(d_model, d_model, 3, padding=1),
        nn.BatchNorm1d(d_model),
        nn.ReLU(),
    )
