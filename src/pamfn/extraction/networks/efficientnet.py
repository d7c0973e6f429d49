"""EfficientNet-Lite0: a small network for pictures."""

import torch.nn.functional as F
from torch import Tensor, nn

STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride of the first block, expansion, channels."""


class Convolution(nn.Conv2d):
    """Convolution without bias, padded as TensorFlow's SAME: the larger half at the end."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels_in, channels, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        sides = []
        for size in (input.shape[3], input.shape[2]):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [missing // 2, missing - missing // 2]
        return super().forward(F.pad(input, sides) if any(sides) else input)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Inverted residual: a wide depthwise convolution between two pointwise ones, (b, c, h, w)."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels_in * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = Convolution(channels_in, wide, 1), norm(wide)
        self._depthwise_conv, self._bn1 = Convolution(wide, wide, kernel, stride, groups=wide), norm(wide)
        self._project_conv, self._bn2 = Convolution(wide, channels, 1), norm(channels)
        self.expands, self.residual = expansion > 1, stride == 1 and channels == channels_in

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its head: pictures (b, n, 3, 224, 224) -> the mean of their last maps, (b, n, 1280).

    Parameters have the names of the public file. Source: Tan and Le, 2019; Lite is without squeeze-and-excitation, and
    with ReLU6 for swish.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = Convolution(3, 32, 3, 2), norm(32)
        blocks, channels_in = [], 32
        for count, kernel, stride, expansion, channels in STAGES:
            for i in range(count):
                blocks.append(Block(channels_in, channels, kernel, stride if i == 0 else 1, expansion))
                channels_in = channels
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = Convolution(320, 1280, 1), norm(1280)

    def forward(self, x: Tensor) -> Tensor:
        b, n = x.shape[:2]
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x.flatten(0, 1)))))
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3)).unflatten(0, (b, n))
