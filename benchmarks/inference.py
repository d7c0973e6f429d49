"""`python -m benchmarks.inference`: one video scored by the plain reference, by the library and by its ONNX export.

Batch 1, one thread, features in place, warm. CPU seconds of this process, so that others on the machine count less; the
three take turns. Weights are random; that the export scores as the network does is checked and printed.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import workloads as w
from benchmarks.timing import Call, cpu_seconds
from pamfn.export import compare, exported, fed, session_of
from pamfn.results import machine

LENGTHS = {"fisv": 137, "rg": 90}
"""Segments of the timed video: the median of Fis-V's, and one of Rhythmic Gymnastics'."""

POINTS = 45.0


def main() -> None:
    """Exports both sizes, compares, times, prints Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__)
    parser.add_argument("--turns", type=int, default=30, help="timed calls of each side")
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    print("| one video | reference, ms | here in torch, ms | ONNX Runtime, ms | ratio | largest difference |")
    print("|---|---|---|---|---|---|")
    for name, length in LENGTHS.items():
        size = w.SIZES[name]
        torch.manual_seed(0)
        reference, ours = w.reference_pamfn(size).network.eval(), lively(w.our_pamfn(size).network)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            exported(ours, w.WIDTHS, POINTS).save(file, external_data=False)
            different = compare(file, ours, [video(t) for t in (4, 5, length, 38, 302)], POINTS)
            session = session_of(file)
        features = video(length)
        inputs = fed(features, [length])
        sides: list[Call] = [lambda: reference(features), lambda: ours(features), lambda: session.run(None, inputs)]  # noqa: B023
        with torch.inference_mode():
            times = [[cpu_seconds(side) for side in sides] for _ in range(turns + 3)][3:]
        ratio = statistics.median(one / other for one, _, other in times)
        medians = " | ".join(f"{1000 * statistics.median(side):.1f}" for side in zip(*times, strict=True))
        title = f"{size.title}, {length} segments, K = {size.fusion_nets}"
        print(f"| {title} | {medians} | {ratio:.2f}x | {max(different.alone, different.padded):.1e} |", flush=True)
    print(f"\n{machine()['cpu']}, {turns} turns")


def lively(network: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics that a training might leave: at their start scores hardly differ."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.get_buffer("running_mean").normal_(std=0.1)
            layer.get_buffer("running_var").uniform_(0.05, 0.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.1)
    return network.eval()


def video(length: int) -> dict[str, Tensor]:
    return {m: torch.randn(1, length, c) for m, c in w.WIDTHS.items()}


if __name__ == "__main__":
    main()
