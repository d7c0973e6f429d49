"""Plots of runs, as PNG: what every run leaves behind, and the paper's Figures 5 to 8."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from pamfn.evaluation.protocols import Row, main_metric, metrics_in
from pamfn.evaluation.statistics import spread as spread_over_seeds
from pamfn.store import whole

NAMES = {"srcc": "Spearman's correlation", "map": "mean average precision"}
"""Main metrics, in words."""


def save(figure: Figure, path: Path) -> None:
    with whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def plot_predictions(
    path: Path, true: Sequence[float], predicted: Sequence[float], spread: Sequence[float], title: str
) -> None:
    """Predicted against true points, with the diagonal; bars show the spread over decision samples if there is one."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    ax: Axes = figure.subplots()
    low, high = min(*true, *predicted), max(*true, *predicted)
    ax.plot([low, high], [low, high], color="0.7", linewidth=1, zorder=0)
    ax.scatter(true, predicted, s=18, alpha=0.8)
    if any(spread):
        ax.errorbar(true, predicted, yerr=spread, fmt="none", elinewidth=0.8, alpha=0.5)
    ax.set(xlabel="judges' points", ylabel="predicted points", aspect="equal")
    ax.set_title(title, fontsize="small")
    save(figure, path)


def plot_video_precision(path: Path, precision: Sequence[float], chance: Sequence[float], title: str) -> None:
    """Average precision of every video, best first, and of its clips in random order."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax: Axes = figure.subplots()
    order = sorted(range(len(precision)), key=lambda v: -precision[v])
    ax.bar(range(len(order)), [precision[v] for v in order], color="0.6", label="average precision")
    ax.plot(range(len(order)), [chance[v] for v in order], "k_", label=f"random order, mean {fmean(chance):.3f}")
    ax.axhline(fmean(precision), color="C0", linewidth=1, label=f"mean {fmean(precision):.3f}")
    ax.set(xlabel="test videos, best first", ylabel="average precision", ylim=(0, 1.02))
    ax.set_title(title, fontsize="small")
    ax.legend(fontsize=8)
    save(figure, path)


def plot_highlights(
    path: Path, grid: ArrayLike, labels: ArrayLike, scores: ArrayLike, title: str, *, unit: str = "seconds"
) -> None:
    """A video's scores (n,) in the middle of their clips, grid (n, 2) of start and end; annotated highlights shaded."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    ax: Axes = figure.subplots()
    clips = np.asarray(grid)[: len(np.asarray(scores))]
    for (start, end), label in zip(clips, np.asarray(labels), strict=True):
        if label:
            ax.axvspan(start, end, color="#fddcbb", linewidth=0)  # clips overlap: not transparent
    ax.plot(clips.mean(axis=1), scores, marker=".", markersize=4, linewidth=1)
    ax.set(xlabel=f"time ({unit})", ylabel="highlight score", ylim=(-0.02, 1.02), xlim=(clips[0, 0], clips[-1, 1]))
    ax.set_title(f"{title} (shaded: annotated highlights)", fontsize="small")
    save(figure, path)


def plot_curves(path: Path, curves: Sequence[Row], marked: dict[str, int], title: str) -> None:
    """Training loss and main metric by epoch; `marked` {label: epoch} are drawn as vertical lines."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    loss, agreement = figure.subplots(2, 1, sharex=True)
    metric = main_metric(metrics_in(curves[0], "test"))
    wanted = "MSE (score in [0, 1])" if metric == "srcc" else "cross-entropy"
    epochs = [row["epoch"] for row in curves]
    loss.plot(epochs, [row["train/loss"] for row in curves], color="0.3")
    loss.set(ylabel=f"training {wanted}", yscale="log", title=title)
    for split in ("holdout", "test"):
        if f"{split}/{metric}" in curves[0]:
            agreement.plot(epochs, [row[f"{split}/{metric}"] for row in curves], label=split)
    if "test/chance" in curves[0]:
        agreement.axhline(curves[0]["test/chance"], color="0.7", linewidth=1, label="random order (test)")
    for style, (label, epoch) in zip(("--", ":", "-."), marked.items(), strict=False):
        agreement.axvline(epoch, color="0.5", linestyle=style, linewidth=1, label=f"{label} ({epoch})")
    agreement.set(xlabel="epoch", ylabel=NAMES[metric])
    agreement.legend(fontsize=8)
    save(figure, path)


def plot_decisions(path: Path, counts: Mapping[str, Sequence[Sequence[int]]], split: str = "test") -> None:
    """Figure 5: how often each number of FusionNets was enabled, a panel a stage, a line a run.

    `counts` {run: [[n_0, ..., n_K] of every stage]}; a stage that decided nothing counts zeros and has no line. The
    dashed line is a uniform choice among 1..K.
    """
    stages = max(map(len, counts.values()))
    figure = Figure(figsize=(max(3.2 * stages, 4.5), 3.6), layout="constrained")
    panels = figure.subplots(1, stages, sharey=True, squeeze=False)[0]
    for label, decided in counts.items():
        first = 0 if any(stage[0] for stage in decided) else 1  # only a network that is not ranked can disable all
        for ax, stage in zip(panels, decided, strict=False):
            if sum(stage):
                frequency = [n / sum(stage) for n in stage[first:]]
                ax.plot(range(first, len(stage)), frequency, marker="o", markersize=3, label=label)
    for i, ax in enumerate(panels):
        for networks in sorted({len(decided[0]) - 1 for decided in counts.values()}):
            label = f"uniform, K = {networks}"
            ax.plot([1, networks], [1 / networks] * 2, color="0.4", linestyle="--", linewidth=1, label=label)
        ax.set(xlabel="enabled FusionNets", title=f"stage {i + 1}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set(ylabel=f"frequency ({split})")
    panels[0].set_ylim(bottom=0)
    legend_below(figure, panels[0])
    save(figure, path)


def plot_fusionnets(path: Path, srcc: Mapping[str, Mapping[int, Sequence[float]]], reported: str) -> None:
    """Figure 6: Spearman's correlation against the number of FusionNets, a line a data set.

    `srcc` {data set: {K: values of the seeds}}; a line joins their means, the band is their standard deviation, as
    in the tables, and every seed is a small point. `reported`: the protocol that the values come from.
    """
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    ax: Axes = figure.subplots()
    for label, by_networks in srcc.items():
        networks = sorted(by_networks)
        mean = [fmean(by_networks[k]) for k in networks]
        seeds = [spread_over_seeds(by_networks[k]) for k in networks]
        (line,) = ax.plot(networks, mean, marker="o", markersize=4, label=label)
        low, high = ([m + sign * s for m, s in zip(mean, seeds, strict=True)] for sign in (-1, 1))
        ax.fill_between(networks, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        each = [(k, value) for k in networks for value in by_networks[k]]
        ax.plot(*zip(*each, strict=True), ".", color=line.get_color(), alpha=0.5, markersize=4)
    ax.set(xlabel="number of FusionNets K", ylabel=f"Spearman's correlation ({reported.replace('_', ' ')})")
    ax.set_xticks(sorted({k for by_networks in srcc.values() for k in by_networks}))
    legend_below(figure, ax)
    save(figure, path)


def plot_attention(path: Path, weights: Mapping[str, Sequence[float]], step: int, title: str) -> None:
    """Figure 7: the weight of every modality over time for one video; `step`: segments that a time step spans."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax: Axes = figure.subplots()
    for modality, values in weights.items():
        ax.plot(middles(len(values), step), values, marker="o", markersize=3, label=modality)
    ax.axhline(1 / len(weights), color="0.4", linestyle="--", linewidth=1, label="uniform")
    ax.set(xlabel="segment", ylabel="attention weight (MSFD)", title=title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, ax)
    save(figure, path)


def plot_policy(path: Path, decision: Sequence[int], networks: int, step: int, title: str) -> None:
    """Figure 8: how many of the FusionNets were enabled over time for one video; `step` as in `plot_attention`."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    ax: Axes = figure.subplots()
    ax.step(middles(len(decision), step), decision, where="mid", marker="o", markersize=3)
    ax.set(xlabel="segment", ylabel="enabled FusionNets", title=title, ylim=(-0.3, networks + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, path)


def middles(steps: int, step: int) -> list[float]:
    """The middle of every time step, in segments."""
    return [(i + 0.5) * step for i in range(steps)]


def legend_below(figure: Figure, ax: Axes) -> None:
    """One line of labels under the plot, where it hides nothing."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
