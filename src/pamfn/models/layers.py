"""Layers over channels-last sequences (b, t, c), the layout of every network here.

A `valid` mask (b, t) marks the real segments of videos that were padded to share a batch. With it, padding takes part
in nothing: not in convolutions, not in averages, not in BatchNorm statistics. Without it every segment counts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def valid_segments(lengths: Tensor, segments: int) -> Tensor:
    """Mask (b, t) that is true on the first `lengths[b]` of `segments` positions."""
    return torch.arange(segments, device=lengths.device) < lengths[:, None]


def halve(x: Tensor) -> Tensor:
    """Average of neighbouring segments: (b, t, ...) -> (b, t // 2, ...); an odd last segment is dropped."""
    end = x.shape[1] // 2 * 2
    return (x[:, 0:end:2] + x[:, 1:end:2]) / 2


def average(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average over (valid) segments: (b, t, ...) -> (b, 1, ...)."""
    if valid is None:
        return x.mean(dim=1, keepdim=True)
    mask = valid.reshape(*valid.shape, *[1] * (x.ndim - 2))
    return x.masked_fill(~mask, 0).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)


def pool(x: Tensor, *, last: bool, valid: Tensor | None = None) -> Tensor:
    """What ends a stage: halve the time axis, or average all of it after the last stage."""
    return average(x, valid) if last else halve(x)


class SequenceConv(nn.Conv1d):
    """Convolution over time on (b, t, c) with zero padding that keeps t; `groups` networks side by side in c.

    The parameters are Conv1d's. It runs as a 1 x n image convolution because that one has a channels-last kernel.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, groups=groups)

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        x = input if valid is None else input.masked_fill(~valid[..., None], 0)
        image = x.transpose(1, 2).unsqueeze(2)  # (b, c, 1, t), channels-last in memory
        weight = self.weight.unsqueeze(2)
        padding = (0, self.kernel_size[0] // 2)
        y = F.conv2d(image, weight, self.bias, padding=padding, groups=self.groups)
        return y.squeeze(2).transpose(1, 2)


class SequenceNorm(nn.BatchNorm1d):
    """BatchNorm over the (valid) segments of (b, t, c)."""

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        if valid is not None and self.training:
            output = torch.zeros_like(input)
            output[valid] = super().forward(input[valid])
            return output
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        image = input.transpose(1, 2).unsqueeze(2)
        mean, var = self.running_mean, self.running_var
        y = F.batch_norm(image, mean, var, self.weight, self.bias, self.training, self.momentum or 0.0, self.eps)
        return y.squeeze(2).transpose(1, 2)


def full_precision(head: nn.Module, x: Tensor) -> Tensor:
    """A head's output in float32 under any autocast: rounded to bfloat16, different scores would tie."""
    with torch.autocast(x.device.type, enabled=False):
        return head(x.float())
