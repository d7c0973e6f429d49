"""How two sides are timed against each other: taking turns, first one first, then the other."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.counts import Counts, counted
from benchmarks.devices import CPU, Call, Mode, seconds


@dataclass
class Row:
    """One comparison: what every call of either side took, and what one call counts as (None: not counted).

    unit: of the numbers; empty for seconds, by the clock of the modes' device.
    notes: what else was found, a sentence each.
    """

    title: str
    reference: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    modes: tuple[Mode, Mode] = (CPU, CPU)
    reference_counts: Counts | None = None
    our_counts: Counts | None = None
    unit: str = ""
    notes: list[str] = field(default_factory=list)

    def ratios(self) -> list[float]:
        """How many times faster the library was, pair by pair."""
        return [a / b for a, b in zip(self.reference, self.ours, strict=True)]

    def shares(self, rate: float) -> str:
        """Operations of either side and the share of `rate` (a second) at which it does the reference's work."""
        if self.reference_counts is None or self.our_counts is None:
            return "-"
        work = self.reference_counts.operations
        speeds = (work / statistics.median(times) / rate for times in (self.reference, self.ours))
        done = f"{work / 1e9:.0f}, ours {self.our_counts.operations / 1e9:.0f}"
        return f"{done}; {', ours '.join(f'{speed:.0%}' for speed in speeds)}"


def compare(
    title: str, reference: Call, ours: Call, pairs: int, *, modes: tuple[Mode, Mode] = (CPU, CPU), count: bool = False
) -> Row:
    """Both sides in turn, after one call each that is not timed (what it does may be counted)."""
    row = Row(title, modes=modes)
    if count:
        row.reference_counts, row.our_counts = counted(reference), counted(ours)
    else:
        for call in (reference, ours):
            call()
    take_turns(row, pairs, lambda: seconds(reference, modes[0].device), lambda: seconds(ours, modes[1].device))
    return row


def take_turns(row: Row, pairs: int, reference: Callable[[], float], ours: Callable[[], float]) -> None:
    """Adds the seconds that either side says it took to a row."""
    for i in range(pairs):
        sides = [(reference, row.reference), (ours, row.ours)]
        for timed, times in sides if i % 2 == 0 else reversed(sides):
            times.append(timed())
