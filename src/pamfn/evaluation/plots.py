"""Draw plots of runs as PNG: those that every run leaves behind, and the paper's Figures 5 to 8.

Text that comes from data is made safe here (`plot_text`). Numbers that cannot be drawn are left out, and where nothing
can be drawn an InputError says so.
"""

import math
import warnings
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from pamfn.errors import InputError
from pamfn.evaluation.intervals import spread as spread_over_seeds
from pamfn.evaluation.metrics import METRICS, main_metric
from pamfn.evaluation.selection import Row, metrics_in
from pamfn.files import whole

DRAWABLE = 1e30
"""Larger numbers are not drawn: beyond float32 an axis has no ends."""
SHOWN = 200
"""Characters of a text that a plot shows: a longer one loses its middle."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG that appears whole."""
    with whole(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box stands there instead
        figure.savefig(temporary, format="png", dpi=110)


def plot_text(text: str) -> str:
    r"""A line for a plot: no formula, nothing that is not printable, no newline; of what is too long both ends.

    A line that is safe already stays as it is. matplotlib leaves labels that start with `_` out of a legend, so a
    space comes before it.
    """
    plain = text.replace(r"\$", "$").replace("\N{NO-BREAK SPACE}", " ")
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in plain)
    shown = f" {shown}" if shown.startswith("_") else shown
    if len(shown) > SHOWN:
        shown = f"{shown[: SHOWN // 2]}…{shown[len(shown) - SHOWN // 2 + 1 :]}"
    return shown.replace("$", r"\$")


def plot_title(text: str) -> str:
    """The lines of a plot's title, three at most; each as `plot_text`."""
    return "\n".join(plot_text(line) for line in text.split("\n", 2))


def drawable(values: ArrayLike) -> NDArray[np.float64]:
    """The numbers with nan, which is not drawn, in the place of those that cannot be."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.where(np.abs(numbers) <= DRAWABLE, numbers, np.nan)


def refuse_nothing(things: Sized, what: str) -> None:
    """Refuse to draw what is empty."""
    if len(things) == 0:
        raise InputError(f"nothing can be drawn: there are no {what}.")


def plot_predictions(
    path: Path, true: Sequence[float], predicted: Sequence[float], spread: Sequence[float], title: str
) -> None:
    """Plot predicted against true points, with the diagonal; bars show the spread over decision samples, if any."""
    refuse_nothing(true, "videos")
    figure = Figure(figsize=(5, 5), layout="constrained")
    ax: Axes = figure.subplots()
    x, y, bars = drawable(true), drawable(predicted), drawable(spread)
    known = [value for value in (*x, *y) if not math.isnan(value)]
    ends = [min(known), max(known)] if known else []
    ax.plot(ends, ends, color="0.7", linewidth=1, zorder=0)
    ax.scatter(x, y, s=18, alpha=0.8)
    if any(spread):
        ax.errorbar(x, y, yerr=bars, fmt="none", elinewidth=0.8, alpha=0.5)
    ax.set(xlabel="judges' points", ylabel="predicted points", aspect="equal")
    ax.set_title(plot_title(title), fontsize="small")
    save(figure, path)


def plot_video_precision(path: Path, precision: Sequence[float], chance: Sequence[float], title: str) -> None:
    """Plot the average precision of every video, best first, and of its clips in random order."""
    refuse_nothing(precision, "videos")
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax: Axes = figure.subplots()
    each, by_chance = drawable(precision), drawable(chance)
    order = np.argsort(-each, kind="stable")  # nan last
    ax.bar(range(len(order)), each[order], color="0.6", label="average precision")
    ax.plot(range(len(order)), by_chance[order], "k_", label=f"random order, mean {fmean(by_chance):.3f}")
    ax.axhline(fmean(each), color="C0", linewidth=1, label=f"mean {fmean(each):.3f}")
    ax.set(xlabel="test videos, best first", ylabel="average precision", ylim=(0, 1.02))
    ax.set_title(plot_title(title), fontsize="small")
    ax.legend(fontsize=8)
    save(figure, path)


def plot_highlights(
    path: Path, grid: ArrayLike, labels: ArrayLike, scores: ArrayLike, title: str, *, unit: str = "seconds"
) -> None:
    """Plot a video's scores (n,) over its clips, grid (n, 2) of start and end, with annotated highlights shaded."""
    shown = drawable(scores)
    refuse_nothing(shown, "clips")
    figure = Figure(figsize=(8, 3), layout="constrained")
    ax: Axes = figure.subplots()
    clips = drawable(grid)[: len(shown)]
    for (start, end), label in zip(clips, np.asarray(labels), strict=True):
        if label:
            ax.axvspan(start, end, color="#fddcbb", linewidth=0)  # clips overlap: not transparent
    ax.plot(clips.mean(axis=1), shown, marker=".", markersize=4, linewidth=1)
    ax.set(xlabel=f"time ({plot_text(unit)})", ylabel="highlight score", ylim=(-0.02, 1.02))
    if clips[0, 0] < clips[-1, 1]:
        ax.set_xlim(clips[0, 0], clips[-1, 1])
    ax.set_title(f"{plot_title(title)} (shaded: annotated highlights)", fontsize="small")
    save(figure, path)


def plot_curves(path: Path, curves: Sequence[Row], marked: dict[str, int], title: str) -> None:
    """Plot training loss and main metric by epoch; `marked` {label: epoch} are drawn as vertical lines."""
    refuse_nothing(curves, "epochs")
    figure = Figure(figsize=(7, 5), layout="constrained")
    loss, agreement = figure.subplots(2, 1, sharex=True)
    metric = main_metric(metrics_in(curves[0], "test"))
    wanted = "MSE (score in [0, 1])" if METRICS[metric].predicts == "score" else "cross-entropy"
    epochs = [row["epoch"] for row in curves]
    losses = drawable([row["train/loss"] for row in curves])
    loss.plot(epochs, losses, color="0.3")
    loss.set(ylabel=f"training {wanted}", yscale="log" if (losses > 0).any() else "linear", title=plot_title(title))
    for split in ("holdout", "test"):
        if f"{split}/{metric}" in curves[0]:
            agreement.plot(epochs, drawable([row[f"{split}/{metric}"] for row in curves]), label=split)
    if "test/chance" in curves[0]:
        agreement.axhline(curves[0]["test/chance"], color="0.7", linewidth=1, label="random order (test)")
    for style, (label, epoch) in zip(("--", ":", "-."), marked.items(), strict=False):
        agreement.axvline(epoch, color="0.5", linestyle=style, linewidth=1, label=plot_text(f"{label} ({epoch})"))
    agreement.set(xlabel="epoch", ylabel=METRICS[metric].label)
    agreement.legend(fontsize=8).set_in_layout(False)  # a long label may hide the curves, but not squeeze them
    save(figure, path)


def plot_decisions(path: Path, counts: Mapping[str, Sequence[Sequence[int]]], split: str = "test") -> None:
    """Plot Figure 5: how often each number of FusionNets was enabled, a panel a stage, a line a run.

    `counts` {run: [[n_0, ..., n_K] of every stage]}; a stage that decided nothing counts zeros and has no line. The
    dashed line is a uniform choice among 1..K.
    """
    refuse_nothing(counts, "runs")
    stages = max(map(len, counts.values()))
    figure = Figure(figsize=(max(3.2 * stages, 4.5), 3.6), layout="constrained")
    panels = figure.subplots(1, stages, sharey=True, squeeze=False)[0]
    for label, decided in counts.items():
        first = 0 if any(stage[0] for stage in decided) else 1  # only a network that is not ranked can disable all
        for ax, stage in zip(panels, decided, strict=False):
            if sum(stage):
                frequency = [n / sum(stage) for n in stage[first:]]
                ax.plot(range(first, len(stage)), frequency, marker="o", markersize=3, label=plot_text(label))
    for i, ax in enumerate(panels):
        for networks in sorted({len(decided[0]) - 1 for decided in counts.values()}):
            label = f"uniform, K = {networks}"
            ax.plot([1, networks], [1 / networks] * 2, color="0.4", linestyle="--", linewidth=1, label=label)
        ax.set(xlabel="enabled FusionNets", title=f"stage {i + 1}")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set(ylabel=f"frequency ({plot_text(split)})")
    panels[0].set_ylim(bottom=0)
    legend_below(figure, panels[0])
    save(figure, path)


def plot_fusionnets(path: Path, srcc: Mapping[str, Mapping[int, Sequence[float]]], reported: str) -> None:
    """Plot Figure 6: Spearman's correlation against the number of FusionNets, a line a data set.

    `srcc` {data set: {K: values of the seeds}}; a line joins their means, the band is their standard deviation, as
    in the tables, and every seed is a small point. `reported`: the protocol that the values come from.
    """
    refuse_nothing(srcc, "runs")
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    ax: Axes = figure.subplots()
    for label, values in srcc.items():
        by_networks = {k: drawable(values[k]).tolist() for k in sorted(values)}
        networks = list(by_networks)
        mean = [fmean(by_networks[k]) for k in networks]
        seeds = [spread_over_seeds(by_networks[k]) for k in networks]
        (line,) = ax.plot(networks, mean, marker="o", markersize=4, label=plot_text(label))
        low, high = ([m + sign * s for m, s in zip(mean, seeds, strict=True)] for sign in (-1, 1))
        ax.fill_between(networks, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        each = [(k, value) for k in networks for value in by_networks[k]]
        ax.plot(*zip(*each, strict=True), ".", color=line.get_color(), alpha=0.5, markersize=4)
    ax.set(xlabel="number of FusionNets K", ylabel=f"{METRICS['srcc'].label} ({plot_text(reported.replace('_', ' '))})")
    ax.set_xticks(sorted({k for by_networks in srcc.values() for k in by_networks}))
    legend_below(figure, ax)
    save(figure, path)


def plot_attention(path: Path, weights: Mapping[str, Sequence[float]], step: int, title: str) -> None:
    """Plot Figure 7: every modality's weight over time for one video; `step`: segments that a time step spans."""
    refuse_nothing(weights, "modalities")
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax: Axes = figure.subplots()
    for modality, values in weights.items():
        ax.plot(middles(len(values), step), drawable(values), marker="o", markersize=3, label=plot_text(modality))
    ax.axhline(1 / len(weights), color="0.4", linestyle="--", linewidth=1, label="uniform")
    ax.set(xlabel="segment", ylabel="attention weight (MSFD)", title=plot_title(title))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(figure, ax)
    save(figure, path)


def plot_policy(path: Path, decision: Sequence[int], networks: int, step: int, title: str) -> None:
    """Plot Figure 8: how many FusionNets were enabled over time for one video; `step` as in `plot_attention`."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    ax: Axes = figure.subplots()
    ax.step(middles(len(decision), step), decision, where="mid", marker="o", markersize=3)
    ax.set(xlabel="segment", ylabel="enabled FusionNets", title=plot_title(title), ylim=(-0.3, networks + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    save(figure, path)


def middles(steps: int, step: int) -> list[float]:
    """The middle of every time step, in segments."""
    return [(i + 0.5) * step for i in range(steps)]


def legend_below(figure: Figure, ax: Axes) -> None:
    """Put the labels in a line under the plot, where they hide nothing."""
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
