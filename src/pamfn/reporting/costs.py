"""What a row of a table costs: parameters and the time for one video, ours beside the paper's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

COST_COLUMNS = ("parameters (M)", "one video (ms)")


@dataclass(frozen=True)
class Cost:
    """Of one row. parameters: of every run (data sets may differ); milliseconds: of the runs that were timed."""

    parameters: Sequence[int] = ()
    milliseconds: Sequence[float] = ()
    paper_millions: float | None = None
    paper_milliseconds: float | None = None

    def texts(self, kind: str) -> tuple[str, str]:
        """What stands under `COST_COLUMNS` in a line of ours (`17.96 to 22.71`, `12.3`), of the paper's, or of p."""
        if kind == "ours":
            sizes = list(dict.fromkeys(f"{n / 1e6:.2f}" for n in sorted(self.parameters)))
            time = f"{median(self.milliseconds):.3g}" if self.milliseconds else "-"
            return " to ".join(dict.fromkeys((sizes[0], sizes[-1]))) if sizes else "-", time
        if kind == "paper":
            millions, milliseconds = self.paper_millions, self.paper_milliseconds
            return "" if millions is None else f"{millions:.2f}", "" if milliseconds is None else f"{milliseconds:g}"
        return "", ""

    def lines(self, title: str, row: str) -> list[dict[str, object]]:
        """Two lines of CSV, by the names of its columns."""
        millions = [n / 1e6 for n in self.parameters]
        ours = zip(COST_COLUMNS, (millions, self.milliseconds), strict=True)
        papers = (self.paper_millions, self.paper_milliseconds)
        return [
            {
                **{"table": title, "row": row, "column": "costs", "metric": name, "n": len(values)},
                **{"values": " ".join(map(repr, values)), "mean": median(values) if values else None, "paper": paper},
            }
            for (name, values), paper in zip(ours, papers, strict=True)
        ]


def cost_notes(costs: Mapping[str, Cost], machines: str) -> list[str]:
    """What the numbers mean, and where they were measured."""
    told = ["Parameters: all of a network's, its branches included."] if costs else []
    if any(cost.milliseconds for cost in costs.values()):
        told.append(
            "One video: milliseconds for a whole test video alone, features in place, median of 30 videos in every run "
            f"and over the runs, measured at the end of each on {machines}. The paper's are on its own machine."
        )
    if any(cost.parameters and not cost.milliseconds for cost in costs.values()):
        told.append("One video: - where the runs are older than this measurement.")
    return told
