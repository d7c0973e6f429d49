"""`python -m benchmarks.ms_lstm`: MS-LSTM against the same network with its skip-LSTMs as plain loops over cells.

CPU seconds of this process, one thread, taking turns: a training step (squared error) on 32 crops of Fis-V length, a
test pass over whole videos, and from both an epoch of Fis-V (400 videos to train on, 100 to test). In float32, and
where the CPU has bfloat16 under autocast: here alone, and on both sides.
"""

import copy
import os
import statistics
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.devices import CPU, Mode, has_bf16, matrix_product_rate
from benchmarks.timing import Row, compare
from benchmarks.workloads import BATCH, Work, fisv_lengths, generated_videos, our_test
from pamfn.models.baselines import MSLSTM
from pamfn.models.baselines.skip_lstm import SkipLSTMs

SEGMENTS = 130
STEPS = 13
"""Training steps of an epoch: 400 videos in batches of 32."""


class PlainSkipLSTMs(SkipLSTMs):
    """The skip-LSTMs as they are written down: one cell after the other, gradients left to autograd."""

    def forward(
        self, x: Sequence[Tensor], steps: Sequence[Tensor] | None = None, start: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        start = self.states(x, start)
        return tuple(self.loop(s, y, start[:, s], None if steps is None else steps[s]) for s, y in enumerate(x))

    def loop(self, scale: int, x: Tensor, start: Tensor, steps: Tensor | None) -> Tensor:
        """Last hidden state (b, d) of one scale."""
        hidden, cell = start
        probability, total = x.new_ones(len(x), 1), x.new_zeros(len(x), 1)
        for t in range(x.shape[1]):
            total = total + torch.minimum(probability, 1 - total)
            gate = total.round()
            if steps is not None:
                gate = gate * (t < steps)[:, None]
            new_hidden, new_cell = self.cell(scale, x[:, t], hidden, cell)
            hidden = gate * new_hidden + (1 - gate) * hidden
            cell = gate * new_cell + (1 - gate) * cell
            new = (new_cell @ self.update[scale] + self.update_bias[scale]).sigmoid()
            probability = gate * new + (1 - gate) * probability
            total = (1 - gate) * total
        return hidden

    def cell(self, scale: int, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """The state after one step, if it is taken."""
        gates = F.linear(x, self.input[scale], self.input_bias[scale])
        gates = gates + F.linear(hidden, self.recurrent[scale], self.recurrent_bias[scale])
        i, f, o, g = gates.chunk(4, dim=1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell


def plain(network: MSLSTM) -> MSLSTM:
    """A copy with plain loops."""
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, SkipLSTMs):
            module.__class__ = PlainSkipLSTMs
    return network


def work(network: MSLSTM, mode: Mode) -> Work:
    """A network in training."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-4, weight_decay=0.0, fused=True)
    return Work(network, optimizer, lambda features: network(features).score, mode)


def rows(reference: Work, ours: Work) -> tuple[Row, Row]:
    """The training step and the test pass."""
    batch = {"rgb": torch.randn(BATCH, SEGMENTS, 1024)}, torch.rand(BATCH)
    _, lengths, _ = fisv_lengths(os.environ.get("PAMFN_DATA_DIR"))
    videos = generated_videos(lengths).modalities(["rgb"])
    sides = reference, ours
    steps = [lambda side=side: side.step(*batch) for side in sides]
    tests = [lambda side=side: our_test(side, videos) for side in sides]
    step = compare(f"step of {BATCH} x {SEGMENTS}", *steps, pairs=7, count=True)
    return step, compare(f"test pass of {len(lengths)} videos", *tests, pairs=3)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = MSLSTM(widths={"rgb": 1024})
    bf16 = Mode(CPU.device, "bfloat16")
    cases = {"float32": (CPU, CPU)}
    if has_bf16():
        cases |= {"float32 as plain loops, bfloat16 here": (CPU, bf16), "bfloat16": (bf16, bf16)}
    for title, (reference_mode, our_mode) in cases.items():
        rate = matrix_product_rate(our_mode)
        step, test = rows(work(plain(network), reference_mode), work(copy.deepcopy(network), our_mode))
        plain_epoch, our_epoch = (
            STEPS * statistics.median(a) + statistics.median(b)
            for a, b in ((step.reference, test.reference), (step.ours, test.ours))
        )
        print(f"{title}: epoch {plain_epoch:.1f} s as plain loops, {our_epoch:.1f} s: {plain_epoch / our_epoch:.1f}x")
        for row in (step, test):
            least, middle, most = min(row.ratios()), statistics.median(row.ratios()), max(row.ratios())
            print(f"  {row.title}: {middle:.1f}x ({least:.1f}..{most:.1f})")
        print(f"  GFLOP of a step; share of {rate / 1e9:.0f} GFLOP/s: {step.shares(rate)}", flush=True)


if __name__ == "__main__":
    main()
