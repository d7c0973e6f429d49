"""What a campaign found."""

from dataclasses import dataclass, field


@dataclass
class Outcome:
    tried: int = 0
    lost: int = 0
    left_behind: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)
