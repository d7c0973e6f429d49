"""Draw a table as a forest plot: every row's number with its interval, and the paper's figure."""

import math
from pathlib import Path

from matplotlib.figure import Figure

from pamfn.errors import InputError
from pamfn.evaluation.metrics import METRICS
from pamfn.evaluation.plots import plot_text, save
from pamfn.reporting.render import BuiltTable

ROW, PANEL, MARGIN, NARROWEST = 0.32, 2.3, 1.3, 6.5
"""Inches: height of a row, width of a column, height of titles and the axis, least width (of the text below)."""


def draw_forest(table: BuiltTable, path: Path) -> None:
    """Draw a panel for every column of a table.

    Raises:
        InputError: when no row has a number.
    """
    cells = [cell for cell in table.cells.values() if cell.n]
    if not cells:
        raise InputError(f"{table.name}: no row has a number to draw.")
    columns = list(dict.fromkeys(cell.column for cell in cells))
    rows = list(dict.fromkeys(cell.row for cell in cells))
    labels = 0.085 * max(map(len, rows))
    width = max(labels + PANEL * len(columns), NARROWEST)
    figure = Figure(figsize=(width, MARGIN + ROW * len(rows)), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=True):
        for cell in (cell for cell in cells if cell.column == column):
            y = rows.index(cell.row)
            if not math.isnan(cell.low):
                axes.plot([cell.low, cell.high], [y, y], color="tab:blue", linewidth=2, solid_capstyle="butt")
            axes.plot(cell.mean, y, "o", color="tab:blue", markersize=6)
            if not math.isnan(cell.paper):
                axes.plot(cell.paper, y, "D", color="black", markerfacecolor="none", markersize=6)
            if cell.row == table.full:
                axes.axvline(cell.mean, color="tab:blue", linewidth=0.8, linestyle=":", zorder=0)
        axes.set_title(plot_text(column), fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(rows)), [plot_text(row) for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    shown = "dot: ours, line: its 95 % interval" + ("; diamond: the paper" if has_paper(table) else "")
    dotted = "; dotted: the row that the others are compared with" if table.full in rows else ""
    figure.supxlabel(f"{METRICS[table.metric].label}\n{shown}{dotted}", fontsize=9)
    figure.suptitle(plot_text(table.title), fontsize=11)
    save(figure, path)


def has_paper(table: BuiltTable) -> bool:
    """Whether a row with a number has a figure of the paper."""
    return any(cell.n and not math.isnan(cell.paper) for cell in table.cells.values())
