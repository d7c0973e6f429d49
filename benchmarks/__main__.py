"""`python -m benchmarks`: the library against a plain reference, in one process, one thread, taking turns.

Times are CPU seconds of that one thread, so that other processes on the machine count less; ratios are medians over
pairs run one after the other, first one side first, then the other.
"""

import argparse
import json
import math
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import workloads as w

Call = Callable[[], None]


@dataclass
class Row:
    """One comparison: seconds of every call, and the floating-point operations of one call (0: not counted)."""

    title: str
    reference: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    reference_flops: float = 0
    our_flops: float = 0

    def ratios(self) -> list[float]:
        """How many times faster the library was, pair by pair."""
        return [a / b for a, b in zip(self.reference, self.ours, strict=True)]


def main() -> None:
    """Measures, prints a table, and writes it where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="few repetitions, no epochs: minutes become one")
    parser.add_argument("--sizes", default="fisv,rg", help="of the training step: fisv, rg (default: both)")
    parser.add_argument("--overhead", action="store_true", help="what Lightning, logging and checkpoints cost instead")
    options = parser.parse_args()
    sizes = options.sizes.split(",")
    if unknown := [size for size in sizes if size not in w.SIZES]:
        parser.error(f"--sizes: no {', '.join(unknown)}; there are {', '.join(w.SIZES)}")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = measure(sizes, quick=options.quick)
    print_table(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, default=asdict) + "\n")


def measure(sizes: list[str], *, quick: bool) -> dict:
    """Everything: rows, matrix-product rates, memory, machine."""
    train, test, source = w.fisv_lengths(os.environ.get("PAMFN_DATA_DIR"))
    rates = {"float32": [matrix_product_rate(torch.float32)]}
    if has_bf16():
        rates["bfloat16"] = [matrix_product_rate(torch.bfloat16)]
    rows = []
    for title, reference, ours, pairs, counted in cases(sizes, train, test, quick):
        rows.append(compare(title, reference, ours, pairs, counted))
        print(f"  {title}: {statistics.median(rows[-1].ratios()):.2f}x", file=sys.stderr)
        for dtype, values in rates.items():
            values.append(matrix_product_rate(getattr(torch, dtype)))
    return {
        "machine": f"{cpu_name()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}",
        "lengths": source,
        "rates": rates,
        "rows": rows,
        "peak_memory_mib": {} if quick else {side: peak_memory(side) for side in ("reference", "ours")},
    }


def cases(
    sizes: list[str], train: list[int], test: list[int], quick: bool
) -> Iterator[tuple[str, Call, Call, int, bool]]:
    """(title, reference, ours, pairs, whether to count operations), built one at a time."""
    pairs = 3 if quick else 11
    generator = torch.Generator().manual_seed(0)
    for name in sizes:
        size = w.SIZES[name]
        batch = w.crop_batch(size, generator)
        reference, ours = w.reference_pamfn(size), w.our_pamfn(size)
        title = f"stage-2 step, {size.title}: {w.BATCH} x {size.segments}, K = {size.fusion_nets}"
        yield title, lambda: reference.step(*batch), lambda: ours.step(*batch), pairs, True
        if has_bf16():
            both, half = w.reference_pamfn(size, bf16=True), w.our_pamfn(size, bf16=True)
            yield (
                f"same, ours in bf16, {size.title}",
                lambda: reference.step(*batch),
                lambda: half.step(*batch),
                pairs,
                False,
            )
            yield (
                f"same, both in bf16, {size.title}",
                lambda: both.step(*batch),
                lambda: half.step(*batch),
                pairs,
                False,
            )
    size = w.SIZES["fisv"]
    batch = w.crop_batch(size, generator)
    branches = w.reference_branch(), w.our_branch()
    yield "stage-1 step, Fis-V rgb", lambda: branches[0].step(*batch), lambda: branches[1].step(*batch), pairs, True
    reference, ours = w.reference_pamfn(size), w.our_pamfn(size)
    tested = w.generated_videos(test)
    title = f"test pass, {len(test)} Fis-V videos"
    yield title, lambda: w.reference_test(reference, tested), lambda: w.our_test(ours, tested), 2 if quick else 5, True
    if quick:
        return
    trained = w.generated_videos(train)
    sides = [
        lambda f=f, x=x: f(x, trained, tested, size) for f, x in ((w.reference_epoch, reference), (w.our_epoch, ours))
    ]
    yield f"stage-2 epoch, Fis-V: {len(train)} videos + test", sides[0], sides[1], 3, False


def compare(title: str, reference: Call, ours: Call, pairs: int, counted: bool) -> Row:
    """Both sides in turn, after one call each that is not timed (its operations are counted)."""
    row = Row(title)
    row.reference_flops, row.our_flops = operations(reference, counted), operations(ours, counted)
    for i in range(pairs):
        sides = [(reference, row.reference), (ours, row.ours)]
        for call, times in sides if i % 2 == 0 else reversed(sides):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
    return row


def operations(call: Call, counted: bool) -> float:
    """Floating-point operations of matrix products and convolutions in one call."""
    if not counted:
        call()
        return 0.0
    mapping = {torch.ops.aten.convolution_backward: convolution_backward_operations}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return float(counter.get_total_flops())


def convolution_backward_operations(
    gradient: Sequence[int], _inputs: Sequence[int], weight: Sequence[int], *rest, **_
) -> int:
    """As many operations as forward for each of the two gradients asked for; torch's own count forgets groups."""
    wanted = rest[-1]
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * (wanted[0] + wanted[1])


def matrix_product_rate(dtype: torch.dtype, n: int = 2048) -> float:
    """Operations per CPU second of an n x n matrix product, the best of three."""
    a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
    torch.mm(a, b)
    seconds = []
    for _ in range(3):
        began = time.process_time()
        torch.mm(a, b)
        seconds.append(time.process_time() - began)
    return 2 * n**3 / min(seconds)


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 itself."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def peak_memory(side: str) -> int:
    """MiB that a fresh process with Fis-V in three modalities has held at most, training and testing on it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(held_memory, (side,))


def held_memory(side: str) -> int:
    """Two training steps and a test pass of one side in this process, then its peak in MiB."""
    torch.set_num_threads(1)
    train, test, _ = w.fisv_lengths(os.environ.get("PAMFN_DATA_DIR"))
    videos, size = w.generated_videos(train), w.SIZES["fisv"]
    tested = w.generated_videos(test)
    few = videos.subset(range(2 * w.BATCH))
    if side == "ours":
        w.our_epoch(w.our_pamfn(size), few, tested, size)
    else:
        w.reference_epoch(w.reference_pamfn(size), few, tested, size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1024**2 if sys.platform == "darwin" else 1024)


def cpu_name() -> str:
    """The processor in words."""
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor())


def print_table(found: dict) -> None:
    """A Markdown table with what it needs to be understood."""
    rate = statistics.median(found["rates"]["float32"])
    print(f"{found['machine']}; one thread; Fis-V lengths: {found['lengths']}")
    for dtype, values in found["rates"].items():
        print(f"matrix product 2048, {dtype}: {statistics.median(values) / 1e9:.0f} GFLOP/s")
    print("\n| what | reference s: median (min..max) | ours s | faster (over pairs) | share of rate: reference, ours |")
    print("|---|---|---|---|---|")
    for row in found["rows"]:
        ratios = row.ratios()
        faster = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}..{max(ratios):.2f}, n = {len(ratios)})"
        print(f"| {row.title} | {spread(row.reference)} | {spread(row.ours)} | {faster} | {shares(row, rate)} |")
    for side, mib in found["peak_memory_mib"].items():
        print(f"peak memory, {side}: {mib} MiB")


def spread(seconds: list[float]) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}..{max(seconds):.3f})"


def shares(row: Row, rate: float) -> str:
    """The reference's operations a second over the matrix-product rate, for either side; and what ours really does."""
    if not row.reference_flops:
        return "-"
    reference, ours = (row.reference_flops / statistics.median(times) / rate for times in (row.reference, row.ours))
    done = row.our_flops / row.reference_flops
    return f"{reference:.0%}, {ours:.0%} ({row.reference_flops / 1e9:.1f} GFLOP; ours does {done:.0%} of it)"


if __name__ == "__main__":
    main()
