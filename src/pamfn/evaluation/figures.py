"""Plots of a run, as PNG."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pamfn.evaluation.protocols import Row
from pamfn.store import whole


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
    ax.set(xlabel="judges' points", ylabel="predicted points", title=title, aspect="equal")
    save(figure, path)


def plot_curves(path: Path, curves: Sequence[Row], marked: dict[str, int], title: str) -> None:
    """Training loss and Spearman's correlation by epoch; `marked` {label: epoch} are drawn as vertical lines."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    loss, srcc = figure.subplots(2, 1, sharex=True)
    epochs = [row["epoch"] for row in curves]
    loss.plot(epochs, [row["train/loss"] for row in curves], color="0.3")
    loss.set(ylabel="training MSE (score in [0, 1])", yscale="log", title=title)
    for split in ("holdout", "test"):
        if f"{split}/srcc" in curves[0]:
            srcc.plot(epochs, [row[f"{split}/srcc"] for row in curves], label=split)
    for style, (label, epoch) in zip(("--", ":", "-."), marked.items(), strict=False):
        srcc.axvline(epoch, color="0.5", linestyle=style, linewidth=1, label=f"{label} ({epoch})")
    srcc.set(xlabel="epoch", ylabel="Spearman's correlation")
    srcc.legend(fontsize=8)
    save(figure, path)
