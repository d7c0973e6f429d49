"""`python -m benchmarks`: the library against a plain reference, in one process, one thread, taking turns.

Times are CPU seconds of this process, so that others on the machine count less, and on a GPU wall seconds; ratios are
medians over pairs run one after the other, one side first, then the other side first.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import workloads as w
from benchmarks.devices import copy_rate, described, matrix_product_rate, pairs, said
from benchmarks.jobs import side_by_side
from benchmarks.overhead import overheads
from benchmarks.profiles import print_profile, profiled
from benchmarks.rows import GROUPS, Choice
from benchmarks.summary import print_table
from benchmarks.timing import Row
from pamfn.runs.environment import COMMIT


def main() -> None:
    """Measures, prints Markdown, and writes everything where asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    groups = [*GROUPS, "jobs"]
    parser.add_argument("--only", default=",".join(groups), help="some of the rows (default: %(default)s)")
    parser.add_argument("--sizes", default=",".join(w.SIZES), help="data sets' sizes (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="few pairs, a tenth of the videos: does it work?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything measured to FILE")
    parser.add_argument("--profile", action="store_true", help="instead: where the time of a stage-2 step goes")
    parser.add_argument("--overhead", action="store_true", help="instead: what Lightning, logging, checkpoints cost")
    options = parser.parse_args()
    only, sizes = options.only.split(","), options.sizes.split(",")
    for name, chosen, there in (("only", only, groups), ("sizes", sizes, w.SIZES)):
        if unknown := [word for word in chosen if word not in there]:
            parser.error(f"--{name}: no {', '.join(unknown)}; there are {', '.join(there)}")
    try:
        device = torch.device(options.device)
    except RuntimeError:
        parser.error(f"--device {options.device}: choose cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        parser.error(f"--device {options.device}: there is no such GPU, or this torch has no CUDA")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    choice = Choice([w.SIZES[name] for name in sizes], device, options.quick)
    found: Any
    if options.overhead:
        found = overheads(pairs=2 if options.quick else 4)
        print("\n".join(found))
    elif options.profile:
        found = profiles(choice)
    else:
        found = measure(choice, only)
        print_table(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, default=plain) + "\n")


def measure(choice: Choice, only: Sequence[str]) -> dict[str, Any]:
    """Rows, what the machine can do (measured before and after every row), the machine, and the code."""
    rates: dict[str, list[float]] = defaultdict(list)
    rows: list[Row] = []
    measure_rates(choice.device, rates)
    for group in (name for name in GROUPS if name in only):
        for row in GROUPS[group](choice):
            rows.append(row)
            print(f"  {row.title}: {statistics.median(row.ratios()):.2f}x", file=sys.stderr, flush=True)
            measure_rates(choice.device, rates)
    jobs = []
    if "jobs" in only and choice.device.type == "cpu":
        jobs = [side_by_side(choice.sizes[0], rounds=choice.repeats(3), steps=1 if choice.quick else 5)]
    where = {"commit": COMMIT, "machine": described(choice.device)}
    return {**where, "rates": dict(rates), "rows": rows, "jobs": jobs, "choice": choice}


def measure_rates(device: torch.device, rates: dict[str, list[float]]) -> None:
    """Adds the rates of large matrix products in every precision, and of a copy."""
    for mode in dict.fromkeys(mode for both in pairs(device) for mode in both):
        rates[mode.precision].append(matrix_product_rate(mode))
    rates["copy"].append(copy_rate(device))


def profiles(choice: Choice) -> dict[str, Any]:
    """{title: seconds by kind of operation} of stage-2 steps, printed."""
    found = {}
    print(described(choice.device))
    for size in choice.sizes:
        for modes in pairs(choice.device):
            title = f"{size.title}, {said(*modes)}"
            found[title] = profiled(size, modes, steps=1 if choice.quick else 3)
            print_profile(title, found[title])
    return found


def plain(value: Any) -> Any:
    """What JSON does not know."""
    return str(value) if isinstance(value, torch.device) else asdict(value)


if __name__ == "__main__":
    main()
