"""The LSTMs of MS-LSTM's scales, whose update gate may skip time steps."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SkipLSTMs(nn.Module):
    """An LSTM for each of s scales, side by side, that in a step takes its new state or keeps the old one.

    Shapes: x [(b, t_1, c), ..., (b, t_s, c)] from the longest scale to the shortest, steps [(b,), ...] real steps of
    each video or None for all -> last hidden states [(b, d), ...].

    The update probability of a new cell state c is sigmoid(w . c + bias). Step by step it is added to a total of at
    most 1; where the total rounds to 1 the new state is taken and the total starts again. Rounding has no gradient, so
    w and bias never learn. Start: zero states; `random_start` draws them from N(0, 1) at every call, as released.
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

    def forward(self, x: Sequence[Tensor], steps: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
        with torch.autocast(x[0].device.type, enabled=False):  # a state adds up many small changes
            bias = self.input_bias + self.recurrent_bias
            over_time = [y.to(self.input.dtype).transpose(0, 1).contiguous() for y in x]
            gates = [F.linear(y, *layer) for y, *layer in zip(over_time, self.input, bias, strict=True)]
            start = self.start(len(x), x[0].shape[0])
            real = None if steps is None else torch.stack(list(steps))[..., None]
            return Recurrence.apply(self.recurrent, self.update, self.update_bias, start, real, *gates)  # type: ignore[return-value]

    def start(self, scales: int, batch: int) -> Tensor:
        """Hidden and cell states before the first step, (2, s, b, d)."""
        start = self.recurrent.new_zeros(2, scales, batch, self.hidden)
        return start.normal_() if self.random_start else start


class Recurrence(torch.autograd.Function):
    """What is sequential in `SkipLSTMs`; all that is not, forward and backward, is done for every step at once.

    weight (s, 4 d, d), update (s, d, 1) and bias (s, 1, 1), start (2, s, b, d) hidden and cell states, steps (s, b, 1)
    or None, gates [(t, b, 4 d), ...] of the inputs before activation -> last hidden states [(b, d), ...]. There are
    gradients for weight and gates. Step by step only the scales that still run take part; the first ones run longest.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, update: Tensor, bias: Tensor, start: Tensor, steps: Tensor | None, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        times, (scales, batch, d) = [len(x) for x in inputs], start.shape[1:]
        gates = weight.new_empty(times[0], scales, batch, 4 * d)
        for s, x in enumerate(inputs):
            gates[: len(x), s] = x
        hidden, cell = weight.new_empty(2, times[0] + 1, scales, batch, d).unbind()
        hidden[0], cell[0] = start
        squashed = weight.new_empty(times[0], scales, batch, d)  # tanh of the new cell state
        taken = weight.new_ones(times[0], scales, batch, 1, dtype=torch.bool)
        probability, total = weight.new_ones(scales, batch, 1), weight.new_zeros(scales, batch, 1)
        transposed = weight.transpose(1, 2).contiguous()
        for t, n in enumerate(running(times)):
            step = gates[t, :n].baddbmm_(hidden[t, :n], transposed[:n])
            step[..., : 3 * d].sigmoid_()
            step[..., 3 * d :].tanh_()
            i, f, o, g = step.chunk(4, dim=2)
            new_cell = torch.mul(f, cell[t, :n], out=cell[t + 1, :n]).addcmul_(i, g)
            torch.mul(o, torch.tanh(new_cell, out=squashed[t, :n]), out=hidden[t + 1, :n])
            total = total[:n] + probability[:n].minimum(1 - total[:n])
            take = total.round() > 0 if steps is None else (total.round() > 0) & (t < steps[:n])
            new = torch.baddbmm(bias[:n], new_cell, update[:n]).sigmoid()
            if bool(take.all()):
                probability, total = new, torch.zeros_like(total)
                continue
            taken[t, :n] = take
            probability, total = torch.where(take, new, probability[:n]), total.masked_fill(take, 0)
            for state in (hidden, cell):
                state[t + 1, :n] = torch.where(take, state[t + 1, :n], state[t, :n])
        ctx.save_for_backward(gates, weight, hidden, cell, squashed, taken)
        ctx.times = times
        return tuple(hidden[t, s].clone() for s, t in enumerate(times))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gates, weight, hidden, cell, squashed, taken = ctx.saved_tensors
        before, of_hidden = slopes(gates, cell, squashed)
        in_gates = before.unflatten(3, (4, -1))
        forget = gates.unflatten(3, (4, -1))[..., 1, :]
        d_hidden = torch.stack(gradients)
        d_cell = torch.zeros_like(d_hidden)
        some_skip = (~taken).flatten(1).any(dim=1).tolist()
        for t, n in reversed(list(enumerate(running(ctx.times)))):
            d_hidden_t, d_cell_t = d_hidden[:n], d_cell[:n]
            kept: tuple[Tensor, ...] = ()
            if some_skip[t]:  # what kept its old state hands its gradient on
                kept = tuple(d.masked_fill(taken[t, :n], 0) for d in (d_hidden_t, d_cell_t))
                d_hidden_t, d_cell_t = (d * taken[t, :n] for d in (d_hidden_t, d_cell_t))
            d_cell_t = torch.addcmul(d_cell_t, d_hidden_t, of_hidden[t, :n])
            in_gates[t, :n, :, :2].mul_(d_cell_t[:, :, None])
            in_gates[t, :n, :, 2].mul_(d_hidden_t)
            in_gates[t, :n, :, 3].mul_(d_cell_t)
            torch.bmm(before[t, :n], weight[:n], out=d_hidden[:n])
            torch.mul(d_cell_t, forget[t, :n], out=d_cell[:n])
            for d, of_old in zip((d_hidden, d_cell)[: len(kept)], kept, strict=True):
                d[:n] += of_old
        d_gates = [before[:t, s] for s, t in enumerate(ctx.times)]
        states = [hidden[: len(g), s] for s, g in enumerate(d_gates)]
        d_weight = [g.flatten(0, 1).t() @ h.flatten(0, 1) for g, h in zip(d_gates, states, strict=True)]
        return torch.stack(d_weight), None, None, None, None, *d_gates


def running(times: Sequence[int]) -> list[int]:
    """How many scales take part in each step."""
    return [sum(t < time for time in times) for t in range(times[0])]


def slopes(gates: Tensor, cell: Tensor, squashed: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the new state by the gates before activation (t, s, b, 4 d), and of hidden by cell state.

    Those of the output gate are of the hidden state, the others of the cell state.
    """
    i, f, o, g = gates.chunk(4, dim=3)
    of_gates = [g * i * (1 - i), cell[:-1] * f * (1 - f), squashed * o * (1 - o), i * (1 - g.square())]
    return torch.cat(of_gates, dim=3), o * (1 - squashed.square())
