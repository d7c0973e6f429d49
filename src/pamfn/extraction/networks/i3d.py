"""I3D: features of a clip of optical flow (or frames)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIXED: dict[str, Sequence[int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
"""Channels of every mixed unit: of its four branches, with those of the 1 x 1 before the second and third."""

Kernel = tuple[int, int, int]


class InflatedInception(nn.Module):
    """Inception-v1 with kernels in time as well.

    Shapes: clip (b, 2, t, h, w) -> (b, 1024, t', 1, 1), t' = 3 for 32 frames of 224 x 224.
    Source: Carreira and Zisserman, 2017; padding as TensorFlow's SAME. Names of parameters are those of pytorch-i3d.

    channels: 2 for flow, 3 for frames. scale: divides all widths, for tests. eps: of BatchNorm.
    """

    def __init__(self, *, channels: int = 2, scale: int = 1, eps: float = 1e-3) -> None:
        super().__init__()
        stem, width = 64 // scale, 192 // scale
        units: dict[str, nn.Module] = {
            "Conv3d_1a_7x7": Unit(channels, stem, (7, 7, 7), eps, stride=(2, 2, 2)),
            "MaxPool3d_2a_3x3": Pool((1, 3, 3), (1, 2, 2)),
            "Conv3d_2b_1x1": Unit(stem, stem, (1, 1, 1), eps),
            "Conv3d_2c_3x3": Unit(stem, width, (3, 3, 3), eps),
            "MaxPool3d_3a_3x3": Pool((1, 3, 3), (1, 2, 2)),
        }
        pools = {"Mixed_4b": ("MaxPool3d_4a_3x3", Pool((3, 3, 3), (2, 2, 2)))}
        pools["Mixed_5b"] = ("MaxPool3d_5a_2x2", Pool((2, 2, 2), (2, 2, 2)))
        for name, sizes in MIXED.items():
            if name in pools:
                units[pools[name][0]] = pools[name][1]
            scaled = [size // scale for size in sizes]
            units[name] = Mixed(width, scaled, eps)
            width = scaled[0] + scaled[2] + scaled[4] + scaled[5]
        self.width = width
        for name, unit in units.items():
            self.add_module(name, unit)

    def forward(self, clip: Tensor) -> Tensor:
        for unit in self.children():
            clip = unit(clip)
        return F.avg_pool3d(clip, (2, 7, 7), stride=1)


class Unit(nn.Module):
    """Convolution without bias, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Kernel, eps: float, stride: Kernel = (1, 1, 1)) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv3d(padded(x, self.kernel, self.stride))), inplace=True)


class Pool(nn.Module):
    """Largest value; padding is zeros, and what is pooled is not negative."""

    def __init__(self, kernel: Kernel, stride: Kernel) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(padded(x, self.kernel, self.stride), self.kernel, self.stride)


class Mixed(nn.Module):
    """Four branches side by side: 1 x 1; 3 x 3 after 1 x 1, twice; 1 x 1 after pooling."""

    def __init__(self, inputs: int, sizes: Sequence[int], eps: float) -> None:
        super().__init__()
        self.b0 = Unit(inputs, sizes[0], (1, 1, 1), eps)
        self.b1a = Unit(inputs, sizes[1], (1, 1, 1), eps)
        self.b1b = Unit(sizes[1], sizes[2], (3, 3, 3), eps)
        self.b2a = Unit(inputs, sizes[3], (1, 1, 1), eps)
        self.b2b = Unit(sizes[3], sizes[4], (3, 3, 3), eps)
        self.b3a = Pool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit(inputs, sizes[5], (1, 1, 1), eps)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


def padded(x: Tensor, kernel: Kernel, stride: Kernel) -> Tensor:
    """Pad with zeros so that every stride has a window; the smaller half goes in front."""
    pads: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max(k - (size % s or s), 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads) if any(pads) else x
