"""What was measured as a Markdown table, with what it needs to be understood."""

import statistics
from typing import Any

import numpy as np

from benchmarks import workloads as w
from benchmarks.counts import Counts
from benchmarks.devices import Mode, said, unit
from benchmarks.rows import Choice
from benchmarks.timing import Row

EPOCHS = 500
"""Of stage 2 on Fis-V, in the paper and the released code."""


def print_table(found: dict[str, Any]) -> None:
    """The table, the rates, and what follows from them."""
    choice: Choice = found["choice"]
    rates = {name: max(values) for name, values in found["rates"].items()}
    products = ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items() if name != "copy")
    print(f"{found['machine']}; one thread; lengths of videos:")
    print("; ".join(f"{size.title} {w.lengths_of(size)[2]}" for size in choice.sizes))
    print(f"large matrix products: {products}; a large copy: {rates['copy'] / 1e9:.1f} GB/s, read and written\n")
    clock = unit(choice.device)
    print(f"| what | reference, {clock}: median (min..max) | here | ratio over pairs | least time: reference; here |")
    print("|---|---|---|---|---|")
    for row in found["rows"]:
        ratios = row.ratios()
        ratio = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}..{max(ratios):.2f}, n = {len(ratios)})"
        print(
            f"| {row.title} | {spread(row, row.reference)} | {spread(row, row.ours)} | {ratio} | {limits(row, rates)} |"
        )
    print(
        "\nLeast time: products at the rate of a large one, and all other operations, a pass over memory each, at that"
    )
    print("of a copy; the share of it in the time that was taken. What stays in caches or is fused can be faster.")
    if not choice.quick:
        print("\n".join(long_training(row) for row in found["rows"] if row.title.startswith("stage-2 epoch, Fis-V:")))
    for row in found["rows"]:
        for note in row.notes:
            print(f"{row.title}: {note}")
    for line in found["jobs"]:
        print(line)


def long_training(row: Row) -> str:
    """What a row of epochs makes of the paper's training on Fis-V."""
    reference, ours = (EPOCHS * statistics.median(times) / 3600 for times in (row.reference, row.ours))
    took = f"reference {reference:.1f} h, here {ours:.1f} h"
    return f"Fis-V, {EPOCHS} epochs with a test pass each, {said(*row.modes)}: {took}"


def spread(row: Row, values: list[float]) -> str:
    """Median, smallest and largest; of single videos the median and the 95th percentile."""
    if row.unit:
        return f"{statistics.median(values):.0f} {row.unit}"
    if row.title.startswith("one "):
        return f"{1000 * statistics.median(values):.1f} ms, 95 % within {1000 * np.percentile(values, 95):.1f} ms"
    return f"{statistics.median(values):.3f} ({min(values):.3f}..{max(values):.3f})"


def limits(row: Row, rates: dict[str, float]) -> str:
    """What either side does in a step and the least it could take, as seconds and as a share of what it took."""
    sides = (row.reference_counts, row.reference, row.modes[0]), (row.our_counts, row.ours, row.modes[1])
    return "; ".join(limit(counts, statistics.median(times), mode, rates) for counts, times, mode in sides if counts)


def limit(counts: Counts, seconds: float, mode: Mode, rates: dict[str, float]) -> str:
    """`1016 GFLOP + 31 GB: 12.1 + 1.3 s, 83 %`."""
    products, rest = counts.limit(rates[mode.precision], rates["copy"])
    amounts = f"{counts.operations / 1e9:.0f} GFLOP + {counts.moved / 1e9:.1f} GB"
    return f"{amounts}: {products:.3f} + {rest:.3f} s, {(products + rest) / seconds:.0%}"
