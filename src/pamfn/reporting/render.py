"""Put a table's numbers beside the paper's figures and write it in four formats."""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pandas as pd
from jinja2 import StrictUndefined, Template

from pamfn.evaluation.metrics import LARGEST_OF_FOLD, METRICS
from pamfn.reporting.cells import AVERAGES, MEAN, Cell, Measured, Place, cells_of, ordered
from pamfn.reporting.collect import FinishedJob

Format = Literal["markdown", "latex", "csv", "html"]
OUTSIDE, EQUAL, MISPRINT = "†", "=", "‡"
COST_COLUMNS = ("parameters (M)", "one video (ms)")
TEMPLATE = Path(__file__).with_name("page.html.jinja")

UNENCODABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
"""What no page can hold: control characters but for tab and newline, halves of a character, what is none."""


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
class Cost:
    """What one row of a table costs, ours and the paper's.

    parameters: of every run (data sets may differ). milliseconds: for one video, of the runs that were timed.
    """

    parameters: Sequence[int] = ()
    milliseconds: Sequence[float] = ()
    paper_millions: float | None = None
    paper_milliseconds: float | None = None

    def texts(self, kind: str) -> tuple[str, str]:
        """What stands under `COST_COLUMNS` in a line of ours (`17.96 to 22.71`, `12.3`), of the paper's, or another."""
        if kind == "ours":
            time = f"{median(self.milliseconds):.3g}" if self.milliseconds else "-"
            return span([f"{n / 1e6:.2f}" for n in sorted(self.parameters)]) or "-", time
        if kind == "paper":
            millions, milliseconds = self.paper_millions, self.paper_milliseconds
            return "" if millions is None else f"{millions:.2f}", "" if milliseconds is None else f"{milliseconds:g}"
        return "", ""

    def lines(self, title: str, row: str) -> list[dict[str, object]]:
        """Two lines of CSV, by the names of its columns."""
        ours = ([n / 1e6 for n in self.parameters], self.milliseconds)
        papers = (self.paper_millions, self.paper_milliseconds)
        return [
            {
                **{"table": title, "row": row, "column": "costs", "metric": name, "n": len(values)},
                **{"values": " ".join(map(repr, values)), "mean": median(values) if values else None, "paper": paper},
            }
            for name, values, paper in zip(COST_COLUMNS, ours, papers, strict=True)
        ]


@dataclass(frozen=True)
class BuiltTable:
    """A table, ready to be written.

    frame: formatted; cells: numbers; missing: commands that would complete it; costs: of the rows, if it shows them;
    full: the row that the others are compared with.
    """

    name: str
    title: str
    metric: str
    cells: dict[Place, Cell]
    frame: pd.DataFrame
    notes: list[str]
    missing: list[str] = field(default_factory=list)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    full: str | None = None

    def markdown(self) -> str:
        """The table, its notes as a list, and the commands for what is missing."""
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
        lines: list[dict[str, object]] = [
            {
                **{"table": self.title, "row": cell.row, "column": cell.column, "metric": self.metric, "n": cell.n},
                "values": " ".join(f"{'mean' if s == MEAN else s}:{value!r}" for s, value in cell.values.items()),
                **{"mean": cell.mean, "std": cell.std, "low": cell.low, "high": cell.high, "paper": cell.paper},
                **{"difference": cell.difference, "outside": cell.outside if cell.comparable else None},
                **compared_numbers(cell),
                **{"equal_to": "; ".join(cell.equal_to), "misprint": cell.misprint},
                **folds_numbers(cell),
            }
            for cell in self.cells.values()
        ]
        lines += [line for row, cost in self.costs.items() for line in cost.lines(self.title, row)]
        return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


@dataclass(frozen=True)
class Picture:
    """A figure of a page. png: its bytes in base64."""

    title: str
    caption: str
    png: str


@dataclass(frozen=True)
class Section:
    """A table of a page, its figures, and the finished runs behind its numbers."""

    table: BuiltTable
    pictures: Sequence[Picture] = ()
    jobs: Sequence[FinishedJob] = ()


def page(title: str, sections: Sequence[Section], **report: Any) -> str:
    """One file of HTML that loads nothing. report: what the template shows of a report beside its tables.

    Characters that no page can hold are replaced.
    """
    template = Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True, undefined=StrictUndefined)
    text = template.render(title=title, sections=sections, grouped=grouped, **report)
    return UNENCODABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def grouped(table: BuiltTable) -> list[tuple[str, list[list[str]]]]:
    """A table's lines, each row's label with the cells of its lines (ours, the paper's, ...)."""
    groups: list[tuple[str, list[list[str]]]] = []
    for label, *cells in table.frame.itertuples(index=False, name=None):
        if label or not groups:
            groups.append((label, []))
        groups[-1][1].append(cells)
    return groups


def latex(text: str) -> str:
    """Text as LaTeX source."""
    special = {"\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "$<$", ">": "$>$"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def span(texts: Sequence[str]) -> str:
    """The first and the last of sorted texts, once if they are the same: `17.96 to 22.71`."""
    return " to ".join(dict.fromkeys((texts[0], texts[-1]))) if texts else ""


def build_table(
    layout: Layout,
    measured: Sequence[Measured],
    paper: Mapping[Place, float],
    notes: Sequence[str] = (),
    missing: Sequence[str] = (),
    costs: Mapping[str, Cost] | None = None,
) -> BuiltTable:
    """Put numbers and the paper's figures {(row, column): figure} in their cells; say below what the marks mean.

    costs: {row: what it costs}, for columns of their own.
    """
    columns = ordered(layout.columns)
    extra = [row for row, column in paper if row not in (*layout.rows, *layout.left_out) and column in columns]
    layout = replace(layout, rows=[*layout.rows, *dict.fromkeys(extra)], columns=columns)
    cells, problems = cells_of(layout.metric, layout.rows, columns, layout.full, measured, paper)
    below = [*problems, *legend(layout, list(cells.values()), groups_in(measured)), *notes]
    of_rows = {row: costs.get(row, Cost()) for row in layout.rows} if costs else {}
    frame = framed(layout, cells, of_rows)
    return BuiltTable(
        layout.name, layout.title, layout.metric, cells, frame, below, list(missing), of_rows, layout.full
    )


def groups_in(measured: Sequence[Measured]) -> str:
    """How many groups the test videos are of: `10 groups`; empty where they are independent."""
    counts = sorted({len(set(one.groups.values())) for one in measured if one.groups})
    return f"{span([str(count) for count in counts])} groups" if counts else ""


def framed(layout: Layout, cells: Mapping[Place, Cell], costs: Mapping[str, Cost]) -> pd.DataFrame:
    """The formatted table: for every row a line of ours, and what there is over folds, of the paper, to the full row.

    side_by_side: what stands before the comma in a row's name goes to the columns.
    """
    lines, heads = [], list[str]()
    for label, places in placed(layout).items():
        heads = list(places)
        shown = [cells.get(place) for place in places.values()]
        for kind, text in (("ours", ours), ("folds", of_folds), ("paper", of_paper), ("to full", to_full)):
            texts = ["" if cell is None else text(layout.metric, cell) for cell in shown]
            if kind == "ours" or any(texts):
                of_row = costs[label].texts(kind) if costs else ()
                lines.append([label if kind == "ours" else "", kind, *texts, *of_row])
    return pd.DataFrame(lines, columns=["row", "", *heads, *(COST_COLUMNS if costs else ())], dtype=str)


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
    bounds = "" if math.isnan(cell.low) else f" [{number(metric, cell.low, 2)}, {number(metric, cell.high, 2)}]"
    seeds = "" if MEAN in cell.values else f" ({cell.n})"
    return f"{mean_and_std(metric, cell)}{seeds}{bounds}{f' {EQUAL}' if cell.equal_to else ''}"


def of_folds(metric: str, cell: Cell) -> str:
    """`.910 ± .004 [.87, .95]`"""
    over = cell.over_folds
    if over is None:
        return ""
    std = "" if math.isnan(over.std) else f" ± {number(metric, over.std)}"
    return f"{number(metric, over.mean)}{std} [{number(metric, over.low, 2)}, {number(metric, over.high, 2)}]"


def of_paper(metric: str, cell: Cell) -> str:
    """`.757 (+.163) †`"""
    if math.isnan(cell.paper):
        return ""
    difference = "" if math.isnan(cell.difference) else f" ({number(metric, cell.difference, sign='+')})"
    marks = f" {OUTSIDE}" * cell.outside + f" {MISPRINT}" * (not math.isnan(cell.misprint))
    return f"{number(metric, cell.paper)}{difference}{marks}"


def to_full(metric: str, cell: Cell) -> str:
    """`-.016 [-.04, .01], p .012 (.048)`; without brackets where Holm's correction changes nothing."""
    one = cell.to_full
    if one is None or math.isnan(one.p):
        return ""
    bounds = f"[{number(metric, one.low, 2)}, {number(metric, one.high, 2)}]"
    corrected = "" if one.p_holm == one.p else f" ({p_text(one.p_holm)})"
    return f"{number(metric, one.difference, sign='+')} {bounds}, p {p_text(one.p)}{corrected}"


def p_text(p: float) -> str:
    """`.012`, or `< .001`."""
    return "< .001" if p < 0.001 else decimals(p)


def compared_numbers(cell: Cell) -> dict[str, float | None]:
    """The numbers of a cell's comparison with the full row, by the names of CSV; None without one."""
    numbers = {} if cell.to_full is None else asdict(cell.to_full)
    own = {key: numbers.get(key) for key in ("p", "p_holm")}
    return own | {f"full_{key}": numbers.get(key) for key in ("difference", "low", "high", "detectable")}


def folds_numbers(cell: Cell) -> dict[str, float]:
    """The numbers of a cell over folds, by the names of CSV; none without folds, which then have no columns."""
    return {} if cell.over_folds is None else {f"folds_{key}": x for key, x in asdict(cell.over_folds).items()}


def mean_and_std(metric: str, cell: Cell, sign: str = "") -> str:
    """`.920 ± .004`"""
    std = "" if math.isnan(cell.std) else f" ± {number(metric, cell.std)}"
    return f"{number(metric, cell.mean, sign=sign)}{std}"


def number(metric: str, value: float, digits: int = 3, sign: str = "") -> str:
    """What cannot be above 1 with so many decimals and no zero before them, errors with so many digits."""
    return decimals(value, digits, sign) if METRICS[metric].at_most_one else f"{value:{sign}.{max(digits, 3)}g}"


def decimals(value: float, digits: int = 3, sign: str = "") -> str:
    """`.920`"""
    text = f"{value:{sign}.{digits}f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text


def legend(layout: Layout, cells: Sequence[Cell], groups: str) -> list[str]:
    """What the numbers and the marks in a table mean. groups: what is resampled, where that are not videos."""
    bootstrapped, folds = any(not math.isnan(cell.low) for cell in cells), [c.over_folds for c in cells if c.over_folds]
    independent = f"whole groups of them ({groups})" if groups else "the test videos, taken as independent"
    notes = [
        f"ours: {layout.metric}"
        + " of the predictions of all folds together" * bool(folds)
        + ", mean ± standard deviation over seeds (number of seeds)"
        + f" [95 % interval: percentile bootstrap over {independent}, averaged over the same seeds]" * bootstrapped
        + ("; - is not run." if any(not cell.values for cell in cells) else ".")
    ]
    if folds:
        space = (
            f" (Fisher-z, of {decimals(LARGEST_OF_FOLD, 2)} at most)" if METRICS[layout.metric].is_correlation else ""
        )
        notes.append(f"folds: the mean over folds, each tested by itself{space}; likewise over seeds.")
    if undefined := sum(each.undefined for each in folds):
        notes.append(
            f"WARNING: {undefined} folds have no number (their videos have the same score); left out of folds."
        )
    if any(cell.values and cell.column in AVERAGES for cell in cells):
        averages = " or ".join(", ".join(AVERAGES[column]) for column in layout.columns if column in AVERAGES)
        fisher = ", in Fisher-z space as in the paper" if METRICS[layout.metric].is_correlation else ""
        notes.append(
            f"Averages are over {averages}{fisher}, of the columns' means; their "
            "standard deviation is that of the seeds' own averages."
        )
    if any(not math.isnan(cell.paper) for cell in cells):
        notes.append("paper: the published figure (ours less the paper's).")
    compared = [cell for cell in cells if cell.to_full is not None and not math.isnan(cell.to_full.p)]
    if compared:
        notes += legend_of_comparisons(layout, compared)
    if any(cell.outside for cell in cells):
        notes.append(f"{OUTSIDE} the paper's figure lies outside our interval.")
    notes += [
        f"{MISPRINT} {cell.row}: the paper prints {number(layout.metric, cell.paper)} for {cell.column}, and its own "
        f"figures average to {number(layout.metric, cell.misprint)}."
        for cell in cells
        if not math.isnan(cell.misprint)
    ]
    return notes + equal_rows(cells)


def legend_of_comparisons(layout: Layout, cells: Sequence[Cell]) -> list[str]:
    """What the comparisons with the full row mean, and which differences they could have shown."""
    many = Counter(cell.column for cell in cells).most_common(1)[0][1]
    notes = [
        f"to full: less {layout.full}, with its 95 % interval and two-sided p of the paired bootstrap over the same "
        "test videos"
        + f" (in brackets by Holm for the {many} rows that are compared in a column)" * (many > 1)
        + ". It is about these trained networks on other videos; what other seeds would change is not in it."
    ]
    shown = {}
    for cell in cells:
        if cell.to_full is not None:
            shown.setdefault(cell.column, []).append(cell.to_full.detectable)
    each = ", ".join(f"{column} {number(layout.metric, median(values), 2)}" for column, values in shown.items())
    notes.append(f"A difference from {layout.full} that such test videos show in four of five cases (p < .05): {each}.")
    notes += [
        f"to full of {cell.row}, {cell.column}: over seed{'s' * (len(cell.to_full.seeds) > 1)} "
        f"{', '.join(map(str, cell.to_full.seeds))}, which both rows have."
        for cell in cells
        if cell.to_full is not None and cell.to_full.seeds
    ]
    return notes


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
