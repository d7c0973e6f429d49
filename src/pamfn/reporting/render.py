"""A table of results beside the paper's figures, built from plain data, in four formats."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pandas as pd

from pamfn.evaluation.metrics import METRICS
from pamfn.reporting.cells import AVERAGES, Cell, Measured, Place, cells_of, ordered
from pamfn.reporting.costs import COST_COLUMNS, Cost

Format = Literal["markdown", "latex", "csv", "html"]
OUTSIDE, EQUAL, MISPRINT = "†", "=", "‡"


@dataclass(frozen=True)
class Layout:
    """What a table shows: rows by name, columns as shown, the row the others are compared with.

    left_out: rows of ours that are not asked for; any other that the paper has is shown even without runs.
    """

    name: str
    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    full: str | None
    metric: str
    side_by_side: bool = False
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class BuiltTable:
    """A table, ready to be written.

    frame: formatted; cells: numbers; missing: commands that would complete it; costs: of the rows, if it shows them.
    """

    name: str
    title: str
    metric: str
    cells: dict[Place, Cell]
    frame: pd.DataFrame
    notes: list[str]
    missing: list[str]
    costs: Mapping[str, Cost] = field(default_factory=dict)

    def markdown(self) -> str:
        parts = [f"## {self.title}", self.frame.to_markdown(index=False, disable_numparse=True)]
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        if self.missing:
            parts.append("\n".join(["What is missing:", "", "```", *self.missing, "```"]))
        return "\n\n".join(parts) + "\n"

    def latex(self) -> str:
        """A table environment (package booktabs), the notes below it, the commands as comments."""
        escaped = self.frame.map(latex).rename(columns=latex)
        table = escaped.to_latex(index=False, caption=latex(self.title), label=f"tab:{self.name}")
        notes = [f"{latex(note)}\\\\" for note in self.notes]
        body = table.removesuffix("\\end{table}\n") + "\n".join(["\\par\\footnotesize\\raggedright", *notes])
        return "\n".join([body, "\\end{table}", *(f"% missing: {command}" for command in self.missing)]) + "\n"

    def csv(self) -> str:
        """A line for every cell, with all its numbers, and two for a row's costs; empty for what there is not."""
        lines = [dict(zip(CSV_COLUMNS, line(self, cell), strict=True)) for cell in self.cells.values()]
        lines += [of_row for row, cost in self.costs.items() for of_row in cost.lines(self.title, row)]
        return pd.DataFrame(lines, columns=list(CSV_COLUMNS)).to_csv(index=False, lineterminator="\n")


CSV_COLUMNS = (
    *("table", "row", "column", "metric", "n", "values", "mean", "std", "low", "high", "paper", "difference"),
    *("outside", "p", "equal_to", "misprint"),
)


def line(table: BuiltTable, cell: Cell) -> list[object]:
    values = " ".join(f"{seed}:{value!r}" for seed, value in cell.values.items())
    ours = [cell.n, values, cell.mean, cell.std, cell.low, cell.high, cell.paper, cell.difference]
    marks = [cell.outside if cell.comparable else None, cell.p, "; ".join(cell.equal_to), cell.misprint]
    return [table.title, cell.row, cell.column, table.metric, *ours, *marks]


def latex(text: str) -> str:
    """Text as LaTeX source."""
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "$<$", ">": "$>$"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def build_table(
    layout: Layout,
    measured: Sequence[Measured],
    paper: Mapping[Place, float],
    notes: Sequence[str] = (),
    missing: Sequence[str] = (),
    costs: Mapping[str, Cost] | None = None,
) -> BuiltTable:
    """Puts numbers and the paper's figures {(row, column): figure} in their cells; says below what the marks mean.

    costs: {row: what it costs}, for columns of their own.
    """
    columns = ordered(layout.columns)
    extra = [row for row, column in paper if row not in (*layout.rows, *layout.left_out) and column in columns]
    layout = replace(layout, rows=[*layout.rows, *dict.fromkeys(extra)], columns=columns)
    cells, problems = cells_of(layout.metric, layout.rows, columns, layout.full, measured, paper)
    told = [*problems, *legend(layout, cells, paper), *notes]
    shown = {row: (costs or {}).get(row, Cost()) for row in layout.rows if costs}
    frame = framed(layout, cells, shown)
    return BuiltTable(layout.name, layout.title, layout.metric, cells, frame, told, list(missing), shown)


def framed(layout: Layout, cells: Mapping[Place, Cell], costs: Mapping[str, Cost]) -> pd.DataFrame:
    """The formatted table: for every row a line of ours, one of the paper's, one of p, those without anything left out.

    side_by_side: what stands before the comma in a row's name goes to the columns.
    """
    lines = []
    for label, places in placed(layout).items():
        shown = {place: cells.get(place) for place in places.values()}
        for kind, text in (("ours", ours), ("paper", of_paper), ("p", p_of)):
            texts = ["" if cell is None else text(layout.metric, cell) for cell in shown.values()]
            if kind == "ours" or any(texts):
                of_row = costs[label].texts(kind) if costs else ()
                lines.append([label if kind == "ours" else "", kind, *texts, *of_row])
    heads = [*next(iter(placed(layout).values()), {}), *(COST_COLUMNS if costs else ())]
    return pd.DataFrame(lines, columns=["row", "", *heads], dtype=str)


def placed(layout: Layout) -> dict[str, dict[str, Place]]:
    """{label of a line: {head of a column: the cell there}}; the place may be one without a cell."""
    if not layout.side_by_side:
        return {row: {column: (row, column) for column in layout.columns} for row in layout.rows}
    parts = {row: tuple(map(str.strip, row.rpartition(",")[::2])) for row in layout.rows}
    names = {part: row for row, part in parts.items()}
    groups = list(dict.fromkeys(group for group, _ in parts.values()))
    return {
        label: {
            f"{group}: {column}".removeprefix(": "): (names.get((group, label), ""), column)
            for group in groups
            for column in layout.columns
        }
        for label in dict.fromkeys(label for _, label in parts.values())
    }


def ours(metric: str, cell: Cell) -> str:
    """`.920 ± .004 (3) [.87, .95]`"""
    if not cell.values:
        return "-"
    if not cell.n:
        return "nan"
    std = "" if math.isnan(cell.std) else f" ± {number(metric, cell.std)}"
    bounds = "" if math.isnan(cell.low) else f" [{number(metric, cell.low, 2)}, {number(metric, cell.high, 2)}]"
    return f"{number(metric, cell.mean)}{std} ({cell.n}){bounds}{f' {EQUAL}' if cell.equal_to else ''}"


def of_paper(metric: str, cell: Cell) -> str:
    """`.757 (+.163) †`"""
    if math.isnan(cell.paper):
        return ""
    difference = "" if math.isnan(cell.difference) else f" ({number(metric, cell.difference, sign='+')})"
    marks = [mark for mark, set_ in ((OUTSIDE, cell.outside), (MISPRINT, not math.isnan(cell.misprint))) if set_]
    return " ".join([f"{number(metric, cell.paper)}{difference}", *marks])


def p_of(metric: str, cell: Cell) -> str:
    if math.isnan(cell.p):
        return ""
    return "< .001" if cell.p < 0.001 else decimals(cell.p)


def number(metric: str, value: float, digits: int = 3, sign: str = "") -> str:
    """What cannot be above 1 with so many decimals and no zero before them, errors with so many digits."""
    return decimals(value, digits, sign) if METRICS[metric].at_most_one else f"{value:{sign}.{max(digits, 3)}g}"


def decimals(value: float, digits: int = 3, sign: str = "") -> str:
    """`.920`"""
    text = f"{value:{sign}.{digits}f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def legend(layout: Layout, cells: Mapping[Place, Cell], paper: Mapping[Place, float]) -> list[str]:
    """What the numbers and the marks in a table mean."""
    shown = list(cells.values())
    told = [f"ours: {layout.metric}, mean ± standard deviation over seeds (number of seeds)"]
    if any(not math.isnan(cell.low) for cell in shown):
        told[0] += (
            " [95 % interval: bootstrap over the test videos, taken as independent, averaged over the same seeds]"
        )
    told[0] += "; - is not run." if any(not cell.values for cell in shown) else "."
    if any(cell.values and cell.column in AVERAGES for cell in shown):
        fisher = ", in Fisher-z space as in the paper" if METRICS[layout.metric].is_correlation else ""
        told.append(
            f"Averages are over {' or '.join(averages_of(layout.columns))}{fisher}, of the columns' means; their "
            "standard deviation is that of the seeds' own averages."
        )
    if paper and any(not math.isnan(cell.paper) for cell in shown):
        told.append("paper: the published figure (ours less the paper's).")
    if any(not math.isnan(cell.p) for cell in shown):
        told.append(
            f"p: against {layout.full}, two-sided, paired bootstrap over the same test videos. It is about these "
            "trained networks on other videos; what other seeds would change, and the number of comparisons, are not "
            "in it."
        )
        told += [
            f"p of {cell.row}, {cell.column}: over seed{'s' * (len(cell.p_seeds) > 1)} "
            f"{', '.join(map(str, cell.p_seeds))}, which both rows have."
            for cell in shown
            if cell.p_seeds
        ]
    if any(cell.outside for cell in shown):
        told.append(f"{OUTSIDE} the paper's figure lies outside our interval.")
    told += [
        f"{MISPRINT} {cell.row}: the paper prints {number(layout.metric, cell.paper)} for {cell.column}, and its own "
        f"figures average to {number(layout.metric, cell.misprint)}."
        for cell in shown
        if not math.isnan(cell.misprint)
    ]
    return told + equal_rows(shown)


def averages_of(columns: Sequence[str]) -> list[str]:
    return [", ".join(AVERAGES[column]) for column in columns if column in AVERAGES]


def equal_rows(cells: Sequence[Cell]) -> list[str]:
    """A question for every set of rows that came out the same."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for cell in cells:
        if cell.equal_to:
            groups.setdefault(tuple(sorted((cell.row, *cell.equal_to))), []).append(cell.column)
    return [
        f"{EQUAL} the same to six digits in {', '.join(dict.fromkeys(columns))}: {'; '.join(rows)}. "
        "Is the switch connected?"
        for rows, columns in groups.items()
    ]


REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


UNENCODABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What no page can hold: control characters but for tab and newline, halves of a character, what is none."""


def page_text(text: str) -> str:
    """A text that can be written as UTF-8 and read as a page: what cannot is replaced."""
    return UNENCODABLE.sub(REPLACEMENT, text)
