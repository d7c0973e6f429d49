"""How two sides are timed against each other, and how much arithmetic they do."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Call = Callable[[], object]


@dataclass
class Row:
    """One comparison: CPU seconds of every call, and floating-point operations of one call (0: not counted)."""

    title: str
    reference: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    reference_operations: float = 0
    our_operations: float = 0

    def ratios(self) -> list[float]:
        """How many times faster the library was, pair by pair."""
        return [a / b for a, b in zip(self.reference, self.ours, strict=True)]

    def shares(self, rate: float) -> str:
        """Operations of either side and the share of `rate` (a second) at which it does the reference's work."""
        if not self.reference_operations:
            return "-"
        speeds = (self.reference_operations / statistics.median(times) / rate for times in (self.reference, self.ours))
        done = f"{self.reference_operations / 1e9:.0f}, ours {self.our_operations / 1e9:.0f}"
        return f"{done}; {', ours '.join(f'{speed:.0%}' for speed in speeds)}"


def compare(title: str, reference: Call, ours: Call, pairs: int, *, counted: bool) -> Row:
    """Both sides in turn, after one call each that is not timed (its operations are counted)."""
    row = Row(title)
    row.reference_operations, row.our_operations = operations(reference, counted), operations(ours, counted)
    for i in range(pairs):
        sides = [(reference, row.reference), (ours, row.ours)]
        for call, times in sides if i % 2 == 0 else reversed(sides):
            times.append(cpu_seconds(call))
    return row


def cpu_seconds(call: Call) -> float:
    """CPU seconds of this process during a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def matrix_product_rate(dtype: torch.dtype, n: int = 2048) -> float:
    """Operations per CPU second of an n x n matrix product, the best of three."""
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    torch.mm(a, b)
    return 2 * n**3 / min(cpu_seconds(lambda: torch.mm(a, b)) for _ in range(3))


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def operations(call: Call, counted: bool) -> float:
    """Floating-point operations of the matrix products and convolutions of one call, which is made either way."""
    if not counted:
        call()
        return 0.0
    mapping = {
        torch.ops.aten.convolution_backward: convolution_backward_operations,
        torch.ops.aten.baddbmm_: lambda _, x, weight, **__: 2 * math.prod(x) * weight[-1],
        torch.ops.aten.mkldnn_rnn_layer: lstm_operations,
        torch.ops.aten.mkldnn_rnn_layer_backward: lambda *inputs, **rest: 2 * lstm_operations(*inputs, **rest),
    }
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return float(counter.get_total_flops())


def convolution_backward_operations(
    gradient: Sequence[int], _inputs: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """As many operations as forward for either gradient that was asked for; torch's own count forgets groups."""
    of_input, of_weight, _of_bias = rest[-1]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * (of_input + of_weight)


def lstm_operations(x: Sequence[int], of_input: Sequence[int], of_state: Sequence[int], *_: Any, **__: Any) -> int:
    """Of a layer's two products in every step, from x (t, b, c) and the weights of input and state."""
    return 2 * math.prod(x[:2]) * (math.prod(of_input) + math.prod(of_state))
