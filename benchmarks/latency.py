"""How long one video takes to be scored, alone and whole, its features in place."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import workloads as w
from benchmarks.devices import Mode, pairs, said, seconds
from benchmarks.timing import Row
from pamfn.pipeline.onnx_export import exported, fed, session_of

WARM_UP = 5

Scorer = Callable[[dict[str, Tensor]], object]


def runtimes(size: w.Size, mode: Mode) -> dict[str, Scorer]:
    """What scores videos with the library's network; each has its own rows."""
    network = w.our_pamfn(size, mode).network.eval()
    exports = mode.precision == "float32" and mode.device.type == "cpu"
    return {"": network} | ({", ONNX Runtime": onnx_runtime(network)} if exports else {})


def onnx_runtime(network: nn.Module) -> Scorer:
    """The network as `python -m pamfn.export` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        exported(network, w.WIDTHS, 45.0).save(file, external_data=False)
        session = session_of(file)
    return lambda features: session.run(None, fed(features, [next(iter(features.values())).shape[1]]))


def latencies(size: w.Size, device: torch.device, videos: int) -> Iterator[Row]:
    """A row for every runtime and precision: seconds of each of so many videos, evenly over all lengths."""
    _, lengths, _ = w.lengths_of(size)
    chosen = sorted(lengths)[:: max(len(lengths) // videos, 1)]
    for modes in pairs(device):
        reference = w.reference_pamfn(size, modes[0]).network.eval()
        for runtime, ours in runtimes(size, modes[1]).items():
            title = f"one {size.title} video{runtime}, {said(*modes)}"
            yield alternated(Row(title, modes=modes), reference, ours, chosen)


@torch.inference_mode()
def alternated(row: Row, reference: Scorer, ours: Scorer, lengths: list[int]) -> Row:
    """Both sides on every video, first one first, then the other, after a few that are not timed."""
    sides = [(reference, row.reference, row.modes[0]), (ours, row.ours, row.modes[1])]
    for i, length in enumerate([*lengths[:WARM_UP], *lengths]):
        features = {m: torch.randn(1, length, c, device=row.modes[0].device) for m, c in w.WIDTHS.items()}
        for score, times, mode in sides if i % 2 == 0 else reversed(sides):
            with mode.products(), mode.autocast():
                times.append(seconds(lambda score=score, features=features: score(features), mode.device))
    del row.reference[:WARM_UP], row.ours[:WARM_UP]
    return row
