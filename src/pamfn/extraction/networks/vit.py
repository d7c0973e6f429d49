"""Vision transformers: the Audio Spectrogram Transformer and the video network of Unmasked Teacher."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pamfn.extraction.networks.video_swin import Perceptron

EPS = 1e-6


class Attention(nn.Module):
    """Multi-head attention of all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    """Attention and a two-layer perceptron, both with a norm before and a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width, eps=EPS), Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width, eps=EPS), Perceptron(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbedding(nn.Module):
    """Non-overlapping or overlapping patches as tokens: (b, n, c)."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.proj = convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class AudioSpectrogramTransformer(nn.Module):
    """Patches of 16 x 16 every 10 bins and frames of a spectrogram, with a class and a distillation token.

    Shapes: spectrogram (b, t, 128), t of 16 to 1024 frames -> (b, width), the mean of both tokens.
    Source: Gong, Chung and Glass, 2021. Names of parameters are those of the published weights, below `module.v.`; the
    defaults are AST-B. Fewer than 1024 frames use the middle of the position table, as the authors do.
    """

    ROWS, COLUMNS = 12, 101

    def __init__(self, *, width: int = 768, depth: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.width = width
        self.patch_embed = PatchEmbedding(nn.Conv2d(1, width, 16, stride=10))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 2 + self.ROWS * self.COLUMNS, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, spectrogram: Tensor) -> Tensor:
        b, frames, _ = spectrogram.shape
        patches = self.patch_embed(spectrogram.transpose(1, 2)[:, None])
        tokens = torch.cat([self.cls_token.expand(b, -1, -1), self.dist_token.expand(b, -1, -1), patches], dim=1)
        x = tokens + self.positions((frames - 16) // 10 + 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, :2].mean(dim=1)

    def positions(self, columns: int) -> Tensor:
        """Return the position table of a spectrogram with so many columns of patches: (1, 2 + 12 columns, width)."""
        grid = self.pos_embed[:, 2:].unflatten(1, (self.ROWS, self.COLUMNS))
        first = self.COLUMNS // 2 - columns // 2 if columns < self.COLUMNS else 0
        return torch.cat([self.pos_embed[:, :2], grid[:, :, first : first + columns].flatten(1, 2)], dim=1)


class UnmaskedTeacher(nn.Module):
    """Patches of 16 x 16 pixels of every frame, and the mean of all tokens.

    Shapes: frames (b, 3, f, 224, 224), f = 8 or 16 -> (b, width).
    Source: Li et al., Unmasked Teacher, 2023. Names of parameters are those of the published weights, but for the two
    biases of queries and values, which are one here; the defaults are ViT-L. The positions of 8 frames are a fixed
    sinusoid, those of 16 are learned.
    """

    def __init__(self, *, frames: int = 16, width: int = 1024, depth: int = 24, heads: int = 16) -> None:
        super().__init__()
        self.width = width
        self.patch_embed = PatchEmbedding(nn.Conv3d(3, width, (1, 16, 16), stride=(1, 16, 16)))
        table = sinusoid(frames * 14 * 14, width)
        if frames == 8:
            self.register_buffer("pos_embed", table, persistent=False)
        else:
            self.pos_embed = nn.Parameter(table)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.fc_norm = nn.LayerNorm(width, eps=EPS)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.patch_embed(frames) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x.mean(dim=1))


def sinusoid(count: int, width: int) -> Tensor:
    """Return (1, count, width): sines at even and cosines at odd channels. Source: Vaswani et al., 2017."""
    exponents = torch.arange(width, dtype=torch.float64) // 2 * 2 / width
    angles = torch.arange(count, dtype=torch.float64)[:, None] / 10000.0**exponents
    angles[:, 0::2], angles[:, 1::2] = angles[:, 0::2].sin(), angles[:, 1::2].cos()
    return angles.float()[None]
