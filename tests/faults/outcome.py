"""What a campaign of faults found."""

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """Counts over the trials of a campaign.

    lost: trials that did not end with all their results, or did again what they had saved. left_behind: files that
    should not be there at the end. wrong: results with other numbers than an undisturbed run's.
    """

    tried: int = 0
    lost: int = 0
    left_behind: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)
