"""The LSTMs of MS-LSTM's scales, whose update gate may skip time steps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
"""The gradient before the function, of that behind it and its output."""


class SkipLSTMs(nn.Module):
    """An LSTM for each of s scales, side by side, that in a step takes its new state or keeps the old one.

    x: [(b, t_1, c), ..., (b, t_s, c)], from the longest scale to the shortest
    steps: [(b,), ...] number of real steps of each video; None where all are real
    start: (b, 2, s, d) hidden and cell states before the first step; None for new ones
    returns: last hidden states [(b, d), ...]

    The update probability of a new cell state c is sigmoid(w . c + bias). Step by step it is added to a total of at
    most 1; where the total rounds to 1 the new state is taken and the total starts again. Rounding has no gradient, so
    w and bias never learn. Without `start`: zero states; `random_start` draws them from N(0, 1), as released.

    Under autocast the matrix products run in its precision; cell states, which add up many small changes, do not.
    """

    def __init__(self, scales: int, width: int, hidden: int, random_start: bool = False) -> None:
        super().__init__()
        self.hidden, self.random_start = hidden, random_start
        self.input = nn.Parameter(torch.empty(scales, 4 * hidden, width))  # input, forget, output, candidate
        self.input_bias = nn.Parameter(torch.zeros(scales, 4 * hidden))
        self.recurrent = nn.Parameter(torch.empty(scales, 4 * hidden, hidden))
        self.recurrent_bias = nn.Parameter(torch.zeros(scales, 4 * hidden))
        self.update = nn.Parameter(torch.empty(scales, hidden, 1), requires_grad=False)
        self.update_bias = nn.Parameter(torch.ones(scales, 1, 1), requires_grad=False)
        for weights in (self.input, self.recurrent, self.update):
            for weight in weights:
                nn.init.xavier_uniform_(weight)

    def forward(
        self, x: Sequence[Tensor], steps: Sequence[Tensor] | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        device, dtype = x[0].device.type, self.input.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            weights = [w.to(dtype) for w in (self.input, self.recurrent, self.input_bias + self.recurrent_bias)]
            start = self.states(x, start)
            real = None if steps is None else torch.stack(list(steps))[..., None]
            over_time = [y.to(dtype).transpose(0, 1).contiguous() for y in x]
            return Recurrence.apply(*weights, self.update.transpose(1, 2), self.update_bias, start, real, *over_time)  # type: ignore[return-value]

    def states(self, x: Sequence[Tensor], start: Tensor | None) -> Tensor:
        """Return the hidden and cell states before the first step, (2, s, b, d): those given, or new ones."""
        if start is not None:
            return start.movedim(0, 2)
        zeros = self.recurrent.new_zeros(2, len(x), len(x[0]), self.hidden)
        return zeros.normal_() if self.random_start else zeros


class Recurrence(torch.autograd.Function):
    """The steps of `SkipLSTMs`; what is not sequential, forward and backward, is computed for all steps at once.

    input: (s, 4 d, c) weight of the gates
    recurrent: (s, 4 d, d)
    bias: (s, 4 d)
    update: (s, 1, d)
    update_bias: (s, 1, 1)
    start: (2, s, b, d) hidden and cell states
    steps: (s, b, 1) or None
    x: [(t, b, c), ...]
    returns: last hidden states [(b, d), ...]

    Products are in the precision of x, all else in that of start. There are gradients for input, recurrent, bias and
    x. In every step only the scales that still run take part; the first ones run longest. What is cheap to compute
    again is not stored: large tensors cost more time than the arithmetic on them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        recurrent: Tensor,
        bias: Tensor,
        update: Tensor,
        update_bias: Tensor,
        start: Tensor,
        steps: Tensor | None,
        *x: Tensor,
    ) -> tuple[Tensor, ...]:
        times, (scales, batch, d) = [len(y) for y in x], start.shape[1:]
        gates = recurrent.new_empty(scales, times[0], batch, 4 * d)
        for s, y in enumerate(x):
            torch.addmm(bias[s], y.flatten(0, 1), input[s].t(), out=gates[s, : len(y)].flatten(0, 1))
        hidden = recurrent.new_empty(scales, times[0] + 1, batch, d)  # only products read it
        cell = start.new_empty(hidden.shape)
        hidden[:, 0], cell[:, 0] = start
        taken = start.new_ones(scales, times[0], batch, 1, dtype=torch.bool)
        probability, total = start.new_ones(scales, batch, 1), start.new_zeros(scales, batch, 1)
        transposed = recurrent.transpose(1, 2).contiguous()
        for t, n in enumerate(running(times)):
            gates[:n, t].baddbmm_(hidden[:n, t], transposed[:n])
            i, f, o, g = activated(gates[:n, t], cell.dtype)
            new_cell = torch.mul(f, cell[:n, t], out=cell[:n, t + 1]).addcmul_(i, g)
            hidden[:n, t + 1] = o * new_cell.tanh()
            total = total[:n] + probability[:n].minimum(1 - total[:n])
            take = total.round() > 0 if steps is None else (total.round() > 0) & (t < steps[:n])
            new = (update_bias[:n] + (new_cell * update[:n]).sum(dim=2, keepdim=True)).sigmoid()
            if bool(take.all()):
                probability, total = new, torch.zeros_like(total)
                continue
            taken[:n, t] = take
            probability, total = torch.where(take, new, probability[:n]), total.masked_fill(take, 0)
            for state in (hidden, cell):
                state[:n, t + 1] = torch.where(take, state[:n, t + 1], state[:n, t])
        ctx.save_for_backward(input, recurrent, gates, hidden, cell, taken, *x)
        return tuple(hidden[s, t].to(start.dtype, copy=True) for s, t in enumerate(times))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, recurrent, gates, hidden, cell, taken, *x = ctx.saved_tensors
        times = [len(y) for y in x]
        d_hidden = torch.stack(gradients)
        d_cell = torch.zeros_like(d_hidden)
        some_skip = (~taken).transpose(0, 1).flatten(1).any(dim=1).tolist()
        for t, n in reversed(list(enumerate(running(times)))):
            d_hidden_t, d_cell_t = d_hidden[:n], d_cell[:n]
            kept: tuple[Tensor, ...] = ()
            if some_skip[t]:  # what kept its old state hands its gradient on
                kept = tuple(d.masked_fill(taken[:n, t], 0) for d in (d_hidden_t, d_cell_t))
                d_hidden_t, d_cell_t = (d * taken[:n, t] for d in (d_hidden_t, d_cell_t))
            i, f, o, g = activated(gates[:n, t], cell.dtype)
            out = cell[:n, t + 1].tanh()
            d_cell_t = d_cell_t + tanh_backward(d_hidden_t * o, out)
            of_gates = [
                sigmoid_backward(d_cell_t * g, i),
                sigmoid_backward(d_cell_t * cell[:n, t], f),
                sigmoid_backward(d_hidden_t * out, o),
                tanh_backward(d_cell_t * i, g),
            ]
            torch.cat(of_gates, dim=2, out=gates[:n, t])  # the gradient takes the place of the gates
            torch.mul(d_cell_t, f, out=d_cell[:n])
            d_hidden[:n] = torch.bmm(gates[:n, t], recurrent[:n])
            for d_state, of_old in zip((d_hidden, d_cell)[: len(kept)], kept, strict=True):
                d_state[:n] += of_old
        d_gates = [gates[s, :t].flatten(0, 1) for s, t in enumerate(times)]
        of_input = [d.t() @ y.flatten(0, 1) for d, y in zip(d_gates, x, strict=True)]
        of_recurrent = [d.t() @ h[: len(y)].flatten(0, 1) for d, h, y in zip(d_gates, hidden, x, strict=True)]
        of_x = [(d @ weight).view_as(y) for d, weight, y in zip(d_gates, input, x, strict=True)]
        of_bias = torch.stack([d.sum(dim=0) for d in d_gates])
        return torch.stack(of_input), torch.stack(of_recurrent), of_bias, None, None, None, None, *of_x


def activated(gates: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Activate the input, forget and output gates and the candidate, (..., d) each, given as (..., 4 d)."""
    i, f, o, g = gates.to(dtype).chunk(4, dim=-1)
    return i.sigmoid(), f.sigmoid(), o.sigmoid(), g.tanh()


def running(times: Sequence[int]) -> list[int]:
    """Return the number of scales that take part in each step."""
    return [sum(t < time for time in times) for t in range(times[0])]
