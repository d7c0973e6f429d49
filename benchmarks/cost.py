"""`python -m benchmarks.cost`: what an epoch costs as segments, FusionNets, videos and modalities grow.

Measures short epochs on generated features in a bare loop (CPU seconds, one thread), fits the linear model of
`pamfn.cost` to them, and writes `experiments/cost.json`, which `--dry` reads, and `experiments/cost.png`. With
`--sweep` nothing is measured: it prints what every table of the paper costs on this machine.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from scipy.optimize import nnls

from benchmarks import workloads as w
from benchmarks.devices import CPU, Mode, described, has_bf16, seconds
from pamfn import config, cost
from pamfn.cost import Epoch, predicted
from pamfn.models.branch import ModalityBranch
from pamfn.models.late_fusion import LateFusion
from pamfn.pipeline import build_network
from pamfn.results import COMMIT
from pamfn.sweep import costs_of, sweep_of

PRECISIONS = {"32-true": CPU, "bf16-mixed": Mode(CPU.device, "bfloat16")}
"""Lightning's names of them."""

CENTRE = Epoch(64, 16, segments=64, frozen=(1024, 1024), trained=(768,), fusion_nets=6, mixed=True)
"""What the other points differ from in one respect or two."""

AXES = {
    "segments of a crop, T": [replace(CENTRE, segments=t) for t in (16, 32, 64, 130)],
    "FusionNets, K": [replace(CENTRE, fusion_nets=k) for k in (1, 3, 6, 10)],
    "training videos (and a quarter as many to test)": [replace(CENTRE, train=n, test=n // 4) for n in (32, 64, 128)],
    "modalities, M": [replace(CENTRE, frozen=(1024,) * m) for m in (1, 2, 3)],
}
"""The points that are drawn: one number grows."""

OTHERS = [
    replace(CENTRE, segments=70, fusion_nets=10),
    replace(CENTRE, frozen=(), trained=(1024, 1024, 768)),
    replace(CENTRE, frozen=(128, 128), trained=(128,)),
    replace(CENTRE, frozen=(), trained=(128, 128, 128)),
    replace(CENTRE, own_attention=True),
    replace(CENTRE, own_attention=True, frozen=(1024,)),
    *(replace(CENTRE, draws=draws) for draws in (2, 10)),
    replace(CENTRE, draws=10, segments=130, fusion_nets=10),
    replace(CENTRE, fusion_nets=0, mixed=False, frozen=(1024, 1024)),
    replace(CENTRE, fusion_nets=0, mixed=False, frozen=(), trained=(1024, 1024, 768)),
    *(replace(CENTRE, fusion_nets=0, mixed=False, frozen=(), trained=(1024,), segments=t) for t in (16, 64, 130)),
    replace(CENTRE, fusion_nets=0, mixed=False, frozen=(), trained=(128,)),
    replace(CENTRE, fusion_nets=0, mixed=False, frozen=(), trained=(1024,), train=192, test=48),
]
"""Points that tell the terms apart: widths, what learns, attention layers, decisions, late fusion, stage 1."""

METHODS = ("gdlt", "action_net", "ms_lstm", "joint_va", "msaf", "umt")
"""Compared methods, measured at Fis-V's size alone: their ablations."""


@dataclass(frozen=True)
class Point:
    """CPU seconds that the two parts of an epoch took."""

    epoch: Epoch
    training: float
    testing: float

    @property
    def seconds(self) -> float:
        return self.training + self.testing


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="once each, and nothing is written to experiments/")
    parser.add_argument("--sweep", action="store_true", help="what the tables of the paper cost on this machine")
    parser.add_argument("words", nargs="*", metavar="setting", help="of --sweep, e.g. trainer.precision=bf16-mixed")
    options = parser.parse_args()
    if options.sweep:
        print_sweep(options.words)
        return
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found = measured(repeats=1 if options.quick else 3)
    for precision, model in found["precisions"].items():
        error, number = model["error"], len(model["points"])
        print(
            f"{precision}: {number} epochs, the model is off by {error['median']:.1%}, at most {error['largest']:.1%}"
        )
    if not options.quick:
        cost.FILE.write_text(json.dumps(found, indent=1) + "\n")
        draw(found, cost.FILE.with_suffix(".png"))


def measured(repeats: int) -> dict[str, Any]:
    """The model in every precision that this machine has, with the points it was fitted to."""
    found: dict[str, Any] = {
        **{"machine": described(CPU.device), "commit": COMMIT, "date": datetime.now(UTC).date().isoformat()},
        **{"products_a_second": cost.products_a_second(), "precisions": {}},
    }
    epochs = list(dict.fromkeys([*(epoch for axis in AXES.values() for epoch in axis), *OTHERS]))
    for precision, mode in PRECISIONS.items():
        if mode != CPU and not has_bf16():
            continue
        rounds = [[timed(epoch, mode) for epoch in epochs] for _ in range(repeats)]
        points = [fastest(same) for same in zip(*rounds, strict=True)]
        model: dict[str, Any] = {part: fit(points, part) for part in ("training", "testing")}
        errors = [abs(predicted(p.epoch, model) / p.seconds - 1) for p in points]
        model["error"] = {"median": float(np.median(errors)), "largest": max(errors)}
        model["methods"] = dict(methods(mode, repeats))
        model["points"] = [asdict(point) for point in points]
        found["precisions"][precision] = model
    return found


def timed(epoch: Epoch, mode: Mode) -> Point:
    """One epoch, after a step and a test batch that are not timed."""
    widths = {f"stream{i}": width for i, width in enumerate(epoch.frozen + epoch.trained)}
    work = work_of(epoch, widths, mode)
    # test videos as long as crops on average, of more than one length, so that they are padded and masked
    around = np.linspace(0.95, 1.05, epoch.test) * epoch.segments
    train = w.generated_videos([epoch.segments] * epoch.train, widths)
    test = w.generated_videos([max(round(t), 4) for t in around], widths)
    w.our_epoch(work, train.subset(range(w.BATCH)), test.subset(range(w.TEST_BATCH // 2)), epoch.segments)
    training = seconds(lambda: w.our_training(work, train, epoch.segments))
    point = Point(epoch, training, seconds(lambda: w.our_test(work, test)))
    print(f"  {mode.precision}: {point.seconds:.2f} s, {epoch}", file=sys.stderr, flush=True)
    return point


def fastest(points: Sequence[Point]) -> Point:
    """The least that the same epoch took: others on the machine only add to it, but not in every round."""
    return Point(points[0].epoch, min(p.training for p in points), min(p.testing for p in points))


def work_of(epoch: Epoch, widths: dict[str, int], mode: Mode) -> w.Work:
    """The network in training."""
    learns = list(widths)[len(epoch.frozen) :]
    if epoch.mixed:
        size = w.Size("", epoch.segments, int(epoch.fusion_nets), shared_attention=not epoch.own_attention)
        return w.our_pamfn(size, mode, widths, learns, samples=epoch.draws)
    branches = {m: ModalityBranch(width=width) for m, width in widths.items()}
    if len(branches) == 1:
        (network,) = branches.values()
    else:
        network = LateFusion(branches=branches, fusion="weighted", finetune=learns, frozen="train")
    return w.Work(network, w.our_optimizer(network, w.STAGE1), lambda features: network(features).score, mode)


def fit(points: list[Point], part: str) -> dict[str, float]:
    """Seconds that every term of a part of an epoch costs: least squares of relative errors, none below zero."""
    rows = [getattr(point.epoch, part)() for point in points]
    terms = np.array([list(row.values()) for row in rows])
    taken = np.array([getattr(point, part) for point in points])
    scale = terms.max(axis=0)
    found, _ = nnls(terms / scale / taken[:, None], np.ones(len(points)))
    return dict(zip(rows[0], (found / scale).tolist(), strict=True))


def methods(mode: Mode, repeats: int) -> Iterator[tuple[str, dict[str, float]]]:
    """(class, seconds a segment of training and of testing) of every compared method."""
    config.register()
    for name in METHODS:
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            checked = config.checked(compose("train", overrides=["+experiment=fisv_tes", f"+ablation={name}"]))
        widths = {m: stream.width for m, stream in checked.streams.items()}
        network = build_network(checked, "baseline", list(widths))
        optimizer = w.our_optimizer(network, w.STAGE1)
        work = w.Work(network, optimizer, lambda features, network=network: network(features).score, mode)
        crop = (checked.recipe.baseline.crop if checked.recipe.baseline else None) or checked.data["crop"]
        videos = w.generated_videos([crop] * w.BATCH, widths)
        times: dict[str, list[float]] = {"training": [], "testing": []}
        for _ in range(1 + repeats):
            times["training"].append(seconds(lambda: w.our_training(work, videos, crop)))  # noqa: B023
            times["testing"].append(seconds(lambda: w.our_test(work, videos)))  # noqa: B023
        yield checked.model["_target_"], {part: min(x[1:]) / (w.BATCH * crop) for part, x in times.items()}


def draw(found: dict[str, Any], file: Path) -> None:
    """Measured epochs, and the model's line through them, as one number grows."""
    figure, axes = plt.subplots(1, len(AXES), figsize=(14, 3.2), layout="constrained")
    varied = [lambda e: e.segments, lambda e: e.fusion_nets, lambda e: e.train, lambda e: len(e.frozen + e.trained)]
    for axis, (title, epochs), number in zip(axes, AXES.items(), varied, strict=True):
        x = [number(epoch) for epoch in epochs]
        for precision, model in found["precisions"].items():
            points = {json.dumps(p["epoch"]): p["training"] + p["testing"] for p in model["points"]}
            (line,) = axis.plot(x, [predicted(epoch, model) for epoch in epochs])
            axis.plot(x, [points[json.dumps(asdict(e))] for e in epochs], "o", color=line.get_color(), label=precision)
        axis.set(xlabel=title, xlim=(0, None), ylim=(0, None))
    axes[0].set_ylabel("CPU s an epoch")
    axes[0].legend()
    figure.suptitle(
        f"Stage 2 on 64 + 16 videos, T = {CENTRE.segments}, K = 6, M = 3, but for what grows; lines: the model",
        fontsize=10,
    )
    figure.savefig(file, dpi=110)
    plt.close(figure)


def print_sweep(words: list[str]) -> None:
    """Every table's networks that no table above it has, and their hours of one thread, as though nothing were done."""
    print(f"{described(CPU.device)}; {cost.products_a_second() / 1e9:.0f} GFLOP/s\n")
    print("| table | jobs | networks of its own | hours of one thread | of unknown cost |\n|---|---|---|---|---|")
    seen: dict[str, float | None] = {}
    jobs = 0
    for name in config.table_names():
        sweep = sweep_of(name, words)
        new = {run: hours for run, (hours, _) in costs_of(sweep.jobs).items() if run not in seen}
        seen |= new
        jobs += len(sweep.jobs)
        print(table_line(name, len(sweep.jobs), new), flush=True)
    print(table_line("all", jobs, seen))


def table_line(name: str, jobs: int, costs: dict[str, float | None]) -> str:
    """A row of the table."""
    known = [hours for hours in costs.values() if hours is not None]
    return f"| {name} | {jobs} | {len(costs)} | {sum(known):.1f} | {len(costs) - len(known)} |"


if __name__ == "__main__":
    main()
