"""Layers over channels-last sequences (b, t, c), the layout of every network here.

A `valid` mask (b, t) marks the real segments of videos that were padded to share a batch. With it, padding takes part
in nothing: not in convolutions, not in averages, not in BatchNorm statistics. Without it every segment counts.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pooling = Literal["halve", "average", "none"]
"""What ends a stage: the time axis is halved, averaged away, or kept."""


def poolings(stages: int, per_segment: bool) -> list[Pooling]:
    """Of every stage of a network that scores whole videos, or each of their segments."""
    chosen: list[Pooling] = ["none"] * stages if per_segment else ["halve"] * (stages - 1)
    return chosen if per_segment else [*chosen, "average"]


def valid_segments(lengths: Tensor, segments: int) -> Tensor:
    """Mask (b, t) that is true on the first `lengths[b]` of `segments` positions."""
    return torch.arange(segments, device=lengths.device) < lengths[:, None]


def packing(lengths: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """Padded videos (b, segments) one behind the other instead, with a gap of one between them.

    Rows (n,) of the videos flattened to (b * segments, ...), and which of them are real (1, n).
    """
    offset = torch.arange(segments + 1, device=lengths.device)
    taken = offset <= lengths[:, None]
    rows = offset.clamp_max(segments - 1) + segments * torch.arange(len(lengths), device=lengths.device)[:, None]
    return rows[taken], (offset < lengths[:, None])[taken][None]


def packed(x: Tensor, rows: Tensor) -> Tensor:
    """(b, t, c) -> (1, n, c)."""
    return x.flatten(0, 1)[rows][None]


def unpacked(x: Tensor, real: Tensor, lengths: Tensor, segments: int) -> Tensor:
    """(1, n) -> (b, segments), zeros where nothing is real."""
    padded = x.new_zeros(len(lengths), segments)
    padded[valid_segments(lengths, segments)] = x[real]
    return padded


def pooled(x: Tensor, window: int) -> Tensor:
    """Average over windows of segments, as a 1 x n image pooling: unlike slices it keeps gradients channels-last."""
    image = x.flatten(2).transpose(1, 2).unsqueeze(2)
    return F.avg_pool2d(image, (1, window)).squeeze(2).transpose(1, 2).unflatten(2, x.shape[2:])


def halve(x: Tensor) -> Tensor:
    """Average of neighbouring segments: (b, t, ...) -> (b, t // 2, ...); an odd last segment is dropped."""
    return pooled(x, 2)


def average(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average over (valid) segments: (b, t, ...) -> (b, 1, ...)."""
    if valid is None:
        return pooled(x, x.shape[1])
    mask = valid.reshape(*valid.shape, *[1] * (x.ndim - 2))
    return x.masked_fill(~mask, 0).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)


def pool(x: Tensor, pooling: Pooling, valid: Tensor | None = None) -> Tensor:
    """What ends a stage, over (valid) segments: (b, t, ...) -> (b, t', ...)."""
    if pooling == "none":
        return x
    return average(x, valid) if pooling == "average" else halve(x)


def pooled_lengths(lengths: Tensor, pooling: Pooling) -> Tensor:
    """Numbers of real segments (b,) after a pooling."""
    if pooling == "none":
        return lengths
    return torch.ones_like(lengths) if pooling == "average" else lengths // 2


def image_conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int = 0, groups: int = 1) -> Tensor:
    """Convolution of 1 x n images (b, c, 1, t) by (out, in, 1, kernel)."""
    return F.conv2d(x, weight, bias, padding=(0, padding), groups=groups)


class SequenceConv(nn.Conv1d):
    """Convolution over time on (b, t, c) with zero padding that keeps t; `groups` networks side by side in c.

    The parameters are Conv1d's. It runs as a 1 x n image convolution because that one has a channels-last kernel.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2, groups=groups)

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        x = input if valid is None else input.masked_fill(~valid[..., None], 0)
        image = x.transpose(1, 2).unsqueeze(2)  # (b, c, 1, t), channels-last in memory
        padding = self.kernel_size[0] // 2
        y = image_conv(image, self.weight.unsqueeze(2), self.bias, padding=padding, groups=self.groups)
        return y.squeeze(2).transpose(1, 2)


class Dropout(nn.Dropout):
    """Dropout that draws uniform numbers: on a CPU, torch's own Bernoulli draws are four times slower."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        if self.p == 1:
            return input * 0
        keep = torch.rand(input.shape, device=input.device) >= self.p
        return input * (keep / (1 - self.p)).to(input.dtype)


class Pointwise(nn.Linear):
    """Linear layer on (b, t, c), run as a 1 x 1 image convolution like `SequenceConv`: the faster kernel on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        image = input.transpose(1, 2).unsqueeze(2)
        return image_conv(image, self.weight[:, :, None, None], self.bias).squeeze(2).transpose(1, 2)


EXACT_POSITIONS = 256
"""Up to here BatchNorm runs on contiguous channels: slower, but accurate where few values meet (see `SequenceNorm`)."""


class SequenceNorm(nn.BatchNorm1d):
    """BatchNorm over the (valid) segments of (b, t, c).

    torch's channels-last kernel sums squares in one pass. That is harmless over thousands of segments, but over a
    handful (the last stage has one a video) its rounding is amplified a thousandfold in the gradients, so small inputs
    take the kernel that does not.
    """

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        if valid is not None and self.training:
            output = torch.zeros_like(input)
            output[valid] = self.contiguous(input[valid][None])[0]
            return output
        if input.shape[0] * input.shape[1] <= EXACT_POSITIONS:
            return self.contiguous(input)
        return self.normalised(input.transpose(1, 2).unsqueeze(2)).squeeze(2).transpose(1, 2)

    def contiguous(self, x: Tensor) -> Tensor:
        return self.normalised(x.transpose(1, 2).contiguous()).transpose(1, 2)

    def normalised(self, x: Tensor) -> Tensor:
        """torch's BatchNorm of (b, c, ...) with this module's statistics."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum or 0.0, self.eps)


def full_precision(head: nn.Module, x: Tensor, *masks: Tensor | None) -> Tensor:
    """A head's output in float32 under any autocast: rounded to bfloat16, different scores would tie."""
    with torch.autocast(x.device.type, enabled=False):
        return head(x.to(next(head.parameters()).dtype), *masks)
