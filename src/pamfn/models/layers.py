"""Layers over channels-last sequences (b, t, c), the layout of every network here.

A `valid` mask (b, t) marks the real segments of videos that were padded to share a batch. With it, padding takes part
in nothing: not in convolutions, not in averages, not in BatchNorm statistics. Without it every segment counts.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pooling = Literal["halve", "average", "none"]
"""What a stage does to the time axis at its end: halve it, average it away, or keep it."""


def poolings(stages: int, per_segment: bool) -> list[Pooling]:
    """Return the pooling of every stage of a network that scores whole videos, or each of their segments."""
    if per_segment:
        return ["none"] * stages
    halving: list[Pooling] = ["halve"] * (stages - 1)
    return [*halving, "average"]


def valid_segments(lengths: Tensor, segments: int) -> Tensor:
    """Return a mask (b, segments) that is true on the first `lengths[b]` positions."""
    return torch.arange(segments, device=lengths.device) < lengths[:, None]


def real_segments(x: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Return the mask (b, t) of the real segments of x (b, t, ...); None where all are real."""
    return None if lengths is None else valid_segments(lengths, x.shape[1])


def packing(lengths: Tensor, segments: int) -> tuple[Tensor, Tensor]:
    """Return how padded videos are put one behind the other, with a gap of one segment between them.

    rows: (n,) positions in the videos flattened to (b * segments, ...)
    real: (1, n) mask, false in the gaps
    """
    offset = torch.arange(segments + 1, device=lengths.device)
    taken = offset <= lengths[:, None]
    rows = offset.clamp_max(segments - 1) + segments * torch.arange(len(lengths), device=lengths.device)[:, None]
    return rows[taken], (offset < lengths[:, None])[taken][None]


def packed(x: Tensor, rows: Tensor) -> Tensor:
    """Put videos (b, t, c) one behind the other, (1, n, c); `rows` as `packing` returns them."""
    return x.flatten(0, 1)[rows][None]


def unpacked(x: Tensor, real: Tensor, lengths: Tensor, segments: int) -> Tensor:
    """Undo `packed` for one value a segment: (1, n) -> (b, segments), zeros where nothing is real."""
    padded = x.new_zeros(len(lengths), segments)
    padded[valid_segments(lengths, segments)] = x[real]
    return padded


def pooled(x: Tensor, window: int) -> Tensor:
    """Average over windows of segments, (b, t, ...) -> (b, t // window, ...); a rest is dropped.

    It runs as a 1 x n image pooling: unlike slices, that keeps gradients channels-last.
    """
    image = x.flatten(2).transpose(1, 2).unsqueeze(2)
    return F.avg_pool2d(image, (1, window)).squeeze(2).transpose(1, 2).unflatten(2, x.shape[2:])


def average(x: Tensor, valid: Tensor | None = None) -> Tensor:
    """Average over (valid) segments: (b, t, ...) -> (b, 1, ...)."""
    if valid is None:
        return pooled(x, x.shape[1])
    mask = valid.reshape(*valid.shape, *[1] * (x.ndim - 2))
    return x.masked_fill(~mask, 0).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)


def pool(x: Tensor, pooling: Pooling, valid: Tensor | None = None) -> Tensor:
    """Apply the pooling that ends a stage, over (valid) segments: (b, t, ...) -> (b, t', ...)."""
    if pooling == "none":
        return x
    return average(x, valid) if pooling == "average" else pooled(x, 2)


def pooled_lengths(lengths: Tensor, pooling: Pooling) -> Tensor:
    """Return the numbers of real segments (b,) after a pooling."""
    if pooling == "none":
        return lengths
    return torch.ones_like(lengths) if pooling == "average" else lengths // 2


def image_conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, padding: int = 0, groups: int = 1) -> Tensor:
    """Convolve 1 x n images (b, c, 1, t) with a weight (out, in, 1, kernel)."""
    return F.conv2d(x, weight, bias, padding=(0, padding), groups=groups)


class SequenceConv(nn.Conv1d):
    """Convolution over time on (b, t, c) with zero padding that keeps t; `groups` networks stand side by side in c.

    The parameters are Conv1d's. It runs as a 1 x n image convolution, which has a channels-last kernel.
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
"""Most positions for which BatchNorm runs on contiguous channels: slower but more accurate (see `SequenceNorm`)."""


class SequenceNorm(nn.BatchNorm1d):
    """BatchNorm over the (valid) segments of (b, t, c).

    torch's channels-last kernel sums squares in one pass. That is harmless over thousands of segments, but over a
    handful (the last stage has one a video) the gradients amplify its rounding a thousandfold, so small inputs take
    the kernel that sums in two.
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
        """Apply torch's BatchNorm to (b, c, ...) with this module's statistics."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, self.training, self.momentum or 0.0, self.eps)


def full_precision(head: nn.Module, x: Tensor, *masks: Tensor | None) -> Tensor:
    """Return a head's output in float32 under any autocast: rounded to bfloat16, different scores would tie."""
    with torch.autocast(x.device.type, enabled=False):
        return head(x.to(next(head.parameters()).dtype), *masks)
