"""Tables as one page of HTML, alone or with all else that a report has, in one file that loads nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template

from pamfn.reporting.collect import Answer
from pamfn.reporting.render import BuiltTable, page_text

TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True)
class Picture:
    """A figure. png: its bytes in base64."""

    title: str
    caption: str
    png: str


@dataclass(frozen=True)
class Section:
    """One table: as built, its figures, and the finished runs behind its numbers."""

    table: BuiltTable
    pictures: list[Picture] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


def page(title: str, sections: Sequence[Section], **report: Any) -> str:
    """The page as HTML. report: what the template shows of a report beside its tables; without, these alone."""
    template = Template(TEMPLATE.read_text(encoding="utf-8"), autoescape=True, undefined=StrictUndefined)
    return page_text(template.render(title=title, sections=sections, grouped=grouped, **report))


def grouped(table: BuiltTable) -> list[tuple[str, list[list[str]]]]:
    """A table's lines, each row's label with the cells of its lines (ours, the paper's, p)."""
    groups: list[tuple[str, list[list[str]]]] = []
    for label, *cells in table.frame.itertuples(index=False, name=None):
        if label or not groups:
            groups.append((label, []))
        groups[-1][1].append(cells)
    return groups
