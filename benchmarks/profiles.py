"""Where the time of a training step goes, by kind of operation."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks import workloads as w
from benchmarks.devices import Call, Mode

KINDS = {
    "products and convolutions": r"conv|addmm|addbmm|baddbmm|aten::b?mm$|matmul|linear$|einsum|mkldnn_rnn",
    "BatchNorm": r"batch_norm|layer_norm",
    "dropout, random numbers": r"dropout|bernoulli|::rand|uniform|exponential|normal_",
    "copies": r"copy|clone|contiguous|::to$|::cat|stack|index|gather|pad|fill|zero|empty|resize|one_hot|scatter",
    "pooling, softmax, sums": r"pool|softmax|sum|mean|norm|argmax|max|reduce",
    "elementwise": (
        r"relu|gelu|sigmoid|threshold|::(add|sub|mul|div|neg|exp|log|ge|gt|lt|le|eq|where|masked|sqrt|addcmul|addcdiv|pow)"
    ),
}
"""Kinds of operations and what their names look like: the first that fits, behind the optimiser and clipping."""

OPTIMISER, OTHER = "optimiser, clipping", "other"


def profiled(size: w.Size, modes: tuple[Mode, Mode], steps: int) -> dict[str, tuple[float, float]]:
    """{kind: seconds a step of the reference, and here}, the largest of the reference first."""
    batch = w.crop_batch(size, modes[0].device)
    sides = w.reference_pamfn(size, modes[0]), w.our_pamfn(size, modes[1])
    found = [seconds_by_kind(lambda side=side: side.step(*batch), side.mode, steps) for side in sides]
    kinds = sorted({*found[0], *found[1]}, key=lambda kind: -found[0].get(kind, 0))
    return {kind: (found[0].get(kind, 0.0), found[1].get(kind, 0.0)) for kind in kinds}


def seconds_by_kind(call: Call, mode: Mode, calls: int) -> dict[str, float]:
    """Seconds of a call in operations of each kind, forward and backward apart; on a GPU of its kernels."""
    call()
    on_gpu = mode.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(calls):
            call()
    total = Counter[str]()
    for event in profiler.events() or []:
        if event.device_type.name == "CPU":
            microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
            total[kind_of(event)] += microseconds / 1e6 / calls
    return dict(total)


def kind_of(event: Any) -> str:
    """By the operation's own name and by what it was called from."""
    callers, caller = [event.name], event.cpu_parent
    while caller is not None:
        callers.append(caller.name)
        caller = caller.cpu_parent
    if any(name.startswith("Optimizer.") or "_foreach_" in name or "vector_norm" in name for name in callers):
        return OPTIMISER
    kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, event.name)), OTHER)
    if kind == OTHER:  # what a known operation calls, such as its own helpers
        names = "\n".join(callers[:3])
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, names, re.MULTILINE)), OTHER)
    backward = any("autograd::engine" in name for name in callers)
    return f"{kind}, backward" if backward and kind != OTHER else kind


def print_profile(title: str, found: Mapping[str, tuple[float, float]]) -> None:
    """A Markdown table of seconds and shares."""
    totals = [sum(times) for times in zip(*found.values(), strict=True)]
    print(f"\n{title}, a step under the profiler\n")
    print("| what | reference, s | share | here, s | share |\n|---|---|---|---|---|")
    for kind, times in found.items():
        cells = (f"{t:.3f} | {t / total:.0%}" for t, total in zip(times, totals, strict=True))
        print(f"| {kind} | {' | '.join(cells)} |")
    print(f"| all | {totals[0]:.3f} | | {totals[1]:.3f} | |")
