"""Video Swin Transformer: features of a clip of frames."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int, int]
"""Time, height, width."""

UNRELATED = -100.0
"""Added to the attention between places that only the cyclic shift has brought together."""


class VideoSwinTransformer(nn.Module):
    """Attention within windows of frames, in four stages that halve height and width.

    Shapes: frames (b, 3, t, h, w) -> (b, 8 c, t / 2, h / 32, w / 32), 1024 channels for VST-B; sizes are rounded up.
    Source: Liu et al., Video Swin Transformer, 2022. Names of parameters are those of the published weights, below
    `backbone.`; the defaults are VST-B.
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depths: Sequence[int] = (2, 2, 18, 2),
        heads: Sequence[int] = (4, 8, 16, 32),
        window: Size = (8, 7, 7),
        patch: Size = (2, 4, 4),
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding(width, patch)
        last = len(depths) - 1
        self.layers = nn.ModuleList(
            Stage(width << i, depth, heads[i], window, merges=i < last) for i, depth in enumerate(depths)
        )
        self.width = width << last
        self.norm = nn.LayerNorm(self.width)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.patch_embed(frames)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).permute(0, 4, 1, 2, 3)


class PatchEmbedding(nn.Module):
    """Patches of 2 frames by 4 x 4 pixels: (b, 3, t, h, w) -> (b, t / 2, h / 4, w / 4, c), zeros at the end."""

    def __init__(self, width: int, patch: Size) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv3d(3, width, kernel_size=patch, stride=patch)
        self.norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor) -> Tensor:
        missing = [-size % patch for size, patch in zip(frames.shape[2:], self.patch, strict=True)]
        frames = F.pad(frames, (0, missing[2], 0, missing[1], 0, missing[0]))
        return self.norm(self.proj(frames).permute(0, 2, 3, 4, 1))


class Stage(nn.Module):
    """Blocks whose windows are shifted by half in every second one, then a merging of patches."""

    def __init__(self, width: int, depth: int, heads: int, window: Size, *, merges: bool) -> None:
        super().__init__()
        half: Size = (window[0] // 2, window[1] // 2, window[2] // 2)
        self.blocks = nn.ModuleList(Block(width, heads, window, half if i % 2 else (0, 0, 0)) for i in range(depth))
        self.downsample = PatchMerging(width) if merges else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.downsample(x)


class PatchMerging(nn.Module):
    """Joins 2 x 2 places: (b, t, h, w, c) -> (b, t, h / 2, w / 2, 2 c)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, 0, x.shape[3] % 2, 0, x.shape[2] % 2))
        corners = [x[:, :, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


class Block(nn.Module):
    """Attention within (shifted) windows and a two-layer perceptron, both with a norm before and a residual."""

    def __init__(self, width: int, heads: int, window: Size, shift: Size) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Perceptron(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def attention(self, x: Tensor) -> Tensor:
        b, *size, c = x.shape
        # a window is no larger than the map, and then is not shifted
        window = tuple(min(whole, here) for whole, here in zip(self.window, size, strict=True))
        shift = tuple(0 if here <= w else s for s, w, here in zip(self.shift, self.window, size, strict=True))
        missing = [-here % w for here, w in zip(size, window, strict=True)]
        x = F.pad(x, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        padded = x.shape[1:4]
        if any(shift):
            x = x.roll([-s for s in shift], dims=(1, 2, 3))
        counts = [here // w for here, w in zip(padded, window, strict=True)]
        split = [b, counts[0], window[0], counts[1], window[1], counts[2], window[2], c]
        windows = x.view(split).permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, counts[0] * counts[1] * counts[2], -1, c)
        windows = self.attn(windows, alike(tuple(padded), window, shift, x.device))  # type: ignore[arg-type]
        x = windows.view(b, *counts, *window, c).permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(b, *padded, c)
        if any(shift):
            x = x.roll(shift, dims=(1, 2, 3))
        return x[:, : size[0], : size[1], : size[2]]


class Perceptron(nn.Module):
    """Two layers, four times as wide between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for every offset in time, height and width."""

    def __init__(self, width: int, heads: int, window: Size) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1) * (2 * window[2] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, windows: Tensor, groups: "Groups") -> Tensor:
        """windows: (b, number of windows, n, c), n places each; groups: windows by the mask that they need."""
        b, count, n, c = windows.shape
        qkv = self.qkv(windows).view(b, count, n, 3, self.heads, c // self.heads).permute(3, 0, 1, 4, 2, 5)
        # windows smaller than the whole one use the corner of its table of offsets, as the weights were trained
        index = offset_index(self.window, windows.device)[:n, :n].reshape(-1)
        bias = self.relative_position_bias_table[index].view(n, n, self.heads).permute(2, 0, 1).to(qkv.dtype)
        out = torch.empty_like(qkv[0])
        for chosen, mask in groups:
            q, k, v = (x[:, chosen].flatten(0, 1) for x in qkv)
            added = bias if mask is None else bias + mask.to(bias.dtype)
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=added[None])
            out[:, chosen] = attended.unflatten(0, (b, -1))
        return self.proj(out.transpose(2, 3).reshape(b, count, n, c))


@lru_cache(maxsize=8)
def offset_index(window: Size, device: torch.device) -> Tensor:
    """Return (n, n), the row of the bias table for every pair of places of a window."""
    axes = torch.meshgrid(*(torch.arange(size) for size in window), indexing="ij")
    places = torch.stack(axes).flatten(1)
    offsets = (places[:, :, None] - places[:, None, :]) + torch.tensor(window)[:, None, None] - 1
    strides = torch.tensor([(2 * window[1] - 1) * (2 * window[2] - 1), 2 * window[2] - 1, 1])
    return (offsets * strides[:, None, None]).sum(0).to(device)


Groups = list[tuple[Tensor, Tensor | None]]
"""Indices of windows, and the mask (n, n) that is added to their attention."""


@lru_cache(maxsize=32)
def alike(size: Size, window: Size, shift: Size, device: torch.device) -> Groups:
    """Group the windows of a shifted map by their mask: there are eight kinds at most."""
    counts = [here // w for here, w in zip(size, window, strict=True)]
    everything = torch.arange(counts[0] * counts[1] * counts[2], device=device)
    if not any(shift):
        return [(everything, None)]
    groups: Groups = []
    grid = everything.view(counts)
    for last in product(*((False, True) if s else (False,) for s in shift)):
        # along a shifted axis the last window holds what was moved there from the start
        part = [
            slice(-1, None) if end else slice(None, -1) if s else slice(None)
            for end, s in zip(last, shift, strict=True)
        ]
        chosen = grid[part[0], part[1], part[2]].reshape(-1)
        if not len(chosen):
            continue
        moved = [
            torch.arange(w) >= w - s if end else torch.zeros(w, dtype=torch.bool)
            for w, s, end in zip(window, shift, last, strict=True)
        ]
        kinds = [m.long() * place for m, place in zip(moved, (4, 2, 1), strict=True)]
        kind = (kinds[0][:, None, None] + kinds[1][:, None] + kinds[2]).reshape(-1)
        apart = kind[:, None] != kind[None, :]
        mask = (apart * UNRELATED).to(device) if apart.any() else None
        groups.append((chosen, mask))
    return groups
