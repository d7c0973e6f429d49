"""How much arithmetic a call does, and how many bytes everything else in it reads and writes.

Both together bound its time from below: products cannot be faster than the measured rate of a large one, and the other
operations, one pass over memory each, not faster than a measured copy.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

Call = Callable[[], object]


@dataclass(frozen=True)
class Counts:
    """Floating-point operations of the matrix products and convolutions of a call; bytes moved by everything else."""

    operations: float
    moved: float

    def limit(self, product_rate: float, copy_rate: float) -> tuple[float, float]:
        """Least seconds for the products, and for the rest."""
        return self.operations / product_rate, self.moved / copy_rate


def counted(call: Call) -> Counts:
    """Makes the call and counts."""
    moved = MovedBytes()
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter, moved:
        call()
    return Counts(float(counter.get_total_flops()), float(moved.bytes))


class MovedBytes(TorchDispatchMode):
    """Sums the bytes of what every operation reads and writes, but for matrix products, convolutions and views.

    An estimate of what has to pass through memory if nothing is kept in caches between two operations. A tensor that is
    broadcast counts as the memory it has, one that is changed in place as read and written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet not in flop_registry and packet not in COUNTED and not func.is_view:
            read, written = tensors((args, kwargs)), tensors(out)
            if func._schema.is_mutable:
                self.bytes += sum(map(size, read)) + sum(map(size, written or changed(func, args)))
            elif not alias(read, written) and packet not in NOTHING_MOVED:
                self.bytes += sum(map(size, read + written))
        return out


def tensors(nested: Any) -> list[torch.Tensor]:
    """Every tensor in arguments or results."""
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]


def changed(func: Any, args: Sequence[Any]) -> list[torch.Tensor]:
    """What an operation without results writes to, such as an optimiser's step over lists of parameters."""
    given = zip(func._schema.arguments, args, strict=False)
    return tensors([value for argument, value in given if argument.alias_info and argument.alias_info.is_write])


def alias(read: Sequence[torch.Tensor], written: Sequence[torch.Tensor]) -> bool:
    """Whether a result is an argument seen in another way, as those of some reshapes are."""
    places = {x.untyped_storage().data_ptr() for x in read}
    return bool(written) and all(x.untyped_storage().data_ptr() in places for x in written)


def size(x: torch.Tensor) -> int:
    """Bytes of a tensor, or of its memory where that is less."""
    return min(x.nbytes, x.untyped_storage().nbytes())


NOTHING_MOVED = {getattr(torch.ops.aten, name) for name in ("empty", "empty_like", "empty_strided", "new_empty")}


def convolution_backward_operations(
    gradient: Sequence[int], _inputs: Sequence[int], weight: Sequence[int], *rest: Any, **_: Any
) -> int:
    """As many operations as forward for either gradient that was asked for; torch's own count forgets groups."""
    of_input, of_weight, _of_bias = rest[-1]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * (of_input + of_weight)


def lstm_operations(x: Sequence[int], of_input: Sequence[int], of_state: Sequence[int], *_: Any, **__: Any) -> int:
    """Of a layer's two products in every step, from x (t, b, c) and the weights of input and state."""
    return 2 * math.prod(x[:2]) * (math.prod(of_input) + math.prod(of_state))


COUNTED = {
    torch.ops.aten.convolution_backward: convolution_backward_operations,
    torch.ops.aten.baddbmm_: lambda _, x, weight, **__: 2 * math.prod(x) * weight[-1],
    torch.ops.aten.mkldnn_rnn_layer: lstm_operations,
    torch.ops.aten.mkldnn_rnn_layer_backward: lambda *inputs, **rest: 2 * lstm_operations(*inputs, **rest),
}
"""Operations of products that torch's counter does not know, or counts wrongly."""
