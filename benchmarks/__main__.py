"""`python -m benchmarks`: the library against a plain reference, in one process, one thread, taking turns.

Times are CPU seconds of this process, so that others on the machine count less; ratios are medians over pairs run one
after the other, one side first, then the other side first.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import workloads as w
from benchmarks.memory import peak_memory
from benchmarks.overhead import overheads
from benchmarks.timing import Call, Row, compare, has_bf16, matrix_product_rate


def main() -> None:
    """Measures, prints Markdown, and writes everything where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--quick", action="store_true", help="3 pairs of steps, 2 test passes, no epoch, no memory")
    parser.add_argument("--sizes", default="fisv,rg", help="of the stage-2 step: fisv, rg (default: both)")
    parser.add_argument("--overhead", action="store_true", help="instead: what Lightning, logging, checkpoints cost")
    options = parser.parse_args()
    sizes = options.sizes.split(",")
    if unknown := [size for size in sizes if size not in w.SIZES]:
        parser.error(f"--sizes: no {', '.join(unknown)}; there are {', '.join(w.SIZES)}")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if options.overhead:
        found: Any = overheads(pairs=2 if options.quick else 4)
        for line in found:
            print(line)
    else:
        found = measure(sizes, quick=options.quick)
        print_table(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, default=asdict) + "\n")


def measure(sizes: list[str], *, quick: bool) -> dict[str, Any]:
    """Everything: rows, matrix-product rates before, between and after them, memory, machine."""
    rates: dict[str, list[float]] = {"float32": []} | ({"bfloat16": []} if has_bf16() else {})
    rows: list[Row] = []
    lengths = w.fisv_lengths(os.environ.get("PAMFN_DATA_DIR"))
    for title, reference, ours, pairs, counted in cases(sizes, lengths[:2], quick):
        for dtype, values in rates.items():
            values.append(matrix_product_rate(getattr(torch, dtype)))
        rows.append(compare(title, reference, ours, pairs, counted=counted))
        print(f"  {title}: {statistics.median(rows[-1].ratios()):.2f}x", file=sys.stderr)
    cpu = torch.cpu.get_capabilities().get("cpu_name")
    return {
        "machine": f"{cpu}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}",
        "lengths": lengths[2],
        "rates": rates,
        "rows": rows,
        "peak_memory_mib": {} if quick else {side: peak_memory(side) for side in ("reference", "ours")},
    }


def cases(sizes: list[str], lengths: tuple[list[int], ...], quick: bool) -> Iterator[tuple[str, Call, Call, int, bool]]:
    """(title, reference, ours, pairs, whether to count operations), each built when its turn comes."""
    pairs, few = (3, 2) if quick else (11, 5)
    for size in (w.SIZES[name] for name in sizes):
        step = f"stage-2 step, {size.title}: {w.BATCH} x {size.segments}, K = {size.fusion_nets}"
        yield step, *steps(w.reference_pamfn(size), w.our_pamfn(size), w.crop_batch(size)), pairs, True
        if has_bf16():
            ours = w.our_pamfn(size, bf16=True)
            yield f"{step}, ours in bf16", *steps(w.reference_pamfn(size), ours, w.crop_batch(size)), few, False
            both = w.reference_pamfn(size, bf16=True)
            yield f"{step}, both in bf16", *steps(both, ours, w.crop_batch(size)), few, False
    size = w.SIZES["fisv"]
    features, target = w.crop_batch(size)
    branches = w.reference_branch(), w.our_branch()
    yield "stage-1 step, Fis-V rgb", *steps(*branches, ({"rgb": features["rgb"]}, target)), pairs, True
    train, test = (w.generated_videos(split) for split in lengths)
    reference, ours = w.reference_pamfn(size), w.our_pamfn(size)
    title = f"test pass, {len(test)} Fis-V videos"
    yield title, lambda: w.reference_test(reference, test), lambda: w.our_test(ours, test), few, False
    if not quick:
        sides = lambda: w.reference_epoch(reference, train, test), lambda: w.our_epoch(ours, train, test)
        yield f"stage-2 epoch, Fis-V: {len(train)} videos and the test pass", *sides, 3, False


def steps(reference: w.Work, ours: w.Work, batch: tuple[dict[str, torch.Tensor], torch.Tensor]) -> tuple[Call, Call]:
    """A training step of either side on the same batch."""
    return lambda: reference.step(*batch), lambda: ours.step(*batch)


def print_table(found: dict[str, Any]) -> None:
    """A Markdown table with what it needs to be understood."""
    rates = {dtype: statistics.median(values) for dtype, values in found["rates"].items()}
    print(f"{found['machine']}; one thread; Fis-V lengths: {found['lengths']}")
    print("; ".join(f"{dtype} matrix product of 2048: {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items()))
    print("\n| what | reference, CPU s: median (min..max) | ours | faster (over pairs) | GFLOP, share of the rate |")
    print("|---|---|---|---|---|")
    for row in found["rows"]:
        ratios = row.ratios()
        faster = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}..{max(ratios):.2f}, n = {len(ratios)})"
        shares = row.shares(rates["float32"])
        print(f"| {row.title} | {spread(row.reference)} | {spread(row.ours)} | {faster} | {shares} |")
    for side, mib in found["peak_memory_mib"].items():
        print(f"peak memory, {side}: {mib} MiB")


def spread(seconds: list[float]) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f}..{max(seconds):.3f})"


if __name__ == "__main__":
    main()
