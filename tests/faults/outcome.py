"""What a part of the campaign counts."""

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """Cases tried, and in how many something was lost, something was left behind, something was wrong."""

    tried: int = 0
    lost: int = 0
    left_behind: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Outcome") -> None:
        """Counts the other's cases too."""
        self.tried += other.tried
        self.lost += other.lost
        self.left_behind += other.left_behind
        self.wrong += other.wrong
        self.notes += other.notes
